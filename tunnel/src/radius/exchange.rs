//! Requests and their answers over several servers (RFC 2865 section 2.5, RFC 5080 section 2.2): identifiers, repetition, and
//! the next server when one is silent. One for authentication and one for accounting, whose servers are silent each for
//! themselves.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::attribute::Code;
use super::packet::{AUTHENTICATOR, Integrity, Packet, TooLong};

/// The most requests that wait for an answer or for an identifier.
pub(super) const MAX_PENDING: usize = 4_096;
/// The identifiers of one server: requests that it has not answered.
const IDENTIFIERS: usize = 256;
/// How long a server that was silent is asked last.
const SILENCE: Duration = Duration::from_secs(60);
/// The part of a pause that is left to chance, to either side (RFC 5080 section 2.2.1).
const JITTER: f64 = 0.1;

/// What is asked for.
pub(super) trait Ask {
    /// The codes of its answers.
    const ANSWERS: &'static [Code];
    /// Whether an answer without a Message-Authenticator counts.
    const DEMANDS_INTEGRITY: bool;
    /// Whether a repetition differs from what was sent before, and needs an identifier of its own.
    const DIFFERS: bool;

    /// The packet for a server with this secret.
    fn write(&self, now: Instant, id: u8, secret: &[u8], rng: &mut StdRng) -> Result<Vec<u8>, TooLong>;

    /// The one server that can answer, counted from 0; any if none is given.
    fn server(&self) -> Option<usize>;
}

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// The packet.
    pub octets: Vec<u8>,
}

/// A server in one of its roles.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Where it is; `None` for a name that does not resolve and for a role that it does not have.
    pub(super) address: Option<SocketAddr>,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

/// How long a server is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// After which a request is repeated.
    pub(super) timeout: Duration,
    /// How often one server is asked.
    pub(super) tries: u32,
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dropped {
    /// It is no RADIUS packet.
    Malformed,
    /// It comes from nobody that is known, or belongs to no request that waits.
    Unexpected,
    /// Its authenticator is wrong: the shared secret differs, or somebody else has written it.
    WrongAuthenticator,
    /// It has no Message-Authenticator.
    NoMessageAuthenticator,
    /// Its Message-Authenticator is wrong.
    WrongMessageAuthenticator,
    /// Its Event-Timestamp is of another time (RFC 5176 section 6.3).
    Stale,
    /// There is no room to remember it.
    Full,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Malformed,
        Self::Unexpected,
        Self::WrongAuthenticator,
        Self::NoMessageAuthenticator,
        Self::WrongMessageAuthenticator,
        Self::Stale,
        Self::Full,
    ];

    /// The reason as the label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
            Self::WrongAuthenticator => "wrong_authenticator",
            Self::NoMessageAuthenticator => "no_message_authenticator",
            Self::WrongMessageAuthenticator => "wrong_message_authenticator",
            Self::Stale => "stale",
            Self::Full => "full",
        }
    }
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it was not asked, or nobody had to wait too long yet.
    Unasked,
    /// It answers.
    Answers,
    /// Nothing comes back.
    Silent,
    /// What comes back cannot be used.
    Unusable(Dropped),
}

/// An answer that is the server's, with what was asked.
pub(super) struct Answered<'a, K, A> {
    pub(super) key: K,
    pub(super) ask: A,
    pub(super) server: usize,
    pub(super) packet: Packet<'a>,
}

/// Requests that wait for their answers.
pub(super) struct Exchanges<K, A> {
    servers: Vec<Server<K>>,
    patience: Patience,
    pending: BTreeMap<K, Pending<A>>,
    /// Those without an identifier, in the order of their coming.
    waiting: VecDeque<K>,
    transmits: VecDeque<Datagram>,
    failed: VecDeque<(K, A)>,
    rng: StdRng,
    repeated: u64,
}

struct Server<K> {
    endpoint: Endpoint,
    /// Whose request has an identifier.
    owners: Vec<Option<K>>,
    next: u8,
    heard: Option<Instant>,
    silent_until: Option<Instant>,
    standing: Standing,
    /// Why its last answer was dropped, if none was taken since.
    dropped: Option<Dropped>,
}

struct Pending<A> {
    ask: A,
    /// Which servers were asked in vain.
    tried: Vec<bool>,
    placed: Option<Placed>,
}

/// A request that is with a server.
struct Placed {
    server: usize,
    to: SocketAddr,
    since: Instant,
    octets: Vec<u8>,
    /// The identifier and the authenticator of each packet that may still be answered.
    sent: Vec<(u8, [u8; AUTHENTICATOR])>,
    tries: u32,
    due: Instant,
}

impl<K> Server<K> {
    fn new(endpoint: Endpoint) -> Self {
        let owners = std::iter::repeat_with(|| None).take(IDENTIFIERS).collect();
        Self { endpoint, owners, next: 0, heard: None, silent_until: None, standing: Standing::Unasked, dropped: None }
    }

    /// The identifier that was free for the longest time (RFC 5080 section 2.2.2).
    fn allocate(&mut self, key: K) -> Option<u8> {
        let free = (0..IDENTIFIERS).scan(self.next, |id, _| Some(std::mem::replace(id, id.wrapping_add(1))));
        let id = free.into_iter().find(|id| self.owners.get(usize::from(*id)).is_some_and(Option::is_none))?;
        *self.owners.get_mut(usize::from(id))? = Some(key);
        self.next = id.wrapping_add(1);
        Some(id)
    }

    fn free(&mut self, id: u8) {
        if let Some(owner) = self.owners.get_mut(usize::from(id)) {
            *owner = None;
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }
}

impl<K: Ord + Copy, A: Ask> Exchanges<K, A> {
    pub(super) fn new(servers: Vec<Endpoint>, patience: Patience, rng: StdRng) -> Self {
        Self {
            servers: servers.into_iter().map(Server::new).collect(),
            patience,
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
            transmits: VecDeque::new(),
            failed: VecDeque::new(),
            rng,
            repeated: 0,
        }
    }

    /// Takes other servers. What was asked is asked again, of the first of them.
    pub(super) fn configure(&mut self, now: Instant, servers: Vec<Endpoint>, patience: Patience) {
        let known = std::mem::take(&mut self.servers);
        self.servers = servers.into_iter().map(Server::new).collect();
        for server in &mut self.servers {
            let Some(same) = known.iter().find(|known| known.endpoint.address == server.endpoint.address) else {
                continue;
            };
            // Packets of an identifier that was just in use could be taken for repetitions.
            server.next = same.next;
            if same.endpoint.secret == server.endpoint.secret {
                server.standing = same.standing;
                server.silent_until = same.silent_until;
            }
        }
        self.patience = patience;
        self.transmits.clear();
        self.waiting.clear();
        let keys: Vec<K> = self.pending.keys().copied().collect();
        for pending in self.pending.values_mut() {
            pending.placed = None;
            pending.tried.clear();
        }
        keys.into_iter().for_each(|key| self.place_or_wait(now, key));
    }

    /// Forgets every request.
    pub(super) fn clear(&mut self) {
        let keys: Vec<K> = self.pending.keys().copied().collect();
        for key in keys {
            self.take(key);
        }
        self.transmits.clear();
        self.failed.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// What is known of each server.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        self.servers.iter().map(|server| server.standing)
    }

    /// How often a request was repeated.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Asks; a request of the same key is forgotten. It fails at once when too many wait.
    pub(super) fn ask(&mut self, now: Instant, key: K, ask: A) {
        self.cancel(now, key);
        if self.pending.len() >= MAX_PENDING {
            return self.failed.push_back((key, ask));
        }
        self.pending.insert(key, Pending { ask, tried: Vec::new(), placed: None });
        self.place_or_wait(now, key);
    }

    /// Forgets a request.
    pub(super) fn cancel(&mut self, now: Instant, key: K) {
        self.take(key);
        self.admit(now);
    }

    pub(super) fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: Packet<'a>,
    ) -> Result<Answered<'a, K, A>, Dropped> {
        let (key, index) = self.find(from, packet.id).ok_or(Dropped::Unexpected)?;
        let placed = self.pending.get(&key).and_then(|pending| pending.placed.as_ref()).ok_or(Dropped::Unexpected)?;
        let sent = placed.sent.iter().find(|(id, _)| *id == packet.id).ok_or(Dropped::Unexpected)?;
        let server = self.servers.get_mut(index).ok_or(Dropped::Unexpected)?;
        let (_, authenticator) = sent;
        if let Err(reason) = check::<A>(&packet, authenticator, &server.endpoint.secret) {
            server.dropped = Some(reason);
            return Err(reason);
        }
        server.heard = Some(now);
        server.silent_until = None;
        server.standing = Standing::Answers;
        server.dropped = None;
        let pending = self.take(key).ok_or(Dropped::Unexpected)?;
        self.admit(now);
        Ok(Answered { key, ask: pending.ask, server: index, packet })
    }

    /// Whose request an answer belongs to, and with which server it is.
    fn find(&self, from: SocketAddr, id: u8) -> Option<(K, usize)> {
        let servers = self.servers.iter().enumerate().filter(|(_, server)| server.endpoint.address == Some(from));
        servers.filter_map(|(index, server)| Some(((*server.owners.get(usize::from(id))?)?, index))).next()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_due = |pending: &Pending<A>| pending.placed.as_ref().is_some_and(|placed| placed.due <= now);
        let due: Vec<K> = self.pending.iter().filter(|(_, pending)| is_due(pending)).map(|(key, _)| *key).collect();
        for key in due {
            self.repeat(now, key);
        }
        self.admit(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().filter_map(|pending| pending.placed.as_ref()).map(|placed| placed.due).min()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Datagram> {
        self.transmits.pop_front()
    }

    /// A request that no server has answered.
    pub(super) fn poll_failed(&mut self) -> Option<(K, A)> {
        self.failed.pop_front()
    }

    fn place_or_wait(&mut self, now: Instant, key: K) {
        if self.place(now, key).is_none() {
            self.waiting.push_back(key);
        }
    }

    /// Gives a request to the first server that it was not with; `None` when that has no identifier left.
    fn place(&mut self, now: Instant, key: K) -> Option<()> {
        let Some(pending) = self.pending.get_mut(&key) else { return Some(()) };
        pending.tried.resize(self.servers.len(), false);
        let bound = pending.ask.server();
        let tried = &pending.tried;
        let candidates = self.servers.iter_mut().enumerate().filter(|(index, server)| {
            let can_answer = bound.is_none_or(|bound| bound == *index);
            can_answer && server.endpoint.address.is_some() && !tried.get(*index).copied().unwrap_or_default()
        });
        let best = candidates.min_by_key(|(index, server)| (server.is_silent(now), *index));
        let addressed = best.and_then(|(index, server)| Some((index, server.endpoint.address?, server)));
        let Some((index, to, server)) = addressed else {
            self.fail(key);
            return Some(());
        };
        let id = server.allocate(key)?;
        let Ok(octets) = pending.ask.write(now, id, &server.endpoint.secret, &mut self.rng) else {
            server.free(id);
            self.fail(key);
            return Some(());
        };
        let due = now + jittered(self.patience.timeout, &mut self.rng);
        let sent = vec![(id, authenticator(&octets))];
        self.transmits.push_back(Datagram { to, octets: octets.clone() });
        pending.placed = Some(Placed { server: index, to, since: now, octets, sent, tries: 1, due });
        Some(())
    }

    /// Nothing has come: once more, or the next server.
    fn repeat(&mut self, now: Instant, key: K) {
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let Some(placed) = &mut pending.placed else { return };
        let Some(server) = self.servers.get_mut(placed.server) else { return };
        if placed.tries >= self.patience.tries {
            if server.heard.is_none_or(|heard| heard < placed.since) {
                server.silent_until = Some(now + SILENCE);
                server.standing = server.dropped.map_or(Standing::Silent, Standing::Unusable);
            }
            placed.sent.iter().for_each(|(id, _)| server.free(*id));
            if let Some(tried) = pending.tried.get_mut(placed.server) {
                *tried = true;
            }
            pending.placed = None;
            return self.place_or_wait(now, key);
        }
        placed.tries = placed.tries.saturating_add(1);
        placed.due = now + jittered(self.patience.timeout, &mut self.rng);
        // Without an identifier for another packet, the one that is there goes once more.
        if A::DIFFERS
            && let Some(id) = server.allocate(key)
        {
            match pending.ask.write(now, id, &server.endpoint.secret, &mut self.rng) {
                Ok(octets) => {
                    placed.sent.push((id, authenticator(&octets)));
                    placed.octets = octets;
                }
                Err(TooLong) => server.free(id),
            }
        }
        self.repeated = self.repeated.saturating_add(1);
        self.transmits.push_back(Datagram { to: placed.to, octets: placed.octets.clone() });
    }

    /// Gives identifiers that have become free to those who wait for one.
    fn admit(&mut self, now: Instant) {
        while let Some(key) = self.waiting.pop_front() {
            if self.place(now, key).is_none() {
                return self.waiting.push_front(key);
            }
        }
    }

    fn fail(&mut self, key: K) {
        if let Some(pending) = self.take(key) {
            self.failed.push_back((key, pending.ask));
        }
    }

    /// Forgets a request and makes its identifiers free.
    fn take(&mut self, key: K) -> Option<Pending<A>> {
        let pending = self.pending.remove(&key)?;
        match &pending.placed {
            Some(placed) => {
                if let Some(server) = self.servers.get_mut(placed.server) {
                    placed.sent.iter().for_each(|(id, _)| server.free(*id));
                }
            }
            None => self.waiting.retain(|waiting| *waiting != key),
        }
        Some(pending)
    }
}

/// Whether an answer is the server's.
fn check<A: Ask>(packet: &Packet<'_>, request: &[u8; AUTHENTICATOR], secret: &[u8]) -> Result<(), Dropped> {
    if !packet.is_from(request, secret) {
        return Err(Dropped::WrongAuthenticator);
    }
    match packet.integrity(request, secret) {
        Integrity::Refuted => Err(Dropped::WrongMessageAuthenticator),
        Integrity::Absent if A::DEMANDS_INTEGRITY => Err(Dropped::NoMessageAuthenticator),
        _ if A::ANSWERS.contains(&packet.code) => Ok(()),
        _ => Err(Dropped::Unexpected),
    }
}

fn authenticator(octets: &[u8]) -> [u8; AUTHENTICATOR] {
    octets.get(4..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

fn jittered(pause: Duration, rng: &mut StdRng) -> Duration {
    pause.mul_f64(1.0 + JITTER * (2.0 * rng.random::<f64>() - 1.0))
}
