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
