//! The Password Authentication Protocol (RFC 1334 section 2) in the role of the peer.

use super::packet::{Packet, Protocol, text};
use crate::registry;

registry! {
    /// The Code field (RFC 1334 section 2.2).
    pub struct PapCode(u8) {
        AUTHENTICATE_REQUEST = 1,
        AUTHENTICATE_ACK = 2,
        AUTHENTICATE_NAK = 3,
    }
}

/// The Authenticate-Request. Names and passwords are cut to 255 octets, more than the configuration lets through.
pub(super) fn request(id: u8, username: &str, password: &str) -> Vec<u8> {
    let mut data = zeroize::Zeroizing::new(Vec::new());
    for field in [username.as_bytes(), password.as_bytes()] {
        let length = u8::try_from(field.len()).unwrap_or(u8::MAX);
        data.push(length);
        data.extend(field.iter().take(length.into()));
    }
    Packet { code: PapCode::AUTHENTICATE_REQUEST.0, id, data: &data }.frame(Protocol::PAP)
}

/// The peer's decision on the request `id`, with its message; none when the packet is nothing of the kind.
pub(super) fn decision(packet: &Packet<'_>, id: u8) -> Option<Result<(), String>> {
    // Only the message may be missing altogether: some gateways leave its length out.
    let message =
        packet.data.split_first().map_or(&[][..], |(length, rest)| rest.get(..usize::from(*length)).unwrap_or(rest));
    match PapCode(packet.code) {
        PapCode::AUTHENTICATE_ACK if packet.id == id => Some(Ok(())),
        PapCode::AUTHENTICATE_NAK if packet.id == id => Some(Err(text(message))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_two_counted_fields() {
        assert_eq!(request(3, "ab", "c"), [0xff, 3, 0xc0, 0x23, 1, 3, 0, 9, 2, b'a', b'b', 1, b'c']);
    }

    #[test]
    fn only_an_answer_to_our_request_decides() {
        let nak = Packet { code: 3, id: 3, data: b"\x04nope" };
        assert_eq!(decision(&nak, 3), Some(Err("nope".to_owned())));
        assert_eq!(decision(&nak, 4), None);
        assert_eq!(decision(&Packet { code: 2, id: 3, data: &[] }, 3), Some(Ok(())));
        assert_eq!(decision(&Packet { code: 2, id: 2, data: &[] }, 3), None);
        assert_eq!(decision(&Packet { code: 1, id: 3, data: &[] }, 3), None);
    }
}
