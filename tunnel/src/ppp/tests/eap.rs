//! EAP at both ends, packet by packet.

use super::server::{asked, assignment, established_with};
use super::*;
use crate::aaa::{Cause, Grant, Proof, Refusal};

const EAP: Protocol = Protocol::EAP;
const IDENTITY: &[u8] = b"\x01alice";

fn server(eap: Eap) -> (Link, u8) {
    let mut link = established_with(Server { auth: vec![PppAuth::Eap], eap, ..Server::default() });
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, &data[..]), (EAP, 1, &[1][..]));
    (link, id)
}

/// A server that has sent the Challenge: the Identifier of the Request, that of MS-CHAPv2, and the challenge.
fn challenged() -> (Link, u8, u8, [u8; 16]) {
    let (mut link, id) = server(Eap::Local(vec![Method::MsChapV2]));
    link.say(EAP, 2, id, IDENTITY);
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, &data[..2], data[5]), (EAP, 1, &[26, 1][..], 16));
    assert_eq!((usize::from(data[4]), &data[22..]), (data.len() - 1, &b"towline"[..]));
    (link, id, data[2], data[6..22].try_into().unwrap())
}

fn response(ms_id: u8, challenge: [u8; 16], password: &str) -> Vec<u8> {
    let exchange =
        Exchange { authenticator_challenge: challenge, peer_challenge: [4; 16], username: "alice", password };
    let value = mschapv2::Response { peer_challenge: [4; 16], nt_response: exchange.nt_response() }.write();
    [&[26, 2, ms_id, 0, 59, 49][..], &value, b"alice"].concat()
}

/// A server with a RADIUS server behind it that has asked it for the first time.
fn passing() -> (Link, u8) {
    let (mut link, id) = server(Eap::PassThrough);
    link.say(EAP, 2, id, IDENTITY);
    let request = asked(&mut link);
    assert_eq!(request.name, "alice");
    assert_eq!(request.proof, Proof::Eap { packet: [&[2, id, 0, 10][..], IDENTITY].concat() });
    (link, id)
}

#[test]
fn a_client_with_eap_ms_chap_v2_is_let_in_when_it_has_acknowledged_the_success() {
    let (mut link, id, ms_id, challenge) = challenged();
    for _ in 0..2 {
        link.say(EAP, 2, id, &response(ms_id, challenge, "secret"));
    }
    let request = asked(&mut link);
    assert_eq!(request.name, "alice");
    assert!(matches!(request.proof, Proof::MsChapV2 { id, .. } if id == ms_id));
    assert_eq!(link.event(), None);
    let grant = Grant { authenticator_response: Some(format!("S={}", "AB".repeat(20))), ..Grant::default() };
    link.ppp.accept(link.now, &grant, assignment());
    let (_, code, next, data) = link.heard();
    assert_eq!((code, next, &data[..5]), (1, id.wrapping_add(1), &[26, 3, ms_id, 0, 56][..]));
    assert_eq!(data[5..], *format!("S={} M=welcome", "AB".repeat(20)).as_bytes());
    link.silence();
    assert_eq!(link.event(), None, "the client has yet to believe it");
    for _ in 0..2 {
        link.say(EAP, 2, next, &[26, 3]);
        let (_, code, id, data) = link.heard();
        assert_eq!((code, id, data.len()), (3, next, 0), "Success, and again when the answer comes again");
        if let Some(event) = link.event() {
            assert_eq!(event, Event::Authenticated { method: PppAuth::Eap });
            assert_eq!(link.heard().0, Protocol::IPCP);
        }
    }
}

#[test]
fn a_wrong_response_gets_the_failure_of_ms_chap_v2_and_then_that_of_eap() {
    let (mut link, id, ms_id, challenge) = challenged();
    link.say(EAP, 2, id, &response(ms_id, challenge, "guess"));
    asked(&mut link);
    link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword));
    link.wait(Duration::from_millis(999));
    link.silence();
    link.wait(Duration::from_millis(501));
    let (_, code, next, data) = link.heard();
    assert_eq!((code, next, &data[..3]), (1, id.wrapping_add(1), &[26, 4, ms_id][..]));
    assert_eq!(data[5..17], *b"E=691 R=0 C=");
    link.say(EAP, 2, next, &[26, 4]);
    let (_, code, id, data) = link.heard();
    assert_eq!((code, id, data.len()), (4, next, 0));
    link.wait(4 * SECOND);
    let refused = Error::Refused { method: PppAuth::Eap, cause: Cause::WrongPassword };
    assert_eq!(link.event(), Some(Event::Failed(refused)));
}

#[test]
fn a_client_that_does_not_believe_the_server_is_not_let_in() {
    let (mut link, id, ms_id, challenge) = challenged();
    link.say(EAP, 2, id, &response(ms_id, challenge, "secret"));
    asked(&mut link);
    link.ppp.accept(link.now, &Grant::default(), assignment());
    let next = link.heard().2;
    link.say(EAP, 2, next, &[26, 4]);
    assert_eq!(link.heard().1, 4);
    link.silence();
    link.wait(5 * SECOND);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NegotiationFailed { .. }))));
}

#[test]
fn a_request_is_repeated_as_it_is_until_it_is_answered() {
    let (mut link, id) = server(Eap::Local(vec![Method::MsChapV2]));
    link.wait(3 * SECOND);
    assert_eq!(link.heard(), (EAP, 1, id, vec![1]));
    link.say(EAP, 2, id.wrapping_add(1), IDENTITY);
    link.say(EAP, 1, id, IDENTITY);
    link.say(EAP, 2, id, &[1, 0xff]);
    link.say(EAP, 2, id, &[26, 2]);
    link.say(EAP, 2, id, &[]);
    link.silence();
    link.say(EAP, 2, id, IDENTITY);
    let challenge = link.heard();
    assert_eq!(challenge.2, id.wrapping_add(1));
    // The same answer again is no answer to what is asked now.
    link.say(EAP, 2, id, IDENTITY);
    link.silence();
    link.wait(3 * SECOND);
    assert_eq!(link.heard(), challenge);
}

#[test]
fn a_client_that_wants_none_of_our_methods_hears_a_failure() {
    let (mut link, id, ..) = challenged();
    link.say(EAP, 2, id, &[3, 4, 13]);
    assert_eq!(link.heard().1, 4);
    link.wait(4 * SECOND);
    assert_eq!(link.event(), Some(Event::Failed(Error::NoCommonAuthentication)));
}

#[test]
fn a_radius_server_is_asked_with_each_response_once_and_its_packets_are_passed_on() {
    let (mut link, id) = passing();
    link.say(EAP, 2, id, IDENTITY);
    assert_eq!(link.event(), None);
    link.ppp.challenge(link.now, &[1, 77, 0, 7, 4, 1, 9]);
    assert_eq!(link.heard(), (EAP, 1, 77, vec![4, 1, 9]));
    link.wait(3 * SECOND);
    assert_eq!(link.heard(), (EAP, 1, 77, vec![4, 1, 9]), "repeated");
    link.say(EAP, 2, id, IDENTITY);
    assert_eq!(link.event(), None, "not what the RADIUS server asked");
    link.say(EAP, 2, 77, &[4, 1, 8]);
    assert_eq!(asked(&mut link).proof, Proof::Eap { packet: vec![2, 77, 0, 7, 4, 1, 8] });
    let grant = Grant { eap: Some(vec![3, 77, 0, 4]), ..Grant::default() };
    link.ppp.accept(link.now, &grant, assignment());
    assert_eq!(link.heard(), (EAP, 3, 77, vec![]));
    assert_eq!(link.event(), Some(Event::Authenticated { method: PppAuth::Eap }));
    assert_eq!(link.heard().0, Protocol::IPCP);
}

#[test]
fn a_verdict_without_a_packet_or_with_another_one_gets_ours() {
    for eap in [None, Some(vec![4, 9, 0, 4]), Some(vec![3]), Some(vec![3, 9, 0, 4])] {
        let (mut link, id) = passing();
        link.ppp.accept(link.now, &Grant { eap, ..Grant::default() }, assignment());
        assert_eq!(link.heard(), (EAP, 3, id, vec![]));
    }
    let (mut link, id) = passing();
    link.ppp.reject(link.now, &Refusal { cause: Cause::RadiusReject, eap: None });
    link.wait(2 * SECOND);
    assert_eq!(link.heard(), (EAP, 4, id, vec![]));
}

#[test]
fn a_challenge_that_nobody_could_answer_is_a_refusal() {
    for packet in [&[][..], &[2, 7, 0, 5, 1], &[1, 7, 0, 9, 1]] {
        let (mut link, id) = passing();
        link.ppp.challenge(link.now, packet);
        link.wait(2 * SECOND);
        assert_eq!(link.heard(), (EAP, 4, id, vec![]));
        link.wait(4 * SECOND);
        let refused = Error::Refused { method: PppAuth::Eap, cause: Cause::RadiusReject };
        assert_eq!(link.event(), Some(Event::Failed(refused)));
    }
}

/// A client that has answered a Challenge: the Response, and the success that it must get.
fn answered() -> (Link, Vec<u8>, String) {
    let mut link = Link::new(&[PppAuth::Eap]);
    link.establish(&[3, 4, 0xc2, 0x27]);
    link.say(EAP, 1, 8, b"\x01who is there?");
    assert_eq!(link.heard(), (EAP, 2, 8, b"\x01alice".to_vec()));
    link.say(EAP, 1, 9, &challenge());
    let (_, code, id, data) = link.heard();
    assert_eq!((code, id, &data[..6]), (2, 9, &[26, 2, 5, 0, 59, 49][..]));
    let exchange = Exchange {
        authenticator_challenge: [9; 16],
        peer_challenge: data[6..22].try_into().unwrap(),
        username: "alice",
        password: "secret",
    };
    let nt_response = data[30..54].try_into().unwrap();
    assert!(exchange.verify(&nt_response));
    (link, data, exchange.authenticator_response(&nt_response))
}

fn challenge() -> Vec<u8> {
    [&[26, 1, 5, 0, 24, 16][..], &[9; 16], b"lns"].concat()
}

fn success(text: &str) -> Vec<u8> {
    let length = u8::try_from(4 + text.len()).unwrap();
    [&[26, 3, 5, 0, length][..], text.as_bytes()].concat()
}

#[test]
fn a_client_acknowledges_the_success_of_an_authenticator_that_knows_the_password() {
    let (mut link, _, proof) = answered();
    link.say(EAP, 1, 10, &success(&format!("{proof} M=hi")));
    assert_eq!(link.heard(), (EAP, 2, 10, vec![26, 3]));
    assert_eq!(link.event(), Some(Event::Authenticated { method: PppAuth::Eap }));
    // The Success may be lost, and what says the contrary now says nothing.
    assert_eq!(link.heard().0, Protocol::IPCP);
    link.say(EAP, 4, 10, &[]);
    assert_eq!(link.event(), None);
    link.say(EAP, 1, 10, &success(&format!("{proof} M=hi")));
    assert_eq!(link.heard(), (EAP, 2, 10, vec![26, 3]));
}

#[test]
fn a_client_lets_no_authenticator_pass_that_does_not_know_the_password() {
    let (mut link, ..) = answered();
    link.say(EAP, 3, 9, &[]);
    assert_eq!(link.event(), None, "a Success before the method is over");
    link.say(EAP, 1, 10, &success("S=0123456789ABCDEF0123456789ABCDEF01234567 M=hi"));
    assert_eq!(link.event(), Some(Event::Failed(Error::AuthenticatorNotVerified)));
}

#[test]
fn a_client_answers_the_same_request_in_the_same_way() {
    let (mut link, data, _) = answered();
    link.say(EAP, 1, 9, &challenge());
    assert_eq!(link.heard().3, data);
    // Behind a later one, for L2TP may reorder.
    link.say(EAP, 1, 8, b"\x01who is there?");
    assert_eq!(link.heard().3, b"\x01alice");
    link.say(EAP, 1, 9, &challenge());
    assert_eq!(link.heard().3, data);
}

#[test]
fn a_client_proposes_its_own_method_before_one_has_begun_and_never_after() {
    let mut link = Link::new(&[PppAuth::Eap]);
    link.establish(&[3, 4, 0xc2, 0x27]);
    link.say(EAP, 1, 1, &[4, 1, 2, 3]);
    assert_eq!(link.heard(), (EAP, 2, 1, vec![3, 26]));
    link.say(EAP, 1, 2, b"\x02hello");
    assert_eq!(link.heard(), (EAP, 2, 2, vec![2]));
    let (mut link, ..) = answered();
    link.say(EAP, 1, 11, &[4, 1, 2, 3]);
    link.silence();
}

#[test]
fn a_client_that_is_refused_says_so() {
    let (mut link, ..) = answered();
    let text = "E=691 R=0 C=000102030405060708090A0B0C0D0E0F V=3 M=no";
    let length = u8::try_from(4 + text.len()).unwrap();
    link.say(EAP, 1, 10, &[&[26, 4, 5, 0, length][..], text.as_bytes()].concat());
    let refused = |code, message: &str| {
        Event::Failed(Error::AuthenticationFailed { method: PppAuth::Eap, code, message: message.to_owned() })
    };
    assert_eq!(link.event(), Some(refused(Some(691), "no")));
    let (mut link, ..) = answered();
    link.say(EAP, 4, 9, &[]);
    assert_eq!(link.event(), Some(refused(None, "")));
}

#[test]
fn a_client_with_eap_wants_a_server_that_proves_itself_and_waits_for_it_only_so_long() {
    let mut link = Link::new(&[PppAuth::Eap]);
    link.establish(&[]);
    assert_eq!(link.event(), Some(Event::Failed(Error::AuthenticationSkipped)));
    let (mut link, ..) = answered();
    link.wait(29 * SECOND);
    link.silence();
    link.wait(SECOND);
    assert_eq!(link.event(), Some(Event::Failed(Error::NoResponse { phase: Phase::Authentication })));
}
