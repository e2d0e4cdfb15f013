//! The client of RADIUS servers: what a process asks, tells and is told, without sockets.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

use super::access::{Access, eap_id};
use super::accounting::{Account, Accounting, Moment, Status, Traffic};
use super::attribute::{Attribute, Code, TerminateCause};
use super::dynamic::{Disconnect, Dynamic};
use super::exchange::{Datagram, Dropped, Endpoint, Exchanges, Patience, Standing};
use super::packet::Packet;
use super::{SessionIds, SessionInfo};
use crate::aaa::{self, Cause, Proof, Refusal, Verdict};

/// The most conversations of EAP in which a server waits for the peer; the oldest is forgotten beyond.
pub const MAX_CONVERSATIONS: usize = 65_536;

/// A server.
#[derive(Clone)]
pub struct Server {
    /// Where it is; `None` when its name does not resolve or its secret is not there.
    pub address: Option<IpAddr>,
    /// The port of authentication.
    pub port: u16,
    /// The port of accounting; no accounting with 0.
    pub accounting_port: u16,
    /// The shared secret.
    pub secret: Zeroizing<Vec<u8>>,
}

/// What a client is told once, and again when it changes.
#[derive(Clone)]
pub struct Settings {
    /// In the order of preference.
    pub servers: Vec<Server>,
    /// After which a server is asked again.
    pub timeout: Duration,
    /// How often one server is asked before the next is.
    pub tries: u32,
    /// The time between interim updates, unless a server says another.
    pub interim: Option<Duration>,
    /// NAS-Identifier.
    pub nas_identifier: String,
}

impl Settings {
    fn patience(&self) -> Patience {
        Patience { timeout: self.timeout, tries: self.tries }
    }

    fn endpoints(&self, port: impl Fn(&Server) -> u16) -> Vec<Endpoint> {
        let endpoint = |server: &Server| Endpoint {
            address: server.address.filter(|_| port(server) != 0).map(|ip| SocketAddr::new(ip, port(server))),
            secret: server.secret.clone(),
        };
        self.servers.iter().map(endpoint).collect()
    }

    fn accounts(&self) -> bool {
        self.servers.iter().any(|server| server.accounting_port != 0)
    }
}

/// What comes of all that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to [`Client::request`].
    Answered {
        /// The session's.
        key: u64,
        /// What the server says, or that no server says anything.
        verdict: Verdict,
    },
    /// [`Client::update`] is to be called with the traffic of the session.
    InterimDue {
        /// The session's.
        key: u64,
    },
    /// A server wants sessions ended; [`Client::disconnected`] is to be called.
    Disconnect(Disconnect),
}

/// Counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests of authentication.
    pub requests: u64,
    /// Those that were accepted.
    pub accepted: u64,
    /// Those that were refused by a server.
    pub rejected: u64,
    /// Those that were answered with another round of EAP.
    pub challenged: u64,
    /// Those that no server has answered.
    pub unanswered: u64,
    /// Packets that were sent again, of authentication and accounting.
    pub repeated: u64,
    /// Records of accounting that a server has.
    pub acknowledged: u64,
    /// Records of accounting that were dropped because servers did not take them in time.
    pub lost: u64,
    /// Disconnect-Requests that ended a session.
    pub disconnected: u64,
    /// Requests of servers that were refused.
    pub refused: u64,
    /// Datagrams that were dropped.
    pub dropped: BTreeMap<Dropped, u64>,
}

/// A conversation of EAP in which the peer has to answer.
struct Conversation {
    server: usize,
    state: Option<Vec<u8>>,
    /// The Identifier of the request that the peer has to answer.
    id: Option<u8>,
}

/// The client.
pub struct Client {
    settings: Settings,
    nas_identifier: Arc<str>,
    ids: SessionIds,
    authentication: Exchanges<u64, Access>,
    conversations: BTreeMap<u64, Conversation>,
    accounting: Accounting,
    dynamic: Dynamic,
    events: VecDeque<Event>,
    statistics: Statistics,
}

impl Client {
    /// A client of a process that started at a time in seconds since the Unix epoch.
    pub fn new(settings: Settings, started: u64, mut rng: StdRng) -> Self {
        let authentication =
            Exchanges::new(settings.endpoints(|server| server.port), settings.patience(), StdRng::from_rng(&mut rng));
        let records = Exchanges::new(
            settings.endpoints(|server| server.accounting_port),
            settings.patience(),
            StdRng::from_rng(&mut rng),
        );
        Self {
            nas_identifier: settings.nas_identifier.as_str().into(),
            ids: SessionIds::new(started, rng.next_u32()),
            authentication,
            conversations: BTreeMap::new(),
            accounting: Accounting::new(records, settings.accounts(), settings.timeout),
            dynamic: Dynamic::default(),
            events: VecDeque::new(),
            statistics: Statistics::default(),
            settings,
        }
    }

    /// Takes other servers, or other addresses and secrets of theirs. Requests that are under way begin anew, except for
    /// conversations of EAP, which a server that is not asked first may not know.
    pub fn configure(&mut self, now: Instant, settings: Settings) {
        let patience = settings.patience();
        self.conversations.clear();
        self.authentication.configure(now, settings.endpoints(|server| server.port), patience);
        let records = settings.endpoints(|server| server.accounting_port);
        self.accounting.configure(now, records, patience, settings.accounts());
        self.nas_identifier = settings.nas_identifier.as_str().into();
        self.settings = settings;
        self.settle();
    }

    /// Asks about somebody. `key` is the session's, and of no other session while the process lives. Another request of the
    /// same session takes the place of the one before.
    pub fn request(&mut self, now: Instant, key: u64, request: aaa::Request, session: SessionInfo) {
        self.statistics.requests = self.statistics.requests.saturating_add(1);
        let conversation = match &request.proof {
            // Another identifier is that of a conversation that begins (RFC 5080 section 2.1.1).
            Proof::Eap { packet } => {
                self.conversations.get(&key).filter(|known| known.id.is_some() && known.id == eap_id(packet))
            }
            _ => None,
        };
        let access = Access {
            request,
            session,
            session_id: self.ids.of(key),
            nas_identifier: Arc::clone(&self.nas_identifier),
            conversation: conversation.map(|known| (known.server, known.state.clone())),
        };
        if let Some(cause) = access.obstacle() {
            return self.answer(key, Verdict::Reject(Refusal::new(cause)));
        }
        self.authentication.ask(now, key, access);
        self.settle();
    }

    /// The session is no more: its request is given up.
    pub fn forget(&mut self, now: Instant, key: u64) {
        self.authentication.cancel(now, key);
        self.conversations.remove(&key);
        self.settle();
    }

    /// Tells servers that the process has begun to account (RFC 2866 section 5.1): sessions of another life are over.
    pub fn accounting_on(&mut self, now: Instant, unix: u64) {
        self.accounting.process(Moment { now, unix }, Status::On, self.ids.own(), &self.nas_identifier);
    }

    /// Tells servers that the process ends.
    pub fn accounting_off(&mut self, now: Instant, unix: u64) {
        self.accounting.process(Moment { now, unix }, Status::Off, self.ids.own(), &self.nas_identifier);
    }

    /// A session begins.
    pub fn start(&mut self, now: Instant, unix: u64, key: u64, account: Account) {
        let at = Moment { now, unix };
        self.accounting.start(at, key, account, self.ids.of(key), &self.nas_identifier);
    }

    /// A session lasts; one that was not started is not accounted.
    pub fn update(&mut self, now: Instant, unix: u64, key: u64, traffic: Traffic) {
        self.accounting.update(Moment { now, unix }, key, traffic, &self.nas_identifier);
    }

    /// A session is over.
    pub fn stop(&mut self, now: Instant, unix: u64, key: u64, traffic: Traffic, cause: TerminateCause) {
        self.accounting.stop(Moment { now, unix }, key, traffic, cause, &self.nas_identifier);
    }

    /// Whether servers have every record.
    pub fn is_accounted(&self) -> bool {
        self.accounting.is_idle()
    }

    /// An answer of a server.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if let Err(reason) = self.handle_answer(now, from, datagram) {
            self.count_dropped(reason, from);
        }
        self.settle();
    }

    fn handle_answer(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), Dropped> {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let packet = Packet::parse(datagram).map_err(|_| Dropped::Malformed)?;
        if packet.code == Code::ACCOUNTING_RESPONSE {
            return self.accounting.handle_datagram(now, from, packet);
        }
        let answered = self.authentication.handle_datagram(now, from, packet)?;
        let verdict = answered.ask.verdict(&answered.packet, self.settings.interim);
        let counter = match &verdict {
            Verdict::Accept(_) => &mut self.statistics.accepted,
            Verdict::Reject(_) => &mut self.statistics.rejected,
            Verdict::Challenge { .. } => &mut self.statistics.challenged,
        };
        *counter = counter.saturating_add(1);
        self.conversations.remove(&answered.key);
        if let Verdict::Challenge { packet } = &verdict {
            let state = answered.packet.first(Attribute::STATE).map(<[u8]>::to_vec);
            if self.conversations.len() >= MAX_CONVERSATIONS {
                self.conversations.pop_first();
            }
            let conversation = Conversation { server: answered.server, state, id: eap_id(packet) };
            self.conversations.insert(answered.key, conversation);
        }
        self.answer(answered.key, verdict);
        Ok(())
    }

    /// A datagram at the port for requests of servers (RFC 5176), at a time in seconds since the Unix epoch.
    pub fn handle_request(&mut self, unix: u64, from: SocketAddr, datagram: &[u8]) {
        let secrets =
            self.settings.servers.iter().filter(|server| {
                server.address.is_some_and(|address| address.to_canonical() == from.ip().to_canonical())
            });
        let secrets = secrets.map(|server| server.secret.as_slice());
        match self.dynamic.handle_request(unix, from, datagram, secrets, &self.ids, &self.nas_identifier) {
            Ok(disconnect) => self.events.extend(disconnect.map(Event::Disconnect)),
            Err(reason) => self.count_dropped(reason, from),
        }
    }

    /// The answer to [`Event::Disconnect`]: whether a session was there, and is over.
    pub fn disconnected(&mut self, token: u64, found: bool) {
        self.dynamic.disconnected(token, found);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.authentication.handle_timeout(now);
        self.accounting.handle_timeout(now);
        self.settle();
    }

    /// When time has to pass next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.authentication.poll_timeout(), self.accounting.poll_timeout()].into_iter().flatten().min()
    }

    /// A datagram for a server.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.authentication.poll_transmit().or_else(|| self.accounting.exchanges.poll_transmit())
    }

    /// An answer to a request of a server, which leaves from the port where that came in.
    pub fn poll_answer(&mut self) -> Option<Datagram> {
        self.dynamic.poll_answer()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is known of each server of the settings with regard to authentication.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        self.authentication.standings()
    }

    /// What was counted.
    pub fn statistics(&self) -> Statistics {
        let (acknowledged, lost) = self.accounting.statistics();
        let repeated = self.authentication.repeated().saturating_add(self.accounting.exchanges.repeated());
        let (disconnected, refused) = self.dynamic.statistics();
        Statistics { acknowledged, lost, repeated, disconnected, refused, ..self.statistics.clone() }
    }

    /// Turns what the parts have to say into events.
    fn settle(&mut self) {
        while let Some((key, _)) = self.authentication.poll_failed() {
            self.statistics.unanswered = self.statistics.unanswered.saturating_add(1);
            self.answer(key, Verdict::Reject(Refusal::new(Cause::RadiusSilent)));
        }
        while let Some(key) = self.accounting.poll_due() {
            self.events.push_back(Event::InterimDue { key });
        }
    }

    fn answer(&mut self, key: u64, verdict: Verdict) {
        self.events.push_back(Event::Answered { key, verdict });
    }

    fn count_dropped(&mut self, reason: Dropped, from: SocketAddr) {
        tracing::debug!(%from, reason = reason.name(), "RADIUS packet dropped");
        let count = self.statistics.dropped.entry(reason).or_default();
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
