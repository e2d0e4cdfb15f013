//! The authentication phase (RFC 1661 section 3.5), from the end that proves who it is and from the one that demands it.

use std::time::Instant;

use super::Error;
use super::packet::{Packet, Protocol};
use crate::aaa;
use crate::config::PppAuth;

pub(super) use authenticator::Authenticator;
pub(super) use peer::{Peer, is_mutual};

mod authenticator;
mod peer;

/// What came of a packet or of time.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing.
    Ignored,
    /// A frame is to be sent.
    Send(Vec<u8>),
    /// The owner has to decide.
    Ask(aaa::Request),
    /// Both ends are satisfied; a frame may have to tell the other one.
    Accepted(Option<Vec<u8>>),
    /// One of them is not.
    Failed(Error),
}

/// One authentication, and the repetitions of it while the link is up.
pub(super) enum Authentication {
    /// Of ourselves.
    Peer(Peer),
    /// Of the other end.
    Authenticator(Box<Authenticator>),
}

impl Authentication {
    pub(super) fn method(&self) -> PppAuth {
        match self {
            Self::Peer(peer) => peer.method(),
            Self::Authenticator(authenticator) => authenticator.method(),
        }
    }

    /// The protocol that carries it.
    pub(super) fn protocol(&self) -> Protocol {
        match self.method() {
            PppAuth::Pap => Protocol::PAP,
            PppAuth::Chap | PppAuth::MsChapV2 => Protocol::CHAP,
            PppAuth::Eap => Protocol::EAP,
        }
    }

    /// Takes a packet. Unless `may_ask`, the owner still owes an answer and is asked nothing.
    pub(super) fn handle(&mut self, now: Instant, protocol: Protocol, packet: &Packet<'_>, may_ask: bool) -> Outcome {
        match self {
            Self::Peer(peer) => peer.handle(now, protocol, packet),
            Self::Authenticator(authenticator) => authenticator.handle(now, protocol, packet, may_ask),
        }
    }

    /// A network control protocol of the other end came.
    pub(super) fn handle_success_below(&mut self) -> Outcome {
        match self {
            Self::Peer(peer) => peer.handle_success_below(),
            Self::Authenticator(_) => Outcome::Ignored,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Peer(peer) => peer.poll_timeout(),
            Self::Authenticator(authenticator) => authenticator.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Outcome {
        match self {
            Self::Peer(peer) => peer.handle_timeout(now),
            Self::Authenticator(authenticator) => authenticator.handle_timeout(now),
        }
    }

    /// The authenticator, in the role of the server.
    pub(super) fn authenticator(&mut self) -> Option<&mut Authenticator> {
        match self {
            Self::Peer(_) => None,
            Self::Authenticator(authenticator) => Some(authenticator),
        }
    }
}
