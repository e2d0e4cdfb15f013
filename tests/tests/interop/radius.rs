//! The RADIUS client against FreeRADIUS.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;
use towline_tests::netns::{Bridge, Namespace, sweep};
use towline_tests::peer::FreeRadius;
use towline_tests::process::wait_until;
use towline_tunnel::aaa::{Cause, Grant, Proof, Request, Verdict};
use towline_tunnel::crypto::hash;
use towline_tunnel::ppp::mschapv2::Exchange;
use towline_tunnel::radius::{
    Account, Authentic, Client, Dropped, Event, Known, Server, SessionInfo, Settings, Standing, TerminateCause, Traffic,
};
use towline_tunnel::suite::Hash;
use zeroize::Zeroizing;

const SERVER: &str = "192.0.2.30";
const CLIENT: &str = "192.0.2.20";
/// Nobody has this address.
const NOBODY: &str = "192.0.2.31";
const SECRET: &str = "a secret of both ends";
const PASSWORD: &str = "wonderland";
const USERS: &str = r#"
"alice" Cleartext-Password := "wonderland"
	Service-Type = Framed-User,
	Framed-Protocol = PPP,
	Framed-IP-Address = 10.20.5.77,
	Framed-Route = "192.168.7.0/24 0.0.0.0 1",
	Framed-Route += "192.168.8.0/24 0.0.0.0 1",
	Class = 0x676f6c64,
	Session-Timeout = 3600,
	Idle-Timeout = 600,
	Acct-Interim-Interval = 90
"#;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on one host and the client on another.
struct World {
    radius: FreeRadius,
    server: Namespace,
    driver: Driver,
    _bridge: Bridge,
    _client: Namespace,
}

/// The client with its sockets.
struct Driver {
    client: Client,
    socket: UdpSocket,
    requests: UdpSocket,
}

fn server(address: &str, secret: &str) -> Server {
    Server {
        address: Some(address.parse().unwrap()),
        port: 1_812,
        accounting_port: 1_813,
        secret: Zeroizing::new(secret.into()),
    }
}

impl World {
    fn new(servers: Vec<Server>) -> Self {
        Self::of(servers, true)
    }

    /// `signs` says whether the server puts a Message-Authenticator into every answer.
    fn of(servers: Vec<Server>, signs: bool) -> Self {
        sweep().unwrap();
        let bridge = Bridge::new().unwrap();
        let (there, here) = (Namespace::new("radius").unwrap(), Namespace::new("nas").unwrap());
        bridge.attach(&there, "eth0", &format!("{SERVER}/24")).unwrap();
        bridge.attach(&here, "eth0", &format!("{CLIENT}/24")).unwrap();
        let radius = FreeRadius::start(&there, SECRET, USERS, signs).unwrap();
        let bind = |address: &'static str| here.inside(move || UdpSocket::bind(address)).unwrap().unwrap();
        let settings = Settings {
            servers,
            timeout: Duration::from_secs(1),
            tries: 2,
            interim: None,
            nas_identifier: "towline".to_owned(),
        };
        let client = Client::new(settings, unix(), StdRng::from_seed([1; 32]));
        let driver = Driver { client, socket: bind("0.0.0.0:0"), requests: bind("0.0.0.0:3799") };
        Self { radius, server: there, driver, _bridge: bridge, _client: here }
    }

    fn ask(&mut self, name: &str, proof: Proof) -> Verdict {
        self.driver.client.request(Instant::now(), 7, Request { name: name.to_owned(), proof }, info());
        match self.driver.event() {
            Event::Answered { key: 7, verdict } => verdict,
            other => panic!("{other:?}\n{}", self.radius.log().unwrap()),
        }
    }

    fn accepted(&mut self, proof: Proof) -> Grant {
        match self.ask("alice", proof) {
            Verdict::Accept(grant) => *grant,
            other => panic!("{other:?}\n{}", self.radius.log().unwrap()),
        }
    }

    fn refused(&mut self, name: &str, proof: Proof) -> Cause {
        match self.ask(name, proof) {
            Verdict::Reject(refusal) => refusal.cause,
            other => panic!("{other:?}\n{}", self.radius.log().unwrap()),
        }
    }

    /// The next packet of EAP for the peer.
    fn challenged(&mut self, packet: Vec<u8>) -> Vec<u8> {
        match self.ask("alice", Proof::Eap { packet }) {
            Verdict::Challenge { packet } => packet,
            other => panic!("{other:?}\n{}", self.radius.log().unwrap()),
        }
    }
}

impl Driver {
    /// Speaks with the server until something has come of it.
    fn event(&mut self) -> Event {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.client.poll_event() {
                return event;
            }
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.client.statistics());
            self.turn();
        }
    }

    /// Speaks with the server until it has every record.
    fn account(&mut self) {
        let begun = Instant::now();
        while !self.client.is_accounted() {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.client.statistics());
            self.turn();
        }
    }

    /// Sends what there is to send, and waits for an answer or for the next deadline.
    fn turn(&mut self) {
        while let Some(datagram) = self.client.poll_transmit() {
            self.socket.send_to(&datagram.octets, datagram.to).unwrap();
        }
        let deadline = self.client.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = deadline.unwrap_or(PATIENCE).max(Duration::from_millis(1));
        if let Some((octets, from)) = receive(&self.socket, wait) {
            self.client.handle_datagram(Instant::now(), from, &octets);
        }
        self.client.handle_timeout(Instant::now());
    }
}

fn receive(socket: &UdpSocket, wait: Duration) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut buffer = vec![0; 4_096];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(length);
    Some((buffer, from))
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn info() -> SessionInfo {
    SessionInfo { port: 3, peer: "203.0.113.9".parse().unwrap(), local: CLIENT.parse().unwrap(), mtu: 1_400 }
}

fn account() -> Account {
    Account {
        name: "alice".to_owned(),
        address: Ipv4Addr::new(10, 20, 5, 77),
        info: info(),
        class: vec![b"gold".to_vec()],
        authentic: Authentic::RADIUS,
        interim: None,
    }
}

fn pap(password: &str) -> Proof {
    Proof::Pap { password: Zeroizing::new(password.into()) }
}

fn chap(password: &str) -> Proof {
    let (id, challenge) = (9, vec![5; 16]);
    let response = hash::digest(Hash::Md5, &[&[id], password.as_bytes(), &challenge]).try_into().unwrap();
    Proof::Chap { id, challenge, response }
}

fn exchange(password: &str) -> Exchange<'_> {
    Exchange { authenticator_challenge: [3; 16], peer_challenge: [4; 16], username: "alice", password }
}

fn ms_chap_v2(exchange: &Exchange<'_>) -> Proof {
    Proof::MsChapV2 {
        id: 9,
        authenticator_challenge: exchange.authenticator_challenge,
        peer_challenge: exchange.peer_challenge,
        nt_response: exchange.nt_response(),
    }
}

/// An EAP-Response (RFC 3748 section 4).
fn eap_response(id: u8, kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(5 + data.len()).unwrap().to_be_bytes();
    [&[2, id, length[0], length[1], kind], data].concat()
}

#[test]
fn freeradius_accepts_each_kind_of_proof() {
    let mut world = World::new(vec![server(SERVER, SECRET)]);
    let expected = Grant {
        name: "alice".to_owned(),
        address: Some(Ipv4Addr::new(10, 20, 5, 77)),
        networks: vec!["192.168.7.0/24".parse().unwrap(), "192.168.8.0/24".parse().unwrap()],
        idle: Some(Duration::from_secs(600)),
        total: Some(Duration::from_secs(3_600)),
        class: vec![b"gold".to_vec()],
        interim: Some(Duration::from_secs(90)),
        ..Grant::default()
    };
    assert_eq!(world.accepted(pap(PASSWORD)), expected);
    assert_eq!(world.accepted(chap(PASSWORD)), expected);
    let right = exchange(PASSWORD);
    let response = Some(right.authenticator_response(&right.nt_response()));
    assert_eq!(world.accepted(ms_chap_v2(&right)), Grant { authenticator_response: response, ..expected });
    assert_eq!(world.driver.client.statistics().accepted, 3);
}

#[test]
fn freeradius_refuses_wrong_passwords_and_unknown_users() {
    let mut world = World::new(vec![server(SERVER, SECRET)]);
    for proof in [pap("guess"), chap("guess"), ms_chap_v2(&exchange("guess"))] {
        assert_eq!(world.refused("alice", proof), Cause::RadiusReject);
    }
    assert_eq!(world.refused("nobody", pap(PASSWORD)), Cause::RadiusReject);
    assert_eq!(world.driver.client.statistics().rejected, 4);
}

#[test]
fn freeradius_does_not_hear_a_client_with_another_secret() {
    let mut world = World::new(vec![server(SERVER, "guess")]);
    assert_eq!(world.refused("alice", pap(PASSWORD)), Cause::RadiusSilent);
}

#[test]
fn a_freeradius_whose_answers_could_be_forged_is_found_out() {
    let mut world = World::of(vec![server(SERVER, SECRET)], false);
    assert_eq!(world.refused("alice", pap(PASSWORD)), Cause::RadiusSilent);
    let standings: Vec<Standing> = world.driver.client.standings().collect();
    assert_eq!(standings, [Standing::Unusable(Dropped::NoMessageAuthenticator)]);
}

/// The packets of the peer are those of draft-kamath-pppext-eap-mschapv2-02.
#[test]
fn a_conversation_of_eap_mschapv2_passes_through_in_rounds() {
    const IDENTITY: u8 = 1;
    const MSCHAPV2: u8 = 26;
    for (password, is_right) in [(PASSWORD, true), ("guess", false)] {
        let mut world = World::new(vec![server(SERVER, SECRET)]);
        let challenge = world.challenged(eap_response(1, IDENTITY, b"alice"));
        assert_eq!((challenge[0], challenge[4], challenge[5], challenge[9]), (1, MSCHAPV2, 1, 16), "{challenge:x?}");
        let authenticator_challenge = challenge[10..26].try_into().unwrap();
        let exchange = Exchange { authenticator_challenge, peer_challenge: [4; 16], username: "alice", password };
        let nt_response = exchange.nt_response();
        let value = [&[4; 16][..], &[0; 8], &nt_response, &[0]].concat();
        let response = [&[2, challenge[6], 0, 59, 49][..], &value, b"alice"].concat();
        let response = eap_response(challenge[1], MSCHAPV2, &response);
        if !is_right {
            let Verdict::Reject(refusal) = world.ask("alice", Proof::Eap { packet: response }) else {
                panic!("a wrong password gets in")
            };
            // EAP-Failure.
            assert_eq!(refusal.eap, Some(vec![4, challenge[1], 0, 4]));
            continue;
        }
        let answer = world.challenged(response);
        assert_eq!((answer[4], answer[5]), (MSCHAPV2, 3), "{answer:x?}");
        let expected = exchange.authenticator_response(&nt_response);
        assert!(answer[9..].starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&answer[9..]));
        let grant = world.accepted(Proof::Eap { packet: eap_response(answer[1], MSCHAPV2, &[3]) });
        assert_eq!(grant.address, Some(Ipv4Addr::new(10, 20, 5, 77)));
        assert_eq!(grant.eap, Some(vec![3, answer[1], 0, 4]));
        assert_eq!(world.driver.client.statistics().challenged, 2);
    }
}

#[test]
fn freeradius_writes_down_when_a_session_begins_lasts_and_ends() {
    let mut world = World::new(vec![server(SERVER, SECRET)]);
    let traffic = Traffic { input_octets: (1 << 32) + 5, output_octets: 4_321, input_packets: 77, output_packets: 88 };
    let client = &mut world.driver.client;
    client.accounting_on(Instant::now(), unix());
    client.start(Instant::now(), unix(), 7, account());
    world.driver.account();
    world.driver.client.update(Instant::now(), unix(), 7, traffic);
    world.driver.account();
    world.driver.client.stop(Instant::now(), unix(), 7, traffic, TerminateCause::IDLE_TIMEOUT);
    world.driver.client.accounting_off(Instant::now(), unix());
    world.driver.account();
    let records = world.radius.accounting().unwrap();
    let find = |status: &str| {
        let line = format!("Acct-Status-Type = {status}");
        let mut found = records.iter().filter(|record| record.contains(&line));
        found.next().unwrap_or_else(|| panic!("no {status} in {records:#?}"))
    };
    let of_all = ["NAS-Identifier = \"towline\"", "Acct-Session-Id = "];
    let of_session = [
        "User-Name = \"alice\"",
        "Framed-IP-Address = 10.20.5.77",
        "Calling-Station-Id = \"203.0.113.9\"",
        "NAS-Port = 3",
        "NAS-Port-Type = Virtual",
        "Class = 0x676f6c64",
        "Acct-Authentic = RADIUS",
    ];
    let of_traffic = [
        "Acct-Input-Octets = 5",
        "Acct-Input-Gigawords = 1",
        "Acct-Output-Octets = 4321",
        "Acct-Input-Packets = 77",
        "Acct-Output-Packets = 88",
        "Acct-Session-Time = ",
    ];
    for (status, expected) in [
        ("Accounting-On", [&of_all[..], &[]].concat()),
        ("Start", [&of_all[..], &of_session].concat()),
        ("Interim-Update", [&of_all[..], &of_session, &of_traffic].concat()),
        ("Stop", [&of_all[..], &of_session, &of_traffic, &["Acct-Terminate-Cause = Idle-Timeout"]].concat()),
        ("Accounting-Off", [&of_all[..], &[]].concat()),
    ] {
        let record = find(status);
        for words in expected {
            assert!(record.contains(words), "no {words} in {record}");
        }
    }
    assert_eq!(world.driver.client.statistics().acknowledged, 5);
}

#[test]
fn radclient_ends_a_session_that_is_there_and_no_other() {
    let mut world = World::new(vec![server(SERVER, SECRET)]);
    let session = info();
    let alice = Known { key: 7, name: "alice", address: Ipv4Addr::new(10, 20, 5, 77), info: &session };
    for (name, expected) in [("alice", "Disconnect-ACK"), ("bob", "Disconnect-NAK")] {
        let attributes = format!(
            "User-Name = \"{name}\"\nFramed-IP-Address = 10.20.5.77\nNAS-Identifier = \"towline\"\nEvent-Timestamp = {}\n",
            unix()
        );
        let (radius, namespace) = (&world.radius, &world.server);
        let driver = &mut world.driver;
        let said = std::thread::scope(|scope| {
            let sender = scope.spawn(|| radius.disconnect(namespace, &format!("{CLIENT}:3799"), &attributes));
            let (octets, from) = receive(&driver.requests, PATIENCE).unwrap();
            driver.client.handle_request(unix(), from, &octets);
            let Some(Event::Disconnect(disconnect)) = driver.client.poll_event() else {
                panic!("{:?}", driver.client.statistics())
            };
            driver.client.disconnected(disconnect.token, disconnect.selector.matches(&alice));
            let answer = driver.client.poll_answer().unwrap();
            driver.requests.send_to(&answer.octets, answer.to).unwrap();
            sender.join().unwrap().unwrap()
        });
        assert!(said.contains(&format!("Received {expected}")), "{said}");
        if name == "bob" {
            assert!(said.contains("Error-Cause = Session-Context-Not-Found"), "{said}");
        }
    }
}

#[test]
fn the_next_server_is_asked_when_the_first_is_dead() {
    let mut world = World::new(vec![server(NOBODY, SECRET), server(SERVER, SECRET)]);
    let begun = Instant::now();
    assert_eq!(world.accepted(pap(PASSWORD)).name, "alice");
    let first = begun.elapsed();
    // The dead one is remembered: nobody waits for it again.
    let repeated = world.driver.client.statistics().repeated;
    assert_eq!(world.accepted(pap(PASSWORD)).name, "alice");
    assert_eq!(world.driver.client.statistics().repeated, repeated, "after {first:?}");
    world.driver.client.start(Instant::now(), unix(), 7, account());
    world.driver.account();
    wait_until("the record", PATIENCE, || world.radius.accounting().unwrap().len() == 1).unwrap();
}
