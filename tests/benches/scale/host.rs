//! The server with a meter: what it costs while it is called, and what it says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use towline_tunnel::buffer::Port;
use towline_tunnel::config;
use towline_tunnel::ike;
use towline_tunnel::stack::server::{Event, Secrets, Server};
use towline_tunnel::users::{User, Users};
use zeroize::Zeroizing;

/// The pre-shared key of all.
pub(crate) const PSK: &[u8] = b"bench-secret";
/// Where the server is.
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

/// A datagram from or to a client.
pub(crate) struct Datagram {
    pub(crate) client: u32,
    pub(crate) port: Port,
    pub(crate) octets: Vec<u8>,
}

/// The server and the CPU that it has taken.
pub(crate) struct Host {
    server: Server,
    pub(crate) cpu: Duration,
    /// Sessions that are up.
    pub(crate) sessions: u32,
    /// Datagrams that came in.
    pub(crate) received: u64,
    /// Datagrams that went out.
    pub(crate) sent: u64,
}

/// The address of a client: each has one of its own.
pub(crate) fn address(client: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x1000_0001 + client))
}

pub(crate) fn user(number: u32) -> String {
    format!("user{number}")
}

pub(crate) fn password(name: &str) -> String {
    format!("{name}'s password")
}

pub(crate) fn ports(port: Port) -> u16 {
    match port {
        Port::Ike => 500,
        Port::NatT => 4500,
    }
}

fn thread_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

impl Host {
    /// A server for so many sessions of so many users; `change` has the last word about its configuration.
    pub(crate) fn new(
        now: Instant,
        sessions: u32,
        users: u32,
        seed: u8,
        change: impl FnOnce(&mut Value),
    ) -> Result<Self> {
        let names = (0..users).map(user).map(|name| json!({"password": {"path": name}, "name": name}));
        let mut text = json!({
            "mode": "Server",
            "credentials": {"preSharedKeys": [{"file": {"path": "psk"}}]},
            "users": names.collect::<Vec<_>>(),
            "addresses": {"local": "10.0.0.1", "pools": ["10.0.0.0/12"]},
            "limits": {"sessions": sessions, "sessionsPerUser": 0},
        });
        change(&mut text);
        let config = config::parse_server(&text.to_string())?;
        let users = config.users.iter().map(|user| User::new(user, Some(Zeroizing::new(password(&user.name)))));
        let secrets = Secrets {
            ike: ike::Credentials::pre_shared_key(Zeroizing::new(PSK.to_vec())),
            tunnel: None,
            users: Users::new(users.collect()),
            eap_tls: None,
        };
        let server = Server::new(config, secrets, Zeroizing::new([seed; 32]), now, 1_700_000_000);
        Ok(Self { server, cpu: Duration::ZERO, sessions: 0, received: 0, sent: 0 })
    }

    /// Hands datagrams to the server, then what is due; returns what it sends.
    pub(crate) fn deliver(&mut self, now: Instant, datagrams: Vec<Datagram>) -> Result<Vec<Datagram>> {
        self.received += datagrams.len() as u64;
        let mut sent = Vec::new();
        let began = thread_cpu()?;
        for Datagram { client, port, mut octets } in datagrams {
            let [local, remote] = [SERVER, address(client)].map(|address| SocketAddr::new(address, ports(port)));
            self.server.handle_datagram(now, port, local, remote, &mut octets);
            self.drain(&mut sent);
        }
        self.server.handle_timeout(now);
        self.drain(&mut sent);
        self.sent += sent.len() as u64;
        self.cpu += thread_cpu()?.saturating_sub(began);
        Ok(sent)
    }

    fn drain(&mut self, sent: &mut Vec<Datagram>) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Up(_) => self.sessions += 1,
                Event::Down(..) => self.sessions = self.sessions.saturating_sub(1),
                _ => {}
            }
        }
        self.server.packets().clear();
        while !self.server.transmits().is_empty() {
            for run in self.server.transmits().runs() {
                let IpAddr::V4(address) = run.way.remote.ip() else { continue };
                let client = address.to_bits().wrapping_sub(0x1000_0001);
                let datagrams = run.octets.chunks(run.segment);
                sent.extend(datagrams.map(|octets| Datagram { client, port: run.socket, octets: octets.to_vec() }));
            }
            self.server.transmits().clear();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    /// What one of the sessions agreed on, in words.
    pub(crate) fn agreement(&self) -> String {
        let one = self.server.sessions().next();
        let esp =
            |esp: Option<_>| esp.map_or_else(String::new, |esp: towline_tunnel::suite::EspProposal| esp.to_string());
        one.map_or_else(String::new, |info| format!("{} / {}", info.ike, esp(info.esp)))
    }
}
