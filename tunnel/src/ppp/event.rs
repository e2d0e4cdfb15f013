//! What a PPP link tells its owner.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Error;
use crate::aaa;
use crate::config::PppAuth;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// LCP is open.
    LcpOpened,
    /// In the role of the server: somebody wants in. The owner answers once, by [`super::Ppp::accept`],
    /// [`super::Ppp::reject`] or [`super::Ppp::challenge`], however late; until then no other request comes.
    Authenticate(aaa::Request),
    /// In the role of the client: the peer accepted our name and password and, with MS-CHAPv2, proved that it knows the
    /// password. In the role of the server: the peer has been told that it may come in.
    Authenticated {
        /// By which protocol.
        method: PppAuth,
    },
    /// IPCP is open: IPv4 packets may be sent.
    IpcpOpened {
        /// Our address.
        address: Ipv4Addr,
        /// The peer's: the one assigned to it by a server, or the one that it names, if any, to a client.
        peer: Option<Ipv4Addr>,
        /// Name servers that the server names.
        dns: Vec<Ipv4Addr>,
    },
    /// IPCP is not open any more, for the peer negotiates it or LCP anew: no packets may be sent until [`Event::IpcpOpened`].
    IpcpDown,
    /// IPV6CP is open: IPv6 packets may be sent. What becomes of IPV6CP is never a matter of life or death for the link.
    Ipv6cpOpened {
        /// Our interface identifier: fe80::/64 and it are our link-local address.
        local_id: [u8; 8],
        /// The peer's.
        peer_id: [u8; 8],
    },
    /// IPV6CP is not open any more.
    Ipv6cpDown,
    /// An Echo-Request was answered.
    EchoReply {
        /// How long it took.
        round_trip: Duration,
    },
    /// An Echo-Request was not answered.
    EchoLost {
        /// How many in a row.
        count: u32,
    },
    /// The peer ended a link that was up.
    Down {
        /// What it said.
        text: String,
    },
    /// There is no link, and there will be none.
    Failed(Error),
    /// The end that [`super::Ppp::close`] asked for: the peer has acknowledged it, or there was nothing to end.
    Closed,
}
