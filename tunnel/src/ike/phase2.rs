//! The Quick Modes of a relation: what is begun under which ISAKMP SA, what is answered, refused and tried again (RFC 2409 section
//! 5.5).

use std::time::{Duration, Instant};

use super::error::Error;
use super::main_mode::Context;
use super::message::Header;
use super::payload::Notification;
use super::quick_mode::{QuickMode, Step};
use super::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::sa::{Pair, RETRY};
use super::{Event, Ike, Timer};
use crate::buffer::Port;

/// How long a complete Quick Mode is remembered to answer duplicates: a retransmission cycle of the peer.
const MEMORY: Duration = Duration::from_secs(60);

/// How long an ISAKMP SA without any pair waits for another attempt at phase 2.
const ABANDONED: Duration = Duration::from_secs(30);

/// The most Quick Modes that are remembered at a time.
const MAX_QUICK_MODES: usize = 32;

impl Ike {
    pub(super) fn handle_quick_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.cookies == header.cookies) else { return };
        if !header.is_encrypted() || header.message_id == 0 {
            return self.notice("an unprotected Quick Mode message is ignored".to_owned());
        }
        if sa.is_stale(port) {
            return;
        }
        // draft-beaulieu-ike-xauth-02 section 6: it comes "before any other exchange with the exception of Info mode exchanges".
        if sa.xauth.is_awaited() {
            return self.notice("a Quick Mode message before the end of XAUTH is ignored".to_owned());
        }
        let isakmp = sa.id;
        let known =
            |quick_mode: &&mut QuickMode| quick_mode.isakmp == isakmp && quick_mode.message_id == header.message_id;
        let Some(quick_mode) = self.quick_modes.iter_mut().find(known) else {
            if sa.refuses(header.message_id) {
                return;
            }
            return self.answer_quick_mode(now, port, isakmp, header, parts);
        };
        let (id, begun) = (quick_mode.id, quick_mode.begun);
        let context = Context { config: &self.config, rng: &mut self.rng };
        match quick_mode.handle(&context, sa, header, parts) {
            Ok(Step::Agreed { pair, .. }) if is_used(&self.pairs, pair.outbound.spi) => {
                self.fail_quick_mode(now, id, Error::SpiInUse);
            }
            Ok(Step::Agreed { pair, confirmation }) => {
                sa.touch(now);
                self.quick_mode_done(now, id);
                self.heard(now);
                // Message 3 leaves before the first ESP packet, which shortens the time in which the peer drops it.
                self.transmit(port, confirmation);
                self.install(now, *pair, true, begun);
            }
            Ok(Step::Confirmed(outbound)) => {
                sa.touch(now);
                self.quick_mode_done(now, id);
                self.heard(now);
                self.install_outbound(now, *outbound);
            }
            Ok(Step::Again(message)) => self.transmit(port, message),
            Ok(Step::Nothing) => {}
            Err(error @ (Error::Undecryptable | Error::InvalidHash(_) | Error::Malformed(_))) => {
                self.notice(format!("a Quick Mode message is ignored: {error}"));
            }
            // Everything else is the peer's word: its hash was right.
            Err(error) => self.fail_quick_mode(now, id, error),
        }
    }

    /// Begins a Quick Mode that replaces the pair with that inbound SPI, or the first one; a Main Mode first where one is needed.
    pub(super) fn begin_quick_mode(&mut self, now: Instant, replaces: Option<u32>) {
        if self.closed
            || self.quick_modes.iter().any(|quick_mode| quick_mode.is_open() && quick_mode.replaces == replaces)
        {
            return;
        }
        let Some(isakmp) = self.current().map(|sa| sa.id) else { return self.wait_for_main_mode(now, replaces) };
        let ids = [self.fresh_id(), self.message_id(isakmp), self.spi()];
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == isakmp) else { return };
        let port = sa.port;
        let replaced = self.pairs.iter().find(|pair| Some(pair.inbound) == replaces);
        let terms = replaced.and_then(|pair| pair.terms.as_ref());
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        let (quick_mode, message) = QuickMode::initiate(&mut context, now, sa, ids, replaces, terms);
        self.remember_quick_mode(quick_mode);
        self.transmit(port, message);
    }

    /// Begins a Main Mode, and the Quick Mode when it is complete.
    fn wait_for_main_mode(&mut self, now: Instant, replaces: Option<u32>) {
        let pairs = &self.pairs;
        self.waiting.retain(|waits| waits.is_none_or(|spi| pairs.iter().any(|pair| pair.inbound == spi)));
        self.waiting.insert(replaces);
        self.begin_main_mode(now);
    }

    /// Begins every Quick Mode that waited for an ISAKMP SA and is still needed.
    pub(super) fn begin_waiting(&mut self, now: Instant) {
        for replaces in std::mem::take(&mut self.waiting) {
            match replaces {
                Some(spi) if self.pairs.iter().any(|pair| pair.inbound == spi && !pair.superseded) => {
                    self.begin_quick_mode(now, replaces);
                }
                Some(_) if self.has_current_pair() => {}
                Some(_) | None => self.begin_quick_mode(now, None),
            }
        }
    }

    /// Takes message 1 of a Quick Mode of the peer.
    fn answer_quick_mode(&mut self, now: Instant, port: Port, isakmp: u32, header: &Header, parts: [&[u8]; 2]) {
        let (id, spi) = (self.fresh_id(), self.spi());
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == isakmp) else { return };
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        let answer = match QuickMode::respond(&mut context, now, sa, [id, spi], header, parts) {
            Ok((_, pair, _)) if is_used(&self.pairs, pair.outbound.spi) => Err(Error::SpiInUse),
            other => other,
        };
        if matches!(answer, Err(Error::Undecryptable | Error::InvalidHash(_))) {
            return self.notice("a Quick Mode message that is not the peer's is ignored".to_owned());
        }
        if let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == isakmp) {
            sa.remember(header.message_id);
            sa.touch(now);
        }
        self.heard(now);
        match answer {
            Ok((quick_mode, pair, response)) => {
                let begun = quick_mode.begun;
                self.remember_quick_mode(quick_mode);
                // Inbound before message 2 leaves: the initiator may send as soon as it has it.
                self.install(now, pair, false, begun);
                self.transmit(port, response);
            }
            Err(error) => {
                if let Some(kind) = error.notification() {
                    self.refuse_quick_mode(now, port, isakmp, [id, header.message_id], parts[1], kind);
                }
                self.notice(format!("a Quick Mode of the peer is refused: {error}"));
            }
        }
    }

    fn refuse_quick_mode(
        &mut self,
        now: Instant,
        port: Port,
        isakmp: u32,
        ids: [u32; 2],
        message: &[u8],
        kind: NotifyType,
    ) {
        let notification = Notification { protocol: ProtocolId::ESP, spi: &[], kind, data: &[] };
        let Some((_, response)) = self.informational(isakmp, PayloadType::N, &notification.body()) else { return };
        self.remember_quick_mode(QuickMode::refuse(now, isakmp, ids, message, response.clone()));
        let [id, _] = ids;
        self.quick_mode_done(now, id);
        self.transmit(port, response);
    }

    fn remember_quick_mode(&mut self, quick_mode: QuickMode) {
        if self.quick_modes.len() >= MAX_QUICK_MODES {
            let oldest = self.quick_modes.iter().position(|old| !old.is_open()).unwrap_or_default();
            let oldest = self.quick_modes.remove(oldest);
            self.timers.stop(Timer::QuickMode(oldest.id));
        }
        if let Some(retransmission) = &quick_mode.retransmission {
            self.timers.set(Timer::QuickMode(quick_mode.id), retransmission.due());
        }
        self.quick_modes.push(quick_mode);
    }

    /// The timer of a Quick Mode: the message again, the end, or the end of memory.
    pub(super) fn quick_mode_timer(&mut self, now: Instant, id: u32) {
        let Some(quick_mode) = self.quick_modes.iter_mut().find(|quick_mode| quick_mode.id == id) else { return };
        if let Some(retransmission) = &mut quick_mode.retransmission {
            if let Some(transmit) = retransmission.again(now, &mut self.rng) {
                self.timers.set(Timer::QuickMode(id), retransmission.due());
                self.retransmissions = self.retransmissions.saturating_add(1);
                self.transmits.push_back(transmit);
                return;
            }
            if quick_mode.is_open() {
                let error = Error::NoResponse { exchange: ExchangeType::QUICK_MODE, message: 1 };
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
            self.timers.set(Timer::Abandoned, now + ABANDONED);
            self.events.push_back(Event::Failed(error));
            return;
        }
        let silent = matches!(error, Error::NoResponse { .. });
        self.events.push_back(Event::RekeyFailed(error));
        match quick_mode.replaces.filter(|replaces| self.pairs.iter().any(|pair| pair.inbound == *replaces)) {
            // The peer may have lost this ISAKMP SA: the next attempt is made under a new one.
            Some(replaces) if silent => self.wait_for_main_mode(now, Some(replaces)),
            Some(replaces) => self.timers.set(Timer::RenewIpsec(replaces), now + RETRY),
            None => self.timers.set(Timer::Recover, now + RETRY),
        }
    }
}

/// Whether the peer receives on this SPI already.
fn is_used(pairs: &[Pair], outbound_spi: u32) -> bool {
    pairs.iter().any(|pair| pair.outbound == outbound_spi)
}
