use hex_literal::hex;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::crypto::hash::hmac;
use crate::inet::PROTOCOL_UDP;
use crate::suite::{Cipher, Hash};

const SPI: u32 = 0x1234_5678;

fn rng() -> StdRng {
    StdRng::seed_from_u64(11)
}

/// Every cipher with every integrity that it can have.
fn proposals() -> Vec<EspProposal> {
    let aead = |cipher: Cipher| EspProposal { cipher, integrity: None, group: None };
    let hashes = |cipher| Hash::ALL.iter().map(move |&hash| EspProposal { cipher, integrity: Some(hash), group: None });
    Cipher::ALL
        .iter()
        .flat_map(|&cipher| if cipher.is_aead() { vec![aead(cipher)] } else { hashes(cipher).collect() })
        .collect()
}

fn keys(proposal: &EspProposal) -> Keys {
    let (encryption, integrity) = proposal.key_sizes();
    let keymat: Vec<u8> = (0..encryption + integrity).map(|i| i as u8 ^ 0x5A).collect();
    Keys::from_keymat(*proposal, &keymat).unwrap()
}

fn pair(proposal: &EspProposal, lifetime: Lifetime) -> (OutboundSa, InboundSa) {
    let keys = keys(proposal);
    (OutboundSa::new(SPI, &keys, lifetime, rng()).unwrap(), InboundSa::new(SPI, &keys, lifetime).unwrap())
}

fn seal(sa: &mut OutboundSa, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    sa.seal(&mut packet, PROTOCOL_UDP, &[payload]).unwrap();
    packet
}

/// Opens a foreign packet, and makes the same packet of the same payload, sequence number and IV.
fn agree(keys: &Keys, packet: &[u8], next_header: u8, payload: &[u8]) {
    let spi = u32::from_be_bytes(*packet.first_chunk().unwrap());
    let mut sa = InboundSa::new(spi, keys, Lifetime::default()).unwrap();
    let mut copy = packet.to_vec();
    let opened = sa.open(&mut copy).unwrap();
    assert_eq!((opened.next_header, &*opened.payload), (next_header, payload));

    let sa = OutboundSa::new(spi, keys, Lifetime::default(), rng()).unwrap();
    let mut written = Vec::new();
    sa.write(&mut written, packet::sequence_number(packet).unwrap(), &packet[8..], next_header, &[payload]);
    assert_eq!(written, packet);
}

fn foreign(proposal: &str, encryption: &[u8], integrity: &[u8]) -> Keys {
    let proposal = proposal.parse().unwrap();
    Keys { proposal, encryption: encryption.to_vec().into(), integrity: integrity.to_vec().into() }
}

/// A packet with that much of the code of HMAC-SHA2-256.
fn truncated(proposal: &str, sequence_number: u32, truncation: Truncation) -> Vec<u8> {
    let keys = keys(&proposal.parse().unwrap());
    let mut sa = OutboundSa::new(SPI, &keys, Lifetime::default(), rng()).unwrap();
    sa.set_truncation(truncation);
    let mut packet = Vec::new();
    sa.write(&mut packet, sequence_number, &[3; MAX_IV], PROTOCOL_UDP, &[b"payload"]);
    packet
}

#[test]
fn authentic_packets_decide_how_much_of_hmac_sha2_256_is_asked_for_and_never_make_it_less() {
    for proposal in ["aes128-sha256", "3des-sha256"] {
        let keys = keys(&proposal.parse().unwrap());
        let (short, long) = (Truncation::Bits96, Truncation::Bits128);
        let mut sa = InboundSa::new(SPI, &keys, Lifetime::default()).unwrap();
        for known in [None, Some(short)] {
            // Forged packets decide nothing.
            for truncation in [short, long] {
                let mut forged = truncated(proposal, 9, truncation);
                *forged.last_mut().unwrap() ^= 1;
                assert_eq!(sa.open(&mut forged), Err(OpenError::Authentication));
                assert_eq!(sa.truncation(), known);
            }
            let number = if known.is_none() { 1 } else { 2 };
            assert_eq!(&*sa.open(&mut truncated(proposal, number, short)).unwrap().payload, b"payload");
            assert_eq!(sa.truncation(), Some(short));
        }
        sa.open(&mut truncated(proposal, 3, long)).unwrap();
        assert_eq!(sa.truncation(), Some(long));
        assert_eq!(sa.open(&mut truncated(proposal, 4, short)), Err(OpenError::Malformed));
        assert!(sa.open(&mut truncated(proposal, 5, long)).is_ok());
    }
}

#[test]
fn a_packet_with_96_bits_of_hmac_sha2_256_is_that_of_128_without_its_end() {
    let (short, long) =
        [Truncation::Bits96, Truncation::Bits128].map(|bits| truncated("aes256-sha256", 9, bits)).into();
    assert_eq!(short, long[..long.len() - 4]);
}

#[test]
fn other_algorithms_are_never_truncated() {
    for proposal in proposals().iter().filter(|proposal| proposal.integrity != Some(Hash::Sha256)) {
        let (mut outbound, mut inbound) = pair(proposal, Lifetime::default());
        let whole = seal(&mut outbound, b"payload").len();
        outbound.set_truncation(Truncation::Bits96);
        let mut packet = seal(&mut outbound, b"payload");
        assert_eq!((packet.len(), outbound.truncation()), (whole, None));
        inbound.open(&mut packet).unwrap();
        assert_eq!(inbound.truncation(), None);
    }
}

/// RFC 3602 section 4, cases 5 and 6, with an ICV added: the RFC's packets have none.
#[test]
fn packets_of_rfc_3602_are_opened_and_made() {
    let keys = foreign("aes128-sha1", &hex!("90d382b410eeba7ad938c46cec1a82bf"), &[7; 20]);
    let vectors: [(&[u8], &[u8]); 2] = [
        (
            &hex!(
                "0000432100000001e96e8c08ab465763fd098d45dd3ff893"
                "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52"
                "775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6"
            ),
            &hex!(
                "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617"
                "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
            ),
        ),
        (
            &hex!(
                "000043210000000869d08df7d203329db093fc4924e5bd80"
                "f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75"
            ),
            &hex!("0800b5e8a80a0500a69c083d0b660e00777777777777777777777777"),
        ),
    ];
    for (packet, payload) in vectors {
        let icv = hmac(Hash::Sha1, &keys.integrity, &[packet]);
        agree(&keys, &[packet, &icv[..12]].concat(), 1, payload);
    }
}

/// Captured between strongSwan 5.9.8 on Linux 6.1 and itself: aes256-sha256 in UDP.
#[test]
fn packets_of_linux_with_aes_cbc_are_opened_and_made() {
    agree(
        &foreign(
            "aes256-sha256",
            &hex!("e1aa0071a36621188a48294e4f6e386e94d482341af92b863b337fe9b53e1d7b"),
            &hex!("3efaaaab80f42153c8ab3491ca11d642e5df97a214cf752a2a2022370b02cfd8"),
        ),
        &hex!(
            "cdca8cfc000000034702e0e15f43cecd6b1ecbe51a21d69f03f6af4b7d220915ce75982f1ed51d3e"
            "8620926850e5d73c7a80db5424566a45a9ce0e1f85ef3dfe77adcab63f118b1f"
        ),
        17,
        &hex!("06a506a5001c0000c8020014414c0000000100018008000000000003"),
    );
    agree(
        &foreign(
            "aes256-sha256",
            &hex!("f78e70aae16d956aa3e581c65dcde784a6cc137184ae5e76db444756832c1a60"),
            &hex!("7884deb6934b58e9cb6f2fb34929c5862c8875f1573e3d6a164750b71987670e"),
        ),
        &hex!(
            "c5a9e7940000000220a82c5025a10a0f28fac367d81941c813c74bca7ff990c2dc57585052b57d85"
            "f6d914be75d0296cfe20282955e854650663fd41e692b8c11e4aef132c12a10d"
        ),
        17,
        &hex!("06a506a500140000c802000c845c000000010002"),
    );
    // The session without UDP encapsulation.
    agree(
        &foreign(
            "aes256-sha256",
            &hex!("9e059f2ee07454d17290b24ba428a79b939879abc2867559495c59a38335d670"),
            &hex!("e687d99fb4d22a3f2be0c8409004612ec7c579d10cdbe393d2833082bca3b454"),
        ),
        &hex!(
            "c41c996e00000003b7a362a023a964eff5cc8eb08f1940a24b2646ee7f7be6ee5573c94521b2002a"
            "e52b97757d36f7271c4fbd21511230e8e1e6caded1486622f50e22bf2f64ac63"
        ),
        17,
        &hex!("06a506a5001c0000c8020014f5830000000100018008000000000003"),
    );
}

/// As above, aes128gcm16.
#[test]
fn packets_of_linux_with_aes_gcm_are_opened_and_made() {
    agree(
        &foreign("aes128gcm16", &hex!("9d1db92ad53f081f212d007c8b0eae5f47d45a1e"), &[]),
        &hex!(
            "c527e9ac0000000849cdfe013521108b8256a76383cac1fef288ad970f6b6d49"
            "e9e054c4865e72c05edca15e1d52b7c67a04ab04124e3d6925af1023"
        ),
        17,
        &hex!("06a506a5001a00000002d08df7cdff03c021090000081557efa9"),
    );
    agree(
        &foreign("aes128gcm16", &hex!("4cb1aba196f1a930b457fd668f80e5c4e70f6499"), &[]),
        &hex!(
            "c7d609bb000000029f66bc4d8eade0a13f4d14611135cd7b12db7a19af3df0e4"
            "1a5a09c037aebbcbd6c67e0dfc0936a6dff763214058cb54"
        ),
        17,
        &hex!("06a506a500140000c802000cf286000000010002"),
    );
}

/// Computed with Python's `hmac` and `hashlib` and with `cryptography` 48.0.0 (OpenSSL) from the forms of RFC 4303 section 2
/// and RFC 3602: suites of which no capture is at hand. The integrity keys have the sizes of RFC 4868 section 2.1.1 ("a fixed
/// key length equal to the output length of the hash functions") and RFC 2403 section 2 ("only 128-bit keys").
#[test]
fn packets_of_another_implementation_are_opened_and_made() {
    let vectors: [(Keys, &[u8]); 4] = [
        (
            foreign(
                "aes192-sha384",
                &hex!("7c9616269add9c9d2bc5a515fb156fdae3ca87b4dec8c457"),
                &hex!(
                    "41f66e726491708a50227bea43de5fddf780e1f233c416fa"
                    "00f9428379e391ce144856c335a05bde315d06bc72cf54f7"
                ),
            ),
            &hex!(
                "c0ffee0100000001fa05251bfdb747e870344d2ea3d61147"
                "886e2536d33a7aae9dc6f8f90810e4bfba6a276292fb18456678dbd37041e332"
                "b59e6f45d3dd7eb0e0339e0881417e77d7ece2803eac579e"
            ),
        ),
        (
            foreign(
                "aes256-sha512",
                &hex!("295d3f357ebe574a1c59e2c529e124983f30c87e6500a1f12403c4bc88e8d667"),
                &hex!(
                    "96e01bb67340262bf0974487a87b68bcf4c669947f5ca51a11e6dad540fffea2"
                    "7a70f80f7e839f8b6ba2014659f25e2f96b68d8b39a26d9b57da5a6ed6a11fc0"
                ),
            ),
            &hex!(
                "c0ffee0201020304017ef86c33a34345e8305273ad701b33"
                "95558f1a0d89e66e3b5105931c0e8ca539dc7c5c4b8a113910c22652057dc229"
                "7736842248754caf34b9e645923e75762e044c2d254cbe686b78bdc91e49cf2a"
            ),
        ),
        (
            foreign("aes128-md5", &hex!("bd42cff67a7e1b38da5f36a4be41df2e"), &hex!("e51f343d810c56787af81eb54e7fd537")),
            &hex!(
                "c0ffee0300000007ec6c2a45f75b8f642e9704111d761fab"
                "c83d09c512c1dae97fd94a2fd11bb9c4ce8797c2a668b7647a967da2c9d45a82"
                "458caa61c00b42ad14748b7f"
            ),
        ),
        (
            foreign(
                "aes192-sha1",
                &hex!("884e532f18339f00e51c239e906e212545f7541d8b0d571a"),
                &hex!("f28f903f7034b6978a8beb47eea23c5a4d010bd8"),
            ),
            &hex!(
                "c0ffee040000000929125a8a61de52dfa50f1fd0090d03a5"
                "eb3dc9584b1dcfba0e5edc2e7b8098482ab37c9d0a7c0c417f53a42c7ac410aa"
                "11e8a717c43f60c85be28c7e"
            ),
        ),
    ];
    let payload = hex!("06a506a5001c0000c8020014414c0000000100018008000000000003");
    for (keys, packet) in vectors {
        agree(&keys, packet, 17, &payload);
    }
}

/// As above, 3des-sha1.
#[test]
fn packets_of_linux_with_triple_des_are_opened_and_made() {
    agree(
        &foreign(
            "3des-sha1",
            &hex!("63bdddfd5174a4b826c9f0a5dafb46f81d8591b7930d89f3"),
            &hex!("5300f7905908fbe9a6709c944a2304cbd559feef"),
        ),
        &hex!(
            "cba923ec00000003b565df443542958b2662c0c44120cbf604b3f3c3186728d9"
            "a24b7b4b31f80317a79e306a49ec8683400e443131a3aa595a32aa0d"
        ),
        17,
        &hex!("06a506a5001c0000c8020014ebaa0000000100018008000000000003"),
    );
    agree(
        &foreign(
            "3des-sha1",
            &hex!("76a4e8ed1edd3073872757fc03206767880e7ccd65e70c1b"),
            &hex!("d026e6be0189a8e41c9d530ef9faffea8b9d3b2d"),
        ),
        &hex!(
            "c94b4a8a000000021c3fe73f58a08b18f75deff9552c3674fab97f3e2e1654e1"
            "e137daf527bb78594ed7dcb7600fa79277c1ac9b"
        ),
        17,
        &hex!("06a506a500140000c802000c7c21000000010002"),
    );
}

#[test]
fn what_one_end_seals_the_other_opens_under_every_suite() {
    for proposal in proposals() {
        let (mut outbound, mut inbound) = pair(&proposal, Lifetime::default());
        let mut out = b"before".to_vec();
        for length in (0..70).chain([1400]) {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let (a, b) = payload.split_at(length / 3);
            let start = out.len();
            outbound.seal(&mut out, PROTOCOL_UDP, &[a, &[], b]).unwrap();
            assert_eq!(out.len() - start, packet_size(&proposal, length), "{proposal}");
            let mut packet = out[start..].to_vec();
            assert_eq!(classify(&packet), Datagram::Esp { spi: SPI });
            let opened = inbound.open(&mut packet).unwrap();
            assert_eq!((opened.next_header, &*opened.payload), (PROTOCOL_UDP, &payload[..]), "{proposal} {length}");
        }
        assert!(out.starts_with(b"before"));
        assert_eq!((outbound.usage().packets, inbound.usage().packets), (71, 71));
    }
}

#[test]
fn the_first_packet_has_number_1_and_vectors_never_repeat() {
    for proposal in proposals() {
        let (mut outbound, _) = pair(&proposal, Lifetime::default());
        let packets: Vec<_> = (0..50).map(|_| seal(&mut outbound, b"same")).collect();
        let numbers: Vec<_> = packets.iter().filter_map(|packet| packet::sequence_number(packet)).collect();
        assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
        let vectors: std::collections::BTreeSet<_> = packets.iter().map(|packet| &packet[8..16]).collect();
        assert_eq!(vectors.len(), 50, "{proposal}");
    }
}

#[test]
fn the_window_moves_only_for_authentic_packets_and_takes_each_once() {
    for proposal in proposals() {
        let (mut outbound, mut inbound) = pair(&proposal, Lifetime::default());
        let [first, second] = [(); 2].map(|()| seal(&mut outbound, b"payload"));
        outbound.sequence_number = 1_000_000;
        let mut forged = seal(&mut outbound, b"payload");
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(inbound.open(&mut forged), Err(OpenError::Authentication), "{proposal}");
        assert!(inbound.open(&mut second.clone()).is_ok(), "{proposal}: the forgery moved the window");
        assert!(inbound.open(&mut first.clone()).is_ok());
        assert_eq!(inbound.open(&mut first.clone()), Err(OpenError::Replayed));
        assert!(inbound.open(&mut seal(&mut outbound, b"payload")).is_ok());
        assert_eq!(inbound.open(&mut first.clone()), Err(OpenError::Stale));
        assert_eq!(inbound.usage().packets, 3);
    }
}

#[test]
fn sequence_number_zero_is_malformed_though_authentic() {
    let (outbound, mut inbound) = pair(&"aes128-sha1".parse().unwrap(), Lifetime::default());
    let mut packet = Vec::new();
    outbound.write(&mut packet, 0, &[0; MAX_IV], PROTOCOL_UDP, &[b"payload"]);
    assert_eq!(inbound.open(&mut packet), Err(OpenError::Malformed));
}

#[test]
fn every_changed_or_missing_octet_is_noticed() {
    for proposal in proposals() {
        let (mut outbound, mut inbound) = pair(&proposal, Lifetime::default());
        // Before any packet one of HMAC-SHA2-256 may be short.
        inbound.open(&mut seal(&mut outbound, b"the first packet")).unwrap();
        let before = inbound.usage();
        let packet = seal(&mut outbound, b"a payload of some length");
        for at in 4..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 0x10;
            assert_eq!(inbound.open(&mut changed), Err(OpenError::Authentication), "{proposal} {at}");
        }
        for length in 0..packet.len() {
            let mut short = packet[..length].to_vec();
            let error = inbound.open(&mut short).unwrap_err();
            assert!(matches!(error, OpenError::Malformed | OpenError::Authentication), "{proposal} {length} {error}");
        }
        assert_eq!(inbound.usage(), before);
        assert!(inbound.open(&mut packet.clone()).is_ok());
    }
}

#[test]
fn random_octets_are_refused_without_a_panic() {
    let mut rng = rng();
    for proposal in proposals() {
        let (_, mut inbound) = pair(&proposal, Lifetime::default());
        for _ in 0..300 {
            let mut packet = vec![0; rng.random_range(0..200)];
            rng.fill_bytes(&mut packet);
            classify(&packet);
            assert!(inbound.open(&mut packet).is_err());
        }
    }
}

#[test]
fn authentic_plaintexts_of_any_form_do_not_panic() {
    let proposal = "aes256gcm16".parse().unwrap();
    let (outbound, mut inbound) = pair(&proposal, Lifetime::default());
    let mut rng = rng();
    for number in 1..2000_u32 {
        let mut packet = Vec::new();
        packet::write_header(&mut packet, SPI, number);
        packet.resize(16 + 4 * rng.random_range(1..20), 0);
        let (_, plaintext) = packet.split_at_mut(16);
        rng.fill_bytes(plaintext);
        let icv = outbound.transform.seal(&mut packet);
        packet.extend_from_slice(&icv);
        match inbound.open(&mut packet) {
            Ok(opened) => assert_ne!(opened.next_header, NEXT_HEADER_NONE),
            Err(error) => assert!(matches!(error, OpenError::Padding | OpenError::Dummy), "{error}"),
        }
    }
}

#[test]
fn dummies_are_dropped_by_a_name_of_their_own() {
    let (mut outbound, mut inbound) = pair(&"aes128-sha256".parse().unwrap(), Lifetime::default());
    let mut packet = Vec::new();
    outbound.seal(&mut packet, NEXT_HEADER_NONE, &[b"noise"]).unwrap();
    assert_eq!(inbound.open(&mut packet.clone()), Err(OpenError::Dummy));
    assert_eq!(inbound.open(&mut packet), Err(OpenError::Replayed));
}

#[test]
fn sequence_numbers_do_not_cycle() {
    let (mut outbound, mut inbound) = pair(&"aes128gcm16".parse().unwrap(), Lifetime::default());
    assert!(!outbound.needs_rekey() && !inbound.needs_rekey());
    outbound.sequence_number = u32::MAX - 1;
    assert!(outbound.needs_rekey() && !outbound.is_exhausted());
    assert!(inbound.open(&mut seal(&mut outbound, b"last")).is_ok());
    assert!(outbound.is_exhausted() && inbound.needs_rekey());
    let mut out = b"kept".to_vec();
    assert_eq!(outbound.seal(&mut out, PROTOCOL_UDP, &[b"one more"]), Err(SealError::Exhausted));
    assert_eq!(out, b"kept");
}

#[test]
fn a_lifetime_asks_for_a_successor_and_then_ends_both_directions() {
    let lifetime = Lifetime { packets: Some(10), octets: None };
    let (mut outbound, mut inbound) = pair(&"aes256-sha256".parse().unwrap(), lifetime);
    for number in 0..10 {
        assert_eq!((outbound.needs_rekey(), inbound.needs_rekey()), (number >= 8, number >= 8), "{number}");
        inbound.open(&mut seal(&mut outbound, b"x")).unwrap();
    }
    assert!(outbound.is_exhausted() && inbound.is_exhausted());
    assert_eq!(outbound.seal(&mut Vec::new(), PROTOCOL_UDP, &[]), Err(SealError::Exhausted));
    outbound.meter = Meter::new(Lifetime::default());
    assert_eq!(inbound.open(&mut seal(&mut outbound, b"x")), Err(OpenError::Expired));
}

#[test]
fn payloads_beyond_a_datagram_are_refused() {
    for proposal in proposals() {
        let (mut outbound, _) = pair(&proposal, Lifetime::default());
        let longest = (0..MAX_PACKET).rev().find(|&payload| packet_size(&proposal, payload) <= MAX_PACKET).unwrap();
        let payload = vec![0; MAX_PACKET + 1];
        for length in [longest + 1, MAX_PACKET, MAX_PACKET + 1] {
            let refused = outbound.seal(&mut Vec::new(), PROTOCOL_UDP, &[&payload[..length]]);
            assert_eq!(refused, Err(SealError::TooLong), "{proposal} {length}");
        }
        assert_eq!(outbound.seal(&mut Vec::new(), PROTOCOL_UDP, &[&payload[..longest]]), Ok(()), "{proposal}");
    }
}

#[test]
fn a_buffer_that_is_used_again_does_not_grow() {
    for proposal in proposals() {
        let (mut outbound, _) = pair(&proposal, Lifetime::default());
        let mut out = Vec::with_capacity(packet_size(&proposal, 1400));
        let memory = (out.as_ptr(), out.capacity());
        for _ in 0..10 {
            out.clear();
            outbound.seal(&mut out, PROTOCOL_UDP, &[&[0; 1400]]).unwrap();
            assert_eq!((out.as_ptr(), out.capacity()), memory, "{proposal}");
        }
    }
}

#[test]
fn reserved_spis_and_unfit_keys_are_refused() {
    let good = keys(&"aes256-sha256".parse().unwrap());
    let lifetime = Lifetime::default();
    for spi in [0, 1, LAST_RESERVED_SPI] {
        assert_eq!(InboundSa::new(spi, &good, lifetime).err(), Some(InvalidSa::ReservedSpi(spi)));
        assert_eq!(OutboundSa::new(spi, &good, lifetime, rng()).err(), Some(InvalidSa::ReservedSpi(spi)));
    }
    assert!(InboundSa::new(LAST_RESERVED_SPI + 1, &good, lifetime).is_ok());
    let without_integrity = EspProposal { cipher: Cipher::Aes256, integrity: None, group: None };
    let twofold = EspProposal { cipher: Cipher::Aes256Gcm16, integrity: Some(Hash::Sha256), group: None };
    let short = Keys { encryption: vec![0; 31].into(), ..good.clone() };
    let no_integrity_key = Keys { integrity: Vec::new().into(), ..good };
    for keys in [keys(&without_integrity), keys(&twofold), short, no_integrity_key] {
        assert_eq!(InboundSa::new(SPI, &keys, lifetime).err(), Some(InvalidSa::Key(InvalidKey)));
    }
}

#[test]
fn keying_material_is_cut_with_the_cipher_first_and_nothing_left() {
    let proposal: EspProposal = "aes256gcm16".parse().unwrap();
    assert_eq!(proposal.key_sizes(), (36, 0));
    let proposal: EspProposal = "aes128-sha384".parse().unwrap();
    assert_eq!(proposal.key_sizes(), (16, 48));
    let keymat: Vec<u8> = (0..64).collect();
    let keys = Keys::from_keymat(proposal, &keymat).unwrap();
    assert_eq!((&keys.encryption[..], &keys.integrity[..]), keymat.split_at(16));
    for length in [0, 15, 63] {
        assert!(Keys::from_keymat(proposal, &keymat[..length]).is_err());
    }
    assert!(Keys::from_keymat(proposal, &[0; 65]).is_err());
}
