//! The end that demands a proof: it challenges, asks the owner for the verdict, tells the peer, and tells it again when asked again.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Outcome;
use crate::aaa::{Cause, Grant, Refusal, Request};
use crate::config::PppAuth;
use crate::ppp::challenge::Challenger;
use crate::ppp::chap::Algorithm;
use crate::ppp::config::{Config, Server};
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
}

/// How far it is.
enum Stage {
    /// The peer has yet to say who it is; the next challenge is due then, and so many may follow it.
    Waiting { at: Instant, left: u32 },
    /// The owner is asked.
    Asked,
    /// The peer hears of its refusal then.
    Refusing { at: Instant, cause: Cause },
    /// It has heard; the link ends then.
    Refused { at: Instant, cause: Cause },
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
        };
        let restart = config.counters.restart;
        let authenticator =
            Self { method, exchange, stage: Stage::Waiting { at: now + restart, left: MAX_CHALLENGE }, restart };
        let frame = authenticator.challenge();
        (authenticator, frame)
    }

    pub(in crate::ppp) fn method(&self) -> PppAuth {
        self.method
    }

    /// Why the peer was refused.
    pub(in crate::ppp) fn refused(&self) -> Option<Cause> {
        match self.stage {
            Stage::Refusing { cause, .. } | Stage::Refused { cause, .. } => Some(cause),
            Stage::Waiting { .. } | Stage::Asked | Stage::Accepted => None,
        }
    }

    pub(super) fn handle(&mut self, protocol: Protocol, packet: &Packet<'_>, may_ask: bool) -> Outcome {
        let request = match (&mut self.exchange, protocol) {
            (Exchange::Pap(pap), Protocol::PAP) => pap.read(packet),
            (Exchange::Chap(chap), Protocol::CHAP) => chap.read(packet),
            // Not what was agreed on.
            (Exchange::Pap(_) | Exchange::Chap(_), _) => None,
        };
        let Some(request) = request else { return Outcome::Ignored };
        match self.stage {
            Stage::Waiting { .. } if may_ask => self.ask(request),
            Stage::Waiting { .. } | Stage::Asked | Stage::Refusing { .. } => Outcome::Ignored,
            // Whatever the repetition says: another answer would tell a guesser something.
            Stage::Refused { .. } | Stage::Accepted => self.reply().map_or(Outcome::Ignored, Outcome::Send),
        }
    }

    fn ask(&mut self, request: Request) -> Outcome {
        self.stage = Stage::Asked;
        Outcome::Ask(request)
    }

    /// The peer may come in; returns what tells it, if it waits for that.
    pub(in crate::ppp) fn accept(&mut self, grant: &Grant) -> Option<Vec<u8>> {
        if !matches!(self.stage, Stage::Asked) {
            return None;
        }
        match &mut self.exchange {
            Exchange::Pap(pap) => pap.accept(),
            Exchange::Chap(chap) => chap.accept(grant),
        }
        self.stage = Stage::Accepted;
        self.reply()
    }

    /// The peer may not come in; it hears so in a while.
    pub(in crate::ppp) fn reject(&mut self, now: Instant, refusal: &Refusal, rng: &mut StdRng) {
        if !matches!(self.stage, Stage::Asked) {
            return;
        }
        match &mut self.exchange {
            Exchange::Pap(pap) => pap.reject(),
            Exchange::Chap(chap) => chap.reject(refusal, rng),
        }
        let at = now + REFUSAL_DELAY + REFUSAL_JITTER.mul_f64(rng.random());
        self.stage = Stage::Refusing { at, cause: refusal.cause };
    }

    fn challenge(&self) -> Option<Vec<u8>> {
        match &self.exchange {
            Exchange::Pap(_) => None,
            Exchange::Chap(chap) => Some(chap.challenge()),
        }
    }

    fn reply(&self) -> Option<Vec<u8>> {
        match &self.exchange {
            Exchange::Pap(pap) => pap.reply(),
            Exchange::Chap(chap) => chap.reply(),
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
                    self.challenge().map_or(Outcome::Ignored, Outcome::Send)
                }
                None => Outcome::Failed(Error::NoResponse { phase: Phase::Authentication }),
            },
            Stage::Refusing { at, cause } if at <= now => {
                self.stage = Stage::Refused { at: now + REFUSAL_LINGER, cause };
                self.reply().map_or(Outcome::Ignored, Outcome::Send)
            }
            Stage::Refused { at, cause } if at <= now => Outcome::Failed(Error::Refused { method: self.method, cause }),
            _ => Outcome::Ignored,
        }
    }
}
