//! Forged, replayed, reflected and spoiled messages, and floods.

use super::*;

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
    link.run(seconds(5));
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
            assert!(matches!(event, Event::Notice(_) | Event::OwnCookie { .. }), "{event:?}");
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

/// What is not only for the log.
fn consequences(link: &Link) -> [usize; 2] {
    [CLIENT, SERVER].map(|peer| link.peers[peer].count(|event| !matches!(event, Event::Notice(_))))
}

#[test]
fn our_own_messages_that_are_sent_back_at_once_change_nothing() {
    let mut link = Link::pair(&fast(), 90);
    link.connect();
    let mut reflected = 0;
    for _ in 0..100 {
        let new = link.sent.split_off(reflected);
        reflected += new.len();
        link.sent.extend(new.iter().cloned());
        for (from, port, message) in new {
            link.peers[from].ike.handle_message(link.now, port, &message);
        }
        link.run(Duration::from_millis(10));
    }
    link.assert_established();
    assert_eq!(link.sent.len(), 9);
}

#[test]
fn our_own_messages_that_are_sent_back_later_change_nothing() {
    let mut link = Link::connected(&fast(), 91);
    link.run(seconds(100));
    let (before, sent) = (consequences(&link), link.sent.len());
    for (from, port, message) in link.sent.clone() {
        link.peers[from].ike.handle_message(link.now, port, &message);
        link.drain();
    }
    assert_eq!((consequences(&link), link.sent.len()), (before, sent));
}

#[test]
fn an_answer_with_our_own_cookie_is_none() {
    let mut link = Link::pair(&fast(), 92);
    link.filter = Box::new(|from, _, message| {
        if from == SERVER {
            message.copy_within(0..8, 8);
        }
        true
    });
    link.connect();
    link.run(seconds(60));
    let expected = Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 1 };
    assert_eq!(link.peers[CLIENT].failure().unwrap().1, &expected);
}

#[test]
fn an_answer_with_our_own_public_value_is_refused() {
    let mut link = Link::pair(&fast(), 93);
    let mut own = Vec::new();
    // The KE payload comes first in messages 3 and 4.
    let value = 28 + 4..28 + 4 + 64;
    link.filter = Box::new(move |from, header, message| {
        if header.next_payload == PayloadType::KE {
            match from {
                CLIENT => own = message[value.clone()].to_vec(),
                _ => message[value.clone()].copy_from_slice(&own),
            }
        }
        true
    });
    link.connect();
    link.run(seconds(5));
    let expected = Error::InvalidKeyInformation("public value (it is ours)");
    assert_eq!(link.peers[CLIENT].failure().unwrap().1, &expected);
}

#[test]
fn duplicates_of_message_5_are_answered_ten_times() {
    let mut link = Link::pair(&fast(), 94);
    link.filter = without_quick_mode_message(1..3);
    link.connect();
    link.run(seconds(2));
    let (message_5, sent) = (link.sent[4].2.clone(), link.sent.len());
    for _ in 0..100 {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message_5);
    }
    link.drain();
    assert_eq!(link.sent.len() - sent, 10);
    // Quick Mode shows that message 6 has come.
    link.run(seconds(5));
    link.assert_established();
    assert!(link.peers[SERVER].ike.isakmp[0].answered.is_none());
}

#[test]
fn messages_on_port_500_are_old_once_the_port_has_changed() {
    let mut link = Link::connected(&fast(), 95);
    let server = &mut link.peers[SERVER].ike;
    let (isakmp, spi) = (server.isakmp[0].id, server.pairs[0].inbound.to_be_bytes());
    let body = payload::Delete::body(ProtocolId::ESP, &spi);
    let (_, delete) = server.informational(isakmp, PayloadType::D, &body).unwrap();
    link.peers[CLIENT].ike.handle_message(link.now, Port::Ike, &delete);
    link.drain();
    assert_eq!(link.peers[CLIENT].inbound.len(), 1);
    link.peers[CLIENT].ike.handle_message(link.now, Port::NatT, &delete);
    link.drain();
    assert_eq!(link.peers[CLIENT].inbound.len(), 0);
}

#[test]
fn phase_1_is_renewed_before_message_ids_can_no_longer_be_remembered() {
    let mut link = Link::connected(&fast(), 96);
    (1_000_000..1_001_600).for_each(|id| link.peers[CLIENT].ike.isakmp[0].remember(id));
    link.run(seconds(20));
    assert_eq!(link.peers[CLIENT].count(is_isakmp), 2);
    link.assert_established();
}

#[test]
fn a_message_that_cannot_be_remembered_is_refused() {
    let mut link = Link::connected(&fast(), 97);
    (1_000_000..1_003_000).for_each(|id| link.peers[CLIENT].ike.isakmp[0].remember(id));
    let heard = link.peers[CLIENT].ike.last_heard();
    let server = &mut link.peers[SERVER].ike;
    server.probe(link.now);
    link.drain();
    link.run(Duration::from_millis(30));
    assert_eq!(link.peers[CLIENT].ike.last_heard(), heard);
}

#[test]
fn a_message_6_on_port_500_is_old() {
    let mut link = Link::pair(&fast(), 98);
    link.connect();
    // Messages 1 to 5 have arrived, and message 6 is under way.
    link.run(Duration::from_millis(110));
    let message_6 = link.sent[5].2.clone();
    link.under_way.clear();
    link.peers[CLIENT].ike.handle_message(link.now, Port::Ike, &message_6);
    assert!(!link.peers[CLIENT].ike.is_established());
    link.peers[CLIENT].ike.handle_message(link.now, Port::NatT, &message_6);
    assert!(link.peers[CLIENT].ike.is_established());
}
