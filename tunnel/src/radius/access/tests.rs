use hex_literal::hex;
use rand::SeedableRng;

use super::super::attribute::MICROSOFT;
use super::super::packet::Integrity;
use super::*;

const SECRET: &[u8] = b"xyzzy5461";
const REQUEST: [u8; AUTHENTICATOR] = [7; AUTHENTICATOR];

fn access(proof: Proof) -> Access {
    Access {
        request: aaa::Request { name: "User".to_owned(), proof },
        session: SessionInfo {
            port: 20,
            peer: "203.0.113.9".parse().unwrap(),
            local: "::ffff:192.0.2.1".parse().unwrap(),
            mtu: 1_400,
        },
        session_id: "s-1".to_owned(),
        nas_identifier: "towline".into(),
        conversation: None,
    }
}

fn pap(password: &[u8]) -> Proof {
    Proof::Pap { password: Zeroizing::new(password.to_vec()) }
}

/// The example of RFC 2759 section 9.2.
fn ms_chap_v2() -> Proof {
    Proof::MsChapV2 {
        id: 1,
        authenticator_challenge: hex!("5B5D7C7D7B3F2F3E3C2C602132262628"),
        peer_challenge: hex!("21402324255E262A28295F2B3A337C7E"),
        nt_response: hex!("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"),
    }
}

fn eap(packet: &[u8]) -> Proof {
    Proof::Eap { packet: packet.to_vec() }
}

fn written(access: &Access) -> Vec<u8> {
    access.write(Instant::now(), 5, SECRET, &mut StdRng::from_seed([1; 32])).unwrap()
}

fn answer(code: Code, attributes: &[(Attribute, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::signed(code, 5);
    for (attribute, value) in attributes {
        builder.push(*attribute, value);
    }
    builder.finish(REQUEST, SECRET).unwrap()
}

fn verdict_of(access: &Access, octets: &[u8]) -> Verdict {
    access.verdict(&Packet::parse(octets).unwrap(), Some(Duration::from_secs(600)))
}

fn verdict(proof: Proof, code: Code, attributes: &[(Attribute, &[u8])]) -> Verdict {
    verdict_of(&access(proof), &answer(code, attributes))
}

fn granted(proof: Proof, attributes: &[(Attribute, &[u8])]) -> Grant {
    match verdict(proof, Code::ACCESS_ACCEPT, attributes) {
        Verdict::Accept(grant) => *grant,
        other => panic!("{other:?}"),
    }
}

fn refused() -> Verdict {
    Verdict::Reject(Refusal::new(Cause::RadiusReject))
}

/// The requests of RFC 2865 section 7 that have a password.
#[test]
fn passwords_are_hidden_as_in_the_examples_of_the_rfc() {
    for (name, password, authenticator, expected) in [
        (
            &b"nemo"[..],
            &b"arctangent"[..],
            hex!("0f403f9473978057bd83d5cb98f4227a"),
            &hex!(
                "010000380f403f9473978057bd83d5cb98f4227a01066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a8011005 0600000003"
            )[..],
        ),
        (
            b"mopsy",
            b"challenge",
            hex!("f3a47a1f6a6d76710b947ab93041a039"),
            &hex!(
                "01020039f3a47a1f6a6d76710b947ab93041a03901076d6f7073790212336575737782 89b570885e15084825c50406c0a80110050600000007"
            ),
        ),
        (
            b"mopsy",
            b"99101462",
            hex!("b122556d428a13d0d6253807c457ecf0"),
            &hex!(
                "01030043b122556d428a13d0d6253807c457ecf001076d6f7073790212692c1f205fc081b919b95195f561a5810406c0a80110050600000007 180a3332373639343330"
            ),
        ),
    ] {
        let example = Packet::parse(expected);
        // The length of the last one in the RFC's text is right for its State of 10 octets.
        let example = example.unwrap();
        let mut builder = Builder::new(Code::ACCESS_REQUEST, example.id);
        builder.push(Attribute::USER_NAME, name);
        push_proof(&pap(password), &authenticator, SECRET, &mut builder).unwrap();
        for (attribute, value) in example.attributes().skip(2) {
            builder.push(attribute, value);
        }
        assert_eq!(builder.finish_access_request(authenticator, SECRET).unwrap(), expected);
    }
}

#[test]
fn the_chap_request_of_the_rfc_says_its_challenge_as_well() {
    let example = hex!(
        "010100472aee86f08d0d55969ca5978e0d3367a20108666c6f70737903 1316e9755 7c316185895f293ff634407727504 06c0a80110050600000014060600000002070600000001"
    );
    let example = Packet::parse(&example).unwrap();
    let response = hex!("e97557c316185895f293ff6344077275");
    let proof = Proof::Chap { id: 0x16, challenge: example.authenticator.to_vec(), response };
    let octets = written(&access(proof));
    let packet = Packet::parse(&octets).unwrap();
    assert_eq!(packet.first(Attribute::CHAP_PASSWORD), example.first(Attribute::CHAP_PASSWORD));
    assert_eq!(packet.first(Attribute::CHAP_CHALLENGE), Some(&example.authenticator[..]));
}

#[test]
fn a_long_password_is_hidden_block_by_block() {
    // Undone as RFC 2865 section 5.2 tells.
    let password: Vec<u8> = (1..=128).collect();
    for length in [0, 1, 15, 16, 17, 128] {
        let hidden = hide(&password[..length], &REQUEST, SECRET).unwrap();
        assert_eq!(hidden.len(), length.div_ceil(16).max(1) * 16);
        let mut shown = Vec::new();
        let mut previous = REQUEST.to_vec();
        for block in hidden.chunks(16) {
            let mask = hash::digest(Hash::Md5, &[SECRET, &previous]);
            shown.extend(block.iter().zip(mask).map(|(octet, mask)| octet ^ mask));
            previous = block.to_vec();
        }
        assert_eq!(&shown[..length], &password[..length]);
        assert!(shown[length..].iter().all(|octet| *octet == 0));
    }
    assert!(hide(&[1; 129], &REQUEST, SECRET).is_err());
}

#[test]
fn a_request_says_who_asks_and_for_what() {
    let octets = written(&access(pap(b"secret")));
    let packet = Packet::parse(&octets).unwrap();
    assert_eq!(packet.integrity(&packet.authenticator, SECRET), Integrity::Proved);
    assert_eq!(packet.attributes().next().map(|(attribute, _)| attribute), Some(Attribute::MESSAGE_AUTHENTICATOR));
    for (attribute, value) in [
        (Attribute::USER_NAME, &b"User"[..]),
        (Attribute::NAS_IDENTIFIER, b"towline"),
        (Attribute::NAS_PORT, &[0, 0, 0, 20]),
        (Attribute::NAS_PORT_TYPE, &[0, 0, 0, 5]),
        (Attribute::SERVICE_TYPE, &[0, 0, 0, 2]),
        (Attribute::FRAMED_PROTOCOL, &[0, 0, 0, 1]),
        (Attribute::CALLING_STATION_ID, b"203.0.113.9"),
        (Attribute::CALLED_STATION_ID, b"192.0.2.1"),
        (Attribute::TUNNEL_TYPE, &[0, 0, 0, 3]),
        (Attribute::TUNNEL_MEDIUM_TYPE, &[0, 0, 0, 1]),
        (Attribute::ACCT_SESSION_ID, b"s-1"),
    ] {
        assert_eq!(packet.all(attribute).collect::<Vec<_>>(), [value], "{attribute}");
    }
    assert_eq!(packet.attributes().count(), 13);
}

#[test]
fn the_response_of_ms_chap_v2_is_laid_out_as_in_rfc_2548() {
    let octets = written(&access(ms_chap_v2()));
    let packet = Packet::parse(&octets).unwrap();
    assert_eq!(packet.microsoft(Microsoft::MS_CHAP_CHALLENGE), Some(&hex!("5B5D7C7D7B3F2F3E3C2C602132262628")[..]));
    let response =
        hex!("010021402324255E262A28295F2B3A337C7E000000000000000082309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");
    assert_eq!(packet.microsoft(Microsoft::MS_CHAP2_RESPONSE), Some(&response[..]));
}

#[test]
fn eap_goes_in_pieces_with_the_state_of_its_conversation_and_the_room_of_the_link() {
    let packet: Vec<u8> = (0..600).map(|at| at as u8).collect();
    let mut access = access(eap(&packet));
    access.conversation = Some((1, Some(b"cookie".to_vec())));
    let octets = written(&access);
    let request = Packet::parse(&octets).unwrap();
    assert_eq!(request.joined(Attribute::EAP_MESSAGE), Some(packet));
    assert_eq!(request.first(Attribute::STATE), Some(&b"cookie"[..]));
    assert_eq!(request.number(Attribute::FRAMED_MTU), Ok(Some(1_400)));
    assert_eq!(access.server(), Some(1));
}

#[test]
fn nobody_is_asked_what_nobody_can_answer() {
    let nameless = Access { request: aaa::Request { name: String::new(), proof: pap(b"x") }, ..access(pap(b"x")) };
    assert_eq!(nameless.obstacle(), Some(Cause::UnknownUser));
    assert_eq!(access(Proof::Certificate).obstacle(), Some(Cause::UnknownUser));
    assert_eq!(access(pap(&[b'x'; 129])).obstacle(), Some(Cause::NoCredentials));
    assert_eq!(access(pap(&[b'x'; 128])).obstacle(), None);
}

#[test]
fn a_grant_is_what_the_server_says() {
    let attributes: &[(Attribute, &[u8])] = &[
        (Attribute::SERVICE_TYPE, &[0, 0, 0, 2]),
        (Attribute::FRAMED_PROTOCOL, &[0, 0, 0, 1]),
        (Attribute::USER_NAME, b"user@example.org"),
        (Attribute::FRAMED_IP_ADDRESS, &[10, 20, 5, 77]),
        (Attribute::FRAMED_IPV6_PREFIX, &[0, 64, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]),
        (Attribute::FRAMED_ROUTE, b"192.168.1.0/24 192.168.1.1 1 2 -1 3 400"),
        (Attribute::FRAMED_ROUTE, b"192.168.2.0 0.0.0.0 1"),
        (Attribute::CLASS, b"first"),
        (Attribute::CLASS, b"second"),
        (Attribute::SESSION_TIMEOUT, &[0, 0, 0x0e, 0x10]),
        (Attribute::IDLE_TIMEOUT, &[0, 0, 0, 90]),
        (Attribute::ACCT_INTERIM_INTERVAL, &[0, 0, 0, 120]),
        (Attribute::TUNNEL_TYPE, &[1, 0, 0, 3]),
    ];
    let expected = Grant {
        name: "user@example.org".to_owned(),
        address: Some(Ipv4Addr::new(10, 20, 5, 77)),
        networks: vec!["192.168.1.0/24".parse().unwrap(), "192.168.2.0/24".parse().unwrap()],
        idle: Some(Duration::from_secs(90)),
        total: Some(Duration::from_secs(3_600)),
        class: vec![b"first".to_vec(), b"second".to_vec()],
        interim: Some(Duration::from_secs(120)),
        ..Grant::default()
    };
    assert_eq!(granted(pap(b"x"), attributes), expected);
}

#[test]
fn what_the_server_leaves_open_is_chosen_here() {
    let expected = Grant { name: "User".to_owned(), interim: Some(Duration::from_secs(600)), ..Grant::default() };
    assert_eq!(granted(pap(b"x"), &[]), expected);
    for chosen_elsewhere in [[255; 4], [255, 255, 255, 254], [0; 4]] {
        assert_eq!(granted(pap(b"x"), &[(Attribute::FRAMED_IP_ADDRESS, &chosen_elsewhere)]), expected);
    }
    assert_eq!(granted(pap(b"x"), &[(Attribute::SESSION_TIMEOUT, &[0; 4]), (Attribute::USER_NAME, b"")]), expected);
    assert_eq!(granted(pap(b"x"), &[(Attribute::USER_NAME, &[0xff])]), expected);
}

#[test]
fn interim_updates_are_never_more_often_than_the_rfc_allows() {
    let grant = granted(pap(b"x"), &[(Attribute::ACCT_INTERIM_INTERVAL, &[0, 0, 0, 5])]);
    assert_eq!(grant.interim, Some(Duration::from_secs(60)));
}

#[test]
fn an_accept_that_cannot_be_used_is_a_refusal() {
    for (attribute, value) in [
        (Attribute::SERVICE_TYPE, &[0, 0, 0, 1][..]),
        (Attribute::SERVICE_TYPE, &[2]),
        (Attribute::FRAMED_PROTOCOL, &[0, 0, 0, 2]),
        (Attribute::TUNNEL_TYPE, &[0, 0, 0, 1]),
        (Attribute::FRAMED_IP_ADDRESS, &[10, 0, 0]),
        (Attribute::FRAMED_IP_ADDRESS, &[127, 0, 0, 1]),
        (Attribute::FRAMED_IP_ADDRESS, &[224, 0, 0, 1]),
        (Attribute::SESSION_TIMEOUT, &[0, 0, 1]),
        (Attribute::IDLE_TIMEOUT, &[0, 0, 0, 1, 0]),
        (Attribute::ACCT_INTERIM_INTERVAL, &[]),
    ] {
        assert_eq!(verdict(pap(b"x"), Code::ACCESS_ACCEPT, &[(attribute, value)]), refused(), "{attribute} {value:?}");
    }
}

#[test]
fn routes_that_are_none_are_left_out() {
    for (text, expected) in [
        ("10.0.0.0", Some("10.0.0.0/8")),
        ("172.16.0.0 0.0.0.0 1", Some("172.16.0.0/16")),
        ("192.168.7.9/24 0.0.0.0", Some("192.168.7.0/24")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("224.0.0.0", None),
        ("192.168.7.0/33", None),
        ("", None),
        ("default", None),
        ("2001:db8::/64", None),
    ] {
        assert_eq!(route(text.as_bytes()), expected.map(|network| network.parse().unwrap()), "{text}");
    }
    assert_eq!(route(&[0xff]), None);
}

#[test]
fn ms_chap_v2_owes_the_peer_the_servers_response() {
    let success = |text: &[u8]| {
        let value = [&MICROSOFT.to_be_bytes()[..], &[26, u8::try_from(3 + text.len()).unwrap(), 1], text].concat();
        verdict(ms_chap_v2(), Code::ACCESS_ACCEPT, &[(Attribute::VENDOR_SPECIFIC, &value)])
    };
    let response = |verdict| match verdict {
        Verdict::Accept(grant) => grant.authenticator_response,
        other => panic!("{other:?}"),
    };
    let expected = "S=407A5589115FD0D6209F510FE9C04566932CDA56";
    assert_eq!(response(success(expected.as_bytes())).as_deref(), Some(expected));
    let lower = b"S=407a5589115fd0d6209f510fe9c04566932cda56";
    assert_eq!(response(success(lower)).as_deref(), Some(expected));
    for wrong in
        [&b""[..], b"S=", &expected.as_bytes()[..41], b"T=407A5589115FD0D6209F510FE9C04566932CDA56", &[0xff; 42]]
    {
        assert_eq!(success(wrong), refused(), "{wrong:x?}");
    }
    assert_eq!(success(b"S=407A5589115FD0D6209F510FE9C04566932CDA5G"), refused());
    assert_eq!(verdict(ms_chap_v2(), Code::ACCESS_ACCEPT, &[]), refused());
}

#[test]
fn eap_packets_of_the_server_reach_the_peer() {
    let challenge = [&[1, 8, 1, 44, 4][..], &[9; 295]].concat();
    let pieces: Vec<_> = challenge.chunks(253).map(|piece| (Attribute::EAP_MESSAGE, piece)).collect();
    let proof = || eap(&[2, 7, 0, 5, 1]);
    assert_eq!(verdict(proof(), Code::ACCESS_CHALLENGE, &pieces), Verdict::Challenge { packet: challenge });
    let (success, failure) = ([3, 8, 0, 4], [4, 8, 0, 4]);
    assert_eq!(granted(proof(), &[(Attribute::EAP_MESSAGE, &success)]).eap, Some(success.to_vec()));
    assert_eq!(
        verdict(proof(), Code::ACCESS_REJECT, &[(Attribute::EAP_MESSAGE, &failure)]),
        Verdict::Reject(Refusal { cause: Cause::RadiusReject, eap: Some(failure.to_vec()) })
    );
}

#[test]
fn a_challenge_that_no_peer_can_answer_is_a_refusal() {
    let proof = || eap(&[2, 7, 0, 5, 1]);
    assert_eq!(verdict(proof(), Code::ACCESS_CHALLENGE, &[]), refused());
    // A response, a packet that is longer than it is, and one without a header.
    for packet in [&[2, 8, 0, 5, 1][..], &[1, 8, 0, 9, 1], &[1, 8]] {
        assert_eq!(verdict(proof(), Code::ACCESS_CHALLENGE, &[(Attribute::EAP_MESSAGE, packet)]), refused());
    }
    let request = [1, 8, 0, 5, 1];
    assert_eq!(verdict(pap(b"x"), Code::ACCESS_CHALLENGE, &[(Attribute::EAP_MESSAGE, &request)]), refused());
}

#[test]
fn a_reject_is_a_refusal_whatever_it_carries() {
    assert_eq!(verdict(pap(b"x"), Code::ACCESS_REJECT, &[(Attribute::FRAMED_IP_ADDRESS, &[10, 0, 0, 1])]), refused());
}
