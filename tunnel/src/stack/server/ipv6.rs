//! IPv6 inside the tunnels: each session whose client speaks IPV6CP gets a prefix of 64 bits of its own, is told of it by Router
//! Advertisements (RFC 4861, 4191), and sends and receives with it what its user may.
//!
//! Nobody else is on the link, so neighbours are not looked for: solicitations of them need no answer, and duplicates cannot be.

pub(super) mod icmp;
mod prefixes;

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv6Net};

pub(super) use prefixes::Prefixes;

use super::Server;
use super::forwarding::outbound;
use crate::config::server::Server as Config;
use icmp::{Advertisement, Question};

/// The time between advertisements that nobody asked for (RFC 4861 section 6.2.1: MaxRtrAdvInterval).
const ADVERTISEMENT_INTERVAL: Duration = Duration::from_secs(600);
/// So many come at first, so soon after one another: any of them may be lost (RFC 4861 section 6.2.4).
const INITIAL_ADVERTISEMENTS: u8 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// Every link takes packets of this size (RFC 8200 section 5, RFC 5072 section 2). Where the path takes less, the outer packet is
/// what is cut.
const MIN_MTU: u16 = 1_280;
/// The most routes in an advertisement (RFC 4191 section 4).
const MAX_ROUTES: usize = 17;
/// The bits of a prefix that a session gets (RFC 4291 section 2.5.1).
const PREFIX_BITS: u8 = 64;

/// IPv6 on the link of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// Our interface identifier, of which the client's differs (RFC 5072 section 4.1).
    local_id: [u8; 8],
    /// What the session has; none while the pool is used up.
    pub(super) prefix: Option<Ipv6Net>,
    /// When the next advertisement is due; none while IPV6CP is not open.
    pub(super) advertise_at: Option<Instant>,
    /// How many advertisements there have been, up to the last of the initial ones.
    advertised: u8,
}

impl Link {
    /// IPV6CP is open with this identifier of ours; `before` is what there was until it was negotiated anew.
    pub(super) fn new(local_id: [u8; 8], before: Option<Self>) -> Self {
        Self { local_id, prefix: before.and_then(|link| link.prefix), advertise_at: None, advertised: 0 }
    }

    /// Our address that is known on this link alone.
    fn link_local(&self) -> Ipv6Addr {
        with_identifier(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), self.local_id)
    }

    /// Our address in the prefix of the session.
    fn global(&self) -> Option<Ipv6Addr> {
        self.prefix.map(|prefix| with_identifier(prefix.network(), self.local_id))
    }
}

fn with_identifier(prefix: Ipv6Addr, identifier: [u8; 8]) -> Ipv6Addr {
    let low = u128::from(u64::from_be_bytes(identifier));
    Ipv6Addr::from(u128::from(prefix) | low)
}

impl Server {
    /// Tells the client of a session which prefix it has, and gives it one if it has none.
    pub(super) fn advertise(&mut self, now: Instant, slot: u32, id: u64) {
        // What PPP has still to say opens the link at the other end.
        self.send(slot);
        let Some(session) = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(id)) else { return };
        let mtu = session.mtu.max(MIN_MTU);
        let Some(link) = session.ipv6.as_mut().filter(|_| session.open) else { return };
        link.advertised = link.advertised.saturating_add(1).min(INITIAL_ADVERTISEMENTS);
        let is_initial = link.advertised < INITIAL_ADVERTISEMENTS;
        link.advertise_at = Some(now + if is_initial { INITIAL_INTERVAL } else { ADVERTISEMENT_INTERVAL });
        if link.prefix.is_none() {
            link.prefix = self.prefixes.take(id);
        }
        let Some(prefix) = link.prefix else {
            return tracing::warn!(session = id, "the pool of IPv6 is used up; the session goes without");
        };
        let (is_default, routes) = routes(&self.config);
        let advertisement = Advertisement { from: link.link_local(), prefix, mtu, is_default, routes: &routes };
        let packet = advertisement.packet();
        self.send_ipv6(now, id, &packet, None);
    }

    /// Takes an IPv6 packet that came out of a session.
    pub(super) fn deliver_ipv6(&mut self, now: Instant, slot: u32, id: u64, packet: &[u8]) {
        let Some((packet, source, destination)) = icmp::ends(packet) else {
            return self.counters.drop_packet("not_ipv6");
        };
        let Some(session) = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(id)) else { return };
        let Some(link) = session.ipv6.filter(|_| session.open) else {
            return self.counters.drop_packet("not_up");
        };
        // What is meant for this link alone goes no further.
        if source.is_unicast_link_local() || source.is_unspecified() {
            return self.answer(now, slot, id, packet, &[link.link_local()]);
        }
        if !link.prefix.is_some_and(|prefix| prefix.contains(&source)) {
            return self.counters.drop_packet("source");
        }
        session.receive(now, packet, &mut self.counters);
        if destination.is_unicast_link_local() || Some(destination) == link.global() {
            let own: Vec<Ipv6Addr> = [link.link_local()].into_iter().chain(link.global()).collect();
            return self.answer(now, slot, id, packet, &own);
        }
        let Some(packet) = outbound(session, packet, destination.into()) else {
            return self.counters.drop_packet("destination");
        };
        match self.prefixes.find(destination) {
            Some(other) if other == id => self.counters.drop_packet("loop"),
            Some(other) => self.send_ipv6(now, other, &packet, Some(id)),
            None if self.is_forwarded_ipv6(destination) => {
                if !self.packets.push(&packet) {
                    self.counters.drop_packet("queue");
                }
            }
            None => self.counters.drop_packet("not_forwarded"),
        }
    }

    /// Answers what a client asks us ourselves, at one of our addresses on its link.
    fn answer(&mut self, now: Instant, slot: u32, id: u64, packet: &[u8], own: &[Ipv6Addr]) {
        match icmp::question(packet, own) {
            Some(Question::Router) => {
                self.advertise(now, slot, id);
                self.slots.touch(slot, &self.config);
            }
            Some(Question::Echo(reply)) => self.send_ipv6(now, id, &reply, None),
            None => {}
        }
    }

    /// Takes an IPv6 packet from the TUN device.
    pub(super) fn handle_ipv6_packet(&mut self, now: Instant, packet: &[u8]) {
        let Some((packet, _, destination)) = icmp::ends(packet) else {
            return self.counters.drop_packet("not_ipv6");
        };
        match self.prefixes.find(destination) {
            Some(session) => self.send_ipv6(now, session, packet, None),
            None => self.counters.drop_packet("no_session"),
        }
    }

    fn is_forwarded_ipv6(&self, destination: Ipv6Addr) -> bool {
        let passes = !destination.is_multicast()
            && !destination.is_unicast_link_local()
            && !destination.is_loopback()
            && !destination.is_unspecified();
        let networks = &self.config.forwarding.networks;
        passes && networks.iter().any(|network| network.contains(&IpAddr::V6(destination)))
    }

    /// Sends a packet to a client, or tells its sender what fits. `from` is the session that it came from; none for the device.
    fn send_ipv6(&mut self, now: Instant, id: u64, packet: &[u8], from: Option<u64>) {
        let Some(slot) = self.sessions.get(&id).copied() else { return };
        let Some(peer) = self.slots.get_mut(slot) else { return };
        let Some(session) = peer.session_mut(id) else { return };
        let mtu = session.mtu.max(MIN_MTU);
        if packet.len() <= mtu.into() {
            return peer.send_packet(id, packet, &mut self.transmits, &mut self.counters);
        }
        self.counters.drop_packet("mtu");
        let link = session.ipv6.filter(|_| self.may_complain(now, slot, id));
        let answer = link.and_then(|link| icmp::too_big(packet, mtu, link.global()?));
        match (answer, from) {
            // It fits everywhere, so this ends here.
            (Some(answer), Some(sender)) => self.send_ipv6(now, sender, &answer, None),
            (Some(answer), None) => drop(self.packets.push(&answer)),
            (None, _) => {}
        }
    }
}

/// Whether we are the way to everywhere, and if not, to which networks.
fn routes(config: &Config) -> (bool, Vec<Ipv6Net>) {
    let forwarded = config.forwarding.networks.iter().filter_map(|network| match network {
        IpNet::V6(network) => Some(network.trunc()),
        IpNet::V4(_) => None,
    });
    let networks = Ipv6Net::aggregate(&forwarded.chain(config.addresses.ipv6_pool).collect());
    if networks.iter().any(|network| network.prefix_len() == 0) {
        return (true, Vec::new());
    }
    (false, networks.into_iter().take(MAX_ROUTES).collect())
}
