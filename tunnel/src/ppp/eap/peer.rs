//! The peer's end of EAP (RFC 3748 section 4), with EAP-MSCHAPv2 and, where there is a certificate, EAP-TLS.

use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::mschapv2::{Message, OpCode};
use super::tls::{Conversation, Failure, Progress, TlsClient};
use super::{EapCode, EapType, FIRST_METHOD, frame};
use crate::ppp::chap::{Responder, refusal_of_ms_chap_v2};
use crate::ppp::mschapv2::CHALLENGE;
use crate::ppp::packet::Packet;
use crate::wire::Reader;

/// What came of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ppp) enum Outcome {
    /// Nothing.
    Ignored,
    /// A Response is to be sent.
    Response(Vec<u8>),
    /// The authenticator has proved who it is, and is satisfied; a frame may have to acknowledge it.
    Accepted(Option<Vec<u8>>),
    /// It has not.
    NotVerified,
    /// It is not satisfied: the error of MS-CHAPv2 and what it says.
    Refused(Option<u32>, String),
}

/// A challenge with the response that it got. A repetition of it that arrives behind a later Request, for L2TP may reorder, gets
/// no other one.
struct Challenged {
    id: u8,
    challenge: [u8; CHALLENGE],
    value: Vec<u8>,
    /// What an authenticator that knows the password says.
    expected: String,
}

/// One conversation.
pub(in crate::ppp) struct Peer {
    username: String,
    responder: Responder,
    /// The Identifier of the last Request, and its Response.
    answered: Option<(u8, Vec<u8>)>,
    /// The challenge of the method, once it has begun.
    challenged: Option<Challenged>,
    tls: Option<TlsClient>,
    /// The handshake of EAP-TLS, once it has begun.
    conversation: Option<Box<Conversation>>,
    /// The handshake is complete: a Success counts.
    shaken: bool,
    /// Both ends are satisfied.
    done: bool,
}

impl Peer {
    pub(in crate::ppp) fn new(
        username: String,
        password: Zeroizing<String>,
        tls: Option<TlsClient>,
        rng: StdRng,
    ) -> Self {
        let responder = Responder::new(username.clone(), password, rng);
        Self {
            username,
            responder,
            answered: None,
            challenged: None,
            tls,
            conversation: None,
            shaken: false,
            done: false,
        }
    }

    pub(in crate::ppp) fn handle(&mut self, packet: &Packet<'_>) -> Outcome {
        let answered = self.answered.as_ref().filter(|(id, _)| *id == packet.id);
        match (EapCode(packet.code), answered) {
            //= rfc3748 4.1 "it MUST resend its original Response without reprocessing the Request."
            //= test: a_client_answers_the_same_request_in_the_same_way, a_client_acknowledges_the_success_of_an_authenticator_that_knows_the_password
            // The same Identifier is the same Request (section 4.1).
            (EapCode::REQUEST, Some((_, response))) => Outcome::Response(response.clone()),
            (EapCode::REQUEST, None) if !self.done => self.handle_request(packet),
            (EapCode::SUCCESS, Some(_)) if self.shaken && !self.done => {
                self.done = true;
                Outcome::Accepted(None)
            }
            //= rfc3748 4.2 "after success result indications have been exchanged by both sides, a Failure packet MUST be silently discarded."
            //= test: a_client_acknowledges_the_success_of_an_authenticator_that_knows_the_password, a_client_that_is_refused_says_so
            //= rfc3748 4.2 "peer MUST silently discard a"
            //= test: a_client_acknowledges_the_success_of_an_authenticator_that_knows_the_password, a_client_lets_no_authenticator_pass_that_does_not_know_the_password
            // After both ends are satisfied neither Success nor Failure says anything (section 4.2), and before a method is
            // over a Success never does.
            (EapCode::FAILURE, Some(_)) if !self.done => {
                let failure = self.conversation.as_ref().and_then(|conversation| conversation.failure());
                failed(failure.cloned().unwrap_or_else(|| Failure::Theirs(String::new())))
            }
            _ => Outcome::Ignored,
        }
    }

    fn handle_request(&mut self, packet: &Packet<'_>) -> Outcome {
        let Some((kind, data)) = packet.data.split_first() else { return Outcome::Ignored };
        match EapType(*kind) {
            EapType::IDENTITY => {
                let name = self.username.clone();
                self.respond(packet.id, EapType::IDENTITY, name.as_bytes())
            }
            EapType::NOTIFICATION => self.respond(packet.id, EapType::NOTIFICATION, &[]),
            EapType::MS_CHAP_V2 if self.conversation.is_none() => self.handle_ms_chap_v2(packet.id, data),
            EapType::TLS if self.tls.is_some() && self.challenged.is_none() => self.handle_tls(packet.id, data),
            //= rfc3748 4.1 "A peer MUST NOT send a Nak (legacy or expanded) in response to a Request, after an initial non-Nak Response has been sent."
            //= test: a_client_proposes_its_own_method_before_one_has_begun_and_never_after, a_client_waits_for_each_fragment_and_for_the_success
            // No Nak once a method has begun (section 4.1).
            EapType(kind) if kind >= FIRST_METHOD && self.challenged.is_none() && self.conversation.is_none() => {
                let tls = self.tls.as_ref().map(|_| EapType::TLS.0);
                let methods: Vec<u8> = tls.into_iter().chain([EapType::MS_CHAP_V2.0]).collect();
                self.respond(packet.id, EapType::NAK, &methods)
            }
            _ => Outcome::Ignored,
        }
    }

    fn respond(&mut self, id: u8, kind: EapType, data: &[u8]) -> Outcome {
        let response = frame(EapCode::RESPONSE, id, kind, data);
        self.answered = Some((id, response.clone()));
        Outcome::Response(response)
    }

    fn handle_ms_chap_v2(&mut self, id: u8, data: &[u8]) -> Outcome {
        let Some(message) = Message::parse(data) else { return Outcome::Ignored };
        let expected = self.challenged.as_ref().map(|challenged| &challenged.expected);
        match (message.op_code, expected) {
            (OpCode::CHALLENGE, _) => self.handle_challenge(id, message).unwrap_or(Outcome::Ignored),
            (OpCode::SUCCESS, Some(expected)) if Responder::is_proof(message.data, expected) => {
                self.done = true;
                match self.respond(id, EapType::MS_CHAP_V2, &[OpCode::SUCCESS.0]) {
                    Outcome::Response(response) => Outcome::Accepted(Some(response)),
                    other => other,
                }
            }
            (OpCode::SUCCESS, Some(_)) => Outcome::NotVerified,
            (OpCode::FAILURE, Some(_)) => {
                let (code, message) = refusal_of_ms_chap_v2(message.data);
                Outcome::Refused(code, message)
            }
            _ => Outcome::Ignored,
        }
    }

    fn handle_tls(&mut self, id: u8, data: &[u8]) -> Outcome {
        let progress = match (&mut self.conversation, &self.tls) {
            (None, Some(tls)) if Conversation::is_start(data) => match Conversation::client(tls) {
                Ok(conversation) => self.conversation.insert(Box::new(conversation)).advance(),
                Err(failure) => Progress::Failed(failure),
            },
            (Some(conversation), _) => conversation.handle(data),
            (None, _) => Progress::Ignored,
        };
        match progress {
            Progress::Ignored => Outcome::Ignored,
            // An alert as well: what it is about comes to an end when the authenticator has seen it (RFC 5216 section 2.1.3).
            Progress::Send(data) => self.respond(id, EapType::TLS, &data),
            Progress::Complete => {
                self.shaken = true;
                self.respond(id, EapType::TLS, &[0])
            }
            Progress::Failed(failure) => failed(failure),
        }
    }

    /// Whether a network control protocol of the other end tells that its Success was lost (section 3.4).
    pub(in crate::ppp) fn handle_success_below(&mut self) -> bool {
        let lost = self.shaken && !self.done;
        self.done |= lost;
        lost
    }

    fn handle_challenge(&mut self, id: u8, message: Message<'_>) -> Option<Outcome> {
        let mut reader = Reader::new(message.data);
        let length = reader.u8("value size").ok()?;
        let challenge: [u8; CHALLENGE] = reader.take(length.into(), "challenge").ok()?.try_into().ok()?;
        let known = self.challenged.take().filter(|known| (known.id, known.challenge) == (message.id, challenge));
        let challenged = self.challenged.insert(known.unwrap_or_else(|| {
            let (value, expected) = self.responder.ms_chap_v2(challenge);
            Challenged { id: message.id, challenge, value, expected }
        }));
        let mut data = vec![u8::try_from(challenged.value.len()).ok()?];
        data.extend(&challenged.value);
        data.extend(self.username.as_bytes());
        let answer = Message { op_code: OpCode::RESPONSE, id: message.id, data: &data };
        Some(self.respond(id, EapType::MS_CHAP_V2, &answer.write()))
    }
}

/// Who is to blame for a handshake that failed.
fn failed(failure: Failure) -> Outcome {
    match failure {
        Failure::Ours(_) => Outcome::NotVerified,
        Failure::Theirs(why) => Outcome::Refused(None, why),
    }
}
