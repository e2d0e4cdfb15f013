//! Two [`Ike`] over a link with virtual time, loss, duplication, delay and reordering.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use zeroize::Zeroizing;

use super::*;
use crate::suite::{Cipher, Group, Hash};
use registry::{NotifyType, PayloadType};

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

struct Link {
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

fn config(proposal: &str, esp: &str) -> Config {
    let mut config =
        Config::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), Zeroizing::new(b"a pre-shared key".to_vec()));
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

    fn connect(&mut self) {
        self.peers[CLIENT].ike.connect(self.now);
        self.drain();
    }

    fn drain(&mut self) {
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
            let next = [delivery, timeouts, traffic].into_iter().flatten().min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if let Some(index) = self.under_way.iter().position(|(at, ..)| *at <= self.now) {
                let (_, to, port, message) = self.under_way.remove(index);
                self.peers[to].ike.handle_message(self.now, port, &message);
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

#[test]
fn every_cipher_and_hash_of_phase_1_establishes() {
    for &cipher in Cipher::ALL.iter().filter(|cipher| !cipher.is_aead()) {
        for &hash in Hash::ALL {
            let link = Link::connected(&config(&format!("{cipher}-{hash}-ecp256"), "aes256-sha256"), 1);
            assert_eq!(link.peers[SERVER].ike.proposal().map(|proposal| proposal.hash), Some(hash));
        }
    }
}

#[test]
fn every_group_establishes_in_both_phases() {
    for &group in Group::ALL {
        let link = Link::connected(&config(&format!("aes128-sha1-{group}"), &format!("aes128-sha1-{group}")), 2);
        assert_eq!(link.peers[CLIENT].outbound[0].proposal.group, Some(group));
    }
}

#[test]
fn every_proposal_of_esp_establishes_with_keys_of_the_right_size() {
    for &cipher in Cipher::ALL {
        let suffixes: Vec<String> = if cipher.is_aead() {
            vec![String::new()]
        } else {
            Hash::ALL.iter().map(|hash| format!("-{hash}")).collect()
        };
        for suffix in suffixes {
            let link = Link::connected(&config("aes128-sha1-ecp256", &format!("{cipher}{suffix}")), 3);
            let sa = &link.peers[CLIENT].outbound[0];
            let sizes = key::esp_key_sizes(cipher, sa.proposal.integrity);
            assert_eq!((sa.encryption_key.len(), sa.integrity_key.len()), sizes);
        }
    }
}

#[test]
fn the_default_offer_finds_what_the_peer_has() {
    for (ike, esp) in [("3des-sha1-modp2048", "aes128-sha1"), ("aes256-sha1-ecp384", "aes256-sha1")] {
        let mut server = mirrored(&fast());
        server.proposals = vec![ike.parse().unwrap()];
        server.esp_proposals = vec![esp.parse().unwrap()];
        let offer = Config::new(server.remote, server.local, server.pre_shared_key.clone());
        let mut link = Link::new(offer, server, 4);
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        assert_eq!(link.peers[CLIENT].ike.proposal().unwrap().to_string(), ike);
    }
}

#[test]
fn message_5_and_everything_after_it_goes_to_port_4500() {
    let link = Link::connected(&fast(), 5);
    let ports: Vec<_> = link.sent.iter().map(|(from, port, _)| (*from, *port)).collect();
    let mut expected: Vec<_> = [0, 1, 0, 1].map(|from| (from, Port::Ike)).to_vec();
    expected.extend([0, 1, 0, 1, 0].map(|from| (from, Port::NatT)));
    assert_eq!(ports, expected);
}

#[test]
fn a_first_main_mode_may_begin_on_port_4500() {
    let link = Link::connected(&Config { begin_on: Port::NatT, ..fast() }, 6);
    assert!(link.sent.iter().all(|(_, port, _)| *port == Port::NatT));
}

#[test]
fn loss_duplication_and_reordering_are_survived() {
    for seed in 0..60 {
        let mut link = Link::pair(&fast(), seed);
        (link.loss, link.duplication, link.delay) = (0.25, 0.3, [1, 1500]);
        link.traffic = Some(Duration::from_millis(500));
        link.connect();
        link.run(seconds(60));
        assert_eq!(link.peers[CLIENT].failure(), None, "seed {seed}");
        for peer in &link.peers {
            assert_eq!((peer.inbound.len(), peer.outbound.len()), (1, 1), "seed {seed}: {:?}", peer.events);
        }
    }
}

#[test]
fn retransmissions_are_byte_identical() {
    let mut link = Link::pair(&fast(), 7);
    let mut seen = 0;
    link.filter = Box::new(move |from, _, _| {
        seen += 1;
        from == CLIENT || seen > 4
    });
    link.connect();
    link.run(seconds(20));
    link.assert_established();
    let firsts: Vec<_> = link.sent.iter().filter(|(from, ..)| *from == CLIENT).map(|(.., message)| message).collect();
    assert_eq!(firsts[0], firsts[1]);
    assert!(link.peers[CLIENT].ike.retransmissions() > 0);
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

#[test]
fn a_lost_message_3_of_quick_mode_is_replaced_by_the_first_esp_packet() {
    let mut link = Link::pair(&fast(), 8);
    link.filter = without_quick_mode_message(2..3);
    link.connect();
    link.run(Duration::from_millis(500));
    assert_eq!((link.peers[CLIENT].outbound.len(), link.peers[SERVER].outbound.len()), (1, 0));
    link.exchange_packets();
    assert_eq!(link.peers[SERVER].outbound.len(), 1);
    link.assert_established();
}

#[test]
fn a_lost_message_3_is_sent_again_when_message_2_comes_again() {
    let mut link = Link::pair(&fast(), 9);
    link.filter = without_quick_mode_message(2..3);
    link.connect();
    link.run(seconds(3));
    link.assert_established();
}

#[test]
fn a_quick_mode_that_is_never_confirmed_leaves_nothing_behind() {
    let mut link = Link::pair(&fast(), 10);
    link.filter = without_quick_mode_message(2..usize::MAX);
    link.connect();
    link.run(seconds(40));
    assert!(link.peers[SERVER].inbound.is_empty());
}

#[test]
fn silence_is_reported_after_31_seconds_with_the_message() {
    let mut link = Link::pair(&fast(), 11);
    link.filter = Box::new(|_, _, _| false);
    link.connect();
    link.run(seconds(60));
    let expected = Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 1 };
    assert_eq!(link.peers[CLIENT].failure(), Some((seconds(31), &expected)));
    assert_eq!(link.sent.len(), 6);
    assert_eq!(link.peers[CLIENT].ike.poll_timeout(), None);
}

#[test]
fn a_wrong_key_is_reported_soon_when_the_peer_complains_and_late_when_it_is_silent() {
    for (complains, at) in [(true, 2..4), (false, 30..33)] {
        let mut server = mirrored(&fast());
        server.pre_shared_key = Zeroizing::new(b"another key".to_vec());
        let mut link = Link::new(fast(), server, 12);
        link.filter = Box::new(move |_, header, _| complains || header.exchange != ExchangeType::INFORMATIONAL);
        link.connect();
        link.run(seconds(60));
        let (when, error) = link.peers[CLIENT].failure().unwrap();
        assert!(matches!(error, Error::AuthenticationFailed { .. }), "{error}");
        assert!(at.contains(&when.as_secs()), "{when:?}");
        assert!(!link.peers[SERVER].ike.is_established());
    }
}

#[test]
fn no_common_proposal_of_phase_1_is_reported_within_seconds() {
    let mut link = Link::new(fast(), mirrored(&config("aes256-sha1-ecp384", "aes128-sha256")), 13);
    link.connect();
    link.run(seconds(5));
    let (when, error) = link.peers[CLIENT].failure().unwrap();
    assert_eq!(error, &Error::NoProposalChosen { phase: 1, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) });
    assert!(when < seconds(3));
}

#[test]
fn no_common_proposal_or_group_of_phase_2_is_reported_at_once_and_may_be_tried_again() {
    for theirs in ["aes256-sha1", "aes128-sha256-modp2048"] {
        let mut link = Link::new(fast(), mirrored(&config("aes128-sha256-ecp256", theirs)), 14);
        link.connect();
        link.run(seconds(2));
        let (when, error) = link.peers[CLIENT].failure().unwrap();
        assert_eq!(error, &Error::NoProposalChosen { phase: 2, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) });
        assert!(when < seconds(1));
        link.peers[CLIENT].ike.retry_quick_mode(link.now, vec![theirs.parse().unwrap()]);
        link.drain();
        link.run(seconds(2));
        link.assert_established();
    }
}

#[test]
fn a_pinned_identity_has_to_be_proved() {
    let mut client = fast();
    client.remote_id = Some(Identity::Fqdn("vpn.example.com".into()));
    let mut link = Link::new(client.clone(), mirrored(&fast()), 15);
    link.connect();
    link.run(seconds(5));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::InvalidId { .. }))));
    let mut server = mirrored(&fast());
    server.local_id = client.remote_id.clone();
    let mut link = Link::new(client, server, 16);
    link.connect();
    link.run(seconds(5));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].ike.peer_id(), Some(&Identity::Fqdn("vpn.example.com".into())));
}

#[test]
fn a_peer_without_nat_traversal_is_named() {
    let mut link = Link::pair(&fast(), 17);
    link.filter = Box::new(|from, _, message| {
        if from == SERVER {
            spoil(message, &nat::Flavour::Rfc3947.vendor_id());
        }
        true
    });
    link.connect();
    link.run(seconds(5));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::NoNatTraversal))));
}

/// Overwrites what is there in a message.
fn spoil(message: &mut [u8], what: &[u8]) {
    if let Some(at) = message.windows(what.len()).position(|window| window == what) {
        message[at..at + what.len()].fill(0x55);
    }
}

#[test]
fn the_drafts_of_nat_traversal_are_spoken_with_peers_that_know_no_other() {
    for known in 1..nat::Flavour::ALL.len() {
        let mut link = Link::pair(&fast(), 18);
        link.filter = Box::new(move |_, _, message| {
            nat::Flavour::ALL[..known].iter().for_each(|flavour| spoil(message, &flavour.vendor_id()));
            true
        });
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        let message_3 = &link.sent[2].2;
        let (header, body) = Header::read(message_3).unwrap();
        let payloads = message::Payloads::read_plain(header.next_payload, body).unwrap();
        assert_eq!(payloads.all(PayloadType::NAT_D_DRAFT).count(), 2);
        assert_eq!(payloads.all(PayloadType::NAT_D).count(), 0);
    }
}

#[test]
fn the_verdict_on_nat_is_true_for_this_end_and_claimed_by_the_other() {
    // Both ends claim a NAT of their own, and neither has one.
    let link = Link::connected(&fast(), 19);
    assert_eq!(link.peers[CLIENT].ike.nat(), Some(Nat { local: false, remote: true }));
    // The server sees another address of the client.
    let mut server = mirrored(&fast());
    server.remote = [198, 51, 100, 7].into();
    let mut link = Link::new(fast(), server, 20);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].ike.nat(), Some(Nat { local: true, remote: true }));
}

#[test]
fn phase_2_is_renewed_for_hours_by_either_side_without_losing_a_packet() {
    for (client, server) in [(1200, 3600), (3600, 1200), (1200, 1200), (60, 60), (20, 3600)] {
        let mut link = Link::pair(&fast(), 21);
        link.peers[CLIENT].ike.config.esp_lifetime.seconds = seconds(client);
        link.peers[SERVER].ike.config.esp_lifetime.seconds = seconds(server);
        link.traffic = Some(Duration::from_millis(700));
        link.connect();
        link.run(seconds(10 * client.min(server)));
        link.assert_no_packet_lost();
        let renewed = link.peers[CLIENT].count(is_install);
        assert!((9..=16).contains(&renewed), "{renewed} for {client} and {server}");
        assert_eq!(link.peers[CLIENT].count(is_isakmp), 1);
        assert_eq!(link.peers[CLIENT].failure(), None);
        assert!(link.peers.iter().all(|peer| peer.inbound.len() <= 3));
    }
}

#[test]
fn phase_1_is_renewed_by_either_side_and_the_esp_sas_stay() {
    for (client, server) in [(600, 28_800), (28_800, 600), (600, 600)] {
        let mut link = Link::pair(&fast(), 22);
        link.peers[CLIENT].ike.config.lifetime = seconds(client);
        link.peers[SERVER].ike.config.lifetime = seconds(server);
        link.traffic = Some(seconds(1));
        link.connect();
        link.run(seconds(3000));
        link.assert_no_packet_lost();
        for peer in &link.peers {
            assert!((5..=8).contains(&peer.count(is_isakmp)), "{client} {server} {:?}", peer.events);
            assert_eq!((peer.count(is_install), peer.ike.isakmp.len()), (1, 1));
            assert!(peer.count(|event| matches!(event, Event::IsakmpEstablished { rekey: false, .. })) == 1);
        }
        assert!(link.sent.iter().skip(4).all(|(_, port, _)| *port == Port::NatT));
    }
}

#[test]
fn both_phases_are_renewed_over_a_bad_link() {
    for seed in 0..10 {
        let mut config = fast();
        config.lifetime = seconds(1200);
        config.esp_lifetime.seconds = seconds(600);
        let mut link = Link::pair(&config, seed);
        (link.loss, link.duplication, link.delay) = (0.15, 0.2, [1, 900]);
        link.connect();
        link.run(seconds(60));
        link.traffic = Some(seconds(1));
        link.next_traffic = link.now;
        link.run(seconds(7200));
        assert_eq!(link.peers[CLIENT].failure(), None, "seed {seed}");
        // A packet may overtake the message that makes its SA known, but the connection never stops.
        assert!(link.lost_packets.iter().sum::<usize>() <= 20, "seed {seed}: {:?}", link.lost_packets);
        assert!(link.peers[CLIENT].count(is_install) >= 11);
    }
}

#[test]
fn renewals_that_collide_end_with_one_pair_and_lose_nothing() {
    for seed in 0..20 {
        let mut link = Link::connected(&fast(), seed);
        link.delay = [5, 60];
        link.traffic = Some(Duration::from_millis(10));
        link.next_traffic = link.now;
        let now = link.now;
        link.peers.iter_mut().for_each(|peer| peer.ike.rekey_ipsec(now));
        link.drain();
        link.run(seconds(10));
        assert!(link.peers.iter().all(|peer| peer.inbound.len() == 3), "seed {seed}");
        link.run(seconds(90));
        link.assert_no_packet_lost();
        link.assert_established();
    }
}

#[test]
fn new_main_modes_that_collide_end_with_one_isakmp_sa() {
    for seed in 0..20 {
        let mut link = Link::connected(&fast(), seed);
        link.delay = [5, 60];
        let now = link.now;
        link.peers.iter_mut().for_each(|peer| peer.ike.rekey_isakmp(now));
        link.drain();
        link.run(seconds(10));
        assert!(link.peers.iter().all(|peer| peer.ike.isakmp.len() == 3), "seed {seed}");
        let current: Vec<_> = link.peers.iter().map(|peer| peer.ike.current().unwrap().cookies).collect();
        assert_eq!(current[0], current[1], "seed {seed}");
        link.run(seconds(90));
        assert!(link.peers.iter().all(|peer| peer.ike.isakmp.len() == 1), "seed {seed}");
        link.assert_established();
        link.peers[SERVER].ike.rekey_ipsec(link.now);
        link.drain();
        link.run(seconds(90));
        link.assert_established();
    }
}

#[test]
fn a_renewal_that_nobody_answers_is_tried_again_under_a_new_isakmp_sa() {
    let mut config = fast();
    config.esp_lifetime.seconds = seconds(600);
    let mut link = Link::connected(&config, 23);
    // The server forgets phase 1: it was restarted without its ISAKMP SAs.
    link.peers[SERVER].ike.isakmp.clear();
    link.traffic = Some(seconds(1));
    link.run(seconds(1500));
    assert_eq!(link.peers[CLIENT].failure(), None);
    assert!(link.peers[CLIENT].count(|event| matches!(event, Event::RekeyFailed(_))) >= 1);
    assert!(link.peers[CLIENT].count(is_isakmp) >= 2 && link.peers[CLIENT].count(is_install) >= 3);
}

#[test]
fn a_renewal_that_fails_until_the_end_is_a_failure() {
    let mut config = fast();
    config.esp_lifetime.seconds = seconds(300);
    config.dpd.interval = Duration::ZERO;
    let mut link = Link::connected(&config, 24);
    link.filter = Box::new(|_, _, _| false);
    link.run(seconds(600));
    assert!(link.peers[CLIENT].count(|event| matches!(event, Event::RekeyFailed(_))) >= 1);
    assert!(link.peers[CLIENT].failure().is_some(), "{:?}", link.peers[CLIENT].events);
    assert!(link.peers[CLIENT].inbound.is_empty());
}

#[test]
fn a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead() {
    let mut config = fast();
    config.dpd = Dpd { interval: seconds(10), timeout: seconds(15) };
    let mut link = Link::connected(&config, 25);
    link.run(seconds(300));
    assert!(link.peers.iter().all(|peer| peer.count(|event| *event == Event::DeadPeer) == 0));
    let asked = link.sent.iter().filter(|(.., message)| message[18] == 5).count();
    assert!((40..=130).contains(&asked), "{asked}");
    link.filter = Box::new(|_, _, _| false);
    let cut = link.now - link.start;
    link.run(seconds(60));
    for peer in &link.peers {
        let at = peer.events.iter().find(|(_, event)| *event == Event::DeadPeer).unwrap().0;
        assert!(at - cut <= seconds(26), "{:?}", at - cut);
    }
}

#[test]
fn traffic_is_proof_of_life_enough() {
    let mut config = fast();
    config.dpd = Dpd { interval: seconds(10), timeout: seconds(15) };
    let mut link = Link::connected(&config, 26);
    link.traffic = Some(seconds(1));
    link.next_traffic = link.now;
    let before = link.sent.len();
    link.run(seconds(300));
    assert_eq!(link.sent.len(), before);
}

#[test]
fn dead_peer_detection_stays_off_with_a_peer_that_does_not_know_it() {
    let mut config = fast();
    config.dpd = Dpd { interval: seconds(10), timeout: seconds(15) };
    let mut link = Link::pair(&config, 27);
    let dpd = 0xafca_d713_68a1_f1c9_6b86_96fc_7757_0100_u128.to_be_bytes();
    link.filter = Box::new(move |_, _, message| {
        spoil(message, &dpd);
        true
    });
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    let before = link.sent.len();
    link.run(seconds(120));
    assert_eq!(link.sent.len(), before);
}

#[test]
fn closing_deletes_everything_at_the_other_end_even_over_a_bad_link() {
    let mut link = Link::connected(&fast(), 28);
    let now = link.now;
    link.peers[CLIENT].ike.close(now);
    link.drain();
    link.run(seconds(2));
    assert!(link.peers[SERVER].inbound.is_empty());
    assert_eq!(link.peers[SERVER].count(|event| *event == Event::PeerDeletedIsakmp), 1);
    assert!(link.peers[CLIENT].ike.is_closed());
    assert_eq!(link.peers[CLIENT].ike.poll_timeout(), None);
}

#[test]
fn an_esp_sa_that_the_peer_takes_away_is_made_anew() {
    let mut link = Link::connected(&fast(), 29);
    let (now, spi) = (link.now, link.peers[SERVER].ike.pairs[0].inbound);
    link.peers[SERVER].ike.expire_pair(spi);
    link.drain();
    link.run(seconds(3));
    assert!(link.now > now);
    link.assert_established();
    assert_eq!(link.peers[CLIENT].count(is_install), 2);
}

#[test]
fn an_isakmp_sa_that_the_peer_takes_away_leaves_the_esp_sas_and_is_made_anew() {
    let mut link = Link::connected(&fast(), 30);
    let id = link.peers[SERVER].ike.isakmp[0].id;
    let now = link.now;
    link.peers[SERVER].ike.expire_isakmp(now, id);
    link.drain();
    link.run(seconds(3));
    link.assert_established();
    assert_eq!((link.peers[CLIENT].count(is_isakmp), link.peers[CLIENT].count(is_install)), (2, 1));
}

#[test]
fn unprotected_messages_change_nothing() {
    let mut link = Link::connected(&fast(), 31);
    let cookies = link.peers[CLIENT].ike.isakmp[0].cookies;
    let outbound = link.peers[CLIENT].ike.pairs[0].outbound.to_be_bytes();
    let notification =
        |kind| payload::Notification { protocol: ProtocolId::ISAKMP, spi: &cookies.spi(), kind, data: &[] }.body();
    let mut chain = message::Chain::new();
    chain.push(PayloadType::D, &payload::Delete::body(ProtocolId::ESP, &outbound));
    chain.push(PayloadType::D, &payload::Delete::body(ProtocolId::ISAKMP, &cookies.spi()));
    chain.push(PayloadType::N, &notification(NotifyType::AUTHENTICATION_FAILED));
    chain.push(PayloadType::N, &notification(NotifyType::R_U_THERE));
    let forged = Header::new(cookies, ExchangeType::INFORMATIONAL, 77).write_plain(&chain);
    let sent = link.sent.len();
    link.peers[CLIENT].ike.handle_message(link.now, Port::NatT, &forged);
    link.drain();
    link.run(seconds(10));
    link.assert_established();
    assert_eq!(link.sent.len(), sent);
}

#[test]
fn an_unprotected_refusal_is_forgotten_when_the_true_answer_comes() {
    let mut link = Link::pair(&fast(), 32);
    link.delay = [500, 500];
    link.connect();
    let cookies = link.peers[CLIENT].ike.negotiations[0].cookies;
    let mut chain = message::Chain::new();
    let refusal = payload::Notification {
        protocol: ProtocolId::ISAKMP,
        spi: &[],
        kind: NotifyType::NO_PROPOSAL_CHOSEN,
        data: &[],
    };
    chain.push(PayloadType::N, &refusal.body());
    let forged = Header::new(cookies, ExchangeType::INFORMATIONAL, 77).write_plain(&chain);
    link.peers[CLIENT].ike.handle_message(link.now, Port::Ike, &forged);
    link.run(seconds(10));
    link.assert_established();
}

#[test]
fn replayed_messages_change_nothing() {
    let mut link = Link::connected(&fast(), 33);
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(200));
    link.assert_established();
    let events: Vec<_> = link.peers.iter().map(|peer| peer.count(|event| !matches!(event, Event::Notice(_)))).collect();
    for (from, port, message) in link.sent.clone() {
        let now = link.now;
        link.peers[1 - from].ike.handle_message(now, port, &message);
        link.drain();
    }
    link.run(seconds(60));
    let after: Vec<_> = link.peers.iter().map(|peer| peer.count(|event| !matches!(event, Event::Notice(_)))).collect();
    assert_eq!(events, after);
    link.assert_established();
}

#[test]
fn keepalives_are_sent_only_when_nothing_else_is() {
    let mut config = fast();
    config.dpd.interval = Duration::ZERO;
    let mut link = Link::connected(&config, 34);
    link.run(seconds(200));
    assert!((9..=10).contains(&link.keepalives[CLIENT]), "{:?}", link.keepalives);
    let before = link.keepalives[CLIENT];
    for _ in 0..100 {
        link.run(seconds(2));
        link.peers[CLIENT].ike.handle_sent(link.now);
    }
    assert_eq!(link.keepalives[CLIENT], before);
}

#[test]
fn initial_contact_is_said_once() {
    let mut config = fast();
    config.lifetime = seconds(600);
    let mut link = Link::connected(&config, 35);
    link.run(seconds(2000));
    assert!(link.peers[SERVER].count(is_isakmp) >= 3);
    let said = |event: &Event| matches!(event, Event::Notice(text) if text.contains("first contact"));
    assert_eq!(link.peers[SERVER].count(said), 1);
}

#[test]
fn a_shorter_life_of_the_peer_is_obeyed_when_it_is_notified() {
    let mut link = Link::connected(&fast(), 36);
    let server = &mut link.peers[SERVER].ike;
    let (isakmp, spi) = (server.isakmp[0].id, server.pairs[0].inbound.to_be_bytes());
    let data = hex_literal::hex!("80010001 8002012C");
    let kind = NotifyType::RESPONDER_LIFETIME;
    let notification = payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind, data: &data };
    server.inform(isakmp, None, PayloadType::N, &notification.body(), 1);
    link.drain();
    link.run(seconds(299));
    assert_eq!(link.peers[CLIENT].count(is_install), 2);
}

#[test]
fn keys_are_exported_only_on_demand() {
    let keys = |event: &Event| matches!(event, Event::Keys(_));
    assert_eq!(Link::connected(&fast(), 37).peers[CLIENT].count(keys), 0);
    let link = Link::connected(&Config { export_keys: true, ..fast() }, 37);
    assert_eq!((link.peers[CLIENT].count(keys), link.peers[SERVER].count(keys)), (1, 1));
}

#[test]
fn a_flood_of_first_messages_is_bounded() {
    let mut server = Ike::new(mirrored(&fast()), StdRng::seed_from_u64(38));
    let now = Instant::now();
    for seed in 0..1000 {
        let mut client = Ike::new(fast(), StdRng::seed_from_u64(seed));
        client.connect(now);
        while let Some(Transmit::Message { port, message }) = client.poll_transmit() {
            server.handle_message(now, port, &message);
        }
        while server.poll_transmit().is_some() {}
    }
    assert!(server.negotiations.len() <= 4);
    server.handle_timeout(now + seconds(31));
    assert!(server.negotiations.is_empty() && server.poll_timeout().is_none());
}

#[test]
fn garbage_and_spoiled_messages_never_panic_and_never_break_the_connection() {
    let mut link = Link::connected(&fast(), 39);
    let mut rng = StdRng::seed_from_u64(40);
    let recorded = link.sent.clone();
    for round in 0..20_000 {
        let mut message = recorded[rng.random_range(0..recorded.len())].2.clone();
        if round % 4 == 0 {
            message.truncate(rng.random_range(0..=message.len()));
        }
        for _ in 0..rng.random_range(1..4) {
            if !message.is_empty() {
                let at = rng.random_range(0..message.len());
                message[at] = rng.random();
            }
        }
        let to = rng.random_range(0..2);
        link.peers[to].ike.handle_message(link.now, Port::NatT, &message);
        let peer = &mut link.peers[to].ike;
        while peer.poll_transmit().is_some() {}
        while let Some(event) = peer.poll_event() {
            assert!(matches!(event, Event::Notice(_)), "{event:?}");
        }
    }
    link.run(seconds(100));
    let now = link.now;
    link.peers[CLIENT].ike.rekey_ipsec(now);
    link.drain();
    link.run(seconds(60));
    link.assert_established();
}

#[test]
fn spoiled_messages_never_stop_a_handshake_for_good() {
    for seed in 0..30 {
        let mut link = Link::pair(&fast(), seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut spoiled = 0;
        link.filter = Box::new(move |_, _, message| {
            if spoiled < 4 && rng.random_bool(0.4) {
                let at = rng.random_range(0..message.len());
                message[at] ^= 1 << rng.random_range(0..8);
                spoiled += 1;
            }
            true
        });
        link.connect();
        link.run(seconds(60));
        // A flipped bit of the negotiation itself may end it, but only with an error that is named.
        let client = &link.peers[CLIENT];
        assert!(client.outbound.len() == 1 || client.failure().is_some(), "seed {seed}: {:?}", client.events);
    }
}
