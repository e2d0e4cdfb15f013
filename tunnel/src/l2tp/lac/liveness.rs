//! What silence means (RFC 2661 sections 5.5 and 5.8): answers that do not come, Hello, and messages that are never acknowledged.

use std::time::{Duration, Instant};

use super::{Lac, Phase, Timer};
use crate::l2tp::channel::Retransmission;
use crate::l2tp::config::Event;
use crate::l2tp::control;
use crate::l2tp::ending::Ending;
use crate::l2tp::error::Error;
use crate::l2tp::message::{Body, MessageType, SessionId};
use crate::l2tp::session::lac as session;

/// How much longer than a retransmission cycle an acknowledged request may stay without its answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

impl Lac {
    pub(super) fn on_exhausted(&mut self, now: Instant, message: MessageType) {
        match self.phase {
            Phase::Open => {
                let alive = self.last_received > self.hello_sent;
                if message == MessageType::HELLO && alive {
                    // Some peers never acknowledge a Hello (OS X), or not while they sleep (Android).
                    self.hello_sent = Some(now);
                    self.channel.persist(now);
                } else {
                    self.give_up();
                    self.events.push_back(Event::Failed(Error::NoResponse { to: message }));
                }
            }
            Phase::Closing { closed_due } => {
                self.give_up();
                if closed_due {
                    self.events.push_back(Event::Closed);
                }
            }
            Phase::Lingering | Phase::Gone => {}
        }
    }

    /// Waits longer for an answer than a message without acknowledgment is sent for.
    pub(super) fn arm_answer(&mut self, now: Instant) {
        self.timers.set(Timer::Answer, now + Retransmission::default().cycle() + ANSWER_MARGIN);
    }

    pub(super) fn on_answer_timer(&mut self, now: Instant) {
        let to = match self.session {
            session::State::WaitTunnel if self.accepted_sccrq => MessageType::SCCRP,
            session::State::WaitTunnel => MessageType::SCCRQ,
            session::State::WaitReply => MessageType::ICRQ,
            session::State::Idle | session::State::Established => return,
        };
        self.on_session(now, session::Event::Close, Ending::Failed(Error::NoResponse { to }));
    }

    pub(super) fn arm_hello(&mut self, now: Instant) {
        if !self.config.hello.is_zero() {
            self.timers.set(Timer::Hello, self.last_received.unwrap_or(now) + self.config.hello);
        }
    }

    pub(super) fn on_hello_timer(&mut self, now: Instant) {
        let idle = self.last_received.map_or(self.config.hello, |at| now.saturating_duration_since(at));
        if idle < self.config.hello {
            self.arm_hello(now);
            return;
        }
        // A message that waits for its acknowledgment tells as much as a Hello.
        if self.channel.unacknowledged() == 0 {
            self.hello_sent = Some(now);
            self.send(SessionId::default(), Body::new(MessageType::HELLO));
        }
        self.timers.set(Timer::Hello, now + self.config.hello);
    }

    /// "The tunnel and all sessions within MUST be cleared"; there is nobody to tell.
    fn give_up(&mut self) {
        self.phase = Phase::Gone;
        self.control = control::State::Idle;
        self.session = session::State::Idle;
        self.channel.clear();
        self.timers.clear();
    }
}
