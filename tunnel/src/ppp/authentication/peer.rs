//! The end that proves who it is: by the protocol that the other end asked for, with its retries.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Outcome;
use crate::config::PppAuth;
use crate::ppp::chap::{self, Algorithm, Chap};
use crate::ppp::config::{Client, Config};
use crate::ppp::eap;
use crate::ppp::error::{Error, Phase};
use crate::ppp::packet::{Packet, Protocol};
use crate::ppp::pap::Pap;
use crate::ppp::split;

/// Authenticate-Requests and Responses without an answer before the peer is given up (RFC 1334 section 2.2.1 leaves it open).
const MAX_AUTHENTICATE: u32 = 10;
/// How long a peer that wants CHAP may take for its Challenge.
const CHALLENGE_WAIT: Duration = Duration::from_secs(30);

/// Whether the protocol proves to us that the peer knows the password.
pub(in crate::ppp) fn is_mutual(method: PppAuth) -> bool {
    match method {
        PppAuth::MsChapV2 | PppAuth::Eap => true,
        PppAuth::Chap | PppAuth::Pap => false,
    }
}

enum Exchange {
    Pap(Pap),
    Chap(Box<Chap>),
    Eap(Box<eap::Peer>),
}

/// The proof of who we are, and the repetitions of it that an authenticator with CHAP may ask for while the link is up.
pub(in crate::ppp) struct Peer {
    method: PppAuth,
    exchange: Exchange,
    accepted: bool,
    restart: Duration,
    /// When the next Authenticate-Request or Response is due, and how many may follow it.
    retry: Option<(Instant, u32)>,
}

impl Peer {
    /// Begins; returns what to send.
    pub(in crate::ppp) fn new(
        now: Instant,
        method: PppAuth,
        client: &Client,
        config: &Config,
        rng: &mut StdRng,
    ) -> (Self, Option<Vec<u8>>) {
        let restart = config.counters.restart;
        let chap = |algorithm, rng: &mut StdRng| {
            let (username, password) = (client.username.clone(), client.password.clone());
            Exchange::Chap(Box::new(Chap::new(algorithm, username, password, split(rng))))
        };
        let (exchange, frame, retry) = match method {
            PppAuth::Pap => {
                let pap = Pap::new(rng.random(), client.username.clone(), client.password.clone());
                let request = pap.request();
                (Exchange::Pap(pap), Some(request), (now + restart, MAX_AUTHENTICATE))
            }
            PppAuth::Chap => (chap(Algorithm::Md5, rng), None, (now + CHALLENGE_WAIT, 0)),
            PppAuth::MsChapV2 => (chap(Algorithm::MsChapV2, rng), None, (now + CHALLENGE_WAIT, 0)),
            PppAuth::Eap => {
                let (username, password) = (client.username.clone(), client.password.clone());
                let eap = eap::Peer::new(username, password, client.tls.clone(), split(rng));
                (Exchange::Eap(Box::new(eap)), None, (now + CHALLENGE_WAIT, 0))
            }
        };
        (Self { method, exchange, accepted: false, restart, retry: Some(retry) }, frame)
    }

    pub(super) fn method(&self) -> PppAuth {
        self.method
    }

    pub(super) fn handle(&mut self, now: Instant, protocol: Protocol, packet: &Packet<'_>) -> Outcome {
        let outcome = match (&mut self.exchange, protocol) {
            (Exchange::Pap(pap), Protocol::PAP) => match pap.decision(packet) {
                Some(Ok(())) => Outcome::Accepted(None),
                Some(Err(message)) => self.refused(None, message),
                None => Outcome::Ignored,
            },
            (Exchange::Chap(chap), Protocol::CHAP) => match chap.handle(packet) {
                chap::Outcome::Ignored => Outcome::Ignored,
                chap::Outcome::Response(frame) => Outcome::Send(frame),
                chap::Outcome::Accepted => Outcome::Accepted(None),
                chap::Outcome::NotVerified => Outcome::Failed(Error::AuthenticatorNotVerified),
                chap::Outcome::Refused { code, message } => self.refused(code, message),
            },
            (Exchange::Eap(eap), Protocol::EAP) => match eap.handle(packet) {
                eap::Outcome::Ignored => Outcome::Ignored,
                eap::Outcome::Response(frame) => Outcome::Send(frame),
                eap::Outcome::Accepted(frame) => Outcome::Accepted(frame),
                eap::Outcome::NotVerified => Outcome::Failed(Error::AuthenticatorNotVerified),
                eap::Outcome::Refused(code, message) => self.refused(code, message),
            },
            // Not what was agreed on.
            (Exchange::Pap(_) | Exchange::Chap(_) | Exchange::Eap(_), _) => Outcome::Ignored,
        };
        match (&outcome, &self.exchange) {
            (Outcome::Accepted(_), _) => (self.accepted, self.retry) = (true, None),
            // The authenticator repeats its Requests; Responses are never repeated by time (RFC 3748 section 4.1).
            (Outcome::Send(_), Exchange::Eap(_)) if !self.accepted => self.retry = Some((now + CHALLENGE_WAIT, 0)),
            (Outcome::Send(_), _) if !self.accepted => self.retry = Some((now + self.restart, MAX_AUTHENTICATE)),
            (Outcome::Send(_) | Outcome::Ignored | Outcome::Ask(_) | Outcome::Failed(_), _) => {}
        }
        outcome
    }

    /// A network control protocol of the other end came: it regards us as accepted.
    pub(super) fn handle_success_below(&mut self) -> Outcome {
        let accepted = match &mut self.exchange {
            Exchange::Pap(_) | Exchange::Chap(_) => false,
            Exchange::Eap(eap) => eap.handle_success_below(),
        };
        if !accepted {
            return Outcome::Ignored;
        }
        (self.accepted, self.retry) = (true, None);
        Outcome::Accepted(None)
    }

    fn refused(&self, code: Option<u32>, message: String) -> Outcome {
        Outcome::Failed(Error::AuthenticationFailed { method: self.method, code, message })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Outcome {
        let Some((_, left)) = self.retry.filter(|(at, _)| *at <= now) else { return Outcome::Ignored };
        let unanswered = Outcome::Failed(Error::NoResponse { phase: Phase::Authentication });
        let Some(left) = left.checked_sub(1) else { return unanswered };
        let frame = match &mut self.exchange {
            Exchange::Pap(pap) => {
                pap.repeat();
                pap.request()
            }
            Exchange::Chap(chap) => match chap.response() {
                Some(response) => response.to_vec(),
                None => return unanswered,
            },
            Exchange::Eap(_) => return unanswered,
        };
        self.retry = Some((now + self.restart, left));
        Outcome::Send(frame)
    }
}
