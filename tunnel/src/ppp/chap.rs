//! CHAP (RFC 1994) in the role of the peer, with the algorithms MD5 and MS-CHAPv2 (RFC 2759 sections 3 to 7).

use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::mschapv2::{CHALLENGE, Exchange, Response};
use super::packet::{Packet, Protocol, text};
use crate::crypto::hash;
use crate::registry;
use crate::suite::Hash;
use crate::wire::Reader;

registry! {
    /// The Code field (RFC 1994 section 4).
    pub struct ChapCode(u8) {
        CHALLENGE = 1,
        RESPONSE = 2,
        SUCCESS = 3,
        FAILURE = 4,
    }
}

/// How a response is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RFC 1994 section 4.1.
    Md5,
    /// RFC 2759.
    MsChapV2,
}

/// What came of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: not valid, or not the answer to our response.
    Ignored,
    /// A response is to be sent.
    Response(Vec<u8>),
    /// The peer is satisfied and, with MS-CHAPv2, has proved that it knows the password.
    Accepted,
    /// The peer does not know the password although it says that ours is right.
    NotVerified,
    /// The peer is not satisfied.
    Refused {
        /// The error of MS-CHAPv2 (RFC 2759 section 6), such as 691.
        code: Option<u32>,
        /// What the peer says.
        message: String,
    },
}

/// Who we are, and the responses that prove it.
pub(super) struct Responder {
    username: String,
    password: Zeroizing<String>,
    rng: StdRng,
}

/// An exchange, and the repetitions of it that the peer may ask for while the link is up.
pub(super) struct Chap {
    algorithm: Algorithm,
    responder: Responder,
    answered: Option<Answered>,
}

/// A challenge with the response that it got: equal challenges get equal responses (RFC 1994 section 4.1).
struct Answered {
    id: u8,
    challenge: Vec<u8>,
    frame: Vec<u8>,
    /// What an authenticator that knows the password says.
    expected: Option<String>,
}

impl Responder {
    pub(super) fn new(username: String, password: Zeroizing<String>, rng: StdRng) -> Self {
        Self { username, password, rng }
    }

    /// The value of a Response packet (RFC 2759 section 4) and the authenticator response that it must get.
    pub(super) fn ms_chap_v2(&mut self, authenticator_challenge: [u8; CHALLENGE]) -> (Vec<u8>, String) {
        let mut peer_challenge = [0; CHALLENGE];
        self.rng.fill_bytes(&mut peer_challenge);
        let exchange =
            Exchange { authenticator_challenge, peer_challenge, username: &self.username, password: &self.password };
        let nt_response = exchange.nt_response();
        let value = Response { peer_challenge, nt_response }.write().to_vec();
        (value, exchange.authenticator_response(&nt_response))
    }

    /// Whether the message of a Success is the `expected` authenticator response, and what else it likes to say. The digits are in
    /// upper case (RFC 2759 section 5), and some gateways write lower case.
    pub(super) fn is_proof(message: &[u8], expected: &str) -> bool {
        message.get(..expected.len()).is_some_and(|said| hash::eq(&said.to_ascii_uppercase(), expected.as_bytes()))
    }
}

impl Chap {
    pub(super) fn new(algorithm: Algorithm, username: String, password: Zeroizing<String>, rng: StdRng) -> Self {
        Self { algorithm, responder: Responder::new(username, password, rng), answered: None }
    }

    /// The response that is out: sent again while no answer comes.
    pub(super) fn response(&self) -> Option<&[u8]> {
        self.answered.as_ref().map(|answered| answered.frame.as_slice())
    }

    pub(super) fn handle(&mut self, packet: &Packet<'_>) -> Outcome {
        let is_answer = self.answered.as_ref().is_some_and(|answered| answered.id == packet.id);
        //= rfc1994 4.1 "Whenever a Challenge packet is received, the peer MUST transmit a CHAP packet with the Code field set to 2 (Response)."
        //= test: the_md5_response_is_that_of_another_implementation, the_same_challenge_gets_the_same_response_and_another_gets_another
        //= rfc1994 1.1 "An implementation which does not include this option MUST be prepared to interoperate with another implementation which does include the option."
        //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, the_same_challenge_gets_the_same_response_and_another_gets_another
        match ChapCode(packet.code) {
            ChapCode::CHALLENGE => self.handle_challenge(packet).unwrap_or(Outcome::Ignored),
            ChapCode::SUCCESS if is_answer => self.handle_success(packet.data),
            ChapCode::FAILURE if is_answer => refusal(self.algorithm, packet.data),
            // Success and Failure without a challenge of that number prove nothing (section 4.2).
            _ => Outcome::Ignored,
        }
    }

    fn handle_challenge(&mut self, packet: &Packet<'_>) -> Option<Outcome> {
        let mut reader = Reader::new(packet.data);
        let length = reader.u8("value size").ok()?;
        let challenge = reader.take(length.into(), "challenge").ok()?;
        if let Some(answered) = &self.answered
            && answered.id == packet.id
            && answered.challenge == challenge
        {
            return Some(Outcome::Response(answered.frame.clone()));
        }
        let (value, expected) = match self.algorithm {
            Algorithm::Md5 if challenge.is_empty() => return None,
            Algorithm::Md5 => {
                (hash::digest(Hash::Md5, &[&[packet.id], self.responder.password.as_bytes(), challenge]), None)
            }
            Algorithm::MsChapV2 => {
                let (value, expected) = self.responder.ms_chap_v2(challenge.try_into().ok()?);
                (value, Some(expected))
            }
        };
        let mut data = vec![u8::try_from(value.len()).ok()?];
        data.extend(value);
        data.extend(self.responder.username.as_bytes());
        //= rfc1994 4.1 "The Response Identifier MUST be copied from the Identifier field of the Challenge which caused the Response."
        //= test: the_md5_response_is_that_of_another_implementation, success_counts_only_as_the_answer_to_a_challenge
        let frame = Packet { code: ChapCode::RESPONSE.0, id: packet.id, data: &data }.frame(Protocol::CHAP);
        self.answered = Some(Answered { id: packet.id, challenge: challenge.to_vec(), frame: frame.clone(), expected });
        Some(Outcome::Response(frame))
    }

    fn handle_success(&self, message: &[u8]) -> Outcome {
        match self.answered.as_ref().and_then(|answered| answered.expected.as_deref()) {
            //= rfc1994 4.2 "It is intended to be human readable, and MUST NOT affect operation of the protocol."
            //= test: success_counts_only_as_the_answer_to_a_challenge, failures_are_taken_apart
            None => Outcome::Accepted,
            //= rfc2759 5 "The authenticating peer MUST verify the authenticator response when a Success packet is received."
            //= test: an_authenticator_that_does_not_know_the_password_is_found_out, an_authenticator_without_the_password_gets_no_link
            //= rfc2759 5 "If the authenticator response is either missing or incorrect, the peer MUST end the session."
            //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, an_authenticator_without_the_password_gets_no_link
            Some(expected) if Responder::is_proof(message, expected) => Outcome::Accepted,
            Some(_) => Outcome::NotVerified,
        }
    }
}

fn refusal(algorithm: Algorithm, message: &[u8]) -> Outcome {
    let (code, message) = match algorithm {
        Algorithm::Md5 => (None, text(message)),
        Algorithm::MsChapV2 => refusal_of_ms_chap_v2(message),
    };
    Outcome::Refused { code, message }
}

/// What a Failure of MS-CHAPv2 says, `E=691 R=1 C=... V=3 M=text` (RFC 2759 section 6): the error and the text.
pub(super) fn refusal_of_ms_chap_v2(message: &[u8]) -> (Option<u32>, String) {
    let said = text(message);
    let code = said.split(' ').find_map(|field| field.strip_prefix("E=")?.parse().ok());
    (code, said.split_once("M=").map_or("", |(_, message)| message).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use rand::SeedableRng;

    fn chap(algorithm: Algorithm) -> Chap {
        Chap::new(algorithm, "User".to_owned(), Zeroizing::new("clientPass".to_owned()), StdRng::from_seed([1; 32]))
    }

    fn challenge(id: u8, value: &[u8]) -> Vec<u8> {
        [&[1, id, 0, u8::try_from(5 + value.len() + 3).unwrap(), u8::try_from(value.len()).unwrap()][..], value, b"lns"]
            .concat()
    }

    fn respond(chap: &mut Chap, id: u8, value: &[u8]) -> Vec<u8> {
        match chap.handle(&Packet::parse(&challenge(id, value)).unwrap()) {
            Outcome::Response(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_md5_response_is_that_of_another_implementation() {
        // printf '\x07clientPass\x00\x01\x02\x03\x04\x05\x06\x07' | md5sum
        let frame = respond(&mut chap(Algorithm::Md5), 7, &[0, 1, 2, 3, 4, 5, 6, 7]);
        let value = hex!("092fec9445cfd6a266df7eb4de6f083f");
        assert_eq!(frame, [&[0xff, 3, 0xc2, 0x23, 2, 7, 0, 25, 16][..], &value, b"User"].concat());
    }

    #[test]
    fn success_counts_only_as_the_answer_to_a_challenge() {
        let mut chap = chap(Algorithm::Md5);
        let success = |id| Packet { code: 3, id, data: b"hi" };
        assert_eq!(chap.handle(&success(7)), Outcome::Ignored);
        respond(&mut chap, 7, &[1; 16]);
        assert_eq!(chap.handle(&success(8)), Outcome::Ignored);
        assert_eq!(chap.handle(&success(7)), Outcome::Accepted);
    }

    #[test]
    fn the_same_challenge_gets_the_same_response_and_another_gets_another() {
        let mut chap = chap(Algorithm::MsChapV2);
        let first = respond(&mut chap, 1, &[5; 16]);
        assert_eq!(first.len(), 4 + 4 + 1 + 49 + 4);
        assert_eq!(respond(&mut chap, 1, &[5; 16]), first);
        assert_ne!(respond(&mut chap, 1, &[6; 16])[9..25], first[9..25]);
        assert_eq!(chap.handle(&Packet::parse(&challenge(2, &[5; 15])).unwrap()), Outcome::Ignored);
    }

    #[test]
    fn an_authenticator_that_does_not_know_the_password_is_found_out() {
        let mut chap = chap(Algorithm::MsChapV2);
        let authenticator_challenge = [5; 16];
        let frame = respond(&mut chap, 9, &authenticator_challenge);
        let peer_challenge = frame[9..25].try_into().unwrap();
        let says = |password| {
            let exchange = Exchange { authenticator_challenge, peer_challenge, username: "User", password };
            format!("{} M=welcome", exchange.authenticator_response(frame[33..57].try_into().unwrap()))
        };
        let success = |chap: &mut Chap, data: &str| chap.handle(&Packet { code: 3, id: 9, data: data.as_bytes() });
        assert_eq!(success(&mut chap, &says("guess")), Outcome::NotVerified);
        assert_eq!(success(&mut chap, "S=40"), Outcome::NotVerified);
        assert_eq!(success(&mut chap, &says("clientPass").to_lowercase()), Outcome::Accepted);
        assert_eq!(success(&mut chap, &says("clientPass")), Outcome::Accepted);
    }

    #[test]
    fn failures_are_taken_apart() {
        let said = b"E=691 R=1 C=000102030405060708090A0B0C0D0E0F V=3 M=Access denied";
        let refused = |code, message: &str| Outcome::Refused { code, message: message.to_owned() };
        assert_eq!(refusal(Algorithm::MsChapV2, said), refused(Some(691), "Access denied"));
        assert_eq!(refusal(Algorithm::MsChapV2, b""), refused(None, ""));
        assert_eq!(refusal(Algorithm::Md5, b"E=no"), refused(None, "E=no"));
    }
}
