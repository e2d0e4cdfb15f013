//! The authenticator's end of EAP (RFC 3748 section 4): Identity, then one of our methods or those of a RADIUS server.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::mschapv2::{Message, OpCode};
use super::tls::{Conversation, Failure, Progress};
use super::{Eap, EapCode, EapType, Method, frame, verdict};
use crate::aaa::{Grant, MAX_NAME, Proof, Refusal, Request};
use crate::ppp::challenge::{Challenger, failure_message, success_message};
use crate::ppp::chap::Algorithm;
use crate::ppp::error::{Error, Phase};
use crate::ppp::packet::{HEADER, Packet, Protocol};

/// What a Nak has in place of a Type where the peer knows no other method (RFC 3748 section 5.3.1).
const NO_ALTERNATIVE: u8 = 0;

/// What came of a Response.
pub(in crate::ppp) enum Step {
    /// Nothing: not valid, or not the answer to the Request that is out.
    Ignored,
    /// A Request is to be sent, and sent again until it is answered.
    Send(Vec<u8>),
    /// The owner has to decide.
    Ask(Request),
    /// The peer is in; this tells it.
    Accepted(Vec<u8>),
    /// It is not, for that reason; this tells it.
    Refused(Vec<u8>, Error),
}

/// How far the conversation is.
enum Stage {
    /// The peer has yet to say who it is.
    Identity,
    /// MS-CHAPv2: the challenge is out. The peer may propose another method.
    Begun,
    /// TLS: the same.
    Starting(Box<Conversation>),
    /// TLS: the handshake is under way.
    Shaking(Box<Conversation>),
    /// MS-CHAPv2: the peer is told that we know its password, and has yet to believe it.
    Succeeding,
    /// Its Response was wrong, or the method is over.
    Ended,
    /// The RADIUS server answers.
    PassThrough,
}

/// One conversation.
pub(in crate::ppp) struct Authenticator {
    eap: Eap,
    challenger: Challenger,
    /// The Identifier of the Request that is out.
    id: u8,
    /// What was sent last, or is to be sent next: that Request, or the end of the conversation.
    last: Vec<u8>,
    /// What the peer calls itself.
    name: String,
    stage: Stage,
    /// What an answer to the last Request gets once all is decided.
    farewell: Option<Vec<u8>>,
}

impl Authenticator {
    pub(in crate::ppp) fn new(eap: Eap, name: &str, rng: &mut StdRng) -> Self {
        let id = rng.random();
        Self {
            eap,
            challenger: Challenger::new(Algorithm::MsChapV2, name, rng),
            id,
            last: frame(EapCode::REQUEST, id, EapType::IDENTITY, &[]),
            name: String::new(),
            stage: Stage::Identity,
            farewell: None,
        }
    }

    /// What was sent last, or is to be sent next.
    pub(in crate::ppp) fn last(&self) -> Vec<u8> {
        self.last.clone()
    }

    pub(in crate::ppp) fn handle(&mut self, packet: &Packet<'_>) -> Step {
        let Some((kind, data)) = self.response(packet) else { return Step::Ignored };
        match (&mut self.stage, kind) {
            (Stage::Identity, EapType::IDENTITY) => {
                // What follows a zero octet is no part of the name (section 5.1).
                let name = data.split(|octet| *octet == 0).next().unwrap_or_default();
                let Some(name) = str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME) else {
                    return Step::Ignored;
                };
                self.name = name.to_owned();
                match &self.eap {
                    Eap::PassThrough => self.pass(packet),
                    Eap::Local(_) => self.begin(),
                }
            }
            (Stage::PassThrough, _) => self.pass(packet),
            (Stage::Begun | Stage::Starting(_), EapType::NAK) => self.follow(data),
            (Stage::Starting(_) | Stage::Shaking(_), EapType::TLS) => self.handle_tls(data),
            (Stage::Begun | Stage::Succeeding, EapType::MS_CHAP_V2) => self.handle_ms_chap_v2(data),
            _ => Step::Ignored,
        }
    }

    /// The Type and the data of a Response to the Request that is out.
    fn response<'a>(&self, packet: &Packet<'a>) -> Option<(EapType, &'a [u8])> {
        let (kind, data) = packet.data.split_first()?;
        //= rfc3748 4.1 "An authenticator receiving a Response whose Identifier value does not match that of the currently outstanding Request MUST silently discard the Response."
        //= test: a_request_is_repeated_as_it_is_until_it_is_answered, a_radius_server_is_asked_with_each_response_once_and_its_packets_are_passed_on
        ((EapCode(packet.code), packet.id) == (EapCode::RESPONSE, self.id)).then_some((EapType(*kind), data))
    }

    fn pass(&mut self, packet: &Packet<'_>) -> Step {
        self.stage = Stage::PassThrough;
        let packet = packet.frame(Protocol::EAP).split_off(HEADER);
        Step::Ask(Request { name: self.name.clone(), proof: Proof::Eap { packet } })
    }

    fn send(&mut self, kind: EapType, data: &[u8]) -> Step {
        //= rfc3748 4.1 "Requests MUST modify the Identifier field."
        //= test: a_client_with_eap_ms_chap_v2_is_let_in_when_it_has_acknowledged_the_success, a_request_is_repeated_as_it_is_until_it_is_answered
        self.id = self.id.wrapping_add(1);
        self.last = frame(EapCode::REQUEST, self.id, kind, data);
        Step::Send(self.last())
    }

    /// Begins the first of the methods that are left.
    fn begin(&mut self) -> Step {
        let Eap::Local(methods) = &self.eap else { return Step::Ignored };
        self.stage = Stage::Begun;
        match methods.first() {
            Some(Method::MsChapV2) => {
                let data = self.challenger.data();
                let message = Message { op_code: OpCode::CHALLENGE, id: self.challenger.id(), data: &data };
                self.send(EapType::MS_CHAP_V2, &message.write())
            }
            Some(Method::Tls(config)) => match Conversation::server(config) {
                Ok(conversation) => {
                    self.stage = Stage::Starting(Box::new(conversation));
                    self.send(EapType::TLS, &Conversation::start())
                }
                Err(failure) => self.refuse_with(not_proved(&failure)),
            },
            None => self.refuse_with(Error::NoCommonAuthentication),
        }
    }

    /// The peer does not want the method: it gets the first of the others that it names. One that names none of ours gets the
    /// next all the same unless it says that there is no other: pppd names what it does not have, and never TLS.
    fn follow(&mut self, wanted: &[u8]) -> Step {
        let Eap::Local(methods) = &mut self.eap else { return Step::Ignored };
        methods.drain(..1.min(methods.len()));
        let is_named = |method: &Method| wanted.contains(&method.kind().0);
        //= rfc3748 5.3.1 "the authenticator SHOULD NOT send another Request after receiving a Nak Response containing a zero value."
        //= test: a_client_hears_of_no_method_that_it_does_not_name, a_client_that_names_none_of_our_methods_gets_the_next_one
        if wanted.contains(&NO_ALTERNATIVE) {
            methods.clear();
        } else if methods.iter().any(is_named) {
            methods.retain(is_named);
        }
        self.begin()
    }

    fn handle_tls(&mut self, data: &[u8]) -> Step {
        let (Stage::Starting(mut conversation) | Stage::Shaking(mut conversation)) =
            std::mem::replace(&mut self.stage, Stage::Ended)
        else {
            return Step::Ignored;
        };
        match conversation.handle(data) {
            Progress::Complete => {
                let names = conversation.names();
                // The peer may say which of its names it goes by.
                let Some(name) = names.iter().find(|name| **name == self.name).or_else(|| names.first()) else {
                    let failure = Failure::Ours("the certificate has no name".to_owned());
                    return self.refuse_with(not_proved(&failure));
                };
                Step::Ask(Request { name: name.clone(), proof: Proof::Certificate })
            }
            Progress::Failed(failure) => self.refuse_with(not_proved(&failure)),
            Progress::Send(data) => match conversation.failure().cloned() {
                None => {
                    self.stage = Stage::Shaking(conversation);
                    self.send(EapType::TLS, &data)
                }
                // The alert goes out, and whatever answers it gets the Failure (RFC 5216 section 2.1.3).
                Some(failure) => {
                    self.send(EapType::TLS, &data);
                    self.farewell = Some(verdict(EapCode::FAILURE, self.id));
                    Step::Refused(self.last(), not_proved(&failure))
                }
            },
            Progress::Ignored => {
                self.stage = Stage::Shaking(conversation);
                Step::Ignored
            }
        }
    }

    fn refuse_with(&mut self, error: Error) -> Step {
        self.stage = Stage::Ended;
        Step::Refused(self.end(EapCode::FAILURE), error)
    }

    /// Ends the conversation with a Success or a Failure in answer to the last Response.
    fn end(&mut self, code: EapCode) -> Vec<u8> {
        self.last = verdict(code, self.id);
        self.farewell = Some(self.last());
        self.last()
    }

    fn handle_ms_chap_v2(&mut self, data: &[u8]) -> Step {
        let Some(message) = Message::parse(data) else { return Step::Ignored };
        match (&self.stage, message.op_code) {
            (Stage::Begun, OpCode::RESPONSE) if message.id == self.challenger.id() => {
                self.challenger.proof(message.data).map_or(Step::Ignored, Step::Ask)
            }
            (Stage::Succeeding, OpCode::SUCCESS) => {
                self.stage = Stage::Ended;
                Step::Accepted(self.end(EapCode::SUCCESS))
            }
            (Stage::Succeeding, OpCode::FAILURE) => {
                let problem = "the peer does not believe that this end knows the password".to_owned();
                self.refuse_with(Error::NegotiationFailed { phase: Phase::Authentication, problem })
            }
            _ => Step::Ignored,
        }
    }

    /// The RADIUS server wants another round.
    pub(in crate::ppp) fn challenge(&mut self, packet: &[u8]) -> Step {
        match Packet::parse(packet) {
            Ok(request) if EapCode(request.code) == EapCode::REQUEST && matches!(self.stage, Stage::PassThrough) => {
                self.id = request.id;
                self.last = request.frame(Protocol::EAP);
                Step::Send(self.last())
            }
            Ok(_) | Err(_) => Step::Ignored,
        }
    }

    /// The peer may come in.
    pub(in crate::ppp) fn accept(&mut self, grant: &Grant) -> Step {
        if let Stage::Begun = self.stage {
            self.stage = Stage::Succeeding;
            let text = success_message(grant);
            let message = Message { op_code: OpCode::SUCCESS, id: self.challenger.id(), data: text.as_bytes() };
            return self.send(EapType::MS_CHAP_V2, &message.write());
        }
        self.stage = Stage::Ended;
        Step::Accepted(self.end_as(EapCode::SUCCESS, grant.eap.as_deref()))
    }

    /// The peer may not come in: [`Self::last`] tells it.
    pub(in crate::ppp) fn reject(&mut self, refusal: &Refusal, rng: &mut StdRng) {
        let tells = matches!(self.stage, Stage::Begun);
        self.stage = Stage::Ended;
        if !tells {
            self.end_as(EapCode::FAILURE, refusal.eap.as_deref());
            return;
        }
        let text = failure_message(refusal, rng);
        let message = Message { op_code: OpCode::FAILURE, id: self.challenger.id(), data: text.as_bytes() };
        self.send(EapType::MS_CHAP_V2, &message.write());
        // Whatever acknowledges it.
        self.farewell = Some(verdict(EapCode::FAILURE, self.id));
    }

    /// Ends with the packet of the RADIUS server where it says the same as we do, or else with ours.
    fn end_as(&mut self, code: EapCode, packet: Option<&[u8]>) -> Vec<u8> {
        let theirs = packet
            .and_then(|packet| Packet::parse(packet).ok())
            .filter(|packet| (EapCode(packet.code), packet.id) == (code, self.id));
        let Some(packet) = theirs else { return self.end(code) };
        self.last = packet.frame(Protocol::EAP);
        self.farewell = Some(self.last());
        self.last()
    }

    /// What a Response gets after the decision.
    pub(in crate::ppp) fn repeat(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        self.response(packet).and_then(|_| self.farewell.clone())
    }
}

/// The TLS handshake failed.
fn not_proved(failure: &Failure) -> Error {
    let problem = match failure {
        Failure::Ours(why) => why.clone(),
        Failure::Theirs(why) => format!("it says {why}"),
    };
    Error::NotProved { problem }
}
