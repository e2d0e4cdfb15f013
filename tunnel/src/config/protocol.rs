//! What both roles say about each protocol: phase 1, ESP, L2TP and PPP.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::suite::{EspProposal, IkeProposal, Security};

/// Phase 1 (RFC 2409 section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Ike {
    /// How old the algorithms may be, where no proposals are named; holds for ESP too.
    pub security: Security,
    /// Proposals in order of preference instead of those of `security`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<IkeProposal>,
    /// Lifetime of the ISAKMP SA in seconds, 60 to 86400.
    pub lifetime_seconds: u32,
    /// Our identity; our own address unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_id: Option<Identity>,
    /// The identity that the peer must have; any unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
    /// Whether the first contact tells the peer to forget what it has of an earlier connection with the same identity
    /// (INITIAL-CONTACT, RFC 2407 section 4.6.3.3). Must be false where several tunnels with one identity are up at a time.
    pub initial_contact: bool,
    /// How a client begins. `Aggressive` needs a pre-shared key, and is for gateways that know no other.
    #[serde(skip_serializing_if = "Exchange::is_main")]
    pub exchange: Exchange,
    /// Dead peer detection (RFC 3706).
    pub dpd: Dpd,
}

/// Exchanges of phase 1 (RFC 2409 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Exchange {
    /// Identities and proofs are encrypted.
    #[default]
    Main,
    /// The identities and a hash of the pre-shared key travel in the clear, and anybody who hears them can try keys on it.
    Aggressive,
}

impl Exchange {
    fn is_main(&self) -> bool {
        *self == Self::Main
    }
}

impl Default for Ike {
    fn default() -> Self {
        Self {
            security: Security::default(),
            proposals: Vec::new(),
            lifetime_seconds: 28_800,
            local_id: None,
            remote_id: None,
            initial_contact: true,
            exchange: Exchange::default(),
            dpd: Dpd::default(),
        }
    }
}

/// Dead peer detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Dpd {
    /// Seconds without any authenticated packet after which the peer is asked, 2 to 3600.
    pub interval_seconds: u32,
    /// Seconds without any after which the peer is dead; at least twice the interval.
    pub timeout_seconds: u32,
}

impl Default for Dpd {
    fn default() -> Self {
        Self { interval_seconds: 10, timeout_seconds: 30 }
    }
}

/// How ESP travels: the encapsulation modes of Quick Mode (RFC 2407 section 4.5, RFC 3947 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Encapsulation {
    /// In UDP (RFC 3948); a peer without NAT traversal is refused.
    #[default]
    Udp,
    /// In UDP if the peer traverses NATs, else as IP protocol 50, for which the process needs the capability `NET_RAW`.
    Auto,
    /// As IP protocol 50: NAT traversal is not offered. Needs the capability `NET_RAW`, and a path without a NAT.
    None,
}

impl Encapsulation {
    /// Whether the process must be able to send and receive IP protocol 50.
    pub fn needs_raw_socket(self) -> bool {
        self != Self::Udp
    }

    fn is_udp(&self) -> bool {
        *self == Self::Udp
    }
}

/// ESP (RFC 4303).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Esp {
    /// Proposals in order of preference instead of those of `ike.security`. All or none name a group, and the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<EspProposal>,
    /// How ESP travels. A server knows no other than `Udp`.
    #[serde(skip_serializing_if = "Encapsulation::is_udp")]
    pub encapsulation: Encapsulation,
    /// Lifetime of a pair of SAs in seconds, 20 to 86400.
    pub lifetime_seconds: u32,
    /// Octets after which a pair is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_bytes: Option<u64>,
    /// Packets after which a pair is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_packets: Option<u64>,
}

impl Default for Esp {
    fn default() -> Self {
        Self {
            proposals: Vec::new(),
            encapsulation: Encapsulation::default(),
            lifetime_seconds: 3_600,
            lifetime_bytes: None,
            lifetime_packets: None,
        }
    }
}

/// L2TP (RFC 2661).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct L2tp {
    /// The Host Name AVP, 1 to 64 characters.
    pub host_name: String,
    /// Seconds without any message from the peer after which a Hello is sent, 5 to 3600.
    pub hello_seconds: u32,
}

impl Default for L2tp {
    fn default() -> Self {
        Self { host_name: "towline".to_owned(), hello_seconds: 60 }
    }
}

/// PPP authentication protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PppAuth {
    /// MS-CHAPv2 (RFC 2759): both ends prove that they know the password.
    MsChapV2,
    /// CHAP with MD5 (RFC 1994).
    Chap,
    /// PAP (RFC 1334): the password itself, inside IPsec.
    Pap,
    /// EAP (RFC 3748). A client speaks EAP-MSCHAPv2, by which both ends prove that they know the password.
    Eap,
}

impl PppAuth {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::MsChapV2, Self::Chap, Self::Pap, Self::Eap];
}

impl fmt::Display for PppAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MsChapV2 => "MS-CHAPv2",
            Self::Chap => "CHAP",
            Self::Pap => "PAP",
            Self::Eap => "EAP",
        })
    }
}

/// PPP (RFC 1661).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Ppp {
    /// The authentication protocols that the peer may ask for; the first is proposed when it asks for another.
    pub auth: Vec<PppAuth>,
    /// Seconds without any packet from the peer after which an LCP Echo-Request is sent, 1 to 3600.
    pub echo_seconds: u32,
    /// Echo-Requests without an answer after which the link is suspected to be dead, 1 to 20.
    pub echo_failures: u32,
}

impl Default for Ppp {
    fn default() -> Self {
        Self { auth: vec![PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap], echo_seconds: 20, echo_failures: 3 }
    }
}
