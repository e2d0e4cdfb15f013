//! An LNS that follows a script, and a network of virtual time between it and the LAC: for tests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use zeroize::Zeroizing;

use super::avp::Attribute;
use super::channel::{Channel, Retransmission};
use super::config::{Config, Event};
use super::lac::Lac;
use super::message::{Body, DataHeader, Hiding, Message, MessageType, Packet, SessionId, TunnelId};
use super::outcome::Outcome;
use super::response;

/// What the LNS does out of the ordinary.
#[derive(Clone, Default)]
pub(super) struct Script {
    pub(super) secret: Option<Vec<u8>>,
    pub(super) hide: bool,
    pub(super) sends_challenge: bool,
    pub(super) leaves_challenge_unanswered: bool,
    /// From this message on it hears and says nothing.
    pub(super) silent_at: Option<MessageType>,
    /// It acknowledges these and does nothing more.
    pub(super) acknowledges_only: Vec<MessageType>,
    /// It does not even acknowledge these.
    pub(super) ignores: Option<MessageType>,
    pub(super) stop_ccn: Option<Outcome>,
    pub(super) cdn: Option<Outcome>,
    /// AVPs as octets behind those of SCCRP and of ICRP.
    pub(super) sccrp_avps: Vec<u8>,
    pub(super) icrp_avps: Vec<u8>,
    pub(super) window: Option<u16>,
}

pub(super) const TUNNEL: TunnelId = TunnelId(0xf583);
pub(super) const SESSION: SessionId = SessionId(0xb03f);

pub(super) struct Lns {
    script: Script,
    pub(super) channel: Channel,
    pub(super) lac_session: SessionId,
    lac_tunnel: TunnelId,
    silent: bool,
    /// Every message that the channel delivered.
    pub(super) received: Vec<Message>,
    pub(super) data: Vec<(Option<u16>, Vec<u8>)>,
}

impl Lns {
    fn new(script: Script) -> Self {
        Self {
            channel: Channel::new(Retransmission::default(), script.window.unwrap_or(4)),
            script,
            lac_session: SessionId(0),
            lac_tunnel: TunnelId(0),
            silent: false,
            received: Vec::new(),
            data: Vec::new(),
        }
    }

    pub(super) fn types(&self) -> Vec<MessageType> {
        self.received.iter().map(|message| message.message_type).collect()
    }

    pub(super) fn send(&mut self, now: Instant, session: SessionId, body: Body) {
        self.channel.send(session, body).unwrap();
        self.channel.flush(now);
    }

    pub(super) fn data(&self, ns: Option<u16>, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        DataHeader { tunnel_id: self.lac_tunnel, session_id: self.lac_session, ns }.encode(&mut out, frame.len());
        out.extend_from_slice(frame);
        out
    }

    fn body(&self, message: MessageType) -> Body {
        let secret = self.script.secret.clone().filter(|_| self.script.hide).map(Zeroizing::new);
        Body::new(message).hide(secret.map(|secret| Hiding { secret, random_vector: [7; 16] }))
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        let (header, body) = match Packet::read(datagram).unwrap() {
            Packet::Control(header, body) => (header, body),
            Packet::Data(header, frame) => {
                assert_eq!((header.tunnel_id, header.session_id), (TUNNEL, SESSION));
                return self.data.push((header.ns, frame.to_vec()));
            }
        };
        let secret = self.script.secret.clone();
        if !body.is_empty() {
            let kind = Message::read(body, secret.as_deref()).unwrap().message_type;
            self.silent |= self.script.silent_at == Some(kind);
            if self.script.ignores == Some(kind) {
                return;
            }
        }
        if self.silent {
            return;
        }
        self.channel.handle_message(now, &header, body);
        while let Some((session, body)) = self.channel.poll_message() {
            let message = Message::read(&body, secret.as_deref()).unwrap();
            if message.message_type == MessageType::SCCRQ {
                self.lac_tunnel = TunnelId(message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap());
                self.channel.set_tunnel_id(self.lac_tunnel);
            }
            if !self.script.acknowledges_only.contains(&message.message_type) {
                self.answer(session, &message);
            }
            self.received.push(message);
        }
        self.channel.flush(now);
    }

    fn answer(&mut self, session: SessionId, message: &Message) {
        let secret = self.script.secret.clone().unwrap_or_default();
        match message.message_type {
            MessageType::SCCRQ => {
                self.channel.set_peer_window(message.u16(Attribute::RECEIVE_WINDOW_SIZE).unwrap());
                if let Some(outcome) = &self.script.stop_ccn {
                    let body = Body::new(MessageType::STOPCCN)
                        .u16(Attribute::ASSIGNED_TUNNEL_ID, TUNNEL.0)
                        .bytes(Attribute::RESULT_CODE, &outcome.encode());
                    return self.channel.send(SessionId(0), body).unwrap();
                }
                let mut body = self
                    .body(MessageType::SCCRP)
                    .u16(Attribute::PROTOCOL_VERSION, 0x0100)
                    .u32(Attribute::FRAMING_CAPABILITIES, 3)
                    .bytes(Attribute::HOST_NAME, b"lns")
                    .bytes(Attribute::VENDOR_NAME, b"script\x1b[31m")
                    .u16(Attribute::ASSIGNED_TUNNEL_ID, TUNNEL.0);
                if let Some(window) = self.script.window {
                    body = body.u16(Attribute::RECEIVE_WINDOW_SIZE, window);
                }
                if self.script.sends_challenge {
                    body = body.bytes(Attribute::CHALLENGE, b"who are you?");
                }
                let challenge = message.value(Attribute::CHALLENGE);
                if let Some(challenge) = challenge.filter(|_| !self.script.leaves_challenge_unanswered) {
                    let response = response(MessageType::SCCRP, &secret, challenge);
                    body = body.bytes(Attribute::CHALLENGE_RESPONSE, &response);
                }
                let body = body.raw(&self.script.sccrp_avps);
                self.channel.send(SessionId(0), body).unwrap();
            }
            MessageType::SCCCN if self.script.sends_challenge => {
                let expected = response(MessageType::SCCCN, &secret, b"who are you?");
                assert_eq!(message.value(Attribute::CHALLENGE_RESPONSE), Some(&expected[..]));
            }
            MessageType::ICRQ => {
                self.lac_session = SessionId(message.u16(Attribute::ASSIGNED_SESSION_ID).unwrap());
                let body = match &self.script.cdn {
                    Some(outcome) => Body::new(MessageType::CDN).bytes(Attribute::RESULT_CODE, &outcome.encode()),
                    None => self.body(MessageType::ICRP),
                };
                let body = body.u16(Attribute::ASSIGNED_SESSION_ID, SESSION.0).raw(&self.script.icrp_avps);
                self.channel.send(self.lac_session, body).unwrap();
            }
            MessageType::ICCN => assert_eq!(session, SESSION),
            _ => {}
        }
    }
}

/// The LAC, the LNS and what is on its way between them.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) lac: Lac,
    pub(super) lns: Lns,
    rng: StdRng,
    /// The share of datagrams that are lost, that come twice, and whether they overtake each other.
    trouble: f64,
    sent: u64,
    wire: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    pub(super) events: Vec<Event>,
    /// What the LAC sent, and when.
    pub(super) log: Vec<(Duration, Vec<u8>)>,
    start: Instant,
}

impl Pair {
    pub(super) fn new(config: Config, script: Script) -> Self {
        Self::with_trouble(config, script, 1, 0.0)
    }

    pub(super) fn with_trouble(config: Config, script: Script, seed: u64, trouble: f64) -> Self {
        let now = Instant::now();
        Self {
            now,
            lac: Lac::new(config, StdRng::seed_from_u64(seed)),
            lns: Lns::new(script),
            rng: StdRng::seed_from_u64(!seed),
            trouble,
            sent: 0,
            wire: BTreeMap::new(),
            events: Vec::new(),
            log: Vec::new(),
            start: now,
        }
    }

    /// A session that is up, and its events taken.
    pub(super) fn established(config: Config, script: Script) -> Self {
        let mut pair = Self::new(config, script);
        pair.connect();
        pair.run(Duration::from_secs(1));
        assert!(pair.lac.is_established(), "{:?}", pair.events);
        pair.events.clear();
        pair
    }

    pub(super) fn connect(&mut self) {
        self.lac.connect(self.now);
    }

    /// Everything that happens in the next `time`.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let arrival = self.wire.keys().next().map(|&(at, _)| at);
            let due = [arrival, self.lac.poll_timeout(), self.lns.channel.poll_timeout()];
            let Some(next) = due.into_iter().flatten().min().filter(|&at| at <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to_lns, datagram)) = self.wire.pop_first().unwrap();
                if to_lns {
                    self.lns.handle(self.now, &datagram);
                } else {
                    assert_eq!(self.lac.handle_message(self.now, &datagram), None);
                }
                continue;
            }
            self.lac.handle_timeout(self.now);
            self.lns.channel.handle_timeout(self.now);
            self.lns.channel.flush(self.now);
        }
        self.now = end;
    }

    /// A datagram of the LAC arrives at once.
    pub(super) fn lns_hears(&mut self, datagram: &[u8]) {
        self.lns.handle(self.now, datagram);
    }

    /// The messages that the LAC sent, in words.
    pub(super) fn words(&self) -> Vec<String> {
        self.log.iter().map(|(at, datagram)| format!("{:>5.1} {}", at.as_secs_f64(), words(datagram))).collect()
    }

    fn drain(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.lac.poll_event()));
        while let Some(datagram) = self.lac.poll_transmit() {
            self.log.push((self.now - self.start, datagram.clone()));
            self.deliver(true, datagram);
        }
        while let Some(datagram) = self.lns.channel.poll_transmit() {
            self.deliver(false, datagram);
        }
    }

    fn deliver(&mut self, to_lns: bool, datagram: Vec<u8>) {
        for copy in [true, self.rng.random_bool(self.trouble)] {
            if copy && !self.rng.random_bool(self.trouble) {
                let jitter = if self.trouble > 0.0 { self.rng.random_range(0..200) } else { 0 };
                self.sent += 1;
                let at = self.now + Duration::from_millis(10 + jitter);
                self.wire.insert((at, self.sent), (to_lns, datagram.clone()));
            }
        }
    }
}

fn words(datagram: &[u8]) -> String {
    let Packet::Control(header, body) = Packet::read(datagram).unwrap() else { return "data".into() };
    let name = match Message::read(body, None) {
        Ok(message) => message.message_type.to_string(),
        Err(_) if body.is_empty() => "ZLB".into(),
        Err(error) => error.to_string(),
    };
    let place = match (header.tunnel_id, header.session_id) {
        (TUNNEL, SESSION) => "session",
        (TUNNEL, SessionId(0)) => "tunnel",
        (TunnelId(0), SessionId(0)) => "nothing",
        _ => "another",
    };
    format!("{name} to {place}, Ns {} Nr {}", header.ns, header.nr)
}
