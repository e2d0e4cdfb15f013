//! What both ends say about themselves in SCCRQ and SCCRP (RFC 2661 sections 4.4.3, 6.1 and 6.2).

use super::avp::Attribute;
use super::channel::DEFAULT_WINDOW;
use super::config::Peer;
use super::ending::PROTOCOL_VERSION;
use super::error::Error;
use super::message::{Body, Message, TunnelId};
use super::outcome::printable;

/// Asynchronous and synchronous framing: bits A and S of the Framing Capabilities.
pub(super) const FRAMING_ASYNC: u32 = 2;
pub(super) const FRAMING_SYNC: u32 = 1;

/// The name that an end without one goes by: the Host Name AVP "MUST be at least 1 octet".
const ANONYMOUS: &[u8] = b"anonymous";

/// What an SCCRQ or SCCRP says about its sender.
#[derive(Debug)]
pub(super) struct Introduction {
    /// The Framing Capabilities.
    pub(super) framing: u32,
    /// The Receive Window Size, which is not zero.
    pub(super) window: u16,
    pub(super) peer: Peer,
}

impl Introduction {
    /// Reads everything but the Assigned Tunnel ID, without which no refusal can be addressed.
    pub(super) fn read(message: &Message) -> Result<Self, Error> {
        let invalid = |attribute| Error::InvalidAvp { message: message.message_type, attribute };
        let missing = |attribute| move || invalid(attribute);
        let version = message.u16(Attribute::PROTOCOL_VERSION).ok_or_else(missing(Attribute::PROTOCOL_VERSION))?;
        let [version, _revision] = version.to_be_bytes();
        //= rfc2661 7.2.1 "If the version is earlier and not supported, a StopCCN MUST be sent to the peer and the originator cleans up and terminates the tunnel."
        //= test: a_control_connection_is_accepted_in_the_order_of_the_rfc, another_protocol_version_is_refused_with_ours
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
        let peer = Peer {
            host_name: printable(host_name),
            vendor_name: message.value(Attribute::VENDOR_NAME).map(printable),
            firmware_revision: message.u16(Attribute::FIRMWARE_REVISION),
        };
        Ok(Self { framing, window, peer })
    }

    /// Reads the Assigned Tunnel ID.
    pub(super) fn tunnel_id(message: &Message) -> Result<TunnelId, Error> {
        let attribute = Attribute::ASSIGNED_TUNNEL_ID;
        //= rfc2661 5.3 "MUST NOT be used as an Assigned Session ID or Assigned Tunnel ID."
        //= test: a_control_connection_is_accepted_in_the_order_of_the_rfc, an_sccrq_that_names_no_tunnel_is_refused_at_tunnel_0
        let id = message.u16(attribute).filter(|&id| id != 0);
        id.map(TunnelId).ok_or(Error::InvalidAvp { message: message.message_type, attribute })
    }

    /// Appends what this end says about itself.
    pub(super) fn write(body: Body, host_name: &str, tunnel_id: TunnelId, window: u16) -> Body {
        //= rfc2661 4.4.3 "The Host Name is of arbitrary length, but MUST be at least 1 octet."
        //= test: an_end_without_a_name_is_called_anonymous, a_host_name_without_an_octet_is_none
        let host_name = match host_name.as_bytes() {
            [] => ANONYMOUS,
            name => name,
        };
        //= rfc2661 6.1 "The following AVPs MUST be present in the SCCRQ:"
        //= test: a_session_is_established_in_the_order_of_the_rfc, an_sccrq_without_a_required_avp_is_refused
        //= rfc2661 6.2 "The following AVPs MUST be present in the SCCRP:"
        //= test: a_control_connection_is_accepted_in_the_order_of_the_rfc, an_sccrp_without_a_required_avp_is_refused
        body.u16(Attribute::PROTOCOL_VERSION, PROTOCOL_VERSION)
            .bytes(Attribute::HOST_NAME, host_name)
            .u32(Attribute::FRAMING_CAPABILITIES, FRAMING_ASYNC | FRAMING_SYNC)
            .u16(Attribute::ASSIGNED_TUNNEL_ID, tunnel_id.0)
            .u16(Attribute::RECEIVE_WINDOW_SIZE, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l2tp::message::MessageType;

    fn written(host_name: &str) -> Message {
        let body = Introduction::write(Body::new(MessageType::SCCRQ), host_name, TunnelId(1), 4);
        Message::read(&body.into_octets(), None).unwrap()
    }

    #[test]
    fn an_end_without_a_name_is_called_anonymous() {
        assert_eq!(written("").value(Attribute::HOST_NAME), Some(&b"anonymous"[..]));
        assert_eq!(Introduction::read(&written("lns")).unwrap().peer.host_name, "lns");
    }

    #[test]
    fn a_host_name_without_an_octet_is_none() {
        // The M bit is not set, so that the AVP is ignored and not the reason itself.
        let body = Body::new(MessageType::SCCRQ)
            .u16(Attribute::PROTOCOL_VERSION, PROTOCOL_VERSION)
            .u32(Attribute::FRAMING_CAPABILITIES, FRAMING_SYNC)
            .raw(&[0, 6, 0, 0, 0, 7]);
        let message = Message::read(&body.into_octets(), None).unwrap();
        let attribute = Attribute::HOST_NAME;
        assert_eq!(
            Introduction::read(&message).err(),
            Some(Error::InvalidAvp { message: MessageType::SCCRQ, attribute })
        );
    }
}
