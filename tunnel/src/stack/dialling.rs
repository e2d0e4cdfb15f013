//! From one attempt to the next: whom to dial and how, the goodbyes in between, and what follows a failure.

use std::time::Instant;

use super::ladder::Next;
use super::rung::Facet;
use super::verdict::{self, Failure};
use super::{CLOSE_LIMIT, Event, State, Then, Tunnel};
use crate::l2tp::CloseReason;
use crate::report::{Layer, Reason};
use crate::suite::Group;

impl Tunnel {
    pub(super) fn peer(&self) -> String {
        let peers = &self.config.peers;
        peers.get(self.recovery.peer()).or_else(|| peers.first()).map(|peer| peer.address.clone()).unwrap_or_default()
    }

    pub(super) fn dial(&mut self) {
        let peer = self.peer();
        self.state = State::Dialling;
        self.counters.dials = self.counters.dials.saturating_add(1);
        self.progress(Layer::Peer, Reason::ResolvingPeer, &format!("Looking up {peer}."));
        self.layers_wait();
        self.report.active_peer = Some(peer.clone());
        let again = self.ladder.is_climbing(&peer, &self.config);
        let fresh_ports = self.ladder.rung(&peer, &self.config).fresh_ports;
        self.event(Event::Dial { peer, again, fresh_ports });
    }

    /// Says goodbye to the peer, and dials when it has heard.
    pub(super) fn redial(&mut self, now: Instant) {
        self.progress(Layer::Peer, Reason::BackingOff, "The gateway is told goodbye, and dialled again at once.");
        self.layers_wait();
        self.hang_up(now, CloseReason::Administrative, Then::Dial);
    }

    /// Ends the connection, if there is one, with every goodbye; one whose goodbyes are being said already goes on with that.
    pub(super) fn hang_up(&mut self, now: Instant, reason: CloseReason, then: Then) {
        self.link_down();
        self.report.negotiated = None;
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Connected(mut connection) => {
                connection.close(now, reason);
                State::Closing(connection, now + CLOSE_LIMIT, then)
            }
            State::Closing(connection, limit, _) => State::Closing(connection, limit, then),
            State::Idle | State::Dialling | State::Waiting(_) => return self.go_on(then),
            State::Closed => State::Closed,
        };
        self.advance(now);
    }

    pub(super) fn go_on(&mut self, then: Then) {
        match then {
            Then::Dial => self.dial(),
            Then::Wait(at) => self.state = State::Waiting(at),
            Then::End => {
                self.state = State::Closed;
                self.event(Event::Closed);
            }
        }
    }

    /// The peer has agreed to phase 2, with a fresh exchange in `group` if it asked for one.
    pub(super) fn agreed(&mut self, group: Option<Group>) {
        let peer = self.peer();
        let asked = self.ladder.rung(&peer, &self.config).pfs;
        if group != asked && self.config.esp.proposals.is_empty() {
            self.counters.climb(Facet::Pfs.name());
        }
        let (rung, is_news) = self.ladder.agreed(&peer, &self.config, group);
        if is_news {
            tracing::info!(rung, "the gateway agrees to another way than the first; the next attempt begins with it");
        }
        self.negotiated(|negotiated| negotiated.rung = Some(rung));
    }

    /// The attempt under way failed, or the tunnel: it is dialled again, at once if another way may help.
    pub(super) fn fail(&mut self, now: Instant, failure: Failure) {
        let up_since = self.counters.established;
        let reason = CloseReason::Failure(failure.message.clone());
        let count = self.counters.failures.entry(failure.layer).or_default();
        *count = count.saturating_add(1);
        let (peer, why) = (self.peer(), failure.reason);
        let failure = match self.ladder.failed(&peer, &self.config, failure, up_since.is_some()) {
            Next::Climb(facet, is_news) => {
                self.counters.climb(facet.name());
                if is_news {
                    let rung = self.ladder.rung(&peer, &self.config).words(&self.config);
                    let facet = facet.name();
                    tracing::info!(%why, facet, rung, "the gateway refuses the attempt; another way is tried");
                }
                return self.hang_up(now, reason, Then::Dial);
            }
            Next::Wait(failure) => failure,
        };
        let wait = self.recovery.failed(self.config.peers.len(), failure.refused, up_since, now, &mut self.rng);
        let failure = if failure.refused { verdict::with_wait(failure, wait) } else { failure };
        self.report.failed_attempts = self.recovery.failures();
        self.report_changed |= self.outage.fail(&mut self.report, &failure);
        self.hang_up(now, reason, Then::Wait(now + wait));
    }
}
