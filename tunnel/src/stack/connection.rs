//! One attempt at a tunnel and, when it succeeds, the tunnel itself: IKE, ESP, L2TP and PPP to one address of one peer.
//!
//! The layers come up from below: Quick Mode done starts L2TP, the L2TP session starts PPP, IPCP gives the link its address.
//! Every authenticated packet counts as life for all of them; [`Connection::handle_timeout`] gives the one verdict of death.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::datapath::{Datapath, Refused};
use super::verdict::{self, Failure};
use super::{Counters, Link, Path, keys, mss};
use crate::buffer::{DatagramBatch, PacketBatch, Port};
use crate::config::{Config, IdentityKind};
use crate::ppp::Ppp;
use crate::report::{Layer, Nat, Reason};
use crate::suite::{EspProposal, IkeProposal};
use crate::{esp, ike, l2tp, ppp};

/// ISAKMP messages on port 4500 begin with it (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// A NAT keepalive (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];
/// NAT keepalives keep mappings of 30 seconds and more open (RFC 3948 section 4).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the CDN and StopCCN of a close wait for their acknowledgement before the SAs go.
const CLOSE_WAIT: Duration = Duration::from_millis(600);
/// Steps that wait for the owner; more than one call can ever cause.
const MAX_STEPS: usize = 64;
/// The UDP ports of IKE and of NAT traversal.
const IKE_PORT: u16 = 500;
const NAT_T_PORT: u16 = 4500;

/// What happened, in the order in which it happened.
pub(super) enum Step {
    /// The peer answered for the first time.
    PeerAnswered,
    /// Phase 1 is up.
    Ike { proposal: IkeProposal, nat: Nat, peer_id: String, rekey: bool },
    /// Phase 2 is up.
    Ipsec { proposal: EspProposal, rekey: bool },
    /// The L2TP session is up.
    L2tp { peer: String },
    /// The peer accepted our credentials.
    Authenticated(crate::config::PppAuth),
    /// The link has its address.
    Ppp(Link),
    /// An LCP Echo-Reply.
    Echo(Duration),
    /// A row of a key table.
    Keys(String),
    /// The connection is over.
    Failed(Failure),
    /// Every goodbye is said.
    Closed,
}

/// A connection to one peer.
pub(super) struct Connection {
    path: Path,
    ike: ike::Ike,
    datapath: Datapath,
    lac: l2tp::Lac,
    ppp: Ppp,
    state: State,
    steps: VecDeque<Step>,
    answered: bool,
    link: Option<Link>,
    esp_proposal: Option<EspProposal>,
    /// What the LNS calls itself.
    lns: String,
    life: Life,
    mtu_limit: Option<u16>,
    export_keys: bool,
    /// One frame or message on its way into ESP.
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// IKE is being negotiated.
    Securing,
    /// L2TP is being negotiated.
    Calling,
    /// PPP is being negotiated.
    Linking,
    /// The link is up.
    Up,
    /// L2TP says goodbye until the given time at the latest.
    Closing(Instant),
    /// Nothing is left but to send what is queued.
    Closed,
}

/// One verdict over DPD, L2TP Hello, LCP echo and everything else that is authenticated.
struct Life {
    /// The last authenticated packet of any layer.
    last: Instant,
    /// When the peer was asked last since.
    asked: Option<Instant>,
    interval: Duration,
    timeout: Duration,
}

impl Connection {
    pub(super) fn new(
        config: &Config,
        path: Path,
        pfs: bool,
        export_keys: bool,
        seed: &mut StdRng,
        now: Instant,
    ) -> Self {
        let mut rng = || {
            let mut bytes = [0; 32];
            seed.fill_bytes(&mut bytes);
            StdRng::from_seed(bytes)
        };
        let dpd = config.ike.dpd;
        let (interval, timeout) =
            (Duration::from_secs(dpd.interval_seconds.into()), Duration::from_secs(dpd.timeout_seconds.into()));
        let limits = esp::Lifetime { packets: config.esp.lifetime_packets, octets: config.esp.lifetime_bytes };
        let ike = ike::Ike::new(ike_config(config, &path, pfs, export_keys), rng());
        let lac = l2tp::Lac::new(
            l2tp::Config {
                secret: path.credentials.tunnel_secret.clone(),
                hello: Duration::from_secs(config.l2tp.hello_seconds.into()),
                ..l2tp::Config::new(config.l2tp.host_name.clone())
            },
            rng(),
        );
        let ppp = Ppp::new(ppp_config(config, &path), rng());
        Self {
            ike,
            datapath: Datapath::new(limits, rng()),
            lac,
            ppp,
            state: State::Securing,
            steps: VecDeque::new(),
            answered: false,
            link: None,
            esp_proposal: None,
            lns: String::new(),
            life: Life { last: now, asked: None, interval, timeout },
            mtu_limit: config.network.mtu,
            export_keys,
            scratch: Vec::new(),
            path,
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.ike.connect(now);
        self.pump(now);
    }

    /// Says goodbye: the call, the control connection, the SAs.
    pub(super) fn close(&mut self, now: Instant) {
        match self.state {
            State::Calling | State::Linking | State::Up => {
                self.lac.close(now, l2tp::CloseReason::Administrative);
                self.state = State::Closing(now + CLOSE_WAIT);
            }
            State::Securing => self.close_ike(now),
            State::Closing(_) | State::Closed => {}
        }
        self.pump(now);
    }

    fn close_ike(&mut self, now: Instant) {
        self.ike.close(now);
        self.state = State::Closed;
        self.step(Step::Closed);
    }

    /// Ends at once: everything that can be said without waiting is put into `transmits`.
    pub(super) fn abandon(mut self, now: Instant, transmits: &mut DatagramBatch, counters: &mut Counters) {
        self.close(now);
        self.fill(transmits, counters);
        if self.state != State::Closed {
            self.close_ike(now);
            self.fill(transmits, counters);
        }
    }

    pub(super) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let closing = if let State::Closing(at) = self.state { Some(at) } else { None };
        let life = (self.state == State::Up).then(|| self.life.next());
        [
            self.ike.poll_timeout(),
            self.lac.poll_timeout(),
            self.ppp.poll_timeout(),
            self.datapath.poll_timeout(),
            closing,
            life,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.lac.handle_timeout(now);
        self.ppp.handle_timeout(now);
        self.datapath.handle_timeout(now);
        if let State::Closing(at) = self.state
            && at <= now
        {
            self.close_ike(now);
        }
        if self.state == State::Up {
            if self.life.is_over(now) {
                self.fail(verdict::dead_peer(now.saturating_duration_since(self.life.last)));
            } else if self.life.must_ask(now) {
                self.life.asked = Some(now);
                self.ppp.echo(now);
            }
        }
        self.pump(now);
    }

    /// Takes a datagram of the peer; IP packets in it go to `packets`.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        port: Port,
        datagram: &mut [u8],
        packets: &mut PacketBatch,
        counters: &mut Counters,
    ) {
        match (port, esp::classify(datagram)) {
            (Port::Ike, _) => self.handle_isakmp(now, port, datagram),
            (Port::NatT, esp::Datagram::Isakmp(message)) => self.handle_isakmp(now, port, message),
            (Port::NatT, esp::Datagram::Esp { spi }) => self.handle_esp(now, spi, datagram, packets, counters),
            (Port::NatT, esp::Datagram::Keepalive | esp::Datagram::Short) => {}
        }
        self.pump(now);
    }

    fn handle_isakmp(&mut self, now: Instant, port: Port, message: &[u8]) {
        // Anybody could have sent it; that something answers is all that is said.
        self.peer_answered();
        self.ike.handle_message(now, port, message);
    }

    fn handle_esp(
        &mut self,
        now: Instant,
        spi: u32,
        packet: &mut [u8],
        packets: &mut PacketBatch,
        counters: &mut Counters,
    ) {
        let message = match self.datapath.open(spi, packet) {
            Ok(message) => message,
            Err(refused @ (Refused::UnknownSpi | Refused::Esp(_) | Refused::NotL2tp)) => {
                return counters.drop_packet(refused.label());
            }
        };
        counters.last_receive = Some(now);
        self.life.handle_activity(now);
        self.ike.handle_esp_activity(now, spi);
        self.lac.handle_activity(now);
        let Some(frame) = self.lac.handle_message(now, message) else { return };
        self.ppp.handle_activity(now);
        let Some(packet) = self.ppp.handle_frame(now, frame) else { return };
        let Some(link) = self.link.as_ref().filter(|_| self.state == State::Up) else {
            return counters.drop_packet("not_up");
        };
        if mss::exceeds(packet, link.mtu) {
            self.scratch.clear();
            self.scratch.extend_from_slice(packet);
            mss::clamp(&mut self.scratch, link.mtu);
            push(packets, &self.scratch, counters);
        } else {
            push(packets, packet, counters);
        }
    }

    /// Sends IP packets of the TUN device.
    pub(super) fn handle_packets(
        &mut self,
        now: Instant,
        packets: &PacketBatch,
        transmits: &mut DatagramBatch,
        counters: &mut Counters,
    ) {
        let Some(mtu) = self.link.as_ref().filter(|_| self.state == State::Up).map(|link| link.mtu) else {
            packets.iter().for_each(|_| counters.drop_packet("not_up"));
            return;
        };
        for packet in packets.iter() {
            if packet.first().is_none_or(|first| first >> 4 != 4) {
                counters.drop_packet("not_ipv4");
            } else if packet.len() > usize::from(mtu) {
                counters.drop_packet("mtu");
            } else if self.send_packet(packet, mtu, transmits, counters) {
                counters.tx_packets = counters.tx_packets.saturating_add(1);
                counters.tx_octets = counters.tx_octets.saturating_add(packet.len() as u64);
            }
        }
        if self.datapath.take_rekey_request() {
            self.ike.rekey_ipsec(now);
        }
        self.pump(now);
    }

    fn send_packet(&mut self, packet: &[u8], mtu: u16, transmits: &mut DatagramBatch, counters: &mut Counters) -> bool {
        self.scratch.clear();
        let mut header = std::mem::take(&mut self.scratch);
        // RFC 1661 and 2661: a PPP frame whose protocol field says IPv4, behind the header of the L2TP session.
        let ready = self.lac.write_data_header(&mut header, ppp::IP_HEADER + packet.len()).is_ok()
            && self.ppp.write_ip_header(&mut header).is_ok();
        let sent = ready
            && if mss::exceeds(packet, mtu) {
                let mut clamped = packet.to_vec();
                mss::clamp(&mut clamped, mtu);
                self.send_esp([&header, &clamped], transmits, counters)
            } else {
                self.send_esp([&header, packet], transmits, counters)
            };
        if !ready {
            counters.drop_packet("not_up");
        }
        self.scratch = header;
        sent
    }

    fn send_esp(&mut self, parts: [&[u8]; 2], transmits: &mut DatagramBatch, counters: &mut Counters) -> bool {
        let path = (self.path.local, self.path.remote);
        let remote = SocketAddr::new(self.path.remote, NAT_T_PORT);
        match transmits.push_with(Port::NatT, remote, |out| self.datapath.seal(path, parts, out)) {
            Ok(true) => true,
            Ok(false) => {
                counters.drop_packet("queue");
                false
            }
            Err(error) => {
                counters.drop_packet(error_label(error));
                false
            }
        }
    }

    /// Puts what the protocols want to say into `transmits`, as long as there is room.
    pub(super) fn fill(&mut self, transmits: &mut DatagramBatch, counters: &mut Counters) {
        while !transmits.is_full() {
            // First of all: the peer takes ESP once it has the third message of Quick Mode.
            if let Some(transmit) = self.ike.poll_transmit() {
                let remote = |port| SocketAddr::new(self.path.remote, port);
                // The batch has room: the loop's condition.
                let _room = match transmit {
                    ike::Transmit::Message { port: Port::Ike, message } => {
                        transmits.push(Port::Ike, remote(IKE_PORT), &message)
                    }
                    ike::Transmit::Message { port: Port::NatT, message } => {
                        let marked = [&NON_ESP_MARKER[..], &message].concat();
                        transmits.push(Port::NatT, remote(NAT_T_PORT), &marked)
                    }
                    ike::Transmit::Keepalive => transmits.push(Port::NatT, remote(NAT_T_PORT), &KEEPALIVE),
                };
            } else if let Some(message) = self.lac.poll_transmit() {
                self.send_control(&message, transmits, counters);
            } else if let Some(frame) = self.ppp.poll_transmit() {
                self.send_frame(&frame, transmits, counters);
            } else {
                break;
            }
        }
    }

    fn send_control(&mut self, message: &[u8], transmits: &mut DatagramBatch, counters: &mut Counters) {
        if self.datapath.can_send() {
            self.send_esp([message, &[]], transmits, counters);
        }
    }

    fn send_frame(&mut self, frame: &[u8], transmits: &mut DatagramBatch, counters: &mut Counters) {
        let mut header = std::mem::take(&mut self.scratch);
        header.clear();
        if self.datapath.can_send() && self.lac.write_data_header(&mut header, frame.len()).is_ok() {
            self.send_esp([&header, frame], transmits, counters);
        }
        self.scratch = header;
    }

    /// Carries events from layer to layer until none is left.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.ike.poll_event() {
                self.handle_ike_event(now, event);
            } else if let Some(event) = self.lac.poll_event() {
                self.handle_l2tp_event(now, event);
            } else if let Some(event) = self.ppp.poll_event() {
                self.handle_ppp_event(now, event);
            } else {
                return;
            }
        }
    }

    fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::IsakmpEstablished { proposal, nat, peer_id, lifetime: _, rekey } => {
                let nat = match (nat.local, nat.remote) {
                    (false, false) => Nat::None,
                    (true, false) => Nat::Local,
                    (false, true) => Nat::Remote,
                    (true, true) => Nat::Both,
                };
                self.step(Step::Ike { proposal, nat, peer_id: peer_id.to_string(), rekey });
            }
            ike::Event::InstallInbound(sa) => {
                self.export_esp(&sa);
                if self.datapath.install_inbound(&sa).is_err() {
                    self.fail(verdict::unusable_keys());
                }
            }
            ike::Event::InstallOutbound(sa) => self.handle_outbound(now, &sa),
            ike::Event::RemoveSa { inbound_spi, outbound_spi } => {
                self.datapath.remove(inbound_spi, outbound_spi);
                if self.datapath.inbound_count() == 0 && !self.is_ending() {
                    self.fail(verdict::sas_deleted());
                }
            }
            ike::Event::Failed(error) => self.fail(verdict::of_ike(&error)),
            ike::Event::RekeyFailed(error) => {
                tracing::warn!(%error, "a renewal failed; it is tried again while the old keys last")
            }
            ike::Event::DeadPeer => self.fail(verdict::dead_peer(now.saturating_duration_since(self.life.last))),
            ike::Event::PeerDeletedIsakmp => self.fail(verdict::sas_deleted()),
            ike::Event::Keys(keys) => self.step(Step::Keys(keys::of_isakmp(&keys))),
            ike::Event::Notice(notice) => tracing::debug!(notice, "ike"),
        }
    }

    fn export_esp(&mut self, sa: &ike::Sa) {
        if self.export_keys {
            self.step(Step::Keys(keys::of_esp(sa)));
        }
    }

    fn handle_outbound(&mut self, now: Instant, sa: &ike::Sa) {
        self.export_esp(sa);
        if self.datapath.install_outbound(now, sa).is_err() {
            return self.fail(verdict::unusable_keys());
        }
        let rekey = self.state != State::Securing;
        self.esp_proposal = Some(sa.proposal);
        self.step(Step::Ipsec { proposal: sa.proposal, rekey });
        if !rekey {
            self.state = State::Calling;
            self.lac.connect(now);
        }
    }

    fn handle_l2tp_event(&mut self, now: Instant, event: l2tp::Event) {
        match event {
            l2tp::Event::ControlEstablished(peer) => self.lns = peer.host_name,
            l2tp::Event::SessionEstablished => {
                if self.state == State::Calling {
                    self.state = State::Linking;
                    let peer = std::mem::take(&mut self.lns);
                    self.step(Step::L2tp { peer });
                    self.ppp.open(now);
                }
            }
            // A Hello alone proves nothing: Apple's and Android's ends leave it unanswered (the verdict is in `Life`).
            l2tp::Event::Unanswered(_) => {}
            l2tp::Event::Failed(error) => {
                if !self.is_ending() {
                    self.fail(verdict::of_l2tp(&error));
                }
            }
            l2tp::Event::Closed => {
                if let State::Closing(_) = self.state {
                    self.close_ike(now);
                } else if !self.is_ending() {
                    self.fail(verdict::l2tp_closed());
                }
            }
        }
    }

    fn handle_ppp_event(&mut self, now: Instant, event: ppp::Event) {
        match event {
            ppp::Event::LcpOpened => {}
            ppp::Event::Authenticated { method } => self.step(Step::Authenticated(method)),
            ppp::Event::IpcpOpened { address, peer, dns } => {
                let mtu = self.mtu();
                let link = Link { address, peer, dns, mtu };
                self.link = Some(link.clone());
                self.state = State::Up;
                self.life.handle_activity(now);
                self.step(Step::Ppp(link));
            }
            ppp::Event::EchoReply { round_trip } => self.step(Step::Echo(round_trip)),
            ppp::Event::EchoLost { count } => {
                // The link is dead although IKE may live: the gateway's PPP is gone.
                if self.state == State::Up && count >= self.ppp.echo_failures() {
                    self.fail(verdict::echo_lost(count));
                }
            }
            ppp::Event::Down { text } => {
                if !self.is_ending() {
                    self.fail(verdict::ppp_terminated(&text));
                }
            }
            ppp::Event::Failed(error) => {
                if !self.is_ending() {
                    self.fail(verdict::of_ppp(&error));
                }
            }
        }
    }

    /// The MTU of the device: what the path, the suite, the peer's MRU and the configuration leave for an IP packet.
    fn mtu(&self) -> u16 {
        let payload = self
            .esp_proposal
            .map_or(0, |proposal| esp::inner_udp_payload(self.path.mtu.into(), self.path.remote.is_ipv6(), &proposal));
        let overhead = UDP_HEADER + self.lac.data_overhead() + ppp::IP_HEADER;
        let fits = u16::try_from(payload.saturating_sub(overhead)).unwrap_or(u16::MAX);
        fits.min(self.ppp.mtu()).min(self.mtu_limit.unwrap_or(u16::MAX)).max(MIN_MTU)
    }

    fn peer_answered(&mut self) {
        if !self.answered {
            self.answered = true;
            self.step(Step::PeerAnswered);
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Closed)
    }

    fn fail(&mut self, failure: Failure) {
        if !self.is_ending() {
            self.step(Step::Failed(failure));
        }
    }

    fn step(&mut self, step: Step) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push_back(step);
        }
    }

    pub(super) fn echo(&mut self, now: Instant) {
        self.ppp.echo(now);
        self.pump(now);
    }

    pub(super) fn remote(&self) -> IpAddr {
        self.path.remote
    }

    /// The path takes IP packets of at most `mtu` octets.
    pub(super) fn handle_path_mtu(&mut self, mtu: u16) {
        self.path.mtu = mtu;
    }

    /// The network says that a datagram did not arrive. Only a hint, and only believed while the peer has never answered.
    pub(super) fn handle_unreachable(&mut self, error: &str) {
        if !self.answered {
            self.fail(Failure {
                layer: Layer::Peer,
                reason: Reason::PeerUnreachable,
                message: format!(
                    "The network refuses packets to {} ({error}). Check the address, and that UDP 500 and 4500 are open towards it.",
                    self.path.remote
                ),
                refused: false,
            });
        }
    }
}

const UDP_HEADER: usize = 8;
/// No link of the Internet has a smaller one (RFC 791).
const MIN_MTU: u16 = 576;

fn push(packets: &mut PacketBatch, packet: &[u8], counters: &mut Counters) {
    if packets.push(packet) {
        counters.rx_packets = counters.rx_packets.saturating_add(1);
        counters.rx_octets = counters.rx_octets.saturating_add(packet.len() as u64);
    } else {
        counters.drop_packet("queue");
    }
}

fn ike_config(config: &Config, path: &Path, pfs: bool, export_keys: bool) -> ike::Config {
    let proposals = config.ike_proposals();
    let mut esp_proposals = config.esp_proposals();
    if pfs {
        // Some gateways insist on a fresh exchange, in the group of phase 1 (RouterOS).
        let group = proposals.first().map(|proposal| proposal.group);
        esp_proposals.iter_mut().for_each(|proposal| proposal.group = group);
    }
    let identity = |id: &crate::config::Identity| match id.kind {
        IdentityKind::Address => id
            .value
            .parse()
            .map_or_else(|_| ike::Identity::KeyId(id.value.clone().into_bytes()), ike::Identity::Address),
        IdentityKind::Fqdn => ike::Identity::Fqdn(id.value.clone()),
        IdentityKind::UserFqdn => ike::Identity::UserFqdn(id.value.clone()),
        IdentityKind::KeyId => ike::Identity::KeyId(id.value.clone().into_bytes()),
    };
    ike::Config {
        proposals,
        lifetime: Duration::from_secs(config.ike.lifetime_seconds.into()),
        esp_proposals,
        esp_lifetime: ike::Lifetime {
            seconds: Duration::from_secs(config.esp.lifetime_seconds.into()),
            kilobytes: config.esp.lifetime_bytes.and_then(|octets| u32::try_from(octets / 1024).ok()),
        },
        local_id: config.ike.local_id.as_ref().map(identity),
        remote_id: config.ike.remote_id.as_ref().map(identity),
        dpd: ike::Dpd {
            interval: Duration::from_secs(config.ike.dpd.interval_seconds.into()),
            timeout: Duration::from_secs(config.ike.dpd.timeout_seconds.into()),
        },
        local_port_ike: path.local_ike_port,
        local_port_nat_t: path.local_nat_t_port,
        keepalive: KEEPALIVE_INTERVAL,
        export_keys,
        ..ike::Config::new(path.local, path.remote, path.credentials.pre_shared_key.clone())
    }
}

fn ppp_config(config: &Config, path: &Path) -> ppp::Config {
    ppp::Config {
        username: path.credentials.username.to_string(),
        password: Zeroizing::new(path.credentials.password.to_string()),
        auth: config.ppp.auth.clone(),
        echo_interval: Duration::from_secs(config.ppp.echo_seconds.into()),
        echo_failures: config.ppp.echo_failures,
        ..ppp::Config::default()
    }
}

impl Life {
    fn handle_activity(&mut self, now: Instant) {
        self.last = now;
        self.asked = None;
    }

    fn next(&self) -> Instant {
        if self.asked.is_none() { self.last + self.interval } else { self.last + self.timeout }
    }

    /// The peer said nothing for an interval: it must be asked.
    fn must_ask(&self, now: Instant) -> bool {
        self.asked.is_none() && self.last + self.interval <= now
    }

    /// It was asked and said nothing at all for the whole time.
    fn is_over(&self, now: Instant) -> bool {
        self.asked.is_some() && self.last + self.timeout <= now
    }
}

fn error_label(error: esp::SealError) -> &'static str {
    match error {
        esp::SealError::Exhausted => "exhausted",
        esp::SealError::TooLong => "mtu",
    }
}
