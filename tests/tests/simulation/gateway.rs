//! A gateway made of the stack's own codecs: `Ike` as responder, ESP, a scripted LNS, and a PPP peer that asks for PAP.
//!
//! It shows that the stack heals on a bad network. That it speaks the protocols of others is shown by the foreign gateways.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use towline_tunnel::buffer::{Carrier, Port};
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
const L2TP_PORTS: [u8; 4] = [0x06, 0xa5, 0x06, 0xa5];

/// What the LNS does with those who call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lns {
    #[default]
    Accepts,
    /// Answers nothing at all.
    Silent,
    /// Answers SCCRQ with StopCCN.
    RefusesTunnel,
    /// Answers ICRQ with CDN.
    RefusesCall,
}

/// What the gateway has seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) stop_ccn: bool,
    pub(crate) cdn: bool,
    /// The Result Codes of both, in order.
    pub(crate) told: Vec<Outcome>,
    /// Whether an LCP Terminate-Request came before them.
    pub(crate) terminated: bool,
    /// Quick Modes that the gateway refused.
    pub(crate) refused: u32,
    pub(crate) phase1: u32,
    pub(crate) phase2: u32,
    pub(crate) pings: u32,
    /// The SPI that the last ping came in under.
    pub(crate) ping_spi: Option<u32>,
    pub(crate) keepalives: u32,
    /// ESP packets in UDP, and as an IP protocol.
    pub(crate) esp: [u32; 2],
}

pub(crate) struct Gateway {
    config: ike::Config,
    ike: Ike,
    inbound: Vec<(u32, InboundSa)>,
    outbound: Vec<(u32, u32, OutboundSa)>,
    /// What carries ESP to the client.
    carrier: Carrier,
    channel: Channel,
    peer_session: SessionId,
    /// Whether a call is up.
    session: bool,
    /// The client's port of the relation under way.
    client_ports: Option<u16>,
    pub(crate) lns: Lns,
    pub(crate) ppp: Server,
    out: VecDeque<(Carrier, Vec<u8>)>,
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
            carrier: Carrier::Udp(Port::NatT),
            channel: Channel::new(Retransmission::default(), 4),
            peer_session: SessionId(0),
            session: false,
            client_ports: None,
            lns: Lns::default(),
            ppp: Server::default(),
            out: VecDeque::new(),
            rng,
            seen: Seen::default(),
        }
    }

    /// Whether nothing of any client is left.
    pub(crate) fn is_idle(&self) -> bool {
        !self.session && self.inbound.is_empty() && self.outbound.is_empty() && !self.ike.is_established()
    }

    /// Whether no ESP packet would be taken.
    pub(crate) fn has_no_sa(&self) -> bool {
        self.inbound.is_empty()
    }

    /// Takes a datagram from the client's port `client_port`: a first message from another one begins another relation, and what
    /// comes late from the one before is nobody's.
    pub(crate) fn handle_datagram(&mut self, now: Instant, carrier: Carrier, client_port: u16, mut datagram: Vec<u8>) {
        let port = carrier.port();
        if port == Some(Port::Ike) && self.client_ports != Some(client_port) {
            if datagram.get(8..16) != Some(&[0; 8]) {
                return;
            }
            self.client_ports = Some(client_port);
            self.config.remote_port_ike = client_port;
            self.config.remote_port_nat_t = nat_t_port_of(client_port);
            self.forget();
        }
        if port == Some(Port::NatT) && self.client_ports.map(nat_t_port_of) != Some(client_port) {
            return;
        }
        match (port, esp::classify(&datagram)) {
            (Some(port @ Port::Ike), _) => self.ike.handle_message(now, port, &datagram),
            (Some(port @ Port::NatT), esp::Datagram::Isakmp(message)) => self.ike.handle_message(now, port, message),
            (port, esp::Datagram::Esp { spi }) => {
                self.seen.esp[usize::from(port.is_none())] += 1;
                self.handle_esp(now, spi, &mut datagram);
            }
            (Some(Port::NatT), esp::Datagram::Keepalive) => self.seen.keepalives += 1,
            (_, esp::Datagram::Isakmp(_) | esp::Datagram::Keepalive | esp::Datagram::Short) => {}
        }
        self.pump();
    }

    /// The relation is over, and the next one may begin.
    fn forget(&mut self) {
        self.ike = Ike::new(self.config.clone(), split(&mut self.rng));
        self.inbound.clear();
        self.outbound.clear();
        self.session = false;
    }

    /// Sends an IP packet to the client.
    pub(crate) fn send_ip(&mut self, packet: &[u8]) {
        let mut frame = vec![0xff, 0x03, 0x00, 0x21];
        frame.extend(packet);
        self.send_frame(&frame);
    }

    /// Negotiates LCP and what follows from it anew.
    pub(crate) fn renegotiate(&mut self, now: Instant) {
        self.ppp = Server::new(self.ppp.manner);
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

    pub(crate) fn poll_transmit(&mut self) -> Option<(Carrier, Vec<u8>)> {
        self.out.pop_front()
    }

    /// The client's port that what leaves goes to.
    pub(crate) fn client_port(&self, carrier: Carrier) -> u16 {
        port_of(carrier, self.client_ports.unwrap_or_default())
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
                    let packet = packet.to_vec();
                    self.seen.pings += 1;
                    self.seen.ping_spi = Some(spi);
                    // Whatever comes is sent back: an echo.
                    self.send_ip(&packet);
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
            self.ppp = Server::new(self.ppp.manner);
        }
    }

    fn handle_control(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        if self.lns == Lns::Silent {
            return;
        }
        if header.tunnel_id == TunnelId(0) {
            self.renew(body);
        }
        self.channel.handle_message(now, header, body);
        while let Some((_, body)) = self.channel.poll_message() {
            let Ok(message) = Message::read(&body, None) else { continue };
            let answer = match message.message_type {
                MessageType::SCCRQ if self.lns == Lns::RefusesTunnel => {
                    self.channel.set_tunnel_id(TunnelId(message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap_or(0)));
                    // Not authorized.
                    let body = Body::new(MessageType::STOPCCN)
                        .u16(Attribute::ASSIGNED_TUNNEL_ID, OUR_TUNNEL.0)
                        .bytes(Attribute::RESULT_CODE, &[0, 4]);
                    Some((SessionId(0), body))
                }
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
                    let body = if self.lns == Lns::RefusesCall {
                        // No facilities, temporarily.
                        Body::new(MessageType::CDN).bytes(Attribute::RESULT_CODE, &[0, 4])
                    } else {
                        Body::new(MessageType::ICRP)
                    };
                    Some((self.peer_session, body.u16(Attribute::ASSIGNED_SESSION_ID, OUR_SESSION.0)))
                }
                MessageType::ICCN => {
                    self.session = true;
                    self.ppp.start(now);
                    None
                }
                MessageType::CDN | MessageType::STOPCCN => {
                    self.session = false;
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
                    self.carrier = if sa.encapsulated { Carrier::Udp(Port::NatT) } else { Carrier::Esp };
                    let rng = split(&mut self.rng);
                    let outbound = OutboundSa::new(sa.spi, &keys(&sa), esp::Lifetime::default(), rng)
                        .expect("keys of Quick Mode fit");
                    // As initiator of a rekey this end moves when the peer does; until then the new pair stands at the back.
                    let place = if sa.initiator { self.outbound.len().saturating_sub(1) } else { self.outbound.len() };
                    self.outbound.insert(place, (sa.spi, sa.pair, outbound));
                }
                ike::Event::RemoveSa { inbound_spi, outbound_spi } => {
                    self.inbound.retain(|(spi, _)| *spi != inbound_spi);
                    self.outbound.retain(|(spi, ..)| *spi != outbound_spi);
                    // L2TP does not outlive IPsec.
                    self.session &= !self.inbound.is_empty();
                }
                ike::Event::PeerDeletedIsakmp | ike::Event::DeadPeer | ike::Event::Failed(_) => self.forget(),
                ike::Event::Notice(notice) if notice.contains("Quick Mode of the peer is refused") => {
                    self.seen.refused += 1;
                }
                ike::Event::Lifetime { .. }
                | ike::Event::InitialContact
                | ike::Event::OwnCookie { .. }
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
                ike::Transmit::Message { port: Port::Ike, message } => self.out.push_back((Port::Ike.into(), message)),
                ike::Transmit::Message { port: Port::NatT, message } => {
                    self.out.push_back((Port::NatT.into(), [&[0; 4][..], &message].concat()));
                }
                ike::Transmit::Keepalive => self.out.push_back((Port::NatT.into(), vec![0xff])),
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
        sa.seal(&mut packet, 17, &[&L2TP_PORTS, &length, &[0, 0], message]).expect("a simulated SA is never exhausted");
        self.out.push_back((self.carrier, packet));
    }
}

/// The client's port towards 4500, by the one towards 500: the world keeps them that far apart.
pub(crate) fn nat_t_port_of(ike_port: u16) -> u16 {
    ike_port + 4_000
}

/// The client's port of what a carrier brings, by the one towards 500; without UDP there is none.
pub(crate) fn port_of(carrier: Carrier, ike_port: u16) -> u16 {
    match carrier {
        Carrier::Udp(Port::Ike) => ike_port,
        Carrier::Udp(Port::NatT) => nat_t_port_of(ike_port),
        Carrier::Esp => 0,
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
    let credentials = ike::Credentials::pre_shared_key(Zeroizing::new(psk.as_bytes().to_vec()));
    ike::Config {
        proposals: proposals.iter().map(|text| text.parse().expect("a proposal")).collect(),
        lifetime: Duration::from_secs(lives.0),
        esp_proposals: esp.iter().map(|text| text.parse().expect("a proposal")).collect(),
        esp_lifetime: ike::Lifetime { seconds: Duration::from_secs(lives.1), kilobytes: None },
        dpd: ike::Dpd { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) },
        ..ike::Config::new(addresses.0, addresses.1, credentials)
    }
}
