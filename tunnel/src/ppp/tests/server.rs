//! The server against scripted packets of clients.

use super::*;
use crate::aaa::{Cause, Grant, Proof, Refusal, Request};

const ALL: [PppAuth; 3] = [PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap];
const LCP: Protocol = Protocol::LCP;

pub(super) fn assignment() -> Assignment {
    Assignment { local: [10, 0, 0, 1].into(), peer: [10, 0, 0, 9].into(), dns: vec![[10, 0, 0, 53].into()] }
}

fn gate(auth: &[PppAuth]) -> Server {
    Server { name: "gate".to_owned(), auth: auth.to_vec(), ..Server::default() }
}

fn link(auth: &[PppAuth]) -> Link {
    Link::of(Config { role: Role::Server(gate(auth)), ..Config::default() })
}

/// LCP up to Opened, and what is said then.
fn established(auth: PppAuth) -> Link {
    established_with(gate(&[auth]))
}

pub(super) fn established_with(server: Server) -> Link {
    let mut link = Link::of(Config { role: Role::Server(server), ..Config::default() });
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code), (LCP, 1));
    link.say(LCP, 2, id, &data);
    link.say(LCP, 1, 50, &[]);
    assert_eq!(link.heard(), (LCP, 2, 50, vec![]));
    assert_eq!(link.event(), Some(Event::LcpOpened));
    link
}

pub(super) fn asked(link: &mut Link) -> Request {
    match link.event() {
        Some(Event::Authenticate(request)) => request,
        other => panic!("{other:?}"),
    }
}

/// A client with PAP that is let in.
fn up() -> Link {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    asked(&mut link);
    assert!(link.ppp.accept(link.now, &Grant::default(), assignment()));
    assert_eq!(link.event(), Some(Event::Authenticated { method: PppAuth::Pap }));
    assert_eq!(link.heard(), (Protocol::PAP, 2, 7, b"\x07welcome".to_vec()));
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, &data[..]), (Protocol::IPCP, 1, &[3, 6, 10, 0, 0, 1][..]));
    link.say(Protocol::IPCP, 2, id, &data);
    link.say(Protocol::IPCP, 1, 60, &[3, 6, 0, 0, 0, 0, 129, 6, 0, 0, 0, 0]);
    assert_eq!(link.heard(), (Protocol::IPCP, 3, 60, vec![3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53]));
    link.say(Protocol::IPCP, 1, 61, &[3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53]);
    assert_eq!(link.heard().1, 2);
    let opened = Event::IpcpOpened {
        address: [10, 0, 0, 1].into(),
        peer: Some([10, 0, 0, 9].into()),
        dns: vec![[10, 0, 0, 53].into()],
    };
    assert_eq!(link.event(), Some(opened));
    link
}

fn ms_chap_v2(link: &mut Link) -> (u8, [u8; 16], [u8; 24]) {
    let (protocol, code, id, data) = link.heard();
    assert_eq!((protocol, code, data[0], &data[17..]), (Protocol::CHAP, 1, 16, &b"gate"[..]));
    let authenticator_challenge = data[1..17].try_into().unwrap();
    let exchange = Exchange { authenticator_challenge, peer_challenge: [4; 16], username: "alice", password: "secret" };
    (id, authenticator_challenge, exchange.nt_response())
}

fn response(nt_response: [u8; 24], name: &str) -> Vec<u8> {
    [&[49][..], &mschapv2::Response { peer_challenge: [4; 16], nt_response }.write(), name.as_bytes()].concat()
}

#[test]
fn a_client_with_pap_is_let_in_and_gets_its_address() {
    let mut link = up();
    assert_eq!(link.ppp.handle_frame(link.now, &IP), Some(&IP[4..]));
    let mut header = Vec::new();
    link.ppp.write_header(&mut header, &IP[4..]).unwrap();
    assert_eq!(header, IP[..IP_HEADER]);
}

#[test]
fn a_frame_that_says_ipv4_and_holds_something_else_is_no_packet() {
    let mut link = up();
    let mut frame = IP;
    frame[4] = 0x65;
    assert_eq!(link.ppp.handle_frame(link.now, &frame), None);
    assert_eq!(link.ppp.write_header(&mut Vec::new(), &frame[4..]), Err(NotOpened));
    assert_eq!(link.ppp.write_header(&mut Vec::new(), &[]), Err(NotOpened));
}

#[test]
fn the_owner_is_asked_once_and_the_last_request_with_pap_is_answered() {
    let mut link = established(PppAuth::Pap);
    link.silence();
    for id in [7, 8, 9] {
        link.say(Protocol::PAP, 1, id, b"\x05alice\x06secret");
    }
    let request = asked(&mut link);
    assert_eq!(request.name, "alice");
    assert_eq!(request.proof, Proof::Pap { password: Zeroizing::new(b"secret".to_vec()) });
    assert_eq!(link.event(), None);
    link.silence();
    link.ppp.accept(link.now, &Grant::default(), assignment());
    assert_eq!(link.heard().2, 9);
}

#[test]
fn a_repeated_request_gets_the_same_answer_whatever_it_says() {
    let mut link = up();
    link.say(Protocol::PAP, 1, 8, b"\x05alice\x05wrong");
    assert_eq!(link.heard(), (Protocol::PAP, 2, 8, b"\x07welcome".to_vec()));
    assert_eq!(link.event(), None);
}

#[test]
fn a_response_with_ms_chap_v2_is_asked_about_and_answered_with_the_proof_of_the_server() {
    let mut link = established(PppAuth::MsChapV2);
    let (id, challenge, nt_response) = ms_chap_v2(&mut link);
    for _ in 0..2 {
        link.say(Protocol::CHAP, 2, id, &response(nt_response, "CORP\\alice"));
    }
    let request = asked(&mut link);
    let proof = Proof::MsChapV2 { id, authenticator_challenge: challenge, peer_challenge: [4; 16], nt_response };
    assert_eq!(request, Request { name: "CORP\\alice".to_owned(), proof });
    assert_eq!(link.event(), None);
    let grant = Grant { authenticator_response: Some(format!("S={}", "AB".repeat(20))), ..Grant::default() };
    link.ppp.accept(link.now, &grant, assignment());
    let success = (Protocol::CHAP, 3, id, format!("S={} M=welcome", "AB".repeat(20)).into_bytes());
    assert_eq!(link.heard(), success);
    assert_eq!(link.heard().0, Protocol::IPCP);
    // The Success was lost, and comes again.
    link.say(Protocol::CHAP, 2, id, &response(nt_response, "alice"));
    assert_eq!(link.heard(), success);
    assert_eq!(link.event(), Some(Event::Authenticated { method: PppAuth::MsChapV2 }));
    assert_eq!(link.event(), None);
}

#[test]
fn windows_may_send_an_empty_name() {
    let mut link = established(PppAuth::MsChapV2);
    let (id, _, nt_response) = ms_chap_v2(&mut link);
    link.say(Protocol::CHAP, 2, id, &response(nt_response, ""));
    assert_eq!(asked(&mut link).name, "");
}

#[test]
fn a_response_that_is_no_answer_to_the_challenge_is_ignored() {
    let mut link = established(PppAuth::MsChapV2);
    let (id, _, nt_response) = ms_chap_v2(&mut link);
    let good = response(nt_response, "alice");
    link.say(Protocol::CHAP, 2, id.wrapping_add(1), &good);
    link.say(Protocol::CHAP, 1, id, &good);
    link.say(Protocol::CHAP, 2, id, &[&[48][..], &good[2..]].concat());
    link.say(Protocol::CHAP, 2, id, &response(nt_response, &"a".repeat(254)));
    link.say(Protocol::CHAP, 2, id, &[&good[..], &[0xff]].concat());
    link.say(Protocol::PAP, 1, id, b"\x05alice\x06secret");
    assert_eq!(link.event(), None);
    link.say(Protocol::CHAP, 2, id, &good);
    asked(&mut link);
}

#[test]
fn a_challenge_with_md5_is_asked_about_with_all_that_proves_it() {
    let mut link = established(PppAuth::Chap);
    let (_, _, id, data) = link.heard();
    let challenge = data[1..17].to_vec();
    link.say(Protocol::CHAP, 2, id, &[&[15][..], &[6; 15], b"alice"].concat());
    assert_eq!(link.event(), None, "too short");
    link.say(Protocol::CHAP, 2, id, &[&[16][..], &[6; 16], b"alice"].concat());
    assert_eq!(asked(&mut link).proof, Proof::Chap { id, challenge, response: [6; 16] });
    link.ppp.accept(link.now, &Grant::default(), assignment());
    assert_eq!(link.heard(), (Protocol::CHAP, 3, id, b"welcome".to_vec()));
}

#[test]
fn a_challenge_is_repeated_every_three_seconds_ten_times_and_then_given_up() {
    let mut link = established(PppAuth::MsChapV2);
    let first = link.heard();
    for _ in 0..10 {
        assert_eq!(link.second(), []);
        assert_eq!(link.second(), []);
        assert_eq!(link.second(), std::slice::from_ref(&first));
    }
    assert_eq!(link.event(), None);
    link.wait(3 * SECOND);
    assert_eq!(link.event(), Some(Event::Failed(Error::NoResponse { phase: Phase::Authentication })));
}

#[test]
fn challenges_differ_from_link_to_link() {
    let challenges: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| {
            let config = Config { role: Role::Server(Server::default()), ..Config::default() };
            let mut link = Link { ppp: Ppp::new(config, StdRng::from_seed([seed; 32])), now: Instant::now() };
            link.ppp.open(link.now);
            let (_, _, id, data) = link.heard();
            link.say(LCP, 2, id, &data);
            link.say(LCP, 1, 50, &[]);
            link.heard();
            let (_, _, id, data) = link.heard();
            (id, data)
        })
        .collect();
    assert_eq!(challenges.len(), 20);
    let ids: std::collections::BTreeSet<_> = challenges.iter().map(|(id, _)| id).collect();
    assert!(ids.len() > 10, "identifiers are random");
}

#[test]
fn a_refusal_comes_late_is_repeated_and_ends_the_link() {
    let mut link = established(PppAuth::MsChapV2);
    let (id, _, nt_response) = ms_chap_v2(&mut link);
    let good = response(nt_response, "alice");
    link.say(Protocol::CHAP, 2, id, &good);
    asked(&mut link);
    link.ppp.reject(link.now, &Refusal::new(Cause::UnknownUser));
    link.wait(Duration::from_millis(999));
    // Nor does asking again make it faster.
    link.say(Protocol::CHAP, 2, id, &good);
    link.silence();
    link.wait(Duration::from_millis(501));
    let failure = link.heard();
    assert_eq!((failure.0, failure.1, failure.2), (Protocol::CHAP, 4, id));
    let text = String::from_utf8(failure.3.clone()).unwrap();
    let (code, rest) = text.split_at("E=691 R=0 C=".len());
    assert_eq!((code, &rest[32..]), ("E=691 R=0 C=", " V=3 M=access denied"));
    assert!(rest[..32].chars().all(|c| c.is_ascii_hexdigit() && !c.is_lowercase()), "{text}");
    // An echo in between is answered, and the right password does not help any more.
    link.say(LCP, 9, 5, &[1, 1, 1, 1]);
    assert_eq!(link.heard().1, 10);
    link.say(Protocol::CHAP, 2, id, &good);
    assert_eq!(link.heard(), failure);
    link.ppp.accept(link.now, &Grant::default(), assignment());
    link.silence();
    assert_eq!(link.event(), None);
    link.wait(4 * SECOND);
    let refused = Error::Refused { method: PppAuth::MsChapV2, cause: Cause::UnknownUser };
    assert_eq!(link.event(), Some(Event::Failed(refused)));
    link.ppp.close(link.now);
    assert_eq!((link.heard().1, link.event()), (5, None));
}

#[test]
fn an_unknown_user_and_a_wrong_password_look_the_same() {
    let refused = |cause| {
        let mut link = established(PppAuth::MsChapV2);
        let (id, _, nt_response) = ms_chap_v2(&mut link);
        link.say(Protocol::CHAP, 2, id, &response(nt_response, "alice"));
        link.ppp.reject(link.now, &Refusal::new(cause));
        let at = link.ppp.poll_timeout().map(|at| at - link.now);
        link.wait(2 * SECOND);
        (at, link.heard())
    };
    assert_eq!(refused(Cause::UnknownUser), refused(Cause::WrongPassword));
    assert_eq!(refused(Cause::UnknownUser), refused(Cause::Suspended));
}

#[test]
fn pap_is_refused_with_a_nak_in_a_while() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x05wrong");
    link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword));
    link.wait(Duration::from_millis(999));
    link.silence();
    link.wait(Duration::from_millis(501));
    assert_eq!(link.heard(), (Protocol::PAP, 3, 7, b"\x0daccess denied".to_vec()));
    link.say(Protocol::PAP, 1, 8, b"\x05alice\x06secret");
    assert_eq!(link.heard(), (Protocol::PAP, 3, 8, b"\x0daccess denied".to_vec()));
}

#[test]
fn a_client_that_begins_anew_does_not_escape_its_refusal() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x05wrong");
    asked(&mut link);
    link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword));
    link.say(LCP, 1, 51, &[]);
    let refused = Error::Refused { method: PppAuth::Pap, cause: Cause::WrongPassword };
    assert_eq!(link.event(), Some(Event::Failed(refused)));
}

#[test]
fn a_client_that_hangs_up_after_its_refusal_was_refused() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x05wrong");
    asked(&mut link);
    link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword));
    link.wait(2 * SECOND);
    link.say(LCP, 5, 52, b"bye");
    let refused = Error::Refused { method: PppAuth::Pap, cause: Cause::WrongPassword };
    assert_eq!(link.event(), Some(Event::Failed(refused)));
}

#[test]
fn a_late_verdict_does_not_count_for_whoever_comes_next() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    asked(&mut link);
    // Negotiated anew before the verdict: nobody is asked about while it is out.
    link.say(LCP, 1, 51, &[]);
    let (_, _, id, data) = link.heard();
    assert_eq!(link.heard().1, 2);
    link.say(LCP, 2, id, &data);
    assert_eq!(link.event(), Some(Event::LcpOpened));
    link.say(Protocol::PAP, 1, 8, b"\x03bob\x05guess");
    assert_eq!(link.event(), None);
    assert!(!link.ppp.accept(link.now, &Grant::default(), assignment()));
    assert_eq!(link.event(), None);
    link.silence();
    link.say(Protocol::PAP, 1, 9, b"\x03bob\x05guess");
    assert_eq!(asked(&mut link).name, "bob");
}

#[test]
fn echoes_are_answered_while_the_verdict_is_awaited_and_the_wait_has_an_end() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    asked(&mut link);
    link.wait(30 * SECOND);
    link.say(LCP, 9, 5, &[1, 1, 1, 1]);
    assert_eq!(link.heard().1, 10);
    assert_eq!(link.event(), None);
    link.wait(30 * SECOND);
    let Some(Event::Failed(error)) = link.event() else { panic!("waits for ever") };
    assert_eq!(error.to_string(), "PPP authentication found no common ground: the peer comes to no end within 60 s");
    assert!(!link.ppp.accept(link.now, &Grant::default(), assignment()), "too late");
    link.silence();
}

#[test]
fn nothing_passes_before_the_authentication() {
    let mut link = established(PppAuth::MsChapV2);
    link.heard();
    link.say(Protocol::IPCP, 1, 1, &[3, 6, 0, 0, 0, 0]);
    assert_eq!(link.ppp.handle_frame(link.now, &[0x80, 0xfd, 1, 1, 0, 4]), None);
    assert_eq!(link.ppp.handle_frame(link.now, &IP), None);
    link.silence();
    assert_eq!(link.event(), None);
}

#[test]
fn the_client_may_choose_among_what_is_configured() {
    let mut link = link(&ALL);
    let (.., id, data) = link.heard();
    assert_eq!(data[4..9], MS_CHAP_V2);
    link.say(LCP, 3, id, &PAP);
    let (.., id, data) = link.heard();
    assert_eq!(data[4..8], PAP);
    link.say(LCP, 2, id, &data);
    link.say(LCP, 1, 50, &[]);
    link.heard();
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    assert_eq!(link.event(), Some(Event::LcpOpened));
    asked(&mut link);
}

#[test]
fn a_client_that_refuses_every_authentication_gets_no_link() {
    let mut link = link(&ALL);
    for _ in 0..3 {
        let (.., id, data) = link.heard();
        let option = data[4..4 + usize::from(data[5])].to_vec();
        link.say(LCP, 4, id, &option);
    }
    assert_eq!(link.event(), Some(Event::Failed(Error::NoCommonAuthentication)));
    link.silence();
    link.ppp.close(link.now);
    assert_eq!(link.heard().1, 5);
}

#[test]
fn a_client_that_has_no_ipcp_gets_no_link_and_one_without_options_does() {
    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    link.ppp.accept(link.now, &Grant::default(), assignment());
    link.rest();
    while link.event().is_some() {}
    link.say(LCP, 8, 9, &[0x80, 0x21, 1, 1, 0, 4]);
    assert!(matches!(link.event(), Some(Event::Failed(Error::NegotiationFailed { phase: Phase::Network, .. }))));

    let mut link = established(PppAuth::Pap);
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    link.ppp.accept(link.now, &Grant::default(), assignment());
    link.heard();
    let (.., id, data) = link.heard();
    link.say(Protocol::IPCP, 4, id, &data);
    let (.., id, data) = link.heard();
    assert!(data.is_empty());
    link.say(Protocol::IPCP, 2, id, &[]);
    link.say(Protocol::IPCP, 1, 1, &[]);
    assert_eq!(link.heard().1, 3);
    link.say(Protocol::IPCP, 1, 2, &[]);
    assert_eq!(link.heard().1, 2);
    while let Some(event) = link.event() {
        if let Event::IpcpOpened { peer, .. } = event {
            assert_eq!(peer, Some([10, 0, 0, 9].into()));
            return;
        }
    }
    panic!("IPCP does not open");
}
