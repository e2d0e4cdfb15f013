//! Accounting (RFC 2866, RFC 2869 section 2.1): the records of sessions, kept until a server has them.
//!
//! Records of one session go out one after the other, so that a server never sees the end before the start; sessions do not
//! wait for each other, and nothing waits for accounting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::SessionInfo;
use super::attribute::{Attribute, Authentic, Code, StatusType, TerminateCause};
use super::exchange::{Ask, Dropped, Endpoint, Exchanges, Patience};
use super::packet::{AUTHENTICATOR, Builder, Packet, TooLong};
use crate::config::server::MAX_SESSIONS;

/// The most records that no server has acknowledged; a new one is dropped beyond.
pub const MAX_RECORDS: usize = 16_384;
/// The most records that are with a server: each repetition takes an identifier, at most 10 of 256.
const WINDOW: usize = 24;
/// The longest pause before a record that no server has taken is sent again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A session that is accounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User-Name: [`crate::aaa::Grant::name`].
    pub name: String,
    /// Framed-IP-Address: the inner address of the peer.
    pub address: Ipv4Addr,
    /// What was told of the session before.
    pub info: SessionInfo,
    /// Class: [`crate::aaa::Grant::class`].
    pub class: Vec<Vec<u8>>,
    /// Who has authenticated the user.
    pub authentic: Authentic,
    /// How often [`super::Event::InterimDue`] asks for the traffic.
    pub interim: Option<Duration>,
}

/// What a session has carried so far, as the network sees it: input comes from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Octets of packets from the peer.
    pub input_octets: u64,
    /// Octets of packets to the peer.
    pub output_octets: u64,
    /// Packets from the peer.
    pub input_packets: u64,
    /// Packets to the peer.
    pub output_packets: u64,
}

impl Traffic {
    fn write(&self, builder: &mut Builder) {
        let halves = |octets: u64| ((octets & 0xffff_ffff) as u32, (octets >> 32) as u32);
        let (input, input_gigawords) = halves(self.input_octets);
        let (output, output_gigawords) = halves(self.output_octets);
        builder
            .push_number(Attribute::ACCT_INPUT_OCTETS, input)
            .push_number(Attribute::ACCT_OUTPUT_OCTETS, output)
            .push_number(Attribute::ACCT_INPUT_GIGAWORDS, input_gigawords)
            .push_number(Attribute::ACCT_OUTPUT_GIGAWORDS, output_gigawords)
            .push_number(Attribute::ACCT_INPUT_PACKETS, halves(self.input_packets).0)
            .push_number(Attribute::ACCT_OUTPUT_PACKETS, halves(self.output_packets).0);
    }
}

/// Whose records they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Process,
    Session(u64),
}

/// What a record says.
#[derive(Clone, Copy)]
pub(super) enum Status {
    On,
    Off,
    Start,
    Interim(Traffic),
    Stop(Traffic, TerminateCause),
}

impl Status {
    fn number(self) -> StatusType {
        match self {
            Self::On => StatusType::ACCOUNTING_ON,
            Self::Off => StatusType::ACCOUNTING_OFF,
            Self::Start => StatusType::START,
            Self::Interim(_) => StatusType::INTERIM_UPDATE,
            Self::Stop(..) => StatusType::STOP,
        }
    }
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Seconds since the Unix epoch.
    pub(super) unix: u64,
}

/// An Accounting-Request.
pub(super) struct Record {
    status: Status,
    session_id: String,
    nas_identifier: Arc<str>,
    /// The session and how long it has lasted.
    session: Option<(Arc<Account>, Duration)>,
    at: Moment,
    /// How often every server was silent.
    rounds: u32,
}

impl Ask for Record {
    const ANSWERS: &'static [Code] = &[Code::ACCOUNTING_RESPONSE];
    // RFC 3579 section 3.3: a Message-Authenticator must not be in an Accounting-Request, and answers have none.
    const DEMANDS_INTEGRITY: bool = false;
    // RFC 2866 section 5.2: Acct-Delay-Time grows with each repetition.
    const DIFFERS: bool = true;

    fn write(&self, now: Instant, id: u8, secret: &[u8], _rng: &mut StdRng) -> Result<Vec<u8>, TooLong> {
        let mut builder = Builder::new(Code::ACCOUNTING_REQUEST, id);
        builder.push_number(Attribute::ACCT_STATUS_TYPE, self.status.number().0);
        match &self.session {
            None => {
                builder.push(Attribute::NAS_IDENTIFIER, self.nas_identifier.as_bytes());
                builder.push(Attribute::ACCT_SESSION_ID, self.session_id.as_bytes());
            }
            Some((account, lasted)) => {
                builder.push(Attribute::USER_NAME, account.name.as_bytes());
                account.info.write(&self.nas_identifier, &self.session_id, &mut builder);
                builder.push_number(Attribute::FRAMED_IP_ADDRESS, account.address.to_bits());
                builder.push_number(Attribute::ACCT_AUTHENTIC, account.authentic.0);
                account.class.iter().for_each(|class| {
                    builder.push(Attribute::CLASS, class);
                });
                if let Status::Interim(traffic) | Status::Stop(traffic, _) = &self.status {
                    builder.push_number(Attribute::ACCT_SESSION_TIME, seconds(lasted.as_secs()));
                    traffic.write(&mut builder);
                }
                if let Status::Stop(_, cause) = &self.status {
                    builder.push_number(Attribute::ACCT_TERMINATE_CAUSE, cause.0);
                }
            }
        }
        builder.push_number(Attribute::EVENT_TIMESTAMP, seconds(self.at.unix));
        builder.push_number(Attribute::ACCT_DELAY_TIME, seconds(now.saturating_duration_since(self.at.now).as_secs()));
        builder.finish([0; AUTHENTICATOR], secret)
    }

    fn server(&self) -> Option<usize> {
        None
    }
}

fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The sessions that are accounted.
pub(super) struct Accounting {
    pub(super) exchanges: Exchanges<Subject, Record>,
    sessions: BTreeMap<u64, Session>,
    /// Records that are not with a server, the oldest of each subject first.
    queues: BTreeMap<Subject, VecDeque<Record>>,
    /// Subjects whose oldest record may go to a server.
    ready: VecDeque<Subject>,
    /// Subjects with a record that is ready, with a server, or in a pause.
    busy: BTreeSet<Subject>,
    /// Records that no server has taken, by the end of their pause.
    pauses: BTreeMap<(Instant, Subject), Record>,
    interims: BTreeSet<(Instant, u64)>,
    due: VecDeque<u64>,
    /// Records of any kind that are not acknowledged.
    records: usize,
    enabled: bool,
    timeout: Duration,
    acknowledged: u64,
    dropped: u64,
}

struct Session {
    account: Arc<Account>,
    session_id: String,
    started: Instant,
    interim: Option<Instant>,
}

impl Accounting {
    /// `enabled` says whether any server accounts at all.
    pub(super) fn new(exchanges: Exchanges<Subject, Record>, enabled: bool, timeout: Duration) -> Self {
        Self {
            exchanges,
            sessions: BTreeMap::new(),
            queues: BTreeMap::new(),
            ready: VecDeque::new(),
            busy: BTreeSet::new(),
            pauses: BTreeMap::new(),
            interims: BTreeSet::new(),
            due: VecDeque::new(),
            records: 0,
            enabled,
            timeout,
            acknowledged: 0,
            dropped: 0,
        }
    }

    /// Takes other servers; without accounting what was not told is forgotten.
    pub(super) fn configure(&mut self, now: Instant, endpoints: Vec<Endpoint>, patience: Patience, enabled: bool) {
        self.enabled = enabled;
        self.timeout = patience.timeout;
        if !enabled {
            self.queues.clear();
            self.ready.clear();
            self.busy.clear();
            self.pauses.clear();
            self.exchanges.clear();
            self.records = 0;
        }
        self.exchanges.configure(now, endpoints, patience);
        self.pump(now);
    }

    /// Whether every record has come to a server.
    pub(super) fn is_idle(&self) -> bool {
        self.records == 0
    }

    /// How many records servers have acknowledged, and how many were dropped because no server took them.
    pub(super) fn statistics(&self) -> (u64, u64) {
        (self.acknowledged, self.dropped)
    }

    /// The process begins, or ends.
    pub(super) fn process(&mut self, at: Moment, status: Status, session_id: &str, nas_identifier: &Arc<str>) {
        let (session_id, nas_identifier) = (session_id.to_owned(), Arc::clone(nas_identifier));
        self.push(Subject::Process, Record { status, session_id, nas_identifier, session: None, at, rounds: 0 });
        self.pump(at.now);
    }

    pub(super) fn start(
        &mut self,
        at: Moment,
        key: u64,
        account: Account,
        session_id: String,
        nas_identifier: &Arc<str>,
    ) {
        if self.sessions.len() >= usize::try_from(MAX_SESSIONS).unwrap_or(usize::MAX) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let session = Session { account: Arc::new(account), session_id, started: at.now, interim: None };
        self.sessions.insert(key, session);
        self.schedule(at.now, key);
        self.record(at, key, Status::Start, nas_identifier);
    }

    pub(super) fn update(&mut self, at: Moment, key: u64, traffic: Traffic, nas_identifier: &Arc<str>) {
        self.record(at, key, Status::Interim(traffic), nas_identifier);
    }

    pub(super) fn stop(
        &mut self,
        at: Moment,
        key: u64,
        traffic: Traffic,
        cause: TerminateCause,
        nas_identifier: &Arc<str>,
    ) {
        self.record(at, key, Status::Stop(traffic, cause), nas_identifier);
        if let Some(due) = self.sessions.remove(&key).and_then(|session| session.interim) {
            self.interims.remove(&(due, key));
        }
    }

    fn record(&mut self, at: Moment, key: u64, status: Status, nas_identifier: &Arc<str>) {
        let Some(session) = self.sessions.get(&key) else { return };
        let record = Record {
            status,
            session_id: session.session_id.clone(),
            nas_identifier: Arc::clone(nas_identifier),
            session: Some((Arc::clone(&session.account), at.now.saturating_duration_since(session.started))),
            at,
            rounds: 0,
        };
        self.push(Subject::Session(key), record);
        self.pump(at.now);
    }

    /// The traffic of a session that is to be told.
    pub(super) fn poll_due(&mut self) -> Option<u64> {
        self.due.pop_front()
    }

    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: Packet<'_>,
    ) -> Result<(), Dropped> {
        let subject = self.exchanges.handle_datagram(now, from, packet)?.key;
        self.acknowledged = self.acknowledged.saturating_add(1);
        self.records = self.records.saturating_sub(1);
        if self.queues.contains_key(&subject) {
            self.ready.push_back(subject);
        } else {
            self.busy.remove(&subject);
        }
        self.pump(now);
        Ok(())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.exchanges.handle_timeout(now);
        while let Some(entry) = self.pauses.first_entry()
            && entry.key().0 <= now
        {
            let ((_, subject), record) = entry.remove_entry();
            self.queues.entry(subject).or_default().push_front(record);
            self.ready.push_back(subject);
        }
        while let Some((at, key)) = self.interims.first().copied()
            && at <= now
        {
            self.interims.remove(&(at, key));
            self.schedule(now, key);
            self.due.push_back(key);
        }
        self.pump(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let pause = self.pauses.first_key_value().map(|((at, _), _)| *at);
        let interim = self.interims.first().map(|(at, _)| *at);
        [self.exchanges.poll_timeout(), pause, interim].into_iter().flatten().min()
    }

    fn schedule(&mut self, now: Instant, key: u64) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.interim = session.account.interim.map(|pause| now + pause);
        self.interims.extend(session.interim.map(|at| (at, key)));
    }

    fn push(&mut self, subject: Subject, record: Record) {
        if !self.enabled {
            return;
        }
        let last = self.queues.get_mut(&subject).and_then(VecDeque::back_mut);
        match last {
            // What was carried meanwhile is in the newer one.
            Some(last) if matches!((last.status, record.status), (Status::Interim(_), Status::Interim(_))) => {
                *last = record;
            }
            _ if self.records >= MAX_RECORDS => self.dropped = self.dropped.saturating_add(1),
            _ => {
                self.records = self.records.saturating_add(1);
                self.queues.entry(subject).or_default().push_back(record);
                if self.busy.insert(subject) {
                    self.ready.push_back(subject);
                }
            }
        }
    }

    /// Gives records to servers, and lets those rest that no server takes.
    pub(super) fn pump(&mut self, now: Instant) {
        self.rest(now);
        while self.exchanges.len() < WINDOW
            && let Some(subject) = self.ready.pop_front()
        {
            let Some(queue) = self.queues.get_mut(&subject) else { continue };
            let record = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&subject);
            }
            if let Some(record) = record {
                self.exchanges.ask(now, subject, record);
            }
            self.rest(now);
        }
    }

    /// A record that no server has taken is sent again after a pause that grows each time.
    fn rest(&mut self, now: Instant) {
        while let Some((subject, mut record)) = self.exchanges.poll_failed() {
            let pause = self.timeout.saturating_mul(2_u32.saturating_pow(record.rounds)).min(LONGEST_PAUSE);
            record.rounds = record.rounds.saturating_add(1);
            self.pauses.insert((now + pause, subject), record);
        }
    }
}

#[cfg(test)]
mod tests;
