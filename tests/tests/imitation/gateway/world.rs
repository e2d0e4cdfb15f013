//! Our client and a gateway, in virtual time, with a NAT before either of them or none.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use towline_tunnel::buffer::{PacketBatch, Port};
use towline_tunnel::config;
use towline_tunnel::ike;
use towline_tunnel::report::{Layer, Reason};
use towline_tunnel::stack::{Credentials, Event, Link, Path, Tunnel};
use zeroize::Zeroizing;

use super::Gateway;
use super::head_end::{HeadEnd, PASSWORD, USER};
use super::ppp::CLIENT;

/// The address that is dialled.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The client's own address where there is no NAT before it, and where there is one.
const DIRECT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 60);
const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
/// A host behind the gateway.
const HOST: [u8; 4] = [10, 20, 4, 11];
const PSK: &str = "test-preshared-key";

/// Where NATs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Direct,
    /// Before the client.
    Client,
    /// Before the client, and before the gateway, which has a private address.
    Both,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) client: Tunnel,
    pub(crate) gateway: HeadEnd,
    place: Place,
    pub(crate) link: Option<Link>,
    /// How often the link went down.
    pub(crate) downs: u32,
    pub(crate) closed: bool,
    /// IP packets that came out of the client.
    pub(crate) received: Vec<Vec<u8>>,
    /// Reasons that layers were reported with.
    pub(crate) reasons: Vec<(Layer, Reason, String)>,
    pings: u8,
    tunnel_secret: Option<&'static str>,
}

/// What is different from the usual.
pub(crate) struct Setting {
    pub(crate) place: Place,
    /// The configuration.
    pub(crate) config: fn(&mut serde_json::Value),
    /// What the gateway knows.
    pub(crate) psk: &'static str,
    pub(crate) password: &'static str,
    /// What the client knows.
    pub(crate) tunnel_secret: Option<&'static str>,
}

impl Default for Setting {
    fn default() -> Self {
        Self { place: Place::Client, config: |_| {}, psk: PSK, password: PASSWORD, tunnel_secret: None }
    }
}

impl World {
    /// A client that has begun to dial.
    pub(crate) fn dial(gateway: &Gateway, setting: &Setting) -> Self {
        let mut json = serde_json::json!({
            "peers": [{"address": "gateway.example.com"}],
            "credentials":
                {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
            "ike": {"security": "Legacy"},
            "esp": {},
            "ppp": {},
            "network": {"remoteCIDRs": ["10.20.0.0/16"]},
            "healthCheck": {},
        });
        if setting.tunnel_secret.is_some() {
            json["credentials"]["tunnelSecret"] = serde_json::json!({"path": "secret"});
        }
        (setting.config)(&mut json);
        let config = config::parse(&json.to_string()).unwrap();
        let now = Instant::now();
        let seen = match setting.place {
            Place::Direct => [500, 4500].map(|port| SocketAddr::new(DIRECT.into(), port)),
            Place::Client | Place::Both => {
                [1024, 1025].map(|port| SocketAddr::new(IpAddr::from([203, 0, 113, 7]), port))
            }
        };
        let own = if setting.place == Place::Both { Ipv4Addr::new(172, 16, 0, 2) } else { PUBLIC };
        let mut client = Tunnel::new(&config, Zeroizing::new([9; 32]));
        client.start();
        let mut world = Self {
            now,
            client,
            gateway: HeadEnd::new(gateway, own, seen, (setting.psk, setting.password), now),
            place: setting.place,
            link: None,
            downs: 0,
            closed: false,
            received: Vec::new(),
            reasons: Vec::new(),
            pings: 0,
            tunnel_secret: setting.tunnel_secret,
        };
        world.settle();
        // A gateway that is silent about the first offers is made others.
        for _ in 0..6 {
            world.run(Duration::from_secs(5));
            if world.link.is_some() {
                break;
            }
        }
        world
    }

    /// The same, with nothing out of the ordinary and a link that is up.
    pub(crate) fn up(gateway: &Gateway, place: Place) -> Self {
        let mut world = Self::dial(gateway, &Setting { place, ..Setting::default() });
        world.assert_up();
        world
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.client.poll_timeout().unwrap_or(end).max(self.now);
            self.now = due.min(self.now + Duration::from_secs(1)).min(end);
            self.client.handle_timeout(self.now);
            self.gateway.handle_time(self.now);
            self.settle();
        }
    }

    /// Carries messages until there are no more.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            while let Some(event) = self.client.poll_event() {
                busy = true;
                self.handle_event(event);
            }
            self.received.extend(self.client.packets().iter().map(<[u8]>::to_vec));
            self.client.packets().clear();
            let mut sent = Vec::new();
            for run in self.client.transmits().runs() {
                sent.extend(
                    run.octets
                        .chunks(run.segment)
                        .map(|octets| (run.socket.port().expect("ESP is in UDP"), octets.to_vec())),
                );
            }
            self.client.transmits().clear();
            for (port, octets) in &sent {
                self.gateway.handle_datagram(self.now, *port, octets);
            }
            let answers = std::mem::take(&mut self.gateway.out);
            busy |= !sent.is_empty() || !answers.is_empty();
            for (port, mut octets) in answers {
                let remote = SocketAddr::new(PUBLIC.into(), if port == Port::Ike { 500 } else { 4500 });
                self.client.handle_datagram(self.now, port, remote, &mut octets);
            }
            if !busy {
                return;
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Dial { .. } => {
                let secret = self.tunnel_secret.map(|secret| Zeroizing::new(secret.as_bytes().to_vec()));
                let credentials = Credentials {
                    ike: ike::Credentials::pre_shared_key(Zeroizing::new(PSK.as_bytes().to_vec())),
                    username: Zeroizing::new(USER.to_owned()),
                    password: Zeroizing::new(PASSWORD.to_owned()),
                    tunnel_secret: secret,
                    warnings: Vec::new(),
                };
                let path = Path {
                    credentials,
                    local: if self.place == Place::Direct { DIRECT } else { PRIVATE }.into(),
                    local_ike_port: 500,
                    local_nat_t_port: 4500,
                    remote: PUBLIC.into(),
                    mtu: 1500,
                };
                self.client.handle_path(self.now, Ok(path));
            }
            Event::Up(link) => self.link = Some(link),
            Event::Down => {
                self.link = None;
                self.downs += 1;
            }
            Event::Closed => self.closed = true,
            Event::ReportChanged => {
                for layer in &self.client.report().layers {
                    self.reasons.push((layer.layer, layer.reason, layer.message.clone()));
                }
            }
            Event::Mtu(_) | Event::Keys(_) => {}
        }
    }

    /// Whether a packet goes to a host behind the gateway and one comes back, and whether one that the host sends arrives.
    pub(crate) fn passes(&mut self) -> bool {
        self.pings = self.pings.wrapping_add(1);
        let ping = packet(CLIENT, HOST, 8, self.pings);
        let mut packets = PacketBatch::new();
        assert!(packets.push(&ping));
        self.client.handle_packets(self.now, &packets);
        self.settle();
        let own = packet(HOST, CLIENT, 13, self.pings);
        self.gateway.send_ip(&own);
        self.settle();
        let received = std::mem::take(&mut self.received);
        received.contains(&packet(HOST, CLIENT, 0, self.pings)) && received.contains(&own)
    }

    /// The client hangs up.
    pub(crate) fn hang_up(&mut self) {
        self.client.close(self.now);
        self.settle();
    }

    /// The gateway comes back without a memory of what was before.
    pub(crate) fn revive(&mut self) {
        self.gateway = self.gateway.anew(self.now);
    }

    /// The story so far, for a failure.
    pub(crate) fn story(&self) -> String {
        let gateway = &self.gateway;
        format!(
            "{}: {:?}; {} ISAKMP SAs, {:?} Quick Modes, notified {:?}, L2TP {:?} told {:?}, PPP authenticated {} rejected {:x?}, \
             unopened {}; client: {:#?}",
            gateway.gateway.name,
            gateway.fault,
            gateway.ike.len(),
            gateway.agreed,
            gateway.notified,
            gateway.lns.state,
            gateway.told,
            gateway.ppp.authenticated,
            gateway.ppp.rejected,
            gateway.unopened,
            self.client.report(),
        )
    }

    /// The link is up at both ends, carries packets both ways, and the gateway has met nothing that it dislikes.
    pub(crate) fn assert_up(&mut self) {
        assert!(self.gateway.fault.is_none() && self.gateway.is_up() && self.link.is_some(), "{}", self.story());
        assert!(self.passes(), "{}", self.story());
        assert!(self.gateway.fault.is_none() && self.gateway.unopened == 0, "{}", self.story());
    }

    /// Whether a layer was reported with a reason, and a message with these words in it.
    pub(crate) fn has_reported(&self, layer: Layer, reason: Reason, words: &str) -> bool {
        self.reasons.iter().any(|(of, why, said)| (*of, *why) == (layer, reason) && said.contains(words))
    }
}

/// An ICMP packet.
fn packet(from: [u8; 4], to: [u8; 4], kind: u8, number: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet.extend([kind, 0, 0, 0, 0, 0, 0, number]);
    packet
}
