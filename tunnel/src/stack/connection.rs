//! One attempt at a tunnel and, when it succeeds, the tunnel itself: IKE, ESP, L2TP and PPP to one address of one peer.
//!
//! The layers come up from below: Quick Mode done starts L2TP, the L2TP session starts PPP, IPCP gives the link its address.
//! Every authenticated packet counts as life for all of them; [`Life`] gives the one verdict of death.

mod mtu;
mod sending;

pub(super) use sending::error_label;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::datapath::{Datapath, Refused};
use super::keys::{self, KeyRow};
use super::life::{Life, Source, Verdict};
use super::rung::Rung;
use super::verdict::{self, Failure};
use super::{Counters, Link, Path, mss, settings};
use crate::buffer::{Carrier, PacketBatch, Port};
use crate::config::Config;
use crate::ppp::Ppp;
use crate::report::{Encapsulation, Layer, Nat, Reason};
use crate::suite::{EspProposal, IkeProposal};
use crate::{esp, ike, l2tp, ppp};

/// How long the LCP Terminate-Request of a close waits for its answer before the call goes.
const TERMINATE_WAIT: Duration = Duration::from_millis(300);
/// How long the CDN and StopCCN of a close wait for their acknowledgement before the SAs go: two retransmissions.
const CLOSE_WAIT: Duration = Duration::from_millis(900);
/// Steps that wait for the owner; more than one call can ever cause.
const MAX_STEPS: usize = 64;
/// How long the link waits for a new pair of ESP SAs after the peer has deleted the last one: a whole cycle of Quick Mode.
const BARE_LIMIT: Duration = Duration::from_secs(40);

/// What happened, in the order in which it happened.
pub(super) enum Step {
    /// The peer answered for the first time.
    PeerAnswered,
    /// Phase 1 is up.
    Ike { proposal: IkeProposal, nat: Nat, peer_id: String, rekey: bool },
    /// Phase 2 is up.
    Ipsec { proposal: EspProposal, encapsulation: Encapsulation, rekey: bool },
    /// The L2TP session is up.
    L2tp { peer: String },
    /// The peer accepted our credentials.
    Authenticated(crate::config::PppAuth),
    /// The link has its address.
    Ppp(Link),
    /// The peer negotiates LCP or IPCP anew; the link is down until the next [`Step::Ppp`].
    PppDown,
    /// The MTU of the link is another.
    Mtu(u16),
    /// An LCP Echo-Reply.
    Echo(Duration),
    /// A row of a key table.
    Keys(KeyRow),
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
    /// The time of the last call: what is sent by it leaves then.
    clock: Instant,
    /// Our cookie of the first Main Mode, and whether something came back with it.
    cookie: Option<[u8; 8]>,
    answered: bool,
    link: Option<Link>,
    /// What ESP goes in, as phase 1 and then each pair of SAs has shown.
    encapsulation: Option<Encapsulation>,
    /// What the last pair of ESP SAs was agreed on with.
    esp: Option<EspProposal>,
    /// What phase 2 offers when the peer refuses the first offer.
    second_offer: Option<SecondOffer>,
    /// Until when a new pair of ESP SAs must have come: there is none.
    bare_until: Option<Instant>,
    /// What the LNS calls itself.
    lns: String,
    life: Life,
    /// When the LNS left its last Hello unanswered, and the words for it.
    hello_lost: Option<(Instant, Failure)>,
    /// What the LNS is told about the end.
    ending: l2tp::CloseReason,
    mtu_limit: Option<u16>,
    /// Whether packets of IPv6 are meant for the peer at all.
    ipv6: bool,
    export_keys: bool,
    /// One frame or message on its way into ESP.
    scratch: Vec<u8>,
}

/// The presets say nothing about a fresh exchange in phase 2: some gateways insist on one, in the group of phase 1 (RouterOS).
struct SecondOffer {
    proposals: Vec<EspProposal>,
    /// Whether it asks for one.
    pfs: bool,
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
    /// PPP says goodbye until the given time at the latest.
    Terminating(Instant),
    /// L2TP says goodbye until the given time at the latest.
    Closing(Instant),
    /// Nothing is left but to send what is queued.
    Closed,
}

impl Connection {
    /// Nothing happens before [`Connection::start`]. `hopes` says that a peer which does not answer may like the next rung better.
    pub(super) fn new(
        config: &Config,
        (rung, hopes): (&Rung, bool),
        path: Path,
        export_keys: bool,
        call_serial_number: u32,
        seed: &mut StdRng,
        now: Instant,
    ) -> Self {
        let mut rng = || settings::split(seed);
        let [interval, timeout] = [config.ike.dpd.interval_seconds, config.ike.dpd.timeout_seconds]
            .map(|seconds| Duration::from_secs(seconds.into()));
        let second_offer = SecondOffer { proposals: rung.esp_proposals(config), pfs: rung.pfs.is_none() };
        Self {
            ike: ike::Ike::new(settings::ike(config, (rung, hopes), &path, export_keys), rng()),
            datapath: Datapath::new(settings::esp_lifetime(config), rng()),
            lac: l2tp::Lac::new(settings::l2tp(config, &path, call_serial_number), rng()),
            ppp: Ppp::new(settings::ppp(config, &path), rng()),
            state: State::Securing,
            steps: VecDeque::new(),
            clock: now,
            cookie: None,
            answered: false,
            link: None,
            encapsulation: None,
            esp: None,
            second_offer: config.esp.proposals.is_empty().then_some(second_offer),
            bare_until: None,
            lns: String::new(),
            life: Life::new(interval, timeout, now),
            hello_lost: None,
            ending: l2tp::CloseReason::Administrative,
            mtu_limit: config.network.mtu,
            ipv6: config.network.ipv6,
            export_keys,
            scratch: Vec::new(),
            path,
        }
    }

    pub(super) fn set_credentials(&mut self, credentials: Arc<ike::Credentials>) {
        self.ike.set_credentials(credentials);
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.ike.connect(now);
        self.pump(now);
    }

    /// Says goodbye: the link, the call, the control connection, the SAs.
    pub(super) fn close(&mut self, now: Instant, reason: l2tp::CloseReason) {
        match self.state {
            State::Linking | State::Up => {
                self.ending = reason;
                self.state = State::Terminating(now + TERMINATE_WAIT);
                self.ppp.close(now);
            }
            State::Calling => {
                self.ending = reason;
                self.close_l2tp(now);
            }
            State::Securing => self.close_ike(now),
            State::Terminating(_) | State::Closing(_) | State::Closed => {}
        }
        self.pump(now);
    }

    fn close_l2tp(&mut self, now: Instant) {
        self.state = State::Closing(now + CLOSE_WAIT);
        self.lac.close(now, self.ending.clone());
    }

    fn close_ike(&mut self, now: Instant) {
        self.ike.close(now);
        self.state = State::Closed;
        self.step(Step::Closed);
    }

    pub(super) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let closing = if let State::Terminating(at) | State::Closing(at) = self.state { Some(at) } else { None };
        let life = (self.state == State::Up).then(|| self.life.poll_timeout());
        [
            self.ike.poll_timeout(),
            self.lac.poll_timeout(),
            self.ppp.poll_timeout(),
            self.datapath.poll_timeout(),
            closing,
            life,
            self.bare_until,
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
        match self.state {
            State::Terminating(at) if at <= now => self.close_l2tp(now),
            State::Closing(at) if at <= now => self.close_ike(now),
            _ => {}
        }
        if self.bare_until.take_if(|at| *at <= now).is_some() {
            self.fail(verdict::sas_deleted());
        }
        if self.state == State::Up {
            match self.life.handle_timeout(now) {
                Verdict::Alive => {}
                Verdict::Ask => self.ask(now),
                Verdict::Dead => {
                    self.fail(verdict::dead_peer(now.saturating_duration_since(self.life.last())));
                }
            }
        }
        self.pump(now);
    }

    /// Asks the peer for a sign of life by all means; an L2TP Hello has its own clock.
    fn ask(&mut self, now: Instant) {
        self.ike.probe(now);
        self.ppp.echo(now);
    }

    /// Takes a datagram of the peer; IP packets in it go to `packets`.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        carrier: Carrier,
        datagram: &mut [u8],
        packets: &mut PacketBatch,
        counters: &mut Counters,
    ) {
        match (carrier, esp::classify(datagram)) {
            (Carrier::Udp(port @ Port::Ike), _) => self.handle_isakmp(now, port, datagram, counters),
            (Carrier::Udp(port @ Port::NatT), esp::Datagram::Isakmp(message)) => {
                self.handle_isakmp(now, port, message, counters);
            }
            (Carrier::Udp(Port::NatT) | Carrier::Esp, esp::Datagram::Esp { spi }) => {
                self.handle_esp(now, spi, datagram, packets, counters);
            }
            (Carrier::Udp(Port::NatT), esp::Datagram::Keepalive | esp::Datagram::Short) => {}
            // Neither a marker nor a keepalive has a meaning there: an SPI of zero is no SA's (RFC 4303 section 2.1).
            (Carrier::Esp, esp::Datagram::Isakmp(_) | esp::Datagram::Keepalive | esp::Datagram::Short) => {
                counters.drop_packet(Refused::UnknownSpi.label());
            }
        }
        self.pump(now);
    }

    fn handle_isakmp(&mut self, now: Instant, port: Port, message: &[u8], counters: &mut Counters) {
        // Whoever sees our packets could have sent it; that something answers is all that is said.
        if !self.answered && self.cookie.is_some_and(|cookie| message.starts_with(&cookie)) {
            self.answered = true;
            self.step(Step::PeerAnswered);
        }
        self.ike.handle_message(now, port, message);
        if self.ike.last_heard() == Some(now) {
            counters.last_receive = Some(now);
            self.life.heard(now, Source::Beside);
        }
    }

    fn handle_esp(
        &mut self,
        now: Instant,
        spi: u32,
        packet: &mut [u8],
        packets: &mut PacketBatch,
        counters: &mut Counters,
    ) {
        let octets = packet.len();
        let message = match self.datapath.open(spi, packet) {
            Ok(message) => message,
            Err(refused @ (Refused::UnknownSpi | Refused::Esp(_) | Refused::NotL2tp)) => {
                tracing::trace!(spi = format_args!("{spi:08x}"), octets, reason = refused.label(), "ESP refused");
                return counters.drop_packet(refused.label());
            }
        };
        tracing::trace!(spi = format_args!("{spi:08x}"), octets, "ESP received");
        counters.last_receive = Some(now);
        self.ike.handle_esp_activity(now, spi);
        self.lac.handle_activity(now);
        let frame = self.lac.handle_message(now, message);
        self.life.heard(now, if frame.is_some() { Source::Ppp } else { Source::Beside });
        let Some(frame) = frame else { return };
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

    /// Carries events from layer to layer until none is left.
    fn pump(&mut self, now: Instant) {
        self.clock = now;
        loop {
            if self.datapath.take_rekey_request() {
                self.ike.rekey_ipsec(now);
            } else if let Some(event) = self.ike.poll_event() {
                self.handle_ike_event(now, event);
            } else if let Some(event) = self.lac.poll_event() {
                self.handle_l2tp_event(now, event);
            } else if let Some(event) = self.ppp.poll_event() {
                self.handle_ppp_event(now, event);
            } else {
                break;
            }
        }
        // The LNS is silent and something else of the peer is not.
        if self.hello_lost.as_ref().is_some_and(|(since, _)| self.life.last() > *since)
            && let Some((_, failure)) = self.hello_lost.take()
        {
            self.fail(failure);
        }
        self.follow_mtu();
    }

    fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::IsakmpEstablished { proposal, nat, encapsulated, peer_id, rekey, .. } => {
                self.encapsulation = Some(encapsulation(encapsulated));
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
            ike::Event::RemoveSa { inbound_spi, outbound_spi: _ } => {
                self.datapath.remove(inbound_spi);
                if !self.datapath.can_send() {
                    // What follows is up to IKE: another Quick Mode, or the end and its reason.
                    self.bare_until.get_or_insert(now + BARE_LIMIT);
                }
            }
            ike::Event::Failed(error) => {
                let silent = matches!(error, ike::Error::NoResponse { .. });
                if silent && self.bare_until.is_some() {
                    self.fail(verdict::not_renewed(&error));
                } else if !self.offer_again(now, &error) {
                    self.fail(verdict::of_ike(&error, self.encapsulation));
                }
            }
            ike::Event::Lifetime { inbound_spi, kilobytes } => self.datapath.limit(inbound_spi, kilobytes),
            ike::Event::RekeyFailed(error) => {
                tracing::warn!(%error, "a renewal failed; it is tried again while the old keys last")
            }
            ike::Event::DeadPeer => self.fail(verdict::dead_peer(now.saturating_duration_since(self.life.last()))),
            ike::Event::PeerDeletedIsakmp => self.fail(verdict::sas_deleted()),
            ike::Event::Keys(keys) => self.step(Step::Keys(keys::of_isakmp(&keys))),
            // There is one peer, which is found without its cookies, and whatever it forgets it has to begin anew itself.
            ike::Event::OwnCookie { .. } | ike::Event::InitialContact => {}
            ike::Event::Notice(notice) => tracing::debug!(notice, "ike"),
        }
    }

    fn export_esp(&mut self, sa: &ike::Sa) {
        if self.export_keys {
            self.step(Step::Keys(keys::of_esp(sa, self.path.remote.is_ipv6())));
        }
    }

    /// Offers something else on the live ISAKMP SA after phase 2 was refused; returns whether it does.
    fn offer_again(&mut self, now: Instant, error: &ike::Error) -> bool {
        let refused = matches!(error, ike::Error::NoProposalChosen { phase: 2, .. });
        if self.state != State::Securing || !refused {
            return false;
        }
        let (Some(SecondOffer { mut proposals, pfs }), Some(phase1)) = (self.second_offer.take(), self.ike.proposal())
        else {
            return false;
        };
        if pfs {
            proposals.iter_mut().for_each(|proposal| proposal.group = Some(phase1.group));
        }
        tracing::info!(pfs, "the gateway refused the first offer of phase 2, another one is made");
        self.ike.retry_quick_mode(now, proposals);
        true
    }

    fn handle_outbound(&mut self, now: Instant, sa: &ike::Sa) {
        self.export_esp(sa);
        if self.datapath.install_outbound(now, sa).is_err() {
            return self.fail(verdict::unusable_keys());
        }
        self.bare_until = None;
        let rekey = self.state != State::Securing;
        let encapsulation = encapsulation(sa.encapsulated);
        (self.esp, self.encapsulation) = (Some(sa.proposal), Some(encapsulation));
        self.step(Step::Ipsec { proposal: sa.proposal, encapsulation, rekey });
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
                    // RFC 2661 section 8.1, RFC 3193 section 3.2: what fits from here to there fits back.
                    self.ppp.set_mru(self.fitting());
                    self.ppp.open(now);
                }
            }
            l2tp::Event::Failed(error) => {
                let failure = verdict::of_l2tp(&error, self.encapsulation, self.state == State::Up);
                let hello = matches!(error, l2tp::Error::NoResponse { to: l2tp::message::MessageType::HELLO });
                if hello && self.state == State::Up {
                    self.hello_lost = Some((now, failure));
                } else {
                    self.fail(failure);
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
            // Of no account, asked in the role of the server alone, or not asked for.
            ppp::Event::LcpOpened
            | ppp::Event::Authenticate(_)
            | ppp::Event::Ipv6cpOpened { .. }
            | ppp::Event::Ipv6cpDown => {}
            ppp::Event::Authenticated { method } => self.step(Step::Authenticated(method)),
            ppp::Event::IpcpOpened { address, peer, dns } => {
                let mtu = self.mtu();
                let link = Link { address, peer, dns, mtu };
                self.link = Some(link.clone());
                self.state = State::Up;
                self.step(Step::Ppp(link));
            }
            ppp::Event::IpcpDown => {
                if self.state == State::Up {
                    self.state = State::Linking;
                    self.link = None;
                    self.step(Step::PppDown);
                }
            }
            ppp::Event::EchoReply { round_trip } => self.step(Step::Echo(round_trip)),
            ppp::Event::EchoLost { count } => {
                if self.state == State::Up {
                    match self.life.handle_echo_lost(now, count, self.ppp.echo_failures()) {
                        Verdict::Alive => {}
                        Verdict::Ask => self.ike.probe(now),
                        Verdict::Dead => self.fail(verdict::echo_lost(count)),
                    }
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
            ppp::Event::Closed => {
                if let State::Terminating(_) = self.state {
                    self.close_l2tp(now);
                }
            }
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Terminating(_) | State::Closing(_) | State::Closed)
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

    /// Begins LCP anew on the call that is there, as a client may at any time.
    #[cfg(test)]
    pub(super) fn restart_ppp(&mut self, now: Instant, config: &Config, seed: &mut StdRng) {
        self.ppp = Ppp::new(settings::ppp(config, &self.path), settings::split(seed));
        self.state = State::Linking;
        self.link = None;
        self.ppp.open(now);
        self.pump(now);
    }

    pub(super) fn echo(&mut self, now: Instant) {
        self.ppp.echo(now);
        self.pump(now);
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.datapath.is_truncated()
    }

    pub(super) fn remote(&self) -> IpAddr {
        self.path.remote
    }

    /// The network says that a datagram did not arrive. Only a hint, and only believed while the peer has never answered.
    pub(super) fn handle_unreachable(&mut self, error: &str) {
        if !self.answered {
            let message = format!(
                "The network refuses packets to {} ({error}). Check the address, and that UDP 500 and 4500 are open towards it.",
                self.path.remote
            );
            self.fail(Failure::new(Layer::Peer, Reason::PeerUnreachable, message));
        }
    }
}

fn push(packets: &mut PacketBatch, packet: &[u8], counters: &mut Counters) {
    if packets.push(packet) {
        counters.rx_packets = counters.rx_packets.saturating_add(1);
        counters.rx_octets = counters.rx_octets.saturating_add(packet.len() as u64);
    } else {
        counters.drop_packet("queue");
    }
}

fn encapsulation(encapsulated: bool) -> Encapsulation {
    if encapsulated { Encapsulation::Udp } else { Encapsulation::None }
}
