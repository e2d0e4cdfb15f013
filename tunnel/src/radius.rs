//! RADIUS in the role of the client, the network access server (NAS): authentication (RFC 2865, RFC 2548, RFC 3579), accounting
//! (RFC 2866, RFC 2869) and the disconnect requests of servers (RFC 5176).
//!
//! ```text
//!   Client     what the owner speaks to: asks, accounts, hands datagrams on
//!     ├ access       Access-Request, and what an answer means
//!     ├ accounting   the sessions that are accounted, and their records
//!     ├ exchange     identifiers, repetition, the next server
//!     └ packet       octets and authenticators
//!   Dynamic    requests of servers
//! ```
//!
//! Requests carry a Message-Authenticator in front of all attributes, and no answer to an Access-Request counts without one:
//! an answer that MD5 alone protects can be forged (CVE-2024-3596).

pub mod accounting;
pub mod attribute;
pub mod client;
pub mod dynamic;
pub mod packet;

mod access;
mod exchange;

pub use accounting::{Account, Traffic};
pub use attribute::{Authentic, TerminateCause};
pub use client::{Client, Event, Server, Settings, Statistics};
pub use dynamic::{Disconnect, Known, Selector};
pub use exchange::{Datagram, Dropped, Standing};

use std::net::IpAddr;

use attribute::{Attribute, FramedProtocol, NasPortType, ServiceType, TunnelMedium, TunnelType};
use packet::Builder;

/// What servers are told of a session, whatever they are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// NAS-Port: the number of the session, of no other session at the same time.
    pub port: u32,
    /// Calling-Station-Id: the outer address of the peer.
    pub peer: IpAddr,
    /// Called-Station-Id: the outer address of this end.
    pub local: IpAddr,
    /// The longest packet that the link carries, in octets; EAP packets of a server have room in it (RFC 3579 section 2.4).
    pub mtu: u16,
}

impl SessionInfo {
    fn write(&self, nas_identifier: &str, session_id: &str, builder: &mut Builder) {
        let medium = if self.peer.to_canonical().is_ipv6() { TunnelMedium::IPV6 } else { TunnelMedium::IPV4 };
        builder
            .push(Attribute::NAS_IDENTIFIER, nas_identifier.as_bytes())
            .push_number(Attribute::NAS_PORT, self.port)
            .push_number(Attribute::NAS_PORT_TYPE, NasPortType::VIRTUAL.0)
            .push_number(Attribute::SERVICE_TYPE, ServiceType::FRAMED.0)
            .push_number(Attribute::FRAMED_PROTOCOL, FramedProtocol::PPP.0)
            .push(Attribute::CALLING_STATION_ID, self.peer.to_canonical().to_string().as_bytes())
            .push(Attribute::CALLED_STATION_ID, self.local.to_canonical().to_string().as_bytes())
            .push_number(Attribute::TUNNEL_TYPE, TunnelType::L2TP.0)
            .push_number(Attribute::TUNNEL_MEDIUM_TYPE, medium.0)
            .push(Attribute::ACCT_SESSION_ID, session_id.as_bytes());
    }
}

/// Acct-Session-Id of every session of a process: no other session has it, of this process or of another (RFC 2866 section
/// 5.5). It says which start of the process it is, and the owner's key of the session.
#[derive(Debug, Clone)]
struct SessionIds(String);

impl SessionIds {
    /// `started` is in seconds since the Unix epoch, `chance` tells processes apart that start in the same second.
    fn new(started: u64, chance: u32) -> Self {
        Self(format!("{started:08x}{chance:08x}"))
    }

    fn of(&self, key: u64) -> String {
        format!("{}-{key:x}", self.0)
    }

    /// That of the process.
    fn own(&self) -> &str {
        &self.0
    }

    /// The session with this identifier.
    fn key(&self, id: &[u8]) -> Option<u64> {
        let key = std::str::from_utf8(id).ok()?.strip_prefix(self.0.as_str())?.strip_prefix('-')?;
        u64::from_str_radix(key, 16).ok().filter(|number| self.of(*number).as_bytes() == id)
    }
}
