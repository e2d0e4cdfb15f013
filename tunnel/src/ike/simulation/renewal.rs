//! From one SA to the next: lifetimes, collisions, deletions, recovery.

use super::*;

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
        link.run(seconds(2800));
        link.assert_no_packet_lost();
        for peer in &link.peers {
            assert!((5..=8).contains(&peer.count(is_isakmp)), "{client} {server} {:?}", peer.events);
            assert_eq!(peer.count(is_install), 1);
            assert!(peer.ike.isakmp.len() <= 2);
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
        link.peers.iter_mut().for_each(|peer| peer.ike.begin_main_mode(now));
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
fn closing_deletes_everything_at_the_other_end_even_over_a_bad_link() {
    let mut link = Link::connected(&fast(), 28);
    let now = link.now;
    link.peers[CLIENT].ike.close(now);
    link.drain();
    link.run(seconds(2));
    assert!(link.peers[SERVER].inbound.is_empty());
    assert_eq!(link.peers[SERVER].count(|event| *event == Event::PeerDeletedIsakmp), 1);
    assert_eq!(link.peers[CLIENT].ike.poll_timeout(), None);
}

#[test]
fn an_esp_sa_that_the_peer_takes_away_is_made_anew() {
    let mut link = Link::connected(&fast(), 29);
    let (now, spi) = (link.now, link.peers[SERVER].ike.pairs[0].inbound);
    link.peers[SERVER].ike.expire_pair(now, spi);
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

/// Loses the Quick Mode messages of the server.
fn without_answers() -> Filter {
    Box::new(|from, header, _| from == CLIENT || header.exchange != ExchangeType::QUICK_MODE)
}

#[test]
fn an_error_about_an_sa_that_exists_does_not_end_the_quick_mode_in_flight() {
    let mut link = Link::connected(&fast(), 100);
    link.filter = without_answers();
    let now = link.now;
    link.peers[CLIENT].ike.rekey_ipsec(now);
    link.drain();
    let server = &mut link.peers[SERVER].ike;
    let (isakmp, known) = (server.isakmp[0].id, server.pairs[0].inbound.to_be_bytes());
    for (kind, spi) in [(NotifyType::INVALID_SPI, [9; 4]), (NotifyType::NO_PROPOSAL_CHOSEN, known)] {
        let body = payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind, data: &[] }.body();
        server.inform(isakmp, None, PayloadType::N, &body, 1);
    }
    link.drain();
    link.run(Duration::from_millis(500));
    link.filter = Box::new(|_, _, _| true);
    link.run(seconds(3));
    assert_eq!((renewal_error(&link), link.peers[CLIENT].count(is_install)), (None, 2));
}

#[test]
fn a_replaced_pair_stays_as_long_as_it_is_used() {
    let mut link = Link::connected(&fast(), 101);
    let old = [CLIENT, SERVER].map(|peer| link.peers[peer].ike.pairs[0].inbound);
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    for _ in 0..20 {
        link.run(seconds(10));
        for peer in [CLIENT, SERVER] {
            link.peers[peer].ike.handle_esp_activity(link.now, old[peer]);
        }
    }
    assert!(link.peers.iter().all(|peer| peer.inbound.len() == 2));
    link.run(seconds(70));
    link.assert_established();
}

#[test]
fn the_side_that_did_not_begin_deletes_a_replaced_pair_when_the_other_does_not() {
    let mut link = Link::connected(&fast(), 102);
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    link.run(seconds(2));
    let used = link.peers[CLIENT].ike.pairs[0].inbound;
    for _ in 0..9 {
        link.run(seconds(8));
        // The client believes that it is in use, and so does not delete it.
        if link.peers[CLIENT].inbound.contains_key(&used) {
            link.peers[CLIENT].ike.handle_esp_activity(link.now, used);
        }
    }
    assert!(!link.peers[CLIENT].inbound.contains_key(&used));
}

#[test]
fn a_peer_that_deletes_phase_1_each_time_is_asked_more_and_more_seldom() {
    let mut link = Link::connected(&fast(), 103);
    for _ in 0..600 {
        link.run(seconds(1));
        let ids: Vec<u32> = link.peers[SERVER].ike.isakmp.iter().map(|sa| sa.id).collect();
        let now = link.now;
        ids.into_iter().for_each(|id| link.peers[SERVER].ike.expire_isakmp(now, id));
        link.drain();
    }
    let main_modes = link.peers[CLIENT].count(is_isakmp);
    assert!((8..=16).contains(&main_modes), "{main_modes}");
    assert_eq!(link.peers[CLIENT].inbound.len(), 1);
}

#[test]
fn a_renewal_survives_the_deletion_of_the_isakmp_sa_under_it() {
    let mut link = Link::connected(&fast(), 104);
    link.filter = without_answers();
    link.peers[CLIENT].ike.rekey_ipsec(link.now);
    link.drain();
    let (id, now) = (link.peers[SERVER].ike.isakmp[0].id, link.now);
    link.peers[SERVER].ike.expire_isakmp(now, id);
    link.drain();
    link.run(Duration::from_millis(500));
    link.filter = Box::new(|_, _, _| true);
    link.run(seconds(5));
    assert_eq!((link.peers[CLIENT].count(is_isakmp), link.peers[CLIENT].count(is_install)), (2, 2));
}

#[test]
fn every_renewal_that_waits_for_a_main_mode_is_made() {
    let mut link = Link::connected(&fast(), 105);
    let spi = link.peers[CLIENT].ike.pairs[0].inbound;
    let now = link.now;
    let client = &mut link.peers[CLIENT].ike;
    client.isakmp.clear();
    client.begin_quick_mode(now, Some(spi));
    client.begin_quick_mode(now, None);
    link.drain();
    link.run(seconds(5));
    assert_eq!(link.peers[CLIENT].count(is_install), 3);
}

#[test]
fn a_smaller_volume_of_the_peer_is_told_to_the_owner() {
    let mut link = Link::connected(&fast(), 106);
    let server = &mut link.peers[SERVER].ike;
    let (isakmp, spi) = (server.isakmp[0].id, server.pairs[0].inbound.to_be_bytes());
    let data = hex_literal::hex!("80010002 80021388");
    let kind = NotifyType::RESPONDER_LIFETIME;
    let body = payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind, data: &data }.body();
    server.inform(isakmp, None, PayloadType::N, &body, 1);
    link.drain();
    link.run(seconds(1));
    let inbound_spi = link.peers[CLIENT].ike.pairs[0].inbound;
    let expected = Event::Lifetime { inbound_spi, kilobytes: 5000 };
    assert_eq!(link.peers[CLIENT].count(|event| *event == expected), 1);
}

#[test]
fn a_life_of_a_second_makes_no_storm_of_renewals() {
    let mut link = Link::connected(&fast(), 107);
    let server = &mut link.peers[SERVER].ike;
    let (isakmp, spi) = (server.isakmp[0].id, server.pairs[0].inbound.to_be_bytes());
    let data = hex_literal::hex!("80010001 80020001");
    let kind = NotifyType::RESPONDER_LIFETIME;
    let body = payload::Notification { protocol: ProtocolId::ESP, spi: &spi, kind, data: &data }.body();
    server.inform(isakmp, None, PayloadType::N, &body, 1);
    link.drain();
    link.run(seconds(10));
    assert_eq!(link.peers[CLIENT].count(is_install), 1);
    link.run(seconds(10));
    assert_eq!(link.peers[CLIENT].count(is_install), 2);
}

#[test]
fn a_replaced_isakmp_sa_stays_as_long_as_it_is_used() {
    let mut link = Link::connected(&fast(), 108);
    let old = link.peers[SERVER].ike.isakmp[0].id;
    let now = link.now;
    link.peers[CLIENT].ike.begin_main_mode(now);
    link.drain();
    let body =
        payload::Notification { protocol: ProtocolId::ISAKMP, spi: &[], kind: NotifyType::CONNECTED, data: &[] }.body();
    for _ in 0..5 {
        link.run(seconds(11));
        link.peers[SERVER].ike.inform(old, None, PayloadType::N, &body, 1);
        link.drain();
    }
    assert_eq!(link.peers[CLIENT].ike.isakmp.len(), 2);
    link.run(seconds(70));
    assert!(link.peers.iter().all(|peer| peer.ike.isakmp.len() == 1));
    link.assert_established();
}

#[test]
fn the_relation_of_a_server_is_renewed_for_half_a_day_by_either_side_without_losing_a_packet() {
    // Lives of phase 1 and phase 2 at the client, and at the server.
    for [client, server] in [[(3600, 1200), (28_800, 3600)], [(28_800, 3600), (3600, 1200)], [(3600, 1200); 2]] {
        let mut link = Link::fronted(&fast(), 25);
        let lives = |config: &mut Config, (isakmp, esp): (u64, u64)| {
            (config.lifetime, config.esp_lifetime.seconds) = (seconds(isakmp), seconds(esp));
        };
        lives(&mut link.peers[CLIENT].ike.config, client);
        let mut usual = ResponderConfig::new(mirrored(&fast()));
        lives(&mut usual.ike, server);
        link.front.as_mut().unwrap().responder.configure(usual);
        link.traffic = Some(seconds(3));
        link.connect();
        link.run(seconds(12 * 3600));
        link.assert_no_packet_lost();
        for peer in &link.peers {
            assert!((12..=17).contains(&peer.count(is_isakmp)), "{}", peer.count(is_isakmp));
            assert!((36..=50).contains(&peer.count(is_install)), "{}", peer.count(is_install));
            assert!(peer.failure().is_none() && peer.ike.isakmp.len() <= 2 && peer.inbound.len() <= 3);
        }
    }
}

#[test]
fn renewals_of_both_phases_that_collide_at_a_server_end_with_one_of_each() {
    for seed in 0..20 {
        let mut link = Link::fronted(&fast(), seed);
        link.connect();
        link.run(seconds(5));
        link.delay = [5, 60];
        link.traffic = Some(Duration::from_millis(10));
        link.next_traffic = link.now;
        let now = link.now;
        for peer in &mut link.peers {
            peer.ike.begin_main_mode(now);
            peer.ike.rekey_ipsec(now);
        }
        link.drain();
        link.run(seconds(10));
        let current: Vec<_> = link.peers.iter().map(|peer| peer.ike.current().unwrap().cookies).collect();
        assert_eq!(current[0], current[1], "seed {seed}");
        link.run(seconds(120));
        link.assert_no_packet_lost();
        link.assert_established();
        assert!(link.peers.iter().all(|peer| peer.ike.isakmp.len() == 1), "seed {seed}");
    }
}

#[test]
fn the_relation_of_a_server_is_renewed_over_a_bad_link() {
    for seed in 0..5 {
        let mut config = fast();
        config.lifetime = seconds(1200);
        config.esp_lifetime.seconds = seconds(600);
        let mut link = Link::fronted(&config, seed);
        (link.loss, link.duplication, link.delay) = (0.15, 0.2, [1, 900]);
        link.connect();
        link.run(seconds(60));
        link.traffic = Some(seconds(1));
        link.next_traffic = link.now;
        link.run(seconds(4 * 3600));
        assert_eq!(link.peers[CLIENT].failure(), None, "seed {seed}");
        assert!(link.lost_packets.iter().sum::<usize>() <= 40, "seed {seed}: {:?}", link.lost_packets);
        assert!(link.peers[CLIENT].count(is_install) >= 22);
    }
}
