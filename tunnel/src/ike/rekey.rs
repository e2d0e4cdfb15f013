//! From one SA to the next: what is begun when, what takes over, and what goes (RFC 2408 section 5.3, RFC 2409 section 9, RFC 3947
//! section 4).
//!
//! A new SA takes over at once and the one before it still receives for a while. When both ends begin at the same time, both new
//! SAs are kept; which of them is the redundant one follows from values that both ends know, and the end that began it deletes it.

use std::time::{Duration, Instant};

use super::error::Error;
use super::main_mode::{Context, Established, MainMode, Role};
use super::payload::Notification;
use super::quick_mode::{NewPair, QuickMode};
use super::registry::{PayloadType, ProtocolId};
use super::sa::{IsakmpSa, Pair, renewal};
use super::{Event, Ike, Keys, Sa, Timer};
use crate::buffer::Port;

/// How long the SA before the last one still receives: far more than any packet is under way.
const GRACE: Duration = Duration::from_secs(30);

/// The pause before a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The pause before something new is begun after the peer has deleted the last SA: when it hangs up, the next Delete comes first.
const RECOVERY: Duration = Duration::from_secs(1);

/// What the peer began this soon after an SA was established may have begun before it knew of it: longer than any message is under
/// way, and far shorter than any lifetime.
const CROSSING: Duration = Duration::from_secs(1);

/// How long a complete Quick Mode is remembered to answer duplicates: a retransmission cycle of the peer.
const MEMORY: Duration = Duration::from_secs(60);

/// Half-open Main Modes of the peer are dropped after this time.
const HALF_OPEN: Duration = Duration::from_secs(30);

/// The most half-open Main Modes of the peer; an honest one has a single one.
const MAX_HALF_OPEN: usize = 4;

/// The most ISAKMP SAs with one peer: the one in use, the one before it, and collisions.
const MAX_ISAKMP: usize = 8;

/// The most pairs of ESP SAs with one peer: as above, with room for a peer that renews every few seconds.
pub const MAX_PAIRS: usize = 16;

/// The most Quick Modes that are remembered at a time.
const MAX_QUICK_MODES: usize = 32;

impl Ike {
    /// The ISAKMP SA that protects what this end begins.
    pub(super) fn current(&self) -> Option<&IsakmpSa> {
        self.isakmp.iter().rev().find(|sa| !sa.superseded).or_else(|| self.isakmp.last())
    }

    // Phase 1.

    /// Begins a Main Mode unless one of ours is under way.
    pub(super) fn begin_main_mode(&mut self, now: Instant) {
        if self.negotiations.iter().any(|negotiation| negotiation.role == Role::Initiator) {
            return;
        }
        let rekey = !self.isakmp.is_empty() || !self.pairs.is_empty();
        // RFC 3947 section 4: with a NAT the renewal begins on port 4500.
        let port = self.current().map_or(if self.floated { Port::NatT } else { self.config.begin_on }, |sa| sa.port);
        let initial_contact = self.config.initial_contact && !rekey && !self.contacted;
        let id = self.fresh_id();
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        let (negotiation, message) = MainMode::initiate(&mut context, now, id, port, [rekey, initial_contact]);
        self.arm_main_mode(&negotiation);
        self.negotiations.push(negotiation);
        self.transmit(port, message);
    }

    /// Takes message 1 of the peer.
    pub(super) fn answer_main_mode(
        &mut self,
        now: Instant,
        port: Port,
        header: &super::message::Header,
        parts: [&[u8]; 2],
    ) {
        let known = self.negotiations.iter().find(|negotiation| {
            negotiation.role == Role::Responder && negotiation.cookies.initiator == header.cookies.initiator
        });
        if let Some(known) = known {
            let again = known.duplicate(parts[1]).map(<[u8]>::to_vec);
            if let Some(again) = again {
                self.transmit(port, again);
            }
            return;
        }
        // The same message 1 once more after its Main Mode is complete: an old duplicate.
        if self.isakmp.iter().any(|sa| sa.cookies.initiator == header.cookies.initiator) {
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
                self.negotiations.push(negotiation);
                self.timers.set(Timer::MainMode(id), now + HALF_OPEN);
                self.transmit(port, response);
            }
            Err(error) => {
                if let Some(kind) = error.notification() {
                    self.inform_plain(header.cookies, port, kind);
                }
                self.notice(format!("a Main Mode of the peer is refused: {error}"));
            }
        }
    }

    fn arm_main_mode(&mut self, negotiation: &MainMode) {
        if let Some(retransmission) = &negotiation.retransmission {
            self.timers.set(Timer::MainMode(negotiation.id), retransmission.due());
        }
    }

    /// Sets the timer of a Main Mode after a step; message 5 goes out on port 4500.
    pub(super) fn rearm_main_mode(&mut self, index: usize) {
        if let Some(negotiation) = self.negotiations.get(index) {
            if let Some(retransmission) = &negotiation.retransmission {
                self.timers.set(Timer::MainMode(negotiation.id), retransmission.due());
            }
            self.timers.stop(Timer::Hint(negotiation.id));
        }
    }

    pub(super) fn drop_negotiation(&mut self, id: u32) -> Option<MainMode> {
        self.timers.stop(Timer::MainMode(id));
        self.timers.stop(Timer::Hint(id));
        let index = self.negotiations.iter().position(|negotiation| negotiation.id == id)?;
        Some(self.negotiations.remove(index))
    }

    /// The timer of a Main Mode: the message again, or the end.
    pub(super) fn main_mode_timer(&mut self, now: Instant, id: u32) {
        let Some(index) = self.negotiations.iter().position(|negotiation| negotiation.id == id) else { return };
        let Some(negotiation) = self.negotiations.get_mut(index) else { return };
        match negotiation.retransmission.as_mut().and_then(|retransmission| retransmission.again(now)) {
            Some(transmit) => {
                self.retransmissions = self.retransmissions.saturating_add(1);
                self.transmits.push_back(transmit);
                let again =
                    negotiation.retransmission.as_ref().map_or(now + RETRY, |retransmission| retransmission.due());
                self.timers.set(Timer::MainMode(id), again);
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

    pub(super) fn fail_main_mode(&mut self, now: Instant, id: u32, error: Error) {
        let Some(negotiation) = self.drop_negotiation(id) else { return };
        if negotiation.role == Role::Responder {
            return self.notice(format!("a Main Mode of the peer did not complete: {error}"));
        }
        if self.pairs.is_empty() && (self.isakmp.is_empty() || self.waiting.is_some()) {
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
    pub(super) fn main_mode_established(&mut self, now: Instant, id: u32, established: Established) {
        let Some(negotiation) = self.drop_negotiation(id) else { return };
        if established.initial_contact {
            self.notice("the peer says that this is its first contact".to_owned());
        }
        let sa = IsakmpSa::new(now, id, &negotiation, established);
        let rekey = negotiation.rekey || !self.isakmp.is_empty();
        let leads = sa.role == Role::Initiator;
        let mut superseded = false;
        for other in self.isakmp.iter_mut().filter(|other| !other.superseded) {
            let collision = other.role != sa.role && other.established + CROSSING >= sa.begun;
            if collision && other.cookies.initiator > sa.cookies.initiator {
                superseded = true;
            } else {
                other.superseded = true;
                other.deletes = if collision { other.role == Role::Initiator } else { leads };
                let grace = if other.deletes { GRACE } else { GRACE * 2 };
                self.timers.stop(Timer::RenewIsakmp(other.id));
                self.timers.set(Timer::ExpireIsakmp(other.id), other.expires.min(now + grace));
            }
        }
        let mut sa = sa;
        let life = sa.expires.saturating_duration_since(now);
        if superseded {
            sa.superseded = true;
            sa.deletes = leads;
            self.timers.set(Timer::ExpireIsakmp(id), now + if leads { GRACE } else { GRACE * 2 });
        } else {
            self.timers.set(Timer::RenewIsakmp(id), now + renewal(life, leads, &mut self.rng));
            self.timers.set(Timer::ExpireIsakmp(id), sa.expires);
        }
        self.floated |= sa.port == Port::NatT;
        self.contacted = true;
        self.events.push_back(Event::IsakmpEstablished {
            proposal: sa.proposal,
            nat: sa.nat,
            peer_id: sa.peer_id.clone(),
            lifetime: life,
            rekey,
        });
        if self.config.export_keys {
            let encryption_key = sa.keys.encryption_key();
            self.events.push_back(Event::Keys(Keys { initiator_cookie: sa.cookies.initiator, encryption_key }));
        }
        if self.isakmp.len() >= MAX_ISAKMP
            && let Some(oldest) = self.isakmp.first().map(|sa| sa.id)
        {
            self.remove_isakmp(now, oldest, false);
        }
        // In order of begin, so that `current` is the last one.
        self.isakmp.push(sa);
        self.heard(now);
        self.watch(now);
        self.keep_alive(now);
        if let Some(replaces) = self.waiting.take() {
            self.begin_quick_mode(now, replaces);
        }
    }

    pub(super) fn renew_isakmp(&mut self, now: Instant, id: u32) {
        if self.isakmp.iter().any(|sa| sa.id == id && !sa.superseded) {
            self.begin_main_mode(now);
        }
    }

    pub(super) fn expire_isakmp(&mut self, now: Instant, id: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == id) else { return };
        let tell = sa.deletes || !sa.superseded;
        self.remove_isakmp(now, id, tell);
        if self.isakmp.is_empty() && self.wanted && !self.pairs.is_empty() {
            self.begin_main_mode(now);
        }
    }

    /// The peer says that an ISAKMP SA lives shorter than agreed.
    pub(super) fn shorten_isakmp(&mut self, now: Instant, id: u32, life: Duration) {
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == id && !sa.superseded) else { return };
        let expires = sa.established + life;
        if expires < sa.expires && expires > now {
            sa.expires = expires;
            let leads = sa.role == Role::Initiator;
            let renew = sa.established + renewal(life, leads, &mut self.rng);
            self.timers.set(Timer::RenewIsakmp(id), renew.max(now));
            self.timers.set(Timer::ExpireIsakmp(id), expires);
        }
    }

    fn remove_isakmp(&mut self, now: Instant, id: u32, tell: bool) {
        if tell && let Some(spi) = self.isakmp.iter().find(|sa| sa.id == id).map(|sa| sa.cookies.spi()) {
            self.inform_delete(id, ProtocolId::ISAKMP, &spi);
        }
        self.isakmp.retain(|sa| sa.id != id);
        self.timers.stop(Timer::RenewIsakmp(id));
        self.timers.stop(Timer::ExpireIsakmp(id));
        // What was under way under its protection begins again under another.
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.quick_modes).into_iter().partition(|quick_mode| quick_mode.isakmp == id);
        self.quick_modes = stay;
        for quick_mode in gone {
            self.timers.stop(Timer::QuickMode(quick_mode.id));
            if quick_mode.is_open() && !self.closed {
                self.begin_quick_mode(now, quick_mode.replaces);
            }
        }
    }

    /// The peer deleted an ISAKMP SA.
    pub(super) fn isakmp_deleted(&mut self, now: Instant, id: u32) {
        if self.isakmp.len() > 1 {
            return self.remove_isakmp(now, id, false);
        }
        let unfinished = self.quick_modes.iter().any(QuickMode::is_open);
        self.quick_modes.clear();
        self.remove_isakmp(now, id, false);
        if !self.pairs.is_empty() {
            // A phase 1 that ends takes no phase 2 with it; a new one is wanted for the next renewal.
            self.notice("the peer deleted the ISAKMP SA; the ESP SAs stay".to_owned());
            if self.wanted {
                self.timers.set(Timer::Recover, now + RECOVERY);
            }
        } else if unfinished {
            self.fail(Error::PeerDeleted);
        } else {
            self.events.push_back(Event::PeerDeletedIsakmp);
            self.shut();
        }
    }

    // Phase 2.

    /// Begins a Quick Mode that replaces the pair with that inbound SPI, or the first one; a Main Mode first where one is needed.
    pub(super) fn begin_quick_mode(&mut self, now: Instant, replaces: Option<u32>) {
        if self.closed
            || self.quick_modes.iter().any(|quick_mode| quick_mode.is_open() && quick_mode.replaces == replaces)
        {
            return;
        }
        let id = self.fresh_id();
        let message_id = self.message_id();
        let spi = self.spi();
        let Some(index) = self.current().map(|sa| sa.id).and_then(|id| self.isakmp.iter().position(|sa| sa.id == id))
        else {
            self.waiting = Some(replaces);
            return self.begin_main_mode(now);
        };
        let Some(sa) = self.isakmp.get(index) else { return };
        let port = sa.port;
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        let (quick_mode, message) = QuickMode::initiate(&mut context, now, sa, [id, message_id, spi], replaces);
        self.remember_quick_mode(quick_mode);
        self.transmit(port, message);
    }

    /// Takes message 1 of a Quick Mode of the peer.
    pub(super) fn answer_quick_mode(
        &mut self,
        now: Instant,
        port: Port,
        index: usize,
        header: &super::message::Header,
        parts: [&[u8]; 2],
    ) {
        let (id, spi) = (self.fresh_id(), self.spi());
        let Some(sa) = self.isakmp.get(index) else { return };
        let isakmp = sa.id;
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        match QuickMode::respond(&mut context, now, sa, [id, spi], header, parts) {
            Ok((quick_mode, pair, response)) => {
                if let Some(sa) = self.isakmp.get_mut(index) {
                    sa.remember(header.message_id);
                }
                self.heard(now);
                let begun = quick_mode.begun;
                self.remember_quick_mode(quick_mode);
                // Inbound before message 2 leaves: the initiator may send as soon as it has it.
                self.install(now, pair, false, begun);
                self.transmit(port, response);
            }
            Err(error) => {
                let authentic = !matches!(error, Error::Undecryptable | Error::InvalidHash(_));
                if let (true, Some(kind)) = (authentic, error.notification()) {
                    let notification = Notification { protocol: ProtocolId::ESP, spi: &[], kind, data: &[] };
                    self.inform(isakmp, Some(port), PayloadType::N, &notification.body(), 1);
                }
                self.notice(format!("a Quick Mode of the peer is refused: {error}"));
            }
        }
    }

    fn remember_quick_mode(&mut self, quick_mode: QuickMode) {
        if self.quick_modes.len() >= MAX_QUICK_MODES {
            let oldest = self.quick_modes.remove(0);
            self.timers.stop(Timer::QuickMode(oldest.id));
        }
        if let Some(retransmission) = &quick_mode.retransmission {
            self.timers.set(Timer::QuickMode(quick_mode.id), retransmission.due());
        }
        self.quick_modes.push(quick_mode);
    }

    /// The timer of a Quick Mode: the message again, the end, or the end of memory.
    pub(super) fn quick_mode_timer(&mut self, now: Instant, id: u32) {
        let Some(index) = self.quick_modes.iter().position(|quick_mode| quick_mode.id == id) else { return };
        let Some(quick_mode) = self.quick_modes.get_mut(index) else { return };
        if let Some(retransmission) = &mut quick_mode.retransmission {
            if let Some(transmit) = retransmission.again(now) {
                self.timers.set(Timer::QuickMode(id), retransmission.due());
                self.retransmissions = self.retransmissions.saturating_add(1);
                self.transmits.push_back(transmit);
                return;
            }
            if quick_mode.is_open() {
                let error = Error::NoResponse { exchange: super::registry::ExchangeType::QUICK_MODE, message: 1 };
                return self.fail_quick_mode(now, id, error);
            }
            // The initiator never confirmed: nobody will ever use this pair.
            if let Some(inbound) = quick_mode.unconfirmed() {
                self.remove_pair(inbound);
            }
        }
        self.quick_modes.retain(|quick_mode| quick_mode.id != id);
    }

    /// A Quick Mode was answered; it is kept for duplicates.
    pub(super) fn quick_mode_done(&mut self, now: Instant, id: u32) {
        self.timers.set(Timer::QuickMode(id), now + MEMORY);
    }

    pub(super) fn fail_quick_mode(&mut self, now: Instant, id: u32, error: Error) {
        let Some(index) = self.quick_modes.iter().position(|quick_mode| quick_mode.id == id) else { return };
        let quick_mode = self.quick_modes.remove(index);
        self.timers.stop(Timer::QuickMode(id));
        if self.pairs.is_empty() {
            self.events.push_back(Event::Failed(error));
            return;
        }
        let silent = matches!(error, Error::NoResponse { .. });
        self.events.push_back(Event::RekeyFailed(error));
        match quick_mode.replaces.filter(|replaces| self.pairs.iter().any(|pair| pair.inbound == *replaces)) {
            // The peer may have lost this ISAKMP SA: the next attempt is made under a new one.
            Some(replaces) if silent => {
                self.waiting = Some(Some(replaces));
                self.begin_main_mode(now);
            }
            Some(replaces) => self.timers.set(Timer::RenewIpsec(replaces), now + RETRY),
            None => {}
        }
    }

    /// Takes a new pair into use; the outbound SA at once if the peer has confirmed.
    pub(super) fn install(&mut self, now: Instant, new: NewPair, initiator: bool, begun: Instant) {
        let NewPair { inbound, outbound, nonce } = new;
        let life = inbound.lifetime.seconds;
        if self.pairs.len() >= MAX_PAIRS
            && let Some(oldest) = self.pairs.first().map(|pair| pair.inbound)
        {
            self.remove_pair(oldest);
        }
        let pair = Pair {
            inbound: inbound.spi,
            outbound: outbound.spi,
            confirmed: initiator,
            begun,
            established: now,
            expires: now + life,
            superseded: false,
            deletes: false,
            nonce,
            initiator,
            held: None,
        };
        let spi = pair.inbound;
        self.timers.set(Timer::RenewIpsec(spi), now + renewal(life, initiator, &mut self.rng));
        self.timers.set(Timer::ExpireIpsec(spi), pair.expires);
        self.pairs.push(pair);
        self.events.push_back(Event::InstallInbound(inbound));
        if initiator {
            self.take_over(now, spi, outbound);
        }
    }

    /// The responder's outbound SA, after message 3 or the first ESP packet.
    pub(super) fn install_outbound(&mut self, now: Instant, outbound: Sa) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.outbound == outbound.spi) else { return };
        pair.confirmed = true;
        // From here on the pair counts as made: it may collide with what was begun before.
        pair.established = now;
        let spi = pair.inbound;
        self.take_over(now, spi, outbound);
    }

    /// A confirmed pair takes over from all others, unless it is the redundant one of a collision.
    fn take_over(&mut self, now: Instant, spi: u32, outbound: Sa) {
        let Some(new) = self.pairs.iter().find(|pair| pair.inbound == spi).cloned() else { return };
        let mut redundant = false;
        for other in self.pairs.iter_mut().filter(|other| other.inbound != spi && other.confirmed && !other.superseded)
        {
            let collision = other.initiator != new.initiator && other.established + CROSSING >= new.begun;
            if collision && other.nonce > new.nonce {
                redundant = true;
                continue;
            }
            other.superseded = true;
            other.deletes = if collision { other.initiator } else { new.initiator };
            let grace = if other.deletes { GRACE } else { GRACE * 2 };
            self.timers.stop(Timer::RenewIpsec(other.inbound));
            self.timers.set(Timer::ExpireIpsec(other.inbound), other.expires.min(now + grace));
        }
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.inbound == spi) else { return };
        if redundant {
            pair.superseded = true;
            pair.deletes = pair.initiator;
            let grace = if pair.deletes { GRACE } else { GRACE * 2 };
            self.timers.stop(Timer::RenewIpsec(spi));
            self.timers.set(Timer::ExpireIpsec(spi), pair.expires.min(now + grace));
            // Its initiator deletes it soon, so nothing is sent on it unless the other one goes first.
            pair.held = Some(outbound);
        } else {
            self.events.push_back(Event::InstallOutbound(outbound));
        }
    }

    pub(super) fn renew_pair(&mut self, now: Instant, spi: u32) {
        if self.pairs.iter().any(|pair| pair.inbound == spi && !pair.superseded) {
            self.begin_quick_mode(now, Some(spi));
        }
    }

    pub(super) fn expire_pair(&mut self, spi: u32) {
        let Some(pair) = self.pairs.iter().find(|pair| pair.inbound == spi) else { return };
        let tell = pair.deletes || !pair.superseded;
        if tell && let Some(isakmp) = self.current().map(|sa| sa.id) {
            self.inform_delete(isakmp, ProtocolId::ESP, &spi.to_be_bytes());
        }
        self.remove_pair(spi);
        if self.pairs.is_empty() {
            // An exchange that is still under way was to replace this pair, which it can no longer do; it may yet give a new one.
            let hope = self.quick_modes.iter().any(QuickMode::is_open) || self.waiting.is_some();
            if !hope {
                self.events.push_back(Event::Failed(Error::Expired));
            }
        }
    }

    /// The peer says that its inbound SA of a pair lives shorter than agreed.
    pub(super) fn shorten_pair(&mut self, now: Instant, outbound: u32, life: Duration) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.outbound == outbound && !pair.superseded) else {
            return;
        };
        let expires = pair.established + life;
        if expires < pair.expires && expires > now {
            pair.expires = expires;
            let renew = pair.established + renewal(life, pair.initiator, &mut self.rng);
            self.timers.set(Timer::RenewIpsec(pair.inbound), renew.max(now));
            self.timers.set(Timer::ExpireIpsec(pair.inbound), expires);
        }
    }

    pub(super) fn remove_pair(&mut self, spi: u32) {
        self.timers.stop(Timer::RenewIpsec(spi));
        self.timers.stop(Timer::ExpireIpsec(spi));
        if let Some(index) = self.pairs.iter().position(|pair| pair.inbound == spi) {
            let pair = self.pairs.remove(index);
            self.events.push_back(Event::RemoveSa { inbound_spi: pair.inbound, outbound_spi: pair.outbound });
            if self.pairs.iter().all(|pair| !pair.confirmed || pair.held.is_some())
                && let Some(outbound) = self.pairs.iter_mut().rev().find_map(|pair| pair.held.take())
            {
                self.events.push_back(Event::InstallOutbound(outbound));
            }
        }
    }

    /// The peer deleted a pair.
    pub(super) fn pair_deleted(&mut self, now: Instant, spi: u32) {
        self.remove_pair(spi);
        if self.wanted && !self.closed && !self.has_current_pair() {
            self.timers.set(Timer::Recover, now + RECOVERY);
        }
    }

    /// Whether a pair stays: one that is confirmed and that no other has replaced.
    fn has_current_pair(&self) -> bool {
        self.pairs.iter().any(|pair| pair.confirmed && !pair.superseded)
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
}
