//! What leaves for a peer: IP packets at once, and what the protocols have to say when there is room for it.

use std::net::IpAddr;

use super::super::super::connection::error_label;
use super::super::super::mss;
use super::super::Counters;
use super::{Peer, Port};
use crate::buffer::{DatagramBatch, Way};
use crate::esp::{KEEPALIVE, NON_ESP_MARKER};
use crate::{ike, ppp};

impl Peer {
    /// Sends an IP packet to the client of a session; it fits.
    pub(in crate::stack::server) fn send_packet(
        &mut self,
        session: u64,
        packet: &[u8],
        transmits: &mut DatagramBatch,
        counters: &mut Counters,
    ) {
        let Some(session) = self.sessions.iter_mut().find(|known| known.id == session && known.open) else {
            return counters.drop_packet("not_up");
        };
        let (call, mtu) = (session.call, session.mtu);
        let mut header = std::mem::take(&mut self.scratch);
        header.clear();
        let ready = self.lns.write_data_header(call, &mut header, ppp::IP_HEADER + packet.len()).is_ok()
            && session.ppp.write_header(&mut header, packet).is_ok();
        if ready {
            session.traffic.sent(packet.len());
            counters.tx_packets = counters.tx_packets.saturating_add(1);
            counters.tx_octets = counters.tx_octets.saturating_add(packet.len() as u64);
            if mss::exceeds(packet, mtu) {
                let mut clamped = packet.to_vec();
                mss::clamp(&mut clamped, mtu);
                self.send_esp([&header, &clamped], transmits, counters);
            } else {
                self.send_esp([&header, packet], transmits, counters);
            }
        } else {
            counters.drop_packet("not_up");
        }
        self.scratch = header;
    }

    //= rfc3948 2.1 "o the Source Port and Destination Port MUST be the same as that used by IKE traffic,"
    //= test: a_client_dials_in_and_packets_go_both_ways, esp_and_keepalives_leave_from_the_port_of_ike_and_esp_counts_on_no_other
    //= rfc3948 2.3 "o the Source Port and Destination Port MUST be the same as used by UDP-ESP encapsulation of Section 2.1,"
    //= test: a_client_dials_in_and_packets_go_both_ways, esp_and_keepalives_leave_from_the_port_of_ike_and_esp_counts_on_no_other
    fn send_esp(&mut self, parts: [&[u8]; 2], transmits: &mut DatagramBatch, counters: &mut Counters) {
        let Some(way) = self.way(Port::NatT) else { return counters.drop_packet("not_up") };
        let path: (IpAddr, IpAddr) = (self.local.ip(), way.remote.ip());
        match transmits.push_with(Port::NatT, way, |out| self.datapath.seal(path, parts, out)) {
            Ok(true) => self.ike.handle_sent(self.clock),
            Ok(false) => counters.drop_packet("queue"),
            Err(error) => counters.drop_packet(error_label(error)),
        }
    }

    /// Puts what the protocols want to say into `transmits`, as long as there is room; whether there may be more.
    pub(in crate::stack::server) fn fill(&mut self, transmits: &mut DatagramBatch, counters: &mut Counters) -> bool {
        while !transmits.is_full() {
            if let Some(message) = self.last_frames.pop_front() {
                self.send_secured(&message, transmits, counters);
            } else if let Some(transmit) = self.ike.poll_transmit() {
                self.send_isakmp(transmit, transmits);
            } else if let Some(message) = self.lns.poll_transmit() {
                self.send_secured(&message, transmits, counters);
            } else if let Some((index, frame)) = self.poll_frame() {
                self.send_frame(index, &frame, transmits, counters);
            } else {
                return false;
            }
        }
        true
    }

    fn send_secured(&mut self, message: &[u8], transmits: &mut DatagramBatch, counters: &mut Counters) {
        if self.datapath.can_send() {
            self.send_esp([message, &[]], transmits, counters);
        }
    }

    /// The way to the peer from that socket.
    pub(in crate::stack::server) fn way(&self, port: Port) -> Option<Way> {
        self.endpoint(port).map(|remote| Way { local: Some(self.local.ip()), remote })
    }

    fn poll_frame(&mut self) -> Option<(usize, Vec<u8>)> {
        self.sessions.iter_mut().enumerate().find_map(|(index, session)| Some((index, session.ppp.poll_transmit()?)))
    }

    fn send_frame(&mut self, index: usize, frame: &[u8], transmits: &mut DatagramBatch, counters: &mut Counters) {
        let Some(call) = self.sessions.get(index).map(|session| session.call) else { return };
        let mut header = std::mem::take(&mut self.scratch);
        header.clear();
        if self.datapath.can_send() && self.lns.write_data_header(call, &mut header, frame.len()).is_ok() {
            self.send_esp([&header, frame], transmits, counters);
        }
        self.scratch = header;
    }

    fn send_isakmp(&mut self, transmit: ike::Transmit, transmits: &mut DatagramBatch) {
        let (port, datagram) = match transmit {
            ike::Transmit::Message { port: Port::Ike, message } => (Port::Ike, message),
            ike::Transmit::Message { port: Port::NatT, message } => {
                (Port::NatT, [&NON_ESP_MARKER[..], &message].concat())
            }
            ike::Transmit::Keepalive => (Port::NatT, KEEPALIVE.to_vec()),
        };
        let Some(way) = self.way(port) else { return };
        if transmits.push(port, way, &datagram) && port == Port::NatT {
            self.ike.handle_sent(self.clock);
        }
    }
}
