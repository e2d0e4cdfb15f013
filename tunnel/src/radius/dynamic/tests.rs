use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::{Client, Event, Server, Settings};
use super::*;

const UNIX: u64 = 1_800_000_000;
const SECRET: &[u8] = b"first secret";

type Attributes<'a> = &'a [(Attribute, &'a [u8])];

struct World {
    client: Client,
}

fn from() -> SocketAddr {
    "192.0.2.1:40000".parse().unwrap()
}

fn info() -> SessionInfo {
    SessionInfo { port: 3, peer: "203.0.113.9".parse().unwrap(), local: "192.0.2.99".parse().unwrap(), mtu: 1_400 }
}

fn known(info: &SessionInfo) -> Known<'_> {
    Known { key: 7, name: "alice", address: Ipv4Addr::new(10, 20, 5, 77), info }
}

fn now() -> [u8; 4] {
    u32::try_from(UNIX).unwrap().to_be_bytes()
}

fn request(code: Code, id: u8, attributes: &[(Attribute, &[u8])], secret: &[u8]) -> Vec<u8> {
    let mut builder = Builder::signed(code, id);
    for (attribute, value) in attributes {
        builder.push(*attribute, value);
    }
    builder.finish([0; AUTHENTICATOR], secret).unwrap()
}

/// A request to end the sessions of alice.
fn alice(id: u8) -> Vec<u8> {
    disconnect(id, &[(Attribute::USER_NAME, b"alice"), (Attribute::EVENT_TIMESTAMP, &now())])
}

fn disconnect(id: u8, attributes: &[(Attribute, &[u8])]) -> Vec<u8> {
    request(Code::DISCONNECT_REQUEST, id, attributes, SECRET)
}

impl World {
    fn new() -> Self {
        let server = |address: &str, secret: &[u8]| Server {
            address: Some(address.parse().unwrap()),
            port: 1_812,
            accounting_port: 1_813,
            secret: Zeroizing::new(secret.to_vec()),
        };
        let settings = Settings {
            servers: vec![server("192.0.2.1", SECRET), server("192.0.2.2", b"second secret")],
            timeout: std::time::Duration::from_secs(3),
            tries: 3,
            interim: None,
            nas_identifier: "towline".to_owned(),
        };
        Self { client: Client::new(settings, UNIX, StdRng::from_seed([4; 32])) }
    }

    fn hear(&mut self, octets: &[u8]) -> Option<Disconnect> {
        self.hear_from(UNIX, from(), octets)
    }

    fn hear_from(&mut self, unix: u64, from: SocketAddr, octets: &[u8]) -> Option<Disconnect> {
        self.client.handle_request(unix, from, octets);
        match self.client.poll_event() {
            Some(Event::Disconnect(disconnect)) => Some(disconnect),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a request, as it is checked by its sender: its code and Error-Cause.
    fn answered(&mut self, request: &[u8]) -> Option<(Code, Option<u32>)> {
        let answer = self.client.poll_answer()?;
        assert_eq!(answer.to, from());
        let (request, answer) = (Packet::parse(request).unwrap(), Packet::parse(&answer.octets).unwrap());
        assert_eq!(answer.id, request.id);
        assert!(answer.is_from(&request.authenticator, SECRET));
        assert_eq!(answer.integrity(&request.authenticator, SECRET), Integrity::Proved);
        Some((answer.code, answer.number(Attribute::ERROR_CAUSE).unwrap()))
    }

    fn refusal(&mut self, octets: &[u8]) -> (Code, Option<u32>) {
        assert_eq!(self.hear(octets), None);
        self.answered(octets).unwrap()
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.client.statistics().dropped.get(&reason).copied().unwrap_or_default()
    }
}

#[test]
fn a_request_ends_the_session_that_it_means() {
    let mut world = World::new();
    let octets = alice(1);
    let asked = world.hear(&octets).unwrap();
    assert!(asked.selector.matches(&known(&info())));
    assert_eq!(asked.cause, TerminateCause::ADMIN_RESET);
    assert_eq!(world.answered(&octets), None);
    world.client.disconnected(asked.token, true);
    assert_eq!(world.answered(&octets), Some((Code::DISCONNECT_ACK, None)));
    assert_eq!(world.client.statistics().disconnected, 1);
}

#[test]
fn a_request_for_a_session_that_is_not_there_is_refused_with_503() {
    let mut world = World::new();
    let octets = alice(1);
    let asked = world.hear(&octets).unwrap();
    world.client.disconnected(asked.token, false);
    assert_eq!(world.answered(&octets), Some((Code::DISCONNECT_NAK, Some(503))));
    // An identifier of another process.
    let octets = disconnect(2, &[(Attribute::ACCT_SESSION_ID, b"0123456789abcdef-7")]);
    assert_eq!(world.refusal(&octets), (Code::DISCONNECT_NAK, Some(503)));
}

#[test]
fn a_session_is_found_by_the_identifier_that_accounting_uses() {
    let mut world = World::new();
    world.client.request(
        std::time::Instant::now(),
        7,
        crate::aaa::Request {
            name: "alice".to_owned(),
            proof: crate::aaa::Proof::Pap { password: Zeroizing::new(Vec::new()) },
        },
        info(),
    );
    let access = world.client.poll_transmit().unwrap();
    let id = Packet::parse(&access.octets).unwrap().first(Attribute::ACCT_SESSION_ID).unwrap();
    // Without a time: no other session will have the identifier.
    let asked = world.hear(&disconnect(1, &[(Attribute::ACCT_SESSION_ID, id)])).unwrap();
    assert_eq!(asked.selector, Selector { key: Some(7), ..Selector::default() });
}

#[test]
fn everything_that_is_said_must_fit_the_session() {
    let info = info();
    let all = Selector {
        key: Some(7),
        name: Some(b"alice".to_vec()),
        address: Some(Ipv4Addr::new(10, 20, 5, 77)),
        port: Some(3),
        peer: Some(b"203.0.113.9".to_vec()),
        local: Some(b"192.0.2.99".to_vec()),
    };
    assert!(all.matches(&known(&info)));
    for other in [
        Selector { key: Some(8), ..all.clone() },
        Selector { name: Some(b"Alice".to_vec()), ..all.clone() },
        Selector { address: Some(Ipv4Addr::new(10, 20, 5, 78)), ..all.clone() },
        Selector { port: Some(4), ..all.clone() },
        Selector { peer: Some(b"203.0.113.8".to_vec()), ..all.clone() },
        Selector::default(),
        Selector { local: Some(b"192.0.2.9".to_vec()), ..all },
    ] {
        assert!(!other.matches(&known(&info)), "{other:?}");
    }
}

#[test]
fn every_identification_attribute_is_understood() {
    let mut world = World::new();
    let asked = world.hear(&disconnect(
        1,
        &[
            (Attribute::USER_NAME, b"alice"),
            (Attribute::NAS_IP_ADDRESS, &[10, 0, 0, 1]),
            (Attribute::NAS_IDENTIFIER, b"towline"),
            (Attribute::NAS_PORT, &[0, 0, 0, 3]),
            (Attribute::FRAMED_IP_ADDRESS, &[10, 20, 5, 77]),
            (Attribute::CALLING_STATION_ID, b"203.0.113.9"),
            (Attribute::CALLED_STATION_ID, b"192.0.2.99"),
            (Attribute::EVENT_TIMESTAMP, &now()),
            (Attribute::ACCT_TERMINATE_CAUSE, &[0, 0, 0, 10]),
            (Attribute::REPLY_MESSAGE, b"bye"),
        ],
    ));
    let asked = asked.unwrap();
    let expected = Selector {
        key: None,
        name: Some(b"alice".to_vec()),
        address: Some(Ipv4Addr::new(10, 20, 5, 77)),
        port: Some(3),
        peer: Some(b"203.0.113.9".to_vec()),
        local: Some(b"192.0.2.99".to_vec()),
    };
    assert_eq!((asked.selector, asked.cause), (expected, TerminateCause::NAS_REQUEST));
}

#[test]
fn a_request_that_cannot_be_fulfilled_hears_why() {
    let user = (Attribute::USER_NAME, &b"alice"[..]);
    let time = now();
    let time = (Attribute::EVENT_TIMESTAMP, &time[..]);
    let mut world = World::new();
    let cases: [(Attributes<'_>, u32); 12] = [
        (&[user, time, (Attribute::SERVICE_TYPE, &[0, 0, 0, 2])], 401),
        (&[user, time, (Attribute::VENDOR_SPECIFIC, &[0, 0, 1, 0x37, 2, 3, 0])], 401),
        (&[user, time, (Attribute::CLASS, b"gold")], 401),
        (&[user, time, (Attribute(200), b"")], 401),
        (&[], 402),
        (&[time], 402),
        (&[(Attribute::NAS_IDENTIFIER, b"towline"), time], 402),
        (&[user], 402),
        (&[user, time, (Attribute::NAS_IDENTIFIER, b"Towline")], 403),
        (&[user, user, time], 404),
        (&[user, time, (Attribute::FRAMED_IP_ADDRESS, &[10, 0, 0])], 404),
        (&[user, (Attribute::EVENT_TIMESTAMP, &[0])], 404),
    ];
    for (id, (attributes, cause)) in (1..).zip(cases) {
        assert_eq!(world.refusal(&disconnect(id, attributes)), (Code::DISCONNECT_NAK, Some(cause)), "{attributes:?}");
    }
    assert_eq!(world.client.statistics().refused, 12);
}

#[test]
fn authorizations_cannot_be_changed() {
    let mut world = World::new();
    let user = (Attribute::USER_NAME, &b"alice"[..]);
    let octets = request(Code::COA_REQUEST, 1, &[user], SECRET);
    assert_eq!(world.refusal(&octets), (Code::COA_NAK, Some(406)));
    let service = (Attribute::SERVICE_TYPE, &[0, 0, 0, 17][..]);
    let octets = request(Code::COA_REQUEST, 2, &[user, service, (Attribute::STATE, b"s")], SECRET);
    assert_eq!(world.hear(&octets), None);
    let answer = world.client.poll_answer().unwrap();
    let answer = Packet::parse(&answer.octets).unwrap();
    assert_eq!((answer.code, answer.number(Attribute::ERROR_CAUSE)), (Code::COA_NAK, Ok(Some(405))));
    assert_eq!(answer.first(Attribute::STATE), Some(&b"s"[..]));
}

#[test]
fn what_proxies_added_comes_back_in_its_order() {
    let mut world = World::new();
    let octets = disconnect(1, &[(Attribute::PROXY_STATE, b"one"), (Attribute::PROXY_STATE, b"two")]);
    assert_eq!(world.hear(&octets), None);
    let answer = world.client.poll_answer().unwrap();
    let states: Vec<_> = Packet::parse(&answer.octets).unwrap().all(Attribute::PROXY_STATE).collect();
    assert_eq!(states, [&b"one"[..], b"two"]);
}

#[test]
fn strangers_and_forgers_get_no_answer() {
    let mut world = World::new();
    let octets = alice(1);
    assert_eq!(world.hear_from(UNIX, "192.0.2.3:40000".parse().unwrap(), &octets), None);
    assert_eq!(world.dropped(Dropped::Unexpected), 1);
    // The secret of one server is not that of the other.
    assert_eq!(world.hear_from(UNIX, "192.0.2.2:40000".parse().unwrap(), &octets), None);
    let user = (Attribute::USER_NAME, &b"alice"[..]);
    assert_eq!(world.hear(&request(Code::DISCONNECT_REQUEST, 1, &[user], b"guess")), None);
    assert_eq!(world.dropped(Dropped::WrongAuthenticator), 2);
    assert_eq!(world.hear(&octets[..octets.len() - 1]), None);
    assert_eq!(world.dropped(Dropped::Malformed), 1);
    assert_eq!(world.hear(&request(Code::ACCOUNTING_REQUEST, 1, &[user], SECRET)), None);
    assert_eq!(world.dropped(Dropped::Unexpected), 2);
    let mut builder = Builder::new(Code::DISCONNECT_REQUEST, 1);
    builder.push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]).push(Attribute::USER_NAME, b"alice");
    assert_eq!(world.hear(&builder.finish([0; AUTHENTICATOR], SECRET).unwrap()), None);
    assert_eq!(world.dropped(Dropped::WrongMessageAuthenticator), 1);
    assert_eq!(world.client.poll_answer(), None);
}

#[test]
fn a_message_authenticator_is_not_demanded_of_requests() {
    let mut world = World::new();
    let mut builder = Builder::new(Code::DISCONNECT_REQUEST, 1);
    builder.push(Attribute::USER_NAME, b"alice").push(Attribute::EVENT_TIMESTAMP, &now());
    assert!(world.hear(&builder.finish([0; AUTHENTICATOR], SECRET).unwrap()).is_some());
}

#[test]
fn a_request_of_another_time_gets_no_answer() {
    let octets = alice(1);
    for (unix, is_taken) in [(UNIX - 301, false), (UNIX - 300, true), (UNIX + 300, true), (UNIX + 301, false)] {
        let mut world = World::new();
        assert_eq!(world.hear_from(unix, from(), &octets).is_some(), is_taken);
        assert_eq!(world.dropped(Dropped::Stale), u64::from(!is_taken));
    }
}

#[test]
fn a_repetition_gets_the_same_answer_and_ends_nothing_more() {
    let mut world = World::new();
    let octets = alice(1);
    let asked = world.hear(&octets).unwrap();
    assert_eq!(world.hear(&octets), None);
    world.client.disconnected(asked.token, true);
    assert_eq!(world.answered(&octets), Some((Code::DISCONNECT_ACK, None)));
    assert_eq!(world.hear_from(UNIX + 300, from(), &octets), None);
    assert_eq!(world.answered(&octets), Some((Code::DISCONNECT_ACK, None)));
    assert_eq!(world.client.statistics().disconnected, 1);
    // Another request with the same number is another one.
    let other = disconnect(1, &[(Attribute::USER_NAME, b"bob"), (Attribute::EVENT_TIMESTAMP, &now())]);
    assert!(world.hear(&other).is_some());
}

#[test]
fn a_copy_is_known_for_as_long_as_its_time_is_taken() {
    let mut world = World::new();
    let octets = alice(1);
    // The clock of the server is ahead.
    let asked = world.hear_from(UNIX - 300, from(), &octets).unwrap();
    world.client.disconnected(asked.token, true);
    for unix in [UNIX - 299, UNIX, UNIX + 300] {
        assert_eq!(world.hear_from(unix, "192.0.2.1:50000".parse().unwrap(), &octets), None);
        world.client.poll_answer().unwrap();
    }
}

#[test]
fn requests_beyond_the_bound_are_dropped() {
    let mut world = World::new();
    for number in 0..MAX_REMEMBERED {
        let name = format!("user{number}");
        let attributes = [(Attribute::USER_NAME, name.as_bytes()), (Attribute::EVENT_TIMESTAMP, &now()[..])];
        assert!(world.hear(&disconnect(1, &attributes)).is_some());
    }
    assert_eq!(world.hear(&alice(1)), None);
    assert_eq!(world.dropped(Dropped::Full), 1);
    // They are forgotten when their time is over.
    let later = u32::try_from(UNIX + 301).unwrap().to_be_bytes();
    let attributes = [(Attribute::USER_NAME, &b"alice"[..]), (Attribute::EVENT_TIMESTAMP, &later[..])];
    assert!(world.hear_from(UNIX + 301, from(), &disconnect(1, &attributes)).is_some());
}
