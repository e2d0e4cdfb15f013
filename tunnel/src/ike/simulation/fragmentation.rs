//! Messages that are too long for one datagram.

use super::*;
use crate::ike::message::{Chain, Cookies};

/// A configuration whose messages 5 and 6 have some 3000 octets.
fn long() -> Config {
    Config { local_id: Some(Identity::KeyId(vec![7; 3000])), ..fast() }
}

fn is_fragment(message: &[u8]) -> bool {
    Header::read(message).unwrap().0.next_payload == PayloadType::FRAGMENT
}

fn connected(config: &Config, seed: u64, change: impl FnOnce(&mut Link)) -> Link {
    let mut link = Link::fronted(config, seed);
    change(&mut link);
    link.connect();
    link.run(seconds(30));
    link
}

fn fragment(cookies: Cookies, number: u8, flags: u8, piece: &[u8]) -> Vec<u8> {
    let mut chain = Chain::new();
    chain.push(PayloadType::FRAGMENT, &[&[0, 1, number, flags][..], piece].concat());
    Header::new(cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain)
}

#[test]
fn long_messages_travel_in_fragments_in_both_directions() {
    let link = connected(&long(), 200, |_| {});
    link.assert_established();
    assert!(link.sent.iter().all(|(.., message)| message.len() <= 1280));
    for from in [CLIENT, SERVER] {
        assert_eq!(link.sent.iter().filter(|(sender, _, message)| *sender == from && is_fragment(message)).count(), 3);
    }
    assert!(link.peers.iter().all(|peer| peer.ike.reassemblies.is_empty()));
}

#[test]
fn fragments_that_are_lost_doubled_and_reordered_are_survived() {
    for seed in 0..10 {
        let link = connected(&long(), seed, |link| {
            (link.loss, link.duplication, link.delay) = (0.15, 0.3, [1, 400]);
        });
        assert!(link.peers[CLIENT].ike.is_established(), "seed {seed}: {:?}", link.peers[CLIENT].events);
    }
}

#[test]
fn the_encryption_bit_of_a_fragment_does_not_matter() {
    let link = connected(&long(), 201, |link| {
        link.filter = Box::new(|_, header, message| {
            if header.next_payload == PayloadType::FRAGMENT {
                message[19] |= 1;
            }
            true
        });
    });
    link.assert_established();
}

#[test]
fn a_peer_that_does_not_announce_it_is_sent_no_fragments() {
    let link = connected(&long(), 202, |link| {
        link.filter = Box::new(|from, header, message| {
            if from == CLIENT && header.cookies.responder == [0; 8] {
                spoil(message, &hex_literal::hex!("4048b7d56ebce88525e7de7f00d6c2d3"));
            }
            true
        });
    });
    link.assert_established();
    assert!(!link.sent.iter().any(|(.., message)| is_fragment(message)));
    assert!(link.sent.iter().any(|(.., message)| message.len() > 3000));
}

#[test]
fn fragments_of_nobody_are_not_kept() {
    let mut link = Link::fronted(&fast(), 203);
    link.connect();
    link.run(seconds(2));
    let mut cookies = link.peers[SERVER].ike.isakmp[0].cookies;
    cookies.initiator[0] ^= 1;
    let message = fragment(cookies, 1, 0, &[1; 100]);
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message);
    assert!(link.peers[SERVER].ike.reassemblies.is_empty());
    let answer = {
        let [client, server] = link.ends(Port::NatT);
        let responder = &mut link.front.as_mut().unwrap().responder;
        responder.handle_message(link.now, Port::NatT, server, client, &message)
    };
    assert!(matches!(answer, Answer::Ignored(Reason::UnknownCookie)));
}

#[test]
fn what_is_kept_of_fragments_is_bounded_in_number_octets_and_time() {
    let mut link = connected(&fast(), 204, |_| {});
    let server = &mut link.peers[SERVER].ike;
    let cookies = server.isakmp[0].cookies;
    let now = link.now;
    let kept = |server: &Ike| server.reassemblies.len();
    server.handle_message(now, Port::NatT, &fragment(cookies, 17, 0, &[1; 10]));
    assert_eq!(kept(server), 0);
    for number in 1..=16 {
        server.handle_message(now, Port::NatT, &fragment(cookies, number, 0, &[number; 1100]));
        assert!(kept(server) <= 1);
        // More than 10000 octets are thrown away altogether.
        assert_eq!(kept(server) == 0, number == 10, "{number}");
    }
    for number in 1..=16 {
        server.handle_message(now, Port::NatT, &fragment(cookies, number, 0, &[0; 10]));
    }
    assert_eq!(kept(server), 1);
    server.handle_message(now + seconds(30), Port::NatT, &fragment(cookies, 2, 1, &[1; 10]));
    // The first one is too old to complete this one.
    assert_eq!(kept(server), 1);
    server.handle_message(now + seconds(61), Port::NatT, &fragment(cookies, 0, 0, &[1; 10]));
    assert_eq!(kept(server), 0);
}

#[test]
fn garbage_in_fragments_changes_nothing() {
    let mut link = connected(&fast(), 205, |_| {});
    let mut rng = StdRng::seed_from_u64(206);
    let cookies = link.peers[SERVER].ike.isakmp[0].cookies;
    for _ in 0..10_000 {
        let piece: Vec<u8> = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
        let mut message = fragment(cookies, rng.random_range(0..5), rng.random_range(0..2), &piece);
        if rng.random_bool(0.3) {
            let at = rng.random_range(28..message.len());
            message[at] = rng.random();
        }
        let (now, to) = (link.now, rng.random_range(0..2));
        link.peers[to].ike.handle_message(now, Port::NatT, &message);
        assert!(link.peers[to].ike.reassemblies.len() <= 1);
    }
    link.drain();
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(100));
    link.assert_established();
}
