//! Every device against the product's IKE responder.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use towline_tunnel::buffer::Port;
use towline_tunnel::ike::{Answer, Config, Credentials, Event, Ike, Responder, ResponderConfig, Transmit};
use towline_tunnel::suite::Security;

use crate::client::{Client, Dial};
use crate::table;

/// The address that clients dial.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
const NAT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const PSK: &str = "test-preshared-key";

/// A responder with one peer, at an address that need not be the one that is dialled.
struct Answering {
    now: Instant,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    responder: Responder,
    ike: Option<Box<Ike>>,
}

impl Answering {
    fn new(local: Ipv4Addr, remote: Ipv4Addr) -> Self {
        let credentials = Credentials::pre_shared_key(PSK.as_bytes().to_vec().into());
        let config = Config {
            proposals: Security::Legacy.ike_proposals(),
            esp_proposals: Security::Legacy.esp_proposals(),
            ..Config::new(IpAddr::V4(local), IpAddr::V4(remote), credentials)
        };
        let responder = Responder::new(ResponderConfig::new(config), StdRng::seed_from_u64(1));
        Self { now: Instant::now(), local, remote, responder, ike: None }
    }

    fn ends(&self, port: Port) -> (SocketAddr, SocketAddr) {
        let (own, seen) = if port == Port::Ike { (500, 1024) } else { (4500, 1025) };
        (SocketAddr::new(self.local.into(), own), SocketAddr::new(self.remote.into(), seen))
    }

    /// Answers to a datagram.
    fn handle(&mut self, port: Port, datagram: &[u8]) -> Vec<(Port, Vec<u8>)> {
        let (local, remote) = self.ends(port);
        let marked = port == Port::NatT;
        let Some(message) = (if marked { datagram.strip_prefix(&[0; 4]) } else { Some(datagram) }) else {
            return Vec::new();
        };
        if self.ike.is_none() {
            match self.responder.handle_message(self.now, port, local, remote, message) {
                Answer::Ignored(reason) => panic!("ignored: {}", reason.label()),
                Answer::Reply(reply) => return vec![(port, [&[0; 4][..if marked { 4 } else { 0 }], &reply].concat())],
                Answer::Admitted(ike) => self.ike = Some(ike),
            }
        }
        let ike = self.ike.as_mut().unwrap();
        ike.handle_message(self.now, port, message);
        if marked {
            ike.set_remote(Port::NatT, remote);
        }
        let mut out = Vec::new();
        while let Some(transmit) = ike.poll_transmit() {
            if let Transmit::Message { port, message } = transmit {
                let marker: &[u8] = if port == Port::NatT { &[0; 4] } else { &[] };
                out.push((port, [marker, &message].concat()));
            }
        }
        out
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.ike.as_mut()?.poll_event()).collect()
    }
}

/// Exchanges messages until there are no more.
fn play(server: &mut Answering, client: &mut Client) -> Result<(), String> {
    loop {
        let out = std::mem::take(&mut client.out);
        if out.is_empty() {
            return Ok(());
        }
        for (port, datagram) in out {
            for (port, reply) in server.handle(port, &datagram) {
                client.handle_datagram(port, &reply)?;
            }
        }
    }
}

fn dial(port: Port) -> Dial<'static> {
    Dial { own: OWN, server: PUBLIC, psk: PSK, user: "alice", password: "wonderland", port, seed: 7 }
}

fn assert_agrees(local: Ipv4Addr, remote: Ipv4Addr, own: Ipv4Addr, port: Port) {
    let mut faults = Vec::new();
    for device in table::all() {
        let mut server = Answering::new(local, remote);
        let mut client = Client::new(&device, &Dial { own, ..dial(port) });
        let result = play(&mut server, &mut client);
        let events = server.events();
        if let Err(fault) = result {
            faults.push(format!("{fault}: {events:?}"));
        } else if client.pairs.len() != 1 {
            faults.push(format!("{}: no SAs: {events:?} {:?}", device.name, client.notified));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_device_gets_its_sas_behind_a_nat() {
    assert_agrees(PUBLIC, NAT, OWN, Port::Ike);
}

#[test]
fn every_device_gets_its_sas_without_a_nat() {
    assert_agrees(PUBLIC, OWN, OWN, Port::Ike);
}

#[test]
fn every_device_gets_its_sas_of_a_server_that_is_behind_a_load_balancer() {
    assert_agrees(Ipv4Addr::new(10, 244, 0, 7), NAT, OWN, Port::Ike);
}

#[test]
fn every_device_may_begin_on_port_4500() {
    assert_agrees(PUBLIC, NAT, OWN, Port::NatT);
}
