//! Where the servers of a configuration are, and their secrets, followed as they change.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::config::server::{Radius as Config, RadiusServer};
use crate::io::dial::{read_secret, resolve};
use crate::radius::Server;

/// How often the secrets are read.
const INTERVAL: Duration = Duration::from_secs(2);
/// How many readings of the secrets there are to one look at the names.
const NAMES: u32 = 15;

type Secret = Zeroizing<Vec<u8>>;

/// A server as far as it is known.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// As the configuration calls it.
    pub(super) name: String,
    ports: (u16, u16),
    /// Its address and its secret, or what is wrong.
    pub(super) found: Result<(IpAddr, Secret), String>,
}

/// Every server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Resolved(pub(super) Vec<Found>);

impl Resolved {
    pub(super) fn servers(&self) -> Vec<Server> {
        let server = |server: &Found| {
            let (address, secret) = match &server.found {
                Ok((address, secret)) => (Some(*address), secret.clone()),
                Err(_) => (None, Zeroizing::default()),
            };
            let (port, accounting_port) = server.ports;
            Server { address, port, accounting_port, secret }
        };
        self.0.iter().map(server).collect()
    }
}

/// Follows the servers of a configuration while it lives.
pub(super) struct Watcher {
    changes: mpsc::Receiver<Resolved>,
    task: JoinHandle<()>,
}

impl Watcher {
    pub(super) fn start(config: Config) -> Self {
        let (sender, changes) = mpsc::channel(1);
        Self { changes, task: tokio::spawn(watch(config.servers, sender)) }
    }

    /// What is known, at first and whenever it is something else.
    pub(super) async fn next(&mut self) -> Option<Resolved> {
        self.changes.recv().await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(servers: Vec<RadiusServer>, changes: mpsc::Sender<Resolved>) {
    let mut addresses: Vec<Result<IpAddr, String>> = Vec::new();
    let mut last = None;
    for turn in (0..NAMES).cycle() {
        if turn == 0 {
            let all = servers.iter().enumerate().map(|(index, server)| look_up(server, addresses.get(index)));
            addresses = futures::future::join_all(all).await;
        }
        let files = servers.clone();
        let secrets = tokio::task::spawn_blocking(move || read_secrets(&files)).await;
        let Ok(secrets) = secrets else { return };
        let found = servers.iter().zip(&addresses).zip(secrets).map(|((server, address), secret)| Found {
            name: server.address.clone(),
            ports: (server.port, server.accounting_port),
            found: address.clone().and_then(|address| Ok((address, secret?))),
        });
        let resolved = Resolved(found.collect());
        if last.as_ref() != Some(&resolved) {
            last = Some(resolved.clone());
            if changes.send(resolved).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn read_secrets(servers: &[RadiusServer]) -> Vec<Result<Secret, String>> {
    servers.iter().map(|server| read_secret(&server.secret).map_err(|unusable| unusable.message)).collect()
}

/// The first address of a server, or the one that was known while name servers are silent.
async fn look_up(server: &RadiusServer, known: Option<&Result<IpAddr, String>>) -> Result<IpAddr, String> {
    let resolved = resolve(&server.address).await;
    let first = resolved.and_then(|addresses| addresses.first().copied().ok_or_else(|| "it has no address".to_owned()));
    match (first, known) {
        (Err(_), Some(Ok(known))) => Ok(*known),
        (Err(problem), _) => Err(format!("The RADIUS server {} has no address: {problem}.", server.address)),
        (Ok(address), _) => Ok(address),
    }
}
