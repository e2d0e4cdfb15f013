//! What leaves: IP packets of the device at once, and what the protocols have to say when the owner has room for it.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Connection, State};
use crate::buffer::{Carrier, DatagramBatch, PacketBatch, Port};
use crate::esp::{self, KEEPALIVE, NON_ESP_MARKER};
use crate::inet::{IKE_PORT, NAT_T_PORT};
use crate::stack::{Counters, mss};
use crate::{ike, ppp};

impl Connection {
    /// Sends IP packets of the TUN device.
    pub(in crate::stack) fn handle_packets(
        &mut self,
        now: Instant,
        packets: &PacketBatch,
        transmits: &mut DatagramBatch<Carrier>,
        counters: &mut Counters,
    ) {
        let Some(mtu) = self.link.as_ref().filter(|_| self.state == State::Up).map(|link| link.mtu) else {
            packets.iter().for_each(|_| counters.drop_packet("not_up"));
            return;
        };
        self.clock = now;
        for packet in packets.iter() {
            let version = packet.first().map_or(0, |first| first >> 4);
            if version != 4 && !(version == 6 && self.ipv6) {
                counters.drop_packet("not_ipv4");
            } else if packet.len() > usize::from(mtu) {
                counters.drop_packet("mtu");
            } else if self.send_packet(packet, mtu, transmits, counters) {
                counters.tx_packets = counters.tx_packets.saturating_add(1);
                counters.tx_octets = counters.tx_octets.saturating_add(packet.len() as u64);
            }
        }
        self.pump(now);
    }

    fn send_packet(
        &mut self,
        packet: &[u8],
        mtu: u16,
        transmits: &mut DatagramBatch<Carrier>,
        counters: &mut Counters,
    ) -> bool {
        self.scratch.clear();
        let mut header = std::mem::take(&mut self.scratch);
        // RFC 1661 and 2661: a PPP frame whose protocol field says what the packet is, behind the header of the L2TP session.
        let ready = self.lac.write_data_header(&mut header, ppp::IP_HEADER + packet.len()).is_ok()
            && self.ppp.write_header(&mut header, packet).is_ok();
        let sent = ready
            && if mss::exceeds(packet, mtu) {
                let mut clamped = packet.to_vec();
                mss::clamp(&mut clamped, mtu);
                self.send_esp([&header, &clamped], transmits, counters)
            } else {
                self.send_esp([&header, packet], transmits, counters)
            };
        if !ready {
            counters.drop_packet("not_up");
        }
        self.scratch = header;
        sent
    }

    fn send_esp(&mut self, parts: [&[u8]; 2], transmits: &mut DatagramBatch<Carrier>, counters: &mut Counters) -> bool {
        let path = (self.path.local, self.path.remote);
        let (carrier, to) =
            if self.datapath.is_encapsulated() { (Carrier::Udp(Port::NatT), NAT_T_PORT) } else { (Carrier::Esp, 0) };
        let remote = SocketAddr::new(self.path.remote, to);
        match transmits.push_with(carrier, remote, |out| self.datapath.seal(path, parts, out)) {
            Ok(true) => {
                tracing::trace!(octets = parts.map(<[u8]>::len).iter().sum::<usize>(), "L2TP message sent in ESP");
                self.ike.handle_sent(self.clock);
                true
            }
            Ok(false) => {
                counters.drop_packet("queue");
                false
            }
            Err(error) => {
                counters.drop_packet(error_label(error));
                false
            }
        }
    }

    /// Puts what the protocols want to say into `transmits`, as long as there is room.
    pub(in crate::stack) fn fill(&mut self, transmits: &mut DatagramBatch<Carrier>, counters: &mut Counters) {
        while !transmits.is_full() {
            // First of all: the peer takes ESP once it has the third message of Quick Mode.
            if let Some(transmit) = self.ike.poll_transmit() {
                self.send_isakmp(transmit, transmits);
            } else if let Some(message) = self.lac.poll_transmit() {
                self.send_control(&message, transmits, counters);
            } else if let Some(frame) = self.ppp.poll_transmit() {
                self.send_frame(&frame, transmits, counters);
            } else {
                break;
            }
        }
    }

    fn send_isakmp(&mut self, transmit: ike::Transmit, transmits: &mut DatagramBatch<Carrier>) {
        let (port, datagram) = match transmit {
            ike::Transmit::Message { port: Port::Ike, message } => (Port::Ike, message),
            ike::Transmit::Message { port: Port::NatT, message } => {
                (Port::NatT, [&NON_ESP_MARKER[..], &message].concat())
            }
            ike::Transmit::Keepalive => (Port::NatT, KEEPALIVE.to_vec()),
        };
        let to = match port {
            Port::Ike => IKE_PORT,
            Port::NatT => NAT_T_PORT,
        };
        if self.cookie.is_none() {
            let message = if port == Port::NatT { datagram.get(NON_ESP_MARKER.len()..) } else { Some(&datagram[..]) };
            self.cookie = message.and_then(<[u8]>::first_chunk).copied();
        }
        let remote = SocketAddr::new(self.path.remote, to);
        if transmits.push(Carrier::Udp(port), remote, &datagram) && port == Port::NatT {
            self.ike.handle_sent(self.clock);
        }
    }

    fn send_control(&mut self, message: &[u8], transmits: &mut DatagramBatch<Carrier>, counters: &mut Counters) {
        if self.datapath.can_send() {
            self.send_esp([message, &[]], transmits, counters);
        }
    }

    fn send_frame(&mut self, frame: &[u8], transmits: &mut DatagramBatch<Carrier>, counters: &mut Counters) {
        let mut header = std::mem::take(&mut self.scratch);
        header.clear();
        if self.datapath.can_send() && self.lac.write_data_header(&mut header, frame.len()).is_ok() {
            self.send_esp([&header, frame], transmits, counters);
        }
        self.scratch = header;
    }
}

/// The value of the metric's label `reason`.
pub(in crate::stack) fn error_label(error: esp::SealError) -> &'static str {
    match error {
        esp::SealError::Exhausted => "exhausted",
        esp::SealError::TooLong => "mtu",
    }
}
