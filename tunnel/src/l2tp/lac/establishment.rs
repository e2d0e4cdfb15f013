//! The messages that set up the tunnel and the session (RFC 2661 sections 6.1 to 6.3 and 6.6 to 6.8): what the LAC says in its
//! own, and what it demands of the answers.

use super::Lac;
use crate::l2tp::authentication;
use crate::l2tp::avp::Attribute;
use crate::l2tp::channel::DEFAULT_WINDOW;
use crate::l2tp::config::Peer;
use crate::l2tp::ending::PROTOCOL_VERSION;
use crate::l2tp::error::{Authentication, Error};
use crate::l2tp::message::{Body, Message, MessageType, SessionId, TunnelId};
use crate::l2tp::outcome::printable;
use crate::l2tp::session;

/// Asynchronous and synchronous framing: bits A and S of the Framing Capabilities.
const FRAMING_ASYNC: u32 = 2;
pub(super) const FRAMING_SYNC: u32 = 1;

/// What ICCN says about a line that does not exist: fast enough that no LNS shapes by it.
const CONNECT_SPEED: u32 = 100_000_000;

/// The name that a LAC without one goes by: the Host Name AVP "MUST be at least 1 octet".
const ANONYMOUS: &[u8] = b"anonymous";

impl Lac {
    pub(super) fn accept_sccrp(&mut self, message: &Message) -> Result<Peer, Error> {
        let invalid = |attribute| Error::InvalidAvp { message: MessageType::SCCRP, attribute };
        let missing = |attribute| move || invalid(attribute);
        let id = message.u16(Attribute::ASSIGNED_TUNNEL_ID).filter(|&id| id != 0);
        let id = id.ok_or_else(missing(Attribute::ASSIGNED_TUNNEL_ID))?;
        // From here on even a refusal can be addressed.
        self.channel.set_tunnel_id(TunnelId(id));
        let version = message.u16(Attribute::PROTOCOL_VERSION).ok_or_else(missing(Attribute::PROTOCOL_VERSION))?;
        let [version, _revision] = version.to_be_bytes();
        if u16::from_be_bytes([version, 0]) != PROTOCOL_VERSION {
            return Err(Error::UnsupportedVersion { version });
        }
        let framing = message.u32(Attribute::FRAMING_CAPABILITIES);
        let framing = framing.ok_or_else(missing(Attribute::FRAMING_CAPABILITIES))?;
        let host_name = message.value(Attribute::HOST_NAME).ok_or_else(missing(Attribute::HOST_NAME))?;
        let window = message.u16(Attribute::RECEIVE_WINDOW_SIZE).unwrap_or(DEFAULT_WINDOW);
        if window == 0 {
            return Err(invalid(Attribute::RECEIVE_WINDOW_SIZE));
        }
        let challenge = message.value(Attribute::CHALLENGE);
        if let Some(secret) = &self.config.secret {
            let response = message.value(Attribute::CHALLENGE_RESPONSE);
            let response = response.ok_or(Error::TunnelAuthenticationFailed(Authentication::ResponseMissing))?;
            if !authentication::verify(MessageType::SCCRP, secret, &self.challenge, response) {
                return Err(Error::TunnelAuthenticationFailed(Authentication::ResponseWrong));
            }
            let answer = |challenge| authentication::response(MessageType::SCCCN, secret, challenge);
            self.challenge_response = challenge.map(answer);
        } else if challenge.is_some() {
            return Err(Error::TunnelAuthenticationFailed(Authentication::SecretMissing));
        }
        self.channel.set_peer_window(window);
        // "A peer MUST NOT request [a] call with a Framing Type AVP specifying a value not advertised".
        self.framing_type =
            if framing & (FRAMING_SYNC | FRAMING_ASYNC) == FRAMING_ASYNC { FRAMING_ASYNC } else { FRAMING_SYNC };
        Ok(Peer {
            host_name: printable(host_name),
            vendor_name: message.value(Attribute::VENDOR_NAME).map(printable),
            firmware_revision: message.u16(Attribute::FIRMWARE_REVISION),
        })
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

    pub(super) fn send_sccrq(&mut self) {
        let host_name = match self.config.host_name.as_bytes() {
            [] => ANONYMOUS,
            name => name,
        };
        let body = Body::new(MessageType::SCCRQ)
            .u16(Attribute::PROTOCOL_VERSION, PROTOCOL_VERSION)
            .bytes(Attribute::HOST_NAME, host_name)
            .u32(Attribute::FRAMING_CAPABILITIES, FRAMING_ASYNC | FRAMING_SYNC)
            .u16(Attribute::ASSIGNED_TUNNEL_ID, self.tunnel_id.0)
            .u16(Attribute::RECEIVE_WINDOW_SIZE, self.channel.receive_window());
        let body = match self.config.secret {
            Some(_) => body.bytes(Attribute::CHALLENGE, &self.challenge),
            None => body,
        };
        self.send(SessionId::default(), body);
    }

    pub(super) fn send_scccn(&mut self) {
        let body = self.body(MessageType::SCCCN);
        let body = match self.challenge_response {
            Some(response) => body.bytes(Attribute::CHALLENGE_RESPONSE, &response),
            None => body,
        };
        self.send(SessionId::default(), body);
    }

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
