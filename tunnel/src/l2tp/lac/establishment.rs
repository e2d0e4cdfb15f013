//! The messages that set up the tunnel and the session (RFC 2661 sections 6.1 to 6.3 and 6.6 to 6.8): what the LAC says in its
//! own, and what it demands of the answers.

use super::Lac;
use crate::l2tp::authentication;
use crate::l2tp::avp::Attribute;
use crate::l2tp::config::Peer;
use crate::l2tp::error::Error;
use crate::l2tp::introduction::{FRAMING_ASYNC, FRAMING_SYNC, Introduction};
use crate::l2tp::message::{Body, Message, MessageType, SessionId};
use crate::l2tp::session::lac as session;

/// What ICCN says about a line that does not exist: fast enough that no LNS shapes by it.
const CONNECT_SPEED: u32 = 100_000_000;

impl Lac {
    pub(super) fn accept_sccrp(&mut self, message: &Message) -> Result<Peer, Error> {
        let peer = self.accept_introduction(message)?;
        let secret = self.config.secret.as_ref().map(|secret| secret.as_slice());
        authentication::check(message, secret, &self.challenge)?;
        self.challenge_response = authentication::answer(message, MessageType::SCCCN, secret)?;
        Ok(peer)
    }

    pub(super) fn accept_introduction(&mut self, message: &Message) -> Result<Peer, Error> {
        // From here on even a refusal can be addressed.
        self.channel.set_tunnel_id(Introduction::tunnel_id(message)?);
        let Introduction { framing, window, peer } = Introduction::read(message)?;
        self.channel.set_peer_window(window);
        // "A peer MUST NOT request [a] call with a Framing Type AVP specifying a value not advertised".
        self.framing_type =
            if framing & (FRAMING_SYNC | FRAMING_ASYNC) == FRAMING_ASYNC { FRAMING_ASYNC } else { FRAMING_SYNC };
        Ok(peer)
    }

    pub(super) fn accept_icrp(&mut self, message: &Message) -> Result<(), Error> {
        if self.session != session::State::WaitReply {
            return Err(Error::UnexpectedMessage(MessageType::ICRP));
        }
        let id = message.u16(Attribute::ASSIGNED_SESSION_ID).filter(|&id| id != 0);
        let attribute = Attribute::ASSIGNED_SESSION_ID;
        let id = id.ok_or(Error::InvalidAvp { message: MessageType::ICRP, attribute })?;
        self.peer_session_id = SessionId(id);
        // The AVP belongs into ICCN, which is ours; an LNS that puts it here can only mean the same.
        if message.value(Attribute::SEQUENCING_REQUIRED).is_some() {
            self.sequence.require();
        }
        Ok(())
    }

    /// Appends what this end says about itself, and its Challenge.
    pub(super) fn introduce(&self, body: Body) -> Body {
        let window = self.channel.receive_window();
        let body = Introduction::write(body, &self.config.host_name, self.tunnel_id, window);
        match self.config.secret {
            Some(_) => body.bytes(Attribute::CHALLENGE, &self.challenge),
            None => body,
        }
    }

    pub(super) fn send_sccrq(&mut self) {
        let body = self.introduce(Body::new(MessageType::SCCRQ));
        self.send(SessionId::default(), body.bytes(Attribute::TIE_BREAKER, &self.tie_breaker));
    }

    pub(super) fn send_scccn(&mut self) {
        let body = self.body(MessageType::SCCCN);
        let body = match self.challenge_response {
            Some(response) => body.bytes(Attribute::CHALLENGE_RESPONSE, &response),
            None => body,
        };
        self.send(SessionId::default(), body);
    }

    //= rfc2661 4.4.4 "Before the Assigned Session ID AVP is received from a peer, messages MUST be sent to that peer with a Session ID of 0 in the header of all control messages."
    //= test: a_session_is_established_in_the_order_of_the_rfc, a_call_that_the_lns_has_not_named_is_ended_at_session_0_by_our_name_of_it
    //= rfc2661 5.3 "For the cases where a Session ID has not yet been assigned by the peer (i.e., during establishment of a new session or tunnel), the Session ID field MUST be sent as 0, and the Assigned Session ID AVP within the message MUST be used to identify the session."
    //= test: a_session_is_established_in_the_order_of_the_rfc, a_call_that_the_lns_has_not_named_is_ended_at_session_0_by_our_name_of_it
    pub(super) fn send_icrq(&mut self) {
        let body = self
            .body(MessageType::ICRQ)
            .u16(Attribute::ASSIGNED_SESSION_ID, self.session_id.0)
            .u32(Attribute::CALL_SERIAL_NUMBER, self.config.call_serial_number);
        self.send(SessionId::default(), body);
    }

    pub(super) fn send_iccn(&mut self) {
        let body = self
            .body(MessageType::ICCN)
            .u32(Attribute::TX_CONNECT_SPEED, CONNECT_SPEED)
            .u32(Attribute::FRAMING_TYPE, self.framing_type);
        self.send(self.peer_session_id, body);
    }
}
