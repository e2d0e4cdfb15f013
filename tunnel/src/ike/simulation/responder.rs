//! The responder before message 3, and what becomes of those that it admits.

use std::net::Ipv4Addr;

use super::*;
use crate::ike::main_mode::Choice;
use crate::ike::message::{Chain, Cookies, Payloads};
use crate::ike::nat::Flavour;
use crate::ike::vendor::Abilities;

const LOCAL: &str = "192.0.2.2:500";
const REMOTE: &str = "192.0.2.1:500";

fn responder(config: &Config) -> Responder {
    Responder::new(ResponderConfig::new(mirrored(config)), StdRng::seed_from_u64(7))
}

fn handle(responder: &mut Responder, now: Instant, remote: &str, message: &[u8]) -> Answer {
    responder.handle_message(now, Port::Ike, LOCAL.parse().unwrap(), remote.parse().unwrap(), message)
}

fn reply(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Reply(message) => message,
        Answer::Ignored(reason) => panic!("ignored: {reason:?}"),
        Answer::Admitted(_) => panic!("admitted"),
    }
}

fn ignored(answer: Answer) -> Reason {
    match answer {
        Answer::Ignored(reason) => reason,
        Answer::Reply(_) => panic!("answered"),
        Answer::Admitted(_) => panic!("admitted"),
    }
}

/// A client that has sent message 1.
fn client(config: &Config, now: Instant, seed: u64) -> (Ike, Vec<u8>) {
    let mut client = Ike::new(config.clone(), StdRng::seed_from_u64(seed));
    client.connect(now);
    let message = next(&mut client);
    (client, message)
}

fn next(ike: &mut Ike) -> Vec<u8> {
    match ike.poll_transmit() {
        Some(Transmit::Message { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

/// The client's message 3 after the responder has answered its message 1.
fn message_3(responder: &mut Responder, now: Instant, client: &mut Ike, message_1: &[u8]) -> Vec<u8> {
    let message_2 = reply(handle(responder, now, REMOTE, message_1));
    client.handle_message(now, Port::Ike, &message_2);
    next(client)
}

/// A message 1 with the given payloads.
fn first(content: &[(PayloadType, &[u8])]) -> Vec<u8> {
    let mut chain = Chain::new();
    content.iter().for_each(|(kind, body)| chain.push(*kind, body));
    let cookies = Cookies { initiator: [5; 8], responder: [0; 8] };
    Header::new(cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain)
}

fn offer(proposals: &[&str], life: u64) -> Vec<u8> {
    let proposals: Vec<_> = proposals.iter().map(|proposal| proposal.parse().unwrap()).collect();
    proposal::offer_phase1(&proposals, authentication::Method::PreSharedKey, seconds(life))
}

fn count(responder: &Responder, reason: Reason) -> u64 {
    responder.statistics().ignored().find(|(known, _)| *known == reason).unwrap().1
}

#[test]
fn a_peer_is_kept_from_message_3_on_and_its_tunnel_comes_up() {
    let mut link = Link::fronted(&fast(), 1);
    link.connect();
    // Messages 1 and 2 have arrived, and message 3 is under way.
    link.run(Duration::from_millis(50));
    assert!(link.front.as_ref().unwrap().newcomers.is_empty());
    link.run(Duration::from_millis(20));
    assert_eq!(link.front.as_ref().unwrap().newcomers.len(), 1);
    link.run(seconds(2));
    link.assert_established();
    let statistics = link.front.as_ref().unwrap().responder.statistics();
    assert_eq!((statistics.answered, statistics.admitted, statistics.refused), (1, 1, 0));
}

#[test]
fn the_answer_to_a_duplicate_of_message_1_is_the_same() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (_, message_1) = client(&fast(), now, 1);
    let message_2 = reply(handle(&mut responder, now, REMOTE, &message_1));
    assert_eq!(reply(handle(&mut responder, now + seconds(20), REMOTE, &message_1)), message_2);
    let other = reply(handle(&mut responder, now + seconds(20), "192.0.2.1:501", &message_1));
    assert_ne!(other[8..16], message_2[8..16]);
}

#[test]
fn message_3_is_taken_only_from_where_message_1_came_from_and_for_a_minute_at_most() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let message = message_3(&mut responder, now, &mut client, &message_1);
    for other in ["192.0.2.1:501", "192.0.2.3:500", "[2001:db8::1]:500"] {
        assert_eq!(ignored(handle(&mut responder, now, other, &message)), Reason::UnknownCookie);
    }
    assert_eq!(ignored(handle(&mut responder, now + seconds(60), REMOTE, &message)), Reason::UnknownCookie);
    assert!(matches!(handle(&mut responder, now + seconds(59), REMOTE, &message), Answer::Admitted(_)));
    let mut forged = message;
    forged[8..16].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(ignored(handle(&mut responder, now, REMOTE, &forged)), Reason::UnknownCookie);
    assert_eq!(count(&responder, Reason::UnknownCookie), 5);
}

#[test]
fn nobody_is_admitted_without_a_public_value_of_the_right_length_and_a_nonce() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let message = message_3(&mut responder, now, &mut client, &message_1);
    let (header, _) = Header::read(&message).unwrap();
    for content in
        [&[(PayloadType::KE, vec![1; 64])][..], &[(PayloadType::KE, vec![1; 65]), (PayloadType::NONCE, vec![1; 8])]]
    {
        let mut chain = Chain::new();
        content.iter().for_each(|(kind, body)| chain.push(*kind, body));
        let poor = Header::new(header.cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain);
        assert_eq!(ignored(handle(&mut responder, now, REMOTE, &poor)), Reason::Malformed);
    }
}

#[test]
fn no_answer_is_longer_than_what_it_answers() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (good, bad) = (offer(&["aes128-sha256-ecp256"], 3600), offer(&["3des-md5-modp1024"], 3600));
    let rfc = Flavour::Rfc3947.vendor_id();
    let mut answered = 0;
    for sa in [&good[..], &bad, &bad[..bad.len() - 4], &[]] {
        for vendor_ids in [vec![], vec![&rfc[..]], vec![&rfc[..], &[1], &[2; 4]]] {
            let mut content = vec![(PayloadType::SA, sa)];
            content.extend(vendor_ids.into_iter().map(|id| (PayloadType::VID, id)));
            let message = first(&content);
            if let Answer::Reply(reply) = handle(&mut responder, now, REMOTE, &message) {
                assert!(reply.len() <= message.len(), "{} for {}", reply.len(), message.len());
                answered += 1;
            }
        }
    }
    assert!(answered >= 4, "{answered}");
}

#[test]
fn vendor_ids_that_do_not_fit_are_left_out_the_least_important_first() {
    let config = fast();
    let choice = Choice::of(&config, &offer(&["aes128-sha256-ecp256"], 3600)).unwrap();
    let abilities = Abilities { flavour: Some(Flavour::Rfc3947), dpd: true, windows: false, fragmentation: false };
    let cookies = Cookies { initiator: [1; 8], responder: [2; 8] };
    let whole = choice.message_2(cookies, abilities, 1000);
    let shorter = choice.message_2(cookies, abilities, whole.len() - 1);
    assert_eq!(shorter.len(), whole.len() - 20);
    let (header, body) = Header::read(&shorter).unwrap();
    let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
    assert_eq!(payloads.all(PayloadType::VID).collect::<Vec<_>>(), [Flavour::Rfc3947.vendor_id()]);
}

#[test]
fn what_is_no_main_mode_is_not_answered() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (_, message_1) = client(&fast(), now, 1);
    let mut changed = |at: usize, value: u8| {
        let mut message = message_1.clone();
        message[at] = value;
        ignored(handle(&mut responder, now, REMOTE, &message))
    };
    assert_eq!(changed(17, 0x20), Reason::Malformed);
    assert_eq!(changed(17, 0x11), Reason::Malformed);
    assert_eq!(changed(18, ExchangeType::AGGRESSIVE.0), Reason::Exchange);
    assert_eq!(changed(18, ExchangeType::QUICK_MODE.0), Reason::Exchange);
    assert_eq!(changed(19, 1), Reason::Malformed);
    assert_eq!(changed(19, 0x80), Reason::Malformed);
    assert_eq!(changed(23, 1), Reason::Malformed);
    for length in 0..message_1.len() {
        assert_eq!(ignored(handle(&mut responder, now, REMOTE, &message_1[..length])), Reason::Malformed);
    }
    // Whatever has cookies that nobody knows, a Quick Mode or a Delete of a peer that this end has forgotten.
    for exchange in [ExchangeType::QUICK_MODE, ExchangeType::INFORMATIONAL] {
        let cookies = Cookies { initiator: [1; 8], responder: [2; 8] };
        let mut unknown = Header::new(cookies, exchange, 9);
        unknown.flags = message::FLAG_ENCRYPTION;
        assert_eq!(ignored(handle(&mut responder, now, REMOTE, &unknown.write(&[7; 64]))), Reason::UnknownCookie);
    }
}

#[test]
fn refusals_are_limited_for_all_sources_together() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let message = first(&[
        (PayloadType::SA, &offer(&["3des-md5-modp1024"], 3600)),
        (PayloadType::VID, &Flavour::Rfc3947.vendor_id()),
    ]);
    for source in 0..100 {
        drop(handle(&mut responder, now, &format!("198.51.100.{source}:500"), &message));
    }
    assert_eq!(responder.statistics().refused, 10);
    assert_eq!(count(&responder, Reason::NoProposalChosen), 90);
}

#[test]
fn one_source_that_sends_too_much_does_not_keep_others_out() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (_, message_1) = client(&fast(), now, 1);
    for _ in 0..1000 {
        drop(handle(&mut responder, now, REMOTE, &message_1));
    }
    assert_eq!((responder.statistics().answered, count(&responder, Reason::FirstMessages)), (100, 900));
    reply(handle(&mut responder, now, "198.51.100.1:500", &message_1));
}

#[test]
fn key_exchanges_are_limited_for_each_source() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let message = message_3(&mut responder, now, &mut client, &message_1);
    let admitted = (0..200).filter(|_| matches!(handle(&mut responder, now, REMOTE, &message), Answer::Admitted(_)));
    assert_eq!(admitted.count(), 50);
    assert_eq!(count(&responder, Reason::Admissions), 150);
}

#[test]
fn nobody_is_admitted_while_too_many_are_half_open() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let message = message_3(&mut responder, now, &mut client, &message_1);
    responder.set_half_open(1000);
    assert_eq!(ignored(handle(&mut responder, now, REMOTE, &message)), Reason::HalfOpen);
    responder.set_half_open(999);
    assert!(matches!(handle(&mut responder, now, REMOTE, &message), Answer::Admitted(_)));
}

#[test]
fn a_client_whose_kind_is_known_gets_in_through_a_flood_of_other_offers() {
    let flood = |link: &mut Link| {
        let now = link.now;
        let responder = &mut link.front.as_mut().unwrap().responder;
        for index in 0..5000_u64 {
            let sa = offer(&["aes128-sha256-ecp256"], 100_000 + index);
            let message = first(&[(PayloadType::SA, &sa), (PayloadType::VID, &Flavour::Rfc3947.vendor_id())]);
            let source = format!("10.{}.{}.1:500", index / 256, index % 256);
            reply(handle(responder, now, &source, &message));
        }
    };
    let mut link = Link::fronted(&fast(), 2);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    link.peers[CLIENT] = Peer::new(fast(), 77);
    link.connect();
    link.run(Duration::from_millis(30));
    flood(&mut link);
    link.run(seconds(2));
    assert!(link.peers[CLIENT].ike.is_established());
}

#[test]
fn what_message_2_chose_stays_chosen_when_the_configuration_changes() {
    let mut link = Link::fronted(&config("aes128-sha256-ecp256", "aes128-sha256"), 3);
    link.peers[CLIENT].ike.config.proposals.push("aes256-sha256-ecp256".parse().unwrap());
    link.connect();
    link.run(Duration::from_millis(30));
    let other = mirrored(&config("aes256-sha256-ecp256", "aes128-sha256"));
    link.front.as_mut().unwrap().responder.configure(ResponderConfig::new(other));
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[SERVER].ike.proposal().unwrap().to_string(), "aes128-sha256-ecp256");
    link.peers[CLIENT].ike = Ike::new(link.peers[CLIENT].ike.config.clone(), StdRng::seed_from_u64(9));
    link.connect();
    link.run(seconds(2));
    assert_eq!(link.peers[CLIENT].ike.proposal().unwrap().to_string(), "aes256-sha256-ecp256");
}

#[test]
fn a_newcomer_that_says_no_more_is_forgotten() {
    let mut link = Link::fronted(&fast(), 4);
    link.filter = Box::new(|from, header, _| from == SERVER || !header.is_encrypted());
    link.connect();
    link.run(seconds(2));
    assert_eq!(link.front.as_ref().unwrap().newcomers.len(), 1);
    link.run(seconds(40));
    assert!(link.front.as_ref().unwrap().newcomers.is_empty());
}

#[test]
fn a_new_phase_1_of_the_same_peer_becomes_the_renewal_of_its_relation() {
    let mut link = Link::fronted(&fast(), 5);
    link.connect();
    link.run(seconds(2));
    link.peers[CLIENT].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(2));
    let server = &link.peers[SERVER].ike;
    assert_eq!(server.isakmp.len(), 2);
    assert!(server.isakmp[0].superseded && !server.isakmp[1].superseded);
    assert_ne!(server.isakmp[0].id, server.isakmp[1].id);
    assert_eq!(link.peers[SERVER].count(is_isakmp), 2);
    link.run(seconds(120));
    assert_eq!(link.peers[SERVER].ike.isakmp.len(), 1);
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(100));
    link.assert_established();
}

#[test]
fn cookies_are_reported_from_their_beginning_to_their_end() {
    let mut link = Link::fronted(&fast(), 6);
    link.connect();
    link.run(seconds(2));
    link.peers[CLIENT].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(120));
    link.peers[CLIENT].ike.close(link.now);
    link.drain();
    link.run(seconds(5));
    for peer in &link.peers {
        let mut alive = BTreeSet::new();
        let mut known = 0;
        for (_, event) in &peer.events {
            match event {
                Event::OwnCookie { cookie, alive: true } => known += usize::from(alive.insert(*cookie)),
                Event::OwnCookie { cookie, alive: false } => assert!(alive.remove(cookie)),
                _ => {}
            }
        }
        assert_eq!((known, alive.len()), (2, 0), "{:?}", peer.events);
    }
    assert!(link.peers[SERVER].ike.is_idle());
}

#[test]
fn initial_contact_is_reported_and_deletes_nothing() {
    let mut link = Link::fronted(&fast(), 8);
    link.connect();
    link.run(seconds(2));
    let said = |wanted| move |event: &Event| matches!(event, Event::IsakmpEstablished { initial_contact, .. } if *initial_contact == wanted);
    assert_eq!((link.peers[SERVER].count(said(true)), link.peers[CLIENT].count(said(true))), (1, 0));
    // A second client of the same name: both stay.
    link.peers[CLIENT].ike = Ike::new(fast(), StdRng::seed_from_u64(99));
    link.connect();
    link.run(seconds(2));
    assert_eq!(link.peers[SERVER].count(said(true)), 2);
    assert_eq!((link.peers[SERVER].ike.isakmp.len(), link.peers[SERVER].inbound.len()), (2, 2));
}

#[test]
fn initial_contact_after_phase_1_is_reported_and_deletes_nothing() {
    let mut link = Link::fronted(&fast(), 10);
    link.connect();
    link.run(seconds(2));
    let client = &mut link.peers[CLIENT].ike;
    let (isakmp, spi) = (client.isakmp[0].id, client.isakmp[0].cookies.spi());
    let kind = NotifyType::INITIAL_CONTACT;
    let body = payload::Notification { protocol: ProtocolId::ISAKMP, spi: &spi, kind, data: &[] }.body();
    client.inform(isakmp, None, PayloadType::N, &body, 1);
    link.drain();
    link.run(seconds(1));
    assert_eq!(link.peers[SERVER].count(|event| *event == Event::InitialContact), 1);
    link.assert_established();
}

#[test]
fn a_pair_that_comes_after_a_failed_attempt_keeps_the_relation() {
    let mut link = Link::fronted(&fast(), 12);
    link.connect();
    link.run(seconds(2));
    let server = &mut link.peers[SERVER].ike;
    let spi = server.pairs[0].inbound;
    server.remove_pair(spi);
    server.begin_quick_mode(link.now, None);
    let id = server.quick_modes.last().unwrap().id;
    server.fail_quick_mode(link.now, id, Error::NoProposalChosen { phase: 2, notification: None });
    server.transmits.clear();
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(60));
    assert!(link.peers[SERVER].ike.is_established() && link.peers[SERVER].ike.has_current_pair());
    assert_eq!(link.peers[SERVER].count(is_isakmp), 1);
}

#[test]
fn the_spis_of_a_relation_come_from_its_space() {
    let mut link = Link::fronted(&fast(), 11);
    link.connect();
    link.run(Duration::from_millis(90));
    let space = SpiSpace { prefix: 0xabcd, bits: 16 };
    link.front.as_mut().unwrap().newcomers[0].set_spi_space(space);
    link.run(seconds(2));
    for _ in 0..5 {
        link.peers[SERVER].ike.rekey_ipsec(link.now);
        link.drain();
        link.run(seconds(2));
    }
    assert!(link.peers[SERVER].inbound.keys().all(|spi| spi >> 16 == 0xabcd));
    assert!(link.peers[SERVER].inbound.len() > 1);
}

#[test]
fn garbage_and_spoiled_messages_never_panic_and_no_answer_is_longer_than_they_are() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let message_3 = message_3(&mut responder, now, &mut client, &message_1);
    let mut rng = StdRng::seed_from_u64(12);
    let mut answers = 0;
    for round in 0..30_000_u64 {
        let mut message = if round % 2 == 0 { message_1.clone() } else { message_3.clone() };
        if round % 5 == 0 {
            message.truncate(rng.random_range(0..=message.len()));
        }
        for _ in 0..rng.random_range(1..4) {
            if !message.is_empty() {
                let at = rng.random_range(0..message.len());
                message[at] = rng.random();
            }
        }
        let now = now + Duration::from_millis(round);
        match handle(&mut responder, now, REMOTE, &message) {
            Answer::Ignored(_) => {}
            Answer::Reply(reply) => {
                assert!(reply.len() <= message.len());
                answers += 1;
            }
            Answer::Admitted(mut ike) => ike.handle_message(now, Port::Ike, &message),
        }
    }
    assert!(answers > 100);
    let expected: u64 = responder.statistics().ignored().map(|(_, count)| count).sum();
    assert!(expected > 10_000);
}

#[test]
fn the_labels_of_reasons_differ() {
    let labels: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
}

#[test]
fn a_relation_that_was_over_goes_on_with_a_new_phase_1() {
    let mut link = Link::fronted(&fast(), 13);
    link.connect();
    link.run(seconds(2));
    // The pairs are there still, so that the owner takes it for the same relation.
    let pairs = link.peers[SERVER].ike.pairs.clone();
    link.peers[SERVER].ike.shut();
    link.peers[SERVER].ike.pairs = pairs;
    link.peers[CLIENT].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(2));
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(2));
    assert!(link.peers[SERVER].ike.is_established());
    assert_eq!(link.peers[SERVER].inbound.len(), 2);
}

#[test]
fn a_peer_that_has_moved_is_told_where_it_is_seen_when_phase_1_is_renewed() {
    let mut link = Link::fronted(&fast(), 14);
    link.connect();
    link.run(seconds(2));
    assert!(!link.peers[CLIENT].ike.current().unwrap().nat.local);
    link.peers[SERVER].ike.set_remote(Port::NatT, "198.51.100.9:61000".parse().unwrap());
    link.peers[SERVER].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(2));
    let sa = link.peers[CLIENT].ike.current().unwrap();
    assert!(sa.role == main_mode::Role::Responder && sa.nat.local);
}

#[test]
fn a_tunnel_over_ipv6_comes_up() {
    let [client, server] = ["2001:db8::1", "2001:db8::2"].map(|address| address.parse().unwrap());
    let mut link = Link::fronted(&Config { local: client, remote: server, ..fast() }, 15);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[SERVER].ike.isakmp[0].peer_id, Identity::Address(client));
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    assert_eq!(sa.nat, Nat { local: false, remote: true });
    let content = opened(sa, &link.sent[6].2, None);
    // ID_IPV6_ADDR, 16 octets.
    let kinds: Vec<_> = bodies(&content, PayloadType::ID).iter().map(|id| (id[0], id.len())).collect();
    assert_eq!(kinds, [(5, 20), (5, 20)]);
    assert!(bodies(&content, PayloadType::NAT_OA).iter().all(|body| body[0] == 5 && body.len() == 20));
}

#[test]
fn deletes_of_what_is_unknown_or_already_replaced_touch_nothing_else() {
    let mut link = Link::fronted(&fast(), 16);
    link.connect();
    link.run(seconds(2));
    let old = link.peers[CLIENT].ike.pairs[0].inbound;
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(2));
    let isakmp = link.peers[CLIENT].ike.isakmp[0].id;
    for spi in [old, 0x1234_5678] {
        link.peers[CLIENT].ike.inform_delete(isakmp, ProtocolId::ESP, &spi.to_be_bytes());
    }
    link.peers[CLIENT].ike.inform_delete(isakmp, ProtocolId::ISAKMP, &[7; 16]);
    link.drain();
    link.run(seconds(2));
    let server = &link.peers[SERVER];
    assert_eq!((server.inbound.len(), server.ike.isakmp.len()), (1, 1));
    assert!(server.ike.has_current_pair());
}

#[test]
fn a_late_duplicate_of_a_quick_mode_whose_isakmp_sa_is_gone_changes_nothing() {
    let mut link = Link::fronted(&fast(), 17);
    link.connect();
    link.run(seconds(2));
    let quick_mode = link.sent[6].2.clone();
    link.peers[CLIENT].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(120));
    assert_eq!(link.peers[SERVER].ike.isakmp.len(), 1);
    let events = link.peers[SERVER].events.len();
    link.deliver(SERVER, Port::NatT, &quick_mode);
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &quick_mode);
    link.drain();
    assert_eq!(link.peers[SERVER].events.len(), events);
    link.assert_established();
}

#[test]
fn addresses_of_ipv4_on_a_socket_for_both_families_are_those_of_ipv4() {
    let (mut responder, now) = (responder(&fast()), Instant::now());
    let (mut client, message_1) = client(&fast(), now, 1);
    let mapped = "[::ffff:192.0.2.1]:500";
    let message_2 = reply(handle(&mut responder, now, mapped, &message_1));
    assert_eq!(reply(handle(&mut responder, now, REMOTE, &message_1)), message_2);
    client.handle_message(now, Port::Ike, &message_2);
    let message_3 = next(&mut client);
    let Answer::Admitted(mut ike) = handle(&mut responder, now, mapped, &message_3) else { panic!("not admitted") };
    assert_eq!(ike.config.remote, Ipv4Addr::new(192, 0, 2, 1));
    ike.set_remote(Port::NatT, "[::ffff:198.51.100.9]:61000".parse().unwrap());
    assert_eq!(ike.config.remote, Ipv4Addr::new(198, 51, 100, 9));
}
