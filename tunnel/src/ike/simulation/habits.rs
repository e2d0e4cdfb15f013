//! What foreign initiators do, played against the server: their Vendor IDs, NAT payloads, identifications and odd messages.

use super::*;
use crate::ike::message::{Chain, Payloads};
use crate::ike::nat::Flavour;

/// A message without encryption whose payloads are changed.
fn rewritten(message: &[u8], change: impl FnOnce(&mut Content)) -> Vec<u8> {
    let (header, body) = Header::read(message).unwrap();
    let mut content = content(message);
    change(&mut content);
    let mut chain = Chain::new();
    content.iter().for_each(|(kind, body)| chain.push(*kind, body));
    assert!(!header.is_encrypted() && !body.is_empty());
    Header::new(header.cookies, header.exchange, header.message_id).write_plain(&chain)
}

/// What is in a message without encryption.
fn content(message: &[u8]) -> Content {
    let (header, body) = Header::read(message).unwrap();
    let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
    payloads.iter().map(|payload| (payload.kind, payload.body.to_vec())).collect()
}

/// A server and a client whose messages 1 and 3 are changed on their way, which nothing in them prevents.
fn changed(seed: u64, mut change: impl FnMut(u8, &mut Content) + 'static) -> Link {
    let mut link = Link::fronted(&fast(), seed);
    link.filter = Box::new(move |from, header, message| {
        if from == CLIENT && header.exchange == ExchangeType::IDENTITY_PROTECTION && !header.is_encrypted() {
            let number = if header.cookies.responder == [0; 8] { 1 } else { 3 };
            *message = rewritten(message, |content| change(number, content));
        }
        true
    });
    link.connect();
    link.run(seconds(2));
    link
}

/// The verdict of both ends on NAT.
fn verdicts(link: &Link) -> [Nat; 2] {
    [CLIENT, SERVER].map(|peer| link.peers[peer].ike.isakmp[0].nat)
}

const WINDOWS: [u8; 20] = hex_literal::hex!("1e2b5169 05991c7d 7c96fcbf b587e461 00000009");

#[test]
fn windows_is_told_that_the_server_is_where_it_was_sent_to_and_that_its_own_end_is_behind_a_nat() {
    let windows = |number, content: &mut Content| {
        if number == 1 {
            content.push((PayloadType::VID, WINDOWS.to_vec()));
        }
    };
    // The server itself sees another address than the one that the client knows.
    let mut link = Link::fronted(&fast(), 100);
    let mut usual = ResponderConfig::new(mirrored(&fast()));
    usual.ike.local = [10, 0, 0, 7].into();
    link.front.as_mut().unwrap().responder.configure(usual);
    link.filter = Box::new(move |from, header, message| {
        if from == CLIENT && header.cookies.responder == [0; 8] {
            *message = rewritten(message, |content| windows(1, content));
        }
        true
    });
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert_eq!(verdicts(&link)[CLIENT], Nat { local: true, remote: false });
    let [message_3, message_4] = [2, 3].map(|index| content(&link.sent[index].2));
    let [asked, answered] = [&message_3, &message_4].map(|content| bodies(content, PayloadType::NAT_D));
    assert_eq!(answered[1], asked[0]);
}

#[test]
fn windows_is_told_the_same_when_the_server_renews_phase_1() {
    let mut link = Link::fronted(&fast(), 118);
    let mut usual = ResponderConfig::new(mirrored(&fast()));
    usual.ike.initial_contact = false;
    link.front.as_mut().unwrap().responder.configure(usual);
    link.filter = Box::new(move |from, header, message| {
        let first = header.exchange == ExchangeType::IDENTITY_PROTECTION && !header.is_encrypted();
        if from == CLIENT && first && header.next_payload == PayloadType::SA {
            *message = rewritten(message, |content| content.push((PayloadType::VID, WINDOWS.to_vec())));
        }
        true
    });
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    // Behind a Service the server has another address than the one that is dialled.
    link.peers[SERVER].ike.config.local = [10, 0, 0, 7].into();
    link.peers[SERVER].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(2));
    let sa = link.peers[CLIENT].ike.current().unwrap();
    assert_eq!((sa.role, sa.nat), (main_mode::Role::Responder, Nat { local: true, remote: false }));
}

#[test]
fn others_see_the_server_behind_a_nat_and_their_own_end_as_it_is() {
    let link = changed(101, |_, _| {});
    assert_eq!(verdicts(&link)[CLIENT], Nat { local: false, remote: true });
}

#[test]
fn any_of_several_nat_d_payloads_may_fit_in_any_order() {
    for order in 0..3 {
        let link = changed(102, move |number, content| {
            if number == 3 {
                let at = content.iter().position(|(kind, _)| *kind == PayloadType::NAT_D).unwrap();
                let mut other = content[at].clone();
                other.1.fill(0x55);
                match order {
                    0 => content.insert(at, other),
                    1 => content.push(other),
                    // As Apple's first clients send them.
                    _ => content.swap(at, at + 1),
                }
            }
        });
        link.assert_established();
        assert!(!verdicts(&link)[SERVER].local, "{order}");
    }
}

#[test]
fn a_peer_that_sends_the_payloads_of_the_draft_beside_those_of_the_rfc_is_spoken_to_by_the_rfc() {
    let link = changed(103, |number, content| {
        if number == 3 {
            content.push((PayloadType::NAT_D_DRAFT, vec![1; 32]));
            content.push((PayloadType::NAT_D_DRAFT, vec![2; 32]));
        }
    });
    link.assert_established();
    assert!(!verdicts(&link)[SERVER].local);
    let message_4 = content(&link.sent[3].2);
    assert_eq!(
        (bodies(&message_4, PayloadType::NAT_D).len(), bodies(&message_4, PayloadType::NAT_D_DRAFT).len()),
        (2, 0)
    );
}

#[test]
fn a_peer_that_sends_no_nat_d_is_taken_for_one_behind_a_nat() {
    let link = changed(104, |number, content| {
        if number == 3 {
            content.retain(|(kind, _)| *kind != PayloadType::NAT_D);
        }
    });
    link.assert_established();
    assert_eq!(verdicts(&link)[SERVER], Nat { local: true, remote: true });
}

#[test]
fn the_server_speaks_each_draft_with_clients_that_know_no_other() {
    for known in 1..Flavour::ALL.len() {
        let link = changed(105, move |_, content| {
            let newer = Flavour::ALL[..known].iter().map(|flavour| flavour.vendor_id());
            let newer: Vec<_> = newer.collect();
            content.retain(|(_, body)| !newer.iter().any(|id| id == body.as_slice()));
        });
        link.assert_established();
        let message_2 = content(&link.sent[1].2);
        assert_eq!(bodies(&message_2, PayloadType::VID)[0], Flavour::ALL[known].vendor_id());
    }
}

#[test]
fn a_negotiation_that_begins_on_port_4500_is_answered_there() {
    let mut link = Link::fronted(&fast(), 106);
    link.peers[CLIENT].ike.floated = true;
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    assert!(link.sent.iter().all(|(_, port, _)| *port == Port::NatT));
}

/// A client with a tunnel, as the server sees it.
fn connected(seed: u64) -> Link {
    let mut link = Link::fronted(&fast(), seed);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    link
}

/// Message 1 of another Quick Mode of the client, with what is changed of the usual one; its hash covers `salt` as well.
fn request(link: &Link, message_id: u32, salt: &[u8], change: impl FnOnce(&mut Content)) -> Vec<u8> {
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let mut content = opened(sa, &link.sent[6].2, None);
    content.retain(|(kind, _)| *kind != PayloadType::HASH);
    // The SPI stands behind DOI, situation and the header of the proposal.
    content[0].1[16..20].copy_from_slice(&message_id.to_be_bytes());
    change(&mut content);
    written(sa, ExchangeType::QUICK_MODE, message_id, None, salt, &content)
}

/// What the server answers to it.
fn answer(link: &mut Link, message_id: u32, change: impl FnOnce(&mut Content)) -> Content {
    let request = request(link, message_id, &[], change);
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &request);
    let sent = link.sent.len();
    link.drain();
    opened(&link.peers[CLIENT].ike.isakmp[0], &link.sent[sent].2, Some(last_block(&request)))
}

#[test]
fn the_identifications_of_quick_mode_are_returned_as_they_came_whatever_they_are() {
    let forms: [[&[u8]; 2]; 7] = [
        // Private addresses, another port, any port, no protocol.
        [&[1, 17, 6, 165, 192, 168, 1, 10], &[1, 17, 6, 165, 10, 0, 0, 7]],
        [&[1, 17, 0xc0, 0, 192, 168, 1, 10], &[1, 17, 6, 165, 10, 0, 0, 7]],
        [&[1, 17, 0, 0, 192, 168, 1, 10], &[1, 17, 6, 165, 10, 0, 0, 7]],
        [&[1, 17, 0, 0, 192, 168, 1, 10], &[1, 17, 0, 0, 10, 0, 0, 7]],
        [&[1, 0, 0, 0, 192, 168, 1, 10], &[1, 0, 0, 0, 10, 0, 0, 7]],
        // MS-818043: a name.
        [b"\x02\x11\x06\xa5pc.example", b"\x02\x11\x06\xa5vpn.example"],
        // A network of one address.
        [&[4, 17, 6, 165, 10, 0, 0, 1, 255, 255, 255, 255], &[1, 17, 6, 165, 10, 0, 0, 7]],
    ];
    let mut link = connected(110);
    for (message_id, form) in (0x1000..).zip(forms) {
        let content = answer(&mut link, message_id, |content| {
            content.retain(|(kind, _)| *kind != PayloadType::ID);
            form.iter().for_each(|id| content.insert(content.len() - 2, (PayloadType::ID, id.to_vec())));
        });
        assert_eq!(bodies(&content, PayloadType::ID), form);
    }
}

#[test]
fn a_quick_mode_without_identifications_is_answered_without_any() {
    let mut link = connected(111);
    let content = answer(&mut link, 0x1000, |content| content.retain(|(kind, _)| *kind != PayloadType::ID));
    assert!(bodies(&content, PayloadType::ID).is_empty() && !bodies(&content, PayloadType::SA).is_empty());
}

#[test]
fn a_quick_mode_with_a_wrong_hash_or_another_sa_payload_is_not_answered() {
    let mut link = connected(119);
    let sent = link.sent.len();
    let wrong = [
        request(&link, 0x1000, &[1], |_| {}),
        request(&link, 0x1001, &[], |content| content.push(content[0].clone())),
        request(&link, 0x1002, &[], |content| drop(content.remove(0))),
    ];
    for message in wrong {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message);
    }
    link.drain();
    assert_eq!((link.sent.len(), link.peers[SERVER].inbound.len()), (sent, 1));
    let right = request(&link, 0x1003, &[], |_| {});
    link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &right);
    link.drain();
    assert_eq!((link.sent.len(), link.peers[SERVER].inbound.len()), (sent + 1, 2));
}

#[test]
fn a_request_for_a_certificate_that_is_not_there_adds_no_message() {
    let link = changed(120, |number, content| {
        if number == 3 {
            content.push((PayloadType::CR, vec![registry::CertificateEncoding::X509_SIGNATURE.0]));
        }
    });
    link.assert_established();
    assert_eq!(link.sent.len(), 9);
}

#[test]
fn nat_oa_payloads_may_be_many_or_missing() {
    for count in [0, 2, 4] {
        let mut link = connected(112);
        let content = answer(&mut link, 0x1000, |content| {
            content.retain(|(kind, _)| *kind != PayloadType::NAT_OA);
            (0..count).for_each(|_| content.push((PayloadType::NAT_OA, vec![1, 0, 0, 0, 192, 168, 1, 10])));
        });
        // RFC 3947 section 5.2: the responder sees the initiator at 192.0.2.1.
        let original = [&[1, 0, 0, 0, 192, 0, 2, 1][..], &[1, 0, 0, 0, 192, 0, 2, 2]];
        assert_eq!(bodies(&content, PayloadType::NAT_OA), original, "{count}");
    }
}

#[test]
fn the_chosen_transform_of_quick_mode_is_returned_octet_for_octet() {
    // The second of two proposals, numbers that do not begin with 1, attributes in another order than ours, lives in four
    // octets, and the mode under the number of the drafts.
    let transform = hex_literal::hex!(
        "0000002C 070C0000 80050005 80010001 00020004 00000E10 8004F004 80010002 00020004 0003D090 80060080"
    );
    let sa = [
        &hex_literal::hex!(
            "00000001 00000001 02000028 01030401 AAAAAAAA 0000001C 01030000 80040004 80050001 80010001 00020004 00000E10"
        )[..],
        &hex_literal::hex!("00000038 02030401 AAAAAAAB"),
        &transform,
    ]
    .concat();
    let mut link = connected(113);
    let content = answer(&mut link, 0x1000, |content| content[0].1.clone_from(&sa));
    let answered = bodies(&content, PayloadType::SA)[0];
    assert_eq!(answered[8 + 4..8 + 8], [2, 3, 4, 1]);
    assert_eq!(answered[8 + 12..], transform);
    let lifetime = link.peers[SERVER].inbound.values().map(|sa| sa.lifetime).find(|life| life.kilobytes.is_some());
    assert_eq!(lifetime, Some(Lifetime { seconds: seconds(3600), kilobytes: Some(250_000) }));
}

#[test]
fn the_commit_bit_and_a_fourth_message_of_quick_mode_are_tolerated() {
    let mut link = Link::fronted(&fast(), 114);
    // The Commit bit in every message of Quick Mode of the client.
    link.filter = Box::new(|from, header, message| {
        if from == CLIENT && header.exchange == ExchangeType::QUICK_MODE {
            message[19] |= 2;
        }
        true
    });
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    // CONNECTED, inside of the exchange and as a message of its own.
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let (header, _) = Header::read(&link.sent[6].2).unwrap();
    let spi = link.peers[SERVER].ike.pairs[0].inbound.to_be_bytes();
    let connected =
        payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind: NotifyType::CONNECTED, data: &[] }.body();
    let content = vec![(PayloadType::N, connected)];
    let iv = Some(last_block(&link.sent[8].2));
    let fourth = written(sa, ExchangeType::QUICK_MODE, header.message_id, iv, &[], &content);
    let alone = written(sa, ExchangeType::INFORMATIONAL, 0x99, None, &[], &content);
    let sent = link.sent.len();
    for message in [fourth, alone] {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &message);
        link.drain();
    }
    link.run(seconds(5));
    link.assert_established();
    assert_eq!(link.sent[sent..].iter().filter(|(from, ..)| *from == SERVER).count(), 0);
    // It is not returned.
    assert!(link.sent.iter().all(|(from, _, message)| *from == CLIENT || message[19] & 2 == 0));
}

#[test]
fn message_2_is_sent_again_until_the_first_esp_packet() {
    let mut link = Link::fronted(&fast(), 115);
    link.filter = without_quick_mode_message(2..100);
    link.connect();
    link.run(seconds(9));
    let answers = |link: &Link| {
        let quick = |message: &[u8]| Header::read(message).unwrap().0.exchange == ExchangeType::QUICK_MODE;
        link.sent.iter().filter(|(from, _, message)| *from == SERVER && quick(message)).count()
    };
    // At 0, 1, 3 and 7 s.
    assert_eq!(answers(&link), 4);
    assert_eq!(link.peers[SERVER].outbound.len(), 0);
    link.exchange_packets();
    assert_eq!(link.peers[SERVER].outbound.len(), 1);
    link.run(seconds(40));
    assert_eq!(answers(&link), 4);
    assert_eq!(link.peers[SERVER].inbound.len(), 1);
}

#[test]
fn phase_1_that_the_peer_began_is_renewed_with_what_it_asked_for() {
    let mut link = Link::fronted(&config("3des-sha1-modp1024", "aes128-sha256"), 117);
    let mut usual = ResponderConfig::new(mirrored(&fast()));
    usual.ike.proposals = crate::suite::Security::Legacy.accepted_ike_proposals();
    link.front.as_mut().unwrap().responder.configure(usual);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    link.peers[SERVER].ike.begin_main_mode(link.now);
    link.drain();
    link.run(seconds(2));
    let current = link.peers[SERVER].ike.current().unwrap();
    assert_eq!(
        (current.role, current.proposal.to_string().as_str()),
        (main_mode::Role::Initiator, "3des-sha1-modp1024")
    );
}

#[test]
fn a_pair_that_the_peer_began_is_renewed_with_what_it_asked_for() {
    let mut link = Link::fronted(&fast(), 116);
    let ids: [&[u8]; 2] = [&[1, 17, 6, 165, 192, 168, 1, 10], b"\x02\x11\x06\xa5vpn.example"];
    link.peers[CLIENT].ike.config.esp_proposals = vec!["aes128-sha256-ecp256".parse().unwrap()];
    let mut usual = ResponderConfig::new(mirrored(&fast()));
    usual.ike.esp_proposals.insert(0, "aes256-sha512".parse().unwrap());
    link.front.as_mut().unwrap().responder.configure(usual);
    link.connect();
    link.run(seconds(2));
    link.assert_established();
    // The first pair of such a client.
    let selectors = ids.map(<[u8]>::to_vec).to_vec();
    link.peers[SERVER].ike.pairs[0].terms.as_mut().unwrap().selectors = selectors;
    for _ in 0..3 {
        let before = link.sent.len();
        link.peers[SERVER].ike.rekey_ipsec(link.now);
        link.drain();
        let content = opened(&link.peers[SERVER].ike.isakmp[0], &link.sent[before].2, None);
        assert_eq!(bodies(&content, PayloadType::ID), [ids[1], ids[0]]);
        link.run(seconds(2));
        let newest = link.peers[SERVER].outbound.last().unwrap();
        assert_eq!((newest.proposal.to_string().as_str(), newest.initiator), ("aes128-sha256-ecp256", true));
    }
}
