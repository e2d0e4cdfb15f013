//! Both phases from the first message on: algorithms, ports, loss, and the failures that are reported.

use super::*;

#[test]
fn every_cipher_and_hash_of_phase_1_establishes() {
    for &cipher in Cipher::ALL.iter().filter(|cipher| !cipher.is_aead()) {
        for &hash in Hash::ALL {
            let link = Link::connected(&config(&format!("{cipher}-{hash}-ecp256"), "aes256-sha256"), 1);
            assert_eq!(link.peers[SERVER].ike.proposal().map(|proposal| proposal.hash), Some(hash));
        }
    }
}

#[test]
fn every_group_establishes_in_both_phases() {
    for &group in Group::ALL {
        let link = Link::connected(&config(&format!("aes128-sha1-{group}"), &format!("aes128-sha1-{group}")), 2);
        assert_eq!(link.peers[CLIENT].outbound[0].proposal.group, Some(group));
    }
}

#[test]
fn every_proposal_of_esp_establishes_with_keys_of_the_right_size() {
    for &cipher in Cipher::ALL {
        let suffixes: Vec<String> = if cipher.is_aead() {
            vec![String::new()]
        } else {
            Hash::ALL.iter().map(|hash| format!("-{hash}")).collect()
        };
        for suffix in suffixes {
            let link = Link::connected(&config("aes128-sha1-ecp256", &format!("{cipher}{suffix}")), 3);
            let sa = &link.peers[CLIENT].outbound[0];
            assert_eq!((sa.encryption_key.len(), sa.integrity_key.len()), sa.proposal.key_sizes());
        }
    }
}

#[test]
fn the_default_offer_finds_what_the_peer_has() {
    for (ike, esp) in [("3des-sha1-modp2048", "aes128-sha1"), ("aes256-sha1-ecp384", "aes256-sha1")] {
        let mut server = mirrored(&fast());
        server.proposals = vec![ike.parse().unwrap()];
        server.esp_proposals = vec![esp.parse().unwrap()];
        let offer = Config::new(server.remote, server.local, server.credentials.clone());
        let mut link = Link::new(offer, server, 4);
        link.connect();
        link.run(seconds(2));
        link.assert_established();
        assert_eq!(link.peers[CLIENT].ike.proposal().unwrap().to_string(), ike);
    }
}

#[test]
fn loss_duplication_and_reordering_are_survived() {
    for seed in 0..60 {
        let mut link = Link::pair(&fast(), seed);
        (link.loss, link.duplication, link.delay) = (0.25, 0.3, [1, 1500]);
        link.traffic = Some(Duration::from_millis(500));
        link.connect();
        link.run(seconds(60));
        assert_eq!(link.peers[CLIENT].failure(), None, "seed {seed}");
        for peer in &link.peers {
            assert_eq!((peer.inbound.len(), peer.outbound.len()), (1, 1), "seed {seed}: {:?}", peer.events);
        }
    }
}

#[test]
fn retransmissions_of_every_message_are_byte_identical() {
    let mut link = Link::pair(&fast(), 7);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    link.filter = Box::new(move |from, _, message| {
        // The first copy of everything from the client is lost.
        let again = from == SERVER || seen.contains(message);
        seen.push(message.clone());
        again
    });
    link.connect();
    link.run(seconds(8));
    link.assert_established();
    let mut messages: Vec<_> = link.sent.iter().filter(|(from, ..)| *from == CLIENT).map(|(.., sent)| sent).collect();
    assert_eq!(messages.len(), 10);
    messages.sort();
    messages.dedup();
    // 1, 3 and 5 of Main Mode, 1 and 3 of Quick Mode.
    assert_eq!(messages.len(), 5);
    assert!(link.peers[CLIENT].ike.retransmissions() > 0);
}

#[test]
fn a_main_mode_whose_messages_all_arrive_late_ends_after_a_minute() {
    let mut link = Link::pair(&fast(), 70);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    link.filter = Box::new(move |from, _, message| {
        seen.push(message.clone());
        from == SERVER || seen.iter().filter(|known| *known == message).count() > 5
    });
    link.connect();
    link.run(seconds(120));
    assert_eq!(link.peers[CLIENT].failure().unwrap().0, seconds(60));
}

#[test]
fn a_second_attempt_at_phase_2_with_the_group_of_phase_1_needs_no_other_main_mode() {
    let server = mirrored(&config("aes128-sha256-ecp256", "aes128-sha256-ecp256"));
    let mut link = Link::new(fast(), server, 71);
    link.connect();
    link.run(seconds(20));
    assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::NoProposalChosen { phase: 2, .. }))));
    let client = &mut link.peers[CLIENT].ike;
    let group = client.proposal().map(|proposal| proposal.group);
    let proposals = fast().esp_proposals.into_iter().map(|proposal| EspProposal { group, ..proposal }).collect();
    client.retry_quick_mode(link.now, proposals);
    link.drain();
    link.run(seconds(60));
    link.assert_established();
    assert_eq!(link.peers[CLIENT].count(is_isakmp), 1);
}

#[test]
fn an_isakmp_sa_without_any_use_goes_after_half_a_minute() {
    let mut link = Link::new(fast(), mirrored(&config("aes128-sha256-ecp256", "aes256-sha1")), 72);
    link.connect();
    link.run(seconds(29));
    assert!(link.peers[CLIENT].ike.is_established());
    link.run(seconds(3));
    assert!(!link.peers[CLIENT].ike.is_established() && !link.peers[SERVER].ike.is_established());
    assert_eq!(link.peers[CLIENT].ike.poll_timeout(), None);
}

#[test]
fn a_lost_message_3_of_quick_mode_is_replaced_by_the_first_esp_packet() {
    let mut link = Link::pair(&fast(), 8);
    link.filter = without_quick_mode_message(2..3);
    link.connect();
    link.run(Duration::from_millis(500));
    assert_eq!((link.peers[CLIENT].outbound.len(), link.peers[SERVER].outbound.len()), (1, 0));
    link.exchange_packets();
    assert_eq!(link.peers[SERVER].outbound.len(), 1);
    link.assert_established();
}

#[test]
fn a_lost_message_3_is_sent_again_when_message_2_comes_again() {
    let mut link = Link::pair(&fast(), 9);
    link.filter = without_quick_mode_message(2..3);
    link.connect();
    link.run(seconds(3));
    link.assert_established();
}

#[test]
fn a_quick_mode_that_is_never_confirmed_leaves_nothing_behind() {
    let mut link = Link::pair(&fast(), 10);
    link.filter = without_quick_mode_message(2..usize::MAX);
    link.connect();
    link.run(seconds(40));
    assert!(link.peers[SERVER].inbound.is_empty());
}

#[test]
fn silence_is_reported_after_31_seconds_with_the_message() {
    let mut link = Link::pair(&fast(), 11);
    link.filter = Box::new(|_, _, _| false);
    link.connect();
    link.run(seconds(60));
    let expected = Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 1 };
    let (when, error) = link.peers[CLIENT].failure().unwrap();
    assert_eq!(error, &expected);
    assert!((31..=34).contains(&when.as_secs()), "{when:?}");
    assert_eq!(link.sent.len(), 6);
    assert_eq!(link.peers[CLIENT].ike.poll_timeout(), None);
}

#[test]
fn no_common_proposal_of_phase_1_is_reported_within_seconds() {
    let mut link = Link::new(fast(), mirrored(&config("aes256-sha1-ecp384", "aes128-sha256")), 13);
    link.connect();
    link.run(seconds(5));
    let (when, error) = link.peers[CLIENT].failure().unwrap();
    assert_eq!(error, &Error::NoProposalChosen { phase: 1, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) });
    assert!(when < seconds(3));
}

#[test]
fn no_common_proposal_or_group_of_phase_2_is_reported_at_once_and_may_be_tried_again() {
    for theirs in ["aes256-sha1", "aes128-sha256-modp2048"] {
        let mut link = Link::new(fast(), mirrored(&config("aes128-sha256-ecp256", theirs)), 14);
        link.connect();
        link.run(seconds(2));
        let (when, error) = link.peers[CLIENT].failure().unwrap();
        assert_eq!(error, &Error::NoProposalChosen { phase: 2, notification: Some(NotifyType::NO_PROPOSAL_CHOSEN) });
        assert!(when < seconds(1));
        link.peers[CLIENT].ike.retry_quick_mode(link.now, vec![theirs.parse().unwrap()]);
        link.drain();
        link.run(seconds(2));
        link.assert_established();
    }
}

#[test]
fn keys_are_exported_only_on_demand() {
    let keys = |event: &Event| matches!(event, Event::Keys(_));
    assert_eq!(Link::connected(&fast(), 37).peers[CLIENT].count(keys), 0);
    let link = Link::connected(&Config { export_keys: true, ..fast() }, 37);
    assert_eq!((link.peers[CLIENT].count(keys), link.peers[SERVER].count(keys)), (1, 1));
}
