//! Pairs of ESP SAs: which one takes over, which one is redundant, and when each goes (RFC 2409 section 9, RFC 2407 section 4.6.3).
//!
//! A new pair takes over at once and the one before it still receives for a while. When both ends begin at the same time, both new
//! pairs are kept; which of them is the redundant one follows from the nonces, which both ends know.

use std::time::Instant;

use super::error::Error;
use super::proposal::{LEAST_LIFETIME, StatedLife};
use super::quick_mode::NewPair;
use super::registry::ProtocolId;
use super::sa::{CROSSING, Pair, grace, postponed, renewal};
use super::{Event, Ike, Sa, Timer};

/// The most pairs of ESP SAs with one peer: the one in use, the one before it and collisions, with room for a peer that renews
/// every few seconds.
pub const MAX_PAIRS: usize = 16;

impl Ike {
    /// Takes a new pair into use; the outbound SA at once if the peer has confirmed.
    pub(super) fn install(&mut self, now: Instant, new: NewPair, initiator: bool, begun: Instant) {
        let NewPair { inbound, outbound, terms, nonce } = new;
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
            used: None,
            nonce,
            initiator,
            terms,
            held: None,
        };
        let spi = pair.inbound;
        self.timers.stop(Timer::Abandoned);
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
            let grace = grace(if collision { other.initiator } else { new.initiator });
            self.timers.stop(Timer::RenewIpsec(other.inbound));
            self.timers.set(Timer::ExpireIpsec(other.inbound), other.expires.min(now + grace));
        }
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.inbound == spi) else { return };
        if redundant {
            pair.superseded = true;
            self.timers.stop(Timer::RenewIpsec(spi));
            self.timers.set(Timer::ExpireIpsec(spi), pair.expires.min(now + grace(pair.initiator)));
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

    pub(super) fn expire_pair(&mut self, now: Instant, spi: u32) {
        let Some(pair) = self.pairs.iter().find(|pair| pair.inbound == spi) else { return };
        if let Some(until) = postponed(pair.used, pair.expires, now).filter(|_| pair.superseded) {
            return self.timers.set(Timer::ExpireIpsec(spi), until);
        }
        if let Some(isakmp) = self.current().map(|sa| sa.id) {
            self.inform_delete(isakmp, ProtocolId::ESP, &spi.to_be_bytes());
        }
        self.remove_pair(spi);
        // An exchange that is still under way was to replace this pair, which it can no longer do; it may yet give a new one.
        if self.pairs.is_empty() && !self.has_open_quick_mode() && self.waiting.is_empty() {
            self.events.push_back(Event::Failed(Error::Expired));
        }
    }

    /// The peer says that its inbound SA of a pair lives shorter, or carries less, than agreed.
    pub(super) fn shorten_pair(&mut self, now: Instant, outbound: u32, stated: StatedLife) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.outbound == outbound && !pair.superseded) else {
            return;
        };
        if let Some(kilobytes) = stated.volume() {
            self.events.push_back(Event::Lifetime { inbound_spi: pair.inbound, kilobytes });
        }
        let Some(life) = stated.seconds.map(|life| life.max(LEAST_LIFETIME)) else { return };
        let expires = (pair.established + life).max(now + LEAST_LIFETIME);
        if expires < pair.expires {
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
        let established = self.pairs.iter().find(|pair| pair.inbound == spi).map_or(now, |pair| pair.established);
        self.remove_pair(spi);
        if !self.has_current_pair() {
            self.recover_later(now, now.saturating_duration_since(established));
        }
    }

    /// Whether a pair stays: one that is confirmed and that no other has replaced.
    pub(super) fn has_current_pair(&self) -> bool {
        self.pairs.iter().any(|pair| pair.confirmed && !pair.superseded)
    }
}
