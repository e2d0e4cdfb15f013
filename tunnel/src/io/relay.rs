//! Exports: ports of this process whose connections go on to hosts behind the peer.
//!
//! The onward half is an ordinary socket of the kernel: its routes lead into the TUN device or nowhere. While the link is down
//! connections are refused at once, so that clients try another replica instead of waiting.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::{Export, Protocol};

/// The most TCP connections of one export: some 30 MiB of copy buffers and kernel memory at their usual size.
const MAX_CONNECTIONS: usize = 1_024;
/// The most UDP clients of one export.
const MAX_FLOWS: usize = 1_024;
/// How long the host behind the peer may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a UDP client may be silent.
const FLOW_IDLE: Duration = Duration::from_secs(60);
/// Silence after which a TCP connection is probed: less than the idle timeouts of most NATs and firewalls.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The pause after a failed accept: descriptors may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// Our address inside the tunnel while the link is up.
pub type LinkState = watch::Receiver<Option<Ipv4Addr>>;

/// What the relays count.
#[derive(Debug, Clone, Default)]
pub struct Instruments {
    /// TCP connections and UDP flows at the moment.
    pub connections: Gauge,
    /// Those that were refused: the link was down, the host did not accept, or there were too many.
    pub refused: Counter,
}

/// The relays of all exports.
pub struct Relays {
    link: LinkState,
    instruments: Instruments,
    running: Vec<(Export, Option<JoinHandle<()>>)>,
}

impl Relays {
    /// Without any export.
    pub fn new(link: LinkState) -> Self {
        Self { link, instruments: Instruments::default(), running: Vec::new() }
    }

    /// What is counted.
    pub fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// The name of each export, and whether it listens.
    pub fn listening(&self) -> impl Iterator<Item = (&str, bool)> {
        self.running.iter().map(|(export, task)| (export.name.as_str(), task.is_some()))
    }

    /// Stops what is not in `exports`, and starts what is new or could not listen before. Connections of exports that stay are
    /// not touched. Returns what is wrong with those that cannot listen.
    pub async fn apply(&mut self, exports: &[Export]) -> Vec<String> {
        let (keep, stop) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|(export, task)| task.is_some() && exports.contains(export));
        for task in stop.into_iter().filter_map(|(_, task)| task) {
            task.abort();
            // Until the task is gone its port is taken.
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "relay failed");
            }
        }
        self.running = keep;
        let mut problems = Vec::new();
        for export in exports {
            if self.running.iter().any(|(running, _)| running == export) {
                continue;
            }
            let task = match self.start(export).await {
                Ok(task) => Some(task),
                Err(error) => {
                    let Export { name, listen, protocol, .. } = export;
                    problems.push(format!("Export {name} cannot listen at {protocol} {listen}: {error}."));
                    None
                }
            };
            self.running.push((export.clone(), task));
        }
        problems
    }

    async fn start(&self, export: &Export) -> io::Result<JoinHandle<()>> {
        let target = SocketAddr::new(export.host, export.port);
        let (link, instruments) = (self.link.clone(), self.instruments.clone());
        Ok(match export.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(export.listen).await?;
                tokio::spawn(serve_tcp(listener, target, link, instruments))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(export.listen).await?;
                tokio::spawn(serve_udp(Arc::new(socket), target, link, instruments))
            }
        })
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.running.iter().filter_map(|(_, task)| task.as_ref()).for_each(JoinHandle::abort);
    }
}

/// Counts one connection for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn serve_tcp(listener: TcpListener, target: SocketAddr, link: LinkState, instruments: Instruments) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if link.borrow().is_none() || connections.len() >= MAX_CONNECTIONS => {
                    instruments.refused.inc();
                    reset(&client);
                }
                Ok((client, _)) => {
                    connections.spawn(relay_tcp(client, target, link.clone(), instruments.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, %target, "connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Makes the end of `stream` a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "connection ends without a reset");
    }
}

async fn relay_tcp(mut client: TcpStream, target: SocketAddr, mut link: LinkState, instruments: Instruments) {
    let _counted = Counted::new(&instruments.connections);
    let address = *link.borrow();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let mut host = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(host) => host,
        Err(error) => {
            tracing::debug!(%error, %target, "host does not accept the connection");
            instruments.refused.inc();
            return reset(&client);
        }
    };
    for stream in [&client, &host] {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let set = SockRef::from(stream).set_tcp_keepalive(&keepalive).and_then(|()| stream.set_nodelay(true));
        if let Err(error) = set {
            tracing::debug!(%error, "options of a connection cannot be set");
        }
    }
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut host) => {
            if let Err(error) = copied {
                tracing::debug!(%error, %target, "connection broke");
                reset(&client);
                reset(&host);
            }
        }
        // The host knows the connection by an address that is no longer ours.
        () = moved(&mut link, address) => {
            reset(&client);
            reset(&host);
        }
    }
}

/// Waits until the link has another address than `address`.
async fn moved(link: &mut LinkState, address: Option<Ipv4Addr>) {
    if link.wait_for(|new| new.is_some() && *new != address).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A UDP client.
struct Flow {
    host: Arc<UdpSocket>,
    /// When it last sent something.
    last: Arc<Mutex<Instant>>,
}

async fn serve_udp(socket: Arc<UdpSocket>, target: SocketAddr, link: LinkState, instruments: Instruments) {
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut octets = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut octets) => {
                let Ok((length, client)) = received else { continue };
                if link.borrow().is_none() {
                    instruments.refused.inc();
                    continue;
                }
                if !flows.contains_key(&client) {
                    if flows.len() >= MAX_FLOWS {
                        instruments.refused.inc();
                        continue;
                    }
                    let host = match open_udp(target).await {
                        Ok(host) => Arc::new(host),
                        Err(error) => {
                            tracing::debug!(%error, %target, "host cannot be reached");
                            instruments.refused.inc();
                            continue;
                        }
                    };
                    let last = Arc::new(Mutex::new(Instant::now()));
                    flows.insert(client, Flow { host: Arc::clone(&host), last: Arc::clone(&last) });
                    tasks.spawn(answer_udp(Arc::clone(&socket), client, host, last, Counted::new(&instruments.connections)));
                }
                if let Some(flow) = flows.get(&client) {
                    *flow.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    if let Err(error) = flow.host.send(octets.get(..length).unwrap_or_default()).await {
                        tracing::trace!(%error, %target, "datagram cannot be sent");
                    }
                }
            }
            Some(ended) = tasks.join_next() => {
                if let Ok(client) = ended {
                    flows.remove(&client);
                }
            }
        }
    }
}

async fn open_udp(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Sends the host's answers back until neither end has sent anything for a while; returns the client.
async fn answer_udp(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    host: Arc<UdpSocket>,
    last: Arc<Mutex<Instant>>,
    _counted: Counted,
) -> SocketAddr {
    loop {
        match tokio::time::timeout(FLOW_IDLE, host.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return client,
            Err(_) if last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= FLOW_IDLE => return client,
            Err(_) => continue,
        }
        // Not kept from one datagram to the next: a thousand idle flows would hold 64 MiB.
        let mut octets = Vec::with_capacity(MAX_DATAGRAM);
        match host.try_recv_buf(&mut octets) {
            Ok(_) => {
                if let Err(error) = socket.send_to(&octets, client).await {
                    tracing::trace!(%error, "datagram cannot be sent back");
                }
            }
            // Readiness was false, or the network told that the host does not listen, which may pass.
            Err(error) => tracing::trace!(%error, "no datagram"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn free(protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Tcp => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
            Protocol::Udp => std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        }
    }

    fn export(target: SocketAddr, protocol: Protocol) -> Export {
        Export { name: "db".to_owned(), listen: free(protocol), host: target.ip(), port: target.port(), protocol }
    }

    const ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 9, 0, 5));

    #[tokio::test]
    async fn half_closed_connections_are_relayed() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Tcp);
        assert_eq!(relays.apply(std::slice::from_ref(&export)).await, [""; 0]);
        let mut client = TcpStream::connect(export.listen).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut there, _) = host.accept().await.unwrap();
        let mut question = String::new();
        there.read_to_string(&mut question).await.unwrap();
        assert_eq!((question.as_str(), relays.instruments().connections.get()), ("question", 1));
        there.write_all(b"answer").await.unwrap();
        drop(there);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn connections_are_reset_while_the_link_is_down_and_when_its_address_changes() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, link) = watch::channel(None);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Tcp);
        assert_eq!(relays.apply(std::slice::from_ref(&export)).await, [""; 0]);
        let mut client = TcpStream::connect(export.listen).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(relays.instruments().refused.get(), 1);

        state.send_replace(ADDRESS);
        let mut client = TcpStream::connect(export.listen).await.unwrap();
        let (_there, _) = host.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        for (address, survives) in [(None, true), (ADDRESS, true), (Some([10, 9, 0, 6].into()), false)] {
            state.send_replace(address);
            let read = tokio::time::timeout(Duration::from_millis(100), client.read(&mut [0])).await;
            assert_eq!(read.is_err(), survives, "{address:?}");
        }
    }

    #[tokio::test]
    async fn answers_find_their_client() {
        let host = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Udp);
        assert_eq!(relays.apply(std::slice::from_ref(&export)).await, [""; 0]);
        let mut octets = [0; 99];
        let mut clients = Vec::new();
        for name in [b"a", b"b"] {
            let client = open_udp(export.listen).await.unwrap();
            client.send(name).await.unwrap();
            let (length, from) = host.recv_from(&mut octets).await.unwrap();
            assert_eq!(&octets[..length], name);
            clients.push((client, from, name));
        }
        for (client, from, name) in clients.iter().rev() {
            host.send_to(*name, from).await.unwrap();
            let length = client.recv(&mut octets).await.unwrap();
            assert_eq!(&octets[..length], *name);
        }
        assert_eq!(relays.instruments().connections.get(), 2);
    }

    #[tokio::test]
    async fn exports_change_while_others_go_on() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let [stays, goes] = [(); 2].map(|()| export(host.local_addr().unwrap(), Protocol::Tcp));
        assert_eq!(relays.apply(&[stays.clone(), goes.clone()]).await, [""; 0]);
        let mut client = TcpStream::connect(stays.listen).await.unwrap();
        client.write_all(b"x").await.unwrap();

        // The same port with another target: the first must be gone before.
        let changed = Export { port: 1, ..goes.clone() };
        let taken = Export { name: "taken".to_owned(), listen: host.local_addr().unwrap(), ..goes };
        let problems = relays.apply(&[stays.clone(), changed, taken]).await;
        assert!(problems.len() == 1 && problems[0].contains("Export taken cannot listen"), "{problems:?}");
        assert_eq!(relays.listening().filter(|(_, listens)| *listens).count(), 2);
        let (mut there, _) = host.accept().await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), b'x');
    }
}
