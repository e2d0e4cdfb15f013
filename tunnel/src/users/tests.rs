use hex_literal::hex;

use super::*;

const NOW: u64 = 1_800_000_000;

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: Some(Zeroizing::new("clientPass".to_owned())),
        address: Some(Ipv4Addr::new(10, 9, 0, 7)),
        networks: vec!["192.168.7.0/24".parse().unwrap()],
        destinations: Some(vec!["10.96.0.0/12".parse().unwrap()]),
        expires_at: None,
        suspended: false,
    }
}

fn users() -> Users {
    Users::new(vec![
        user("User"),
        user("CORP\\carol"),
        user("carol"),
        User { suspended: true, ..user("suspended") },
        User { expires_at: Some(NOW), ..user("expired") },
        User { expires_at: Some(NOW + 60), ..user("expiring") },
        User { password: None, ..user("certificate") },
        User { password: None, suspended: true, ..user("neither") },
    ])
}

fn pap(password: &[u8]) -> Proof {
    Proof::Pap { password: Zeroizing::new(password.to_vec()) }
}

/// The response to a challenge of RFC 1994 section 4.1, with the value that `md5sum` computes.
fn chap(id: u8) -> Proof {
    Proof::Chap { id, challenge: (0..8).collect(), response: hex!("092fec9445cfd6a266df7eb4de6f083f") }
}

/// The example of RFC 2759 section 9.2, for the user "User".
fn ms_chap_v2() -> Proof {
    Proof::MsChapV2 {
        id: 1,
        authenticator_challenge: hex!("5B5D7C7D7B3F2F3E3C2C602132262628"),
        peer_challenge: hex!("21402324255E262A28295F2B3A337C7E"),
        nt_response: hex!("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"),
    }
}

fn judge(name: &str, proof: Proof) -> Option<Verdict> {
    users().judge(NOW, &Request { name: name.to_owned(), proof })
}

fn granted(name: &str, proof: Proof) -> Grant {
    match judge(name, proof) {
        Some(Verdict::Accept(grant)) => *grant,
        other => panic!("{name}: {other:?}"),
    }
}

fn refused(name: &str, proof: Proof) -> Cause {
    match judge(name, proof) {
        Some(Verdict::Reject(refusal)) => refusal.cause,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_right_password_gets_what_the_configuration_says() {
    let expected = Grant {
        name: "User".to_owned(),
        address: Some(Ipv4Addr::new(10, 9, 0, 7)),
        networks: vec!["192.168.7.0/24".parse().unwrap()],
        destinations: Some(vec!["10.96.0.0/12".parse().unwrap()]),
        ..Grant::default()
    };
    assert_eq!(granted("User", pap(b"clientPass")), expected);
    assert_eq!(granted("User", chap(7)), expected);
}

#[test]
fn ms_chap_v2_gets_the_response_of_the_rfc() {
    let response = Some("S=407A5589115FD0D6209F510FE9C04566932CDA56".to_owned());
    assert_eq!(granted("User", ms_chap_v2()).authenticator_response, response);
}

#[test]
fn a_domain_in_front_of_the_name_is_left_out_unless_a_user_is_named_so() {
    assert_eq!(granted("CORP\\User", ms_chap_v2()).name, "User");
    assert_eq!(granted("CORP\\carol", pap(b"clientPass")).name, "CORP\\carol");
    assert_eq!(granted("OTHER\\carol", pap(b"clientPass")).name, "carol");
}

#[test]
fn names_are_compared_exactly() {
    for name in ["", "user", "User ", "User\0", "CORP\\", "CORP/User", "A\\B\\User"] {
        assert_eq!(judge(name, pap(b"clientPass")), None, "{name:?}");
    }
}

#[test]
fn a_wrong_proof_is_refused() {
    for wrong in ["", "clientPas", "clientPass ", "ClientPass", NO_PASSWORD] {
        assert_eq!(refused("User", pap(wrong.as_bytes())), Cause::WrongPassword, "{wrong:?}");
    }
    assert_eq!(refused("User", chap(8)), Cause::WrongPassword);
    // The name is part of the response of MS-CHAPv2.
    assert_eq!(refused("carol", ms_chap_v2()), Cause::WrongPassword);
}

#[test]
fn nothing_proves_a_password_that_is_not_there() {
    assert_eq!(refused("certificate", pap(NO_PASSWORD.as_bytes())), Cause::NoCredentials);
    assert_eq!(refused("certificate", pap(b"")), Cause::NoCredentials);
    let exchange = Exchange {
        authenticator_challenge: [1; 16],
        peer_challenge: [2; 16],
        username: "certificate",
        password: NO_PASSWORD,
    };
    let nt_response = exchange.nt_response();
    let proof = Proof::MsChapV2 { id: 0, authenticator_challenge: [1; 16], peer_challenge: [2; 16], nt_response };
    assert_eq!(refused("certificate", proof), Cause::NoCredentials);
}

#[test]
fn a_certificate_needs_no_password_but_a_user_who_may_come_in() {
    assert_eq!(granted("certificate", Proof::Certificate).name, "certificate");
    assert_eq!(refused("neither", Proof::Certificate), Cause::Suspended);
    assert_eq!(refused("expired", Proof::Certificate), Cause::Expired);
    assert_eq!(judge("nobody", Proof::Certificate), None);
}

#[test]
fn a_suspended_or_expired_user_does_not_get_in_with_the_right_password() {
    assert_eq!(refused("suspended", pap(b"clientPass")), Cause::Suspended);
    assert_eq!(refused("expired", pap(b"clientPass")), Cause::Expired);
}

#[test]
fn a_session_lasts_no_longer_than_the_user() {
    assert_eq!(granted("expiring", pap(b"clientPass")).total, Some(Duration::from_secs(60)));
}

#[test]
fn eap_packets_are_not_for_users_of_the_configuration() {
    assert_eq!(refused("User", Proof::Eap { packet: vec![2, 1, 0, 4] }), Cause::NoCredentials);
}

#[test]
fn a_name_that_nobody_has_hears_what_a_wrong_password_hears() {
    for proof in [pap(NO_PASSWORD.as_bytes()), chap(7), ms_chap_v2(), Proof::Certificate] {
        let request = Request { name: "nobody".to_owned(), proof };
        let Verdict::Reject(refusal) = refuse_unknown(&request) else { panic!("{request:?} gets in") };
        assert_eq!(refusal, Refusal::new(Cause::UnknownUser));
        assert_eq!(refusal.code(), Refusal::new(Cause::WrongPassword).code());
    }
}

#[test]
fn those_who_are_in_are_told_what_has_changed() {
    let users = users();
    assert_eq!(users.grant(NOW, "suspended"), Some(Err(Cause::Suspended)));
    assert_eq!(users.grant(NOW + 59, "expiring").unwrap().unwrap().total, Some(Duration::from_secs(1)));
    assert_eq!(users.grant(NOW + 60, "expiring"), Some(Err(Cause::Expired)));
    assert_eq!(users.grant(NOW, "nobody"), None);
}
