//! Two SCCRQs that cross (RFC 2661 section 4.4.3, Tie Breaker): who goes on, and the LAC as the recipient of the control
//! connection that is left.

use std::cmp::Ordering;
use std::time::Instant;

use rand::RngExt;

use super::{Lac, RECEIVE_WINDOW};
use crate::l2tp::authentication;
use crate::l2tp::avp::Attribute;
use crate::l2tp::channel::{Channel, Retransmission};
use crate::l2tp::config::Event;
use crate::l2tp::control;
use crate::l2tp::ending::Ending;
use crate::l2tp::error::Error;
use crate::l2tp::introduction::Introduction;
use crate::l2tp::message::{ControlHeader, Message, MessageType, SessionId, TunnelId};

/// The length of a Tie Breaker.
pub(super) const TIE_BREAKER: usize = 8;

impl Lac {
    /// Takes an SCCRQ for a tunnel of its own while ours is unanswered, or the one that has won once more; tells whether it was
    /// either of them.
    pub(super) fn handle_crossing(
        &mut self,
        now: Instant,
        header: &ControlHeader,
        body: &[u8],
        sccrq: &Message,
    ) -> bool {
        if self.accepted_sccrq {
            let again = Introduction::tunnel_id(sccrq) == Ok(self.channel.tunnel_id());
            if again {
                self.channel.handle_message(now, header, body);
            }
            return again;
        }
        // Without a tie breaker it loses, and its sender knows nothing of it.
        let Some(theirs) = sccrq.value(Attribute::TIE_BREAKER) else { return false };
        if self.control != control::State::WaitCtlReply || header.ns != 0 {
            return false;
        }
        let event = match self.tie_breaker.as_slice().cmp(theirs) {
            Ordering::Less => control::Event::SccrqAcceptable,
            //= rfc2661 4.4.3 "In the case where a tie breaker is present on both sides, and the value is equal, both sides MUST discard their tunnels."
            //= test: the_higher_tie_breaker_loses_silently, equal_tie_breakers_end_both_tunnels
            Ordering::Equal => control::Event::SccrqEqualTie,
            //= rfc2661 4.4.3 "MUST silently discard its tunnel."
            //= test: the_lower_tie_breaker_wins_and_the_loser_places_its_call_in_the_tunnel_of_the_other, the_higher_tie_breaker_loses_silently
            Ordering::Greater => control::Event::SccrqLoseTie,
        };
        self.on_control(now, event, Ending::Failed(Error::UnexpectedMessage(MessageType::SCCRQ)));
        if event == control::Event::SccrqLoseTie {
            self.receive_sccrq(now, header, body, sccrq);
        }
        true
    }

    /// Forgets the tunnel that has lost; the session waits for the other one.
    pub(super) fn discard_tunnel(&mut self) {
        self.channel = Channel::new(Retransmission::default(), RECEIVE_WINDOW);
        self.tunnel_id = TunnelId(self.rng.random_range(1..=u16::MAX));
        self.timers.clear();
    }

    /// The SCCRQ in the idle state.
    fn receive_sccrq(&mut self, now: Instant, header: &ControlHeader, body: &[u8], sccrq: &Message) {
        self.handle_activity(now);
        self.accepted_sccrq = true;
        self.channel.handle_message(now, header, body);
        // It was read already.
        while self.channel.poll_message().is_some() {}
        let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::SCCRQ));
        match self.accept_sccrq(sccrq) {
            Ok(()) => self.on_control(now, control::Event::SccrqAcceptable, unexpected),
            Err(error) => self.on_control(now, control::Event::SccrqNotAcceptable, Ending::Failed(error)),
        }
    }

    fn accept_sccrq(&mut self, sccrq: &Message) -> Result<(), Error> {
        let peer = self.accept_introduction(sccrq)?;
        let secret = self.config.secret.as_ref().map(|secret| secret.as_slice());
        self.challenge_response = authentication::answer(sccrq, MessageType::SCCRP, secret)?;
        self.peer = Some(peer);
        Ok(())
    }

    pub(super) fn send_sccrp(&mut self) {
        let body = self.body(MessageType::SCCRP);
        let body = self.introduce(body);
        let body = match self.challenge_response {
            Some(response) => body.bytes(Attribute::CHALLENGE_RESPONSE, &response),
            None => body,
        };
        self.send(SessionId::default(), body);
    }

    pub(super) fn on_scccn(&mut self, now: Instant, scccn: &Message) {
        let secret = self.config.secret.as_ref().map(|secret| secret.as_slice());
        match authentication::check(scccn, secret, &self.challenge) {
            Ok(()) => {
                self.events.extend(self.peer.take().map(Event::ControlEstablished));
                let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::SCCCN));
                self.on_control(now, control::Event::ScccnAcceptable, unexpected);
            }
            Err(error) => self.on_control(now, control::Event::ScccnNotAcceptable, Ending::Failed(error)),
        }
    }
}
