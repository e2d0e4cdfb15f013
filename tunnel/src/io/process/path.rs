//! The way to the peer and the link through it: sockets, device and routes follow what the stack says.

use std::net::IpAddr;
use std::time::Instant;

use super::super::dial::{self, Dialled, Request};
use super::super::netlink;
use super::super::routing::Routing;
use super::super::tun::Device;
use super::{Message, Process, warn};
use crate::config::Config;
use crate::ike;
use crate::stack::{Credentials, Link, PathError};

impl Process {
    pub(super) async fn dial(&mut self, peer: String, again: bool, fresh_ports: bool) {
        // The old sockets must go first: the new ones want the same ports.
        self.sockets = None;
        self.dials = self.dials.wrapping_add(1);
        warn(self.route(|routing| routing.name_servers = dial::name_servers()).await);
        if again {
            self.turns.keep(Some(&peer));
        }
        let turn = self.turns.next(&peer);
        let name = self.peer_name(&peer);
        let esp = self.config.esp.encapsulation.needs_raw_socket();
        let request = Request { peer, turn, fresh_ports, esp, credentials: self.config.credentials.clone(), name };
        let (generation, sender) = (self.dials, self.sender.clone());
        tokio::spawn(async move {
            let dialled = Box::new(dial::dial(request).await);
            // The loop may have ended meanwhile.
            drop(sender.send(Message::Dialled(generation, dialled)).await);
        });
    }

    /// What the certificate of a peer must be for: the identity of the configuration, else what is dialled.
    fn peer_name(&mut self, peer: &str) -> ike::Identity {
        let dialled = || match peer.parse() {
            Ok(address) => ike::Identity::Address(address),
            Err(_) => ike::Identity::Fqdn(peer.to_owned()),
        };
        let name = self.config.ike.remote_id.as_ref().map_or_else(dialled, ike::Identity::from);
        self.peer_name = Some(name.clone());
        name
    }

    /// Reads the credentials again for a tunnel that is up.
    pub(super) fn renew_credentials(&self) {
        let (files, name, sender) = (self.config.credentials.clone(), self.peer_name.clone(), self.sender.clone());
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || dial::read_credentials(&files, name)).await;
            if let Ok(read) = read {
                // The loop may have ended meanwhile.
                drop(sender.send(Message::Credentials(Box::new(read))).await);
            }
        });
    }

    pub(super) fn handle_credentials(&mut self, read: Result<Credentials, PathError>) {
        match read {
            Ok(credentials) => self.tunnel.set_credentials(credentials.ike),
            Err(PathError::Credentials { message, .. }) => {
                tracing::warn!("{message} The tunnel goes on with the old one.")
            }
            Err(PathError::Unresolvable(_) | PathError::Unreachable(_) | PathError::RawSocketFailed(_)) => {}
        }
    }

    pub(super) async fn handle_dialled(&mut self, dialled: Result<Dialled, PathError>) {
        let path = match dialled {
            Ok(Dialled { path, sockets }) => {
                let peer = path.remote;
                self.sockets = Some(sockets);
                warn(self.route(|routing| routing.peer = Some(peer)).await);
                Ok(path)
            }
            Err(error) => Err(error),
        };
        self.tunnel.handle_path(Instant::now(), path);
    }

    /// Changes what the kernel does with packets; a change that fails is taken back.
    pub(super) async fn route(&mut self, change: impl FnOnce(&mut Routing)) -> Result<(), netlink::Error> {
        let mut routing = self.routing.clone();
        change(&mut routing);
        if routing == self.routing {
            return Ok(());
        }
        routing.exempt().filter(|server| !self.routing.exempt().any(|old| old == *server)).for_each(tell_exempt);
        let applied = self.netlink.apply(&routing).await;
        if applied.is_ok() {
            self.routing = routing;
        } else {
            warn(self.netlink.apply(&self.routing).await);
        }
        applied
    }

    pub(super) async fn up(&mut self, link: Link) {
        if let Err(message) = self.set_up(&link).await {
            self.down().await;
            return self.tunnel.handle_device_failure(Instant::now(), message);
        }
        self.turns.keep(self.tunnel.report().active_peer.as_deref());
        self.started = true;
        self.link_state.send_replace(Some(link.address));
        self.link = Some(link);
        self.listen().await;
        self.probe();
    }

    async fn set_up(&mut self, link: &Link) -> Result<(), String> {
        if self.device.is_lost() {
            self.device = Device::open(&self.config.network.device)?;
        }
        let device = self.device.name().to_owned();
        let text = |error: netlink::Error| error.to_string();
        self.netlink.set_link(&device, link.address, link.mtu).await.map_err(text)?;
        self.route(|routing| routing.link = Some((device, link.address))).await.map_err(text)
    }

    /// Gives the device of a link that is up another MTU.
    pub(super) async fn resize(&mut self, mtu: u16) {
        let Some(link) = &mut self.link else { return };
        link.mtu = mtu;
        if let Err(error) = self.netlink.set_link(self.device.name(), link.address, mtu).await {
            self.tunnel.handle_device_failure(Instant::now(), error.to_string());
        }
    }

    pub(super) async fn down(&mut self) {
        self.prober = None;
        self.link = None;
        self.link_state.send_replace(None);
        self.listen().await;
        warn(self.route(|routing| routing.link = None).await);
    }

    /// Makes the device again that somebody has deleted under the running tunnel.
    pub(super) async fn restore(&mut self) {
        tracing::warn!(device = self.device.name(), "somebody deleted the device; it is made again");
        // Its routes went with it.
        self.routing.link = None;
        if let Some(link) = self.link.take() {
            self.up(link).await;
        }
    }

    /// Carries the device and the routes from `old` to the configuration as it is now.
    pub(super) async fn rewire(&mut self, old: &Config) -> Result<(), String> {
        if old.network.device != self.config.network.device {
            // The link on the old one ends: such a change dials anew.
            self.down().await;
            self.device = Device::open(&self.config.network.device)?;
        }
        let new = Routing::new(&self.config.network, Vec::new());
        self.route(|routing| routing.remote = new.remote).await.map_err(|error| error.to_string())
    }
}

/// A name server inside a remote network: there may be two reasons for that, and one of them is a mistake.
pub(super) fn tell_exempt(server: IpAddr) {
    tracing::warn!(%server, "a name server of this host lies in a remote network; it is asked outside the tunnel");
}
