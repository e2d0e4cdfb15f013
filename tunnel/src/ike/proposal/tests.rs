use super::*;
use hex_literal::hex;

const PSK: Method = Method::PreSharedKey;
const DAY: Lifetime = Lifetime { seconds: Duration::from_secs(86_400), kilobytes: Some(250_000) };

fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// SAi_b of strongSwan 5.9.8 for aes256-sha256-modp2048 with a life of 10800 s.
const CHARON_OFFER: [u8; 52] = hex!(
    "00000001 00000001 0000002C 01010001 00000024 01010000 80010007 800E0100 80020004 8004000E 80030001 800B0001 800C2A30"
);

#[test]
fn the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same() {
    let ours = ike(&["aes256-sha256-modp2048"]);
    let (chosen, answer) = choose_phase1(&ours, &[PSK], &CHARON_OFFER).unwrap().unwrap();
    assert_eq!((chosen.proposal, chosen.life.seconds), (ours[0], Some(Duration::from_secs(10_800))));
    assert_eq!(answer, CHARON_OFFER);
    assert_eq!(offer_phase1(&ours, PSK, Duration::from_secs(10_800)), CHARON_OFFER);
    assert_eq!(accept_phase1(&ours, PSK, &CHARON_OFFER).unwrap().proposal, ours[0]);
}

#[test]
fn every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer() {
    for &cipher in Cipher::ALL.iter().filter(|cipher| !cipher.is_aead()) {
        for (&hash, &group) in Hash::ALL.iter().flat_map(|hash| Group::ALL.iter().map(move |group| (hash, group))) {
            let proposal = IkeProposal { cipher, hash, group };
            for method in Method::ALL {
                let offer = offer_phase1(&[proposal], method, DAY.seconds);
                let (chosen, answer) = choose_phase1(&[proposal], &[method], &offer).unwrap().unwrap();
                assert_eq!((chosen.proposal, chosen.method), (proposal, method));
                assert_eq!(chosen.life.seconds, Some(DAY.seconds));
                assert_eq!(accept_phase1(&[proposal], method, &answer), Ok(chosen));
            }
        }
    }
}

#[test]
fn every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer() {
    let mode = EncapsulationMode::UDP_TRANSPORT;
    for &cipher in Cipher::ALL {
        let hashes: Vec<_> = if cipher.is_aead() { vec![None] } else { Hash::ALL.iter().copied().map(Some).collect() };
        for integrity in hashes {
            for group in [None, Some(Group::Modp2048)] {
                let proposal = EspProposal { cipher, integrity, group };
                let offer = offer_phase2(&[proposal], DAY, mode, 0x1234_5678);
                let (chosen, answer) = choose_phase2(&[proposal], &[mode], &offer, 0x8765_4321).unwrap().unwrap();
                assert_eq!((chosen.proposal, chosen.spi), (proposal, 0x1234_5678));
                assert_eq!(chosen.life, StatedLife { seconds: Some(DAY.seconds), kilobytes: DAY.kilobytes });
                let accepted = accept_phase2(&[proposal], mode, &answer).unwrap();
                assert_eq!((accepted.proposal, accepted.spi), (proposal, 0x8765_4321));
            }
        }
    }
}

#[test]
fn the_responder_follows_its_own_preference_and_returns_the_number_of_the_initiator() {
    let offer = offer_phase1(&ike(&["3des-sha1-modp1024", "aes256-sha1-modp2048"]), PSK, DAY.seconds);
    let (chosen, answer) =
        choose_phase1(&ike(&["aes256-sha1-modp2048", "3des-sha1-modp1024"]), &[PSK], &offer).unwrap().unwrap();
    assert_eq!(chosen.proposal.to_string(), "aes256-sha1-modp2048");
    assert_eq!(read_sa(&answer).unwrap()[0].transforms[0].body[0], 2);
}

#[test]
fn the_method_of_the_initiator_selects_among_ours() {
    let ours = ike(&["aes256-sha1-modp2048"]);
    let chosen = |methods: &[Method], offered| {
        let offer = offer_phase1(&ours, offered, DAY.seconds);
        choose_phase1(&ours, methods, &offer).unwrap().map(|(chosen, _)| chosen.method)
    };
    let both = [Method::RsaSignature, PSK];
    assert_eq!(chosen(&both, PSK), Some(PSK));
    assert_eq!(chosen(&both, Method::RsaSignature), Some(Method::RsaSignature));
    assert_eq!(chosen(&both, Method::EcdsaSha256), None);
    assert_eq!(chosen(&[PSK], Method::RsaSignature), None);
}

#[test]
fn an_answer_that_was_not_offered_is_refused() {
    let answer = offer_phase1(&ike(&["3des-sha1-modp1024"]), PSK, DAY.seconds);
    assert!(accept_phase1(&ike(&["aes256-sha1-modp2048"]), PSK, &answer).is_err());
    assert!(accept_phase1(&ike(&["3des-sha1-modp1024"]), Method::RsaSignature, &answer).is_err());
    let two = offer_phase1(&ike(&["3des-sha1-modp1024", "aes256-sha1-modp2048"]), PSK, DAY.seconds);
    assert_eq!(accept_phase1(&ike(&["3des-sha1-modp1024"]), PSK, &two), Err("it holds several transforms"));
    let answer = offer_phase2(&esp(&["aes256-sha1"]), DAY, EncapsulationMode::TRANSPORT, 4096);
    let accepted = accept_phase2(&esp(&["aes256-sha1"]), EncapsulationMode::UDP_TRANSPORT, &answer);
    assert_eq!(accepted, Err("the encapsulation mode differs"));
}

#[test]
fn a_group_in_quick_mode_has_to_fit() {
    let mode = EncapsulationMode::UDP_TRANSPORT;
    let choose = |ours: &str, theirs: &str| {
        let offer = offer_phase2(&esp(&[theirs]), DAY, mode, 4096);
        choose_phase2(&esp(&[ours]), &[mode], &offer, 4097).unwrap().is_some()
    };
    assert!(choose("aes256-sha1", "aes256-sha1-modp2048"));
    assert!(choose("aes256-sha1-modp2048", "aes256-sha1-modp2048"));
    assert!(!choose("aes256-sha1-modp2048", "aes256-sha1"));
    assert!(!choose("aes256-sha1-modp2048", "aes256-sha1-modp1024"));
}

#[test]
fn lives_are_read_in_both_forms_and_units() {
    // RFC 2407 section 4.5.2: 24 hours or 100 MB.
    let data = hex!("80010001 00020004 00015180 80010002 00020004 000186A0");
    let life = StatedLife::read(&data, ProtocolId::ESP).unwrap();
    assert_eq!(life, StatedLife { seconds: Some(Duration::from_secs(86_400)), kilobytes: Some(100_000) });
    let life = StatedLife::read(&hex!("80010001 80020E10"), ProtocolId::ESP).unwrap();
    assert_eq!(life.seconds, Some(Duration::from_secs(3600)));
    let ours = Lifetime { seconds: Duration::from_secs(7200), kilobytes: None };
    assert_eq!(life.shorten(ours).seconds, Duration::from_secs(3600));
    let life = StatedLife::read(&hex!("800B0001 800C0E10"), ProtocolId::ISAKMP).unwrap();
    assert_eq!(life.seconds, Some(Duration::from_secs(3600)));
}

#[test]
fn lives_of_next_to_nothing_are_not_obeyed() {
    let life = StatedLife { seconds: Some(Duration::from_secs(1)), kilobytes: Some(1) };
    let ours = Lifetime { seconds: Duration::from_secs(3600), kilobytes: None };
    assert_eq!(life.shorten(ours), Lifetime { seconds: Duration::from_secs(20), kilobytes: Some(1024) });
}

#[test]
fn unknown_attributes_spoil_their_transform_only_and_aes_without_a_length_has_128_bits() {
    let mut odd = vec![1, KEY_IKE, 0, 0];
    write_basic(&mut odd, 77, 1);
    let mut short = vec![2, KEY_IKE, 0, 0];
    for (class, value) in [(1, 7), (2, 2), (4, 2), (3, 1)] {
        write_basic(&mut short, class, value);
    }
    let offer = write_sa(1, ProtocolId::ISAKMP, &[], &[odd, short]);
    let (chosen, _) = choose_phase1(&ike(&["aes128-sha1-modp1024"]), &[PSK], &offer).unwrap().unwrap();
    assert_eq!(chosen.proposal.to_string(), "aes128-sha1-modp1024");
    assert_eq!(chosen.life, StatedLife::default());
}

#[test]
fn a_second_value_of_an_attribute_spoils_its_transform_and_the_same_value_twice_does_not() {
    let transform = |number, attributes: &[(u16, u16)]| {
        let mut transform = vec![number, KEY_IKE, 0, 0];
        attributes.iter().for_each(|&(class, value)| write_basic(&mut transform, class, value));
        transform
    };
    let twice = transform(1, &[(1, 5), (2, 2), (2, 1), (4, 2), (3, 1)]);
    let again = transform(2, &[(1, 5), (2, 2), (2, 2), (4, 2), (3, 1)]);
    let ours = ike(&["3des-md5-modp1024", "3des-sha1-modp1024"]);
    let offer = write_sa(1, ProtocolId::ISAKMP, &[], &[twice, again]);
    let (chosen, answer) = choose_phase1(&ours, &[PSK], &offer).unwrap().unwrap();
    assert_eq!(chosen.proposal.to_string(), "3des-sha1-modp1024");
    assert_eq!(read_sa(&answer).unwrap()[0].transforms[0].body[0], 2);
}

#[test]
fn sa_payloads_cut_short_anywhere_are_refused() {
    let offer = offer_phase2(&esp(&["aes256-sha1", "3des-md5"]), DAY, EncapsulationMode::UDP_TRANSPORT, 4096);
    assert!(read_sa(&offer).is_ok());
    for length in 0..offer.len() {
        assert!(read_sa(&offer[..length]).is_err(), "{length}");
    }
}

#[test]
fn sa_payloads_of_another_domain_or_situation_are_refused() {
    let offer = offer_phase1(&ike(&["aes256-sha1-modp2048"]), PSK, DAY.seconds);
    assert_eq!(offer[..8], [0, 0, 0, 1, 0, 0, 0, 1]);
    // SIT_SECRECY and SIT_INTEGRITY.
    for (octet, bit, what) in [(3, 2, "SA DOI"), (7, 2, "SA situation"), (7, 4, "SA situation")] {
        let mut changed = offer.clone();
        changed[octet] |= bit;
        assert_eq!(read_sa(&changed).unwrap_err(), Malformed::Invalid(what));
    }
}

#[test]
fn a_bundle_of_protocols_is_not_taken_for_esp_alone() {
    let (ours, mode) = (esp(&["aes256-sha1"]), EncapsulationMode::UDP_TRANSPORT);
    let offer = offer_phase2(&ours, DAY, mode, 4096);
    // The same proposal twice under one number, the first one for AH.
    let mut first = offer[8..].to_vec();
    (first[0], first[5]) = (PayloadType::P.0, 2);
    let choose = |offer: &[u8]| choose_phase2(&ours, &[mode], offer, 4097).unwrap().is_some();
    let bundle = [&offer[..8], &first, &offer[8..]].concat();
    assert!(!choose(&bundle));
    first[4] = 2;
    assert!(choose(&[&offer[..8], &first, &offer[8..]].concat()), "another number is an alternative");
}

#[test]
fn a_life_follows_its_unit_and_is_basic_if_it_fits() {
    let mut out = Vec::new();
    write_life(&mut out, PHASE2_LIFE, SECONDS, 3600);
    write_life(&mut out, PHASE2_LIFE, KILOBYTES, 100_000);
    assert_eq!(out, hex!("80010001 80020E10 80010002 00020004 000186A0"));
}
