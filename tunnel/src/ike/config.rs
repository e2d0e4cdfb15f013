//! What has to be known before a peer can be spoken to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::authentication::Credentials;
use super::nat::{Endpoint, NatPayloads, NatTraversal};
use super::payload::Identity;
use super::relation::SpiSpace;
use super::retransmission::GIVE_UP;
use crate::buffer::Port;
use crate::suite::{EspProposal, IkeProposal, Security};

/// How long ESP SAs may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// In time.
    pub seconds: Duration,
    /// In kilobytes of 1024 octets; counting them is up to the owner of the SA.
    pub kilobytes: Option<u32>,
}

/// Dead peer detection (RFC 3706).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dpd {
    /// The peer is asked after this time without any sign of life; zero leaves the verdict to the owner.
    pub interval: Duration,
    /// The peer is dead after this time without any sign of life; at least twice the interval.
    pub timeout: Duration,
}

/// What an [`Ike`] is to agree on with its peer, and where both are.
#[derive(Clone)]
pub struct Config {
    /// The proposals of phase 1, the preferred first. Ciphers that only ESP has are left out.
    pub proposals: Vec<IkeProposal>,
    /// The longest life of an ISAKMP SA.
    pub lifetime: Duration,
    /// The proposals of phase 2, the preferred first; all have the same group.
    pub esp_proposals: Vec<EspProposal>,
    /// The longest life of an ESP SA.
    pub esp_lifetime: Lifetime,
    /// What both ends prove themselves with.
    pub credentials: Arc<Credentials>,
    /// Who this end is; its address if none is given.
    pub local_id: Option<Identity>,
    /// Who the peer has to be; anyone who proves itself if none is given.
    pub remote_id: Option<Identity>,
    /// Dead peer detection.
    pub dpd: Dpd,
    /// Whether this end traverses NATs, and with it how ESP travels.
    pub nat_traversal: NatTraversal,
    /// How long the first message of phase 1 waits for an answer: less where something else can be offered to a peer that does
    /// not answer what it does not like.
    pub patience: Duration,
    /// How an initiator writes its payloads of NAT traversal.
    pub nat_payloads: NatPayloads,
    /// The pause after which a NAT is reminded of the mapping; zero switches it off.
    pub keepalive: Duration,
    /// The address of this end, as it sees it.
    pub local: IpAddr,
    /// The address of the peer, as this end sees it.
    pub remote: IpAddr,
    /// The port of this end's socket that speaks to the peer's port 500.
    pub local_port_ike: u16,
    /// The port of this end's socket that speaks to the peer's port 4500.
    pub local_port_nat_t: u16,
    /// The port that the peer is at for [`Port::Ike`].
    pub remote_port_ike: u16,
    /// The port that the peer is at for [`Port::NatT`].
    pub remote_port_nat_t: u16,
    /// Whether the first Main Mode says INITIAL-CONTACT, so that the peer drops what is left of an earlier connection: of every
    /// connection with the same identity (RFC 3947 section 6).
    pub initial_contact: bool,
    /// The SPIs that this end chooses.
    pub spis: SpiSpace,
    /// Whether phase 1 begins in Aggressive Mode with a pre-shared key, which hands a hash of it to whoever is on the way.
    pub aggressive: bool,
    /// Whether the keys of phase 1 are handed out in [`Event::Keys`].
    pub export_keys: bool,
}

impl Config {
    /// The usual values around what has to be known.
    pub fn new(local: IpAddr, remote: IpAddr, credentials: Arc<Credentials>) -> Self {
        let security = Security::default();
        Self {
            proposals: security.ike_proposals(),
            lifetime: Duration::from_secs(28_800),
            esp_proposals: security.esp_proposals(),
            esp_lifetime: Lifetime { seconds: Duration::from_secs(3600), kilobytes: None },
            credentials,
            local_id: None,
            remote_id: None,
            dpd: Dpd { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) },
            nat_traversal: NatTraversal::default(),
            patience: GIVE_UP,
            nat_payloads: NatPayloads::default(),
            keepalive: Duration::from_secs(20),
            local,
            remote,
            local_port_ike: 500,
            local_port_nat_t: 4500,
            remote_port_ike: 500,
            remote_port_nat_t: 4500,
            initial_contact: true,
            spis: SpiSpace::default(),
            aggressive: false,
            export_keys: false,
        }
    }

    pub(super) fn local_end(&self, port: Port) -> Endpoint {
        let port = match port {
            Port::Ike => self.local_port_ike,
            Port::NatT => self.local_port_nat_t,
        };
        Endpoint { address: self.local, port }
    }

    pub(super) fn remote_end(&self, port: Port) -> Endpoint {
        let port = match port {
            Port::Ike => self.remote_port_ike,
            Port::NatT => self.remote_port_nat_t,
        };
        Endpoint { address: self.remote, port }
    }
}
