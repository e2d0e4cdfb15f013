//! The pairs of ESP SAs of one connection, and what lies between ESP and L2TP: the UDP header of port 1701 (RFC 3193).
//!
//! Old and new SAs stand side by side over a rekey: every inbound SA is open until IKE removes it; packets leave through the
//! newest outbound SA that the peer is known to be ready for.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::esp::{self, InboundSa, OutboundSa};
use crate::ike;

/// The L2TP port (RFC 2661 section 8.1).
const L2TP_PORT: u16 = 1701;
/// The protocol number of UDP, ESP's next header in transport mode.
const PROTOCOL_UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// The most pairs side by side: the one in use, its successor, a collision's twin and those that wait for their end.
const MAX_PAIRS: usize = 8;
/// How long packets stay on the old SA when the peer sends nothing on the new one. The responder of a Quick Mode installs its
/// SAs with the third message only, so a packet that overtakes it would be lost.
const SWITCH_AFTER: Duration = Duration::from_millis(1_500);

struct Inbound {
    spi: u32,
    sa: InboundSa,
}

struct Outbound {
    spi: u32,
    inbound_spi: u32,
    sa: OutboundSa,
    /// When packets move to this SA even if the peer has not used its twin.
    ready_at: Option<Instant>,
    rekey_asked: bool,
}

/// The SAs of one connection.
pub(super) struct Datapath {
    inbound: Vec<Inbound>,
    outbound: Vec<Outbound>,
    /// SPI of the outbound SA in use.
    current: Option<u32>,
    limits: esp::Lifetime,
    /// The port that the LNS sends from: it may answer from another than 1701 (RFC 2661 section 8.1).
    peer_port: u16,
    rng: StdRng,
}

/// Why an ESP packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No SA has its SPI.
    UnknownSpi,
    /// The SA refused it.
    Esp(esp::OpenError),
    /// What it carries is not UDP for our L2TP port (RFC 3193 section 3.3).
    NotL2tp,
}

impl Refused {
    /// The value of the metric's label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::UnknownSpi => "unknown_spi",
            Self::Esp(error) => error.name(),
            Self::NotL2tp => "policy",
        }
    }
}

impl Datapath {
    pub(super) fn new(limits: esp::Lifetime, mut rng: StdRng) -> Self {
        let rng = StdRng::from_seed(seed(&mut rng));
        Self { inbound: Vec::new(), outbound: Vec::new(), current: None, limits, peer_port: L2TP_PORT, rng }
    }

    /// Opens an inbound SA.
    pub(super) fn install_inbound(&mut self, sa: &ike::Sa) -> Result<(), esp::InvalidSa> {
        let entry = Inbound { spi: sa.spi, sa: InboundSa::new(sa.spi, &keys(sa), self.limits)? };
        self.inbound.retain(|inbound| inbound.spi != sa.spi);
        if self.inbound.len() >= MAX_PAIRS {
            self.inbound.remove(0);
        }
        self.inbound.push(entry);
        Ok(())
    }

    /// Opens an outbound SA; the first is used at once, and so is one that the peer asked for.
    pub(super) fn install_outbound(&mut self, now: Instant, sa: &ike::Sa) -> Result<(), esp::InvalidSa> {
        let rng = StdRng::from_seed(seed(&mut self.rng));
        let outbound = OutboundSa::new(sa.spi, &keys(sa), self.limits, rng)?;
        let at_once = self.current.is_none() || !sa.initiator;
        self.outbound.retain(|outbound| outbound.spi != sa.spi);
        if self.outbound.len() >= MAX_PAIRS {
            self.outbound.remove(0);
        }
        self.outbound.push(Outbound {
            spi: sa.spi,
            inbound_spi: sa.pair,
            sa: outbound,
            ready_at: (!at_once).then_some(now + SWITCH_AFTER),
            rekey_asked: false,
        });
        if at_once {
            self.current = Some(sa.spi);
        }
        Ok(())
    }

    /// Closes a pair. Packets go on through the newest of the others.
    pub(super) fn remove(&mut self, inbound_spi: u32, outbound_spi: u32) {
        self.inbound.retain(|inbound| inbound.spi != inbound_spi);
        self.outbound.retain(|outbound| outbound.spi != outbound_spi);
        if !self.outbound.iter().any(|outbound| Some(outbound.spi) == self.current) {
            self.current = self.outbound.last().map(|outbound| outbound.spi);
        }
    }

    /// Whether packets can be sent.
    pub(super) fn can_send(&self) -> bool {
        self.current.is_some()
    }

    /// The number of inbound SAs.
    pub(super) fn inbound_count(&self) -> usize {
        self.inbound.len()
    }

    /// Moves packets to SAs whose time has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for outbound in &mut self.outbound {
            if outbound.ready_at.is_some_and(|at| at <= now) {
                outbound.ready_at = None;
                self.current = Some(outbound.spi);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.outbound.iter().filter_map(|outbound| outbound.ready_at).min()
    }

    /// Whether the SA in use has nearly used up its packets or octets; true once for each SA.
    pub(super) fn take_rekey_request(&mut self) -> bool {
        let Some(outbound) = self.outbound.iter_mut().find(|outbound| Some(outbound.spi) == self.current) else {
            return false;
        };
        if outbound.rekey_asked {
            return false;
        }
        let spent = self.inbound.iter().any(|inbound| inbound.spi == outbound.inbound_spi && inbound.sa.needs_rekey());
        outbound.rekey_asked = spent || outbound.sa.needs_rekey();
        outbound.rekey_asked
    }

    /// Appends an ESP packet with the L2TP message `parts` to `out`.
    pub(super) fn seal(&mut self, path: (IpAddr, IpAddr), parts: [&[u8]; 2], out: &mut Vec<u8>) -> Result<(), esp::SealError> {
        let current = self.current;
        let outbound =
            self.outbound.iter_mut().find(|outbound| Some(outbound.spi) == current).ok_or(esp::SealError::Exhausted)?;
        let header = udp_header(path, self.peer_port, parts);
        let [first, second] = parts;
        outbound.sa.seal(out, PROTOCOL_UDP, &[&header, first, second])
    }

    /// Opens an ESP packet in place and returns the SPI and the L2TP message in it.
    pub(super) fn open<'a>(&mut self, spi: u32, packet: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        let inbound = self.inbound.iter_mut().find(|inbound| inbound.spi == spi).ok_or(Refused::UnknownSpi)?;
        let opened = inbound.sa.open(packet).map_err(Refused::Esp)?;
        // The peer uses the twin, so it is ready for ours.
        if let Some(twin) = self.outbound.iter_mut().find(|outbound| outbound.inbound_spi == spi && outbound.ready_at.is_some()) {
            twin.ready_at = None;
            self.current = Some(twin.spi);
        }
        if opened.next_header != PROTOCOL_UDP {
            return Err(Refused::NotL2tp);
        }
        let payload: &'a [u8] = opened.payload;
        let (header, rest) = payload.split_first_chunk::<UDP_HEADER>().ok_or(Refused::NotL2tp)?;
        let [source_high, source_low, to_high, to_low, length_high, length_low, _, _] = *header;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let body = length.checked_sub(UDP_HEADER).and_then(|length| rest.get(..length)).ok_or(Refused::NotL2tp)?;
        if u16::from_be_bytes([to_high, to_low]) != L2TP_PORT {
            return Err(Refused::NotL2tp);
        }
        // The checksum is not verified: behind a NAT it covers addresses that are not on the wire, and the ICV says more
        // (RFC 3948 section 3.1.2).
        self.peer_port = u16::from_be_bytes([source_high, source_low]);
        Ok(body)
    }
}

fn seed(rng: &mut StdRng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

fn keys(sa: &ike::Sa) -> esp::Keys {
    esp::Keys { proposal: sa.proposal, encryption: sa.encryption_key.clone(), integrity: sa.integrity_key.clone() }
}

/// The UDP header in front of an L2TP message. Over IPv4 the checksum is zero, "none" (RFC 768): ESP protects the octets, and
/// the receiver could not verify it behind a NAT. Over IPv6 it must not be zero (RFC 2460 section 8.1).
fn udp_header(path: (IpAddr, IpAddr), peer_port: u16, parts: [&[u8]; 2]) -> [u8; UDP_HEADER] {
    let [first, second] = parts;
    let length = u16::try_from(UDP_HEADER + first.len() + second.len()).unwrap_or(u16::MAX);
    let [port_high, port_low] = L2TP_PORT.to_be_bytes();
    let [to_high, to_low] = peer_port.to_be_bytes();
    let [length_high, length_low] = length.to_be_bytes();
    let mut header = [port_high, port_low, to_high, to_low, length_high, length_low, 0, 0];
    if let (IpAddr::V6(local), IpAddr::V6(remote)) = path {
        let mut sum = Sum::default();
        for part in [&local.octets()[..], &remote.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, PROTOCOL_UDP], &header, first, second] {
            sum.add(part);
        }
        let [high, low] = sum.finish().to_be_bytes();
        header = [port_high, port_low, to_high, to_low, length_high, length_low, high, low];
    }
    header
}

/// The Internet checksum (RFC 1071) over parts of any length.
#[derive(Default)]
struct Sum {
    sum: u64,
    odd: bool,
}

impl Sum {
    fn add(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.sum += if self.odd { u64::from(octet) } else { u64::from(octet) << 8 };
            self.odd = !self.odd;
        }
    }

    /// The checksum; a sum of zero is sent as all ones (RFC 768).
    fn finish(mut self) -> u16 {
        while self.sum > 0xffff {
            self.sum = (self.sum & 0xffff) + (self.sum >> 16);
        }
        match !(self.sum as u16) {
            0 => 0xffff,
            sum => sum,
        }
    }
}
