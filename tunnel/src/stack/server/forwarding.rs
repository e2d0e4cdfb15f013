//! Where packets go: from a client to the device, to another client or to the server itself, and from the device to a client.
//! A client sends with its own address only, and to where it may; nothing else passes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::session::Session;
use super::{Server, packet};
use crate::buffer::PacketBatch;
use crate::dhcp;
use crate::stack::mss;

impl Server {
    /// Takes IP packets from the TUN device; the process sends at most one batch before it drains [`Server::transmits`].
    pub fn handle_packets(&mut self, now: Instant, packets: &PacketBatch) {
        for packet in packets.iter() {
            if is_ipv6(packet) {
                self.handle_ipv6_packet(now, packet);
                continue;
            }
            let Some((_, destination)) = packet::ends(packet) else {
                self.counters.drop_packet("not_ipv4");
                continue;
            };
            match self.routes.find(destination) {
                Some(session) => self.send_to(now, session, packet, None),
                None => self.counters.drop_packet("no_session"),
            }
        }
    }

    /// Takes an IP packet that came out of a session.
    pub(super) fn deliver(&mut self, now: Instant, slot: u32, id: u64, packet: &[u8]) {
        if is_ipv6(packet) {
            return self.deliver_ipv6(now, slot, id, packet);
        }
        let Some((source, destination)) = packet::ends(packet) else {
            return self.counters.drop_packet("not_ipv4");
        };
        let local = self.config.addresses.local;
        let Some(session) = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(id)) else { return };
        if !session.may_send_from(source) {
            return self.counters.drop_packet("source");
        }
        if let Some(answer) = dhcp::answer(packet, &self.dhcp) {
            return self.send_to(now, id, &answer, None);
        }
        session.receive(now, packet, &mut self.counters);
        let Some(packet) = outbound(session, packet, destination.into()) else {
            return self.counters.drop_packet("destination");
        };
        match self.routes.find(destination) {
            // Not back to where it came from: a network behind a site that the site does not know would go in circles.
            Some(other) if other == id => self.counters.drop_packet("loop"),
            Some(other) => self.send_to(now, other, &packet, Some(id)),
            None if destination == local || self.is_forwarded(destination) => {
                if !self.packets.push(&packet) {
                    self.counters.drop_packet("queue");
                }
            }
            None => self.counters.drop_packet("not_forwarded"),
        }
    }

    fn is_forwarded(&self, destination: Ipv4Addr) -> bool {
        self.config.forwarding.networks.iter().any(|network| network.contains(&IpAddr::V4(destination)))
    }

    /// Whether the sender of a packet that does not fit through `session` is told so now.
    pub(super) fn may_complain(&mut self, now: Instant, slot: u32, session: u64) -> bool {
        let session = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(session));
        session.is_some_and(|session| session.may_complain(now))
    }

    /// Sends a packet to a client: whole, in pieces, or not at all and its sender hears what fits. `from` is the session that it
    /// came from; none for the device.
    fn send_to(&mut self, now: Instant, session: u64, packet: &[u8], from: Option<u64>) {
        let Some(slot) = self.sessions.get(&session).copied() else { return };
        let Some(peer) = self.slots.get_mut(slot) else { return };
        let Some(mtu) = peer.session_mut(session).map(|session| session.mtu) else { return };
        if packet.len() <= mtu.into() {
            return peer.send_packet(session, packet, &mut self.transmits, &mut self.counters);
        }
        if packet::is_whole_only(packet) {
            self.counters.drop_packet("mtu");
            //= rfc4303 3.3.4 "In any case, an ESP implementation MUST support generation of ICMP PMTU messages (or equivalent internal signaling for native host implementations) to minimize the likelihood of fragmentation."
            //= test: a_packet_that_does_not_fit_is_cut_or_its_sender_hears_what_fits, errors_and_later_pieces_are_never_answered
            let answer = self.may_complain(now, slot, session);
            let answer = answer.then(|| packet::too_big(packet, mtu, self.config.addresses.local)).flatten();
            match (answer, from) {
                // Never about an error of our own, so this ends here.
                (Some(answer), Some(sender)) => self.send_to(now, sender, &answer, None),
                (Some(answer), None) => drop(self.packets.push(&answer)),
                (None, _) => {}
            }
            return;
        }
        //= rfc1332 2.1 "Larger IP datagrams must be fragmented as necessary."
        //= test: a_packet_that_does_not_fit_is_cut_or_its_sender_hears_what_fits, a_packet_is_cut_at_multiples_of_eight_and_put_together_again
        let pieces = packet::fragments(packet, mtu);
        if pieces.is_empty() {
            self.counters.drop_packet("mtu");
        }
        for piece in pieces {
            peer.send_packet(session, &piece, &mut self.transmits, &mut self.counters);
        }
    }
}

/// A packet of the client of `session` as it goes on to `destination`: with the segment size of TCP bounded to what fits to the
/// client. None where the client may not send to.
pub(super) fn outbound<'packet>(
    session: &Session,
    packet: &'packet [u8],
    destination: IpAddr,
) -> Option<Cow<'packet, [u8]>> {
    if !session.may_send_to(destination) {
        return None;
    }
    let mut packet = Cow::Borrowed(packet);
    if mss::exceeds(&packet, session.mtu) {
        mss::clamp(packet.to_mut(), session.mtu);
    }
    Some(packet)
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}
