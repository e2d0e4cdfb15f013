//! `towline-tunnel run`: one event loop that moves packets between the TUN device, the stack and the UDP sockets, and does what
//! the stack's events ask for.

mod path;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::pending;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::admin::Ask;
use super::dial::{self, Dialled, Turns};
use super::endpoint::ReceiveBuffer;
use super::lifecycle::{
    CLOSE_LIMIT, MAX_MESSAGES, count, hold_routing_lock, last_report, raise_file_limit, seed, serve_admin,
};
use super::netlink::Netlink;
use super::probe::{Probe, Prober};
use super::relay::{Relay, Relays};
use super::routing::Routing;
use super::standby::{Existence, Standby, Step};
use super::telemetry::Verbosity;
use super::tun::Device;
use super::udp::Sockets;
use super::watch::{Change, Watcher};
use super::{Snapshot, metrics, report, telemetry};
use crate::buffer::{BATCH_PACKETS, Carrier, PacketBatch};
use crate::config::{Config, ReportTo};
use crate::ike;
use crate::report::Report;
use crate::stack::{Credentials, Event, Link, PathError, Tunnel};

/// The pause until an export or import that cannot listen is tried again; it doubles.
const FIRST_LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_LISTEN_PAUSE: Duration = Duration::from_secs(60);
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
    /// Keeps the rules and the unreachable routes at the end, also of a start that fails, for the process that comes after this
    /// one in the same network namespace.
    pub leave_routes: bool,
}

/// What the loop is told by its tasks.
enum Message {
    Ask(Ask),
    Change(Change<Config>),
    Probe(u64, Probe),
    Dialled(u64, Box<Result<Dialled, PathError>>),
    Credentials(Box<Result<Credentials, PathError>>),
    Existence(Existence),
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

impl From<(u64, Probe)> for Message {
    fn from((generation, probe): (u64, Probe)) -> Self {
        Self::Probe(generation, probe)
    }
}

/// Runs a tunnel until SIGTERM or SIGINT.
///
/// # Errors
/// What cannot be set up at the start; nothing of it stays. What fails later stands in the report, and is tried again.
pub async fn run(options: Options, verbosity: Verbosity) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    raise_file_limit();
    let (sender, mut messages) = mpsc::channel(MAX_MESSAGES);
    let mut process = start(options, verbosity, sender).await?;
    while !process.closed {
        tokio::select! {
            _ = terminate.recv() => process.close(),
            _ = interrupt.recv() => process.close(),
            Some(message) = messages.recv() => process.handle(message).await,
            () = process.device.readable() => process.read_device(),
            carrier = readable(process.sockets.as_ref()) => process.read_socket(carrier),
            () = process.due() => process.handle_timeout().await,
        }
        process.settle().await;
    }
    process.end().await;
    Ok(())
}

/// Sets up everything; nothing stays of a start that fails, unless the routes are to.
async fn start(options: Options, verbosity: Verbosity, sender: mpsc::Sender<Message>) -> anyhow::Result<Process> {
    let lock = hold_routing_lock()?;
    let netlink = Netlink::open().context("cannot talk to the kernel over netlink")?;
    let routing = Routing::new(&options.config.network, dial::name_servers());
    routing.exempt().for_each(path::tell_exempt);
    let leave_routes = options.leave_routes;
    let started = async {
        // First of all: until the tunnel is up nothing for the remote networks may go another way.
        netlink.apply(&routing).await?;
        Process::start(options, verbosity, sender, (netlink.clone(), routing, lock)).await
    };
    let started = started.await;
    if started.is_err() && !leave_routes {
        warn(netlink.apply(&Routing::default()).await);
    }
    started
}

/// Waits for a datagram.
async fn readable(sockets: Option<&Sockets>) -> Carrier {
    match sockets {
        Some(sockets) => sockets.readable().await,
        None => pending().await,
    }
}

/// A tunnel that dials.
fn new_tunnel(config: &Config, export_keys: bool) -> anyhow::Result<Tunnel> {
    let seed = seed().context("the system gives no random numbers")?;
    let mut tunnel = Tunnel::new(config, seed);
    tunnel.export_keys(export_keys);
    tunnel.start();
    Ok(tunnel)
}

struct Process {
    config: Config,
    tunnel: Tunnel,
    netlink: Netlink,
    /// What the kernel does with packets.
    routing: Routing,
    /// Held for as long as the process routes.
    _lock: UnixDatagram,
    device: Device,
    sockets: Option<Sockets>,
    /// Counts the dials, so that the answer to an earlier one is known for what it is.
    dials: u64,
    turns: Turns,
    /// What the certificate of the peer must be for.
    peer_name: Option<ike::Identity>,
    link: Option<Link>,
    /// Since when the link is up, by both clocks; the second in seconds since the Unix epoch.
    established: Option<(Instant, u64)>,
    prober: Option<Prober>,
    /// Counts the probers.
    probers: u64,
    relays: Relays,
    /// When the exports and imports that could not listen are tried again, and the pause before.
    listen_again: Option<(Instant, Duration)>,
    link_state: watch::Sender<Option<Ipv4Addr>>,
    reports: watch::Sender<Report>,
    report_to: watch::Sender<Option<ReportTo>>,
    reporter: tokio::task::JoinHandle<()>,
    sender: mpsc::Sender<Message>,
    verbosity: Verbosity,
    keys: Option<File>,
    leave_routes: bool,
    instruments: metrics::Instruments,
    drops: BTreeMap<&'static str, u64>,
    started: bool,
    closing: Option<Instant>,
    closed: bool,
    standby: Standby,
    batch: PacketBatch,
    buffer: ReceiveBuffer,
}

impl Process {
    async fn start(
        options: Options,
        verbosity: Verbosity,
        sender: mpsc::Sender<Message>,
        (netlink, routing, lock): (Netlink, Routing, UnixDatagram),
    ) -> anyhow::Result<Self> {
        let Options { path, text, config, keys, leave_routes } = options;
        let tunnel = new_tunnel(&config, keys.is_some())?;
        let device = Device::open(&config.network.device).map_err(anyhow::Error::msg)?;
        serve_admin(&config.admin, &sender).await?;
        tokio::spawn(Watcher::new(path, text, &config).run::<Config, _>(sender.clone()));

        let (link_state, link) = watch::channel(None);
        let (reports, to_report) = watch::channel(tunnel.report().clone());
        let (report_to, target) = watch::channel(config.report.clone());
        let reporter = tokio::spawn(report::run(target, to_report, sender.clone()));
        let relays = Relays::new(link);
        let instruments = metrics::Instruments::new(relays.instruments().clone());
        let mut process = Self {
            config,
            tunnel,
            netlink,
            routing,
            _lock: lock,
            device,
            sockets: None,
            dials: 0,
            turns: Turns::default(),
            peer_name: None,
            link: None,
            established: None,
            prober: None,
            probers: 0,
            relays,
            listen_again: None,
            link_state,
            reports,
            report_to,
            reporter,
            sender,
            verbosity,
            keys,
            leave_routes,
            instruments,
            drops: BTreeMap::new(),
            started: false,
            closing: None,
            closed: false,
            standby: Standby::default(),
            batch: PacketBatch::new(),
            buffer: ReceiveBuffer::default(),
        };
        process.listen().await;
        process.settle().await;
        Ok(process)
    }

    /// Opens the ports of exports and imports; those that are not to be had are tried again.
    async fn listen(&mut self) {
        let address = self.link.as_ref().map(|link| link.address);
        let failed = self.relays.apply(&Relay::of_client(&self.config, address)).await;
        let pause = self.listen_again.map_or(FIRST_LISTEN_PAUSE, |(_, pause)| LONGEST_LISTEN_PAUSE.min(pause * 2));
        self.listen_again = failed.then(|| (Instant::now() + pause, pause));
        self.publish();
    }

    /// Waits until the stack, the limit of the goodbyes or an export is due.
    async fn due(&self) {
        let listen_again = self.listen_again.map(|(at, _)| at);
        match [self.tunnel.poll_timeout(), self.closing, listen_again].into_iter().flatten().min() {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => pending().await,
        }
    }

    async fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.tunnel.handle_timeout(now);
        if self.listen_again.is_some_and(|(at, _)| at <= now) {
            self.listen().await;
        }
        if self.closing.is_some_and(|at| at <= now) {
            tracing::warn!("the gateway did not acknowledge the end of the tunnel in time");
            self.closed = true;
        }
    }

    fn close(&mut self) {
        if self.closing.is_none() {
            tracing::info!("the process was told to end");
            // Its goodbyes are said already.
            self.closed = self.standby.is_gone();
            self.closing = Some(Instant::now() + CLOSE_LIMIT);
            self.tunnel.close(Instant::now());
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Ask(ask) => ask.answer(self.snapshot()),
            Message::Change(Change::Credentials) => {
                tracing::info!("a secret changed");
                self.tunnel.credentials_changed(Instant::now());
                self.renew_credentials();
            }
            Message::Change(Change::Rejected(rejected)) => self.tunnel.reject(rejected),
            Message::Change(Change::Config(config)) => self.apply(*config).await,
            Message::Probe(generation, probe) if generation == self.probers => self.handle_probe(probe),
            Message::Dialled(generation, dialled) if generation == self.dials => self.handle_dialled(*dialled).await,
            Message::Credentials(read) => self.handle_credentials(*read),
            Message::Existence(existence) => match self.standby.hear(existence) {
                Step::Stay => {}
                Step::Close => self.tunnel.close(Instant::now()),
                Step::Dial => self.begin_anew().await,
            },
            // Of a link or a dial that is over.
            Message::Probe(..) | Message::Dialled(..) => {}
        }
    }

    /// Dials with a stack that knows nothing of the tunnel before.
    async fn begin_anew(&mut self) {
        self.down().await;
        match new_tunnel(&self.config, self.keys.is_some()) {
            Ok(tunnel) => self.tunnel = tunnel,
            Err(error) => {
                tracing::error!(%error, "the tunnel cannot be dialled; the process ends");
                self.closed = true;
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            report: self.report(),
            counters: self.tunnel.counters().clone(),
            drops: self.drops.clone(),
            instruments: self.instruments.clone(),
            started: self.started,
            now: Instant::now(),
            server: None,
        }
    }

    // Packets.

    fn read_device(&mut self) {
        self.batch.clear();
        if let Err(error) = self.device.receive(&mut self.batch) {
            tracing::debug!(%error, "device cannot be read");
        }
        self.tunnel.handle_packets(Instant::now(), &self.batch);
    }

    fn read_socket(&mut self, carrier: Carrier) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..BATCH_PACKETS {
            let Some(socket) = self.sockets.as_ref().and_then(|sockets| sockets.of(carrier)) else { break };
            let remote = socket.remote();
            match socket.receive(&mut buffer) {
                Ok(received) => {
                    let now = Instant::now();
                    for batch in received.batches() {
                        batch.for_each(|datagram| self.tunnel.handle_datagram(now, carrier, remote, datagram));
                        self.flush();
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => self.handle_path_error(carrier, &error),
            }
        }
        self.buffer = buffer;
        self.flush();
    }

    /// What the network, or the kernel that knows it, says about the way to the peer.
    fn handle_path_error(&mut self, carrier: Carrier, error: &std::io::Error) {
        let now = Instant::now();
        match self.sockets.as_ref().and_then(|sockets| sockets.of(carrier)) {
            Some(socket) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.tunnel.handle_path_mtu(now, socket.path_mtu());
            }
            _ => self.tunnel.handle_unreachable(now, &error.to_string()),
        }
    }

    /// Sends what the stack has ready, to both sides.
    fn flush(&mut self) {
        while !self.tunnel.transmits().is_empty() {
            let mut failure = None;
            if let Some(sockets) = &self.sockets {
                for run in self.tunnel.transmits().runs() {
                    let Some(socket) = sockets.of(run.socket) else { continue };
                    let sent = socket.send_run(&run);
                    if sent.dropped > 0 {
                        count(&mut self.drops, "socket", sent.dropped);
                    }
                    // A full socket is no news about the path.
                    let error = sent.error.filter(|error| error.kind() != std::io::ErrorKind::WouldBlock);
                    failure = error.map(|error| (run.socket, error)).or(failure);
                }
            }
            self.tunnel.transmits().clear();
            if let Some((carrier, error)) = failure {
                self.handle_path_error(carrier, &error);
            }
        }
        let mut answered = None;
        for packet in self.tunnel.packets().iter() {
            if let Some(echo) = self.prober.as_mut().and_then(|prober| prober.echo.as_mut())
                && let Some(round_trip) = echo.reply(Instant::now(), packet)
            {
                answered = Some(round_trip);
            } else if let Err(error) = self.device.send(packet) {
                tracing::trace!(%error, "device does not take a packet");
                count(&mut self.drops, "device", 1);
            }
        }
        self.tunnel.packets().clear();
        if let Some(round_trip) = answered {
            self.probed(Ok(round_trip));
        }
    }

    /// Does everything that the stack wants done.
    async fn settle(&mut self) {
        loop {
            self.flush();
            match self.tunnel.poll_event() {
                Some(event) => self.handle_event(event).await,
                None if self.device.is_lost() && self.link.is_some() => self.restore().await,
                None if self.tunnel.transmits().is_empty() => return,
                None => {}
            }
        }
    }

    async fn handle_event(&mut self, event: Event) {
        match event {
            Event::Dial { peer, again, fresh_ports } => self.dial(peer, again, fresh_ports).await,
            Event::Up(link) => self.up(link).await,
            Event::Mtu(mtu) => self.resize(mtu).await,
            Event::Down => self.down().await,
            Event::ReportChanged => self.publish(),
            Event::Keys(row) => {
                if let Some(file) = &mut self.keys
                    && let Err(error) = writeln!(file, "{row}")
                {
                    tracing::warn!(%error, "keys cannot be written");
                }
            }
            Event::Closed => self.closed = self.closing.is_some() || !self.standby.is_gone(),
        }
    }

    fn publish(&mut self) {
        // The stack has no wall clock. Read once for each link: it may be set meanwhile.
        let established = self.tunnel.counters().established;
        if self.established.map(|(at, _)| at) != established {
            self.established = established.map(|at| (at, metrics::unix_seconds(Instant::now(), at)));
        }
        let report = self.report();
        telemetry::log_changes(&self.reports.borrow(), &report);
        self.reports.send_replace(report);
    }

    /// What the stack says about itself, with the wall clock's time, the exports, and whether anybody wants the tunnel.
    fn report(&self) -> Report {
        let established_at = self.established.map(|(_, seconds)| seconds);
        self.standby.report(Report {
            exports: self.relays.report(),
            imports: self.relays.report_imports(),
            established_at,
            ..self.tunnel.report().clone()
        })
    }

    // The probe.

    fn probe(&mut self) {
        self.probers = self.probers.wrapping_add(1);
        self.prober = self
            .link
            .as_ref()
            .and_then(|link| Prober::start(&self.config.health_check, link.address, self.probers, self.sender.clone()));
    }

    fn handle_probe(&mut self, probe: Probe) {
        match probe {
            Probe::Done(result) => self.probed(result),
            Probe::Due => {
                if let Some(problem) = self.prober.as_ref().and_then(Prober::overdue) {
                    self.probed(Err(problem));
                }
                if let Some(echo) = self.prober.as_mut().and_then(|prober| prober.echo.as_mut()) {
                    self.batch.clear();
                    self.batch.push(&echo.request(Instant::now()));
                    self.tunnel.handle_packets(Instant::now(), &self.batch);
                }
            }
        }
    }

    fn probed(&mut self, result: Result<Duration, String>) {
        if let Ok(round_trip) = &result {
            self.instruments.probe_duration.observe(round_trip.as_secs_f64());
        }
        self.tunnel.handle_probe(result);
    }

    // Changes.

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
        if let Err(error) = self.rewire(&old).await {
            self.tunnel.handle_device_failure(Instant::now(), error);
        }
        self.tunnel.apply(Instant::now(), &self.config);
        self.listen_again = None;
        self.listen().await;
        if old.health_check != self.config.health_check && self.link.is_some() {
            self.probe();
        }
    }

    /// Takes back what was set up; the device and its routes go with the process.
    async fn end(mut self) {
        self.publish();
        self.down().await;
        let unrouted = if self.leave_routes {
            self.route(|routing| routing.peer = None).await
        } else {
            self.route(|routing| *routing = Routing::default()).await
        };
        warn(unrouted);
        if let Err(error) = std::fs::remove_file(&self.config.admin.socket) {
            tracing::debug!(%error, "control socket cannot be removed");
        }
        let Self { reports, report_to, reporter, .. } = self;
        drop(reports);
        last_report(reporter).await;
        drop(report_to);
    }
}

fn warn<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests;
