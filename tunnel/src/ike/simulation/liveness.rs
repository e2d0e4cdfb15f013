//! Dead peer detection and signs of life.

use super::*;

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
    let heard = [CLIENT, SERVER].map(|peer| link.peers[peer].ike.last_heard().unwrap() - link.start);
    link.run(seconds(60));
    for (peer, heard) in link.peers.iter().zip(heard) {
        let at = peer.events.iter().find(|(_, event)| *event == Event::DeadPeer).unwrap().0;
        assert_eq!(at - heard, seconds(15));
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

/// The Informational messages that one side has sent so far.
fn informational(link: &Link, from: usize) -> usize {
    link.sent.iter().filter(|(sender, _, message)| *sender == from && message[18] == 5).count()
}

fn without_own_verdict() -> Config {
    Config { dpd: Dpd { interval: Duration::ZERO, timeout: seconds(15) }, ..fast() }
}

#[test]
fn a_probe_asks_at_once_and_its_answer_is_a_sign_of_life() {
    let mut link = Link::connected(&without_own_verdict(), 50);
    link.run(seconds(100));
    assert_eq!(informational(&link, CLIENT), 0);
    let asked = link.now;
    link.peers[CLIENT].ike.probe(asked);
    link.drain();
    assert_eq!(informational(&link, CLIENT), 1);
    link.run(seconds(1));
    assert_eq!(link.peers[CLIENT].ike.last_heard(), Some(asked + Duration::from_millis(40)));
}

#[test]
fn a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number() {
    let mut link = Link::connected(&without_own_verdict(), 54);
    let sent = link.sent.len();
    link.peers[CLIENT].ike.probe(link.now);
    link.drain();
    link.run(seconds(1));
    let sa = &link.peers[CLIENT].ike.isakmp[0];
    let [question, answer] = [sent, sent + 1].map(|index| {
        let content = opened(sa, &link.sent[index].2, None);
        bodies(&content, PayloadType::N)[0].to_vec()
    });
    // IPsec DOI, ISAKMP, 16 octets of SPI, 36136 or 36137, both cookies, the number.
    let form = |kind: u16| [&[0, 0, 0, 1, 1, 16][..], &kind.to_be_bytes(), &sa.cookies.spi()].concat();
    assert_eq!((&question[..24], &answer[..24]), (&form(36_136)[..], &form(36_137)[..]));
    assert_eq!((question.len(), &question[24..]), (28, &answer[24..]));
    assert_eq!(link.sent.len(), sent + 2);
}

#[test]
fn a_peer_that_does_not_know_dead_peer_detection_is_not_probed() {
    let mut link = Link::pair(&without_own_verdict(), 51);
    let dpd = 0xafca_d713_68a1_f1c9_6b86_96fc_7757_0100_u128.to_be_bytes();
    link.filter = Box::new(move |_, _, message| {
        spoil(message, &dpd);
        true
    });
    link.connect();
    link.run(seconds(2));
    link.peers[CLIENT].ike.probe(link.now);
    link.drain();
    assert_eq!(informational(&link, CLIENT), 0);
}

#[test]
fn only_what_is_authenticated_is_a_sign_of_life() {
    let mut link = Link::pair(&without_own_verdict(), 52);
    link.connect();
    // Messages 1 to 5 with 20 ms each: message 6 has not arrived.
    link.run(Duration::from_millis(110));
    assert_eq!(link.peers[CLIENT].ike.last_heard(), None);
    link.run(seconds(2));
    link.assert_established();
    let spi = link.peers[CLIENT].ike.pairs[0].inbound;
    link.run(seconds(20));
    link.peers[CLIENT].ike.handle_message(link.now, Port::NatT, &[7; 60]);
    assert_ne!(link.peers[CLIENT].ike.last_heard(), Some(link.now));
    link.peers[CLIENT].ike.handle_esp_activity(link.now, spi);
    assert_eq!(link.peers[CLIENT].ike.last_heard(), Some(link.now));
}

#[test]
fn messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer() {
    let mut link = Link::connected(&without_own_verdict(), 53);
    let heard = link.peers[SERVER].ike.last_heard();
    link.run(seconds(10));
    let ike = &mut link.peers[CLIENT].ike;
    let (isakmp, spi) = (ike.isakmp[0].id, ike.isakmp[0].cookies.spi());
    let (asks, answers) = (NotifyType::R_U_THERE, NotifyType::R_U_THERE_ACK);
    for (kind, spi, data) in
        [(answers, &spi[..], &[0, 0, 0, 9][..]), (asks, &[9; 16], &[0, 0, 0, 9]), (asks, &spi, &[0, 9])]
    {
        let body = payload::Notification { protocol: ProtocolId::ISAKMP, spi, kind, data }.body();
        ike.inform(isakmp, None, PayloadType::N, &body, 1);
    }
    link.drain();
    link.run(seconds(1));
    assert_eq!((link.peers[SERVER].ike.last_heard(), informational(&link, SERVER)), (heard, 0));
}
