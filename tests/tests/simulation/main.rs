//! The whole stack on a simulated network with virtual time: hours of rekeys and every kind of bad weather in seconds.

mod gateway;
mod network;
mod ppp;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gateway::{Gateway, ike_config};
use network::{Network, Side, Weather};
use towline_tunnel::buffer::{PacketBatch, Port};
use towline_tunnel::config::{self, Config};
use towline_tunnel::report::{Layer, Reason, State};
use towline_tunnel::stack::{Credentials, Event, Path, Tunnel};
use zeroize::Zeroizing;

const CLIENT: [u8; 4] = [198, 51, 100, 60];
const GATEWAY: [u8; 4] = [192, 0, 2, 10];
const PSK: &str = "a pre-shared key";

/// Seeds of the bad-weather test.
const SEEDS: u64 = 1_000;

/// What a world is made with.
struct Setting {
    weather: Weather,
    seed: u64,
    /// Lifetimes of phase 1 and 2 in seconds.
    lives: (u64, u64),
    /// The same at the gateway, which renews by itself what it offers a shorter life for.
    gateway_lives: (u64, u64),
    gateway_psk: &'static str,
    gateway_proposals: &'static [&'static str],
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            weather: Weather::FAIR,
            seed: 1,
            lives: (28_800, 3_600),
            gateway_lives: (86_400, 86_400),
            gateway_psk: PSK,
            gateway_proposals: &["aes128-sha1-ecp256"],
        }
    }
}

/// A client, a network and a gateway.
struct World {
    now: Instant,
    client: Tunnel,
    gateway: Option<Gateway>,
    network: Network,
    up: bool,
    closed: bool,
    pongs: u32,
}

fn client_config(lives: (u64, u64)) -> Config {
    let text = serde_json::json!({
        "peers": [{"address": "gateway.example.com"}],
        "credentials": {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
        // Elliptic curves: a thousand seeds in a debug build are paid by the group.
        "ike": {"proposals": ["aes128-sha1-ecp256"], "lifetimeSeconds": lives.0},
        "esp": {"proposals": ["aes128-sha256"], "lifetimeSeconds": lives.1},
        "network": {"remoteCIDRs": ["10.20.0.0/16"]},
    });
    config::parse(&text.to_string()).expect("the configuration is valid")
}

fn credentials() -> Credentials {
    Credentials {
        pre_shared_key: Zeroizing::new(PSK.as_bytes().to_vec()),
        username: Zeroizing::new("alice".to_owned()),
        password: Zeroizing::new("wonderland".to_owned()),
        tunnel_secret: None,
    }
}

impl World {
    fn new(setting: &Setting) -> Self {
        let now = Instant::now();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&setting.seed.to_le_bytes());
        let mut client = Tunnel::new(&client_config(setting.lives), seed, now);
        client.start(now);
        let ike = ike_config(
            setting.gateway_psk,
            setting.gateway_proposals,
            &["aes128-sha256"],
            setting.gateway_lives,
            (IpAddr::from(GATEWAY), IpAddr::from(CLIENT)),
        );
        let gateway = Some(Gateway::new(ike, setting.seed ^ 0x5a5a));
        let network = Network::new(setting.weather, setting.seed);
        let mut world = Self { now, client, gateway, network, up: false, closed: false, pongs: 0 };
        world.drain();
        world
    }

    /// Carries out what both ends ask for.
    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.client.poll_event() {
                quiet = false;
                match event {
                    Event::Dial { .. } => self.client.handle_path(
                        self.now,
                        Ok(Path {
                            credentials: credentials(),
                            local: CLIENT.into(),
                            local_ike_port: 500,
                            local_nat_t_port: 4500,
                            remote: GATEWAY.into(),
                            mtu: 1500,
                        }),
                    ),
                    Event::Up(_) => self.up = true,
                    Event::Down => self.up = false,
                    Event::Closed => self.closed = true,
                    Event::ReportChanged | Event::Keys(_) => {}
                }
            }
            self.pongs += u32::try_from(self.client.packets().len()).expect("a batch is small");
            self.client.packets().clear();
            let transmits = self.client.transmits();
            quiet &= transmits.is_empty();
            let runs: Vec<_> = transmits.runs().map(|run| (run.port, run.segment, run.octets.to_vec())).collect();
            transmits.clear();
            for (port, segment, octets) in runs {
                for datagram in octets.chunks(segment) {
                    self.network.send(self.now, Side::Gateway, port, datagram);
                }
            }
            while let Some((port, datagram)) = self.gateway.as_mut().and_then(Gateway::poll_transmit) {
                quiet = false;
                self.network.send(self.now, Side::Client, port, &datagram);
            }
            if quiet {
                return;
            }
        }
    }

    /// Goes on to the next thing that happens, at most until `limit`.
    fn step(&mut self, limit: Instant) {
        let gateway = self.gateway.as_ref().and_then(Gateway::poll_timeout);
        let next = [self.client.poll_timeout(), gateway, self.network.next(), Some(limit)].into_iter().flatten().min();
        self.now = next.unwrap_or(limit).max(self.now);
        while let Some((side, port, mut datagram)) = self.network.receive(self.now) {
            match side {
                Side::Client => {
                    let remote = SocketAddr::new(GATEWAY.into(), if port == Port::Ike { 500 } else { 4500 });
                    self.client.handle_datagram(self.now, port, remote, &mut datagram);
                }
                Side::Gateway => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.handle_datagram(self.now, port, datagram);
                    }
                }
            }
            self.drain();
        }
        self.client.handle_timeout(self.now);
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_timeout(self.now);
        }
        self.drain();
    }

    /// Lets `time` pass, or stops as soon as `done`; returns whether it was done.
    fn run(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let limit = self.now + time;
        while !done(self) {
            if self.now >= limit {
                return false;
            }
            self.step(limit);
        }
        true
    }

    fn ping(&mut self) {
        let mut packets = PacketBatch::new();
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 20, 5, 10, 10, 20, 4, 11];
        packet.extend([8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(packets.push(&packet));
        self.client.handle_packets(self.now, &packets);
        self.drain();
    }

    fn reason(&self, layer: Layer) -> (State, Reason) {
        let report = self.client.report().layer(layer).expect("every layer is reported");
        (report.state, report.reason)
    }
}

#[test]
fn a_tunnel_comes_up_carries_packets_and_says_goodbye() {
    let mut world = World::new(&Setting::default());
    assert!(
        world.run(Duration::from_secs(10), |world| world.client.report().is_ready()),
        "{:#?}",
        world.client.report()
    );
    for _ in 0..5 {
        world.ping();
    }
    assert!(world.run(Duration::from_secs(1), |world| world.pongs == 5), "{} of 5 came back", world.pongs);
    world.client.close(world.now);
    world.drain();
    assert!(world.run(Duration::from_secs(2), |world| world.closed));
    world.run(Duration::from_secs(1), |_| false);
    let seen = world.gateway.expect("the gateway is there").seen;
    assert!(seen.cdn && seen.stop_ccn && seen.sas_removed > 0, "{seen:?}");
}

#[test]
fn the_gateway_is_told_why_the_tunnel_ends() {
    let told = |end: fn(&mut World)| {
        let mut world = World::new(&Setting::default());
        assert!(world.run(Duration::from_secs(10), |world| world.up));
        end(&mut world);
        world.drain();
        world.run(Duration::from_secs(1), |_| false);
        let seen = world.gateway.expect("the gateway is there").seen;
        assert!(seen.terminated, "by LCP first");
        assert_eq!(seen.told.len(), 2, "CDN and StopCCN");
        seen.told
            .into_iter()
            .map(|outcome| (outcome.result, outcome.error.map(|code| code.0), outcome.text))
            .collect::<Vec<_>>()
    };
    let plain = |result| (result, None, String::new());
    assert_eq!(told(|world| world.client.close(world.now)), [plain(3), plain(6)]);
    assert_eq!(told(|world| world.client.apply(world.now, &client_config((600, 100)))), [plain(3), plain(1)]);
    let failed = (2, Some(6), "The device is gone.".to_owned());
    let fail: fn(&mut World) = |world| {
        world.client.handle_device_failure(world.now, "The device is gone.".to_owned());
    };
    assert_eq!(told(fail), [failed.clone(), failed]);
}

#[test]
fn a_gateway_that_negotiates_ppp_anew_takes_the_link_down_until_it_is_up_again() {
    let mut world = World::new(&Setting::default());
    assert!(world.run(Duration::from_secs(10), |world| world.client.report().is_ready()));
    let now = world.now;
    world.gateway.as_mut().expect("a gateway").renegotiate(now);
    assert!(world.run(Duration::from_secs(1), |world| !world.up), "still up");
    assert_eq!(world.reason(Layer::Ppp), (State::Pending, Reason::Negotiating));
    assert!(!world.client.report().is_ready());
    assert_eq!(world.client.report().assigned_address, None);
    assert!(world.client.report().negotiated.as_ref().is_some_and(|all| all.esp.is_some() && all.ppp_auth.is_none()));
    assert!(world.run(Duration::from_secs(10), |world| world.client.report().is_ready()));
    world.ping();
    assert!(world.run(Duration::from_secs(1), |world| world.pongs == 1));
    assert_eq!(world.gateway.expect("a gateway").seen.phase2, 1, "the keys stay");
}

#[test]
fn a_tunnel_comes_up_rekeys_and_goes_down_in_any_weather() {
    for seed in 0..SEEDS {
        // From fair to 30 % of each evil.
        let evil = 0.3 * (seed % 10) as f64 / 9.0;
        let weather = Weather { loss: evil, duplication: evil, reordering: evil };
        let mut world = World::new(&Setting { weather, seed, lives: (300, 60), ..Setting::default() });
        assert!(world.run(Duration::from_secs(900), |world| world.up), "seed {seed}: {:#?}", world.client.report());
        let phase2 = world.gateway.as_ref().expect("a gateway").seen.phase2;
        let done =
            |world: &World| world.up && world.gateway.as_ref().is_some_and(|gateway| gateway.seen.phase2 > phase2);
        assert!(world.run(Duration::from_secs(900), done), "seed {seed}: no rekey: {:#?}", world.client.report());
        world.client.close(world.now);
        world.drain();
        assert!(world.run(Duration::from_secs(2), |world| world.closed), "seed {seed}: not closed");
    }
}

#[test]
fn no_packet_is_lost_over_hours_of_rekeys_that_either_end_begins() {
    for (lives, gateway_lives) in [((300, 60), (86_400, 86_400)), ((86_400, 86_400), (300, 60)), ((300, 60), (300, 60))]
    {
        let mut world = World::new(&Setting { lives, gateway_lives, ..Setting::default() });
        assert!(world.run(Duration::from_secs(10), |world| world.up));
        let mut sent = 0;
        for _ in 0..4 * 7_200 {
            world.ping();
            sent += 1;
            world.run(Duration::from_millis(250), |_| false);
        }
        world.run(Duration::from_secs(1), |_| false);
        let seen = world.gateway.expect("a gateway").seen;
        assert_eq!(world.pongs, sent, "{lives:?} {gateway_lives:?} {seen:?}");
        assert!(seen.phase1 > 20 && seen.phase2 > 100, "{lives:?} {gateway_lives:?} {seen:?}");
    }
}

#[test]
fn a_gateway_that_is_gone_is_noticed_and_one_that_is_back_is_found() {
    let mut world = World::new(&Setting::default());
    assert!(world.run(Duration::from_secs(10), |world| world.client.report().is_ready()));
    let gateway = world.gateway.take();
    assert!(gateway.is_some());
    assert!(world.run(Duration::from_secs(31), |world| !world.client.report().is_ready()), "still ready");
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Peer).0 == State::Down));
    let setting = Setting::default();
    let ike = ike_config(
        PSK,
        setting.gateway_proposals,
        &["aes128-sha256"],
        setting.gateway_lives,
        (GATEWAY.into(), CLIENT.into()),
    );
    world.gateway = Some(Gateway::new(ike, 99));
    assert!(
        world.run(Duration::from_secs(120), |world| world.client.report().is_ready()),
        "{:#?}",
        world.client.report()
    );
}

#[test]
fn each_failure_has_its_own_reason() {
    let failing = |setting: Setting, layer: Layer| {
        let mut world = World::new(&setting);
        assert!(
            world.run(Duration::from_secs(120), |world| world.reason(layer).0 == State::Down),
            "{:#?}",
            world.client.report()
        );
        world.reason(layer).1
    };
    let wrong_psk = Setting { gateway_psk: "another", ..Setting::default() };
    assert_eq!(failing(wrong_psk, Layer::Ike), Reason::AuthenticationFailed);
    let no_proposal = Setting { gateway_proposals: &["3des-sha1-modp1024"], ..Setting::default() };
    assert_eq!(failing(no_proposal, Layer::Ike), Reason::NoProposalChosen);
    let deaf = Setting { weather: Weather { loss: 1.0, ..Weather::FAIR }, ..Setting::default() };
    assert_eq!(failing(deaf, Layer::Peer), Reason::PeerSilent);
}
