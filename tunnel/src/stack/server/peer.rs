//! One IPsec peer: its ISAKMP SAs, its pairs of ESP SAs, the L2TP control connections that came through them, and the sessions
//! of those.
//!
//! A peer is known by its SAs and never by its address: any number of them may share one, each is answered where its last
//! authentic packet came from (RFC 3947 section 4, RFC 3948 appendix A.4). Every authentic packet counts as life for all layers.

mod closing;
mod linking;
mod sending;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::super::datapath::{Datapath, Refused};
use super::super::keys::{self, KeyRow};
use super::super::life::{Life, Source};
use super::super::settings;
use super::Counters;
use super::session::{EndCause, Place, Session, SessionInfo};
use crate::aaa::Request;
use crate::buffer::Port;
use crate::config::server::Server as Config;
use crate::l2tp::{Call, Lns, LnsEvent};
use crate::ppp::Ppp;
use crate::suite::{self, EspProposal, IkeProposal};
use crate::{esp, ike, l2tp, ppp};

/// How long a peer may take from its first proof of life to a session: a person who types a password is not involved, and a slow
/// RADIUS server is.
const ESTABLISHMENT_LIMIT: Duration = Duration::from_secs(90);
/// How long a peer that has not proved itself is kept.
const HALF_OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer without any session stays: it may call again, and its goodbyes are acknowledged for a cycle.
const LINGER: Duration = Duration::from_secs(35);
/// How long goodbyes may take.
const CLOSE_WAIT: Duration = Duration::from_millis(900);
/// Frames of sessions that have ended which are still to be sent.
const MAX_LAST_FRAMES: usize = 16;
/// Steps that wait for the owner; more than one call can ever cause.
const MAX_STEPS: usize = 64;

/// What the owner has to know or to decide, in order.
pub(super) enum Step {
    /// This end has a cookie in an exchange with the peer, or has it no longer.
    Cookie { cookie: [u8; 8], alive: bool },
    /// Those who are in have other algorithms than before.
    Agreed,
    /// Phase 1 is up.
    Established { initial_contact: bool },
    /// The peer says that it has no other SA with this end.
    InitialContact,
    /// Somebody wants in.
    Authenticate { session: u64, request: Request },
    /// The link of a session is up.
    Up { session: u64 },
    /// The client of a session is to be told of its prefix of IPv6.
    Advertise { session: u64 },
    /// A session is over.
    Ended { session: Box<Session>, cause: EndCause },
    /// A row of a key table.
    Keys(KeyRow),
}

/// What a peer needs of its owner.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    pub(super) lns: &'a Arc<l2tp::LnsConfig>,
    pub(super) eap_tls: Option<&'a ppp::TlsServer>,
    pub(super) rng: &'a mut StdRng,
    pub(super) next_session: &'a mut u64,
    pub(super) counters: &'a mut Counters,
}

/// How far a peer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not proved itself; dropped at the given time.
    HalfOpen(Instant),
    /// Phase 1 is up and no session was; given up at the given time.
    Secured(Instant),
    /// It has a session.
    Serving,
    /// It has none any more; ended at the given time.
    Lingering(Instant),
    /// Goodbyes are being said until the given time.
    Closing(Instant),
    /// Nothing is left but to send what is queued.
    Gone,
}

/// A peer.
pub(super) struct Peer {
    pub(super) slot: u32,
    ike: ike::Ike,
    datapath: Datapath,
    lns: Lns,
    sessions: Vec<Session>,
    phase: Phase,
    life: Life,
    /// Our end, as the peer's datagrams have it.
    local: SocketAddr,
    /// Where the peer is, for each of our sockets.
    endpoints: [Option<SocketAddr>; 2],
    /// The MTU of the path in octets.
    path_mtu: u16,
    /// What the configuration allows of it for IP packets.
    mtu_limit: u16,
    identity: Option<ike::Identity>,
    ike_proposal: Option<IkeProposal>,
    esp_proposal: Option<EspProposal>,
    export_keys: bool,
    /// When what was sent by the call under way leaves.
    clock: Instant,
    steps: VecDeque<Step>,
    last_frames: VecDeque<Vec<u8>>,
    /// The last thing that IKE has said about a peer that has not proved itself.
    excuse: Option<String>,
    /// Something else than a packet has come through since the owner last looked.
    news: bool,
    scratch: Vec<u8>,
}

/// What a new peer is made of.
pub(super) struct Origin {
    pub(super) slot: u32,
    pub(super) ike: ike::Ike,
    pub(super) port: Port,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) path_mtu: u16,
    pub(super) export_keys: bool,
}

fn index(port: Port) -> usize {
    match port {
        Port::Ike => 0,
        Port::NatT => 1,
    }
}

impl Peer {
    pub(super) fn new(origin: Origin, context: &mut Context<'_>) -> Self {
        let Origin { slot, ike, port, local, remote, path_mtu, export_keys } = origin;
        let (config, now) = (context.config, context.now);
        let [interval, timeout] = [config.ike.dpd.interval_seconds, config.ike.dpd.timeout_seconds]
            .map(|seconds| Duration::from_secs(seconds.into()));
        let limits = esp::Lifetime { packets: config.esp.lifetime_packets, octets: config.esp.lifetime_bytes };
        let mut endpoints = [None; 2];
        if let Some(place) = endpoints.get_mut(index(port)) {
            *place = Some(remote);
        }
        Self {
            slot,
            ike,
            datapath: Datapath::new(limits, settings::split(context.rng)),
            lns: Lns::new(Arc::clone(context.lns), settings::split(context.rng)),
            sessions: Vec::new(),
            phase: Phase::HalfOpen(now + HALF_OPEN_LIMIT),
            life: Life::new(interval, timeout, now),
            local,
            endpoints,
            path_mtu,
            mtu_limit: config.network.mtu.unwrap_or(u16::MAX),
            identity: None,
            ike_proposal: None,
            esp_proposal: None,
            export_keys,
            clock: now,
            steps: VecDeque::new(),
            last_frames: VecDeque::new(),
            excuse: None,
            news: true,
            scratch: Vec::new(),
        }
    }

    pub(super) fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::HalfOpen(_))
    }

    /// Whether the owner can forget it.
    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Where the peer is for that socket.
    pub(super) fn endpoint(&self, port: Port) -> Option<SocketAddr> {
        self.endpoints.get(index(port)).copied().flatten()
    }

    /// Where its packets come from.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.endpoint(Port::NatT).or_else(|| self.endpoint(Port::Ike))
    }

    pub(super) fn identity(&self) -> Option<&ike::Identity> {
        self.identity.as_ref()
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.life.last()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter()
    }

    pub(super) fn session_mut(&mut self, id: u64) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// Takes note of the algorithms of a new SA of either phase.
    fn agree(&mut self, ike: Option<IkeProposal>, esp: Option<EspProposal>) {
        let before = (self.ike_proposal, self.esp_proposal);
        self.ike_proposal = ike.or(self.ike_proposal);
        self.esp_proposal = esp.or(self.esp_proposal);
        if !self.sessions.is_empty() && before != (self.ike_proposal, self.esp_proposal) {
            self.step(Step::Agreed);
        }
    }

    /// What of the agreed algorithms is weak.
    fn weakness(&self) -> Option<String> {
        let truncated = self.datapath.is_truncated();
        let truncated = truncated.then(|| "the client sends 96 bits of HMAC-SHA2-256 in place of 128".to_owned());
        let weak = suite::weakness(&self.ike_proposal?, self.esp_proposal.as_ref());
        let weak: Vec<String> = weak.into_iter().chain(truncated).collect();
        (!weak.is_empty()).then(|| weak.join("; "))
    }

    /// The sessions that are up, if what they agreed on is weak, and what of it is.
    pub(super) fn weak_sessions(&self) -> Option<(usize, String)> {
        let up = self.sessions.iter().filter(|session| session.admitted.is_some() && session.up.is_some()).count();
        (up > 0).then(|| self.weakness()).flatten().map(|weakness| (up, weakness))
    }

    /// Between which ends a session is.
    pub(super) fn place(&self, session: &Session) -> Option<Place> {
        Some(Place { peer: self.remote()?, local: self.local.ip(), mtu: session.mtu })
    }

    pub(super) fn info(&self, session: &Session) -> Option<SessionInfo> {
        let admitted = session.admitted.as_ref()?;
        Some(SessionInfo {
            id: session.id,
            user: admitted.grant.name.clone(),
            address: admitted.address,
            ipv6_prefix: session.ipv6.and_then(|link| link.prefix),
            networks: admitted.grant.networks.clone(),
            since: session.up?,
            place: self.place(session)?,
            ike: self.ike_proposal?,
            esp: self.esp_proposal,
            weakness: self.weakness(),
            auth: session.auth,
            traffic: session.traffic,
            calling_number: session.calling_number.clone(),
            class: admitted.grant.class.clone(),
            interim: admitted.grant.interim,
        })
    }

    /// Takes other keys and certificates for the renewals of phase 1.
    pub(super) fn set_credentials(&mut self, credentials: Arc<ike::Credentials>) {
        self.ike.set_credentials(credentials);
    }

    /// Tells the responder that peers like this one are real.
    pub(super) fn prove(&self, responder: &mut ike::Responder) {
        responder.handle_established(&self.ike);
    }

    /// Makes the ISAKMP SA that has just been established with `other` a renewal of this relation.
    pub(super) fn absorb(&mut self, context: &mut Context<'_>, other: Self) {
        self.follow(Port::NatT, other.endpoint(Port::NatT));
        self.follow(Port::Ike, other.endpoint(Port::Ike));
        self.agree(other.ike_proposal, None);
        self.ike.absorb(context.now, other.ike);
        self.life.heard(context.now, Source::Beside);
        self.pump(context);
    }

    //= rfc3947 3 "Recipients MUST reply back to the source address from the packet (see [RFC3715], section 2.1, case d)."
    //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, a_client_that_moves_is_followed_on_its_first_authentic_packet
    //= rfc3947 4 "If these are successful, the responder MUST update local state so that all subsequent packets (including informational notifications) to the peer use the new port, and possibly the new IP address obtained from the incoming valid packet."
    //= test: a_client_that_moves_is_followed_on_its_first_authentic_packet, only_what_is_authenticated_is_a_sign_of_life
    //= rfc3947 7 "To recover from this, ends that are NOT behind NAT SHOULD use the last valid UDP encapsulated IKE or IPsec packet from the other end to determine which IP and port addresses should be used."
    //= test: a_client_that_moves_is_followed_on_its_first_authentic_packet, only_what_is_authenticated_is_a_sign_of_life
    //= rfc3947 3 "This means that when the original responder is doing rekeying or sending notifications to the original initiator, it MUST send the packets using the same set of port and IP numbers used when the IKE SA was last used."
    //= test: a_client_that_moves_is_followed_on_its_first_authentic_packet, both_phases_are_renewed_and_a_move_is_followed_over_ipv6
    //= rfc3947 4 "The responder MUST respond with all subsequent IKE packets to this peer by using UDP(4500,Y)."
    //= test: both_phases_are_renewed_for_hours_without_a_new_session, both_phases_are_renewed_and_a_move_is_followed_over_ipv6
    /// Takes note of where an authentic packet came from.
    fn follow(&mut self, port: Port, remote: Option<SocketAddr>) {
        let Some(remote) = remote else { return };
        let Some(place) = self.endpoints.get_mut(index(port)) else { return };
        if *place == Some(remote) {
            return;
        }
        if let Some(old) = place.replace(remote) {
            tracing::info!(%old, new = %remote, "a peer has another address");
        }
        self.ike.set_remote(port, remote);
    }

    /// Takes an ISAKMP message, without the marker.
    pub(super) fn handle_isakmp(&mut self, context: &mut Context<'_>, port: Port, remote: SocketAddr, message: &[u8]) {
        // Until it has proved itself the answer goes to where the message came from (RFC 3947 section 4).
        if self.is_half_open() || self.endpoint(port).is_none() {
            self.follow(port, Some(remote));
        }
        self.ike.handle_message(context.now, port, message);
        if self.ike.last_heard() == Some(context.now) {
            self.follow(port, Some(remote));
            self.life.heard(context.now, Source::Beside);
        }
        self.pump(context);
        if self.is_half_open() && self.ike.is_idle() {
            self.give_up(context);
        }
    }

    /// Takes an ESP packet; returns the IP packet in it and the number of its session.
    pub(super) fn handle_esp<'a>(
        &mut self,
        context: &mut Context<'_>,
        spi: u32,
        remote: SocketAddr,
        packet: &'a mut [u8],
    ) -> Option<(u64, &'a [u8])> {
        let now = context.now;
        let message = match self.datapath.open(spi, packet) {
            Ok(message) => message,
            Err(refused @ (Refused::UnknownSpi | Refused::Esp(_) | Refused::NotL2tp)) => {
                context.counters.drop_packet(refused.label());
                return None;
            }
        };
        self.follow(Port::NatT, Some(remote));
        self.ike.handle_esp_activity(now, spi);
        self.lns.handle_activity(now);
        let Some((call, frame)) = self.lns.handle_message(now, message) else {
            self.life.heard(now, Source::Beside);
            self.pump(context);
            return None;
        };
        self.life.heard(now, Source::Ppp);
        let session = self.sessions.iter_mut().find(|session| session.call == call)?;
        session.ppp.handle_activity(now);
        let received = session.ppp.handle_frame(now, frame).map(|packet| (session.id, packet));
        self.pump(context);
        received
    }

    /// Whether the owner has to look at it after a packet.
    pub(super) fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self, config: &Config) -> Option<Instant> {
        let phase = match self.phase {
            Phase::HalfOpen(at) | Phase::Secured(at) | Phase::Lingering(at) | Phase::Closing(at) => Some(at),
            Phase::Serving => Some(self.life.poll_timeout()),
            Phase::Gone => None,
        };
        let sessions = self.sessions.iter().flat_map(|session| {
            let advertise_at = session.ipv6.and_then(|link| link.advertise_at);
            let limit = session.limit(&config.limits).map(|(at, _)| at);
            [session.ppp.poll_timeout(), limit, advertise_at].into_iter().flatten()
        });
        [self.ike.poll_timeout(), self.lns.poll_timeout(), self.datapath.poll_timeout(), phase]
            .into_iter()
            .flatten()
            .chain(sessions)
            .min()
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.ike.handle_timeout(now);
        self.lns.handle_timeout(now);
        self.datapath.handle_timeout(now);
        for session in &mut self.sessions {
            session.ppp.handle_timeout(now);
        }
        self.end_overdue(context);
        self.advertise_due(now);
        self.pump(context);
    }

    /// Asks the peer for a sign of life by all means.
    pub(super) fn probe(&mut self, context: &mut Context<'_>) {
        self.ike.probe(context.now);
        self.lns.probe(context.now);
        for session in &mut self.sessions {
            session.ppp.echo(context.now);
        }
        self.pump(context);
    }

    /// The path takes IP packets of at most `mtu` octets.
    pub(super) fn handle_path_mtu(&mut self, context: &mut Context<'_>, mtu: u16) {
        self.path_mtu = mtu;
        self.follow_mtu();
        self.pump(context);
    }

    /// Carries events from layer to layer until none is left.
    pub(super) fn pump(&mut self, context: &mut Context<'_>) {
        self.clock = context.now;
        let mut busy = false;
        loop {
            if self.datapath.take_rekey_request() {
                self.ike.rekey_ipsec(context.now);
            } else if let Some(event) = self.ike.poll_event() {
                self.handle_ike_event(context, event);
            } else if let Some(event) = self.lns.poll_event() {
                self.handle_l2tp_event(context, event);
            } else if let Some((index, event)) = self.poll_ppp_event() {
                self.handle_ppp_event(context, index, event);
            } else {
                break;
            }
            busy = true;
        }
        if busy {
            self.news = true;
            self.follow_mtu();
        }
    }

    fn poll_ppp_event(&mut self) -> Option<(usize, ppp::Event)> {
        self.sessions.iter_mut().enumerate().find_map(|(index, session)| Some((index, session.ppp.poll_event()?)))
    }

    fn handle_ike_event(&mut self, context: &mut Context<'_>, event: ike::Event) {
        let now = context.now;
        match event {
            ike::Event::OwnCookie { cookie, alive } => self.step(Step::Cookie { cookie, alive }),
            ike::Event::IsakmpEstablished { proposal, peer_id, initial_contact, .. } => {
                tracing::debug!(slot = self.slot, %proposal, %peer_id, "phase 1 is up");
                self.agree(Some(proposal), None);
                self.identity = Some(peer_id);
                if self.is_half_open() {
                    self.phase = Phase::Secured(now + ESTABLISHMENT_LIMIT);
                    context.counters.phase1 = context.counters.phase1.saturating_add(1);
                }
                self.step(Step::Established { initial_contact });
            }
            ike::Event::InitialContact => self.step(Step::InitialContact),
            ike::Event::InstallInbound(sa) => {
                self.export_esp(&sa);
                if let Err(error) = self.datapath.install_inbound(&sa) {
                    tracing::warn!(%error, "the keys of phase 2 cannot be used");
                    self.drop_all(context, EndCause::Failed);
                }
            }
            ike::Event::InstallOutbound(sa) => {
                self.export_esp(&sa);
                self.agree(None, Some(sa.proposal));
                if let Err(error) = self.datapath.install_outbound(now, &sa) {
                    tracing::warn!(%error, "the keys of phase 2 cannot be used");
                    self.drop_all(context, EndCause::Failed);
                }
            }
            ike::Event::RemoveSa { inbound_spi, .. } => self.datapath.remove(inbound_spi),
            ike::Event::Lifetime { inbound_spi, kilobytes } => self.datapath.limit(inbound_spi, kilobytes),
            ike::Event::RekeyFailed(error) => tracing::debug!(%error, "a renewal failed and is tried again"),
            // A renewal of ours under an ISAKMP SA that the peer took away; the peer makes another.
            ike::Event::Failed(error) => self.handle_ike_failure(context, &error),
            ike::Event::DeadPeer => self.drop_all(context, EndCause::DeadPeer),
            ike::Event::PeerDeletedIsakmp => self.drop_all(context, EndCause::PeerClosed),
            ike::Event::Keys(keys) => self.step(Step::Keys(keys::of_isakmp(&keys))),
            ike::Event::Notice(notice) => {
                tracing::debug!(notice, "ike");
                if self.is_half_open() {
                    self.excuse = Some(notice);
                }
            }
        }
    }

    fn handle_ike_failure(&mut self, context: &mut Context<'_>, error: &ike::Error) {
        tracing::debug!(%error, "IKE failed");
        if self.is_half_open() {
            self.excuse = Some(error.to_string());
            return self.give_up(context);
        }
        self.drop_all(context, EndCause::Failed);
    }

    fn export_esp(&mut self, sa: &ike::Sa) {
        if self.export_keys {
            self.step(Step::Keys(keys::of_esp(sa, self.remote().is_some_and(|remote| remote.is_ipv6()))));
        }
    }

    fn handle_l2tp_event(&mut self, context: &mut Context<'_>, event: LnsEvent) {
        match event {
            LnsEvent::TunnelOpened { tunnel, peer } => {
                tracing::debug!(slot = self.slot, tunnel = tunnel.0, name = peer.host_name, "L2TP tunnel is up");
            }
            LnsEvent::CallOpened { call, calling_number, .. } => self.begin_session(context, call, calling_number),
            LnsEvent::CallClosed { call, error } => {
                let cause = match error {
                    None | Some(l2tp::Error::Cdn { .. } | l2tp::Error::StopCcn { .. }) => EndCause::PeerClosed,
                    Some(l2tp::Error::NoResponse { .. }) => EndCause::DeadPeer,
                    Some(_) => EndCause::Failed,
                };
                self.end_session_of(context, call, cause);
            }
            LnsEvent::HelloLost { tunnel } => {
                // Something else of the peer is alive, and its sessions have an opinion of their own.
                tracing::debug!(slot = self.slot, tunnel = tunnel.0, "the peer does not acknowledge a Hello");
            }
            LnsEvent::TunnelClosed { tunnel, error } => {
                tracing::debug!(
                    slot = self.slot,
                    tunnel = tunnel.0,
                    error = error.map(|e| e.to_string()),
                    "L2TP tunnel is gone"
                );
            }
        }
    }

    fn step(&mut self, step: Step) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push_back(step);
        } else {
            tracing::error!(slot = self.slot, "a step of a peer is lost");
        }
    }
}
