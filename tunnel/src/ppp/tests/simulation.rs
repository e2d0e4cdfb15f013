//! Clients and servers of this crate against each other, over links that lose, repeat and delay frames.

use std::collections::BTreeMap;

use rand::RngExt as _;

use super::*;
use crate::aaa::{Cause, Grant, Proof, Refusal, Request};
use crate::crypto::hash;
use crate::suite::Hash;

/// Every order of some of the protocols.
const LISTS: [&[PppAuth]; 8] = [
    &[PppAuth::MsChapV2],
    &[PppAuth::Chap],
    &[PppAuth::Pap],
    &[PppAuth::Eap],
    &[PppAuth::Eap, PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap],
    &[PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap],
    &[PppAuth::Pap, PppAuth::Chap],
    &[PppAuth::Chap, PppAuth::MsChapV2],
];

/// What the owner of a server says.
fn judge(request: &Request) -> Result<Grant, Refusal> {
    let right = match &request.proof {
        _ if request.name != "alice" => return Err(Refusal::new(Cause::UnknownUser)),
        Proof::Pap { password } => password.as_slice() == b"secret",
        Proof::Chap { id, challenge, response } => {
            hash::digest(Hash::Md5, &[&[*id], b"secret", challenge]) == *response
        }
        Proof::MsChapV2 { authenticator_challenge, peer_challenge, nt_response, .. } => {
            let exchange = Exchange {
                authenticator_challenge: *authenticator_challenge,
                peer_challenge: *peer_challenge,
                username: &request.name,
                password: "secret",
            };
            if exchange.verify(nt_response) {
                let authenticator_response = Some(exchange.authenticator_response(nt_response));
                return Ok(Grant { authenticator_response, ..Grant::default() });
            }
            false
        }
        Proof::Certificate => true,
        Proof::Eap { .. } => false,
    };
    if right { Ok(Grant::default()) } else { Err(Refusal::new(Cause::WrongPassword)) }
}

/// Something that happens later.
enum Later {
    ToClient(Vec<u8>),
    ToServer(Vec<u8>),
    Verdict(Box<Result<Grant, Refusal>>),
}

pub(super) struct World {
    pub(super) client: Ppp,
    pub(super) server: Ppp,
    now: Instant,
    rng: StdRng,
    /// Percent of the frames that are lost, and as many that come twice.
    loss: u32,
    later: BTreeMap<(Instant, u64), Later>,
    number: u64,
    /// What the owners were told.
    pub(super) client_events: Vec<Event>,
    pub(super) server_events: Vec<Event>,
}

impl World {
    fn new(seed: u64, loss: u32, client: &[PppAuth], server: &[PppAuth], password: &str) -> Self {
        let (username, password) = ("alice".to_owned(), Zeroizing::new(password.to_owned()));
        let client = Client { username, password, auth: client.to_vec(), ipv6: true, ..Client::default() };
        let server = Server { auth: server.to_vec(), ipv6: true, ..Server::default() };
        Self::of(seed, loss, client, server)
    }

    pub(super) fn of(seed: u64, loss: u32, client: Client, server: Server) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (client, server) = (Role::Client(client), Role::Server(server));
        let ppp = |role, rng: &mut StdRng| Ppp::new(Config { role, ..Config::default() }, split(rng));
        let (client, server) = (ppp(client, &mut rng), ppp(server, &mut rng));
        Self {
            client,
            server,
            now: Instant::now(),
            rng,
            loss,
            later: BTreeMap::new(),
            number: 0,
            client_events: Vec::new(),
            server_events: Vec::new(),
        }
    }

    fn later(&mut self, milliseconds: u64, what: Later) {
        self.number += 1;
        self.later.insert((self.now + Duration::from_millis(milliseconds), self.number), what);
    }

    fn carry(&mut self, frame: Vec<u8>, direction: fn(Vec<u8>) -> Later) {
        for _ in 0..1 + u32::from(self.rng.random_range(0..100) < self.loss) {
            if self.rng.random_range(0..100) >= self.loss {
                let delay = self.rng.random_range(10..60);
                self.later(delay, direction(frame.clone()));
            }
        }
    }

    fn take(&mut self) {
        while let Some(frame) = self.client.poll_transmit() {
            self.carry(frame, Later::ToServer);
        }
        while let Some(frame) = self.server.poll_transmit() {
            self.carry(frame, Later::ToClient);
        }
        while let Some(event) = self.client.poll_event() {
            self.client_events.push(event);
        }
        while let Some(event) = self.server.poll_event() {
            if let Event::Authenticate(request) = &event {
                let delay = self.rng.random_range(0..2000);
                self.later(delay, Later::Verdict(Box::new(judge(request))));
            }
            if let Event::Failed(_) = &event {
                self.server.close(self.now);
            }
            self.server_events.push(event);
        }
    }

    fn ends(&self) -> bool {
        let ended = |events: &[Event]| {
            events.iter().any(|event| matches!(event, Event::Failed(_) | Event::Down { .. } | Event::Closed))
        };
        (self.client.carries_packets() && self.server.carries_packets())
            || (ended(&self.client_events) && ended(&self.server_events))
    }

    /// Runs until both ends are up or at an end.
    pub(super) fn run(&mut self) {
        self.client.open(self.now);
        self.server.open(self.now);
        let end = self.now + Duration::from_secs(120);
        self.take();
        while self.now < end && !self.ends() {
            let next = self.later.keys().next().map(|(at, _)| *at);
            let timers = [next, self.client.poll_timeout(), self.server.poll_timeout()];
            let Some(at) = timers.into_iter().flatten().min() else { return };
            self.now = self.now.max(at);
            match self.later.first_entry().filter(|entry| entry.key().0 <= self.now).map(|entry| entry.remove()) {
                Some(Later::ToClient(frame)) => assert!(self.client.handle_frame(self.now, &frame).is_none()),
                Some(Later::ToServer(frame)) => assert!(self.server.handle_frame(self.now, &frame).is_none()),
                Some(Later::Verdict(verdict)) => match *verdict {
                    Ok(grant) => {
                        self.server.accept(self.now, &grant, server::assignment());
                    }
                    Err(refusal) => self.server.reject(self.now, &refusal),
                },
                None => {
                    self.client.handle_timeout(self.now);
                    self.server.handle_timeout(self.now);
                }
            }
            self.take();
        }
    }

    fn method(&self) -> Option<PppAuth> {
        let of = |events: &[Event]| {
            events.iter().find_map(|event| match event {
                Event::Authenticated { method } => Some(*method),
                _ => None,
            })
        };
        assert_eq!(of(&self.client_events), of(&self.server_events));
        of(&self.client_events)
    }

    pub(super) fn story(&self) -> String {
        format!("client: {:?}\nserver: {:?}", self.client_events, self.server_events)
    }
}

#[test]
fn every_pair_of_lists_with_a_protocol_in_common_comes_up_with_the_servers_first_choice() {
    for client in LISTS {
        for server in LISTS {
            let mut world = World::new(1, 0, client, server, "secret");
            world.run();
            let common = server.iter().copied().find(|auth| client.contains(auth));
            if common.is_some() {
                assert!(world.client.carries_packets() && world.server.carries_packets(), "{}", world.story());
                let opened = |event: &&Event| matches!(event, Event::IpcpOpened { .. });
                let opened =
                    [&world.client_events, &world.server_events].map(|events| events.iter().find(opened).cloned());
                let [Some(ours), Some(theirs)] = opened else { panic!("{}", world.story()) };
                let dns = vec![[10, 0, 0, 53].into()];
                let (one, nine) = ([10, 0, 0, 1].into(), [10, 0, 0, 9].into());
                assert_eq!(ours, Event::IpcpOpened { address: nine, peer: Some(one), dns: dns.clone() });
                assert_eq!(theirs, Event::IpcpOpened { address: one, peer: Some(nine), dns });
            } else {
                let failed = Event::Failed(Error::NoCommonAuthentication);
                assert!(world.server_events.contains(&failed), "{client:?} {server:?}: {}", world.story());
            }
            let proposed = common.filter(|first| client.first() != Some(first) && server.first() != Some(first));
            assert!(world.method() == common || proposed.is_some(), "{client:?} {server:?}: {:?}", world.method());
        }
    }
}

#[test]
fn links_come_up_although_frames_are_lost_and_repeated() {
    let all = LISTS[4];
    for seed in 0..200 {
        let client = LISTS[usize::try_from(seed).unwrap() % LISTS.len()];
        let mut world = World::new(seed, 15, client, all, "secret");
        world.run();
        assert!(world.client.carries_packets() && world.server.carries_packets(), "seed {seed}\n{}", world.story());
        let asked = world.server_events.iter().filter(|event| matches!(event, Event::Authenticate(_))).count();
        let opened = world.server_events.iter().filter(|event| **event == Event::LcpOpened).count();
        assert!(asked <= opened, "seed {seed}: asked once for each time that LCP opens\n{}", world.story());
    }
}

#[test]
fn ends_with_nothing_in_common_never_agree_although_frames_are_lost_and_repeated() {
    let mut pairs = 0;
    for seed in 0..200 {
        let number = usize::try_from(seed).unwrap();
        let (client, server) = (LISTS[number % LISTS.len()], LISTS[number / LISTS.len() % LISTS.len()]);
        if client.iter().any(|auth| server.contains(auth)) {
            continue;
        }
        pairs += 1;
        let mut world = World::new(seed, 15, client, server, "secret");
        world.run();
        assert!(!world.client.carries_packets() && !world.server.carries_packets(), "{}", world.story());
        let failed = |event: &Event| matches!(event, Event::Failed(_));
        assert!(world.server_events.iter().any(failed), "seed {seed}\n{}", world.story());
        assert!(!world.server_events.iter().any(|event| matches!(event, Event::Authenticate(_))));
    }
    assert!(pairs > 50, "{pairs}");
}

#[test]
fn a_wrong_password_never_gets_in_although_frames_are_lost_and_repeated() {
    for seed in 0..200 {
        let client = LISTS[usize::try_from(seed).unwrap() % LISTS.len()];
        let mut world = World::new(seed, 15, client, LISTS[4], "guess");
        world.run();
        let refused =
            |event: &Event| matches!(event, Event::Failed(Error::Refused { cause: Cause::WrongPassword, .. }));
        assert!(world.server_events.iter().any(refused), "seed {seed}\n{}", world.story());
        assert!(world.client_events.iter().any(|event| matches!(event, Event::Failed(_))), "{}", world.story());
        assert_eq!(world.method(), None);
    }
}
