//! The end that demands a proof: it challenges, asks the owner for the verdict, tells the peer, and tells it again when asked again.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Outcome;
use crate::aaa::{Cause, Grant, Refusal};
use crate::config::PppAuth;
use crate::ppp::challenge::Challenger;
use crate::ppp::chap::Algorithm;
use crate::ppp::config::{Config, Server};
use crate::ppp::eap;
use crate::ppp::error::{Error, Phase};
use crate::ppp::packet::{Packet, Protocol};
use crate::ppp::pap::Verifier;

/// How often a Challenge is repeated (RFC 1994 section 4.1 leaves the limit open), and how many Restart timers a peer with PAP
/// may take for its first request.
const MAX_CHALLENGE: u32 = 10;
/// What a wrong proof costs before the peer hears of it: guesses are slow.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// At most this much more, so that the time tells nothing of what was looked up.
const REFUSAL_JITTER: Duration = Duration::from_millis(500);
/// How long a refused link lives on: a peer that lost the refusal asks again after its own Restart timer and hears it then.
const REFUSAL_LINGER: Duration = Duration::from_secs(4);

/// The protocol.
enum Exchange {
    Pap(Verifier),
    Chap(Challenger),
    Eap(Box<eap::Authenticator>),
}

/// How far it is.
enum Stage {
    /// The peer has yet to answer; the question is asked again then, and so often after it.
    Waiting { at: Instant, left: u32 },
    /// The owner is asked.
    Asked,
    /// The peer hears of its refusal then.
    Refusing { at: Instant, error: Error },
    /// It has heard; the link ends then.
    Refused { at: Instant, error: Error },
    /// The peer is in.
    Accepted,
}

/// The authentication of the other end.
pub(in crate::ppp) struct Authenticator {
    method: PppAuth,
    exchange: Exchange,
    stage: Stage,
    restart: Duration,
}

impl Authenticator {
    /// Begins; returns what to send.
    pub(in crate::ppp) fn new(
        now: Instant,
        method: PppAuth,
        server: &Server,
        config: &Config,
        rng: &mut StdRng,
    ) -> (Self, Option<Vec<u8>>) {
        let exchange = match method {
            PppAuth::Pap => Exchange::Pap(Verifier::default()),
            PppAuth::Chap => Exchange::Chap(Challenger::new(Algorithm::Md5, &server.name, rng)),
            PppAuth::MsChapV2 => Exchange::Chap(Challenger::new(Algorithm::MsChapV2, &server.name, rng)),
            PppAuth::Eap => Exchange::Eap(Box::new(eap::Authenticator::new(server.eap.clone(), &server.name, rng))),
        };
        let restart = config.counters.restart;
        let authenticator =
            Self { method, exchange, stage: Stage::Waiting { at: now + restart, left: MAX_CHALLENGE }, restart };
        //= rfc1994 4.1 "The authenticator MUST transmit a CHAP packet with the Code field set to 1 (Challenge)."
        //= test: a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server, nothing_passes_before_the_authentication
        let frame = authenticator.question();
        (authenticator, frame)
    }

    pub(in crate::ppp) fn method(&self) -> PppAuth {
        self.method
    }

    /// Why the peer was refused.
    pub(in crate::ppp) fn refused(&self) -> Option<&Error> {
        match &self.stage {
            Stage::Refusing { error, .. } | Stage::Refused { error, .. } => Some(error),
            Stage::Waiting { .. } | Stage::Asked | Stage::Accepted => None,
        }
    }

    pub(super) fn handle(&mut self, now: Instant, protocol: Protocol, packet: &Packet<'_>, may_ask: bool) -> Outcome {
        let request = match (&mut self.exchange, protocol) {
            (Exchange::Pap(pap), Protocol::PAP) => pap.read(packet),
            (Exchange::Chap(chap), Protocol::CHAP) => chap.read(packet),
            (Exchange::Eap(_), Protocol::EAP) => return self.handle_eap(now, packet, may_ask),
            // Not what was agreed on.
            (Exchange::Pap(_) | Exchange::Chap(_) | Exchange::Eap(_), _) => None,
        };
        match (request, &self.stage) {
            (Some(request), Stage::Waiting { .. }) if may_ask => {
                self.stage = Stage::Asked;
                Outcome::Ask(request)
            }
            //= rfc1994 4.1 "any Response packets received having the current Challenge Identifier MUST return the same reply Code previously returned for that specific Challenge"
            //= test: a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server, a_refusal_comes_late_is_repeated_and_ends_the_link
            //= rfc1994 4.1 "the authenticator MUST allow repeated Response packets during the Network-Layer Protocol phase"
            //= test: a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server, a_response_that_is_no_answer_to_the_challenge_is_ignored
            //= rfc1334 2.2.1 "MUST return the same reply Code returned when the Authentication phase completed"
            //= test: a_repeated_request_gets_the_same_answer_whatever_it_says, pap_is_refused_with_a_nak_in_a_while
            // Whatever the repetition says: another answer would tell a guesser something.
            (Some(_), Stage::Refused { .. } | Stage::Accepted) => self.reply().map_or(Outcome::Ignored, Outcome::Send),
            //= rfc1994 4.1 "Any Response packets received during any other phase MUST be silently discarded."
            //= test: a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server, every_frame_in_every_phase_of_the_server_does_what_is_written_down
            (Some(_) | None, _) => Outcome::Ignored,
        }
    }

    fn handle_eap(&mut self, now: Instant, packet: &Packet<'_>, may_ask: bool) -> Outcome {
        let Exchange::Eap(eap) = &mut self.exchange else { return Outcome::Ignored };
        match self.stage {
            Stage::Waiting { .. } if may_ask => {
                let step = eap.handle(packet);
                self.step(now, step)
            }
            Stage::Refused { .. } | Stage::Accepted => eap.repeat(packet).map_or(Outcome::Ignored, Outcome::Send),
            Stage::Waiting { .. } | Stage::Asked | Stage::Refusing { .. } => Outcome::Ignored,
        }
    }

    fn step(&mut self, now: Instant, step: eap::Step) -> Outcome {
        match step {
            eap::Step::Ignored => Outcome::Ignored,
            eap::Step::Send(frame) => {
                self.stage = Stage::Waiting { at: now + self.restart, left: MAX_CHALLENGE };
                Outcome::Send(frame)
            }
            eap::Step::Ask(request) => {
                self.stage = Stage::Asked;
                Outcome::Ask(request)
            }
            eap::Step::Accepted(frame) => {
                self.stage = Stage::Accepted;
                Outcome::Accepted(Some(frame))
            }
            eap::Step::Refused(frame, error) => {
                self.stage = Stage::Refused { at: now + REFUSAL_LINGER, error };
                Outcome::Send(frame)
            }
        }
    }

    /// The peer may come in.
    pub(in crate::ppp) fn accept(&mut self, now: Instant, grant: &Grant) -> Outcome {
        if !matches!(self.stage, Stage::Asked) {
            return Outcome::Ignored;
        }
        match &mut self.exchange {
            Exchange::Pap(pap) => pap.accept(),
            Exchange::Chap(chap) => chap.accept(grant),
            Exchange::Eap(eap) => {
                let step = eap.accept(grant);
                return self.step(now, step);
            }
        }
        self.stage = Stage::Accepted;
        Outcome::Accepted(self.reply())
    }

    /// The peer may not come in; it hears so in a while.
    pub(in crate::ppp) fn reject(&mut self, now: Instant, refusal: &Refusal, rng: &mut StdRng) {
        if !matches!(self.stage, Stage::Asked) {
            return;
        }
        match &mut self.exchange {
            Exchange::Pap(pap) => pap.reject(),
            Exchange::Chap(chap) => chap.reject(refusal, rng),
            Exchange::Eap(eap) => eap.reject(refusal, rng),
        }
        let at = now + REFUSAL_DELAY + REFUSAL_JITTER.mul_f64(rng.random());
        let error = Error::Refused { method: self.method, cause: refusal.cause };
        self.stage = Stage::Refusing { at, error };
    }

    /// The RADIUS server has another question for the peer.
    pub(in crate::ppp) fn challenge(&mut self, now: Instant, packet: &[u8], rng: &mut StdRng) -> Outcome {
        let Exchange::Eap(eap) = &mut self.exchange else { return Outcome::Ignored };
        if !matches!(self.stage, Stage::Asked) {
            return Outcome::Ignored;
        }
        match eap.challenge(packet) {
            // Nothing that a peer could answer.
            eap::Step::Ignored => {
                self.reject(now, &Refusal::new(Cause::RadiusReject), rng);
                Outcome::Ignored
            }
            step => self.step(now, step),
        }
    }

    /// What the peer is asked.
    fn question(&self) -> Option<Vec<u8>> {
        match &self.exchange {
            Exchange::Pap(_) => None,
            Exchange::Chap(chap) => Some(chap.challenge()),
            Exchange::Eap(eap) => Some(eap.last()),
        }
    }

    /// What the peer is told.
    fn reply(&self) -> Option<Vec<u8>> {
        match &self.exchange {
            Exchange::Pap(pap) => pap.reply(),
            Exchange::Chap(chap) => chap.reply(),
            Exchange::Eap(eap) => Some(eap.last()),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { at, .. } | Stage::Refusing { at, .. } | Stage::Refused { at, .. } => Some(at),
            Stage::Asked | Stage::Accepted => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Outcome {
        match self.stage {
            Stage::Waiting { at, left } if at <= now => match left.checked_sub(1) {
                Some(left) => {
                    self.stage = Stage::Waiting { at: now + self.restart, left };
                    //= rfc1994 4.1 "Additional Challenge packets MUST be sent until a valid Response packet is received, or an optional retry counter expires."
                    //= test: a_challenge_is_repeated_every_three_seconds_ten_times_and_then_given_up, echoes_are_answered_while_the_verdict_is_awaited_and_the_wait_has_an_end
                    self.question().map_or(Outcome::Ignored, Outcome::Send)
                }
                None => Outcome::Failed(Error::NoResponse { phase: Phase::Authentication }),
            },
            Stage::Refusing { at, ref error } if at <= now => {
                self.stage = Stage::Refused { at: now + REFUSAL_LINGER, error: error.clone() };
                self.reply().map_or(Outcome::Ignored, Outcome::Send)
            }
            Stage::Refused { at, ref error } if at <= now => Outcome::Failed(error.clone()),
            _ => Outcome::Ignored,
        }
    }
}
