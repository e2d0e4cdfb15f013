//! What a PPP link is to be, in either role, and what the peer of a server is assigned.

use std::net::Ipv4Addr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Counters;
use super::eap::{Eap, Method, TlsClient};
use crate::config::PppAuth;

/// What one link is to be.
pub struct Config {
    /// Who proves to whom who it is, and who assigns addresses.
    pub role: Role,
    /// Our MRU in octets: the largest packet that the peer may send.
    pub mru: u16,
    /// The time without any packet after which an Echo-Request is sent.
    pub echo_interval: Duration,
    /// Echo-Requests without an answer that are too many. What follows from it is the owner's decision.
    pub echo_failures: u32,
    /// Counters and timers of LCP and the network control protocols.
    pub counters: Counters,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            role: Role::Client(Client::default()),
            // What fits into ESP, UDP and L2TP on an Ethernet with some to spare.
            mru: 1400,
            echo_interval: Duration::from_secs(20),
            echo_failures: 3,
            counters: Counters::default(),
        }
    }
}

/// The end of a link that dials in, or the one that is dialled.
pub enum Role {
    /// Dials in: proves who it is, and gets an address.
    Client(Client),
    /// Is dialled: demands the proof, and assigns the address.
    Server(Server),
}

impl Role {
    /// Whether IPV6CP is spoken.
    pub(super) fn ipv6(&self) -> bool {
        match self {
            Self::Client(client) => client.ipv6,
            Self::Server(server) => server.ipv6,
        }
    }
}

/// The end that dials in.
pub struct Client {
    /// Our name.
    pub username: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// The protocols that may be used; they are proposed in turn when the peer asks for another. If each of them is mutual, a
    /// peer that asks for none gets no link.
    pub auth: Vec<PppAuth>,
    /// Our certificate, for EAP-TLS.
    pub tls: Option<TlsClient>,
    /// Whether IPv6 is asked for as well.
    pub ipv6: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            username: String::new(),
            password: Zeroizing::default(),
            auth: vec![PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap],
            tls: None,
            ipv6: false,
        }
    }
}

/// The end that is dialled.
pub struct Server {
    /// Our name in a Challenge (RFC 1994 section 4.1).
    pub name: String,
    /// The protocols that are demanded, in this order, until the peer agrees to one.
    pub auth: Vec<PppAuth>,
    /// Who answers where EAP is one of them.
    pub eap: Eap,
    /// Whether there is IPv6 as well.
    pub ipv6: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            name: "towline".to_owned(),
            auth: vec![PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap],
            eap: Eap::Local(vec![Method::MsChapV2]),
            ipv6: false,
        }
    }
}

/// What a server assigns to a peer that it has let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Our own address.
    pub local: Ipv4Addr,
    /// The address of the peer.
    pub peer: Ipv4Addr,
    /// Name servers for the peer; it can be told two (RFC 1877 section 1).
    pub dns: Vec<Ipv4Addr>,
}
