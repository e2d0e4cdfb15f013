//! The form that RFC 2407, 2408 and 2409 demand of SA payloads: what is offered has it, and what has it not is passed over
//! or refused.

use super::*;

const PSK: Method = Method::PreSharedKey;
const HOUR: Lifetime = Lifetime { seconds: Duration::from_secs(3600), kilobytes: None };
const UDP: EncapsulationMode = EncapsulationMode::UDP_TRANSPORT;

/// 3DES, SHA, group 2, a pre-shared key.
const PHASE_1: [(u16, u16); 4] = [(1, 5), (2, 2), (4, 2), (3, 1)];

fn ike(texts: &[&str]) -> Vec<IkeProposal> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn esp(texts: &[&str]) -> Vec<EspProposal> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The body of a Transform payload.
fn transform(number: u8, id: u8, attributes: &[(u16, u16)]) -> Vec<u8> {
    let mut out = vec![number, id, 0, 0];
    attributes.iter().for_each(|&(class, value)| write_basic(&mut out, class, value));
    out
}

/// Whether one transform of phase 1 is chosen where this is wanted.
fn chooses_phase1(wanted: &str, id: u8, attributes: &[(u16, u16)]) -> bool {
    let offer = write_sa(1, ProtocolId::ISAKMP, &[], &[transform(1, id, attributes)]);
    choose_phase1(&ike(&[wanted]), &[PSK], &offer).unwrap().is_some()
}

/// The same of phase 2; the attributes lack the encapsulation mode.
fn chooses_phase2(wanted: &str, id: u8, attributes: &[(u16, u16)]) -> bool {
    let attributes = [attributes, &[(4, UDP.0)]].concat();
    let offer = write_sa(1, ProtocolId::ESP, &4096_u32.to_be_bytes(), &[transform(1, id, &attributes)]);
    choose_phase2(&esp(&[wanted]), &[UDP], &offer, 4097).unwrap().is_some()
}

/// Whether the only transform of an offer has an attribute of that class.
fn states(offer: &[u8], class: u16) -> bool {
    let proposals = read_sa(offer).unwrap();
    let attributes = attribute::read(proposals[0].transforms[0].attributes).unwrap();
    attributes.iter().any(|attribute| attribute.class == class)
}

fn offered_phase1(proposal: &str) -> Vec<u8> {
    offer_phase1(&ike(&[proposal]), PSK, HOUR.seconds)
}

fn offered_phase2(proposal: &str) -> Vec<u8> {
    offer_phase2(&esp(&[proposal]), HOUR, UDP, 4096)
}

#[test]
fn transforms_of_phase_1_are_numbered_in_our_order_in_one_proposal() {
    // Phase 1 has no AES-GCM, which leaves no gap.
    let mut ours = ike(&["aes256-sha256-modp2048", "aes128-sha1-ecp256", "3des-md5-modp1024"]);
    ours.insert(1, IkeProposal { cipher: Cipher::Aes128Gcm16, ..ours[0] });
    let offer = offer_phase1(&ours, PSK, HOUR.seconds);
    let proposals = read_sa(&offer).unwrap();
    let [proposal] = proposals.as_slice() else { panic!("{proposals:?}") };
    let numbers: Vec<u8> = proposal.transforms.iter().map(|transform| transform.body[0]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let meanings = proposal.transforms.iter().map(|transform| phase1_meaning(transform).unwrap().proposal);
    assert_eq!(meanings.collect::<Vec<_>>(), [ours[0], ours[2], ours[3]]);
}

#[test]
fn transforms_of_phase_2_are_numbered_in_our_order_in_one_proposal() {
    let ours = esp(&["aes128gcm16", "aes256-sha256", "3des-md5"]);
    let offer = offer_phase2(&ours, HOUR, UDP, 4096);
    let proposals = read_sa(&offer).unwrap();
    let [proposal] = proposals.as_slice() else { panic!("{proposals:?}") };
    let numbers: Vec<u8> = proposal.transforms.iter().map(|transform| transform.body[0]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let meanings = proposal.transforms.iter().map(|transform| phase2_meaning(transform).unwrap().0);
    assert_eq!(meanings.collect::<Vec<_>>(), ours);
}

#[test]
fn a_key_length_is_stated_for_aes_alone_and_in_network_order() {
    let key_lengths = [Phase1Attribute::KEY_LENGTH.0, Phase2Attribute::KEY_LENGTH.0];
    assert!(states(&offered_phase1("aes256-sha1-modp1024"), key_lengths[0]));
    assert!(!states(&offered_phase1("3des-sha1-modp1024"), key_lengths[0]));
    assert!(states(&offered_phase2("aes256-sha1"), key_lengths[1]));
    assert!(!states(&offered_phase2("3des-sha1"), key_lengths[1]));
    assert!(offered_phase1("aes256-sha1-modp1024").windows(4).any(|four| four == [0x80, 14, 1, 0]));
}

#[test]
fn a_key_length_beside_a_cipher_of_one_length_or_in_another_order_is_passed_over() {
    let with = |length| [&PHASE_1[..], &[(14, length)]].concat();
    assert!(chooses_phase1("3des-sha1-modp1024", KEY_IKE, &PHASE_1));
    assert!(!chooses_phase1("3des-sha1-modp1024", KEY_IKE, &with(192)));
    let aes = |length| with(length).iter().map(|&(class, value)| (class, if class == 1 { 7 } else { value })).collect();
    let (right, turned): (Vec<_>, Vec<_>) = (aes(0x0100), aes(0x0001));
    assert!(chooses_phase1("aes256-sha1-modp1024", KEY_IKE, &right));
    assert!(!chooses_phase1("aes256-sha1-modp1024", KEY_IKE, &turned));
    assert!(chooses_phase2("3des-sha1", 3, &[(5, 2)]));
    assert!(!chooses_phase2("3des-sha1", 3, &[(5, 2), (6, 192)]));
}

#[test]
fn esp_without_authentication_is_neither_offered_nor_chosen() {
    let class = Phase2Attribute::AUTHENTICATION_ALGORITHM.0;
    assert!(Hash::ALL.iter().all(|hash| states(&offered_phase2(&format!("aes128-{hash}")), class)));
    assert!(chooses_phase2("aes128-sha1", 12, &[(6, 128), (5, 2)]));
    assert!(!chooses_phase2("aes128-sha1", 12, &[(6, 128)]));
    assert!(!chooses_phase2("aes128-sha1", 12, &[(6, 128), (5, 0)]));
}

#[test]
fn a_cipher_that_authenticates_by_itself_has_no_other_algorithm_for_it() {
    assert!(!states(&offered_phase2("aes128gcm16"), Phase2Attribute::AUTHENTICATION_ALGORITHM.0));
    assert!(chooses_phase2("aes128gcm16", 20, &[(6, 128)]));
    assert!(!chooses_phase2("aes128gcm16", 20, &[(6, 128), (5, 2)]));
}

#[test]
fn a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside() {
    assert!(chooses_phase1("3des-sha1-modp1024", KEY_IKE, &PHASE_1));
    for missing in 0..PHASE_1.len() {
        let mut attributes = PHASE_1.to_vec();
        attributes.remove(missing);
        assert!(!chooses_phase1("3des-sha1-modp1024", KEY_IKE, &attributes), "{missing}");
    }
    // Tiger, which nobody has, and a group by its type.
    let tiger: Vec<_> = PHASE_1.iter().map(|&(class, value)| (class, if class == 2 { 3 } else { value })).collect();
    assert!(!chooses_phase1("3des-sha1-modp1024", KEY_IKE, &tiger));
    assert!(!chooses_phase1("3des-sha1-modp1024", KEY_IKE, &[&PHASE_1[..], &[(5, 1)]].concat()));
    for class in 5..=10 {
        assert!(!states(&offered_phase1("3des-sha1-modp1024"), class));
    }
}

#[test]
fn a_transform_with_an_unknown_number_is_passed_over_without_a_word() {
    let transforms = [transform(1, 2, &PHASE_1), transform(2, KEY_IKE, &PHASE_1)];
    let offer = write_sa(1, ProtocolId::ISAKMP, &[], &transforms);
    let (_, answer) = choose_phase1(&ike(&["3des-sha1-modp1024"]), &[PSK], &offer).unwrap().unwrap();
    assert_eq!(read_sa(&answer).unwrap()[0].transforms[0].body, transforms[1]);
    assert!(!chooses_phase1("3des-sha1-modp1024", 2, &PHASE_1));
}

#[test]
fn next_payloads_and_reserved_fields_of_proposals_and_transforms_are_what_they_must_be() {
    let offer = offer_phase2(&esp(&["aes256-sha1", "3des-md5"]), HOUR, UDP, 4096);
    assert_eq!(read_sa(&offer).unwrap()[0].transforms.len(), 2);
    // DOI and situation have 8 octets, the header of the proposal has 8 and its SPI 4.
    let (proposal, first) = (8, 20);
    assert_eq!([offer[proposal], offer[proposal + 1], offer[first], offer[first + 1]], [0, 0, 3, 0]);
    for (at, value) in [(proposal, 2), (proposal, 3), (proposal, 10), (first, 2), (first, 10), (first, 0)] {
        let mut changed = offer.clone();
        changed[at] = value;
        assert!(read_sa(&changed).is_err(), "{value} at {at}");
    }
    for at in [proposal + 1, first + 1] {
        let mut changed = offer.clone();
        changed[at] = 1;
        assert_eq!(read_sa(&changed).unwrap_err(), Malformed::Invalid("reserved field of a payload"));
    }
}

#[test]
fn an_spi_in_a_proposal_of_phase_1_is_ignored() {
    let ours = ike(&["3des-sha1-modp1024"]);
    for spi in [&[][..], &[0; 4], &[7; 8], &[7; 16]] {
        let offer = write_sa(1, ProtocolId::ISAKMP, spi, &[transform(1, KEY_IKE, &PHASE_1)]);
        let (chosen, answer) = choose_phase1(&ours, &[PSK], &offer).unwrap().unwrap();
        assert_eq!((chosen.proposal, accept_phase1(&ours, PSK, &answer)), (ours[0], Ok(chosen)));
    }
}

#[test]
fn a_proposal_for_another_protocol_or_with_an_spi_that_is_none_is_passed_over() {
    let right = 4096_u32.to_be_bytes();
    for (protocol, spi, taken) in [
        (ProtocolId::ESP, &right[..], true),
        (ProtocolId::AH, &right, false),
        (ProtocolId::IPCOMP, &right[2..], false),
        (ProtocolId(9), &right, false),
        (ProtocolId::ESP, &[], false),
        (ProtocolId::ESP, &right[2..], false),
        (ProtocolId::ESP, &[0, 0, 0, 0], false),
        (ProtocolId::ESP, &[0, 0, 0, 255], false),
    ] {
        let offer = write_sa(1, protocol, spi, &[transform(1, 3, &[(5, 1), (4, UDP.0)])]);
        let chosen = choose_phase2(&esp(&["3des-md5"]), &[UDP], &offer, 4097).unwrap();
        assert_eq!(chosen.is_some(), taken, "{protocol} {spi:?}");
    }
}

#[test]
fn no_mode_but_transport_in_udp_is_chosen_where_no_other_is_wanted() {
    for (mode, taken) in [
        (EncapsulationMode::TUNNEL, false),
        (EncapsulationMode::TRANSPORT, false),
        (EncapsulationMode::UDP_TUNNEL, false),
        (EncapsulationMode::UDP_TRANSPORT, true),
        (EncapsulationMode::UDP_TRANSPORT_DRAFT, true),
    ] {
        let offer = offer_phase2(&esp(&["3des-md5"]), HOUR, mode, 4096);
        let chosen = choose_phase2(&esp(&["3des-md5"]), &EncapsulationMode::IN_UDP, &offer, 4097).unwrap();
        assert_eq!(chosen.is_some(), taken, "{mode}");
    }
}

/// An SA payload with several proposals: number, protocol, SPI and transforms of each.
fn bundle(proposals: &[(u8, ProtocolId, u32, Vec<Vec<u8>>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (number, protocol, spi, transforms)) in proposals.iter().enumerate() {
        let mut sa = write_sa(*number, *protocol, &spi.to_be_bytes(), transforms);
        if index + 1 < proposals.len() {
            sa[8] = PayloadType::P.0;
        }
        out.extend_from_slice(if index == 0 { &sa } else { &sa[8..] });
    }
    out
}

#[test]
fn of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen() {
    let with = |number, id| transform(number, id, &[(5, 1), (4, UDP.0)]);
    let offer = bundle(&[
        (1, ProtocolId::AH, 1001, vec![with(1, 2)]),
        (1, ProtocolId::ESP, 1002, vec![with(1, 3)]),
        // ESP_DES, which is not known here, and ESP_3DES.
        (2, ProtocolId::ESP, 1003, vec![with(1, 2), with(2, 3)]),
    ]);
    let (chosen, answer) = choose_phase2(&esp(&["3des-md5"]), &[UDP], &offer, 4097).unwrap().unwrap();
    assert_eq!(chosen.spi, 1003);
    assert_eq!(answer, write_sa(2, ProtocolId::ESP, &4097_u32.to_be_bytes(), &[with(2, 3)]));
    assert!(choose_phase2(&esp(&["aes128-sha1"]), &[UDP], &offer, 4097).unwrap().is_none());
}

#[test]
fn an_answer_with_several_proposals_is_refused() {
    let offered = esp(&["3des-md5"]);
    let with = |number| (number, ProtocolId::ESP, 1000, vec![transform(1, 3, &[(5, 1), (4, UDP.0)])]);
    assert!(accept_phase2(&offered, UDP, &bundle(&[with(1)])).is_ok());
    assert_eq!(accept_phase2(&offered, UDP, &bundle(&[with(1), with(2)])), Err("it holds several proposals"));
}
