//! The server: any number of IPsec peers, their L2TP tunnels and sessions, and what goes between them, as one pure state machine
//! over packets, time and entropy.
//!
//! ```text
//!   datagram ── SPI or cookie ──▶ peer ──▶ session ── source and destination allowed? ──▶ another session, or the device
//!   device   ── inner address ──▶ session ──▶ peer ──▶ datagram
//! ```
//!
//! A stranger costs nothing: [`ike::Responder`] answers without state until a message proves that somebody is there.
//!
//! Contract: after any call that takes `&mut self`, the caller drains [`Server::poll_event`], then [`Server::packets`] and
//! [`Server::transmits`] until they are empty, and calls [`Server::handle_timeout`] not later than [`Server::poll_timeout`].

mod admission;
mod changes;
mod counters;
mod forwarding;
mod ipv6;
mod packet;
mod peer;
mod pool;
mod routes;
mod session;
mod slots;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

pub use counters::Counters;
pub use session::{EndCause, Place, SessionInfo, Traffic};

use super::keys::KeyRow;
use super::settings;
use crate::aaa::Request;
use crate::buffer::{DatagramBatch, PacketBatch, Port, Way};
use crate::config::server::Server as Config;
use crate::esp;
use crate::ike::{self, Answer, Responder};
use crate::l2tp::LnsConfig;
use crate::report::{Layer, Reason, RejectedRevision, Report, State, UserReport};
use crate::users::Users;
use crate::{dhcp, ppp};
use ipv6::Prefixes;
use peer::{Context, Origin, Peer, Step};
use pool::Pool;
use routes::Routes;
use slots::Slots;

/// Answers to strangers that wait to be sent; a flood loses those beyond it.
const MAX_REPLIES: usize = 64;
/// The most peers that have not proved themselves; the oldest gives way.
const MAX_HALF_OPEN: usize = 1_024;
/// Peers beyond the number of sessions: those that are coming and going.
const SPARE_PEERS: usize = 2_048;
/// A peer that was heard within this time and comes again from the same place under the same name renews phase 1. No NAT gives
/// a place to somebody else this soon (RFC 4787 section 4.3).
const SAME_PEER: Duration = Duration::from_secs(60);
/// The most peers that are asked whether they live because another one says that it has just begun.
const MAX_PROBED: usize = 16;
/// What is assumed of a path that nothing is known about, in octets.
const USUAL_MTU: u16 = 1_500;
/// The longest time between [`Server::close`] and [`Event::Closed`].
const CLOSE_LIMIT: Duration = Duration::from_millis(1_500);
/// Events that wait for the owner, who takes them after each call.
const MAX_EVENTS: usize = 4_096;

/// What the files of the configuration hold.
pub struct Secrets {
    /// Of phase 1.
    pub ike: Arc<ike::Credentials>,
    /// Of L2TP tunnel authentication.
    pub tunnel: Option<Zeroizing<Vec<u8>>>,
    /// The users of the configuration with their passwords.
    pub users: Users,
    /// What EAP-TLS needs (RFC 5216); not spoken without it.
    pub eap_tls: Option<ppp::TlsServer>,
}

/// What the process must do or may want to know.
#[derive(Debug)]
pub enum Event {
    /// Ask a RADIUS server, and answer with [`Server::handle_verdict`].
    Authenticate {
        /// The session that waits.
        session: u64,
        /// What it asks.
        request: Request,
        /// Between which ends it is.
        place: Place,
    },
    /// A peer has proved itself: find out what the way to it takes, and answer with [`Server::handle_path_mtu`].
    Peer(Way),
    /// A session is up.
    Up(Box<SessionInfo>),
    /// A session that was up is over.
    Down(Box<SessionInfo>, EndCause),
    /// [`Server::report`] is different.
    ReportChanged,
    /// A row for a protocol analyser.
    Keys(KeyRow),
    /// Every goodbye is said after [`Server::close`].
    Closed,
}

/// Whether the server is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Serving,
    /// Goodbyes are being said, until the given time.
    Closing(Instant),
    Closed,
}

/// All peers of one process.
pub struct Server {
    config: Box<Config>,
    secrets: Secrets,
    rng: StdRng,
    responder: Responder,
    /// What each LNS is made with.
    lns: Arc<LnsConfig>,
    /// What clients are told that ask by DHCPINFORM.
    dhcp: dhcp::Settings,
    slots: Slots,
    /// The slot of each session.
    sessions: HashMap<u64, u32>,
    /// Sessions of each user, the oldest first.
    by_user: HashMap<String, Vec<u64>>,
    next_session: u64,
    pool: Pool,
    routes: Routes,
    prefixes: Prefixes,
    /// How the last attempt of each user of the configuration ended.
    results: BTreeMap<String, UserReport>,
    /// The wall clock: seconds since the Unix epoch at an instant.
    clock: (Instant, u64),
    export_keys: bool,
    life: Life,
    replies: VecDeque<(Port, Way, Vec<u8>)>,
    transmits: DatagramBatch,
    packets: PacketBatch,
    events: VecDeque<Event>,
    report: Report,
    report_changed: bool,
    /// Its numbers of sessions are old.
    recount: bool,
    counters: Counters,
}

impl Server {
    /// A server without any peer. All its randomness comes from `seed`; `unix` is the time of `now` in seconds since the Unix
    /// epoch.
    pub fn new(config: Config, secrets: Secrets, seed: Zeroizing<[u8; 32]>, now: Instant, unix: u64) -> Self {
        let mut rng = StdRng::from_seed(*seed);
        let mut pool = Pool::default();
        pool.configure(&config.addresses.pools, changes::reserved(&config));
        let mut prefixes = Prefixes::default();
        prefixes.configure(config.addresses.ipv6_pool);
        let responder = Responder::new(settings::responder(&config, &secrets.ike, false), settings::split(&mut rng));
        let most = usize::try_from(config.limits.sessions).unwrap_or(usize::MAX).saturating_add(SPARE_PEERS);
        Self {
            report: Report::of_server(config.revision.clone(), config.radius.is_some()),
            lns: Arc::new(settings::lns(&config, secrets.tunnel.clone())),
            dhcp: settings::dhcp(&config),
            config: Box::new(config),
            secrets,
            rng,
            responder,
            slots: Slots::new(most),
            sessions: HashMap::new(),
            by_user: HashMap::new(),
            next_session: 0,
            pool,
            routes: Routes::default(),
            prefixes,
            results: BTreeMap::new(),
            clock: (now, unix),
            export_keys: false,
            life: Life::Serving,
            replies: VecDeque::new(),
            transmits: DatagramBatch::new(),
            packets: PacketBatch::new(),
            events: VecDeque::new(),
            report_changed: true,
            recount: false,
            counters: Counters::default(),
        }
    }

    /// Whether keys are told as [`Event::Keys`] from the next peer on. Whoever reads them reads the traffic.
    pub fn export_keys(&mut self, export: bool) {
        self.export_keys = export;
        self.responder.configure(settings::responder(&self.config, &self.secrets.ike, export));
    }

    /// Takes a datagram that came from `remote` to `local`, at the socket of `port`; ESP is opened in place.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        port: Port,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &mut [u8],
    ) {
        match (port, esp::classify(datagram)) {
            (Port::Ike, _) => self.handle_isakmp(now, port, local, remote, datagram),
            (Port::NatT, esp::Datagram::Isakmp(message)) => self.handle_isakmp(now, port, local, remote, message),
            (Port::NatT, esp::Datagram::Esp { spi }) => self.handle_esp(now, spi, remote, datagram),
            (Port::NatT, esp::Datagram::Keepalive | esp::Datagram::Short) => {}
        }
    }

    //= rfc3947 3 "The NAT may change the IKE UDP source port, and recipients MUST be able to process IKE packets whose source port is different from 500."
    //= test: a_client_dials_in_and_packets_go_both_ways, message_3_is_taken_only_from_where_message_1_came_from_and_for_a_minute_at_most
    fn handle_isakmp(&mut self, now: Instant, port: Port, local: SocketAddr, remote: SocketAddr, message: &[u8]) {
        if let Some(slot) = ike::cookies(message).and_then(|cookies| self.slots.by_cookie(cookies)) {
            return self.with(now, slot, |peer, context| peer.handle_isakmp(context, port, remote, message));
        }
        self.responder.set_half_open(self.slots.half_open());
        match self.responder.handle_message(now, port, local, remote, message) {
            Answer::Ignored(_) => {}
            Answer::Reply(mut reply) => {
                if self.replies.len() < MAX_REPLIES {
                    if port == Port::NatT {
                        //= rfc3947 4 "In addition, the IKE data MUST be prepended with a non-ESP marker allowing for demultiplexing of traffic, as defined in [RFC3948]."
                        //= test: a_client_dials_in_and_packets_go_both_ways, port_4500_is_demultiplexed
                        //= rfc3947 4 "Any implementation that supports NAT traversal MUST support negotiations that begin on port 4500."
                        //= test: a_negotiation_that_begins_on_port_4500_is_answered_there, a_main_mode_that_begins_on_port_4500_stays_there
                        reply.splice(..0, esp::NON_ESP_MARKER);
                    }
                    self.replies.push_back((port, Way { local: Some(local.ip()), remote }, reply));
                }
            }
            Answer::Admitted(ike) if self.life == Life::Serving => {
                let origin = Origin {
                    slot: 0,
                    ike: *ike,
                    port,
                    local,
                    remote,
                    path_mtu: USUAL_MTU,
                    export_keys: self.export_keys,
                };
                self.admit(now, origin, message);
            }
            Answer::Admitted(_) => {}
        }
    }

    /// Keeps a stranger who is there for certain.
    fn admit(&mut self, now: Instant, mut origin: Origin, message: &[u8]) {
        let (port, remote) = (origin.port, origin.remote);
        if self.slots.of_source(remote.ip()) >= self.config.limits.peers_per_source {
            return self.counters.refuse_peer("source_limit");
        }
        if self.slots.half_open() >= MAX_HALF_OPEN
            && let Some(oldest) = self.slots.oldest_half_open()
        {
            drop(self.slots.remove(oldest));
        }
        let Some(slot) = self.slots.vacant() else { return self.counters.refuse_peer("limit") };
        origin.slot = slot;
        origin.ike.set_spi_space(slots::spi_space(slot));
        let cookies: Vec<_> = origin.ike.own_cookies().collect();
        let (slots, mut context) = self.parts(now);
        slots.occupy(slot, Peer::new(origin, &mut context), remote.ip());
        cookies.into_iter().for_each(|cookie| slots.add_cookie(slot, cookie));
        self.with(now, slot, |peer, context| peer.handle_isakmp(context, port, remote, message));
    }

    //= rfc3948 5.1 "Implementors MUST devise ways of preventing this from occurring."
    //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, nobody_sends_in_the_name_of_another_or_to_where_nothing_is_forwarded
    //= rfc3948 5.2 "Implementations MUST handle this situation, either by disallowing conflicting connections, or by other means."
    //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, a_client_that_moves_is_followed_on_its_first_authentic_packet
    //= rfc3948 5.2 "For security guarantees, the above problematic scenario MUST NOT be allowed on servers."
    //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, nobody_sends_in_the_name_of_another_or_to_where_nothing_is_forwarded
    //= out: rfc3948 1 "IPsec tunnel mode clients MUST support tunnel mode." L2TP travels in transport mode (RFC 3193 section 2.1)
    //= out: rfc3948 3.1.1 "Depending on local policy, one of the following MUST be done:" L2TP travels in transport mode (RFC 3193 section 2.1)
    //= out: rfc3948 3.1.2 "Tunnel mode TCP checksums MUST be verified." L2TP travels in transport mode (RFC 3193 section 2.1)
    //= rfc3948 Appendix.A "Sections 5.1 and 5.2 say that you MUST avoid this problem."
    //= test: many_clients_behind_one_nat_with_one_inner_address_are_all_served, nobody_sends_in_the_name_of_another_or_to_where_nothing_is_forwarded
    fn handle_esp(&mut self, now: Instant, spi: u32, remote: SocketAddr, packet: &mut [u8]) {
        let slot = slots::of_spi(spi);
        let (slots, mut context) = self.parts(now);
        let Some(peer) = slots.get_mut(slot) else { return context.counters.drop_packet("unknown_spi") };
        let received = peer.handle_esp(&mut context, spi, remote, packet);
        match received {
            Some((session, packet)) => {
                let news = peer.has_news();
                self.deliver(now, slot, session, packet);
                if news {
                    self.settle(now, slot);
                }
            }
            None => self.settle(now, slot),
        }
    }

    /// The peers, and what they need.
    fn parts(&mut self, now: Instant) -> (&mut Slots, Context<'_>) {
        let context = Context {
            now,
            config: &self.config,
            lns: &self.lns,
            eap_tls: self.secrets.eap_tls.as_ref(),
            rng: &mut self.rng,
            next_session: &mut self.next_session,
            counters: &mut self.counters,
        };
        (&mut self.slots, context)
    }

    /// Does something with a peer and all that follows from it.
    fn with(&mut self, now: Instant, slot: u32, act: impl FnOnce(&mut Peer, &mut Context<'_>)) {
        let (slots, mut context) = self.parts(now);
        let Some(peer) = slots.get_mut(slot) else { return };
        act(peer, &mut context);
        self.settle(now, slot);
    }

    /// Takes over what a peer says, and notes when it is due and that it has something to send.
    fn settle(&mut self, now: Instant, slot: u32) {
        loop {
            let Some(peer) = self.slots.get_mut(slot) else { return };
            let Some(step) = peer.poll_step() else { break };
            self.take(now, slot, step);
        }
        self.slots.touch(slot, &self.config);
    }

    fn take(&mut self, now: Instant, slot: u32, step: Step) {
        match step {
            Step::Cookie { cookie, alive: true } => self.slots.add_cookie(slot, cookie),
            Step::Cookie { cookie, alive: false } => self.slots.remove_cookie(slot, cookie),
            Step::Agreed => self.count_sessions(),
            Step::Established { initial_contact } => self.established(now, slot, initial_contact),
            Step::InitialContact => self.probe_others(now, slot),
            Step::Authenticate { session, request } => self.authenticate(now, slot, session, request),
            Step::Up { session } => self.session_up(session),
            Step::Advertise { session } => self.advertise(now, slot, session),
            Step::Ended { session, cause } => self.session_ended(slot, &session, cause),
            Step::Keys(row) => self.event(Event::Keys(row)),
        }
    }

    /// A peer has proved itself. If it is one that is there already, and renews phase 1, both become one.
    fn established(&mut self, now: Instant, slot: u32, initial_contact: bool) {
        if let Some(known) = self.known_as(now, slot) {
            // What it has still to say leaves first.
            self.send(slot);
            let Some(newer) = self.slots.remove(slot) else { return };
            return self.with(now, known, |peer, context| peer.absorb(context, newer));
        }
        if let Some(peer) = self.slots.get(slot) {
            peer.prove(&mut self.responder);
            if let Some(way) = peer.way(Port::NatT) {
                self.event(Event::Peer(way));
            }
        }
        if initial_contact {
            self.probe_others(now, slot);
        }
    }

    //= rfc3947 6 "The source IP and port address of the INITIAL-CONTACT notification for the host behind NAT are not meaningful (as NAT can change them), so the IP and port numbers MUST NOT be used to determine which IKE/IPsec SAs to remove (see [RFC3715], section 2.1, case c)."
    //= test: initial_contact_is_reported_and_deletes_nothing, many_clients_behind_one_nat_with_one_inner_address_are_all_served
    //= out: rfc3947 6 "The ID payload sent from the other end SHOULD be used instead; i.e., when an INITIAL-CONTACT notification is received from the other end, the receiving end SHOULD remove all the SAs associated with the same ID payload." behind NATs many have one private address as their identity: they are probed, and those that do not answer go
    /// A peer says that it begins anew. Only a hint: behind a NAT many have the same name (RFC 3947 section 6). Those that are
    /// gone do not answer.
    fn probe_others(&mut self, now: Instant, slot: u32) {
        for other in self.slots.of_same_source(slot).take(MAX_PROBED).collect::<Vec<_>>() {
            self.with(now, other, |peer, context| peer.probe(context));
        }
    }

    /// The peer that the one in `slot` is once more: in the same place, under the same name, and heard of not long ago.
    fn known_as(&self, now: Instant, slot: u32) -> Option<u32> {
        let newer = self.slots.get(slot)?;
        let remote = newer.remote()?;
        let known = self.slots.at(remote).filter(|known| *known != slot)?;
        let peer = self.slots.get(known)?;
        let alive = now.saturating_duration_since(peer.last_heard()) <= SAME_PEER;
        (alive && !peer.is_half_open() && peer.identity() == newer.identity()).then_some(known)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(slot) = self.slots.pop_due(now) {
            self.with(now, slot, |peer, context| peer.handle_timeout(context));
            if self.slots.get(slot).is_some_and(Peer::is_gone) {
                self.send(slot);
                drop(self.slots.remove(slot));
            }
        }
        self.finish(now);
    }

    /// When [`Server::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let closing = if let Life::Closing(at) = self.life { Some(at) } else { None };
        self.slots.next_due().into_iter().chain(closing).min()
    }

    /// Ends every session and every peer in order; [`Event::Closed`] follows within two seconds.
    pub fn close(&mut self, now: Instant) {
        if self.life != Life::Serving {
            return;
        }
        self.life = Life::Closing(now + CLOSE_LIMIT);
        for slot in self.slots.all() {
            self.with(now, slot, |peer, context| peer.close(context, EndCause::Stopping));
        }
        self.finish(now);
    }

    fn finish(&mut self, now: Instant) {
        if matches!(self.life, Life::Closing(at) if at <= now || self.slots.is_empty()) {
            self.life = Life::Closed;
            self.event(Event::Closed);
        }
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.recount();
        std::mem::take(&mut self.report_changed).then_some(Event::ReportChanged)
    }

    /// Datagrams to send. Send them, clear the batch, and call again until it is empty.
    pub fn transmits(&mut self) -> &mut DatagramBatch {
        while !self.transmits.is_full()
            && let Some((port, way, reply)) = self.replies.pop_front()
        {
            self.transmits.push(port, way, &reply);
        }
        while !self.transmits.is_full()
            && let Some(slot) = self.slots.pop_sender()
        {
            self.send(slot);
        }
        &mut self.transmits
    }

    /// Lets a peer say what it has to say, as far as there is room.
    fn send(&mut self, slot: u32) {
        let Some(peer) = self.slots.get_mut(slot) else { return };
        if peer.fill(&mut self.transmits, &mut self.counters) {
            self.slots.push_sender(slot);
        } else if peer.is_gone() {
            drop(self.slots.remove(slot));
        }
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

    /// What the responder counted.
    pub fn responder(&self) -> &ike::ResponderStatistics {
        self.responder.statistics()
    }

    /// Peers that have not proved themselves, and all of them.
    pub fn peers(&self) -> (usize, usize) {
        (self.slots.half_open(), self.slots.len())
    }

    /// Every session that is up.
    pub fn sessions(&self) -> impl Iterator<Item = SessionInfo> {
        self.slots.iter().flat_map(|peer| peer.sessions().filter_map(|session| peer.info(session)))
    }

    /// A session that is up.
    pub fn session(&self, id: u64) -> Option<SessionInfo> {
        let peer = self.slots.get(*self.sessions.get(&id)?)?;
        peer.sessions().find(|session| session.id == id).and_then(|session| peer.info(session))
    }

    /// The path to `remote` takes IP packets of at most `mtu` octets, says the network.
    pub fn handle_path_mtu(&mut self, now: Instant, remote: SocketAddr, mtu: u16) {
        if let Some(slot) = self.slots.at(remote) {
            self.with(now, slot, |peer, context| peer.handle_path_mtu(context, mtu));
        }
    }

    /// Ends a session, because somebody asked for it; false when there is none of that number.
    pub fn disconnect(&mut self, now: Instant, session: u64) -> bool {
        self.end_session(now, session, EndCause::Administrative)
    }

    fn end_session(&mut self, now: Instant, session: u64, cause: EndCause) -> bool {
        let Some(slot) = self.sessions.get(&session).copied() else { return false };
        self.with(now, slot, |peer, context| peer.end_session(context, session, cause));
        true
    }

    /// Tells the state of a layer that the process knows of.
    pub fn set(&mut self, layer: Layer, state: State, reason: Reason, message: &str) {
        self.report_changed |= self.report.set(layer, state, reason, message);
    }

    /// A newer configuration cannot be used; the server goes on with the one it has.
    pub fn reject(&mut self, rejected: RejectedRevision) {
        if self.report.rejected_revision.as_ref() != Some(&rejected) {
            self.report.rejected_revision = Some(rejected);
            self.report_changed = true;
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        } else {
            tracing::error!("an event of the server is lost");
        }
    }

    /// Seconds since the Unix epoch.
    fn unix(&self, now: Instant) -> u64 {
        let (at, seconds) = self.clock;
        seconds.saturating_add(now.saturating_duration_since(at).as_secs())
    }

    /// Takes the time of the wall clock, which may be set while the process runs.
    pub fn set_clock(&mut self, now: Instant, unix: u64) {
        self.clock = (now, unix);
    }
}

/// The peer's address, without its port.
fn source(remote: SocketAddr) -> IpAddr {
    remote.ip()
}

#[cfg(test)]
mod tests;
