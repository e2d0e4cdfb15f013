//! What silence means (RFC 2661 sections 5.5 and 5.8): answers that do not come, Hello, and messages that are never acknowledged.

use std::time::{Duration, Instant};

use super::{LnsEvent, Phase, Shared, Timer, Tunnel};
use crate::l2tp::channel::{Exhausted, Retransmission};
use crate::l2tp::control;
use crate::l2tp::ending::{CloseReason, Ending};
use crate::l2tp::error::Error;
use crate::l2tp::message::{Body, MessageType, SessionId};
use crate::l2tp::session::lns as session;

/// How much longer than a retransmission cycle an acknowledged message may stay without its answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How long a control connection stays without a call.
const UNUSED: Duration = Duration::from_secs(60);

impl Tunnel {
    /// Does what time demands.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Answer => self.on_answer_timer(now, shared),
                Timer::Unused => {
                    let ending = Ending::Local(CloseReason::Administrative);
                    self.on_control(now, shared, control::Event::Close, ending);
                }
                Timer::Hello => self.on_hello_timer(now, shared),
                Timer::Linger => self.phase = Phase::Gone,
            }
        }
        while let Some(&(at, id)) = self.waiting.front().filter(|&&(at, _)| at <= now) {
            tracing::debug!(session = id.0, late = ?now.saturating_duration_since(at), "no ICCN");
            self.waiting.pop_front();
            if let Some(index) = self.index(id) {
                let ending = Ending::Failed(Error::NoResponse { to: MessageType::ICRP });
                self.on_session(now, shared, index, session::Event::Close, ending);
            }
        }
        if let Some(Exhausted(message)) = self.channel.handle_timeout(now) {
            self.on_exhausted(now, shared, message);
        }
        self.channel.flush(now);
    }

    /// See [`Lns::probe`](super::super::Lns::probe).
    pub(in super::super) fn probe(&mut self, now: Instant) {
        if self.control == control::State::Established {
            self.send_hello(now);
            self.channel.flush(now);
        }
    }

    fn on_exhausted(&mut self, now: Instant, shared: &mut Shared, message: MessageType) {
        let alive = shared.last_received > self.hello_sent && !self.doubted;
        // Behind a Hello that is not acknowledged nothing else arrives either.
        if message == MessageType::HELLO && alive && self.channel.unacknowledged() == 1 {
            self.hello_sent = Some(now);
            self.channel.persist(now);
            if !std::mem::replace(&mut self.hello_lost, true) {
                shared.events.push_back(LnsEvent::HelloLost { tunnel: self.id });
            }
            return;
        }
        //= rfc2661 5.8 "the tunnel and all sessions within MUST be cleared."
        //= test: hello_is_sent_only_after_silence_and_a_dead_peer_is_found, a_hello_without_acknowledgment_does_not_end_the_call_of_a_live_peer
        // "The tunnel and all sessions within MUST be cleared"; there is nobody to tell.
        if self.phase == Phase::Open {
            self.end(shared, Ending::Failed(Error::NoResponse { to: message }));
        }
        self.control = control::State::Idle;
        self.channel.clear();
        self.timers.clear();
        self.phase = Phase::Gone;
    }

    /// Waits longer for SCCCN than an SCCRP without acknowledgment is sent for.
    pub(super) fn arm_answer(&mut self, now: Instant) {
        self.timers.set(Timer::Answer, now + Retransmission::default().cycle() + ANSWER_MARGIN);
    }

    /// Waits as long for ICCN.
    pub(super) fn arm_call(&mut self, now: Instant, id: SessionId) {
        self.waiting.push_back((now + Retransmission::default().cycle() + ANSWER_MARGIN, id));
    }

    pub(super) fn arm_unused(&mut self, now: Instant) {
        self.timers.set(Timer::Unused, now + UNUSED);
    }

    pub(super) fn arm_hello(&mut self, now: Instant, shared: &Shared) {
        //= rfc2661 6.5 "A peer MUST NOT expect HELLO messages at any time or interval."
        //= test: hello_can_be_switched_off, a_hello_without_acknowledgment_does_not_end_the_call_of_a_live_peer
        if !shared.config.hello.is_zero() {
            self.timers.set(Timer::Hello, shared.last_received.unwrap_or(now) + shared.config.hello);
        }
    }

    fn on_answer_timer(&mut self, now: Instant, shared: &mut Shared) {
        let ending = Ending::Failed(Error::NoResponse { to: MessageType::SCCRP });
        self.on_control(now, shared, control::Event::Close, ending);
    }

    fn on_hello_timer(&mut self, now: Instant, shared: &Shared) {
        let hello = shared.config.hello;
        let idle = shared.last_received.map_or(hello, |at| now.saturating_duration_since(at));
        if idle < hello {
            self.arm_hello(now, shared);
            return;
        }
        self.send_hello(now);
        self.timers.set(Timer::Hello, now + hello);
    }

    /// A message that waits for its acknowledgment tells as much as a Hello.
    fn send_hello(&mut self, now: Instant) {
        if self.channel.unacknowledged() == 0 {
            self.hello_sent = Some(now);
            //= rfc2661 6.5 "The Session ID in a HELLO message MUST be 0."
            //= test: a_probe_sends_one_hello_at_once, hello_can_be_switched_off
            self.send(SessionId::default(), Body::new(MessageType::HELLO));
        }
    }
}
