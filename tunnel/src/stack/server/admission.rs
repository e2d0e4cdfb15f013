//! Who gets in, with which address, and what is left when a session is over.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use ipnet::Ipv4Net;

use super::session::{EndCause, Session};
use super::{Event, Server};
use crate::aaa::{Cause, Grant, Refusal, Request, Verdict};
use crate::config::server::OnLimit;
use crate::report::{UserReport, WeakSessions};
use crate::users::refuse_unknown;

/// The longest name in a line of the log, in characters.
const MAX_LOGGED_NAME: usize = 64;

impl Server {
    pub(super) fn authenticate(&mut self, now: Instant, slot: u32, session: u64, request: Request) {
        self.sessions.insert(session, slot);
        let verdict = match self.secrets.users.judge(self.unix(now), &request) {
            Some(verdict) => verdict,
            None if self.config.radius.is_some() => {
                let held = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(session));
                if let Some(held) = held {
                    held.asked.clone_from(&request.name);
                }
                let peer = self.slots.get(slot);
                let place =
                    peer.and_then(|peer| peer.sessions().find(|held| held.id == session).map(|held| peer.place(held)));
                if let Some(place) = place.flatten() {
                    self.event(Event::Authenticate { session, request, place });
                }
                return;
            }
            None => refuse_unknown(&request),
        };
        if let Verdict::Reject(refusal) = &verdict {
            self.note_refusal(now, slot, &request.name, refusal.cause);
        }
        self.decide(now, slot, session, verdict);
    }

    /// What a RADIUS server says.
    pub fn handle_verdict(&mut self, now: Instant, session: u64, verdict: Verdict) {
        let Some(slot) = self.sessions.get(&session).copied() else { return };
        if let Verdict::Reject(refusal) = &verdict {
            let held = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(session));
            let asked = held.map(|held| std::mem::take(&mut held.asked)).unwrap_or_default();
            self.note_refusal(now, slot, &asked, refusal.cause);
        }
        self.decide(now, slot, session, verdict);
    }

    pub(super) fn decide(&mut self, now: Instant, slot: u32, session: u64, verdict: Verdict) {
        match verdict {
            Verdict::Accept(grant) if self.has(slot, session) => self.accept_again(now, slot, session, *grant),
            Verdict::Accept(grant) => match self.make_room(now, session, &grant) {
                Ok(address) => {
                    self.note_result(now, &grant.name, true, "accepted");
                    self.counters.accepted = self.counters.accepted.saturating_add(1);
                    let name = grant.name.clone();
                    let mut in_time = false;
                    self.by_user.entry(name.clone()).or_default().push(session);
                    self.with(now, slot, |peer, context| in_time = peer.accept(context, session, *grant, address));
                    if !in_time {
                        self.give_back(session, &name, address);
                    }
                }
                Err(cause) => {
                    self.note_refusal(now, slot, &grant.name, cause);
                    self.refuse(now, slot, session, &Refusal::new(cause));
                }
            },
            Verdict::Reject(refusal) => self.refuse(now, slot, session, &refusal),
            Verdict::Challenge { packet } => {
                self.with(now, slot, |peer, context| peer.challenge(context, session, &packet));
            }
        }
    }

    /// Whether somebody has the session already.
    fn has(&mut self, slot: u32, session: u64) -> bool {
        let held = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(session));
        held.is_some_and(|held| held.admitted.is_some())
    }

    /// LCP was negotiated anew on a link (RFC 1661 section 3.4): its user keeps what it has, and nobody else takes it over.
    fn accept_again(&mut self, now: Instant, slot: u32, session: u64, grant: Grant) {
        let held = self.slots.get_mut(slot).and_then(|peer| peer.session_mut(session));
        let admitted = held.and_then(|held| held.admitted.as_ref());
        match admitted.filter(|admitted| admitted.grant.name == grant.name).map(|admitted| admitted.address) {
            Some(address) => self.with(now, slot, |peer, context| {
                peer.accept(context, session, grant, address);
            }),
            None => drop(self.end_session(now, session, EndCause::Failed)),
        }
    }

    fn refuse(&mut self, now: Instant, slot: u32, session: u64, refusal: &Refusal) {
        self.counters.refuse_user(refusal.cause);
        self.with(now, slot, |peer, context| peer.refuse(context, session, refusal));
    }

    /// Finds an address for somebody who may come in; sessions that are in the way end first.
    fn make_room(&mut self, now: Instant, session: u64, grant: &Grant) -> Result<Ipv4Addr, Cause> {
        let limits = &self.config.limits;
        let (most, on_limit) = (usize::try_from(limits.sessions_per_user).unwrap_or(usize::MAX), limits.on_limit);
        let all = usize::try_from(limits.sessions).unwrap_or(usize::MAX);
        let mut held: Vec<u64> = self.by_user.get(&grant.name).cloned().unwrap_or_default();
        held.retain(|other| *other != session);
        if most > 0 && held.len() >= most {
            if on_limit == OnLimit::Refuse {
                return Err(Cause::TooManySessions);
            }
            let surplus = held.len() - most + 1;
            for old in held.drain(..surplus).collect::<Vec<_>>() {
                self.end_session(now, old, EndCause::Replaced);
            }
        }
        if self.by_user.values().map(Vec::len).sum::<usize>() >= all {
            return Err(Cause::TooManySessions);
        }
        match grant.address {
            Some(address) if self.pool.take_fixed(address) => Ok(address),
            // A user who may have several sessions has one fixed address all the same.
            Some(_) if held.is_empty() => Err(Cause::NoAddress),
            Some(_) | None => self.pool.take().ok_or(Cause::NoAddress),
        }
    }

    pub(super) fn session_up(&mut self, session: u64) {
        let Some(info) = self.session(session) else { return };
        for network in networks(info.address, &info.networks) {
            if !self.routes.insert(network, session) {
                tracing::warn!(%network, user = name(&info.user), "another session has this network; it is not routed here");
            }
        }
        tracing::info!(
            session,
            user = name(&info.user),
            address = %info.address,
            peer = %info.place.peer,
            ike = %info.ike,
            esp = info.esp.map(|esp| esp.to_string()),
            weakness = info.weakness,
            "session is up"
        );
        self.count_sessions();
        self.event(Event::Up(Box::new(info)));
    }

    pub(super) fn session_ended(&mut self, slot: u32, session: &Session, cause: EndCause) {
        self.sessions.remove(&session.id);
        let Some(admitted) = &session.admitted else {
            return self.counters.end_session(cause);
        };
        self.counters.end_session(cause);
        self.give_back(session.id, &admitted.grant.name, admitted.address);
        if let Some(prefix) = session.ipv6.and_then(|link| link.prefix) {
            self.prefixes.give_back(prefix);
        }
        for network in networks(admitted.address, &admitted.grant.networks) {
            self.routes.remove(network, session.id);
        }
        if let Some(info) = self.slots.get(slot).and_then(|peer| peer.info(session)) {
            tracing::info!(
                session = session.id,
                user = name(&info.user),
                cause = cause.name(),
                rx = info.traffic.rx_octets,
                tx = info.traffic.tx_octets,
                "session is over"
            );
            self.event(Event::Down(Box::new(info), cause));
        }
        self.count_sessions();
    }

    /// A user has one session less, and an address is free.
    fn give_back(&mut self, session: u64, user: &str, address: Ipv4Addr) {
        self.pool.give_back(address);
        if let Some(held) = self.by_user.get_mut(user) {
            held.retain(|id| *id != session);
            if held.is_empty() {
                self.by_user.remove(user);
            }
        }
    }

    fn note_refusal(&mut self, now: Instant, slot: u32, user: &str, cause: Cause) {
        let peer: Option<SocketAddr> = self.slots.get(slot).and_then(|peer| peer.remote());
        let peer = peer.map(|peer| peer.to_string());
        tracing::warn!(user = name(user), peer, cause = cause.name(), "a user is refused");
        self.note_result(now, user, false, cause.name());
    }

    /// Keeps how an attempt of a user of the configuration ended; there are as many as users.
    fn note_result(&mut self, now: Instant, user: &str, accepted: bool, result: &str) {
        let last_attempt = self.unix(now);
        let Some(user) = self.config.users.iter().find(|known| known.name == user) else { return };
        let (name, result) = (user.name.clone(), result.to_owned());
        let report = UserReport { name: name.clone(), sessions: 0, last_attempt, accepted, result };
        self.results.insert(name, report);
        self.count_sessions();
    }

    /// The report's numbers of sessions are old.
    pub(super) fn count_sessions(&mut self) {
        self.recount = true;
        self.report_changed = true;
    }

    /// Brings the numbers of sessions in the report up to date: once for all that has changed, for there may be many users.
    pub(super) fn recount(&mut self) {
        if !std::mem::take(&mut self.recount) {
            return;
        }
        let sessions: usize = self.by_user.values().map(Vec::len).sum();
        for (user, result) in &mut self.results {
            result.sessions = self.by_user.get(user).map_or(0, |held| u32::try_from(held.len()).unwrap_or(u32::MAX));
        }
        self.report.sessions = Some(u32::try_from(sessions).unwrap_or(u32::MAX));
        self.report.weak_sessions = self.weak_sessions();
        self.report.users = self.results.values().cloned().collect();
    }

    fn weak_sessions(&self) -> Option<WeakSessions> {
        let weak = self.slots.iter().filter_map(|peer| peer.weak_sessions());
        weak.fold(None, |all: Option<WeakSessions>, (count, weakness)| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let all = all.unwrap_or(WeakSessions { count: 0, weakness });
            Some(WeakSessions { count: all.count.saturating_add(count), ..all })
        })
    }
}

/// What is routed to a session.
fn networks(address: Ipv4Addr, behind: &[Ipv4Net]) -> impl Iterator<Item = Ipv4Net> {
    std::iter::once(Ipv4Net::from(address)).chain(behind.iter().copied())
}

/// A name of a peer's making for the log: bounded, and in one line.
fn name(name: &str) -> String {
    name.chars().take(MAX_LOGGED_NAME).flat_map(char::escape_default).collect()
}
