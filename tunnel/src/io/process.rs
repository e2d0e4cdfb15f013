//! `towline-tunnel run`: one event loop that moves packets between the TUN device, the stack and the UDP sockets, and does what
//! the stack's events ask for.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::pending;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::IpNet;
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use super::admin::{self, Ask, Asker};
use super::dial::{self, Dialled, Request};
use super::netlink::{Netlink, Pin};
use super::probe::{Probe, Prober};
use super::relay::Relays;
use super::standby::{Existence, Standby, Step};
use super::telemetry::Verbosity;
use super::tun::Device;
use super::udp::{ReceiveBuffer, Sockets};
use super::watch::{Change, Watcher};
use super::{Snapshot, metrics, report, telemetry};
use crate::buffer::{BATCH_PACKETS, PacketBatch, Port};
use crate::config::{Config, ReportTo};
use crate::report::Report;
use crate::stack::{Event, Link, PathError, Tunnel};

/// Messages to the loop that wait: more than all of its tasks can have under way.
const MAX_MESSAGES: usize = 256;
/// How long the goodbyes may take after SIGTERM.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_800);
/// How long the last report may take after that.
const LAST_REPORT_LIMIT: Duration = Duration::from_millis(500);

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
    /// Keeps the unreachable routes at the end, for the process that comes after this one in the same network namespace.
    pub leave_routes: bool,
}

/// What the loop is told by its tasks.
enum Message {
    Ask(Ask),
    Change(Change),
    Probe(u64, Probe),
    Dialled(u64, Box<Result<Dialled, PathError>>),
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

impl From<Change> for Message {
    fn from(change: Change) -> Self {
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
/// What cannot be set up at the start. What fails later stands in the report, and is tried again.
pub async fn run(options: Options, verbosity: Verbosity) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, mut messages) = mpsc::channel(MAX_MESSAGES);
    let mut process = Process::start(options, verbosity, sender).await?;
    while !process.closed {
        tokio::select! {
            _ = terminate.recv() => process.close(),
            _ = interrupt.recv() => process.close(),
            Some(message) = messages.recv() => process.handle(message).await,
            () = process.device.readable() => process.read_device(),
            port = readable(process.sockets.as_ref()) => process.read_socket(port),
            () = process.due() => process.handle_timeout(),
        }
        process.settle().await;
    }
    process.end().await;
    Ok(())
}

/// Waits for a datagram.
async fn readable(sockets: Option<&Sockets>) -> Port {
    let Some(sockets) = sockets else { return pending().await };
    tokio::select! {
        () = sockets.get(Port::NatT).readable() => Port::NatT,
        () = sockets.get(Port::Ike).readable() => Port::Ike,
    }
}

/// A tunnel that dials.
fn new_tunnel(config: &Config, export_keys: bool) -> anyhow::Result<Tunnel> {
    let mut seed = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(&mut *seed).context("the system gives no random numbers")?;
    let mut tunnel = Tunnel::new(config, seed);
    tunnel.export_keys(export_keys);
    tunnel.start();
    Ok(tunnel)
}

struct Process {
    config: Config,
    tunnel: Tunnel,
    netlink: Netlink,
    device: Device,
    sockets: Option<Sockets>,
    /// Counts the dials, so that the answer to an earlier one is known for what it is.
    dials: u64,
    pin: Option<Pin>,
    link: Option<Link>,
    /// Since when the link is up, by both clocks; the second in seconds since the Unix epoch.
    established: Option<(Instant, u64)>,
    prober: Option<Prober>,
    /// Counts the probers.
    probers: u64,
    relays: Relays,
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
    async fn start(options: Options, verbosity: Verbosity, sender: mpsc::Sender<Message>) -> anyhow::Result<Self> {
        let Options { path, text, config, keys, leave_routes } = options;
        let netlink = Netlink::open().context("cannot talk to the kernel over netlink")?;
        // First of all: until the tunnel is up nothing for the remote networks may go another way.
        netlink.block(&config.network.remote_cidrs).await?;
        let device = Device::open(&config.network.device).map_err(anyhow::Error::msg)?;

        let listen = config.admin.listen;
        let http =
            TcpListener::bind(listen).await.with_context(|| format!("admin.listen: cannot listen at {listen}"))?;
        let socket = &config.admin.socket;
        let control = admin::open_control(socket);
        let control = control.with_context(|| format!("admin.socket: cannot listen at {}", socket.display()))?;
        let asker = Asker::new(sender.clone());
        tokio::spawn(admin::serve_http(http, asker.clone()));
        tokio::spawn(admin::serve_control(control, asker));
        tokio::spawn(Watcher::new(path, text, &config).run(sender.clone()));

        let tunnel = new_tunnel(&config, keys.is_some())?;

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
            device,
            sockets: None,
            dials: 0,
            pin: None,
            link: None,
            established: None,
            prober: None,
            probers: 0,
            relays,
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

    /// Opens the ports of the exports.
    async fn listen(&mut self) {
        for problem in self.relays.apply(&self.config.exports).await {
            tracing::warn!("{problem}");
        }
    }

    /// Waits until the stack, or the limit of the goodbyes, is due.
    async fn due(&self) {
        match [self.tunnel.poll_timeout(), self.closing].into_iter().flatten().min() {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => pending().await,
        }
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        self.tunnel.handle_timeout(now);
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
            // Whoever asked may have gone.
            Message::Ask(answer) => drop(answer.send(self.snapshot())),
            Message::Change(Change::Credentials) => {
                tracing::info!("a secret changed");
                self.tunnel.credentials_changed(Instant::now());
            }
            Message::Change(Change::Rejected(rejected)) => self.tunnel.reject(rejected),
            Message::Change(Change::Config(config)) => self.apply(*config).await,
            Message::Probe(generation, probe) if generation == self.probers => self.handle_probe(probe),
            Message::Dialled(generation, dialled) if generation == self.dials => self.handle_dialled(*dialled).await,
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
            report: self.reports.borrow().clone(),
            counters: self.tunnel.counters().clone(),
            drops: self.drops.clone(),
            instruments: self.instruments.clone(),
            exports: self.relays.listening().map(|(name, listens)| (name.to_owned(), listens)).collect(),
            started: self.started,
            now: Instant::now(),
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

    fn read_socket(&mut self, port: Port) {
        for _ in 0..BATCH_PACKETS {
            let Some(socket) = self.sockets.as_ref().map(|sockets| sockets.get(port)) else { return };
            let remote = socket.remote();
            match socket.receive(&mut self.buffer) {
                Ok(received) => {
                    let now = Instant::now();
                    for datagram in received.octets.chunks_mut(received.segment) {
                        self.tunnel.handle_datagram(now, port, remote, datagram);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => self.tunnel.handle_unreachable(Instant::now(), &error.to_string()),
            }
            self.flush();
        }
    }

    /// Sends what the stack has ready, to both sides.
    fn flush(&mut self) {
        while !self.tunnel.transmits().is_empty() {
            let mut failure = None;
            if let Some(sockets) = &self.sockets {
                for run in self.tunnel.transmits().runs() {
                    let sent = sockets.get(run.port).send_run(&run);
                    if sent.dropped > 0 {
                        count(&mut self.drops, "socket", sent.dropped);
                    }
                    // A full socket is no news about the path.
                    failure = sent.error.filter(|error| error.kind() != std::io::ErrorKind::WouldBlock).or(failure);
                }
            }
            self.tunnel.transmits().clear();
            if let Some(error) = failure {
                self.tunnel.handle_unreachable(Instant::now(), &error.to_string());
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
                None if self.tunnel.transmits().is_empty() => return,
                None => {}
            }
        }
    }

    async fn handle_event(&mut self, event: Event) {
        match event {
            Event::Dial { peer, fresh_ports } => self.dial(peer, fresh_ports),
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

    /// Tells people and the operator what is known.
    fn publish(&mut self) {
        // The stack has no wall clock. Read once for each link: it may be set meanwhile.
        let established = self.tunnel.counters().established;
        if self.established.map(|(at, _)| at) != established {
            self.established = established.map(|at| (at, metrics::unix_seconds(Instant::now(), at)));
        }
        let established_at = self.established.map(|(_, seconds)| seconds);
        let report = self.standby.report(Report { established_at, ..self.tunnel.report().clone() });
        telemetry::log_changes(&self.reports.borrow(), &report);
        self.reports.send_replace(report);
    }

    // The path.

    fn dial(&mut self, peer: String, fresh_ports: bool) {
        // The old sockets must go first: the new ones want the same ports.
        self.sockets = None;
        self.dials = self.dials.wrapping_add(1);
        let request = Request {
            peer,
            fresh_ports,
            credentials: self.config.credentials.clone(),
            remote_cidrs: self.config.network.remote_cidrs.clone(),
            device: self.device.name().to_owned(),
        };
        let (generation, sender, netlink) = (self.dials, self.sender.clone(), self.netlink.clone());
        tokio::spawn(async move {
            let dialled = Box::new(dial::dial(request, netlink).await);
            // The loop may have ended meanwhile.
            drop(sender.send(Message::Dialled(generation, dialled)).await);
        });
    }

    async fn handle_dialled(&mut self, dialled: Result<Dialled, PathError>) {
        let path = match dialled {
            Ok(Dialled { path, sockets, pin }) => {
                self.sockets = Some(sockets);
                if let Some(old) = std::mem::replace(&mut self.pin, pin)
                    && self.pin.as_ref() != Some(&old)
                {
                    warn(self.netlink.unpin(old).await);
                }
                Ok(path)
            }
            Err(error) => Err(error),
        };
        self.tunnel.handle_path(Instant::now(), path);
    }

    // The link.

    async fn up(&mut self, link: Link) {
        let device = self.device.name();
        let networks = &self.config.network.remote_cidrs;
        let set = async {
            self.netlink.set_link(device, link.address, link.mtu).await?;
            self.netlink.route(device, link.address, networks).await
        };
        if let Err(error) = set.await {
            return self.tunnel.handle_device_failure(Instant::now(), error.to_string());
        }
        self.started = true;
        self.link_state.send_replace(Some(link.address));
        self.link = Some(link);
        self.probe();
    }

    /// Gives the device of a link that is up another MTU.
    async fn resize(&mut self, mtu: u16) {
        let Some(link) = &mut self.link else { return };
        link.mtu = mtu;
        if let Err(error) = self.netlink.set_link(self.device.name(), link.address, mtu).await {
            self.tunnel.handle_device_failure(Instant::now(), error.to_string());
        }
    }

    async fn down(&mut self) {
        self.prober = None;
        if self.link.take().is_some() {
            self.link_state.send_replace(None);
            warn(self.netlink.unroute(self.device.name(), &self.config.network.remote_cidrs).await);
        }
    }

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
        self.verbosity.set(self.config.log.level);
        if old.admin != self.config.admin || old.log.format != self.config.log.format {
            tracing::warn!("admin and log.format are read at the start of the process only; restart it");
        }
        self.report_to.send_if_modified(|to| {
            let differs = *to != self.config.report;
            to.clone_from(&self.config.report);
            differs
        });
        if let Err(error) = self.reroute(&old).await {
            self.tunnel.handle_device_failure(Instant::now(), error);
        }
        self.tunnel.apply(Instant::now(), &self.config);
        self.listen().await;
        if old.health_check != self.config.health_check && self.link.is_some() {
            self.probe();
        }
    }

    /// Carries the device and the routes from `old` to the configuration as it is now.
    async fn reroute(&mut self, old: &Config) -> Result<(), String> {
        // 10.20.4.11/24 and 10.20.4.0/24 are one route.
        let networks =
            |config: &Config| -> Vec<IpNet> { config.network.remote_cidrs.iter().map(IpNet::trunc).collect() };
        let without = |these: &[IpNet], those: &[IpNet]| -> Vec<IpNet> {
            these.iter().copied().filter(|network| !those.contains(network)).collect()
        };
        let text = |error: super::netlink::Error| error.to_string();
        let (before, after) = (networks(old), networks(&self.config));
        let (gone, come) = (without(&before, &after), without(&after, &before));
        self.netlink.block(&come).await.map_err(text)?;
        if old.network.device != self.config.network.device {
            // The link on the old one ends: such a change dials anew.
            self.device = Device::open(&self.config.network.device)?;
        } else if let Some(link) = &self.link {
            self.netlink.route(self.device.name(), link.address, &come).await.map_err(text)?;
            self.netlink.unroute(self.device.name(), &gone).await.map_err(text)?;
        }
        self.netlink.unblock(&gone).await.map_err(text)
    }

    /// Takes back what was set up; the device and its routes go with the process.
    async fn end(mut self) {
        self.publish();
        self.down().await;
        if let Some(pin) = self.pin.take() {
            warn(self.netlink.unpin(pin).await);
        }
        if !self.leave_routes {
            warn(self.netlink.unblock(&self.config.network.remote_cidrs).await);
        }
        if let Err(error) = std::fs::remove_file(&self.config.admin.socket) {
            tracing::debug!(%error, "control socket cannot be removed");
        }
        let Self { reports, report_to, reporter, .. } = self;
        drop(reports);
        // The operator may be gone as well; what it does not hear now the silence tells it.
        if tokio::time::timeout(LAST_REPORT_LIMIT, reporter).await.is_err() {
            tracing::debug!("the last report could not be posted in time");
        }
        drop(report_to);
    }
}

fn count(drops: &mut BTreeMap<&'static str, u64>, reason: &'static str, packets: u64) {
    let dropped = drops.entry(reason).or_default();
    *dropped = dropped.saturating_add(packets);
}

fn warn<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}
