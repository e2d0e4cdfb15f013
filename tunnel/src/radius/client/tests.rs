use rand::RngExt;

use super::super::attribute::Attribute;
use super::super::packet::{AUTHENTICATOR, Builder, Integrity};
use super::*;

const FIRST: &str = "192.0.2.1";
const SECOND: &str = "192.0.2.2";
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than a pause with whatever chance adds to it.
const PAUSE: Duration = Duration::from_millis(3_301);
const UNIX: u64 = 1_800_000_000;

fn server(address: &str, secret: &str) -> Server {
    Server {
        address: Some(address.parse().unwrap()),
        port: 1_812,
        accounting_port: 1_813,
        secret: Zeroizing::new(secret.into()),
    }
}

fn settings() -> Settings {
    Settings {
        servers: vec![server(FIRST, "first secret"), server(SECOND, "second secret")],
        timeout: TIMEOUT,
        tries: 3,
        interim: None,
        nas_identifier: "towline".to_owned(),
    }
}

fn info() -> SessionInfo {
    SessionInfo { port: 1, peer: "203.0.113.9".parse().unwrap(), local: "192.0.2.99".parse().unwrap(), mtu: 1_400 }
}

fn pap() -> aaa::Request {
    aaa::Request { name: "alice".to_owned(), proof: Proof::Pap { password: Zeroizing::new(b"wonderland".to_vec()) } }
}

fn eap(id: u8) -> aaa::Request {
    aaa::Request { name: "alice".to_owned(), proof: Proof::Eap { packet: vec![2, id, 0, 5, 1] } }
}

/// A client whose datagrams are looked at.
struct World {
    client: Client,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { client: Client::new(settings(), UNIX, StdRng::from_seed([3; 32])), now: Instant::now() }
    }

    fn request(&mut self, key: u64, request: aaa::Request) {
        self.client.request(self.now, key, request, info());
    }

    fn sent(&mut self) -> Vec<Datagram> {
        std::iter::from_fn(|| self.client.poll_transmit()).collect()
    }

    fn sent_to(&mut self) -> Vec<String> {
        self.sent().into_iter().map(|datagram| datagram.to.to_string()).collect()
    }

    /// The one datagram that was sent.
    fn one(&mut self) -> Datagram {
        let [datagram] = self.sent().try_into().unwrap();
        datagram
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    fn hear(&mut self, from: SocketAddr, octets: &[u8]) {
        self.client.handle_datagram(self.now, from, octets);
    }

    fn answer(&mut self, request: &Datagram, code: Code, attributes: &[(Attribute, &[u8])]) {
        self.hear(request.to, &answer(request, code, attributes));
    }

    fn event(&mut self) -> Option<(u64, Verdict)> {
        match self.client.poll_event()? {
            Event::Answered { key, verdict } => Some((key, verdict)),
            other => panic!("{other:?}"),
        }
    }

    fn dropped(&self, reason: Dropped) -> u64 {
        self.client.statistics().dropped.get(&reason).copied().unwrap_or_default()
    }
}

fn secret(to: SocketAddr) -> &'static [u8] {
    if to.ip().to_string() == FIRST { b"first secret" } else { b"second secret" }
}

fn parse(request: &Datagram) -> Packet<'_> {
    Packet::parse(&request.octets).unwrap()
}

/// The answer of the server that a request went to.
fn answer(request: &Datagram, code: Code, attributes: &[(Attribute, &[u8])]) -> Vec<u8> {
    let packet = parse(request);
    assert_eq!(packet.integrity(&packet.authenticator, secret(request.to)), Integrity::Proved);
    let mut builder = Builder::signed(code, packet.id);
    for (attribute, value) in attributes {
        builder.push(*attribute, value);
    }
    builder.finish(packet.authenticator, secret(request.to)).unwrap()
}

fn silent() -> Verdict {
    Verdict::Reject(Refusal::new(Cause::RadiusSilent))
}

fn is_accept(event: Option<(u64, Verdict)>, key: u64) -> bool {
    matches!(event, Some((of, Verdict::Accept(_))) if of == key)
}

#[test]
fn the_first_server_is_asked_and_decides() {
    let mut world = World::new();
    world.request(7, pap());
    let request = world.one();
    assert_eq!(request.to.to_string(), "192.0.2.1:1812");
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 7));
    assert_eq!(world.client.poll_timeout(), None);
    // Once more: it belongs to nothing.
    world.answer(&request, Code::ACCESS_REJECT, &[]);
    assert_eq!(world.event(), None);
    assert_eq!(world.dropped(Dropped::Unexpected), 1);
}

#[test]
fn requests_are_repeated_octet_for_octet() {
    let mut world = World::new();
    world.request(7, pap());
    let request = world.one();
    let due = world.client.poll_timeout().unwrap() - world.now;
    assert!(due >= TIMEOUT.mul_f64(0.9) && due <= TIMEOUT.mul_f64(1.1), "{due:?}");
    for _ in 0..2 {
        world.wait(PAUSE);
        assert_eq!(world.one(), request);
    }
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 7));
    assert_eq!(world.client.statistics().repeated, 2);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent_and_the_silent_one_last_for_a_minute() {
    let mut world = World::new();
    world.request(7, pap());
    for _ in 0..3 {
        assert_eq!(world.sent_to(), ["192.0.2.1:1812"]);
        world.wait(PAUSE);
    }
    let request = world.one();
    assert_eq!(request.to.to_string(), "192.0.2.2:1812");
    assert_eq!(world.client.standings().collect::<Vec<_>>(), [Standing::Silent, Standing::Unasked]);
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 7));
    assert_eq!(world.client.standings().collect::<Vec<_>>(), [Standing::Silent, Standing::Answers]);

    world.request(8, pap());
    assert_eq!(world.sent_to(), ["192.0.2.2:1812"]);
    world.client.forget(world.now, 8);
    world.wait(Duration::from_secs(60));
    world.request(9, pap());
    assert_eq!(world.sent_to(), ["192.0.2.1:1812"]);
}

#[test]
fn a_server_that_answers_others_is_not_silent() {
    let mut world = World::new();
    world.request(7, pap());
    world.sent();
    world.wait(PAUSE);
    world.sent();
    world.request(8, pap());
    let request = world.one();
    world.answer(&request, Code::ACCESS_REJECT, &[]);
    world.wait(PAUSE);
    world.wait(PAUSE);
    // Request 7 moves on, and the next one begins with the first server all the same.
    assert!(world.sent_to().contains(&"192.0.2.2:1812".to_owned()));
    assert_eq!(world.client.standings().next(), Some(Standing::Answers));
    world.request(9, pap());
    assert_eq!(world.sent_to(), ["192.0.2.1:1812"]);
}

#[test]
fn somebody_is_refused_when_no_server_answers() {
    let mut world = World::new();
    world.request(7, pap());
    for _ in 0..5 {
        world.wait(PAUSE);
        assert_eq!(world.event(), None);
    }
    world.wait(PAUSE);
    assert_eq!(world.event(), Some((7, silent())));
    assert_eq!(world.client.standings().collect::<Vec<_>>(), [Standing::Silent, Standing::Silent]);
    assert_eq!(world.client.statistics().unanswered, 1);
    assert_eq!(world.client.poll_timeout(), None);
}

#[test]
fn a_server_without_an_address_is_passed_over() {
    let mut world = World::new();
    let mut without = settings();
    without.servers[0].address = None;
    world.client.configure(world.now, without.clone());
    world.request(7, pap());
    assert_eq!(world.sent_to(), ["192.0.2.2:1812"]);
    without.servers[1].address = None;
    world.client.configure(world.now, without);
    assert_eq!(world.event(), Some((7, silent())));
}

#[test]
fn an_answer_that_is_not_the_servers_is_dropped() {
    let mut world = World::new();
    world.request(7, pap());
    let request = world.one();
    let right = answer(&request, Code::ACCESS_ACCEPT, &[]);
    let packet = parse(&request);
    let from = |seed, secret: &[u8]| Builder::signed(Code::ACCESS_ACCEPT, packet.id).finish(seed, secret).unwrap();

    world.hear("192.0.2.3:1812".parse().unwrap(), &right);
    world.hear("192.0.2.1:1813".parse().unwrap(), &right);
    world.hear("192.0.2.2:1812".parse().unwrap(), &right);
    assert_eq!(world.dropped(Dropped::Unexpected), 3);
    world.hear(request.to, &from(packet.authenticator, b"second secret"));
    world.hear(request.to, &from([0; AUTHENTICATOR], b"first secret"));
    assert_eq!(world.dropped(Dropped::WrongAuthenticator), 2);
    let mut other_id = right.clone();
    other_id[1] ^= 1;
    world.hear(request.to, &other_id);
    assert_eq!(world.dropped(Dropped::Unexpected), 4);
    world.hear(request.to, &right[..right.len() - 1]);
    assert_eq!(world.dropped(Dropped::Malformed), 1);
    world.answer(&request, Code::ACCESS_REQUEST, &[]);
    assert_eq!(world.dropped(Dropped::Unexpected), 5);

    assert_eq!(world.event(), None);
    world.hear(request.to, &right);
    assert!(is_accept(world.event(), 7));
}

#[test]
fn an_answer_that_md5_alone_protects_is_dropped() {
    let mut world = World::new();
    world.request(7, pap());
    let request = world.one();
    let packet = parse(&request);
    for code in [Code::ACCESS_ACCEPT, Code::ACCESS_REJECT, Code::ACCESS_CHALLENGE] {
        let unsigned = Builder::new(code, packet.id).finish(packet.authenticator, b"first secret").unwrap();
        world.hear(request.to, &unsigned);
    }
    assert_eq!(world.dropped(Dropped::NoMessageAuthenticator), 3);
    let mut builder = Builder::new(Code::ACCESS_ACCEPT, packet.id);
    builder.push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]);
    world.hear(request.to, &builder.finish(packet.authenticator, b"first secret").unwrap());
    assert_eq!(world.dropped(Dropped::WrongMessageAuthenticator), 1);
    assert_eq!(world.event(), None);
}

#[test]
fn a_server_whose_answers_cannot_be_used_is_told_from_one_that_is_silent() {
    let mut world = World::new();
    world.request(7, pap());
    let first = world.one();
    let unsigned = |request: &Datagram, secret: &[u8]| {
        Builder::new(Code::ACCESS_ACCEPT, parse(request).id).finish(parse(request).authenticator, secret).unwrap()
    };
    world.hear(first.to, &unsigned(&first, b"first secret"));
    for _ in 0..3 {
        world.wait(PAUSE);
    }
    let second = world.sent().pop().unwrap();
    world.hear(second.to, &unsigned(&second, b"guess"));
    for _ in 0..3 {
        world.wait(PAUSE);
    }
    let expected = [Dropped::NoMessageAuthenticator, Dropped::WrongAuthenticator].map(Standing::Unusable);
    assert_eq!(world.client.standings().collect::<Vec<_>>(), expected);
}

#[test]
fn a_conversation_of_eap_keeps_its_server_and_its_state() {
    let mut world = World::new();
    world.request(7, eap(1));
    for _ in 0..3 {
        world.sent();
        world.wait(PAUSE);
    }
    let request = world.one();
    assert_eq!(parse(&request).first(Attribute::STATE), None);
    let challenge = [1, 2, 0, 5, 4];
    world.answer(
        &request,
        Code::ACCESS_CHALLENGE,
        &[(Attribute::STATE, b"cookie"), (Attribute::EAP_MESSAGE, &challenge)],
    );
    assert_eq!(world.event(), Some((7, Verdict::Challenge { packet: challenge.to_vec() })));

    // After the minute the first server would be asked again.
    world.wait(Duration::from_secs(60));
    world.request(7, eap(2));
    let request = world.one();
    assert_eq!(request.to.to_string(), "192.0.2.2:1812");
    assert_eq!(parse(&request).first(Attribute::STATE), Some(&b"cookie"[..]));
    for _ in 0..3 {
        world.wait(PAUSE);
    }
    assert_eq!(world.event(), Some((7, silent())));
    assert!(world.sent_to().iter().all(|to| to == "192.0.2.2:1812"));
}

#[test]
fn a_response_that_comes_twice_has_its_state_twice() {
    let mut world = World::new();
    world.request(7, eap(1));
    let request = world.one();
    let attributes = [(Attribute::STATE, &b"cookie"[..]), (Attribute::EAP_MESSAGE, &[1, 2, 0, 5, 4])];
    world.answer(&request, Code::ACCESS_CHALLENGE, &attributes);
    for _ in 0..2 {
        world.request(7, eap(2));
        assert_eq!(parse(&world.one()).first(Attribute::STATE), Some(&b"cookie"[..]));
    }
}

#[test]
fn a_server_with_another_secret_is_another_server() {
    let mut world = World::new();
    world.request(7, pap());
    for _ in 0..6 {
        world.wait(PAUSE);
    }
    let mut other = settings();
    other.servers[0].secret = Zeroizing::new(b"another secret".to_vec());
    world.client.configure(world.now, other);
    assert_eq!(world.client.standings().collect::<Vec<_>>(), [Standing::Unasked, Standing::Silent]);
}

#[test]
fn a_conversation_that_begins_anew_has_no_state() {
    for forgotten in [false, true] {
        let mut world = World::new();
        world.request(7, eap(1));
        let request = world.one();
        world.answer(
            &request,
            Code::ACCESS_CHALLENGE,
            &[(Attribute::STATE, b"cookie"), (Attribute::EAP_MESSAGE, &[1, 2, 0, 5, 4])],
        );
        if forgotten {
            world.client.forget(world.now, 7);
        }
        world.request(7, eap(if forgotten { 2 } else { 9 }));
        assert_eq!(parse(&world.one()).first(Attribute::STATE), None);
    }
}

#[test]
fn another_request_of_a_session_takes_the_place_of_the_one_before() {
    let mut world = World::new();
    world.request(7, pap());
    let before = world.one();
    world.request(7, pap());
    let request = world.one();
    world.answer(&before, Code::ACCESS_REJECT, &[]);
    assert_eq!(world.event(), None);
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 7));
}

#[test]
fn a_session_that_is_no_more_is_not_asked_about() {
    let mut world = World::new();
    world.request(7, pap());
    let request = world.one();
    world.client.forget(world.now, 7);
    assert_eq!(world.client.poll_timeout(), None);
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert_eq!(world.event(), None);
}

#[test]
fn more_requests_than_identifiers_wait_for_their_turn() {
    let mut world = World::new();
    for key in 0..300 {
        world.request(key, pap());
    }
    let requests = world.sent();
    let ids: std::collections::BTreeSet<u8> = requests.iter().map(|request| parse(request).id).collect();
    assert_eq!((requests.len(), ids.len()), (256, 256));
    world.answer(&requests[9], Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 9));
    let next = world.one();
    assert_eq!(parse(&next).id, parse(&requests[9]).id);
    world.answer(&next, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 256));
}

#[test]
fn too_many_requests_are_refused_at_once() {
    let mut world = World::new();
    for key in 0..4_096 {
        world.request(key, pap());
    }
    assert_eq!(world.event(), None);
    world.request(9_999, pap());
    assert_eq!(world.event(), Some((9_999, silent())));
}

#[test]
fn identifiers_do_not_come_again_while_others_are_free() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for key in 0..256 {
        world.request(key, pap());
        let request = world.one();
        ids.push(parse(&request).id);
        world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 256);
}

#[test]
fn other_servers_are_asked_what_the_ones_before_have_not_answered() {
    let mut world = World::new();
    world.request(7, pap());
    let before = world.one();
    let mut other = settings();
    other.servers = vec![server(SECOND, "second secret")];
    world.client.configure(world.now, other);
    let request = world.one();
    assert_eq!(request.to.to_string(), "192.0.2.2:1812");
    world.answer(&before, Code::ACCESS_REJECT, &[]);
    assert_eq!(world.event(), None);
    world.answer(&request, Code::ACCESS_ACCEPT, &[]);
    assert!(is_accept(world.event(), 7));
}

#[test]
fn sessions_have_identifiers_that_are_theirs_alone() {
    let ids = SessionIds::new(UNIX, 0xabcd);
    assert_eq!(ids.of(0x1f), "6b49d2000000abcd-1f");
    assert_eq!(ids.key(b"6b49d2000000abcd-1f"), Some(0x1f));
    for other in [
        "",
        "6b49d2000000abcd-",
        "6b49d2000000abcd",
        "6b49d2000000abce-1f",
        "6b49d2000000abcd-01f",
        "6b49d2000000abcd-1F",
        "6b49d2000000abcd-+1",
    ] {
        assert_eq!(ids.key(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn nothing_that_comes_in_upsets_the_client() {
    let mut world = World::new();
    let mut rng = StdRng::from_seed([8; 32]);
    world.client.accounting_on(world.now, UNIX);
    for key in 0..2_000 {
        world.request(key, if rng.random() { pap() } else { eap(1) });
        let mut octets = match world.sent().pop() {
            Some(request) if parse(&request).code == Code::ACCESS_REQUEST => {
                let code = Code(rng.random_range(0..46));
                let value: Vec<u8> = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
                let attributes = [(Attribute(rng.random()), &value[..]), (Attribute::EAP_MESSAGE, &value[..])];
                answer(&request, code, &attributes)
            }
            _ => vec![0; 40],
        };
        if rng.random() {
            let at = rng.random_range(0..octets.len());
            octets[at] = rng.random();
        }
        let port = if rng.random() { 1_812 } else { 1_813 };
        world.hear(SocketAddr::new(FIRST.parse().unwrap(), port), &octets);
        world.client.handle_request(UNIX, SocketAddr::new(FIRST.parse().unwrap(), 9), &octets);
        if key % 50 == 0 {
            world.wait(PAUSE);
        }
        while world.client.poll_event().is_some() {}
    }
}
