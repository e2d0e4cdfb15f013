//! NAT traversal: the float, its forms, its verdict, keepalives.

use super::*;
use crate::ike::nat::{Flavour, NatPayloads};

#[test]
fn message_5_and_everything_after_it_goes_to_port_4500() {
    let link = Link::connected(&fast(), 5);
    let ports: Vec<_> = link.sent.iter().map(|(from, port, _)| (*from, *port)).collect();
    let mut expected: Vec<_> = [0, 1, 0, 1].map(|from| (from, Port::Ike)).to_vec();
    expected.extend([0, 1, 0, 1, 0].map(|from| (from, Port::NatT)));
    assert_eq!(ports, expected);
}

#[test]
fn a_main_mode_that_begins_on_port_4500_stays_there() {
    let mut link = Link::pair(&fast(), 6);
    link.peers[CLIENT].ike.floated = true;
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert!(link.sent.iter().all(|(_, port, _)| *port == Port::NatT));
}

#[test]
fn a_peer_without_nat_traversal_is_named() {
    let mut link = Link::pair(&fast(), 17);
    link.filter = Box::new(|from, _, message| {
        if from == SERVER {
            spoil(message, &Flavour::Rfc3947.vendor_id());
        }
        true
    });
    link.connect();
    link.run(seconds(5));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::NoNatTraversal))));
}

#[test]
fn the_drafts_of_nat_traversal_are_spoken_with_peers_that_know_no_other() {
    for known in 1..Flavour::ALL.len() {
        let mut link = Link::pair(&fast(), 18);
        link.filter = Box::new(move |_, _, message| {
            Flavour::ALL[..known].iter().for_each(|flavour| spoil(message, &flavour.vendor_id()));
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
fn a_client_that_is_told_to_names_the_drafts_alone_or_tells_the_truth_about_itself() {
    for (nat_payloads, kind, remote) in [
        (NatPayloads::Any, PayloadType::NAT_D, true),
        (NatPayloads::Drafts, PayloadType::NAT_D_DRAFT, true),
        (NatPayloads::Honest, PayloadType::NAT_D, false),
    ] {
        let mut link = Link::new(Config { nat_payloads, ..fast() }, mirrored(&fast()), 35);
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        assert_eq!(link.peers[SERVER].ike.isakmp[0].nat, Nat { local: false, remote }, "{nat_payloads:?}");
        let (header, body) = Header::read(&link.sent[2].2).unwrap();
        let payloads = message::Payloads::read_plain(header.next_payload, body).unwrap();
        assert_eq!(payloads.all(kind).count(), 2, "{nat_payloads:?}");
    }
}

#[test]
fn the_verdict_on_nat_is_true_for_this_end_and_claimed_by_the_other() {
    // Both ends claim a NAT of their own, and neither has one.
    let link = Link::connected(&fast(), 19);
    assert_eq!(link.peers[CLIENT].ike.isakmp[0].nat, Nat { local: false, remote: true });
    // The server sees another address of the client.
    let mut server = mirrored(&fast());
    server.remote = [198, 51, 100, 7].into();
    let mut link = Link::new(fast(), server, 20);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].ike.isakmp[0].nat, Nat { local: true, remote: true });
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
