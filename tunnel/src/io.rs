//! The process around the stack: sockets, TUN device, routes, files, HTTP.
//!
//! ```text
//!   process   the event loop; the only one that touches the stack
//!     ├ dial      secrets, names, sockets          ├ netlink   addresses and links
//!     ├ udp       the sockets of a client          ├ routing   into the tunnel or nowhere
//!     ├ listener  those of a server, endpoint both ├ forwarding from clients to networks
//!     ├ probe     through the tunnel               ├ tun       packets of the kernel
//!     ├ watch     configuration and secrets        ├ relay     exports
//!     └ admin     health, metrics, control socket  └ report    to the operator
//!   standby                                        without a VpnTunnel
//!   status, metrics, telemetry, keys               what they say
//! ```

pub mod admin;
mod certificate;
pub mod dial;
pub mod endpoint;
pub mod forwarding;
pub mod keys;
mod lifecycle;
pub mod listener;
pub mod metrics;
pub mod netlink;
pub mod probe;
pub mod process;
pub mod radius;
pub mod relay;
pub mod report;
pub mod routing;
pub mod server;
pub mod standby;
pub mod status;
pub mod telemetry;
pub mod tun;
pub mod udp;
pub mod watch;

#[cfg(test)]
mod namespace;
#[cfg(test)]
mod scratch;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::ike::ResponderStatistics;
use crate::report::{Report, SessionReport};
use crate::stack::{self, Counters};

/// The process at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What is reported.
    pub report: Report,
    /// What the stack counted.
    pub counters: Counters,
    /// Packets that the process itself dropped, by a reason of a closed list.
    pub drops: BTreeMap<&'static str, u64>,
    /// What is counted as it happens.
    pub instruments: metrics::Instruments,
    /// Whether the tunnel was up once.
    pub started: bool,
    /// When this was.
    pub now: Instant,
    /// (Servers.) Who is there.
    pub server: Option<ServerSnapshot>,
}

/// A server at one moment.
#[derive(Debug, Clone)]
pub struct ServerSnapshot {
    /// What the stack counted.
    pub counters: stack::server::Counters,
    /// What was made of strangers' messages.
    pub responder: ResponderStatistics,
    /// Peers that have not proved themselves, and all of them.
    pub peers: (usize, usize),
    /// Every session that is up, if they were asked for.
    pub sessions: Vec<SessionReport>,
}

#[cfg(test)]
impl Snapshot {
    /// A process that has reported `report` and done nothing.
    pub(crate) fn of(report: Report) -> Self {
        Self {
            report,
            counters: Counters::default(),
            drops: BTreeMap::new(),
            instruments: metrics::Instruments::new(relay::Instruments::default()),
            started: false,
            now: Instant::now(),
            server: None,
        }
    }
}
