//! A client as a state machine: IKE alone, which any responder can be loaded with, or a whole tunnel.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use towline_tunnel::buffer::Port;
use towline_tunnel::config::Config;
use towline_tunnel::esp::{self, NON_ESP_MARKER};
use towline_tunnel::ike::{self, Ike, Transmit};
use towline_tunnel::stack::{Credentials, Event, Path, Tunnel};
use zeroize::Zeroizing;

use crate::network::SERVER;
use crate::suite::Suite;

/// Where the network is of the addresses that clients have by themselves: each is behind a NAT of its own.
const INNER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
/// What a NAT keepalive is (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];

/// What a client is asked to do, and says.
pub(crate) trait Client {
    fn begin(&mut self, now: Instant);
    fn handle_datagram(&mut self, now: Instant, port: Port, datagram: &mut [u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    /// Hands over what is to be sent, and returns whether it is up.
    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(Port, &[u8])) -> bool;
}

/// The address that a client has by itself, which is its identity too. Each has another: charon looks through all peers of one
/// identity at each set-up.
fn inner(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(INNER.to_bits() + 1 + number).into()
}

/// Main Mode and Quick Mode, nothing else.
pub(crate) struct Initiator {
    ike: Ike,
    up: bool,
}

impl Initiator {
    pub(crate) fn new(number: u32, suite: &Suite, key: &Arc<ike::Credentials>) -> Self {
        let config = ike::Config {
            proposals: vec![suite.phase1],
            esp_proposals: vec![suite.phase2],
            // Whether the peer lives is for the server to ask: clients of operating systems do not.
            dpd: ike::Dpd { interval: std::time::Duration::ZERO, timeout: std::time::Duration::ZERO },
            ..ike::Config::new(inner(number), SERVER.into(), Arc::clone(key))
        };
        Self { ike: Ike::new(config, StdRng::seed_from_u64(number.into())), up: false }
    }
}

impl Client for Initiator {
    fn begin(&mut self, now: Instant) {
        self.ike.connect(now);
    }

    fn handle_datagram(&mut self, now: Instant, port: Port, datagram: &mut [u8]) {
        match (port, esp::classify(datagram)) {
            (Port::Ike, _) => self.ike.handle_message(now, port, datagram),
            (Port::NatT, esp::Datagram::Isakmp(message)) => self.ike.handle_message(now, port, message),
            (Port::NatT, _) => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.ike.poll_timeout()
    }

    fn drain(&mut self, _: Instant, send: &mut dyn FnMut(Port, &[u8])) -> bool {
        while let Some(transmit) = self.ike.poll_transmit() {
            match transmit {
                Transmit::Message { port: Port::NatT, mut message } => {
                    message.splice(..0, NON_ESP_MARKER);
                    send(Port::NatT, &message);
                }
                Transmit::Message { port, message } => send(port, &message),
                Transmit::Keepalive => send(Port::NatT, &KEEPALIVE),
            }
        }
        while let Some(event) = self.ike.poll_event() {
            match event {
                ike::Event::InstallOutbound(_) => self.up = true,
                ike::Event::RemoveSa { .. } | ike::Event::Failed(_) | ike::Event::PeerDeletedIsakmp => self.up = false,
                _ => {}
            }
        }
        self.up
    }
}

/// A tunnel: IKE, ESP, L2TP and PPP, with the timers that the product's own client has.
pub(crate) struct Dialler {
    tunnel: Tunnel,
    inner: IpAddr,
    key: Arc<ike::Credentials>,
    user: String,
    password: String,
    up: bool,
}

impl Dialler {
    pub(crate) fn new(
        number: u32,
        config: &Config,
        key: &Arc<ike::Credentials>,
        [user, password]: [String; 2],
    ) -> Self {
        let mut seed = Zeroizing::new([7; 32]);
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let tunnel = Tunnel::new(config, seed);
        Self { tunnel, inner: inner(number), key: Arc::clone(key), user, password, up: false }
    }

    fn path(&self) -> Path {
        Path {
            credentials: Credentials {
                ike: Arc::clone(&self.key),
                username: Zeroizing::new(self.user.clone()),
                password: Zeroizing::new(self.password.clone()),
                tunnel_secret: None,
                warnings: Vec::new(),
            },
            local: self.inner,
            local_ike_port: 500,
            local_nat_t_port: 4500,
            remote: IpAddr::V4(SERVER),
            mtu: 1_500,
        }
    }
}

impl Client for Dialler {
    fn begin(&mut self, _: Instant) {
        self.tunnel.start();
    }

    fn handle_datagram(&mut self, now: Instant, port: Port, datagram: &mut [u8]) {
        let number = if port == Port::Ike { 500 } else { 4500 };
        self.tunnel.handle_datagram(now, port, (SERVER, number).into(), datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.tunnel.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.tunnel.poll_timeout()
    }

    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(Port, &[u8])) -> bool {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                Event::Dial { .. } => {
                    let path = self.path();
                    self.tunnel.handle_path(now, Ok(path));
                }
                Event::Up(_) => self.up = true,
                Event::Down => self.up = false,
                _ => {}
            }
        }
        self.tunnel.packets().clear();
        while !self.tunnel.transmits().is_empty() {
            for run in self.tunnel.transmits().runs() {
                run.octets
                    .chunks(run.segment)
                    .for_each(|datagram| send(run.socket.port().expect("ESP is in UDP"), datagram));
            }
            self.tunnel.transmits().clear();
        }
        self.up
    }
}
