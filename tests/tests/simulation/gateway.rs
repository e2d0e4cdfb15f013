//! A gateway made of the stack's own codecs: `Ike` as responder, ESP, a scripted LNS, and a PPP peer that asks for PAP.
//!
//! It shows that the stack heals on a bad network. That it speaks the protocols of others is shown by the foreign gateways.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use towline_tunnel::buffer::Port;
use towline_tunnel::esp::{self, InboundSa, OutboundSa};
use towline_tunnel::ike::{self, Ike};
use towline_tunnel::l2tp::avp::Attribute;
use towline_tunnel::l2tp::channel::{Channel, Retransmission};
use towline_tunnel::l2tp::message::{
    Body, ControlHeader, DataHeader, Message, MessageType, Packet, SessionId, TunnelId,
};
use towline_tunnel::l2tp::outcome::Outcome;
use zeroize::Zeroizing;

use crate::ppp::Server;

const OUR_TUNNEL: TunnelId = TunnelId(0x1111);
const OUR_SESSION: SessionId = SessionId(0x2222);
const UDP_HEADER: [u8; 4] = [0x06, 0xa5, 0x06, 0xa5];

/// What the gateway has seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) stop_ccn: bool,
    pub(crate) cdn: bool,
    /// The Result Codes of both, in order.
    pub(crate) told: Vec<Outcome>,
    /// Whether an LCP Terminate-Request came before them.
    pub(crate) terminated: bool,
    pub(crate) sas_removed: u32,
    pub phase1: u32,
    pub phase2: u32,
    pub(crate) pings: u32,
}

pub(crate) struct Gateway {
    config: ike::Config,
    ike: Ike,
    inbound: Vec<(u32, InboundSa)>,
    outbound: Vec<(u32, u32, OutboundSa)>,
    channel: Channel,
    peer_session: SessionId,
    ppp: Server,
    out: VecDeque<(Port, Vec<u8>)>,
    rng: StdRng,
    pub(crate) seen: Seen,
}

impl Gateway {
    pub(crate) fn new(config: ike::Config, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            ike: Ike::new(config.clone(), split(&mut rng)),
            config,
            inbound: Vec::new(),
            outbound: Vec::new(),
            channel: Channel::new(Retransmission::default(), 4),
            peer_session: SessionId(0),
            ppp: Server::default(),
            out: VecDeque::new(),
            rng,
            seen: Seen::default(),
        }
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, port: Port, mut datagram: Vec<u8>) {
        match (port, esp::classify(&datagram)) {
            (Port::Ike, _) => self.ike.handle_message(now, port, &datagram),
            (Port::NatT, esp::Datagram::Isakmp(message)) => self.ike.handle_message(now, port, message),
            (Port::NatT, esp::Datagram::Esp { spi }) => self.handle_esp(now, spi, &mut datagram),
            (Port::NatT, esp::Datagram::Keepalive | esp::Datagram::Short) => {}
        }
        self.pump();
    }

    /// Negotiates LCP and what follows from it anew.
    pub(crate) fn renegotiate(&mut self, now: Instant) {
        self.ppp = Server::default();
        self.ppp.start(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.channel.handle_timeout(now);
        self.ppp.handle_timeout(now);
        self.pump();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.ike.poll_timeout(), self.channel.poll_timeout(), self.ppp.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(Port, Vec<u8>)> {
        self.out.pop_front()
    }

    fn handle_esp(&mut self, now: Instant, spi: u32, packet: &mut [u8]) {
        let Some((_, sa)) = self.inbound.iter_mut().find(|(own, _)| *own == spi) else { return };
        let Ok(opened) = sa.open(packet) else { return };
        let message = opened.payload.get(8..).unwrap_or_default().to_vec();
        self.ike.handle_esp_activity(now, spi);
        // The peer has moved to this pair: so do we.
        if let Some(at) = self.outbound.iter().position(|(_, pair, _)| *pair == spi) {
            let used = self.outbound.remove(at);
            self.outbound.push(used);
        }
        match Packet::read(&message) {
            Ok(Packet::Control(header, body)) => self.handle_control(now, &header, body),
            Ok(Packet::Data(_, frame)) => {
                if let Some(packet) = self.ppp.handle_frame(now, frame) {
                    self.seen.pings += 1;
                    // Whatever comes is sent back: an echo.
                    let mut frame = vec![0xff, 0x03, 0x00, 0x21];
                    frame.extend(packet);
                    self.send_frame(&frame);
                }
            }
            Err(_) => {}
        }
    }

    /// A client that dials anew has another tunnel ID: what was before is over.
    fn renew(&mut self, body: &[u8]) {
        let Ok(message) = Message::read(body, None) else { return };
        let tunnel = message.u16(Attribute::ASSIGNED_TUNNEL_ID).map(TunnelId);
        if message.message_type == MessageType::SCCRQ && tunnel != Some(self.channel.tunnel_id()) {
            self.channel = Channel::new(Retransmission::default(), 4);
            self.ppp = Server::default();
        }
    }

    fn handle_control(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        if header.tunnel_id == TunnelId(0) {
            self.renew(body);
        }
        self.channel.handle_message(now, header, body);
        while let Some((_, body)) = self.channel.poll_message() {
            let Ok(message) = Message::read(&body, None) else { continue };
            let answer = match message.message_type {
                MessageType::SCCRQ => {
                    self.channel.set_tunnel_id(TunnelId(message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap_or(0)));
                    let body = Body::new(MessageType::SCCRP)
                        .u16(Attribute::PROTOCOL_VERSION, 0x0100)
                        .u32(Attribute::FRAMING_CAPABILITIES, 3)
                        .bytes(Attribute::HOST_NAME, b"simulated")
                        .u16(Attribute::ASSIGNED_TUNNEL_ID, OUR_TUNNEL.0);
                    Some((SessionId(0), body))
                }
                MessageType::ICRQ => {
                    self.peer_session = SessionId(message.u16(Attribute::ASSIGNED_SESSION_ID).unwrap_or(0));
                    Some((
                        self.peer_session,
                        Body::new(MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, OUR_SESSION.0),
                    ))
                }
                MessageType::ICCN => {
                    self.ppp.start(now);
                    None
                }
                MessageType::CDN | MessageType::STOPCCN => {
                    self.seen.cdn |= message.message_type == MessageType::CDN;
                    self.seen.stop_ccn |= message.message_type == MessageType::STOPCCN;
                    self.seen.terminated |= self.ppp.terminated;
                    let outcome =
                        message.value(Attribute::RESULT_CODE).and_then(|value| Outcome::read(value, |_| true));
                    self.seen.told.extend(outcome);
                    None
                }
                _ => None,
            };
            if let Some((session, body)) = answer {
                self.channel.send(session, body).expect("the window of a scripted LNS is never full");
            }
        }
        self.channel.flush(now);
    }

    fn pump(&mut self) {
        while let Some(event) = self.ike.poll_event() {
            match event {
                ike::Event::IsakmpEstablished { .. } => self.seen.phase1 += 1,
                ike::Event::InstallInbound(sa) => {
                    let inbound =
                        InboundSa::new(sa.spi, &keys(&sa), esp::Lifetime::default()).expect("keys of Quick Mode fit");
                    self.inbound.push((sa.spi, inbound));
                }
                ike::Event::InstallOutbound(sa) => {
                    self.seen.phase2 += 1;
                    let rng = split(&mut self.rng);
                    let outbound = OutboundSa::new(sa.spi, &keys(&sa), esp::Lifetime::default(), rng)
                        .expect("keys of Quick Mode fit");
                    // As initiator of a rekey this end moves when the peer does; until then the new pair stands at the back.
                    let place = if sa.initiator { self.outbound.len().saturating_sub(1) } else { self.outbound.len() };
                    self.outbound.insert(place, (sa.spi, sa.pair, outbound));
                }
                ike::Event::RemoveSa { inbound_spi, outbound_spi } => {
                    self.seen.sas_removed += 1;
                    self.inbound.retain(|(spi, _)| *spi != inbound_spi);
                    self.outbound.retain(|(spi, ..)| *spi != outbound_spi);
                }
                // The relation is over, and the next one may begin.
                ike::Event::PeerDeletedIsakmp | ike::Event::DeadPeer | ike::Event::Failed(_) => {
                    self.ike = Ike::new(self.config.clone(), split(&mut self.rng));
                    self.inbound.clear();
                    self.outbound.clear();
                }
                ike::Event::Lifetime { .. }
                | ike::Event::RekeyFailed(_)
                | ike::Event::Keys(_)
                | ike::Event::Notice(_) => {}
            }
        }
        while let Some(message) = self.channel.poll_transmit() {
            self.send_l2tp(&message);
        }
        while let Some(frame) = self.ppp.poll_transmit() {
            self.send_frame(&frame);
        }
        while let Some(transmit) = self.ike.poll_transmit() {
            match transmit {
                ike::Transmit::Message { port: Port::Ike, message } => self.out.push_back((Port::Ike, message)),
                ike::Transmit::Message { port: Port::NatT, message } => {
                    self.out.push_back((Port::NatT, [&[0; 4][..], &message].concat()));
                }
                ike::Transmit::Keepalive => self.out.push_back((Port::NatT, vec![0xff])),
            }
        }
    }

    fn send_frame(&mut self, frame: &[u8]) {
        let mut message = Vec::new();
        let header = DataHeader { tunnel_id: self.channel.tunnel_id(), session_id: self.peer_session, ns: None };
        header.encode(&mut message, frame.len());
        message.extend(frame);
        self.send_l2tp(&message);
    }

    fn send_l2tp(&mut self, message: &[u8]) {
        let Some((_, _, sa)) = self.outbound.last_mut() else { return };
        let length = u16::try_from(8 + message.len()).expect("simulated packets are short").to_be_bytes();
        let mut packet = Vec::new();
        sa.seal(&mut packet, 17, &[&UDP_HEADER, &length, &[0, 0], message]).expect("a simulated SA is never exhausted");
        self.out.push_back((Port::NatT, packet));
    }
}

fn split(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.next_u64())
}

fn keys(sa: &ike::Sa) -> esp::Keys {
    esp::Keys { proposal: sa.proposal, encryption: sa.encryption_key.clone(), integrity: sa.integrity_key.clone() }
}

/// The gateway's side of phase 1 and 2.
pub(crate) fn ike_config(
    psk: &str,
    proposals: &[&str],
    esp: &[&str],
    lives: (u64, u64),
    addresses: (IpAddr, IpAddr),
) -> ike::Config {
    let pre_shared_key = Zeroizing::new(psk.as_bytes().to_vec());
    ike::Config {
        proposals: proposals.iter().map(|text| text.parse().expect("a proposal")).collect(),
        lifetime: Duration::from_secs(lives.0),
        esp_proposals: esp.iter().map(|text| text.parse().expect("a proposal")).collect(),
        esp_lifetime: ike::Lifetime { seconds: Duration::from_secs(lives.1), kilobytes: None },
        dpd: ike::Dpd { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) },
        ..ike::Config::new(addresses.0, addresses.1, pre_shared_key)
    }
}
