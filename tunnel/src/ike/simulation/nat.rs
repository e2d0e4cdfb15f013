//! NAT traversal: the float, its forms, its verdict, keepalives.

use super::*;
use crate::ike::nat::{Flavour, NatPayloads};
use NatTraversal::{Off, Offered, Required};

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

/// Two ends of which each traverses NATs as it likes.
fn between(client: NatTraversal, server: NatTraversal) -> Link {
    let of = |nat_traversal| Config { nat_traversal, ..fast() };
    let mut link = Link::new(of(client), mirrored(&of(server)), 21);
    link.connect();
    link.run(seconds(2));
    link
}

#[test]
fn where_one_end_does_not_traverse_nats_ike_stays_on_port_500_and_esp_is_in_transport_mode_without_udp() {
    for (client, server) in [(Offered, Off), (Off, Offered), (Off, Off)] {
        let link = between(client, server);
        link.assert_established();
        assert!(link.sent.iter().all(|(_, port, _)| *port == Port::Ike));
        let sas = link.peers.iter().flat_map(|peer| peer.outbound.iter().chain(peer.inbound.values()));
        assert!(sas.map(|sa| sa.encapsulated).eq([false; 4]));
        assert_eq!(link.peers[CLIENT].ike.isakmp[0].nat, Nat { local: false, remote: false });
        for message in link.sent[..4].iter().map(|(_, _, message)| message) {
            let (header, body) = Header::read(message).unwrap();
            let payloads = message::Payloads::read_plain(header.next_payload, body).unwrap();
            assert!(payloads.all(PayloadType::NAT_D).chain(payloads.all(PayloadType::NAT_D_DRAFT)).next().is_none());
        }
        let [request, response] = [6, 7].map(|index| link.sent[index].2.clone());
        let sa = &link.peers[CLIENT].ike.isakmp[0];
        for content in [opened(sa, &request, None), opened(sa, &response, Some(last_block(&request)))] {
            let original = [PayloadType::NAT_OA, PayloadType::NAT_OA_DRAFT].map(|kind| bodies(&content, kind).len());
            assert_eq!(original, [0; 2]);
            // RFC 2407 section 4.5: class 4, Encapsulation Mode; value 2, Transport.
            assert!(bodies(&content, PayloadType::SA)[0].windows(4).any(|attribute| attribute == [0x80, 4, 0, 2]));
        }
    }
}

#[test]
fn an_end_that_is_silent_about_nat_traversal_names_none_in_its_first_message() {
    let vendor_ids = |client| {
        let message = between(client, Offered).sent.remove(0).2;
        Flavour::ALL.map(|flavour| message.windows(16).any(|octets| octets == flavour.vendor_id()))
    };
    assert_eq!(vendor_ids(Off), [false; 4]);
    assert_eq!(vendor_ids(Offered), [true; 4]);
}

#[test]
fn ends_that_both_traverse_nats_always_send_esp_in_udp() {
    for (client, server) in [(Offered, Required), (Required, Offered), (Offered, Offered)] {
        let link = between(client, server);
        link.assert_established();
        assert!(link.peers.iter().all(|peer| peer.outbound[0].encapsulated));
        assert!(link.sent[4..].iter().all(|(_, port, _)| *port == Port::NatT));
    }
}

#[test]
fn an_end_that_requires_nat_traversal_refuses_one_that_is_silent_about_it() {
    for (client, server) in [(Required, Off), (Off, Required)] {
        let mut link = between(client, server);
        link.run(seconds(5));
        assert!(link.peers.iter().all(|peer| !peer.ike.is_established()));
        assert!(link.peers[CLIENT].failure().is_some(), "{client:?} {server:?}");
    }
    // The same of a server in front of its peers.
    let mut link = Link::fronted(&fast(), 22);
    link.peers[CLIENT].ike.config.nat_traversal = Off;
    link.connect();
    link.run(seconds(5));
    let refused = Error::NoProposalChosen { phase: 1, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) };
    assert_eq!(link.peers[CLIENT].failure().map(|(_, error)| error), Some(&refused));
}

#[test]
fn both_phases_are_renewed_on_port_500_without_losing_a_packet_or_sending_a_keepalive() {
    let mut config = Config { nat_traversal: Off, lifetime: seconds(600), ..fast() };
    config.esp_lifetime.seconds = seconds(120);
    let mut link = Link::pair(&config, 23);
    link.traffic = Some(seconds(1));
    link.connect();
    link.run(seconds(2800));
    link.assert_no_packet_lost();
    assert!(link.sent.iter().all(|(_, port, _)| *port == Port::Ike));
    assert_eq!(link.keepalives, [0; 2]);
    let installed = |event: &Event| matches!(event, Event::InstallOutbound(sa) if !sa.encapsulated);
    assert!(link.peers.iter().all(|peer| peer.count(installed) > 20));
    assert!(link.peers.iter().all(|peer| peer.count(|event| matches!(event, Event::IsakmpEstablished { .. })) > 4));
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
