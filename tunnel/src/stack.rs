//! The composition: one tunnel with its recovery, as a pure state machine over packets, time and entropy.
//!
//! [`Tunnel`] dials one peer after another, gives each attempt to a [`connection`], and keeps the [`Report`]. The process
//! around it ([`crate::io`]) resolves names, opens sockets, and moves packets.
//!
//! Contract: after any call that takes `&mut self`, the caller drains [`Tunnel::poll_event`], then [`Tunnel::packets`] and
//! [`Tunnel::transmits`] until they are empty, and calls [`Tunnel::handle_timeout`] not later than [`Tunnel::poll_timeout`].

mod connection;
mod counters;
mod datapath;
mod dialling;
mod keys;
mod ladder;
mod life;
mod mss;
mod outage;
mod path;
mod probe;
mod recovery;
mod reporting;
mod rung;
pub mod server;
mod settings;
mod verdict;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

pub use counters::Counters;
pub use keys::KeyRow;
pub use path::{Credentials, Path, PathError};

use crate::buffer::{Carrier, DatagramBatch, PacketBatch};
use crate::config::{Config, ProbeKind};
use crate::ike;
use crate::l2tp::CloseReason;
use crate::report::{Encapsulation, Layer, Negotiated, Reason, RejectedRevision, Report, State as LayerState};
use connection::{Connection, Step};
use ladder::Ladder;
use outage::Outage;
use probe::Probe;
use recovery::Recovery;
use verdict::Failure;

/// What is said of Secrets that could be read.
const CREDENTIALS_READ: &str = "The Secrets hold all that is needed.";
/// Events that wait for the owner; more than one call can ever cause.
const MAX_EVENTS: usize = 64;
/// The longest time between [`Tunnel::close`] and [`Event::Closed`].
const CLOSE_LIMIT: Duration = Duration::from_millis(1_500);

/// The link that PPP has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Our address.
    pub address: Ipv4Addr,
    /// The peer's address, if it told one. Nothing is routed by it: some gateways tell their public one.
    pub peer: Option<Ipv4Addr>,
    /// Name servers that the peer pushed.
    pub dns: Vec<Ipv4Addr>,
    /// MTU of the device in octets.
    pub mtu: u16,
}

/// What the process must do or may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Find a way to `peer` and answer with [`Tunnel::handle_path`].
    Dial {
        /// Name or address.
        peer: String,
        /// Whether to the same address as before: only what it is asked for is another.
        again: bool,
        /// Whether ports 500 and 4500 must not be used as source ports.
        fresh_ports: bool,
    },
    /// The link is up: set up the device and the routes, start probing.
    Up(Link),
    /// The MTU of the link that is up is another, in octets.
    Mtu(u16),
    /// The link is down: nothing may be routed into it.
    Down,
    /// [`Tunnel::report`] is different.
    ReportChanged,
    /// A row for a protocol analyser; only with [`Tunnel::export_keys`].
    Keys(KeyRow),
    /// Every goodbye is said after [`Tunnel::close`].
    Closed,
}

/// Where the tunnel stands between attempts.
enum State {
    Idle,
    /// The process looks for a path.
    Dialling,
    Connected(Box<Connection>),
    /// The next attempt begins at the given time.
    Waiting(Instant),
    /// Goodbyes are being said, until the given time at the latest.
    Closing(Box<Connection>, Instant, Then),
    Closed,
}

/// What follows the goodbyes. No dial is begun before them: xl2tpd on a Linux kernel serves no call from an address while it
/// still has the one before.
#[derive(Clone, Copy)]
enum Then {
    Dial,
    /// Another dial at the given time.
    Wait(Instant),
    End,
}

/// One tunnel.
pub struct Tunnel {
    config: Config,
    rng: StdRng,
    state: State,
    recovery: Recovery,
    outage: Outage,
    ladder: Ladder,
    export_keys: bool,
    up: bool,
    probe: Probe,
    transmits: DatagramBatch<Carrier>,
    packets: PacketBatch,
    events: VecDeque<Event>,
    report: Report,
    report_changed: bool,
    counters: Counters,
}

impl Tunnel {
    /// A tunnel that stands still until [`Tunnel::start`]. All its randomness comes from `seed`.
    pub fn new(config: &Config, seed: Zeroizing<[u8; 32]>) -> Self {
        Self {
            config: config.clone(),
            rng: StdRng::from_seed(*seed),
            state: State::Idle,
            recovery: Recovery::default(),
            outage: Outage::default(),
            ladder: Ladder::default(),
            export_keys: false,
            up: false,
            probe: Probe::default(),
            transmits: DatagramBatch::new(),
            packets: PacketBatch::new(),
            events: VecDeque::new(),
            report: Report::new(config.revision.clone()),
            report_changed: true,
            counters: Counters::default(),
        }
    }

    /// Whether keys are told as [`Event::Keys`] from the next attempt on. Whoever reads them reads the traffic.
    pub fn export_keys(&mut self, export: bool) {
        self.export_keys = export;
    }

    /// Begins to dial.
    pub fn start(&mut self) {
        if let State::Idle = self.state {
            self.dial();
        }
    }

    /// Tears the tunnel down in order and never dials again; [`Event::Closed`] follows within two seconds.
    pub fn close(&mut self, now: Instant) {
        for layer in [Layer::Ike, Layer::Ipsec, Layer::L2tp, Layer::Ppp, Layer::Probe] {
            self.set(layer, LayerState::Down, Reason::Stopping, "The tunnel process ends.");
        }
        self.hang_up(now, CloseReason::ShuttingDown, Then::End);
    }

    /// The answer to [`Event::Dial`].
    pub fn handle_path(&mut self, now: Instant, path: Result<Path, PathError>) {
        let State::Dialling = self.state else { return };
        match path {
            Ok(path) => {
                let message =
                    [CREDENTIALS_READ].into_iter().chain(path.credentials.warnings.iter().map(String::as_str));
                let message = message.collect::<Vec<_>>().join(" ");
                self.set(Layer::Credentials, LayerState::Up, Reason::CredentialsRead, &message);
                self.progress(Layer::Peer, Reason::Negotiating, &format!("Asking {}.", path.remote));
                self.report.peer_endpoint = Some(path.remote);
                let peer = self.peer();
                let rung = self.ladder.rung_and_hope(&peer, &self.config);
                let call = u32::try_from(self.counters.dials).unwrap_or(u32::MAX);
                let mut connection =
                    Connection::new(&self.config, rung, path, self.export_keys, call, &mut self.rng, now);
                connection.start(now);
                self.state = State::Connected(Box::new(connection));
                self.advance(now);
            }
            Err(error) => {
                if !matches!(error, PathError::Credentials { .. }) {
                    self.set(Layer::Credentials, LayerState::Up, Reason::CredentialsRead, CREDENTIALS_READ);
                }
                let peer = self.peer();
                self.fail(now, verdict::of_path(&peer, error));
            }
        }
    }

    /// Takes IP packets from the TUN device; the process sends at most one batch before it drains [`Tunnel::transmits`].
    pub fn handle_packets(&mut self, now: Instant, packets: &PacketBatch) {
        if let State::Connected(connection) = &mut self.state {
            connection.handle_packets(now, packets, &mut self.transmits, &mut self.counters);
            self.advance(now);
        } else {
            packets.iter().for_each(|_| self.counters.drop_packet("not_up"));
        }
    }

    //= rfc3947 7 "The host behind dynamic NAT MUST NOT do this, as otherwise it opens a DoS attack possibility because the IP address or port of the other host will not change (it is not behind NAT)."
    //= test: a_client_does_not_follow_its_server_to_another_address, a_client_that_moves_is_followed_on_its_first_authentic_packet
    /// Takes a datagram that `carrier` brought from `remote`, whose port is of no account; ESP is opened in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        carrier: impl Into<Carrier>,
        remote: SocketAddr,
        datagram: &mut [u8],
    ) {
        match &mut self.state {
            State::Connected(connection) | State::Closing(connection, ..) if connection.remote() == remote.ip() => {
                connection.handle_datagram(now, carrier.into(), datagram, &mut self.packets, &mut self.counters);
                self.advance(now);
            }
            State::Connected(_)
            | State::Closing(..)
            | State::Idle
            | State::Dialling
            | State::Waiting(_)
            | State::Closed => {
                self.counters.drop_packet("unknown_peer");
            }
        }
    }

    /// The system says that a datagram could not be delivered, in its words.
    pub fn handle_unreachable(&mut self, now: Instant, error: &str) {
        if let State::Connected(connection) = &mut self.state {
            connection.handle_unreachable(error);
            self.advance(now);
        }
    }

    /// The result of a probe that the process made through the tunnel: its round trip, or why it failed.
    pub fn handle_probe(&mut self, result: Result<Duration, String>) {
        if self.up && self.config.health_check.kind != ProbeKind::Lcp {
            self.probed(result);
        }
    }

    /// The path takes IP packets of at most `mtu` octets, says the network.
    pub fn handle_path_mtu(&mut self, now: Instant, mtu: u16) {
        if let State::Connected(connection) = &mut self.state {
            connection.handle_path_mtu(now, mtu);
            self.advance(now);
        }
    }

    /// Gives a tunnel that is up what it proves itself with from its next Main Mode on.
    pub fn set_credentials(&mut self, credentials: Arc<ike::Credentials>) {
        if let State::Connected(connection) = &mut self.state
            && self.up
        {
            connection.set_credentials(credentials);
        }
    }

    /// A Secret has changed: a tunnel that is down is dialled at once.
    pub fn credentials_changed(&mut self, now: Instant) {
        self.recovery.start_over();
        self.ladder.start_over(&self.config);
        match &self.state {
            // What is on its way was read before.
            State::Waiting(_) | State::Dialling => self.dial(),
            // An attempt under way was begun with the old ones.
            State::Connected(_) if !self.up => self.redial(now),
            State::Closing(_, _, Then::Wait(_)) => self.hang_up(now, CloseReason::Administrative, Then::Dial),
            // The new ones are read when the tunnel is dialled again.
            State::Connected(_) | State::Idle | State::Closing(..) | State::Closed => {}
        }
    }

    /// Takes on a new configuration: live where the protocols allow, else by dialling again.
    pub fn apply(&mut self, now: Instant, config: &Config) {
        let live = self.config.is_live_change(config, self.recovery.peer());
        let probe_changed = self.config.health_check != config.health_check;
        self.config = config.clone();
        self.report.revision.clone_from(&config.revision);
        self.report.rejected_revision = None;
        self.report_changed = true;
        if live {
            if self.up && probe_changed {
                let message = "The first probe of the changed health check is on its way.";
                self.set(Layer::Probe, LayerState::Pending, Reason::Negotiating, message);
                self.probe = Probe::new(&self.config.health_check, now);
            }
            return;
        }
        self.recovery.start_over();
        self.ladder.forget();
        match &self.state {
            State::Connected(_) => self.redial(now),
            State::Waiting(_) | State::Dialling => self.dial(),
            State::Closing(_, _, Then::Wait(_)) => self.hang_up(now, CloseReason::Administrative, Then::Dial),
            State::Idle | State::Closing(..) | State::Closed => {}
        }
    }

    /// A newer configuration cannot be used; the tunnel goes on with the one it has.
    pub fn reject(&mut self, rejected: RejectedRevision) {
        if self.report.rejected_revision.as_ref() != Some(&rejected) {
            self.report.rejected_revision = Some(rejected);
            self.report_changed = true;
        }
    }

    /// The device, an address or a route could not be set up, in the system's words with the remedy.
    pub fn handle_device_failure(&mut self, now: Instant, message: String) {
        if let State::Idle | State::Closing(..) | State::Closed = self.state {
            return;
        }
        self.fail(now, Failure::new(Layer::Ppp, Reason::DeviceFailed, message));
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Connected(connection) => connection.handle_timeout(now),
            State::Closing(connection, limit, _) if *limit > now => connection.handle_timeout(now),
            State::Closing(_, _, then) => {
                let then = *then;
                self.go_on(then);
            }
            State::Waiting(at) if *at <= now => self.dial(),
            State::Waiting(_) | State::Idle | State::Dialling | State::Closed => {}
        }
        self.probe_timeout(now);
        self.advance(now);
    }

    /// When [`Tunnel::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Connected(connection) => {
                connection.poll_timeout().into_iter().chain(self.probe.poll_timeout()).min()
            }
            State::Closing(connection, limit, _) => connection.poll_timeout().into_iter().chain([*limit]).min(),
            State::Waiting(at) => Some(*at),
            State::Idle | State::Dialling | State::Closed => None,
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        std::mem::take(&mut self.report_changed).then_some(Event::ReportChanged)
    }

    /// Datagrams to send. Send them, clear the batch, and call again until it is empty.
    pub fn transmits(&mut self) -> &mut DatagramBatch<Carrier> {
        if let State::Connected(connection) | State::Closing(connection, ..) = &mut self.state {
            connection.fill(&mut self.transmits, &mut self.counters);
        }
        &mut self.transmits
    }

    /// IP packets for the TUN device. Write them, and clear the batch.
    pub fn packets(&mut self) -> &mut PacketBatch {
        &mut self.packets
    }

    /// The state of each layer.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes over what the connection says.
    fn advance(&mut self, now: Instant) {
        loop {
            let (State::Connected(connection) | State::Closing(connection, ..)) = &mut self.state else { return };
            let Some(step) = connection.poll_step() else { return };
            self.take(now, step);
        }
    }

    fn take(&mut self, now: Instant, step: Step) {
        match step {
            Step::PeerAnswered => {
                let peer = self.peer();
                self.layer_up(Layer::Peer, Reason::PeerAnswers, format!("{peer} answers."));
                self.progress(Layer::Ike, Reason::Negotiating, "Main Mode is under way.");
            }
            Step::Ike { proposal, nat, peer_id, rekey } => {
                if rekey {
                    self.counters.phase1_rekeys = self.counters.phase1_rekeys.saturating_add(1);
                }
                let blank = Negotiated {
                    ike: proposal,
                    rung: None,
                    esp: None,
                    encapsulation: None,
                    ppp_auth: None,
                    nat,
                    mtu: None,
                    weakness: None,
                };
                let old = self.report.negotiated.take().filter(|_| rekey).unwrap_or(blank);
                self.report.negotiated = Some(Negotiated { ike: proposal, nat, ..old });
                self.judge_negotiated();
                self.layer_up(Layer::Ike, Reason::MainModeDone, format!("{proposal} with {peer_id}."));
                // A renewal changes nothing for the layers above.
                if !rekey {
                    self.progress(Layer::Ipsec, Reason::Negotiating, "Quick Mode is under way.");
                }
            }
            Step::Ipsec { proposal, encapsulation, rekey } => {
                if rekey {
                    self.counters.phase2_rekeys = self.counters.phase2_rekeys.saturating_add(1);
                } else {
                    self.agreed(proposal.group);
                }
                self.negotiated(|negotiated| {
                    (negotiated.esp, negotiated.encapsulation) = (Some(proposal), Some(encapsulation));
                });
                let way = match encapsulation {
                    Encapsulation::Udp => "in UDP",
                    Encapsulation::None => "as IP protocol 50",
                };
                self.layer_up(Layer::Ipsec, Reason::QuickModeDone, format!("ESP with {proposal} {way}."));
                if !rekey {
                    self.progress(Layer::L2tp, Reason::Negotiating, "L2TP is under way.");
                }
            }
            Step::L2tp { peer } => {
                self.layer_up(Layer::L2tp, Reason::SessionUp, format!("The call to {peer} is up."));
                self.progress(Layer::Ppp, Reason::Negotiating, "PPP is under way.");
            }
            Step::Authenticated(method) => self.negotiated(|negotiated| negotiated.ppp_auth = Some(method)),
            Step::Ppp(link) => self.link_up(now, link),
            Step::Mtu(mtu) => {
                self.show_link(mtu);
                self.event(Event::Mtu(mtu));
            }
            Step::PppDown => {
                self.link_down();
                self.negotiated(|negotiated| (negotiated.ppp_auth, negotiated.mtu) = (None, None));
                self.set(Layer::Ppp, LayerState::Pending, Reason::Negotiating, "The gateway negotiates PPP anew.");
                let waits = "Waits for the layer below.";
                self.set(Layer::Probe, LayerState::Pending, Reason::WaitingForLowerLayer, waits);
            }
            Step::Echo(round_trip) => {
                if self.up && self.config.health_check.kind == ProbeKind::Lcp && self.probe.answered() {
                    self.probed(Ok(round_trip));
                }
            }
            Step::Keys(row) => self.event(Event::Keys(row)),
            Step::Failed(failure) => self.fail(now, failure),
            Step::Closed => {
                if let State::Closing(connection, _, then) = &mut self.state {
                    let then = *then;
                    // What it still has to say leaves with this call.
                    connection.fill(&mut self.transmits, &mut self.counters);
                    self.go_on(then);
                }
            }
        }
    }

    fn link_up(&mut self, now: Instant, link: Link) {
        self.report.assigned_address = Some(link.address.into());
        self.report.peer_address = link.peer.map(IpAddr::from);
        self.report.dns_servers = link.dns.iter().copied().map(IpAddr::from).collect();
        self.show_link(link.mtu);
        self.progress(Layer::Probe, Reason::Negotiating, "The first probe is on its way.");
        self.counters.established.get_or_insert(now);
        self.up = true;
        self.event(Event::Up(link));
        self.probe = Probe::new(&self.config.health_check, now);
    }

    fn link_down(&mut self) {
        if std::mem::take(&mut self.up) {
            self.event(Event::Down);
        }
        self.counters.established = None;
        self.probe = Probe::default();
        self.report.assigned_address = None;
        self.report.peer_address = None;
        self.report.dns_servers.clear();
        self.report_changed = true;
    }

    /// Sends the LCP probe that is due, or gives up the one before.
    fn probe_timeout(&mut self, now: Instant) {
        if !self.up || !self.probe.is_due(now) {
            return;
        }
        if self.probe.ask(now, &self.config.health_check) {
            self.probed(Err("no LCP Echo-Reply".to_owned()));
        }
        if let State::Connected(connection) = &mut self.state {
            connection.echo(now);
        }
    }

    fn probed(&mut self, result: Result<Duration, String>) {
        if result.is_ok() {
            self.report.failed_attempts = 0;
        }
        if let Some((state, reason, message)) = self.probe.judge(&self.config.health_check, result) {
            self.set(Layer::Probe, state, reason, message);
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}
