//! A client, a network and a gateway, and the time that passes for all of them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use towline_tunnel::buffer::PacketBatch;
use towline_tunnel::config::{self, Config};
use towline_tunnel::ike;
use towline_tunnel::report::{Layer, Negotiated, Reason, State};
use towline_tunnel::stack::{Credentials, Event, Path, Tunnel};
use zeroize::Zeroizing;

use crate::gateway::{Gateway, ike_config, nat_t_port_of, port_of};
use crate::network::{Datagram, Network, Side, Weather};

pub(crate) const CLIENT: [u8; 4] = [198, 51, 100, 60];
const GATEWAY: [u8; 4] = [192, 0, 2, 10];
const PSK: &str = "a pre-shared key";
/// The first of the client's fresh ports.
const FRESH_PORT: u16 = 40_000;

/// What a world is made with.
pub(crate) struct Setting {
    pub(crate) weather: Weather,
    pub(crate) seed: u64,
    /// Lifetimes of phase 1 and 2 in seconds.
    pub(crate) lives: (u64, u64),
    /// The same at the gateway, which renews by itself what it offers a shorter life for.
    pub(crate) gateway_lives: (u64, u64),
    pub(crate) gateway_psk: &'static str,
    pub(crate) gateway_proposals: &'static [&'static str],
    pub(crate) gateway_esp: &'static [&'static str],
    pub(crate) gateway_nat_traversal: ike::NatTraversal,
    /// The only identity of the client that the gateway takes; any if none is named.
    pub(crate) gateway_takes: Option<fn() -> ike::Identity>,
    /// What else the client's configuration says, by JSON pointer.
    pub(crate) config: &'static [(&'static str, &'static str)],
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
            gateway_esp: &["aes128-sha256"],
            gateway_nat_traversal: ike::NatTraversal::Required,
            gateway_takes: None,
            config: &[],
        }
    }
}

impl Setting {
    pub(crate) fn config(&self) -> Config {
        let mut config = serde_json::json!({
            "peers": [{"address": "gateway.example.com"}],
            "credentials":
                {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
            // Elliptic curves: a thousand seeds in a debug build are paid by the group.
            "ike": {"proposals": ["aes128-sha1-ecp256"], "lifetimeSeconds": self.lives.0},
            "esp": {"proposals": ["aes128-sha256"], "lifetimeSeconds": self.lives.1},
            "ppp": {},
            "network": {"remoteCIDRs": ["10.20.0.0/16"]},
            "healthCheck": {},
        });
        for (pointer, value) in self.config {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
            let parent = config.pointer_mut(parent).expect("the parent is there");
            parent[key] = serde_json::from_str(value).expect("a value is JSON");
        }
        config::parse(&config.to_string()).expect("the configuration is valid")
    }

    fn gateway(&self, seed: u64) -> Gateway {
        let ike = ike_config(
            self.gateway_psk,
            self.gateway_proposals,
            self.gateway_esp,
            self.gateway_lives,
            (IpAddr::from(GATEWAY), IpAddr::from(CLIENT)),
        );
        let remote_id = self.gateway_takes.map(|identity| identity());
        Gateway::new(ike::Config { nat_traversal: self.gateway_nat_traversal, remote_id, ..ike }, seed)
    }
}

fn credentials() -> Credentials {
    Credentials {
        ike: ike::Credentials::pre_shared_key(Zeroizing::new(PSK.as_bytes().to_vec())),
        username: Zeroizing::new("alice".to_owned()),
        password: Zeroizing::new("wonderland".to_owned()),
        tunnel_secret: None,
        warnings: Vec::new(),
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) client: Tunnel,
    /// The client's port towards 500.
    pub(crate) client_port: u16,
    /// Dials that were asked for to the address of the one before.
    pub(crate) again: u32,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) network: Network,
    pub(crate) up: bool,
    pub(crate) closed: bool,
    pub(crate) pongs: u32,
    /// IP packets that came out of the client.
    pub(crate) received: u32,
    pub(crate) mtus: Vec<u16>,
    /// Every state that a layer was reported in.
    pub(crate) history: Vec<(Layer, State, Reason)>,
}

impl World {
    pub(crate) fn new(setting: &Setting) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        seed[..8].copy_from_slice(&setting.seed.to_le_bytes());
        let mut client = Tunnel::new(&setting.config(), seed);
        client.start();
        let mut world = Self {
            now: Instant::now(),
            client,
            client_port: 0,
            again: 0,
            gateway: Some(setting.gateway(setting.seed ^ 0x5a5a)),
            network: Network::new(setting.weather, setting.seed),
            up: false,
            closed: false,
            pongs: 0,
            received: 0,
            mtus: Vec::new(),
            history: Vec::new(),
        };
        world.drain();
        world
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("the gateway is there")
    }

    pub(crate) fn gateway_mut(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("the gateway is there")
    }

    /// The gateway comes back without a memory of what was before.
    pub(crate) fn revive(&mut self, setting: &Setting) {
        self.gateway = Some(setting.gateway(setting.seed ^ 0xa5a5));
    }

    /// Carries out what both ends ask for.
    pub(crate) fn drain(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.client.poll_event() {
                quiet = false;
                self.handle_event(event);
            }
            for packet in self.client.packets().iter() {
                self.received += 1;
                self.pongs += u32::from(packet.get(20) == Some(&8));
            }
            self.client.packets().clear();
            let client_port = self.client_port;
            let transmits = self.client.transmits();
            quiet &= transmits.is_empty();
            let mut sent = Vec::new();
            for run in transmits.runs() {
                let client_port = port_of(run.socket, client_port);
                let octets = run.octets.chunks(run.segment);
                sent.extend(octets.map(|octets| Datagram {
                    to: Side::Gateway,
                    carrier: run.socket,
                    client_port,
                    octets: octets.to_vec(),
                }));
            }
            transmits.clear();
            while let Some(gateway) = &mut self.gateway
                && let Some((carrier, octets)) = gateway.poll_transmit()
            {
                sent.push(Datagram { to: Side::Client, carrier, client_port: gateway.client_port(carrier), octets });
            }
            quiet &= sent.is_empty();
            sent.iter().for_each(|datagram| self.network.send(self.now, datagram));
            if quiet {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Dial { peer: _, again, fresh_ports } => {
                self.again += u32::from(again);
                // As the kernel does: other ports each time.
                let fresh = self.client_port.max(FRESH_PORT) + 1;
                self.client_port = if fresh_ports { fresh } else { 500 };
                let path = Path {
                    credentials: credentials(),
                    local: CLIENT.into(),
                    local_ike_port: self.client_port,
                    local_nat_t_port: nat_t_port_of(self.client_port),
                    remote: GATEWAY.into(),
                    mtu: 1500,
                };
                self.client.handle_path(self.now, Ok(path));
            }
            Event::Up(link) => {
                self.up = true;
                self.mtus.push(link.mtu);
            }
            Event::Mtu(mtu) => self.mtus.push(mtu),
            Event::Down => self.up = false,
            Event::Closed => self.closed = true,
            Event::ReportChanged => {
                for layer in &self.client.report().layers {
                    let state = (layer.layer, layer.state, layer.reason);
                    if self.history.iter().rfind(|(of, ..)| *of == layer.layer) != Some(&state) {
                        self.history.push(state);
                    }
                }
            }
            Event::Keys(_) => {}
        }
    }

    /// Goes on to the next thing that happens, at most until `limit`.
    fn step(&mut self, limit: Instant) {
        let gateway = self.gateway.as_ref().and_then(Gateway::poll_timeout);
        let next = [self.client.poll_timeout(), gateway, self.network.next(), Some(limit)].into_iter().flatten().min();
        self.now = next.unwrap_or(limit).max(self.now);
        while let Some(datagram) = self.network.receive(self.now) {
            let Datagram { to, carrier, client_port, mut octets } = datagram;
            match to {
                Side::Client => {
                    if port_of(carrier, self.client_port) == client_port {
                        let remote = SocketAddr::new(GATEWAY.into(), 500);
                        self.client.handle_datagram(self.now, carrier, remote, &mut octets);
                    }
                }
                Side::Gateway => {
                    if let Some(gateway) = &mut self.gateway {
                        gateway.handle_datagram(self.now, carrier, client_port, octets);
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
    pub(crate) fn run(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let limit = self.now + time;
        while !done(self) {
            if self.now >= limit {
                return false;
            }
            self.step(limit);
        }
        true
    }

    pub(crate) fn assert_ready(&mut self) {
        let ready = self.run(Duration::from_secs(60), |world| world.client.report().is_ready());
        assert!(ready, "{:#?}", self.client.report());
    }

    pub(crate) fn ping(&mut self) {
        let mut packets = PacketBatch::new();
        assert!(packets.push(&packet(28, 8)));
        self.client.handle_packets(self.now, &packets);
        self.drain();
    }

    /// Pings until a packet went each way, for ten minutes at most; returns whether one did.
    pub(crate) fn exchange(&mut self) -> bool {
        let before = self.pongs;
        (0..2_400).any(|_| {
            self.ping();
            self.run(Duration::from_millis(250), |world| world.pongs > before)
        })
    }

    /// Lets the gateway send IP packets of that length through the tunnel, one each ten milliseconds.
    pub(crate) fn flood(&mut self, packets: u32, length: u16) {
        for _ in 0..packets {
            self.gateway_mut().send_ip(&packet(length, 0));
            self.drain();
            self.run(Duration::from_millis(10), |_| false);
        }
    }

    pub(crate) fn reason(&self, layer: Layer) -> (State, Reason) {
        let report = self.client.report().layer(layer).expect("every layer is reported");
        (report.state, report.reason)
    }

    pub(crate) fn message(&self, layer: Layer) -> &str {
        &self.client.report().layer(layer).expect("every layer is reported").message
    }

    pub(crate) fn negotiated(&self) -> &Negotiated {
        self.client.report().negotiated.as_ref().expect("something was negotiated")
    }
}

/// An ICMP packet of that length and type, the client's if it asks.
fn packet(length: u16, kind: u8) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 1, 0, 0, 10, 20, 5, 10, 10, 20, 4, 11, kind];
    packet.resize(length.into(), 0);
    packet
}
