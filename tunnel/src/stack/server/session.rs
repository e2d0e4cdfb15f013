//! One session: a call of a peer with its PPP link, the user behind it and what the user may do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

use super::counters::Counters;
use super::ipv6;
use crate::aaa::Grant;
use crate::config::PppAuth;
use crate::config::server::Limits;
use crate::l2tp::Call;
use crate::ppp::Ppp;
use crate::rate::{Bucket, Rate};
use crate::suite::{EspProposal, IkeProposal};

/// How many senders of packets that do not fit to a client are told so: the rate of RFC 4443 section 2.4 (f) for each client, so
/// that nobody can use up the share of another.
const COMPLAINTS: Rate = Rate { burst: 10, per_second: 10 };

/// Why a session ended: a closed list, for the log, metrics and accounting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndCause {
    /// The client hung up.
    PeerClosed,
    /// The client does not answer any more.
    DeadPeer,
    /// No packet of the client came for as long as it may be silent.
    Idle,
    /// The session lasted as long as it may.
    Total,
    /// The user may not come in any more.
    Revoked,
    /// The user came in again.
    Replaced,
    /// Somebody asked for it.
    Administrative,
    /// The user did not prove who it is.
    Refused,
    /// PPP or L2TP found no common ground, or broke a rule.
    Failed,
    /// The process ends.
    Stopping,
}

impl EndCause {
    /// The cause as the label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::DeadPeer => "dead_peer",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::Revoked => "revoked",
            Self::Replaced => "replaced",
            Self::Administrative => "administrative",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        }
    }
}

/// What a session has carried: packets and octets of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Packets from the client.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_octets: u64,
    /// Packets to the client.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_octets: u64,
}

impl Traffic {
    pub(super) fn received(&mut self, octets: usize) {
        self.rx_packets = self.rx_packets.saturating_add(1);
        self.rx_octets = self.rx_octets.saturating_add(octets as u64);
    }

    pub(super) fn sent(&mut self, octets: usize) {
        self.tx_packets = self.tx_packets.saturating_add(1);
        self.tx_octets = self.tx_octets.saturating_add(octets as u64);
    }
}

/// Between which ends a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the client's packets come from.
    pub peer: SocketAddr,
    /// Where they go to.
    pub local: IpAddr,
    /// What fits to the client, in octets of an IP packet.
    pub mtu: u16,
}

/// A session that is up, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its number, which no other session of the process has.
    pub id: u64,
    /// The name of the user.
    pub user: String,
    /// The client's address inside.
    pub address: Ipv4Addr,
    /// The client's prefix of IPv6, if it speaks that.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// Networks behind the client.
    pub networks: Vec<Ipv4Net>,
    /// Since when it is up.
    pub since: Instant,
    /// Between which ends it is.
    pub place: Place,
    /// What phase 1 agreed on.
    pub ike: IkeProposal,
    /// What phase 2 agreed on.
    pub esp: Option<EspProposal>,
    /// What of that is weak, in words.
    pub weakness: Option<String>,
    /// How the user proved who it is.
    pub auth: Option<PppAuth>,
    /// What it has carried.
    pub traffic: Traffic,
    /// What the client says of the number that called, which for most is nothing.
    pub calling_number: Option<String>,
    /// Octets that accounting has to repeat.
    pub class: Vec<Vec<u8>>,
    /// How often accounting tells of it.
    pub interim: Option<Duration>,
}

/// Who a session belongs to.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) grant: Grant,
    pub(super) address: Ipv4Addr,
    /// When the session ends by the grant.
    until: Option<Instant>,
}

impl Admitted {
    /// Takes another grant for the same user.
    pub(super) fn renew(&mut self, now: Instant, grant: Grant) {
        self.until = grant.total.and_then(|total| now.checked_add(total));
        self.grant = grant;
    }
}

/// A call and its link.
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) call: Call,
    pub(super) ppp: Ppp,
    pub(super) calling_number: Option<String>,
    pub(super) admitted: Option<Box<Admitted>>,
    /// The name that a RADIUS server is asked about.
    pub(super) asked: String,
    pub(super) auth: Option<PppAuth>,
    /// Since when it is up; a link that is negotiated anew does not begin again.
    pub(super) up: Option<Instant>,
    /// Whether packets go through: IPCP is open.
    pub(super) open: bool,
    /// Since IPV6CP was first open.
    pub(super) ipv6: Option<ipv6::Link>,
    /// When the client last sent an IP packet.
    pub(super) last_packet: Instant,
    pub(super) traffic: Traffic,
    /// What fits to the client, in octets of an IP packet.
    pub(super) mtu: u16,
    /// How often senders of what does not fit are told so.
    complaints: Bucket,
    /// Why it ends, once that is decided.
    pub(super) ending: Option<EndCause>,
}

impl Session {
    pub(super) fn new(id: u64, call: Call, ppp: Ppp, calling_number: Option<String>, now: Instant) -> Self {
        Self {
            id,
            call,
            ppp,
            calling_number,
            admitted: None,
            asked: String::new(),
            auth: None,
            up: None,
            open: false,
            ipv6: None,
            last_packet: now,
            traffic: Traffic::default(),
            mtu: 0,
            complaints: Bucket::default(),
            ending: None,
        }
    }

    /// Somebody has the session from here on; whoever has it already keeps its networks, which are routed.
    pub(super) fn admit(&mut self, now: Instant, mut grant: Grant, address: Ipv4Addr) {
        if let Some(before) = self.admitted.take() {
            grant.networks = before.grant.networks;
        }
        let mut admitted = Admitted { grant: Grant::default(), address, until: None };
        admitted.renew(now, grant);
        self.admitted = Some(Box::new(admitted));
    }

    /// Counts a packet of the client.
    pub(super) fn receive(&mut self, now: Instant, packet: &[u8], counters: &mut Counters) {
        self.last_packet = now;
        self.traffic.received(packet.len());
        counters.rx_packets = counters.rx_packets.saturating_add(1);
        counters.rx_octets = counters.rx_octets.saturating_add(packet.len() as u64);
    }

    /// Whether the sender of a packet that does not fit is told so now.
    pub(super) fn may_complain(&mut self, now: Instant) -> bool {
        self.up.is_some_and(|up| self.complaints.take(now.saturating_duration_since(up), COMPLAINTS))
    }

    /// The limits of this session: when it ends by itself, and why.
    pub(super) fn limit(&self, limits: &Limits) -> Option<(Instant, EndCause)> {
        let (up, admitted) = (self.up?, self.admitted.as_ref()?);
        let seconds = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        let idle = admitted.grant.idle.or_else(|| seconds(limits.idle_seconds));
        let total = seconds(limits.total_seconds).and_then(|total| up.checked_add(total));
        let total = admitted.until.or(total).map(|at| (at, EndCause::Total));
        let idle = idle.and_then(|idle| Some((self.last_packet.checked_add(idle)?, EndCause::Idle)));
        idle.into_iter().chain(total).min_by_key(|(at, _)| *at)
    }

    /// Whether the client may send from `source`: nothing but its own address and those of the networks behind it.
    pub(super) fn may_send_from(&self, source: Ipv4Addr) -> bool {
        self.admitted.as_ref().is_some_and(|admitted| {
            admitted.address == source || admitted.grant.networks.iter().any(|network| network.contains(&source))
        })
    }

    /// Whether the client may send to `destination`.
    pub(super) fn may_send_to(&self, destination: IpAddr) -> bool {
        self.admitted.as_ref().is_some_and(|admitted| match &admitted.grant.destinations {
            None => true,
            Some(allowed) => allowed.iter().any(|network| network.contains(&destination)),
        })
    }
}
