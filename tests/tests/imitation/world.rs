//! Devices and the server, in virtual time: NATs between them, and a load balancer in front of the server.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use towline_tunnel::buffer::{PacketBatch, Port};
use towline_tunnel::config::{self, server};
use towline_tunnel::ike::Credentials;
use towline_tunnel::stack::server::{Secrets, Server};
use towline_tunnel::users::{User, Users};
use zeroize::Zeroizing;

use crate::client::{Client, Dial};
use crate::device::Device;

/// The address that clients dial.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The address of every client by itself.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
/// The server's own end of every link.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 5, 1);
/// A host behind the server.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 20, 4, 11);
pub(crate) const PSK: &str = "test-preshared-key";
pub(crate) const PASSWORD: &str = "wonderland";
pub(crate) const DNS: [Ipv4Addr; 2] = [HOST, Ipv4Addr::new(10, 20, 4, 12)];

/// Where the client and the server are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Both at their own addresses.
    Direct,
    /// The client behind a NAT.
    Nat,
    /// The client behind a NAT, the server at another address than the one that is dialled.
    Balanced,
}

/// A client, where the server sees it, and what it stopped at.
pub(crate) struct Seat {
    pub(crate) client: Client,
    outside: [SocketAddr; 2],
    pub(crate) fault: Option<String>,
    /// Datagrams for it are lost while this is set.
    pub(crate) deaf: bool,
}

impl Seat {
    fn outside(&self, port: Port) -> SocketAddr {
        self.outside[usize::from(port == Port::NatT)]
    }

    /// The address that IPCP gave.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.client.ppp.value(3).unwrap().into()
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) server: Server,
    local: Ipv4Addr,
    place: Place,
    pub(crate) seats: Vec<Seat>,
    /// What came out of the server's device.
    pub(crate) device: Vec<Vec<u8>>,
}

impl World {
    pub(crate) fn new(place: Place) -> Self {
        Self::with(place, |_| {})
    }

    pub(crate) fn with(place: Place, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let mut json = serde_json::json!({
            "mode": "Server",
            "credentials": {"preSharedKeys": [{"file": {"path": "psk"}}]},
            "ike": {"security": "Legacy"},
            "users": [{"name": "alice", "password": {"path": "alice"}}],
            "addresses": {"local": GATEWAY, "pools": ["10.20.5.0/24"], "dns": DNS},
            "limits": {"sessionsPerUser": 0},
            "forwarding": {"networks": ["10.20.4.0/24"]},
        });
        change(&mut json);
        let config = config::parse_server(&json.to_string()).unwrap();
        let user = |user: &server::User| User::new(user, Some(Zeroizing::new(PASSWORD.to_owned())));
        let secrets = Secrets {
            ike: Credentials::pre_shared_key(PSK.as_bytes().to_vec().into()),
            tunnel: None,
            eap_tls: None,
            users: Users::new(config.users.iter().map(user).collect()),
        };
        let now = Instant::now();
        let local = if place == Place::Balanced { Ipv4Addr::new(10, 244, 0, 7) } else { PUBLIC };
        let server = Server::new(config, secrets, Zeroizing::new([7; 32]), now, 1_700_000_000);
        Self { now, server, local, place, seats: Vec::new(), device: Vec::new() }
    }

    /// A device dials; returns its number once nothing more is on its way.
    pub(crate) fn dial(&mut self, device: &Device) -> usize {
        self.dial_with(device, PSK, PASSWORD, Port::Ike)
    }

    pub(crate) fn dial_with(&mut self, device: &Device, psk: &str, password: &str, port: Port) -> usize {
        let number = self.seats.len();
        let own = if self.place == Place::Direct { Ipv4Addr::new(192, 0, 2, 20 + number as u8) } else { OWN };
        let dial = Dial { own, server: PUBLIC, psk, user: "alice", password, port, seed: 100 + number as u64 };
        let outside = match self.place {
            Place::Direct => [500, 4500].map(|port| SocketAddr::new(own.into(), port)),
            Place::Nat | Place::Balanced => {
                [0, 1].map(|socket| SocketAddr::new(IpAddr::from([203, 0, 113, 7]), 1024 + 2 * number as u16 + socket))
            }
        };
        self.seats.push(Seat { client: Client::new(device, &dial), outside, fault: None, deaf: false });
        self.run(Duration::from_secs(5));
        number
    }

    /// The NAT gives a client other ports.
    pub(crate) fn move_seat(&mut self, number: usize) {
        for outside in &mut self.seats[number].outside {
            outside.set_port(outside.port() + 20_000);
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let Some(due) = self.server.poll_timeout().filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn settle(&mut self) {
        loop {
            while self.server.poll_event().is_some() {}
            self.take_packets();
            let mut busy = self.carry_to_clients();
            for number in 0..self.seats.len() {
                busy |= self.carry_to_server(number);
            }
            if !busy {
                return;
            }
        }
    }

    /// What comes out of the device: the host and the gateway answer pings, and the rest is kept.
    fn take_packets(&mut self) {
        let packets: Vec<Vec<u8>> = self.server.packets().iter().map(<[u8]>::to_vec).collect();
        self.server.packets().clear();
        for packet in packets {
            if packet[9] == 1 && packet[20] == 8 {
                let mut answer = packet.clone();
                answer[12..16].copy_from_slice(&packet[16..20]);
                answer[16..20].copy_from_slice(&packet[12..16]);
                answer[20] = 0;
                self.forward(&answer);
            }
            self.device.push(packet);
        }
    }

    /// A packet comes out of the server's device.
    pub(crate) fn forward(&mut self, packet: &[u8]) {
        let mut batch = PacketBatch::new();
        assert!(batch.push(packet));
        self.server.handle_packets(self.now, &batch);
    }

    fn carry_to_clients(&mut self) -> bool {
        let mut datagrams = VecDeque::new();
        while !self.server.transmits().is_empty() {
            for run in self.server.transmits().runs() {
                for octets in run.octets.chunks(run.segment) {
                    datagrams.push_back((run.socket, run.way.remote, octets.to_vec()));
                }
            }
            self.server.transmits().clear();
        }
        let busy = !datagrams.is_empty();
        for (port, remote, octets) in datagrams {
            let seat = self.seats.iter_mut().find(|seat| seat.outside(port) == remote && !seat.deaf);
            if let Some(seat) = seat
                && let Err(fault) = seat.client.handle_datagram(port, &octets)
            {
                seat.fault.get_or_insert(fault);
            }
        }
        busy
    }

    fn carry_to_server(&mut self, number: usize) -> bool {
        let seat = &mut self.seats[number];
        let out = std::mem::take(&mut seat.client.out);
        let busy = !out.is_empty();
        for (port, mut octets) in out {
            let local = SocketAddr::new(self.local.into(), if port == Port::Ike { 500 } else { 4500 });
            self.server.handle_datagram(self.now, port, local, self.seats[number].outside(port), &mut octets);
        }
        busy
    }

    /// Whether a ping of `to` through a client's link is answered.
    pub(crate) fn pings(&mut self, number: usize, to: Ipv4Addr) -> bool {
        let from = self.seats[number].address();
        let before = self.seats[number].client.ppp.packets.len();
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend([8, 0, 0, 0, 0, 0, 0, before as u8]);
        self.seats[number].client.send_ip(&packet);
        self.run(Duration::from_millis(100));
        let received = &self.seats[number].client.ppp.packets;
        received[before..].iter().any(|packet| packet[12..16] == to.octets() && packet[20] == 0)
    }

    /// The story of a client, for a failure.
    pub(crate) fn story(&self, number: usize) -> String {
        let seat = &self.seats[number];
        let client = &seat.client;
        format!(
            "{}: {:?}; pairs {}, notified {:?}, L2TP {:?} ended {:?}, PPP authenticated {} failure {:?}, rejected {:x?}, unopened {}; server: {:?} {:?}",
            client.device.name,
            seat.fault,
            client.pairs.len(),
            client.notified,
            client.l2tp.state,
            client.ended,
            client.ppp.authenticated,
            client.ppp.failure,
            client.ppp.rejected,
            client.unopened,
            self.server.counters(),
            self.server.responder(),
        )
    }

    /// A client whose link is up and carries a ping.
    pub(crate) fn assert_up(&mut self, number: usize) {
        assert!(
            self.seats[number].fault.is_none() && self.seats[number].client.ppp.is_open(),
            "{}",
            self.story(number)
        );
        assert!(self.pings(number, HOST), "{}", self.story(number));
        assert!(self.seats[number].fault.is_none(), "{}", self.story(number));
    }
}
