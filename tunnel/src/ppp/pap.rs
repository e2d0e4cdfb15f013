//! The Password Authentication Protocol (RFC 1334 section 2), in the roles of the peer and of the authenticator.

use zeroize::Zeroizing;

use super::challenge::{DENIED, WELCOME};
use super::packet::{Packet, Protocol, text};
use crate::aaa::{MAX_NAME, Proof, Request};
use crate::registry;
use crate::wire::Reader;

registry! {
    /// The Code field (RFC 1334 section 2.2).
    pub struct PapCode(u8) {
        AUTHENTICATE_REQUEST = 1,
        AUTHENTICATE_ACK = 2,
        AUTHENTICATE_NAK = 3,
    }
}

/// The requests of one exchange.
pub(super) struct Pap {
    username: String,
    password: Zeroizing<String>,
    /// The Identifier of the last one.
    last: u8,
    /// How many came before it.
    repeated: u8,
}

impl Pap {
    /// An exchange that begins with the Identifier `id`.
    pub(super) fn new(id: u8, username: String, password: Zeroizing<String>) -> Self {
        Self { username, password, last: id, repeated: 0 }
    }

    /// The Identifier of the next request: it "MUST be changed each time an Authenticate-Request packet is issued".
    pub(super) fn repeat(&mut self) {
        //= rfc1334 2.2.1 "The Identifier field MUST be changed each time an Authenticate-Request packet is issued."
        //= test: pap_is_repeated_with_another_identifier_until_one_of_them_is_answered, only_an_answer_to_a_request_of_ours_decides
        (self.last, self.repeated) = (self.last.wrapping_add(1), self.repeated.saturating_add(1));
    }

    /// The Authenticate-Request. Names and passwords are cut to 255 octets, more than the configuration lets through.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut data = Zeroizing::new(Vec::new());
        for field in [self.username.as_bytes(), self.password.as_bytes()] {
            let length = u8::try_from(field.len()).unwrap_or(u8::MAX);
            data.push(length);
            data.extend(field.iter().take(length.into()));
        }
        Packet { code: PapCode::AUTHENTICATE_REQUEST.0, id: self.last, data: &data }.frame(Protocol::PAP)
    }

    /// The peer's decision on any of the requests, with its message; none when the packet is nothing of the kind.
    pub(super) fn decision(&self, packet: &Packet<'_>) -> Option<Result<(), String>> {
        // Only the message may be missing altogether: some gateways leave its length out.
        let message = packet
            .data
            .split_first()
            .map_or(&[][..], |(length, rest)| rest.get(..usize::from(*length)).unwrap_or(rest));
        match PapCode(packet.code) {
            _ if self.last.wrapping_sub(packet.id) > self.repeated => None,
            PapCode::AUTHENTICATE_ACK => Some(Ok(())),
            PapCode::AUTHENTICATE_NAK => Some(Err(text(message))),
            _ => None,
        }
    }
}

/// What an authenticator reads and answers.
#[derive(Default)]
pub(super) struct Verifier {
    /// The Identifier of the last request: the one that the peer waits to see again.
    id: u8,
    /// The answer, once there is one.
    answer: Option<PapCode>,
}

impl Verifier {
    /// What an Authenticate-Request says; none when it is something else.
    pub(super) fn read(&mut self, packet: &Packet<'_>) -> Option<Request> {
        if PapCode(packet.code) != PapCode::AUTHENTICATE_REQUEST {
            return None;
        }
        let mut reader = Reader::new(packet.data);
        let length = reader.u8("length of the name").ok()?;
        let name =
            str::from_utf8(reader.take(length.into(), "name").ok()?).ok().filter(|name| name.len() <= MAX_NAME)?;
        let length = reader.u8("length of the password").ok()?;
        let password = Zeroizing::new(reader.take(length.into(), "password").ok()?.to_vec());
        self.id = packet.id;
        Some(Request { name: name.to_owned(), proof: Proof::Pap { password } })
    }

    /// Name and password are right.
    pub(super) fn accept(&mut self) {
        self.answer = Some(PapCode::AUTHENTICATE_ACK);
    }

    /// They are not.
    pub(super) fn reject(&mut self) {
        self.answer = Some(PapCode::AUTHENTICATE_NAK);
    }

    /// What the peer is told on its last request.
    pub(super) fn reply(&self) -> Option<Vec<u8>> {
        let code = self.answer?;
        let message = if code == PapCode::AUTHENTICATE_ACK { WELCOME } else { DENIED };
        let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
        let data = [&[length], message.as_bytes()].concat();
        //= rfc1334 2.2.2 "The Identifier field MUST be copied from the Identifier field of the Authenticate-Request which caused this reply."
        //= test: the_owner_is_asked_once_and_the_last_request_with_pap_is_answered, pap_is_refused_with_a_nak_in_a_while
        Some(Packet { code: code.0, id: self.id, data: &data }.frame(Protocol::PAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pap(id: u8, username: &str, password: &str) -> Pap {
        Pap::new(id, username.to_owned(), Zeroizing::new(password.to_owned()))
    }

    #[test]
    fn the_request_is_two_counted_fields() {
        assert_eq!(pap(3, "ab", "c").request(), [0xff, 3, 0xc0, 0x23, 1, 3, 0, 9, 2, b'a', b'b', 1, b'c']);
    }

    #[test]
    fn only_an_answer_to_a_request_of_ours_decides() {
        let nak = |id| Packet { code: 3, id, data: b"\x04nope" };
        let mut pap = pap(255, "", "");
        pap.repeat();
        assert_eq!(pap.request()[5], 0);
        for id in [255, 0] {
            assert_eq!(pap.decision(&nak(id)), Some(Err("nope".to_owned())));
            assert_eq!(pap.decision(&Packet { code: 2, id, data: &[] }), Some(Ok(())));
        }
        for id in [254, 1] {
            assert_eq!(pap.decision(&nak(id)), None);
            assert_eq!(pap.decision(&Packet { code: 2, id, data: &[] }), None);
        }
        assert_eq!(pap.decision(&Packet { code: 1, id: 0, data: &[] }), None);
    }
}
