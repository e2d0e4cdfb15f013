//! `towline-tunnel run` of a server: one event loop that moves packets between the TUN device, the stack and the two UDP sockets
//! that everybody speaks to.

mod accounts;
mod secrets;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::pending;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::admin::Ask;
use super::endpoint::ReceiveBuffer;
use super::forwarding::{self, Forwarding, Rules};
use super::lifecycle::{
    CLOSE_LIMIT, MAX_MESSAGES, count, hold_routing_lock, last_report, raise_file_limit, seed, serve_admin,
};
use super::listener::{Listener, Turn};
use super::netlink::Netlink;
use super::radius::Radius;
use super::relay::{Relay, Relays};
use super::routing::Routing;
use super::standby::Existence;
use super::telemetry::Verbosity;
use super::tun::Device;
use super::watch::{Change, Watcher};
use super::{ServerSnapshot, Snapshot, dial, metrics, report};
use crate::buffer::{PacketBatch, Way};
use crate::config::ReportTo;
use crate::config::server::Server as Config;
use crate::report::{Layer, Reason, Report, SessionReport, State};
use crate::stack::Counters;
use crate::stack::server::{Event, Server, SessionInfo};

/// How often the wall clock is read: it may be set while the process runs.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);
/// The MTU of the device unless the configuration has another: what fits the usual suites on an Ethernet.
const DEVICE_MTU: u16 = 1_400;
/// The pause until a port that cannot be opened is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// What to run.
pub struct Options {
    /// The file of the configuration, for changes.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The configuration.
    pub config: Config,
    /// Where keys for the decryption of captures go.
    pub keys: Option<File>,
}

/// What the loop is told by its tasks.
enum Message {
    Ask(Ask),
    Change(Change<Config>),
    Existence(Existence),
    Radius(super::radius::Event),
}

impl From<Existence> for Message {
    fn from(existence: Existence) -> Self {
        Self::Existence(existence)
    }
}

impl From<Ask> for Message {
    fn from(ask: Ask) -> Self {
        Self::Ask(ask)
    }
}

impl From<Change<Config>> for Message {
    fn from(change: Change<Config>) -> Self {
        Self::Change(change)
    }
}

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be set up at the start; nothing of it stays. What fails later stands in the report, and is tried again.
pub async fn run(options: Options, verbosity: Verbosity) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    raise_file_limit();
    let (sender, mut messages) = mpsc::channel(MAX_MESSAGES);
    let mut process = Process::start(options, verbosity, sender).await?;
    while !process.closed {
        tokio::select! {
            _ = terminate.recv() => process.close(),
            _ = interrupt.recv() => process.close(),
            Some(message) = messages.recv() => process.handle(message).await,
            () = process.device.readable() => process.read_device(),
            () = readable(process.listener.as_ref()) => process.read_sockets(),
            () = process.due() => process.handle_timeout().await,
        }
        process.settle().await;
    }
    process.end().await;
    Ok(())
}

async fn readable(listener: Option<&Listener>) {
    match listener {
        Some(listener) => listener.readable().await,
        None => pending().await,
    }
}

/// What is wrong with the files that a configuration names; what is only neglected stands in the report.
pub fn problem(config: &Config) -> Option<String> {
    secrets::read(config).1.filter(|(reason, _)| *reason != Reason::CredentialsRead).map(|(_, message)| message)
}

/// Seconds since the Unix epoch.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

struct Process {
    config: Config,
    server: Server,
    netlink: Netlink,
    forwarding: Forwarding,
    /// Held for as long as the process routes.
    _lock: std::os::unix::net::UnixDatagram,
    device: Device,
    listener: Option<Listener>,
    listen_again: Option<Instant>,
    relay_again: Option<Instant>,
    /// Networks of sessions that the configuration does not know, by session.
    told: BTreeMap<u64, Vec<Ipv4Net>>,
    reroute: bool,
    clock_due: Instant,
    relays: Relays,
    link_state: watch::Sender<Option<Ipv4Addr>>,
    reports: watch::Sender<Report>,
    report_to: watch::Sender<Option<ReportTo>>,
    reporter: tokio::task::JoinHandle<()>,
    radius: Option<Radius>,
    sender: mpsc::Sender<Message>,
    verbosity: Verbosity,
    keys: Option<File>,
    instruments: metrics::Instruments,
    drops: BTreeMap<&'static str, u64>,
    closing: Option<Instant>,
    closed: bool,
    batch: PacketBatch,
    buffer: ReceiveBuffer,
}

impl Process {
    async fn start(options: Options, verbosity: Verbosity, sender: mpsc::Sender<Message>) -> anyhow::Result<Self> {
        let Options { path, text, config, keys } = options;
        let lock = hold_routing_lock()?;
        let netlink = Netlink::open().context("cannot talk to the kernel over netlink")?;
        let device = Device::open(&config.network.device).map_err(anyhow::Error::msg)?;
        let seed = seed().context("the system gives no random numbers")?;
        let (secrets, problem) = secrets::read(&config);
        let mut server = Server::new(config.clone(), secrets, seed, Instant::now(), unix_now());
        server.export_keys(keys.is_some());
        tell_secrets(&mut server, problem);
        serve_admin(&config.admin, &sender).await?;
        tokio::spawn(Watcher::new(path, text, &config).run::<Config, _>(sender.clone()));
        let (link_state, link) = watch::channel(Some(config.addresses.local));
        let (reports, to_report) = watch::channel(server.report().clone());
        let (report_to, target) = watch::channel(config.report.clone());
        let reporter = tokio::spawn(report::run(target, to_report, sender.clone()));
        let relays = Relays::new(link);
        let instruments = metrics::Instruments::new(relays.instruments().clone());
        let mut process = Self {
            config,
            server,
            netlink,
            forwarding: Forwarding::new(),
            _lock: lock,
            device,
            listener: None,
            listen_again: None,
            relay_again: None,
            told: BTreeMap::new(),
            reroute: false,
            clock_due: Instant::now() + CLOCK_INTERVAL,
            relays,
            link_state,
            reports,
            report_to,
            reporter,
            radius: None,
            sender,
            verbosity,
            keys,
            instruments,
            drops: BTreeMap::new(),
            closing: None,
            closed: false,
            batch: PacketBatch::new(),
            buffer: ReceiveBuffer::default(),
        };
        process.wire().await;
        process.follow_radius().await;
        process.listen();
        process.settle().await;
        Ok(process)
    }

    /// Opens the ports; those that are not to be had are tried again.
    fn listen(&mut self) {
        match Listener::open(&self.config.listen) {
            Ok(listener) => {
                self.listener = Some(listener);
                self.listen_again = None;
                let message = format!("UDP {} and {} are open.", self.config.listen.ike, self.config.listen.nat_t);
                self.server.set(Layer::Listener, State::Up, Reason::Listening, &message);
            }
            Err(error) => {
                self.listener = None;
                self.listen_again = Some(Instant::now() + LISTEN_PAUSE);
                self.server.set(Layer::Listener, State::Down, Reason::ListenFailed, &error.to_string());
            }
        }
    }

    /// Sets up the device, the routes to clients, what is forwarded, and the relays.
    async fn wire(&mut self) {
        let wired = self.try_wire().await;
        let (state, reason, message) = match wired {
            Ok(message) => (State::Up, Reason::ForwardingEnabled, message),
            Err((reason, message)) => (State::Down, reason, message),
        };
        self.server.set(Layer::Forwarding, state, reason, &message);
        self.relay().await;
    }

    async fn try_wire(&mut self) -> Result<String, (Reason, String)> {
        let config = &self.config;
        if self.device.is_lost() || self.device.name() != config.network.device {
            self.device = Device::open(&config.network.device).map_err(|error| (Reason::DeviceFailed, error))?;
        }
        let failed = |error: super::netlink::Error| (Reason::DeviceFailed, error.to_string());
        let (device, mtu) = (self.device.name().to_owned(), config.network.mtu.unwrap_or(DEVICE_MTU));
        self.netlink.set_link(&device, config.addresses.local, mtu).await.map_err(failed)?;
        let routing = self.routing();
        self.netlink.apply(&routing).await.map_err(failed)?;
        self.forwarding.apply(&Rules::new(config)).map_err(|error| (Reason::ForwardingDisabled, error.to_string()))?;
        if config.forwarding.networks.is_empty() {
            return Ok("No network is forwarded to: clients reach each other, sites and imports.".to_owned());
        }
        forwarding::detect(config.addresses.ipv6_pool.is_some())
            .map_err(|problem| (Reason::ForwardingDisabled, problem))?;
        let networks: Vec<String> = config.forwarding.networks.iter().map(ToString::to_string).collect();
        Ok(format!("Packets of clients are forwarded to {}.", networks.join(", ")))
    }

    /// The ways to clients and sites, and to those networks behind sites that only a RADIUS server knew.
    fn routing(&self) -> Routing {
        let mut routing = Routing::of_server(&self.config, dial::name_servers());
        let told = self.told.values().flatten().copied().map(IpNet::V4);
        routing.remote = IpNet::aggregate(&routing.remote.into_iter().chain(told).collect());
        routing
    }

    /// Opens the ports of exports and imports; those that are not to be had are tried again.
    async fn relay(&mut self) {
        let failed = self.relays.apply(&Relay::of_server(&self.config)).await;
        self.relay_again = failed.then(|| Instant::now() + LISTEN_PAUSE);
        self.publish();
    }

    async fn due(&self) {
        let times =
            [self.server.poll_timeout(), self.closing, self.listen_again, self.relay_again, Some(self.clock_due)];
        match times.into_iter().flatten().min() {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => pending().await,
        }
    }

    async fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.server.handle_timeout(now);
        if self.clock_due <= now {
            self.clock_due = now + CLOCK_INTERVAL;
            self.server.set_clock(now, unix_now());
        }
        if self.listen_again.is_some_and(|at| at <= now) {
            self.listen();
        }
        if self.relay_again.is_some_and(|at| at <= now) {
            self.relay().await;
        }
        if self.closing.is_some_and(|at| at <= now) {
            self.closed = true;
        }
    }

    fn close(&mut self) {
        if self.closing.is_none() {
            tracing::info!("the process was told to end");
            self.closing = Some(Instant::now() + CLOSE_LIMIT);
            self.server.close(Instant::now());
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => {
                let snapshot = self.snapshot(ask.sessions);
                ask.answer(snapshot);
            }
            Message::Change(Change::Credentials) => {
                tracing::info!("a secret changed");
                let (secrets, problem) = secrets::read(&self.config);
                self.server.secrets_changed(Instant::now(), secrets);
                tell_secrets(&mut self.server, problem);
            }
            Message::Change(Change::Rejected(rejected)) => self.server.reject(rejected),
            Message::Change(Change::Config(config)) => self.apply(*config).await,
            Message::Existence(Existence::Gone) => {
                tracing::warn!("the VpnTunnel does not exist any more; this pod should end soon");
            }
            Message::Existence(Existence::Exists) => {}
            Message::Radius(event) => self.handle_radius(event),
        }
    }

    async fn apply(&mut self, new: Config) {
        tracing::info!(revision = new.revision, "the configuration changed");
        let old = std::mem::replace(&mut self.config, new);
        self.verbosity.set(self.config.log);
        if old.admin != self.config.admin {
            tracing::warn!("admin is read at the start of the process only; restart it");
        }
        self.report_to.send_if_modified(|to| {
            let differs = *to != self.config.report;
            to.clone_from(&self.config.report);
            differs
        });
        let (secrets, problem) = secrets::read(&self.config);
        self.server.apply(Instant::now(), self.config.clone(), secrets);
        tell_secrets(&mut self.server, problem);
        self.link_state.send_replace(Some(self.config.addresses.local));
        self.wire().await;
        self.follow_radius().await;
        if old.listen != self.config.listen || self.listener.is_none() {
            self.listener = None;
            self.listen();
        }
    }

    fn read_device(&mut self) {
        self.batch.clear();
        if let Err(error) = self.device.receive(&mut self.batch) {
            tracing::debug!(%error, "device cannot be read");
        }
        self.server.handle_packets(Instant::now(), &self.batch);
    }

    fn read_sockets(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut turn = Turn::default();
        while let Some(received) = self.listener.as_ref().and_then(|listener| listener.receive(&mut turn, &mut buffer))
        {
            let (port, local, remote) = (received.port, received.local, received.remote);
            let now = Instant::now();
            for batch in received.datagrams.batches() {
                batch.for_each(|datagram| self.server.handle_datagram(now, port, local, remote, datagram));
                self.flush();
            }
        }
        self.buffer = buffer;
    }

    /// Sends what the stack has ready, to both sides.
    fn flush(&mut self) {
        while !self.server.transmits().is_empty() {
            let mut too_long = Vec::new();
            if let Some(listener) = &self.listener {
                for run in self.server.transmits().runs() {
                    let sent = listener.send_run(&run);
                    if sent.dropped > 0 {
                        count(&mut self.drops, "socket", sent.dropped);
                    }
                    if sent.error.is_some_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
                        too_long.push(run.way);
                    }
                }
            }
            self.server.transmits().clear();
            too_long.into_iter().for_each(|way| self.measure(way));
        }
        for packet in self.server.packets().iter() {
            if let Err(error) = self.device.send(packet) {
                tracing::trace!(%error, "device does not take a packet");
                count(&mut self.drops, "device", 1);
            }
        }
        self.server.packets().clear();
    }

    /// Tells the stack what the way to a peer takes.
    fn measure(&mut self, way: Way) {
        match self.listener.as_ref().map(|listener| listener.path_mtu(way)) {
            Some(Ok(mtu)) => self.server.handle_path_mtu(Instant::now(), way.remote, mtu),
            Some(Err(error)) => tracing::debug!(%error, peer = %way.remote, "the MTU of a path is not known"),
            None => {}
        }
    }

    /// Does everything that the stack wants done.
    async fn settle(&mut self) {
        loop {
            self.flush();
            match self.server.poll_event() {
                Some(event) => self.handle_event(event),
                None if self.device.is_lost() || std::mem::take(&mut self.reroute) => self.wire().await,
                None if self.server.transmits().is_empty() => return,
                None => {}
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Authenticate { session, request, place } => self.ask(session, request, place),
            Event::Peer(way) => self.measure(way),
            Event::Up(info) => self.session_up(&info),
            Event::Down(info, cause) => self.session_down(&info, cause),
            Event::ReportChanged => self.publish(),
            Event::Keys(row) => {
                if let Some(file) = &mut self.keys
                    && let Err(error) = writeln!(file, "{row}")
                {
                    tracing::warn!(%error, "keys cannot be written");
                }
            }
            Event::Closed => self.closed = self.closing.is_some(),
        }
    }

    fn publish(&mut self) {
        let report = Report {
            exports: self.relays.report(),
            imports: self.relays.report_imports(),
            ..self.server.report().clone()
        };
        super::telemetry::log_changes(&self.reports.borrow(), &report);
        self.reports.send_replace(report);
    }

    fn session_reports(&self, now: Instant) -> Vec<SessionReport> {
        self.server.sessions().map(|session| session_report(&session, now)).collect()
    }

    /// The state, with every session if they are wanted.
    fn snapshot(&self, sessions: bool) -> Snapshot {
        let counted = self.server.counters();
        let now = Instant::now();
        let counters = Counters {
            rx_packets: counted.rx_packets,
            rx_octets: counted.rx_octets,
            tx_packets: counted.tx_packets,
            tx_octets: counted.tx_octets,
            dropped: counted.dropped.clone(),
            ..Counters::default()
        };
        Snapshot {
            report: Report {
                exports: self.relays.report(),
                imports: self.relays.report_imports(),
                ..self.server.report().clone()
            },
            counters,
            drops: self.drops.clone(),
            instruments: self.instruments.clone(),
            started: self.listener.is_some(),
            now,
            server: Some(ServerSnapshot {
                counters: counted.clone(),
                responder: self.server.responder().clone(),
                peers: self.server.peers(),
                sessions: if sessions { self.session_reports(now) } else { Vec::new() },
            }),
        }
    }

    /// Takes back what was set up; the device and its routes go with the process.
    async fn end(mut self) {
        self.publish();
        if let Err(error) = self.forwarding.remove() {
            tracing::warn!(%error, "the rules of nf_tables stay");
        }
        if let Err(error) = self.netlink.apply(&Routing::default()).await {
            tracing::warn!(%error, "routes and rules stay");
        }
        if let Err(error) = std::fs::remove_file(&self.config.admin.socket) {
            tracing::debug!(%error, "control socket cannot be removed");
        }
        if let Some(radius) = self.radius.take() {
            radius.end().await;
        }
        let Self { reports, report_to, reporter, .. } = self;
        drop(reports);
        last_report(reporter).await;
        drop(report_to);
    }
}

fn session_report(session: &SessionInfo, now: Instant) -> SessionReport {
    SessionReport {
        id: session.id,
        user: session.user.clone(),
        address: session.address,
        ipv6_prefix: session.ipv6_prefix,
        networks: session.networks.clone(),
        since: metrics::unix_seconds(now, session.since),
        peer: session.place.peer,
        ike: session.ike,
        esp: session.esp,
        weakness: session.weakness.clone(),
        auth: session.auth,
        rx_octets: session.traffic.rx_octets,
        tx_octets: session.traffic.tx_octets,
    }
}

fn tell_secrets(server: &mut Server, problem: Option<(Reason, String)>) {
    match problem {
        None => {
            let message = "The Secrets hold all that is needed.";
            server.set(Layer::Credentials, State::Up, Reason::CredentialsRead, message);
        }
        Some((reason @ Reason::CredentialsRead, message)) => {
            server.set(Layer::Credentials, State::Up, reason, &message)
        }
        Some((reason, message)) => server.set(Layer::Credentials, State::Down, reason, &message),
    }
}
