//! Exports: ports of this process whose connections go on to hosts behind the peer. Imports: ports at our own address inside
//! the tunnel whose connections go on to hosts on this side.
//!
//! One half of a connection is inside and one outside the tunnel. The inner half is an ordinary socket of the kernel: its routes
//! lead into the TUN device or nowhere. The outer one is marked, and has the host's other routes. While the link is down
//! connections are refused at once, so that clients try another replica instead of waiting.

mod udp;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::{dial, routing};
use crate::config::server::{Import, Server};
use crate::config::{Config, Export, Protocol};
use crate::report::{ExportReport, MAX_PROBLEM};

/// The most TCP connections and UDP flows of all exports and imports together. A connection has two copy buffers of 8 KiB, so that all of
/// them take some 20 MiB of this process. What the kernel queues for them counts towards the pod's memory too, and the kernel
/// holds it back when that becomes scarce.
const MAX_CONNECTIONS: usize = 1_024;
/// How long the host may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a TCP connection is probed: less than the idle timeouts of most NATs and firewalls.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The pause after a failed accept or receive: descriptors or memory may have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An error that repeats is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

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

/// What every relay works with.
#[derive(Clone)]
struct Shared {
    link: LinkState,
    places: Arc<Semaphore>,
    instruments: Instruments,
}

impl Shared {
    /// A place for one more connection, while the link is up and there is one.
    fn admit(&self) -> Option<Counted> {
        let place = if self.link.borrow().is_some() { Arc::clone(&self.places).try_acquire_owned().ok() } else { None };
        if place.is_none() {
            self.instruments.refused.inc();
        }
        place.map(|place| Counted::new(&self.instruments.connections, place))
    }
}

/// A port of this process and where its connections go on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    name: String,
    listen: SocketAddr,
    target: Target,
    protocol: Protocol,
}

/// Where connections go on to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// A host behind the peer.
    Inside(SocketAddr),
    /// A DNS name or an address on this side; a name is resolved for each connection.
    Outside(String, u16),
}

impl From<Export> for Relay {
    fn from(Export { name, listen, host, port, protocol }: Export) -> Self {
        Self { name, listen, target: Target::Inside(SocketAddr::new(host, port)), protocol }
    }
}

impl Relay {
    /// The exports and imports of a server.
    pub fn of_server(server: &Server) -> Vec<Self> {
        let local = server.addresses.local;
        let imports = server.imports.iter().map(|import| Self::import(import, local));
        server.exports.iter().cloned().map(Self::from).chain(imports).collect()
    }

    /// The exports of a client, and its imports while it has an `address` inside the tunnel.
    pub fn of_client(config: &Config, address: Option<Ipv4Addr>) -> Vec<Self> {
        let imports =
            address.into_iter().flat_map(|own| config.imports.iter().map(move |import| Self::import(import, own)));
        config.exports.iter().cloned().map(Self::from).chain(imports).collect()
    }

    fn import(Import { name, listen, host, port, protocol }: &Import, local: Ipv4Addr) -> Self {
        let (listen, target) = (SocketAddr::new(local.into(), *listen), Target::Outside(host.clone(), *port));
        Self { name: name.clone(), listen, target, protocol: *protocol }
    }

    fn is_import(&self) -> bool {
        matches!(self.target, Target::Outside(..))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inside(address) => address.fmt(f),
            Self::Outside(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl Target {
    /// Tries `connect` with the addresses of the host until one works; the second argument says whether the socket is outside.
    async fn reach<T>(&self, connect: impl AsyncFn(SocketAddr, bool) -> io::Result<T>) -> io::Result<T> {
        let (host, port) = match self {
            Self::Inside(address) => return connect(*address, false).await,
            Self::Outside(host, port) => (host, *port),
        };
        let mut last = io::ErrorKind::NotFound.into();
        for address in dial::resolve(host).await.map_err(io::Error::other)? {
            match connect(SocketAddr::new(address, port), true).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// One relay, and its task or why it has none.
struct Running {
    relay: Relay,
    task: Result<JoinHandle<()>, String>,
}

/// All relays.
pub struct Relays {
    shared: Shared,
    running: Vec<Running>,
}

impl Relays {
    /// Without any.
    pub fn new(link: LinkState) -> Self {
        Self::with_places(link, MAX_CONNECTIONS)
    }

    fn with_places(link: LinkState, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places));
        Self { shared: Shared { link, places, instruments: Instruments::default() }, running: Vec::new() }
    }

    /// What is counted.
    pub fn instruments(&self) -> &Instruments {
        &self.shared.instruments
    }

    /// The state of each export.
    pub fn report(&self) -> Vec<ExportReport> {
        self.report_of(false)
    }

    /// The state of each import.
    pub fn report_imports(&self) -> Vec<ExportReport> {
        self.report_of(true)
    }

    fn report_of(&self, imports: bool) -> Vec<ExportReport> {
        let report = |running: &Running| ExportReport {
            name: running.relay.name.clone(),
            problem: running.task.as_ref().err().map(|problem| problem.chars().take(MAX_PROBLEM).collect()),
        };
        self.running.iter().filter(|running| running.relay.is_import() == imports).map(report).collect()
    }

    /// Stops what is not in `relays`, and starts what is new or could not listen before. Connections of those that stay are not
    /// touched. Returns whether one cannot listen.
    pub async fn apply<T: Clone + Into<Relay>>(&mut self, relays: &[T]) -> bool {
        let relays: Vec<Relay> = relays.iter().cloned().map(Into::into).collect();
        let (keep, stop) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|running| running.task.is_ok() && relays.contains(&running.relay));
        let mut known = Vec::new();
        for Running { task, .. } in stop {
            match task {
                Err(problem) => known.push(problem),
                Ok(task) => {
                    task.abort();
                    // Until the task is gone its port is taken.
                    if let Err(error) = task.await
                        && error.is_panic()
                    {
                        tracing::error!(%error, "relay failed");
                    }
                }
            }
        }
        self.running = keep;
        for relay in relays {
            if self.running.iter().any(|running| running.relay == relay) {
                continue;
            }
            let Relay { name, listen, protocol, .. } = &relay;
            let task = self.start(&relay).await.map_err(|error| {
                let kind = if relay.is_import() { "Import" } else { "Export" };
                format!("{kind} {name} cannot listen at {protocol} {listen}: {error}. It is tried again.")
            });
            if let Err(problem) = &task
                && !known.contains(problem)
            {
                tracing::warn!("{problem}");
            }
            self.running.push(Running { relay, task });
        }
        self.running.iter().any(|running| running.task.is_err())
    }

    async fn start(&self, relay: &Relay) -> io::Result<JoinHandle<()>> {
        let (target, shared) = (relay.target.clone(), self.shared.clone());
        Ok(match relay.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(relay.listen).await?;
                if !relay.is_import() {
                    routing::mark(&listener)?;
                }
                tokio::spawn(serve_tcp(listener, target, shared))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(relay.listen).await?;
                if !relay.is_import() {
                    routing::mark(&socket)?;
                }
                tokio::spawn(udp::serve(Arc::new(socket), target, shared))
            }
        })
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.running.iter().filter_map(|running| running.task.as_ref().ok()).for_each(JoinHandle::abort);
    }
}

/// Counts one connection, and holds its place, for as long as it lives.
struct Counted {
    gauge: Gauge,
    _place: OwnedSemaphorePermit,
}

impl Counted {
    fn new(gauge: &Gauge, place: OwnedSemaphorePermit) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone(), _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Logs an error that repeats at a bounded rate.
#[derive(Default)]
struct Complaint(Option<tokio::time::Instant>);

impl Complaint {
    fn log(&mut self, error: &io::Error, target: &Target) {
        if self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            self.0 = Some(tokio::time::Instant::now());
            tracing::warn!(%error, %target, "the port of an export or import does not work");
        }
    }
}

async fn serve_tcp(listener: TcpListener, target: Target, shared: Shared) {
    let mut connections = JoinSet::new();
    let mut complaint = Complaint::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => match shared.admit() {
                    Some(counted) => {
                        connections.spawn(relay_tcp(client, target.clone(), shared.clone(), counted));
                    }
                    None => reset(&client),
                },
                Err(error) => {
                    complaint.log(&error, &target);
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

async fn connect_tcp(target: SocketAddr, outside: bool) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if outside {
        routing::mark(&socket)?;
    }
    socket.connect(target).await
}

async fn relay_tcp(mut client: TcpStream, target: Target, shared: Shared, _counted: Counted) {
    let Shared { mut link, instruments, .. } = shared;
    let address = *link.borrow();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, target.reach(connect_tcp)).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    pub(super) fn free(protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Tcp => std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
            Protocol::Udp => std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        }
    }

    pub(super) fn export(target: SocketAddr, protocol: Protocol) -> Export {
        Export { name: "db".to_owned(), listen: free(protocol), host: target.ip(), port: target.port(), protocol }
    }

    /// An import of a host whose name must be resolved.
    pub(super) fn import(port: u16, protocol: Protocol) -> Relay {
        let listen = free(protocol).port();
        let import = Import { name: "web".to_owned(), listen, host: "localhost".to_owned(), port, protocol };
        Relay::import(&import, Ipv4Addr::LOCALHOST)
    }

    /// Lets the relays work until `condition` holds.
    pub(super) async fn until(condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }

    /// For what happens at once, or else never.
    pub(super) const PATIENCE: Duration = Duration::from_secs(20);

    pub(super) const ADDRESS: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 9, 0, 5));

    #[tokio::test]
    async fn half_closed_connections_are_relayed() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Tcp);
        assert!(!relays.apply(std::slice::from_ref(&export)).await);
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
        assert!(!relays.apply(std::slice::from_ref(&export)).await);
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
    async fn imports_are_relayed_to_a_host_by_name_and_reported_apart() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let good = import(host.local_addr().unwrap().port(), Protocol::Tcp);
        let taken = Relay { name: "taken".to_owned(), listen: host.local_addr().unwrap(), ..good.clone() };
        let nowhere = Target::Outside("name.invalid".to_owned(), 1);
        let nowhere = Relay { listen: free(Protocol::Tcp), target: nowhere, ..good.clone() };
        assert!(relays.apply(&[good.clone(), taken, nowhere.clone()]).await);
        let mut client = TcpStream::connect(good.listen).await.unwrap();
        let (mut there, _) = host.accept().await.unwrap();
        there.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        let mut refused = TcpStream::connect(nowhere.listen).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, refused.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(relays.instruments().refused.get(), 1);
        let report = relays.report_imports();
        let problems: Vec<_> = report.iter().filter_map(|import| import.problem.as_deref()).collect();
        assert!(problems.len() == 1 && problems[0].starts_with("Import taken cannot listen"), "{problems:?}");
        assert_eq!((report.len(), relays.report()), (3, Vec::new()));
    }

    #[tokio::test]
    async fn only_the_outer_half_of_a_connection_stays_out_of_the_tunnel() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for outside in [false, true] {
            let tcp = connect_tcp(host.local_addr().unwrap(), outside).await.unwrap();
            let udp = udp::open(host.local_addr().unwrap(), outside).await.unwrap();
            for mark in [SockRef::from(&tcp).mark(), SockRef::from(&udp).mark()] {
                assert_eq!(mark.unwrap() != 0, outside);
            }
        }
    }

    #[tokio::test]
    async fn all_exports_share_one_bound() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::with_places(link, 2);
        let udp_host = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let [tcp, udp] = [host.local_addr().unwrap(), udp_host.local_addr().unwrap()];
        let exports = [export(tcp, Protocol::Tcp), export(udp, Protocol::Udp), export(tcp, Protocol::Tcp)];
        assert!(!relays.apply(&exports).await);
        let first = TcpStream::connect(exports[0].listen).await.unwrap();
        let (there, _) = host.accept().await.unwrap();
        let flow = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        flow.send_to(b"x", exports[1].listen).unwrap();
        let connections = relays.instruments().connections.clone();
        until(|| connections.get() == 2).await;
        let mut refused = TcpStream::connect(exports[2].listen).await.unwrap();
        let read = tokio::time::timeout(PATIENCE, refused.read(&mut [0])).await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(relays.instruments().refused.get(), 1);

        drop((there, first));
        until(|| connections.get() == 1).await;
        let mut admitted = TcpStream::connect(exports[2].listen).await.unwrap();
        let (mut there, _) = host.accept().await.unwrap();
        admitted.write_all(b"x").await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn exports_change_while_others_go_on() {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let [stays, goes] = [(); 2].map(|()| export(host.local_addr().unwrap(), Protocol::Tcp));
        assert!(!relays.apply(&[stays.clone(), goes.clone()]).await);
        let mut client = TcpStream::connect(stays.listen).await.unwrap();
        client.write_all(b"x").await.unwrap();

        // The same port with another target: the first must be gone before.
        let changed = Export { port: 1, ..goes.clone() };
        let taken = Export { name: "taken".to_owned(), listen: host.local_addr().unwrap(), ..goes };
        let exports = [stays.clone(), changed, taken];
        assert!(relays.apply(&exports).await);
        let report = relays.report();
        let problems: Vec<_> = report.iter().filter_map(|export| export.problem.as_deref()).collect();
        assert!(problems.len() == 1 && problems[0].contains("Export taken cannot listen"), "{problems:?}");
        let (mut there, _) = host.accept().await.unwrap();
        assert_eq!(there.read_u8().await.unwrap(), b'x');

        // Whoever had the port has gone.
        drop((there, host));
        assert!(!relays.apply(&exports).await);
        assert!(relays.report().iter().all(|export| export.problem.is_none()));
    }
}
