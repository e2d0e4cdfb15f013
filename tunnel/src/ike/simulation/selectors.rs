//! Quick Mode as it is on the wire, and answers to it that do not fit.

use super::*;

#[test]
fn quick_mode_names_l2tp_and_the_original_addresses_on_the_wire() {
    for (flavour, nat_oa, encapsulation) in [(0, 21, 4), (1, 131, 61_444), (2, 131, 61_444), (3, 131, 61_444)] {
        let mut link = Link::pair(&fast(), 60);
        link.filter = Box::new(move |_, _, message| {
            crate::ike::nat::Flavour::ALL[..flavour].iter().for_each(|known| spoil(message, &known.vendor_id()));
            true
        });
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        let [request, response] = [6, 7].map(|index| link.sent[index].2.clone());
        let sa = &link.peers[CLIENT].ike.isakmp[0];
        for content in [opened(sa, &request, None), opened(sa, &response, Some(last_block(&request)))] {
            // UDP (17), port 1701.
            let ids = [&[1, 17, 0x06, 0xa5, 192, 0, 2, 1][..], &[1, 17, 0x06, 0xa5, 192, 0, 2, 2]];
            assert_eq!(bodies(&content, PayloadType::ID), ids);
            // RFC 3947 section 5.2: NAT-OAi, then NAT-OAr.
            let original = [&[1, 0, 0, 0, 192, 0, 2, 1][..], &[1, 0, 0, 0, 192, 0, 2, 2]];
            assert_eq!(bodies(&content, PayloadType(nat_oa)), original);
            let [high, low] = u16::to_be_bytes(encapsulation);
            let sa_payload = bodies(&content, PayloadType::SA)[0];
            assert!(sa_payload.windows(4).any(|attribute| attribute == [0x80, 4, high, low]));
        }
    }
}

/// Message 1 of a Quick Mode of the client for other traffic.
fn foreign_request(link: &Link) -> Vec<u8> {
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let mut content = opened(sa, &link.sent[6].2, None);
    content.retain(|(kind, _)| *kind != PayloadType::HASH);
    content[0].1[16..20].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
    for (_, body) in content.iter_mut().filter(|(kind, _)| *kind == PayloadType::ID) {
        body[1..4].copy_from_slice(&[6, 0, 80]);
    }
    written(sa, ExchangeType::QUICK_MODE, 0x7777, None, &[], &content)
}

#[test]
fn a_quick_mode_for_other_traffic_is_refused_with_invalid_id_information() {
    let mut link = Link::connected(&fast(), 61);
    let (request, sent) = (foreign_request(&link), link.sent.len());
    for _ in 0..50 {
        link.peers[SERVER].ike.handle_message(link.now, Port::NatT, &request);
    }
    link.drain();
    // The refusal once, and ten times more for the duplicates.
    assert_eq!(link.sent.len() - sent, 11);
    let content = opened(&link.peers[CLIENT].ike.isakmp[0], &link.sent[sent].2, None);
    assert_eq!(bodies(&content, PayloadType::N)[0][6..8], [0, 18]);
    assert_eq!(link.peers[SERVER].inbound.len(), 1);
}

#[test]
fn an_answer_for_other_traffic_is_refused() {
    let mut link = Link::connected(&fast(), 62);
    answer_renewal(&mut link, |content| {
        let own = content.iter_mut().find(|(kind, _)| *kind == PayloadType::ID).unwrap();
        own.1[2..4].copy_from_slice(&[0, 53]);
    });
    assert_eq!(renewal_error(&link), Some(&Error::InvalidSelectors { protocol: 17, port: 53 }));
}

#[test]
fn an_answer_with_other_addresses_or_without_selectors_is_accepted() {
    let mut link = Link::connected(&fast(), 63);
    answer_renewal(&mut link, |content| content.retain(|(kind, _)| *kind != PayloadType::ID));
    answer_renewal(&mut link, |content| {
        content[0].1[16..20].copy_from_slice(&[9; 4]);
        content.iter_mut().filter(|(kind, _)| *kind == PayloadType::ID).for_each(|(_, body)| body[4..].fill(10));
    });
    assert_eq!((renewal_error(&link), link.peers[CLIENT].outbound.len()), (None, 3));
}

#[test]
fn an_answer_without_an_sa_payload_is_none() {
    let mut link = Link::connected(&fast(), 67);
    answer_renewal(&mut link, |content| drop(content.remove(0)));
    assert_eq!((renewal_error(&link), link.peers[CLIENT].outbound.len()), (None, 1));
}

#[test]
fn an_answer_with_an_spi_that_is_in_use_is_refused() {
    let mut link = Link::connected(&fast(), 64);
    let used = link.peers[CLIENT].ike.pairs[0].outbound.to_be_bytes();
    answer_renewal(&mut link, |content| content[0].1[16..20].copy_from_slice(&used));
    assert_eq!(renewal_error(&link), Some(&Error::SpiInUse));
    assert_eq!(link.peers[CLIENT].inbound.len(), 1);
}

#[test]
fn a_fresh_exchange_with_our_own_value_is_refused() {
    // Whoever returns the request with its KE payload returns our own public value.
    let mut link = Link::connected(&config("aes128-sha256-ecp256", "aes128-sha256-ecp256"), 65);
    answer_renewal(&mut link, |_| {});
    assert_eq!(renewal_error(&link), Some(&Error::InvalidKeyInformation("public value (it is ours)")));
}

#[test]
fn a_responder_lifetime_inside_message_2_is_obeyed() {
    let mut link = Link::connected(&fast(), 66);
    answer_renewal(&mut link, |content| {
        // 300 s and 5000 kilobytes.
        let data = hex_literal::hex!("80010001 8002012C 80010002 80021388");
        let kind = NotifyType::RESPONDER_LIFETIME;
        let spi = 0x1234_5678_u32.to_be_bytes();
        content.push((
            PayloadType::N,
            payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind, data: &data }.body(),
        ));
    });
    let lifetime = link.peers[CLIENT].outbound.last().unwrap().lifetime;
    assert_eq!(lifetime, Lifetime { seconds: seconds(300), kilobytes: Some(5000) });
}
