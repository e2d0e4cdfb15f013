//! CHAP (RFC 1994) in the role of the authenticator, with the algorithms MD5 and MS-CHAPv2 (RFC 2759 sections 3 to 6).

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::chap::{Algorithm, ChapCode};
use super::mschapv2::{CHALLENGE, Response};
use super::packet::{Packet, Protocol};
use crate::aaa::{Grant, MAX_NAME, Proof, Refusal, Request};
use crate::wire::Reader;

/// What a peer that may come in reads.
pub(super) const WELCOME: &str = "welcome";
/// What one that may not reads, whatever the cause.
pub(super) const DENIED: &str = "access denied";

/// A Challenge and the answer to its Response.
pub(super) struct Challenger {
    algorithm: Algorithm,
    id: u8,
    value: [u8; CHALLENGE],
    /// Our name.
    name: String,
    /// Code and Message of the answer, once there is one.
    answer: Option<(ChapCode, String)>,
}

impl Challenger {
    pub(super) fn new(algorithm: Algorithm, name: &str, rng: &mut StdRng) -> Self {
        let mut value = [0; CHALLENGE];
        //= rfc1994 4.1 "The Challenge Value MUST be changed each time a Challenge is sent."
        //= test: challenges_differ_from_link_to_link, a_challenge_is_repeated_every_three_seconds_ten_times_and_then_given_up
        //= rfc1994 4.1 "The Identifier field MUST be changed each time a Challenge is sent."
        //= test: challenges_differ_from_link_to_link, a_response_that_is_no_answer_to_the_challenge_is_ignored
        rng.fill_bytes(&mut value);
        Self { algorithm, id: rng.random(), value, name: name.to_owned(), answer: None }
    }

    /// The Identifier.
    pub(super) fn id(&self) -> u8 {
        self.id
    }

    /// The length of the value, the value and our name.
    pub(super) fn data(&self) -> Vec<u8> {
        let length = u8::try_from(self.value.len()).unwrap_or(u8::MAX);
        [&[length], &self.value[..], self.name.as_bytes()].concat()
    }

    /// The Challenge. It is repeated as it is, so that a Response that crosses the repetition counts.
    pub(super) fn challenge(&self) -> Vec<u8> {
        Packet { code: ChapCode::CHALLENGE.0, id: self.id, data: &self.data() }.frame(Protocol::CHAP)
    }

    /// What a Response to the Challenge says; none when it is something else.
    pub(super) fn read(&self, packet: &Packet<'_>) -> Option<Request> {
        let is_answer = (ChapCode(packet.code), packet.id) == (ChapCode::RESPONSE, self.id);
        is_answer.then(|| self.proof(packet.data)).flatten()
    }

    /// What the length of a value, the value and a name say.
    pub(super) fn proof(&self, data: &[u8]) -> Option<Request> {
        let mut reader = Reader::new(data);
        let length = reader.u8("value size").ok()?;
        let value = reader.take(length.into(), "value").ok()?;
        let name = str::from_utf8(reader.rest()).ok().filter(|name| name.len() <= MAX_NAME)?;
        let proof = match self.algorithm {
            Algorithm::Md5 => {
                Proof::Chap { id: self.id, challenge: self.value.to_vec(), response: value.try_into().ok()? }
            }
            Algorithm::MsChapV2 => {
                let Response { peer_challenge, nt_response } = Response::parse(value)?;
                Proof::MsChapV2 { id: self.id, authenticator_challenge: self.value, peer_challenge, nt_response }
            }
        };
        Some(Request { name: name.to_owned(), proof })
    }

    /// The Response is right.
    pub(super) fn accept(&mut self, grant: &Grant) {
        let message = match self.algorithm {
            Algorithm::Md5 => WELCOME.to_owned(),
            Algorithm::MsChapV2 => success_message(grant),
        };
        //= rfc1994 4.2 "then the implementation MUST transmit a CHAP packet with the Code field set to 3 (Success)."
        //= test: a_challenge_with_md5_is_asked_about_with_all_that_proves_it, a_wrong_password_never_gets_in_although_frames_are_lost_and_repeated
        self.answer = Some((ChapCode::SUCCESS, message));
    }

    /// The Response is wrong, or is not enough.
    pub(super) fn reject(&mut self, refusal: &Refusal, rng: &mut StdRng) {
        let message = match self.algorithm {
            Algorithm::Md5 => DENIED.to_owned(),
            Algorithm::MsChapV2 => failure_message(refusal, rng),
        };
        //= rfc1994 4.2 "then the implementation MUST transmit a CHAP packet with the Code field set to 4 (Failure)"
        //= test: a_refusal_comes_late_is_repeated_and_ends_the_link, links_come_up_although_frames_are_lost_and_repeated
        self.answer = Some((ChapCode::FAILURE, message));
    }

    /// What the peer is told, and told again.
    pub(super) fn reply(&self) -> Option<Vec<u8>> {
        //= rfc1994 4.1 "Based on this comparison, the authenticator MUST send a Success or Failure packet (described below)."
        //= test: a_challenge_with_md5_is_asked_about_with_all_that_proves_it, a_refusal_comes_late_is_repeated_and_ends_the_link
        let (code, message) = self.answer.as_ref()?;
        //= rfc1994 4.2 "The Identifier field MUST be copied from the Identifier field of the Response which caused this reply."
        //= test: a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server, a_refusal_comes_late_is_repeated_and_ends_the_link
        Some(Packet { code: code.0, id: self.id, data: message.as_bytes() }.frame(Protocol::CHAP))
    }
}

/// The Message of a Success (RFC 2759 section 5). A peer ends the link by itself when the response of the authenticator is missing.
pub(super) fn success_message(grant: &Grant) -> String {
    let response = grant.authenticator_response.as_deref().unwrap_or_default();
    format!("{response} M={WELCOME}")
}

/// The Message of a Failure (RFC 2759 section 6). No retry is allowed: the challenge is there because it must be.
pub(super) fn failure_message(refusal: &Refusal, rng: &mut StdRng) -> String {
    let mut challenge = [0; CHALLENGE];
    rng.fill_bytes(&mut challenge);
    let challenge = challenge.iter().fold(String::new(), |mut text, octet| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{octet:02X}");
        text
    });
    //= rfc2759 6 "This field MUST be exactly 32 octets long and MUST be present."
    //= test: a_refusal_comes_late_is_repeated_and_ends_the_link, an_unknown_user_and_a_wrong_password_look_the_same
    format!("E={} R=0 C={challenge} V=3 M={DENIED}", refusal.code())
}
