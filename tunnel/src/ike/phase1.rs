//! Main Modes and the ISAKMP SAs that come of them: what is begun when, what takes over, and what goes (RFC 2408 section 5.3, RFC
//! 2409 section 5.4, RFC 3947 section 4).
//!
//! A new SA takes over at once and the one before it stays for a while. When both ends begin at the same time, both new SAs are
//! kept; which of them is the redundant one follows from values that both ends know.

use std::time::{Duration, Instant};

use super::error::Error;
use super::main_mode::{Choice, Context, Established, MainMode, Role, Step, message_id};
use super::message::{Cookies, Header};
use super::nat::Endpoint;
use super::payload::Identity;
use super::proposal::LEAST_LIFETIME;
use super::quick_mode::QuickMode;
use super::registry::{ExchangeType, PayloadType, ProtocolId};
use super::retransmission::{Answered, MAX_REPEATS};
use super::sa::{CROSSING, IsakmpSa, RETRY, grace, postponed, renewal};
use super::vendor::Abilities;
use super::{Event, Ike, Keys, Timer};
use crate::buffer::Port;

/// Half-open Main Modes of the peer are dropped after this time.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// No Main Mode of ours takes longer, even if the peer answers each message at the last moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most half-open Main Modes of the peer; an honest one has a single one.
const MAX_HALF_OPEN: usize = 4;

/// The most ISAKMP SAs with one peer: the one in use, the one before it, and collisions.
const MAX_ISAKMP: usize = 8;

/// The time to which the number of unprotected notifications is related.
const COMPLAINTS_WINDOW: Duration = Duration::from_secs(60);

/// Unprotected notifications that were sent: [`MAX_REPEATS`] in each window at most.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    window: Option<Instant>,
    sent: u8,
}

impl Complaints {
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|begun| now >= begun + COMPLAINTS_WINDOW) {
            (self.window, self.sent) = (Some(now), 0);
        }
        let allowed = self.sent < MAX_REPEATS;
        self.sent = self.sent.saturating_add(1);
        allowed
    }
}

impl Ike {
    /// The ISAKMP SA that protects what this end begins.
    pub(super) fn current(&self) -> Option<&IsakmpSa> {
        let complete = || self.isakmp.iter().rev().filter(|sa| !sa.xauth.is_awaited());
        complete().find(|sa| !sa.superseded).or_else(|| complete().next())
    }

    //= rfc2409 5 "Implementations MUST NOT switch exchange types in the middle of an exchange."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, an_answer_in_another_exchange_is_none
    pub(super) fn handle_main_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let fits = |negotiation: &&mut MainMode| negotiation.exchange == header.exchange && negotiation.is_for(header);
        let Some(negotiation) = self.negotiations.iter_mut().find(fits) else {
            return self.handle_other_main_mode(now, port, header, parts);
        };
        if negotiation.disregards(port, parts[1]) {
            return;
        }
        if let Some(answered) = negotiation.answered.as_mut().filter(|answered| answered.is_for(parts[1])) {
            return self.transmits.extend(again(answered, port));
        }
        let id = negotiation.id;
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        match negotiation.handle(&mut context, now, port, header, parts) {
            Ok(Step::Send(reply)) => {
                let port = negotiation.port;
                self.timers.stop(Timer::Hint(id));
                self.arm_main_mode(id);
                self.transmit(port, reply);
            }
            Ok(Step::Established(established)) => {
                let port = negotiation.port;
                let reply = established.answered.as_ref().map(|answered| answered.response().to_vec());
                if let Some(reply) = reply {
                    self.transmit(port, reply);
                }
                self.main_mode_established(now, id, *established);
            }
            Ok(Step::Stranger { error, farewell }) => {
                // Twice, because nobody acknowledges it.
                self.transmit(port, farewell.clone());
                self.transmit(port, farewell);
                self.fail_main_mode(now, id, error);
            }
            Err(error) => self.refuse_main_mode(now, port, id, error),
        }
    }

    /// A message that belongs to no Main Mode: the first of a new one, or one that the peer has no answer to yet.
    fn handle_other_main_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let aggressive = header.exchange == ExchangeType::AGGRESSIVE;
        if header.cookies.responder == [0; 8] && !header.is_encrypted() && !aggressive {
            return self.answer_main_mode(now, port, header, parts);
        }
        // Message 2 of Aggressive Mode is older than the float to port 4500, and the answer to it is not.
        let fits = |sa: &&mut IsakmpSa| sa.cookies == header.cookies && (aggressive || !sa.is_stale(port));
        let Some(sa) = self.isakmp.iter_mut().find(fits) else { return };
        let port = if aggressive { sa.port } else { port };
        if let Some(answered) = sa.answered.as_mut().filter(|answered| answered.is_for(parts[1])) {
            self.transmits.extend(again(answered, port));
        }
    }

    fn refuse_main_mode(&mut self, now: Instant, port: Port, id: u32, error: Error) {
        let Some(negotiation) = self.negotiations.iter().find(|negotiation| negotiation.id == id) else { return };
        let (role, cookies) = (negotiation.role, negotiation.cookies);
        match error {
            error if error.is_final() => {
                if let Some(kind) = error.notification().filter(|_| role == Role::Responder) {
                    self.inform_plain(now, cookies, port, kind);
                }
                self.fail_main_mode(now, id, error);
            }
            Error::Malformed(error) => self.notice(format!("a Main Mode message is ignored: {error}")),
            Error::Undecryptable if role == Role::Initiator => {
                self.suspect(now, id, Error::AuthenticationFailed { notification: None });
            }
            error if role == Role::Initiator => self.suspect(now, id, error),
            error => {
                if let Some(kind) = error.notification() {
                    self.inform_plain(now, cookies, port, kind);
                }
                self.notice(format!("a Main Mode message of the peer is refused: {error}"));
            }
        }
    }

    //= rfc3947 4 "Similarly, if the responder has to rekey the Phase 1 SA, then the rekey negotiation MUST be started by using UDP(4500,Y)."
    //= test: phase_1_is_renewed_by_either_side_and_the_esp_sas_stay, both_phases_are_renewed_and_a_move_is_followed_over_ipv6
    /// Begins a Main Mode unless one of ours is under way, or the XAUTH behind it.
    pub(super) fn begin_main_mode(&mut self, now: Instant) {
        if self.negotiations.iter().any(|negotiation| negotiation.role == Role::Initiator)
            || self.isakmp.iter().any(|sa| sa.role == Role::Initiator && sa.xauth.is_awaited())
        {
            return;
        }
        let rekey = self.is_established() || !self.pairs.is_empty();
        // RFC 3947 section 4: with a NAT the renewal begins on port 4500.
        let port = self.current().map_or(if self.floated { Port::NatT } else { Port::Ike }, |sa| sa.port);
        let initial_contact = self.config.initial_contact && !rekey && !self.contacted;
        let id = self.fresh_id();
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        let before = self.isakmp.last().map(|sa| sa.authentication.clone());
        let begun = MainMode::initiate(&mut context, now, id, port, before, [rekey, initial_contact]);
        let (mut negotiation, message) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.begin_failed(now, error),
        };
        negotiation.dialled = self.dialled(port);
        self.begin_negotiation(negotiation);
        self.arm_main_mode(id);
        self.transmit(port, message);
    }

    /// This end as a peer that dialled it knows it: by what it called the responder of its Quick Mode.
    fn dialled(&self, port: Port) -> Option<Endpoint> {
        let terms = self.pairs.iter().rev().find_map(|pair| pair.terms.as_ref())?;
        match terms.selectors.last().map(|id| Identity::read(id)) {
            Some(Identity::Address(address)) => Some(Endpoint::well_known(address, port)),
            _ => None,
        }
    }

    /// Takes message 1 of the peer.
    fn answer_main_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let initiator = header.cookies.initiator;
        let known = self.negotiations.iter_mut().find(|negotiation| negotiation.cookies.initiator == initiator);
        if let Some(known) = known {
            // An initiator's cookie that is ours is our own message 1, sent back.
            if let Some(answered) = known.answered.as_mut().filter(|answered| answered.is_for(parts[1])) {
                self.transmits.extend(again(answered, port));
            }
            return;
        }
        // The same message 1 once more after its Main Mode is complete: an old duplicate.
        if self.isakmp.iter().any(|sa| sa.cookies.initiator == initiator) {
            return;
        }
        let half_open = || self.negotiations.iter().filter(|negotiation| negotiation.role == Role::Responder);
        if half_open().count() >= MAX_HALF_OPEN
            && let Some(oldest) = half_open().map(|negotiation| negotiation.id).min()
        {
            self.drop_negotiation(oldest);
        }
        let id = self.fresh_id();
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        match MainMode::respond(&mut context, now, id, port, header, parts) {
            Ok((negotiation, response)) => {
                self.begin_negotiation(negotiation);
                self.timers.set(Timer::MainMode(id), now + HALF_OPEN);
                self.transmit(port, response);
            }
            Err(error) => {
                if let Some(kind) = error.notification() {
                    self.inform_plain(now, header.cookies, port, kind);
                }
                self.notice(format!("a Main Mode of the peer is refused: {error}"));
            }
        }
    }

    /// Takes over a Main Mode of the peer whose messages 1 and 2 were exchanged without this relation; `sa` is the body of the SA
    /// payload of message 1.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        port: Port,
        cookies: Cookies,
        sa: &[u8],
        choice: &Choice,
        abilities: Abilities,
    ) {
        let id = self.fresh_id();
        self.begin_negotiation(MainMode::admit(now, id, port, cookies, sa, choice, abilities));
        self.timers.set(Timer::MainMode(id), now + HALF_OPEN);
    }

    fn begin_negotiation(&mut self, negotiation: MainMode) {
        self.report_cookie(negotiation.cookies, negotiation.role, true);
        self.negotiations.push(negotiation);
    }

    /// Sets the timer of one of our Main Modes to the next repetition of its message, or to its end.
    fn arm_main_mode(&mut self, id: u32) {
        let negotiation = self.negotiations.iter().find(|negotiation| negotiation.id == id);
        if let Some((negotiation, due)) =
            negotiation.and_then(|found| Some((found, found.retransmission.as_ref()?.due())))
        {
            self.timers.set(Timer::MainMode(id), due.min(negotiation.begun + PATIENCE));
        }
    }

    /// Forgets a Main Mode that did not complete.
    fn drop_negotiation(&mut self, id: u32) -> Option<MainMode> {
        let negotiation = self.take_negotiation(id)?;
        self.report_cookie(negotiation.cookies, negotiation.role, false);
        Some(negotiation)
    }

    fn take_negotiation(&mut self, id: u32) -> Option<MainMode> {
        self.timers.stop(Timer::MainMode(id));
        self.timers.stop(Timer::Hint(id));
        let index = self.negotiations.iter().position(|negotiation| negotiation.id == id)?;
        Some(self.negotiations.remove(index))
    }

    /// The timer of a Main Mode: the message again, or the end.
    pub(super) fn main_mode_timer(&mut self, now: Instant, id: u32) {
        let Some(negotiation) = self.negotiations.iter_mut().find(|negotiation| negotiation.id == id) else { return };
        let patient = now < negotiation.begun + PATIENCE;
        let retransmission = negotiation.retransmission.as_mut().filter(|_| patient);
        match retransmission.and_then(|retransmission| retransmission.again(now, &mut self.rng)) {
            Some(transmit) => {
                self.retransmissions = self.retransmissions.saturating_add(1);
                self.transmits.push_back(transmit);
                self.arm_main_mode(id);
            }
            None => {
                let error = negotiation.timeout();
                self.fail_main_mode(now, id, error);
            }
        }
    }

    pub(super) fn hint_timer(&mut self, now: Instant, id: u32) {
        let hint =
            self.negotiations.iter().find(|negotiation| negotiation.id == id).and_then(|found| found.hint.clone());
        if let Some(error) = hint {
            self.fail_main_mode(now, id, error);
        }
    }

    fn fail_main_mode(&mut self, now: Instant, id: u32, error: Error) {
        let Some(negotiation) = self.drop_negotiation(id) else { return };
        if negotiation.role == Role::Responder {
            return self.notice(format!("a Main Mode of the peer did not complete: {error}"));
        }
        self.begin_failed(now, error);
    }

    /// A Main Mode of ours did not come about.
    pub(super) fn begin_failed(&mut self, now: Instant, error: Error) {
        if self.pairs.is_empty() && (!self.is_established() || !self.waiting.is_empty()) {
            return self.fail(error);
        }
        // What exists goes on; the next attempt follows as long as there is something to renew.
        self.events.push_back(Event::RekeyFailed(error));
        match self.current().map(|sa| sa.id) {
            Some(isakmp) => self.timers.set(Timer::RenewIsakmp(isakmp), now + RETRY),
            None => self.timers.set(Timer::Recover, now + RETRY),
        }
    }

    /// A Main Mode is complete.
    fn main_mode_established(&mut self, now: Instant, id: u32, established: Established) {
        let Some(negotiation) = self.take_negotiation(id) else { return };
        let rekey = negotiation.rekey || self.is_established();
        let initial_contact = established.initial_contact;
        let mut sa = IsakmpSa::new(now, id, &negotiation, established);
        self.export_isakmp(&sa);
        if let Some(status) = negotiation.status_apart() {
            let message_id = message_id(&mut self.rng);
            sa.remember(message_id);
            let message = sa.keys.informational(sa.cookies, &sa.last_block, message_id, PayloadType::N, &status);
            self.transmit(sa.port, message);
        }
        if sa.xauth.is_awaited() {
            self.begin_xauth(now, sa);
        } else {
            self.isakmp_established(now, sa, rekey, initial_contact);
        }
    }

    /// Hands out what decrypts a capture.
    fn export_isakmp(&mut self, sa: &IsakmpSa) {
        if self.config.export_keys {
            let encryption_key = sa.keys.encryption_key();
            self.events.push_back(Event::Keys(Keys { initiator_cookie: sa.cookies.initiator, encryption_key }));
        }
    }

    /// Phase 1 is complete, with all that follows it.
    pub(super) fn isakmp_established(&mut self, now: Instant, sa: IsakmpSa, rekey: bool, initial_contact: bool) {
        self.events.push_back(Event::IsakmpEstablished {
            proposal: sa.proposal,
            nat: sa.nat,
            encapsulated: sa.abilities.flavour.is_some(),
            peer_id: sa.peer_id.clone(),
            authentication: sa.authentication.clone(),
            lifetime: sa.expires.saturating_duration_since(now),
            rekey,
            initial_contact,
        });
        self.add_isakmp(now, sa);
    }

    /// Takes a new ISAKMP SA into use.
    pub(super) fn add_isakmp(&mut self, now: Instant, mut sa: IsakmpSa) {
        let id = sa.id;
        sa.superseded = !self.supersede_isakmp(now, &sa);
        let life = sa.expires.saturating_duration_since(now);
        let leads = sa.role == Role::Initiator;
        if sa.superseded {
            self.timers.set(Timer::ExpireIsakmp(id), sa.expires.min(now + grace(leads)));
        } else {
            self.timers.set(Timer::RenewIsakmp(id), now + renewal(life, leads, &mut self.rng));
            self.timers.set(Timer::ExpireIsakmp(id), sa.expires);
        }
        self.floated |= sa.port == Port::NatT;
        self.contacted = true;
        if self.offer.is_some() {
            // What the peer asked for is what it is asked for when this end renews: it may accept nothing else.
            self.config.proposals = vec![sa.proposal];
        }
        self.make_room(now);
        self.isakmp.push(sa);
        self.heard(now);
        self.watch(now);
        self.keep_alive(now);
        self.begin_waiting(now);
    }

    /// Lets the oldest ISAKMP SA go if there are too many; at first one that nothing has come of yet.
    pub(super) fn make_room(&mut self, now: Instant) {
        let waiting = self.isakmp.iter().find(|sa| sa.xauth.is_awaited());
        if self.isakmp.len() >= MAX_ISAKMP
            && let Some(oldest) = waiting.or_else(|| self.isakmp.first()).map(|sa| sa.id)
        {
            self.remove_isakmp(now, oldest, true);
        }
    }

    /// Lets a new ISAKMP SA take over from those before it; false if it is the redundant one of a collision.
    fn supersede_isakmp(&mut self, now: Instant, new: &IsakmpSa) -> bool {
        let leads = new.role == Role::Initiator;
        let mut takes_over = true;
        for other in self.isakmp.iter_mut().filter(|other| !other.superseded && !other.xauth.is_awaited()) {
            let collision = other.role != new.role && other.established + CROSSING >= new.begun;
            if collision && other.cookies.initiator > new.cookies.initiator {
                takes_over = false;
            } else {
                other.superseded = true;
                let grace = grace(if collision { other.role == Role::Initiator } else { leads });
                self.timers.stop(Timer::RenewIsakmp(other.id));
                self.timers.set(Timer::ExpireIsakmp(other.id), other.expires.min(now + grace));
            }
        }
        takes_over
    }

    pub(super) fn renew_isakmp(&mut self, now: Instant, id: u32) {
        if self.isakmp.iter().any(|sa| sa.id == id && !sa.superseded) {
            self.begin_main_mode(now);
        }
    }

    /// Renews phase 1 when nearly all Message IDs that can be remembered are used.
    pub(super) fn renew_worn_isakmp(&mut self, now: Instant) {
        if self.current().is_some_and(|sa| !sa.superseded && sa.is_worn()) {
            self.begin_main_mode(now);
        }
    }

    pub(super) fn expire_isakmp(&mut self, now: Instant, id: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == id) else { return };
        if let Some(until) = postponed(sa.used, sa.expires, now).filter(|_| sa.superseded) {
            return self.timers.set(Timer::ExpireIsakmp(id), until);
        }
        self.remove_isakmp(now, id, true);
        if self.isakmp.is_empty() && self.wanted && !self.pairs.is_empty() {
            self.begin_main_mode(now);
        }
    }

    /// The peer says that an ISAKMP SA lives shorter than agreed.
    pub(super) fn shorten_isakmp(&mut self, now: Instant, id: u32, life: Duration) {
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == id && !sa.superseded && !sa.xauth.is_awaited()) else {
            return;
        };
        let life = life.max(LEAST_LIFETIME);
        let expires = (sa.established + life).max(now + LEAST_LIFETIME);
        if expires < sa.expires {
            sa.expires = expires;
            let leads = sa.role == Role::Initiator;
            let renew = sa.established + renewal(life, leads, &mut self.rng);
            self.timers.set(Timer::RenewIsakmp(id), renew.max(now));
            self.timers.set(Timer::ExpireIsakmp(id), expires);
        }
    }

    pub(super) fn remove_isakmp(&mut self, now: Instant, id: u32, tell: bool) {
        if tell && let Some(spi) = self.isakmp.iter().find(|sa| sa.id == id).map(|sa| sa.cookies.spi()) {
            self.inform_delete(id, ProtocolId::ISAKMP, &spi);
        }
        if let Some(index) = self.isakmp.iter().position(|sa| sa.id == id) {
            let gone = self.isakmp.remove(index);
            self.report_cookie(gone.cookies, gone.role, false);
        }
        self.timers.stop(Timer::RenewIsakmp(id));
        self.timers.stop(Timer::ExpireIsakmp(id));
        self.timers.stop(Timer::Xauth(id));
        self.transactions.retain(|transaction| transaction.isakmp != id);
        // What was under way under its protection begins again under another.
        for replaces in self.drop_quick_modes(id) {
            self.begin_quick_mode(now, replaces);
        }
    }

    /// Forgets the Quick Modes of an ISAKMP SA; returns what those that are not complete were to replace.
    fn drop_quick_modes(&mut self, isakmp: u32) -> Vec<Option<u32>> {
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.quick_modes).into_iter().partition(|quick_mode| quick_mode.isakmp == isakmp);
        self.quick_modes = stay;
        gone.iter().for_each(|quick_mode| self.timers.stop(Timer::QuickMode(quick_mode.id)));
        gone.iter().filter(|quick_mode| quick_mode.is_open()).map(|quick_mode| quick_mode.replaces).collect()
    }

    /// The peer deleted an ISAKMP SA.
    pub(super) fn isakmp_deleted(&mut self, now: Instant, id: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == id) else { return };
        if sa.xauth.is_awaited() {
            return self.xauth_deleted(now, id);
        }
        let established = sa.established;
        if self.isakmp.len() > 1 {
            return self.remove_isakmp(now, id, false);
        }
        let unfinished = self.drop_quick_modes(id);
        self.remove_isakmp(now, id, false);
        if !self.pairs.is_empty() {
            // A phase 1 that ends takes no phase 2 with it; a new one is wanted for the next renewal.
            self.notice("the peer deleted the ISAKMP SA; the ESP SAs stay".to_owned());
            self.waiting.extend(unfinished);
            self.recover_later(now, now.saturating_duration_since(established));
        } else if !unfinished.is_empty() {
            self.fail(Error::PeerDeleted);
        } else {
            self.events.push_back(Event::PeerDeletedIsakmp);
            self.shut();
        }
    }

    /// Begins anew after a pause what the peer took away after it had lived for `lived`.
    pub(super) fn recover_later(&mut self, now: Instant, lived: Duration) {
        if self.wanted && !self.closed {
            self.timers.set(Timer::Recover, now + self.backoff.next(lived));
        }
    }

    /// The peer took away what is wanted and is still there: begin anew.
    pub(super) fn recover(&mut self, now: Instant) {
        if !self.wanted || self.closed {
            return;
        }
        if !self.has_current_pair() {
            self.begin_quick_mode(now, None);
        } else if self.isakmp.is_empty() {
            self.begin_main_mode(now);
        }
    }

    /// Whether one of our Quick Modes is under way.
    pub(super) fn has_open_quick_mode(&self) -> bool {
        self.quick_modes.iter().any(QuickMode::is_open)
    }
}

/// The answer to a duplicate, if it is not asked for too often.
fn again(answered: &mut Answered, port: Port) -> Option<super::Transmit> {
    answered.again().map(|message| super::Transmit::Message { port, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprotected_notifications_are_limited_in_each_minute() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let allowed = |complaints: &mut Complaints, now| (0..1000).filter(|_| complaints.allow(now)).count();
        assert_eq!(allowed(&mut complaints, start), 10);
        assert_eq!(allowed(&mut complaints, start + Duration::from_secs(59)), 0);
        assert_eq!(allowed(&mut complaints, start + Duration::from_secs(60)), 10);
    }
}
