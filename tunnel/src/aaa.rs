//! Authentication, authorization and accounting of the people and sites that dial in: what a PPP server asks, and what it is
//! told. Whoever decides, the users of the configuration or a RADIUS server, speaks these types; the protocols know neither.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use zeroize::Zeroizing;

pub use crate::config::server::MAX_NAME;

/// What a peer says to prove who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// PAP: the password itself (RFC 1334 section 2.2.1).
    Pap {
        /// The password, in the octets of the peer.
        password: Zeroizing<Vec<u8>>,
    },
    /// CHAP with MD5 (RFC 1994 section 4.1).
    Chap {
        /// The identifier of the Challenge.
        id: u8,
        /// The value of the Challenge.
        challenge: Vec<u8>,
        /// The value of the Response.
        response: [u8; 16],
    },
    /// MS-CHAPv2 (RFC 2759 section 4), by itself or inside of EAP.
    MsChapV2 {
        /// The identifier of the Challenge.
        id: u8,
        /// The Challenge of this end.
        authenticator_challenge: [u8; 16],
        /// The Challenge of the peer.
        peer_challenge: [u8; 16],
        /// The NT-Response.
        nt_response: [u8; 24],
    },
    /// A whole EAP packet that a RADIUS server is to answer (RFC 3579 section 2.1).
    Eap {
        /// The packet, from its Code on.
        packet: Vec<u8>,
    },
    /// EAP-TLS is complete: the peer has proved to have the key of a certificate of a trusted authority for this name.
    Certificate,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pap { .. } => "Pap",
            Self::Chap { .. } => "Chap",
            Self::MsChapV2 { .. } => "MsChapV2",
            Self::Eap { .. } => "Eap",
            Self::Certificate => "Certificate",
        })
    }
}

/// Somebody wants in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name as the peer sends it, at most [`MAX_NAME`] octets. Windows may send an empty one, or `DOMAIN\name`.
    pub name: String,
    /// What proves it.
    pub proof: Proof,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The proof is right, and the user may come in.
    Accept(Box<Grant>),
    /// It is not, or the user may not.
    Reject(Refusal),
    /// The RADIUS server wants another round of EAP.
    Challenge {
        /// The EAP packet for the peer.
        packet: Vec<u8>,
    },
}

/// What a user gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The name that the user is known by from here on.
    pub name: String,
    /// What MS-CHAPv2 owes the peer: `S=` and 40 upper-case hexadecimal digits (RFC 2759 section 5).
    pub authenticator_response: Option<String>,
    /// The EAP packet that tells the peer of its success, where a RADIUS server has written it.
    pub eap: Option<Vec<u8>>,
    /// The user's own address; any of the pool if none is given.
    pub address: Option<Ipv4Addr>,
    /// Networks behind the user, which are routed to the session.
    pub networks: Vec<Ipv4Net>,
    /// Where the user may send packets to; anywhere if none is given.
    pub destinations: Option<Vec<IpNet>>,
    /// The session ends after this time without a packet.
    pub idle: Option<Duration>,
    /// The session ends after this time.
    pub total: Option<Duration>,
    /// Octets that accounting has to repeat (RFC 2865 section 5.25).
    pub class: Vec<Vec<u8>>,
    /// How often accounting tells of the session while it lasts (RFC 2869 section 5.16).
    pub interim: Option<Duration>,
}

/// Why somebody does not get in. The peer hears [`Self::code`] and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The cause, for the log and the status; never for the peer.
    pub cause: Cause,
    /// The EAP packet that tells the peer, where a RADIUS server has written it.
    pub eap: Option<Vec<u8>>,
}

impl Refusal {
    /// A refusal of this end.
    pub fn new(cause: Cause) -> Self {
        Self { cause, eap: None }
    }

    /// The error code of MS-CHAPv2 (RFC 2759 section 6): 691, "authentication failure", whatever the cause, so that nobody
    /// learns which names exist.
    pub fn code(&self) -> u32 {
        691
    }
}

/// The causes of a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// No user has that name.
    UnknownUser,
    /// The proof is wrong.
    WrongPassword,
    /// The user is suspended.
    Suspended,
    /// The user's time has run out.
    Expired,
    /// The user has as many sessions as one may have.
    TooManySessions,
    /// The user's password is not there, or cannot be used.
    NoCredentials,
    /// The RADIUS server says no.
    RadiusReject,
    /// No RADIUS server answers.
    RadiusSilent,
    /// No address is left.
    NoAddress,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::UnknownUser,
        Self::WrongPassword,
        Self::Suspended,
        Self::Expired,
        Self::TooManySessions,
        Self::NoCredentials,
        Self::RadiusReject,
        Self::RadiusSilent,
        Self::NoAddress,
    ];

    /// The cause as the label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Suspended => "suspended",
            Self::Expired => "expired",
            Self::TooManySessions => "too_many_sessions",
            Self::NoCredentials => "no_credentials",
            Self::RadiusReject => "radius_reject",
            Self::RadiusSilent => "radius_silent",
            Self::NoAddress => "no_address",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proof_shows_its_secret() {
        let proof = Proof::Pap { password: Zeroizing::new(b"wonderland".to_vec()) };
        let request = Request { name: "alice".to_owned(), proof };
        assert_eq!(format!("{request:?}"), r#"Request { name: "alice", proof: Pap }"#);
    }

    #[test]
    fn the_peer_hears_the_same_code_whatever_the_cause() {
        let codes: Vec<u32> = Cause::ALL.iter().map(|cause| Refusal::new(*cause).code()).collect();
        assert!(codes.iter().all(|code| *code == 691));
    }
}
