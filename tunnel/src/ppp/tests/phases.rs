//! What each kind of frame does in each phase (RFC 1661 section 3.2), in both roles: a table that is read when it changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::server::{assignment, established_with};
use super::*;
use crate::aaa::{Cause, Grant, Refusal};

/// The name of a phase, and a link in it.
type Phase = (&'static str, fn() -> Link);

/// Every phase, with what a role has of its own in it.
const CLIENT: [Phase; 8] = [
    ("Dead", || Link { ppp: Ppp::new(client(), StdRng::from_seed([3; 32])), now: Instant::now() }),
    ("Establish", || Link::of(client())),
    ("Authenticate by PAP", || authenticating(&PAP)),
    ("Authenticate by MS-CHAPv2", || authenticating(&MS_CHAP_V2)),
    ("Authenticate by EAP", || authenticating(&[3, 4, 0xc2, 0x27])),
    ("Network", network_of_client),
    ("Terminate", || closing(network_of_client())),
    ("Terminated", || closed(network_of_client())),
];

const SERVER: [Phase; 10] = [
    ("Dead", || Link { ppp: Ppp::new(of(PppAuth::Pap), StdRng::from_seed([3; 32])), now: Instant::now() }),
    ("Establish", || Link::of(of(PppAuth::Pap))),
    ("Authenticate by PAP", || established_with(server(PppAuth::Pap))),
    ("Authenticate by MS-CHAPv2", || established_with(server(PppAuth::MsChapV2))),
    ("Authenticate by EAP", || established_with(server(PppAuth::Eap))),
    ("Authenticate, the owner is asked", asked_by_server),
    ("Authenticate, refused", || {
        let mut link = asked_by_server();
        link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword));
        link.wait(2 * SECOND);
        link
    }),
    ("Network", network_of_server),
    ("Terminate", || closing(network_of_server())),
    ("Terminated", || closed(network_of_server())),
];

fn client() -> Config {
    let auth = PppAuth::ALL.to_vec();
    let (username, password) = ("alice".to_owned(), Zeroizing::new("secret".to_owned()));
    Config {
        role: Role::Client(Client { username, password, auth, ipv6: true, ..Client::default() }),
        ..Config::default()
    }
}

fn server(auth: PppAuth) -> Server {
    Server { auth: vec![auth], ipv6: true, ..Server::default() }
}

fn of(auth: PppAuth) -> Config {
    Config { role: Role::Server(server(auth)), ..Config::default() }
}

fn authenticating(option: &[u8]) -> Link {
    let mut link = Link::of(client());
    link.establish(option);
    link
}

fn asked_by_server() -> Link {
    let mut link = established_with(server(PppAuth::Pap));
    link.say(Protocol::PAP, 1, 7, b"\x05alice\x06secret");
    link
}

/// Both network control protocols open.
fn open_network(mut link: Link) -> Link {
    for _ in 0..4 {
        for (protocol, code, id, data) in link.rest() {
            match (protocol, code) {
                (Protocol::IPCP, 1) if data[..6] == [3, 6, 0, 0, 0, 0] => {
                    link.say(protocol, 3, id, &[3, 6, 10, 0, 0, 9, 129, 6, 10, 0, 0, 53, 131, 6, 10, 0, 0, 54]);
                }
                (Protocol::IPCP | Protocol::IPV6CP, 1) => link.say(protocol, 2, id, &data),
                _ => {}
            }
        }
    }
    link.say(Protocol::IPCP, 1, 60, &[3, 6, 10, 0, 0, 9]);
    link.say(Protocol::IPV6CP, 1, 60, &[1, 10, 0, 0, 0, 0, 0, 0, 0, 7]);
    assert!(link.ppp.carries_packets() && link.ppp.ipv6_up);
    link
}

fn network_of_client() -> Link {
    let mut link = authenticating(&PAP);
    let (.., id, _) = link.heard();
    link.say(Protocol::PAP, 2, id, &[0]);
    open_network(link)
}

fn network_of_server() -> Link {
    let mut link = asked_by_server();
    link.ppp.accept(link.now, &Grant::default(), assignment());
    open_network(link)
}

fn closing(mut link: Link) -> Link {
    link.ppp.close(link.now);
    link
}

fn closed(link: Link) -> Link {
    let mut link = closing(link);
    link.say(Protocol::LCP, 6, 0, &[]);
    link
}

/// Every kind of frame. The Identifiers of answers are those of what they answer where there is something to answer.
fn kinds(id: u8) -> Vec<(&'static str, Vec<u8>)> {
    let control = |protocol, code, id, data: &[u8]| Packet { code, id, data }.frame(protocol);
    let ipv6 = [&[0xff, 3, 0, 0x57, 0x60][..], &[0; 39]].concat();
    vec![
        ("LCP Configure-Request", control(Protocol::LCP, 1, 90, &[])),
        ("LCP Configure-Request with callback", control(Protocol::LCP, 1, 90, &[13, 3, 6])),
        ("LCP Configure-Ack of something else", control(Protocol::LCP, 2, id, &[7, 2])),
        ("LCP Configure-Nak", control(Protocol::LCP, 3, id, &[1, 4, 5, 0])),
        ("LCP Configure-Reject", control(Protocol::LCP, 4, id, &[1, 4, 5, 0x78])),
        ("LCP Terminate-Request", control(Protocol::LCP, 5, 90, b"bye")),
        ("LCP Terminate-Ack", control(Protocol::LCP, 6, id, &[])),
        ("LCP Code-Reject of an echo", control(Protocol::LCP, 7, 90, &[9, 1, 0, 4])),
        ("LCP Code-Reject of a Configure-Request", control(Protocol::LCP, 7, 90, &[1, 1, 0, 4])),
        ("LCP Protocol-Reject of LCP", control(Protocol::LCP, 8, 90, &[0xc0, 0x21, 1, 1, 0, 4])),
        ("LCP Protocol-Reject of PAP", control(Protocol::LCP, 8, 90, &[0xc0, 0x23, 1, 1, 0, 4])),
        ("LCP Protocol-Reject of CHAP", control(Protocol::LCP, 8, 90, &[0xc2, 0x23, 1, 1, 0, 4])),
        ("LCP Protocol-Reject of EAP", control(Protocol::LCP, 8, 90, &[0xc2, 0x27, 1, 1, 0, 4])),
        ("LCP Protocol-Reject of IPCP", control(Protocol::LCP, 8, 90, &[0x80, 0x21, 1, 1, 0, 4])),
        ("LCP Protocol-Reject of IPV6CP", control(Protocol::LCP, 8, 90, &[0x80, 0x57, 1, 1, 0, 4])),
        ("LCP Echo-Request", control(Protocol::LCP, 9, 90, &[0, 0, 0, 1])),
        ("LCP Echo-Reply", control(Protocol::LCP, 10, 90, &[0, 0, 0, 1])),
        ("LCP Discard-Request", control(Protocol::LCP, 11, 90, &[0, 0, 0, 1])),
        ("LCP Identification", control(Protocol::LCP, 12, 90, b"\0\0\0\x01MSRASV5.20")),
        ("LCP Time-Remaining", control(Protocol::LCP, 13, 90, &[0, 0, 0, 1, 0, 0, 0, 9])),
        ("LCP of an unknown code", control(Protocol::LCP, 99, 90, &[])),
        ("PAP Authenticate-Request", control(Protocol::PAP, 1, 7, b"\x05alice\x06secret")),
        ("PAP Authenticate-Ack", control(Protocol::PAP, 2, id, &[0])),
        ("PAP Authenticate-Nak", control(Protocol::PAP, 3, id, &[0])),
        ("CHAP Challenge", control(Protocol::CHAP, 1, id, &[&[16][..], &[9; 16], b"lns"].concat())),
        ("CHAP Response", control(Protocol::CHAP, 2, id, &[&[49][..], &[0; 49], b"alice"].concat())),
        ("CHAP Success", control(Protocol::CHAP, 3, id, b"S=")),
        ("CHAP Failure", control(Protocol::CHAP, 4, id, b"E=691")),
        ("EAP Request", control(Protocol::EAP, 1, id, &[1])),
        ("EAP Response", control(Protocol::EAP, 2, id, b"\x01alice")),
        ("EAP Success", control(Protocol::EAP, 3, id, &[])),
        ("EAP Failure", control(Protocol::EAP, 4, id, &[])),
        ("IPCP Configure-Request", control(Protocol::IPCP, 1, 90, &[3, 6, 10, 0, 0, 9])),
        ("IPCP Terminate-Request", control(Protocol::IPCP, 5, 90, &[])),
        ("IPCP of an unknown code", control(Protocol::IPCP, 99, 90, &[])),
        ("IPV6CP Configure-Request", control(Protocol::IPV6CP, 1, 90, &[1, 10, 0, 0, 0, 0, 0, 0, 0, 7])),
        ("IPV6CP Terminate-Request", control(Protocol::IPV6CP, 5, 90, &[])),
        ("CCP Configure-Request", control(Protocol::CCP, 1, 90, &[18, 6, 1, 0, 0, 0x40])),
        ("LQR", control(Protocol::LQR, 1, 90, &[])),
        ("a frame of an unknown protocol", control(Protocol(0x8235), 1, 90, &[])),
        ("an IPv4 packet", IP.to_vec()),
        ("an IPv6 packet", ipv6),
        ("LCP that is cut off", vec![0xff, 3, 0xc0, 0x21, 1, 1, 0, 9]),
        ("a frame without a protocol", vec![0xff, 3]),
    ]
}

fn name(protocol: Protocol, code: u8) -> String {
    let code = match protocol {
        Protocol::PAP => ["request", "Ack", "Nak"].get(usize::from(code) - 1).copied(),
        Protocol::CHAP => ["Challenge", "Response", "Success", "Failure"].get(usize::from(code) - 1).copied(),
        Protocol::EAP => ["Request", "Response", "Success", "Failure"].get(usize::from(code) - 1).copied(),
        _ => Code(code).name(),
    };
    format!("{protocol} {}", code.unwrap())
}

/// What a frame does: what is sent, told and passed on, and the phase behind it.
fn effect(make: fn() -> Link, index: usize) -> String {
    let mut link = make();
    let id = link.rest().last().map_or(0, |frame| frame.2);
    while link.event().is_some() {}
    let before = link.ppp.state;
    let (_, frame) = kinds(id).swap_remove(index);
    let packet = link.ppp.handle_frame(link.now, &frame).is_some();
    let mut done: Vec<String> = link.rest().iter().map(|(protocol, code, ..)| name(*protocol, *code)).collect();
    while let Some(event) = link.event() {
        let event = format!("{event:?}");
        let name = event.split([' ', '(']).next().unwrap().to_owned();
        done.push(format!("<{name}>"));
    }
    if packet {
        done.push("passed on".to_owned());
    }
    if link.ppp.state != before {
        done.push(format!("-> {:?}", link.ppp.state));
    }
    if done.is_empty() { "nothing".to_owned() } else { done.join(", ") }
}

/// The table of one role: each phase, and in it each effect with the frames that have it.
fn table(phases: &[Phase]) -> String {
    let mut out = String::new();
    for (phase, make) in phases {
        writeln!(out, "{phase}").unwrap();
        let mut effects: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (index, (kind, _)) in kinds(0).iter().enumerate() {
            effects.entry(effect(*make, index)).or_default().push(kind);
        }
        for (effect, kinds) in effects {
            writeln!(out, "  {effect}").unwrap();
            kinds.iter().for_each(|kind| writeln!(out, "      {kind}").unwrap());
        }
    }
    out
}

#[test]
fn every_frame_in_every_phase_of_the_client_does_what_is_written_down() {
    insta::assert_snapshot!("client", table(&CLIENT));
}

#[test]
fn every_frame_in_every_phase_of_the_server_does_what_is_written_down() {
    insta::assert_snapshot!("server", table(&SERVER));
}
