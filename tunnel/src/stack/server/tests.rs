//! Our own clients against the server, all of them behind one NAT and with one inner address, in virtual time.

mod flood;
mod ipv6;
mod outside;
mod ports;
mod users;
mod weakness;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::aaa::Cause;
use crate::config;
use crate::stack::{Credentials, Event as ClientEvent, Path, State, Tunnel};
use crate::users::User;

const NAT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 60);

/// The addresses outside.
#[derive(Clone, Copy)]
struct Outside {
    /// Of the NAT that every client is behind.
    nat: IpAddr,
    /// That every client has by itself.
    inner: IpAddr,
    server: IpAddr,
}

const IPV4: Outside =
    Outside { nat: IpAddr::V4(NAT), inner: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20)), server: IpAddr::V4(SERVER) };
const IPV6: Outside = Outside {
    nat: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    inner: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 20)),
    server: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 60)),
};
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PSK: &[u8] = b"a pre-shared key";

struct Client {
    tunnel: Tunnel,
    password: &'static str,
    user: &'static str,
    psk: &'static [u8],
    nat: IpAddr,
    /// Its ports on the NAT towards 500 and 4500.
    ports: [u16; 2],
    address: Option<Ipv4Addr>,
    received: Vec<Vec<u8>>,
}

impl Client {
    fn remote(&self, port: Port) -> SocketAddr {
        let [ike, nat_t] = self.ports;
        SocketAddr::new(self.nat, if port == Port::Ike { ike } else { nat_t })
    }
}

struct Town {
    now: Instant,
    outside: Outside,
    /// Whether clients that dial speak IPv6 inside.
    ipv6: bool,
    /// Whether clients that dial ask the server for nothing by themselves for five minutes.
    quiet: bool,
    server: Server,
    clients: Vec<Client>,
    events: Vec<Event>,
    device: Vec<Vec<u8>>,
    /// Datagrams to the server are lost while this is false.
    open: bool,
    /// Where the first datagram of a client is kept, if it is asked for.
    first: Option<Vec<u8>>,
    /// Octets of the largest datagram of the server, and of the clients.
    largest: [usize; 2],
}

fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

fn config(change: impl FnOnce(&mut serde_json::Value)) -> Config {
    let mut json = serde_json::json!({
        "mode": "Server",
        "credentials": {"preSharedKeys": [{"file": {"path": "psk"}}]},
        "ike": {"proposals": ["aes128-sha1-ecp256"]},
        "esp": {"proposals": ["aes128-sha256"]},
        "users": [
            {"name": "alice", "password": {"path": "alice"}},
            {"name": "bob", "password": {"path": "bob"}, "address": "10.99.0.77"},
            {"name": "oslo", "password": {"path": "oslo"}, "networks": ["10.20.0.0/16"]},
        ],
        "addresses": {"local": LOCAL, "pools": ["10.99.0.0/24"], "dns": ["10.96.0.10"]},
        "forwarding": {"networks": ["10.96.0.0/12"]},
    });
    change(&mut json);
    config::parse_server(&json.to_string()).unwrap()
}

fn secrets(config: &Config) -> Secrets {
    let password = |user: &config::server::User| Some(Zeroizing::new(format!("{}'s password", user.name)));
    Secrets {
        eap_tls: None,
        ike: ike::Credentials::pre_shared_key(Zeroizing::new(PSK.to_vec())),
        tunnel: None,
        users: Users::new(config.users.iter().map(|user| User::new(user, password(user))).collect()),
    }
}

impl Town {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut serde_json::Value)) -> Self {
        Self::of(IPV4, change)
    }

    fn of(outside: Outside, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let (config, now) = (config(change), Instant::now());
        let secrets = secrets(&config);
        let server = Server::new(config, secrets, seed(7), now, 1_700_000_000);
        let (clients, events, device) = (Vec::new(), Vec::new(), Vec::new());
        let (ipv6, quiet, open, first, largest) = (false, false, true, None, [0; 2]);
        Self { now, outside, ipv6, quiet, server, clients, events, device, open, first, largest }
    }

    fn apply(&mut self, change: impl FnOnce(&mut serde_json::Value)) {
        let config = config(change);
        let secrets = secrets(&config);
        self.server.apply(self.now, config, secrets);
        self.run(Duration::ZERO);
    }

    /// A client that dials; returns its number.
    fn dial(&mut self, user: &'static str, password: &'static str) -> usize {
        self.dial_with(user, password, PSK)
    }

    fn dial_with(&mut self, user: &'static str, password: &'static str, psk: &'static [u8]) -> usize {
        let number = self.begin((user, password), psk);
        self.run(Duration::from_secs(10));
        number
    }

    /// A client that has sent nothing yet.
    fn begin(&mut self, (user, password): (&'static str, &'static str), psk: &'static [u8]) -> usize {
        let number = u8::try_from(self.clients.len()).unwrap();
        let mut text = serde_json::json!({
            "peers": [{"address": self.outside.server}],
            "network": {"ipv6": self.ipv6},
            "credentials":
                {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
            "ike": {"proposals": ["aes128-sha1-ecp256"]},
            "esp": {"proposals": ["aes128-sha256"]},
        });
        if self.quiet {
            text["ike"]["dpd"] = serde_json::json!({"intervalSeconds": 3_600, "timeoutSeconds": 7_200});
            text["l2tp"] = serde_json::json!({"helloSeconds": 3_600});
            text["ppp"] = serde_json::json!({"echoSeconds": 3_600});
            text["healthCheck"] = serde_json::json!({"intervalSeconds": 300});
        }
        let tunnel = Tunnel::new(&config::parse(&text.to_string()).unwrap(), seed(100 + number));
        let base = 20_000 + 10 * u16::from(number);
        let ports = [base, base + 1];
        let (nat, received) = (self.outside.nat, Vec::new());
        self.clients.push(Client { tunnel, password, user, psk, nat, ports, address: None, received });
        self.clients.last_mut().unwrap().tunnel.start();
        usize::from(number)
    }

    /// Lets time pass for all.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let clients = self.clients.iter().filter_map(|client| client.tunnel.poll_timeout());
            let due = clients.chain(self.server.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.server.handle_timeout(self.now);
            for client in &mut self.clients {
                client.tunnel.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn settle(&mut self) {
        loop {
            let mut busy = self.settle_server();
            for number in 0..self.clients.len() {
                busy |= self.settle_client(number);
            }
            if !busy {
                return;
            }
        }
    }

    fn settle_server(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.server.poll_event() {
            busy = true;
            self.events.push(event);
        }
        self.device.extend(self.server.packets().iter().map(<[u8]>::to_vec));
        self.server.packets().clear();
        let mut datagrams = VecDeque::new();
        while !self.server.transmits().is_empty() {
            for run in self.server.transmits().runs() {
                for octets in run.octets.chunks(run.segment) {
                    datagrams.push_back((run.socket, run.way.remote, octets.to_vec()));
                }
            }
            self.server.transmits().clear();
        }
        for (port, remote, mut octets) in datagrams {
            busy = true;
            let now = self.now;
            self.largest[0] = self.largest[0].max(octets.len());
            let server = SocketAddr::new(self.outside.server, 4500);
            for client in self.clients.iter_mut().filter(|client| client.remote(port) == remote) {
                client.tunnel.handle_datagram(now, port, server, &mut octets);
            }
        }
        busy
    }

    fn settle_client(&mut self, number: usize) -> bool {
        let (now, outside) = (self.now, self.outside);
        let client = &mut self.clients[number];
        let mut busy = false;
        while let Some(event) = client.tunnel.poll_event() {
            busy = true;
            match event {
                ClientEvent::Dial { .. } => {
                    let credentials = Credentials {
                        ike: ike::Credentials::pre_shared_key(Zeroizing::new(client.psk.to_vec())),
                        username: Zeroizing::new(client.user.to_owned()),
                        password: Zeroizing::new(client.password.to_owned()),
                        tunnel_secret: None,
                        warnings: Vec::new(),
                    };
                    let path = Path {
                        credentials,
                        local: outside.inner,
                        local_ike_port: 500,
                        local_nat_t_port: 4500,
                        remote: outside.server,
                        mtu: 1_500,
                    };
                    client.tunnel.handle_path(now, Ok(path));
                }
                ClientEvent::Up(link) => client.address = Some(link.address),
                ClientEvent::Down => client.address = None,
                _ => {}
            }
        }
        client.received.extend(client.tunnel.packets().iter().map(<[u8]>::to_vec));
        client.tunnel.packets().clear();
        let mut datagrams = VecDeque::new();
        while !client.tunnel.transmits().is_empty() {
            for run in client.tunnel.transmits().runs() {
                for octets in run.octets.chunks(run.segment) {
                    datagrams.push_back((run.socket.port().unwrap(), octets.to_vec()));
                }
            }
            client.tunnel.transmits().clear();
        }
        for (port, mut octets) in datagrams {
            busy = true;
            if let Some(first) = self.first.as_mut().filter(|first| first.is_empty()) {
                first.clone_from(&octets);
            }
            if self.open {
                let remote = self.clients[number].remote(port);
                self.largest[1] = self.largest[1].max(octets.len());
                let local = SocketAddr::new(outside.server, if port == Port::Ike { 500 } else { 4500 });
                self.server.handle_datagram(now, port, local, remote, &mut octets);
            }
        }
        busy
    }

    fn address(&self, number: usize) -> Ipv4Addr {
        let layers = &self.clients[number].tunnel.report().layers;
        self.clients[number].address.unwrap_or_else(|| panic!("{layers:#?}"))
    }

    /// A client sends a packet of `length` octets.
    fn send(&mut self, number: usize, packet: &[u8]) {
        let mut batch = PacketBatch::new();
        assert!(batch.push(packet));
        self.clients[number].tunnel.handle_packets(self.now, &batch);
        self.settle();
    }

    /// A packet comes out of the server's device.
    fn arrive(&mut self, packet: &[u8]) {
        let mut batch = PacketBatch::new();
        assert!(batch.push(packet));
        self.server.handle_packets(self.now, &batch);
        self.settle();
    }

    fn sessions(&self) -> usize {
        self.server.sessions().count()
    }

    fn ended(&self) -> Vec<EndCause> {
        self.server.counters().ended.keys().copied().collect()
    }

    fn refused(&self) -> Vec<Cause> {
        self.server.counters().refused_users.keys().copied().collect()
    }
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.resize(length, 0x5a);
    packet
}

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

#[test]
fn a_client_dials_in_and_packets_go_both_ways() {
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    assert!(town.events.iter().any(|event| matches!(event, Event::Up(info) if info.address == address)));
    town.send(alice, &packet(address, SERVICE, 100));
    assert_eq!(town.device, [packet(address, SERVICE, 100)]);
    town.arrive(&packet(SERVICE, address, 200));
    assert_eq!(town.clients[alice].received, [packet(SERVICE, address, 200)]);
    assert_eq!(town.server.report().sessions, Some(1));
    let info = town.server.sessions().next().unwrap();
    assert_eq!((info.traffic.rx_octets, info.traffic.tx_octets), (100, 200));
}

#[test]
fn many_clients_behind_one_nat_with_one_inner_address_are_all_served() {
    let mut town = Town::with(|json| json["limits"] = serde_json::json!({"sessionsPerUser": 0}));
    let clients: Vec<usize> = (0..12).map(|_| town.dial("alice", "alice's password")).collect();
    let addresses: Vec<Ipv4Addr> = clients.iter().map(|client| town.address(*client)).collect();
    for (client, address) in clients.iter().zip(&addresses) {
        town.send(*client, &packet(*address, SERVICE, 100));
        town.arrive(&packet(SERVICE, *address, 50));
    }
    for (client, address) in clients.iter().zip(&addresses) {
        assert_eq!(town.clients[*client].received, [packet(SERVICE, *address, 50)]);
    }
    assert_eq!(town.device.len(), 12);
    assert_eq!(town.sessions(), 12);
}

#[test]
fn nobody_sends_in_the_name_of_another_or_to_where_nothing_is_forwarded() {
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.send(alice, &packet([10, 99, 0, 200].into(), SERVICE, 100));
    town.send(alice, &packet(address, [203, 0, 113, 1].into(), 100));
    assert_eq!(town.device.len(), 0);
    let dropped = &town.server.counters().dropped;
    assert_eq!((dropped.get("source"), dropped.get("not_forwarded")), (Some(&1), Some(&1)));
    town.send(alice, &packet(address, LOCAL, 100));
    assert_eq!(town.device.len(), 1, "the server itself is always reached");
}

#[test]
fn clients_reach_each_other_and_networks_behind_sites() {
    let mut town = Town::new();
    let (alice, oslo) = (town.dial("alice", "alice's password"), town.dial("oslo", "oslo's password"));
    let address = town.address(alice);
    let host = [10, 20, 4, 11].into();
    town.send(alice, &packet(address, host, 100));
    assert_eq!(town.clients[oslo].received, [packet(address, host, 100)]);
    town.send(oslo, &packet(host, address, 90));
    assert_eq!(town.clients[alice].received, [packet(host, address, 90)]);
    town.arrive(&packet(SERVICE, host, 80));
    assert_eq!(town.clients[oslo].received.len(), 2);
    assert_eq!(town.device.len(), 0);
}

#[test]
fn a_link_that_is_negotiated_anew_is_the_same_session_with_the_same_address() {
    let mut town = Town::new();
    for (user, password) in [("alice", "alice's password"), ("bob", "bob's password")] {
        let number = town.dial(user, password);
        let address = town.address(number);
        let ups = town.events.iter().filter(|event| matches!(event, Event::Up(_))).count();
        let (now, client) = (town.now, &mut town.clients[number].tunnel);
        let State::Connected(connection) = &mut client.state else { panic!("{user} is not connected") };
        connection.restart_ppp(now, &client.config, &mut client.rng);
        town.clients[number].address = None;
        town.run(Duration::from_secs(10));
        assert_eq!(town.address(number), address, "{user}");
        let again = town.events.iter().filter(|event| matches!(event, Event::Up(_))).count();
        assert_eq!((again, town.ended(), town.refused()), (ups, vec![], vec![]), "{user}");
        town.arrive(&packet(SERVICE, address, 100));
        assert_eq!(town.clients[number].received.len(), 1);
    }
    assert_eq!((town.sessions(), town.server.by_user.values().map(Vec::len).sum::<usize>()), (2, 2));
}

#[test]
fn two_clients_that_a_nat_shows_at_one_port_for_ike_are_told_apart_by_their_cookies() {
    let mut town = Town::new();
    let clients = [("alice", "alice's password"), ("bob", "bob's password")].map(|user| town.begin(user, PSK));
    // What goes to port 500 of the NAT reaches both, and all of it in the same moment.
    clients.iter().for_each(|client| town.clients[*client].ports[0] = 500);
    town.run(Duration::from_secs(10));
    let addresses = clients.map(|client| town.address(client));
    assert_eq!((town.sessions(), town.server.peers()), (2, (0, 2)));
    for (client, address) in clients.into_iter().zip(addresses) {
        town.arrive(&packet(SERVICE, address, 100));
        assert_eq!(town.clients[client].received.len(), 1);
    }
}

#[test]
fn the_bound_of_the_configuration_holds_for_packets_to_clients() {
    let mut town = Town::with(|json| json["network"] = serde_json::json!({"mtu": 1_000}));
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.arrive(&packet(SERVICE, address, 1_200));
    let received: Vec<usize> = town.clients[alice].received.iter().map(Vec::len).collect();
    assert!(received.len() == 2 && received.iter().all(|length| *length <= 1_000), "{received:?}");
}

#[test]
fn what_a_peer_leaves_behind_is_no_cookie() {
    let mut town = Town::new();
    town.dial("alice", "alice's password");
    town.dial_with("bob", "bob's password", b"another key");
    assert!(town.server.slots.cookies() > 0);
    town.open = false;
    town.run(Duration::from_secs(120));
    assert_eq!((town.server.peers(), town.server.slots.cookies()), ((0, 0), 0));
}

#[test]
fn a_client_that_vanishes_is_noticed_and_its_address_is_free_again() {
    let mut town = Town::new();
    town.dial("bob", "bob's password");
    town.open = false;
    town.run(Duration::from_secs(60));
    assert_eq!((town.sessions(), town.ended()), (0, vec![EndCause::DeadPeer]));
    assert_eq!(town.server.peers(), (0, 0));
    town.open = true;
    town.run(Duration::from_secs(60));
    assert_eq!(town.address(0), Ipv4Addr::new(10, 99, 0, 77), "it dials again");
}

#[test]
fn a_client_that_moves_is_followed_on_its_first_authentic_packet() {
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.clients[alice].ports = [30_000, 30_001];
    town.send(alice, &packet(address, SERVICE, 100));
    town.arrive(&packet(SERVICE, address, 100));
    assert_eq!(town.clients[alice].received.len(), 1);
    assert_eq!(town.server.sessions().next().unwrap().place.peer.port(), 30_001);
}

#[test]
fn a_client_does_not_follow_its_server_to_another_address() {
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.outside.server = [203, 0, 113, 60].into();
    town.arrive(&packet(SERVICE, address, 100));
    assert_eq!(town.clients[alice].received.len(), 0);
    town.outside.server = SERVER.into();
    town.arrive(&packet(SERVICE, address, 100));
    assert_eq!(town.clients[alice].received.len(), 1);
}

#[test]
fn the_server_ends_with_every_goodbye() {
    let mut town = Town::new();
    town.dial("alice", "alice's password");
    town.server.close(town.now);
    town.run(Duration::from_secs(2));
    assert!(town.events.iter().any(|event| matches!(event, Event::Closed)));
    assert_eq!(town.server.peers(), (0, 0));
    assert_eq!(town.ended(), [EndCause::Stopping]);
    assert_eq!(town.clients[0].address, None, "the client has heard");
}

#[test]
fn both_phases_are_renewed_for_hours_without_a_new_session() {
    let mut town = Town::with(|json| {
        json["ike"]["lifetimeSeconds"] = 1_800.into();
        json["esp"]["lifetimeSeconds"] = 600.into();
    });
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    for _ in 0..400 {
        town.run(Duration::from_secs(30));
        town.send(alice, &packet(address, SERVICE, 100));
        town.arrive(&packet(SERVICE, address, 100));
    }
    assert_eq!((town.device.len(), town.clients[alice].received.len()), (400, 400));
    assert_eq!((town.sessions(), town.ended()), (1, vec![]));
    assert_eq!(town.server.peers(), (0, 1), "a renewal of phase 1 makes no peer");
}

#[test]
fn a_packet_that_does_not_fit_is_cut_or_its_sender_hears_what_fits() {
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.arrive(&packet(SERVICE, address, 1_500));
    assert_eq!(town.clients[alice].received.len(), 2);
    let mut whole = packet(SERVICE, address, 1_500);
    whole[6] = 0x40;
    town.arrive(&whole);
    assert_eq!(town.clients[alice].received.len(), 2);
    let answer = town.device.last().unwrap();
    assert_eq!((&answer[12..20], answer[20], answer[21]), (&[10, 99, 0, 1, 10, 96, 0, 10][..], 3, 4));
}

#[test]
fn only_so_many_peers_come_from_one_place() {
    let mut town = Town::with(|json| json["limits"] = serde_json::json!({"peersPerSource": 2, "sessionsPerUser": 0}));
    for _ in 0..3 {
        town.dial("alice", "alice's password");
    }
    assert_eq!(town.sessions(), 2);
    assert!(town.server.counters().refused_peers.contains_key("source_limit"));
}
