use rand::SeedableRng;

use super::super::exchange::Datagram;
use super::super::{Client, Event, Server, Settings};
use super::*;

const UNIX: u64 = 1_800_000_000;
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than a pause with whatever chance adds to it.
const PAUSE: Duration = Duration::from_millis(3_301);
const SECRET: &[u8] = b"first secret";

struct World {
    client: Client,
    now: Instant,
    begun: Instant,
}

fn settings(accounting_port: u16) -> Settings {
    let server = |address: &str| Server {
        address: Some(address.parse().unwrap()),
        port: 1_812,
        accounting_port,
        secret: zeroize::Zeroizing::new(SECRET.to_vec()),
    };
    Settings {
        servers: vec![server("192.0.2.1"), server("192.0.2.2")],
        timeout: TIMEOUT,
        tries: 3,
        interim: None,
        nas_identifier: "towline".to_owned(),
    }
}

fn account() -> Account {
    Account {
        name: "alice".to_owned(),
        address: Ipv4Addr::new(10, 20, 5, 77),
        info: SessionInfo {
            port: 3,
            peer: "2001:db8::9".parse().unwrap(),
            local: "2001:db8::1".parse().unwrap(),
            mtu: 1_400,
        },
        class: vec![b"gold".to_vec(), b"silver".to_vec()],
        authentic: Authentic::RADIUS,
        interim: None,
    }
}

const TRAFFIC: Traffic = Traffic {
    input_octets: (5 << 32) + 17,
    output_octets: (1 << 32) - 1,
    input_packets: 1_000,
    output_packets: (1 << 32) + 2,
};

impl World {
    fn new() -> Self {
        Self::of(settings(1_813))
    }

    fn of(settings: Settings) -> Self {
        let now = Instant::now();
        Self { client: Client::new(settings, UNIX, StdRng::from_seed([4; 32])), now, begun: now }
    }

    fn unix(&self) -> u64 {
        UNIX + (self.now - self.begun).as_secs()
    }

    fn start(&mut self, key: u64, account: Account) {
        self.client.start(self.now, self.unix(), key, account);
    }

    fn update(&mut self, key: u64, traffic: Traffic) {
        self.client.update(self.now, self.unix(), key, traffic);
    }

    fn stop(&mut self, key: u64) {
        self.client.stop(self.now, self.unix(), key, TRAFFIC, TerminateCause::USER_REQUEST);
    }

    fn sent(&mut self) -> Vec<Datagram> {
        std::iter::from_fn(|| self.client.poll_transmit()).collect()
    }

    fn one(&mut self) -> Datagram {
        let [datagram] = self.sent().try_into().unwrap();
        datagram
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    fn acknowledge(&mut self, request: &Datagram) {
        let packet = parse(request);
        let octets = Builder::new(Code::ACCOUNTING_RESPONSE, packet.id).finish(packet.authenticator, SECRET).unwrap();
        self.client.handle_datagram(self.now, request.to, &octets);
    }

    fn due(&mut self) -> Vec<u64> {
        let event = |event| match event {
            Event::InterimDue { key } => key,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| self.client.poll_event()).map(event).collect()
    }
}

fn parse(request: &Datagram) -> Packet<'_> {
    let packet = Packet::parse(&request.octets).unwrap();
    assert_eq!(packet.code, Code::ACCOUNTING_REQUEST);
    assert!(packet.is_from(&[0; AUTHENTICATOR], SECRET));
    packet
}

fn number(request: &Datagram, attribute: Attribute) -> Option<u32> {
    parse(request).number(attribute).unwrap()
}

fn status(request: &Datagram) -> StatusType {
    StatusType(number(request, Attribute::ACCT_STATUS_TYPE).unwrap())
}

#[test]
fn a_session_is_told_of_when_it_begins_lasts_and_ends() {
    let mut world = World::new();
    world.start(7, account());
    let start = world.one();
    assert_eq!(start.to.to_string(), "192.0.2.1:1813");
    assert_eq!(status(&start), StatusType::START);
    for (attribute, value) in [
        (Attribute::USER_NAME, &b"alice"[..]),
        (Attribute::NAS_IDENTIFIER, b"towline"),
        (Attribute::NAS_PORT, &[0, 0, 0, 3]),
        (Attribute::FRAMED_IP_ADDRESS, &[10, 20, 5, 77]),
        (Attribute::CALLING_STATION_ID, b"2001:db8::9"),
        (Attribute::TUNNEL_MEDIUM_TYPE, &[0, 0, 0, 2]),
        (Attribute::ACCT_AUTHENTIC, &[0, 0, 0, 1]),
        (Attribute::ACCT_DELAY_TIME, &[0, 0, 0, 0]),
        (Attribute::EVENT_TIMESTAMP, &u32::try_from(UNIX).unwrap().to_be_bytes()),
    ] {
        assert_eq!(parse(&start).all(attribute).collect::<Vec<_>>(), [value], "{attribute}");
    }
    let classes: Vec<_> = parse(&start).all(Attribute::CLASS).collect();
    assert_eq!(classes, [&b"gold"[..], b"silver"]);
    assert_eq!(number(&start, Attribute::ACCT_SESSION_TIME), None);
    world.acknowledge(&start);

    world.wait(Duration::from_secs(90));
    world.update(7, TRAFFIC);
    let interim = world.one();
    assert_eq!(status(&interim), StatusType::INTERIM_UPDATE);
    assert_eq!(number(&interim, Attribute::ACCT_TERMINATE_CAUSE), None);
    world.acknowledge(&interim);

    world.wait(Duration::from_secs(10));
    world.stop(7);
    let stop = world.one();
    assert_eq!(status(&stop), StatusType::STOP);
    for (attribute, value) in [
        (Attribute::ACCT_SESSION_TIME, 100),
        (Attribute::ACCT_INPUT_OCTETS, 17),
        (Attribute::ACCT_INPUT_GIGAWORDS, 5),
        (Attribute::ACCT_OUTPUT_OCTETS, u32::MAX),
        (Attribute::ACCT_OUTPUT_GIGAWORDS, 0),
        (Attribute::ACCT_INPUT_PACKETS, 1_000),
        (Attribute::ACCT_OUTPUT_PACKETS, 2),
        (Attribute::ACCT_TERMINATE_CAUSE, 1),
        (Attribute::EVENT_TIMESTAMP, u32::try_from(UNIX).unwrap() + 100),
    ] {
        assert_eq!(number(&stop, attribute), Some(value), "{attribute}");
    }
    let id = |request| parse(request).first(Attribute::ACCT_SESSION_ID).unwrap().to_vec();
    assert_eq!([id(&start), id(&interim)], [id(&stop), id(&stop)]);
    assert!(!world.client.is_accounted());
    world.acknowledge(&stop);
    assert!(world.client.is_accounted());
    assert_eq!(world.client.poll_timeout(), None);
    assert_eq!(world.client.statistics().acknowledged, 3);
    // What comes after the end is not told.
    world.update(7, TRAFFIC);
    assert!(world.sent().is_empty());
}

#[test]
fn records_never_carry_what_only_authentication_may() {
    let mut world = World::new();
    world.start(7, account());
    let start = world.one();
    assert_eq!(parse(&start).first(Attribute::MESSAGE_AUTHENTICATOR), None);
    assert_eq!(parse(&start).first(Attribute::STATE), None);
}

#[test]
fn a_repetition_says_how_late_it_is_and_any_of_its_answers_counts() {
    for answered in 0..3 {
        let mut world = World::new();
        world.start(7, account());
        let mut requests = world.sent();
        for _ in 0..2 {
            world.wait(PAUSE);
            requests.push(world.one());
        }
        let delays = requests.iter().map(|request| number(request, Attribute::ACCT_DELAY_TIME).unwrap());
        assert_eq!(delays.collect::<Vec<_>>(), [0, 3, 6]);
        let mut ids: Vec<u8> = requests.iter().map(|request| parse(request).id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3);
        world.acknowledge(&requests[answered]);
        assert!(world.client.is_accounted());
    }
}

#[test]
fn records_outlive_the_silence_of_every_server() {
    let mut world = World::new();
    world.start(7, account());
    let mut to = world.sent();
    while to.len() < 30 {
        world.now = world.client.poll_timeout().unwrap();
        world.client.handle_timeout(world.now);
        to.extend(world.sent());
    }
    let hosts = |requests: &[Datagram]| requests.iter().map(|request| request.to.ip().to_string()).collect::<Vec<_>>();
    assert_eq!(hosts(&to[..6]), ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2"]);
    let delay = number(to.last().unwrap(), Attribute::ACCT_DELAY_TIME).unwrap();
    assert!(delay > 100, "{delay}");
    assert_eq!(number(to.last().unwrap(), Attribute::EVENT_TIMESTAMP), Some(u32::try_from(UNIX).unwrap()));
    world.acknowledge(to.last().unwrap());
    assert!(world.client.is_accounted());
}

#[test]
fn the_end_of_a_session_waits_for_its_beginning_and_no_other_session_does() {
    let mut world = World::new();
    world.start(7, account());
    world.stop(7);
    let start = world.one();
    assert_eq!(status(&start), StatusType::START);
    world.start(8, account());
    assert_eq!(status(&world.one()), StatusType::START);
    world.acknowledge(&start);
    assert_eq!(status(&world.one()), StatusType::STOP);
}

#[test]
fn of_the_updates_that_wait_only_the_last_is_told() {
    let mut world = World::new();
    world.start(7, account());
    let start = world.one();
    for packets in 1..=5 {
        world.update(7, Traffic { input_packets: packets, ..TRAFFIC });
    }
    world.acknowledge(&start);
    let interim = world.one();
    assert_eq!(number(&interim, Attribute::ACCT_INPUT_PACKETS), Some(5));
    world.acknowledge(&interim);
    assert!(world.client.is_accounted());
}

#[test]
fn only_so_many_records_are_with_a_server() {
    let mut world = World::new();
    for key in 0..100 {
        world.start(key, account());
    }
    let sent = world.sent();
    assert_eq!(sent.len(), WINDOW);
    world.acknowledge(&sent[3]);
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn records_beyond_the_bound_are_dropped_and_counted() {
    let mut world = World::new();
    for key in 0..MAX_RECORDS as u64 + 5 {
        world.start(key, account());
    }
    assert_eq!(world.client.statistics().lost, 5);
}

#[test]
fn updates_are_due_for_as_long_as_a_session_lasts() {
    let mut world = World::new();
    world.start(7, Account { interim: Some(Duration::from_secs(60)), ..account() });
    let start = world.one();
    world.acknowledge(&start);
    world.wait(Duration::from_secs(59));
    assert!(world.due().is_empty());
    for _ in 0..3 {
        world.now = world.client.poll_timeout().unwrap();
        world.client.handle_timeout(world.now);
        assert_eq!(world.due(), [7]);
    }
    assert_eq!((world.now - world.begun).as_secs(), 180);
    world.stop(7);
    let stop = world.one();
    world.acknowledge(&stop);
    assert_eq!(world.client.poll_timeout(), None);
}

#[test]
fn the_process_says_when_it_begins_and_ends() {
    let mut world = World::new();
    world.client.accounting_on(world.now, UNIX);
    let on = world.one();
    assert_eq!(status(&on), StatusType::ACCOUNTING_ON);
    assert_eq!(parse(&on).first(Attribute::NAS_IDENTIFIER), Some(&b"towline"[..]));
    assert!(parse(&on).first(Attribute::ACCT_SESSION_ID).is_some_and(|id| !id.is_empty()));
    assert_eq!(parse(&on).first(Attribute::USER_NAME), None);
    world.acknowledge(&on);
    world.client.accounting_off(world.now, UNIX);
    assert_eq!(status(&world.one()), StatusType::ACCOUNTING_OFF);
}

#[test]
fn nothing_is_kept_for_servers_that_do_not_account() {
    let mut world = World::of(settings(0));
    world.start(7, account());
    world.stop(7);
    assert!(world.sent().is_empty());
    assert!(world.client.is_accounted());

    let mut world = World::new();
    world.start(7, account());
    world.client.configure(world.now, settings(0));
    assert!(world.client.is_accounted());
    assert!(world.sent().is_empty());
    world.client.configure(world.now, settings(1_813));
    world.stop(7);
    assert_eq!(status(&world.one()), StatusType::STOP);
}

#[test]
fn other_servers_are_told_what_the_ones_before_have_not_acknowledged() {
    let mut world = World::new();
    world.start(7, account());
    world.one();
    let mut other = settings(1_813);
    other.servers.remove(0);
    world.client.configure(world.now, other);
    let start = world.one();
    assert_eq!(start.to.to_string(), "192.0.2.2:1813");
    world.acknowledge(&start);
    assert!(world.client.is_accounted());
}

#[test]
fn an_answer_without_the_secret_acknowledges_nothing() {
    let mut world = World::new();
    world.start(7, account());
    let start = world.one();
    let packet = parse(&start);
    let forged = Builder::new(Code::ACCOUNTING_RESPONSE, packet.id).finish(packet.authenticator, b"guess").unwrap();
    world.client.handle_datagram(world.now, start.to, &forged);
    let mut builder = Builder::new(Code::ACCOUNTING_RESPONSE, packet.id);
    builder.push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]);
    let refuted = builder.finish(packet.authenticator, SECRET).unwrap();
    world.client.handle_datagram(world.now, start.to, &refuted);
    assert!(!world.client.is_accounted());
}
