//! Two [`Ike`] over a link with virtual time, loss, duplication, delay and reordering.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use zeroize::Zeroizing;

use super::*;
use crate::suite::{Cipher, Group, Hash};
use registry::{NotifyType, PayloadType};

mod certificates;
mod clients;
mod establishment;
mod fragmentation;
mod habits;
mod hostility;
mod identity;
mod liveness;
mod nat;
mod recorded;
mod renewal;
mod responder;
mod rules;
mod selectors;
mod xauth;

const CLIENT: usize = 0;
const SERVER: usize = 1;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Peer {
    ike: Ike,
    events: Vec<(Duration, Event)>,
    inbound: BTreeMap<u32, Sa>,
    outbound: Vec<Sa>,
}

impl Peer {
    fn new(config: Config, seed: u64) -> Self {
        let ike = Ike::new(config, StdRng::seed_from_u64(seed));
        Self { ike, events: Vec::new(), inbound: BTreeMap::new(), outbound: Vec::new() }
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, event)| wanted(event)).count()
    }

    fn failure(&self) -> Option<(Duration, &Error)> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Failed(error) => Some((*at, error)),
            _ => None,
        })
    }
}

type Filter = Box<dyn FnMut(usize, &Header, &mut Vec<u8>) -> bool>;

/// What a server has in front of its peers, and those that it has admitted and that have no ISAKMP SA yet.
struct Front {
    responder: Responder,
    newcomers: Vec<Ike>,
}

struct Link {
    /// The server is a [`Responder`] at first, and the peer of that number what came of it.
    front: Option<Front>,
    peers: [Peer; 2],
    start: Instant,
    now: Instant,
    rng: StdRng,
    loss: f64,
    duplication: f64,
    delay: [u64; 2],
    under_way: Vec<(Instant, usize, Port, Vec<u8>)>,
    /// Sees every message with its sender; false drops it.
    filter: Filter,
    sent: Vec<(usize, Port, Vec<u8>)>,
    keepalives: [usize; 2],
    /// Both send ESP this often.
    traffic: Option<Duration>,
    next_traffic: Instant,
    packets: [usize; 2],
    lost_packets: [usize; 2],
}

fn psk(key: &str) -> Arc<Credentials> {
    Credentials::pre_shared_key(Zeroizing::new(key.as_bytes().to_vec()))
}

pub(super) fn config(proposal: &str, esp: &str) -> Config {
    let mut config = Config::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), psk("a pre-shared key"));
    config.proposals = vec![proposal.parse().unwrap()];
    config.esp_proposals = vec![esp.parse().unwrap()];
    config
}

fn fast() -> Config {
    config("aes128-sha256-ecp256", "aes128-sha256")
}

fn mirrored(config: &Config) -> Config {
    Config { local: config.remote, remote: config.local, ..config.clone() }
}

impl Link {
    fn new(client: Config, server: Config, seed: u64) -> Self {
        let start = Instant::now();
        Self {
            front: None,
            peers: [Peer::new(client, seed), Peer::new(server, seed ^ 0xffff)],
            start,
            now: start,
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            duplication: 0.0,
            delay: [20, 20],
            under_way: Vec::new(),
            filter: Box::new(|_, _, _| true),
            sent: Vec::new(),
            keepalives: [0; 2],
            traffic: None,
            next_traffic: start,
            packets: [0; 2],
            lost_packets: [0; 2],
        }
    }

    fn pair(config: &Config, seed: u64) -> Self {
        Self::new(config.clone(), mirrored(config), seed)
    }

    fn connected(config: &Config, seed: u64) -> Self {
        let mut link = Self::pair(config, seed);
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        link
    }

    /// The same, but the server knows no peer before message 3.
    fn fronted(config: &Config, seed: u64) -> Self {
        let mut link = Self::pair(config, seed);
        let usual = ResponderConfig::new(mirrored(config));
        let responder = Responder::new(usual, StdRng::seed_from_u64(seed ^ 0xff_ffff));
        link.front = Some(Front { responder, newcomers: Vec::new() });
        link
    }

    /// Where the client's messages come from, and where they go to.
    fn ends(&self, port: Port) -> [SocketAddr; 2] {
        let config = &self.peers[CLIENT].ike.config;
        [config.local_end(port), config.remote_end(port)].map(|end| SocketAddr::new(end.address, end.port))
    }

    /// Hands a message over as an owner of many relations does.
    fn deliver(&mut self, to: usize, port: Port, message: &[u8]) {
        let (now, [client, server]) = (self.now, self.ends(port));
        let Some(front) = self.front.as_mut().filter(|_| to == SERVER) else {
            return self.peers[to].ike.handle_message(now, port, message);
        };
        let cookies = Header::read(message).map(|(header, _)| header.cookies);
        let knows = |ike: &Ike| {
            cookies.is_ok_and(|known| ike.own_cookies().any(|own| own == known.initiator || own == known.responder))
        };
        if knows(&self.peers[SERVER].ike) {
            return self.peers[SERVER].ike.handle_message(now, port, message);
        }
        if let Some(newcomer) = front.newcomers.iter_mut().find(|newcomer| knows(newcomer)) {
            return newcomer.handle_message(now, port, message);
        }
        match front.responder.handle_message(now, port, server, client, message) {
            Answer::Ignored(_) => {}
            Answer::Reply(reply) => self.peers[SERVER].ike.transmit(port, reply),
            Answer::Admitted(mut ike) => {
                ike.handle_message(now, port, message);
                front.newcomers.push(*ike);
            }
        }
    }

    /// Moves those that have their ISAKMP SA behind the front, and forgets those that come to nothing.
    fn tend_front(&mut self) {
        let [client, _] = self.ends(Port::NatT);
        let Some(front) = &mut self.front else { return };
        let server = &mut self.peers[SERVER].ike;
        let (arrived, waiting) = std::mem::take(&mut front.newcomers).into_iter().partition(Ike::is_established);
        front.newcomers = waiting;
        for mut newcomer in arrived {
            front.responder.handle_established(&newcomer);
            newcomer.set_remote(Port::NatT, client);
            if server.is_idle() {
                newcomer.transmits.extend(server.transmits.drain(..));
                *server = newcomer;
            } else {
                server.absorb(self.now, newcomer);
            }
        }
        for newcomer in &mut front.newcomers {
            server.transmits.append(&mut newcomer.transmits);
        }
        front.newcomers.retain(|newcomer| !newcomer.is_idle());
    }

    fn connect(&mut self) {
        self.peers[CLIENT].ike.connect(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        self.tend_front();
        for from in [CLIENT, SERVER] {
            while let Some(transmit) = self.peers[from].ike.poll_transmit() {
                let Transmit::Message { port, mut message } = transmit else {
                    self.keepalives[from] += 1;
                    continue;
                };
                let (header, _) = Header::read(&message).unwrap();
                self.sent.push((from, port, message.clone()));
                if !(self.filter)(from, &header, &mut message) {
                    continue;
                }
                let copies = if self.rng.random_bool(self.duplication) { 2 } else { 1 };
                for _ in 0..copies {
                    if !self.rng.random_bool(self.loss) {
                        let delay = Duration::from_millis(self.rng.random_range(self.delay[0]..=self.delay[1]));
                        self.under_way.push((self.now + delay, 1 - from, port, message.clone()));
                    }
                }
            }
            let at = self.now - self.start;
            let peer = &mut self.peers[from];
            while let Some(event) = peer.ike.poll_event() {
                match &event {
                    Event::InstallInbound(sa) => assert!(peer.inbound.insert(sa.spi, sa.clone()).is_none()),
                    Event::InstallOutbound(sa) => {
                        assert!(peer.inbound.contains_key(&sa.pair), "outbound before inbound");
                        assert!(peer.outbound.iter().all(|other| other.spi != sa.spi), "installed twice");
                        peer.outbound.push(sa.clone());
                    }
                    Event::RemoveSa { inbound_spi, outbound_spi } => {
                        assert!(peer.inbound.remove(inbound_spi).is_some());
                        peer.outbound.retain(|sa| sa.spi != *outbound_spi);
                    }
                    _ => {}
                }
                peer.events.push((at, event));
            }
        }
    }

    /// One ESP packet from each side on the SA that it installed last.
    fn exchange_packets(&mut self) {
        for from in [CLIENT, SERVER] {
            let Some(sa) = self.peers[from].outbound.last().cloned() else { continue };
            self.packets[from] += 1;
            match self.peers[1 - from].inbound.get(&sa.spi) {
                Some(inbound) => {
                    assert_eq!(inbound.encryption_key, sa.encryption_key);
                    assert_eq!(inbound.integrity_key, sa.integrity_key);
                    self.peers[1 - from].ike.handle_esp_activity(self.now, sa.spi);
                }
                None => self.lost_packets[from] += 1,
            }
        }
        self.drain();
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let delivery = self.under_way.iter().map(|(at, ..)| *at).min();
            let timeouts = self.peers.iter().filter_map(|peer| peer.ike.poll_timeout()).min();
            let traffic = self.traffic.map(|_| self.next_traffic);
            let newcomers = self.front.iter().flat_map(|front| &front.newcomers).filter_map(Ike::poll_timeout).min();
            let next = [delivery, timeouts, newcomers, traffic].into_iter().flatten().min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if let Some(index) = self.under_way.iter().position(|(at, ..)| *at <= self.now) {
                let (_, to, port, message) = self.under_way.remove(index);
                self.deliver(to, port, &message);
            }
            for newcomer in self.front.iter_mut().flat_map(|front| &mut front.newcomers) {
                newcomer.handle_timeout(self.now);
            }
            for peer in &mut self.peers {
                if peer.ike.poll_timeout().is_some_and(|at| at <= self.now) {
                    peer.ike.handle_timeout(self.now);
                }
            }
            self.drain();
            if let Some(pause) = self.traffic
                && self.next_traffic <= self.now
            {
                self.next_traffic = self.now + pause;
                self.exchange_packets();
            }
        }
        self.now = end;
    }

    fn assert_established(&self) {
        for peer in &self.peers {
            assert!(peer.ike.is_established(), "{:?}", peer.events);
            assert_eq!((peer.inbound.len(), peer.outbound.len()), (1, 1), "{:?}", peer.events);
        }
        let [client, server] = &self.peers;
        assert_eq!(client.outbound[0].encryption_key, server.inbound[&client.outbound[0].spi].encryption_key);
        assert_eq!(server.outbound[0].integrity_key, client.inbound[&server.outbound[0].spi].integrity_key);
    }

    fn assert_no_packet_lost(&self) {
        assert!(self.packets[CLIENT] > 0 && self.packets[SERVER] > 0);
        assert_eq!(self.lost_packets, [0, 0], "of {:?}: {:#?}", self.packets, self.peers[CLIENT].events);
    }
}

fn is_install(event: &Event) -> bool {
    matches!(event, Event::InstallOutbound(_))
}

fn is_isakmp(event: &Event) -> bool {
    matches!(event, Event::IsakmpEstablished { .. })
}

/// Loses messages of Quick Mode from the client, counted from 1.
fn without_quick_mode_message(lost: std::ops::Range<usize>) -> Filter {
    let mut count = 0;
    Box::new(move |from, header, _| {
        let counts = from == CLIENT && header.exchange == ExchangeType::QUICK_MODE;
        count += usize::from(counts);
        !(counts && lost.contains(&count))
    })
}

/// Overwrites what is there in a message.
fn spoil(message: &mut [u8], what: &[u8]) {
    if let Some(at) = message.windows(what.len()).position(|window| window == what) {
        message[at..at + what.len()].fill(0x55);
    }
}

/// Payloads with their types.
type Content = Vec<(PayloadType, Vec<u8>)>;

/// What is in an encrypted message of phase 2; `iv` is that of the first message of its exchange if none is given.
fn opened(sa: &IsakmpSa, message: &[u8], iv: Option<&[u8]>) -> Content {
    let (header, body) = Header::read(message).unwrap();
    let first = sa.keys.exchange_iv(&sa.last_block, header.message_id);
    let (plain, _) = sa.keys.open(iv.unwrap_or(&first), body).unwrap();
    let payloads = key::Keys::payloads(header.next_payload, &plain).unwrap();
    payloads.iter().map(|payload| (payload.kind, payload.body.to_vec())).collect()
}

/// An encrypted message of phase 2 with the payloads behind its HASH, which covers `salt` and them.
fn written(
    sa: &IsakmpSa,
    exchange: ExchangeType,
    message_id: u32,
    iv: Option<&[u8]>,
    salt: &[u8],
    content: &Content,
) -> Vec<u8> {
    let mut chain = message::Chain::new();
    content.iter().for_each(|(kind, body)| chain.push(*kind, body));
    let hash = sa.keys.hash(&[&message_id.to_be_bytes(), salt, chain.octets()]);
    let mut iv = iv.map_or_else(|| sa.keys.exchange_iv(&sa.last_block, message_id), <[u8]>::to_vec);
    sa.keys.seal(Header::new(sa.cookies, exchange, message_id), &chain.behind_hash(&hash), &mut iv)
}

/// The bodies of one type.
fn bodies(content: &Content, kind: PayloadType) -> Vec<&[u8]> {
    content.iter().filter(|(found, _)| *found == kind).map(|(_, body)| body.as_slice()).collect()
}

/// The last cipher block of a message: the IV of the next one.
fn last_block(message: &[u8]) -> &[u8] {
    &message[message.len() - 16..]
}

/// Lets the client begin a renewal and answers it as the server would, but with `change`; the server itself hears nothing.
fn answer_renewal(link: &mut Link, change: impl FnOnce(&mut Content)) {
    link.filter = Box::new(|_, _, _| false);
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    let request = link.sent.last().unwrap().2.clone();
    let sa = &link.peers[SERVER].ike.isakmp[0];
    let mut content = opened(sa, &request, None);
    content.retain(|(kind, _)| *kind != PayloadType::HASH);
    let nonce = bodies(&content, PayloadType::NONCE)[0].to_vec();
    // The SPI stands behind DOI, situation and the header of the proposal.
    content[0].1[16..20].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    change(&mut content);
    let (header, _) = Header::read(&request).unwrap();
    let iv = Some(last_block(&request));
    let answer = written(sa, ExchangeType::QUICK_MODE, header.message_id, iv, &nonce, &content);
    let now = link.now;
    link.peers[CLIENT].ike.handle_message(now, Port::NatT, &answer);
    link.drain();
}

/// What the last renewal failed with.
fn renewal_error(link: &Link) -> Option<&Error> {
    link.peers[CLIENT].events.iter().rev().find_map(|(_, event)| match event {
        Event::RekeyFailed(error) => Some(error),
        _ => None,
    })
}
