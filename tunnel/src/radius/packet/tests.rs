use hex_literal::hex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const SECRET: &[u8] = b"xyzzy5461";

/// Answers of RFC 2865 section 7, each with the authenticator of its request.
const EXAMPLES: [(&[u8], [u8; AUTHENTICATOR]); 4] = [
    (
        &hex!("0200002686fe220e7624ba2a1005f6bf9b55e0b20606000000010f06000000000e06c0a80103"),
        hex!("0f403f9473978057bd83d5cb98f4227a"),
    ),
    (
        &hex!(
            "0201003815efbc7dab26cfa3dc34d9c03c8601a4060600000002070600000001080 6fffffffe0a06000000020d06000000010c06000005dc"
        ),
        hex!("2aee86f08d0d55969ca5978e0d3367a2"),
    ),
    (
        &hex!(
            "0b02004e36f3c8764ae8c71157403c0c71ff9c45 1230 4368616c6c656e67652033323736393433302e2020456e74657220726573706f6e73652061742070726f6d70742e 180a 3332373639343330"
        ),
        hex!("f3a47a1f6a6d76710b947ab93041a039"),
    ),
    (&hex!("03030014a42f4fca45916c4e09c8340f9e746aa0"), hex!("b122556d428a13d0d6253807c457ecf0")),
];

fn access_request() -> Vec<u8> {
    let mut builder = Builder::signed(Code::ACCESS_REQUEST, 9);
    builder.push(Attribute::USER_NAME, b"alice");
    builder.finish_access_request(std::array::from_fn(|at| at as u8), SECRET).unwrap()
}

fn accept(request: &[u8; AUTHENTICATOR]) -> Vec<u8> {
    let mut builder = Builder::signed(Code::ACCESS_ACCEPT, 9);
    builder.push(Attribute::FRAMED_IP_ADDRESS, &[10, 20, 5, 77]);
    builder.finish(*request, SECRET).unwrap()
}

#[test]
fn the_answers_of_the_rfc_are_from_somebody_with_its_secret() {
    for (octets, request) in EXAMPLES {
        let packet = Packet::parse(octets).unwrap();
        assert!(packet.is_from(&request, SECRET), "{:?}", packet.code);
        assert!(!packet.is_from(&request, b"xyzzy5462"), "{:?}", packet.code);
        assert!(!packet.is_from(&[0; AUTHENTICATOR], SECRET), "{:?}", packet.code);
        assert_eq!(packet.integrity(&request, SECRET), Integrity::Absent);
    }
}

#[test]
fn attributes_come_in_their_order() {
    let packet = Packet::parse(EXAMPLES[1].0).unwrap();
    let attributes: Vec<_> =
        packet.attributes().map(|(attribute, value)| (attribute.0, number(value).unwrap())).collect();
    assert_eq!(attributes, [(6, 2), (7, 1), (8, 0xffff_fffe), (10, 2), (13, 1), (12, 1_500)]);
    assert_eq!(packet.number(Attribute::FRAMED_MTU), Ok(Some(1_500)));
    assert_eq!(packet.number(Attribute::SESSION_TIMEOUT), Ok(None));
    let packet = Packet::parse(EXAMPLES[2].0).unwrap();
    assert_eq!(packet.first(Attribute::STATE), Some(&b"32769430"[..]));
    assert_eq!(packet.number(Attribute::STATE), Err(Malformed::Invalid("number")));
}

#[test]
fn a_packet_is_what_its_length_says() {
    let (octets, request) = EXAMPLES[1];
    let padded = [octets, b"padding"].concat();
    assert!(Packet::parse(&padded).unwrap().is_from(&request, SECRET));
    for (length, expected) in [
        (0, Malformed::Invalid("length")),
        (19, Malformed::Invalid("length")),
        (21, Malformed::Truncated("attribute length")),
        (25, Malformed::Truncated("attribute")),
        (57, Malformed::Truncated("packet")),
        (4_096, Malformed::Truncated("packet")),
        (4_097, Malformed::Invalid("length")),
        (65_535, Malformed::Invalid("length")),
    ] {
        let wrong = [&octets[..2], &u16::to_be_bytes(length), &octets[4..]].concat();
        assert_eq!(Packet::parse(&wrong).err(), Some(expected), "{length}");
    }
    for length in 0..octets.len() {
        assert!(Packet::parse(&octets[..length]).is_err(), "{length}");
    }
}

#[test]
fn an_attribute_without_room_for_its_header_is_refused() {
    for length in [0, 1] {
        let octets = [&[2, 0, 0, 22][..], &[0; 16], &[1, length]].concat();
        assert_eq!(Packet::parse(&octets).err(), Some(Malformed::Invalid("attribute length")));
    }
}

#[test]
fn the_message_authenticator_is_that_of_another_implementation() {
    // Python's hmac and hashlib.
    let written = access_request();
    assert_eq!(
        written,
        hex!("0109002d000102030405060708090a0b0c0d0e0f50124c70deb30994173553ae3ab34fa3fb880107616c696365")
    );
    let packet = Packet::parse(&written).unwrap();
    assert_eq!(packet.attributes().next().unwrap().0, Attribute::MESSAGE_AUTHENTICATOR);
    assert_eq!(packet.integrity(&packet.authenticator, SECRET), Integrity::Proved);
    assert_eq!(packet.integrity(&packet.authenticator, b"guess"), Integrity::Refuted);
    assert_eq!(
        accept(&packet.authenticator),
        hex!("0209002c05c0487cd0db8840e3a03638cf8b12875012923ad6b099aac2619971a23e9075ab1108060a14054d")
    );
}

#[test]
fn a_request_of_accounting_is_that_of_another_implementation() {
    let mut builder = Builder::new(Code::ACCOUNTING_REQUEST, 3);
    builder.push_number(Attribute::ACCT_STATUS_TYPE, 1).push(Attribute::ACCT_SESSION_ID, b"1");
    let written = builder.finish([0; AUTHENTICATOR], SECRET).unwrap();
    assert_eq!(written, hex!("0403001d887fb190d2633c3f5391ae63881577dc2806000000012c0331"));
    assert!(Packet::parse(&written).unwrap().is_from(&[0; AUTHENTICATOR], SECRET));
}

#[test]
fn only_one_whole_message_authenticator_proves_anything() {
    let request = [7; AUTHENTICATOR];
    let integrity = |change: fn(&mut Builder)| {
        let mut builder = Builder::signed(Code::ACCESS_ACCEPT, 9);
        change(&mut builder);
        let octets = builder.finish(request, SECRET).unwrap();
        Packet::parse(&octets).unwrap().integrity(&request, SECRET)
    };
    assert_eq!(integrity(|_| {}), Integrity::Proved);
    let again = |builder: &mut Builder| {
        builder.push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]);
    };
    assert_eq!(integrity(again), Integrity::Refuted);
    for length in [0, 15, 17, 253] {
        let mut builder = Builder::new(Code::ACCESS_ACCEPT, 9);
        builder.push(Attribute::MESSAGE_AUTHENTICATOR, &vec![0; length]);
        let octets = builder.finish(request, SECRET).unwrap();
        assert_eq!(Packet::parse(&octets).unwrap().integrity(&request, SECRET), Integrity::Refuted, "{length}");
    }
}

#[test]
fn a_message_authenticator_counts_wherever_it_is() {
    let request = [7; AUTHENTICATOR];
    let mut builder = Builder::new(Code::ACCESS_ACCEPT, 9);
    builder.push_number(Attribute::SESSION_TIMEOUT, 60).push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]);
    builder.push(Attribute::CLASS, b"c");
    let mut octets = builder.finish(request, SECRET).unwrap();
    let unsigned = [&octets[..4], &request, &octets[20..]].concat();
    let code = hash::hmac(Hash::Md5, SECRET, &[&unsigned]);
    octets[28..44].copy_from_slice(&code);
    let packet = Packet::parse(&octets).unwrap();
    assert_eq!(packet.integrity(&request, SECRET), Integrity::Proved);
    assert_eq!(packet.integrity(&[8; AUTHENTICATOR], SECRET), Integrity::Refuted);
}

#[test]
fn attributes_of_microsoft_are_found_among_those_of_others() {
    let mut builder = Builder::new(Code::ACCESS_ACCEPT, 1);
    builder.push(Attribute::VENDOR_SPECIFIC, &[0, 0, 1, 0x36, 26, 3, 9]);
    builder.push(Attribute::VENDOR_SPECIFIC, &[0, 0, 1]);
    builder.push(Attribute::VENDOR_SPECIFIC, &[0, 0, 1, 0x37, 2, 4, b'E', b'!', 26, 5, b'S', b'=', b'4']);
    let octets = builder.finish([0; AUTHENTICATOR], SECRET).unwrap();
    let packet = Packet::parse(&octets).unwrap();
    assert_eq!(packet.microsoft(Microsoft::MS_CHAP2_SUCCESS), Some(&b"S=4"[..]));
    assert_eq!(packet.microsoft(Microsoft::MS_CHAP_ERROR), Some(&b"E!"[..]));
    assert_eq!(packet.microsoft(Microsoft::MS_CHAP_CHALLENGE), None);
    // Cut short inside.
    let mut builder = Builder::new(Code::ACCESS_ACCEPT, 1);
    builder.push(Attribute::VENDOR_SPECIFIC, &[0, 0, 1, 0x37, 26, 9, 9]);
    let octets = builder.finish([0; AUTHENTICATOR], SECRET).unwrap();
    assert_eq!(Packet::parse(&octets).unwrap().microsoft(Microsoft::MS_CHAP2_SUCCESS), None);
}

#[test]
fn long_values_are_split_and_joined() {
    let value: Vec<u8> = (0..1_000).map(|at| (at % 251) as u8).collect();
    let mut builder = Builder::new(Code::ACCESS_CHALLENGE, 1);
    builder.push_split(Attribute::EAP_MESSAGE, &value);
    let octets = builder.finish([0; AUTHENTICATOR], SECRET).unwrap();
    let packet = Packet::parse(&octets).unwrap();
    let lengths: Vec<usize> = packet.all(Attribute::EAP_MESSAGE).map(<[u8]>::len).collect();
    assert_eq!(lengths, [253, 253, 253, 241]);
    assert_eq!(packet.joined(Attribute::EAP_MESSAGE), Some(value));
    assert_eq!(packet.joined(Attribute::STATE), None);
}

#[test]
fn nothing_longer_than_the_format_is_written() {
    let finish = |change: &dyn Fn(&mut Builder)| {
        let mut builder = Builder::new(Code::ACCESS_REQUEST, 1);
        change(&mut builder);
        builder.finish([0; AUTHENTICATOR], SECRET).map(|octets| octets.len())
    };
    let value = vec![0; MAX_PACKET];
    for (length, expected) in [(253, Ok(275)), (254, Err(TooLong))] {
        let text = |builder: &mut Builder| {
            builder.push(Attribute::USER_NAME, &value[..length]);
        };
        assert_eq!(finish(&text), expected);
    }
    for (length, expected) in [(247, Ok(275)), (248, Err(TooLong))] {
        let microsoft = |builder: &mut Builder| {
            builder.push_microsoft(Microsoft::MS_CHAP_CHALLENGE, &value[..length]);
        };
        assert_eq!(finish(&microsoft), expected);
    }
    for (length, expected) in [(4_044, Ok(MAX_PACKET)), (4_045, Err(TooLong))] {
        let eap = |builder: &mut Builder| {
            builder.push_split(Attribute::EAP_MESSAGE, &value[..length]);
        };
        assert_eq!(finish(&eap), expected);
    }
}

#[test]
fn whatever_happens_to_an_answer_it_proves_nothing_any_more() {
    let mut rng = StdRng::from_seed([5; 32]);
    let request = [7; AUTHENTICATOR];
    let answer = accept(&request);
    for _ in 0..20_000 {
        let mut octets = answer.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..octets.len());
            match rng.random_range(0..4) {
                0 => octets[at] ^= 1 << rng.random_range(0..8),
                1 => octets[at] = rng.random(),
                2 => octets.truncate(at.max(1)),
                _ => octets.insert(at, rng.random()),
            }
        }
        let Ok(packet) = Packet::parse(&octets) else { continue };
        if octets.get(..answer.len()) != Some(&answer) {
            assert!(!packet.is_from(&request, SECRET), "{octets:x?}");
            let is_same = octets[..4] == answer[..4] && octets.get(HEADER..answer.len()) == answer.get(HEADER..);
            assert_eq!(packet.integrity(&request, SECRET) == Integrity::Proved, is_same, "{octets:x?}");
        }
    }
}

#[test]
fn any_octets_can_be_taken_apart() {
    let mut rng = StdRng::from_seed([6; 32]);
    for _ in 0..20_000 {
        let mut octets = vec![0; rng.random_range(0..120)];
        rng.fill_bytes(&mut octets);
        if let (Some(high), Ok(length)) = (octets.get(2).copied(), u8::try_from(octets.len())) {
            octets[2] = if rng.random() { 0 } else { high };
            if let Some(low) = octets.get_mut(3) {
                *low = length;
            }
        }
        if let Ok(packet) = Packet::parse(&octets) {
            let length: usize = packet.attributes().map(|(_, value)| value.len() + 2).sum();
            assert_eq!(HEADER + length, octets.len());
            packet.microsoft(Microsoft::MS_CHAP2_SUCCESS);
            packet.integrity(&[0; AUTHENTICATOR], SECRET);
        }
    }
}
