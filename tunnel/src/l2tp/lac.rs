//! The LAC: the tables of [`super::control`] and [`super::session`] driven by messages, timers and the local user.

mod establishment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use super::avp::{Attribute, Fault};
use super::channel::{Channel, Exhausted};
use super::config::{Config, Event, NotEstablished};
use super::control;
use super::data::Sequence;
use super::ending::{CloseReason, Ending, cdn, stop_ccn};
use super::error::Error;
use super::message::{
    Body, ControlHeader, DATA_HEADER, DataHeader, Hiding, Message, MessageError, MessageType, Packet,
    SEQUENCED_DATA_HEADER, SessionId, TunnelId,
};
use super::outcome::{CdnResult, Outcome, StopCcnResult};
use super::session;
use crate::timer::Timers;

/// The length of a Challenge, that of its response.
const CHALLENGE: usize = 16;

/// How much longer than a retransmission cycle an acknowledged request may stay without its answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// While so many messages wait for an acknowledgment, requests of the peer are not answered: its answers to ours come first.
const MAX_BACKLOG: usize = 8;

/// The most refusals of tunnels that wait to be sent; the peer asks again for others.
const MAX_REFUSALS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The request that was sent last is acknowledged and not answered.
    Answer,
    Hello,
    Linger,
}

/// What is left of the tunnel once the tables have it idle again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The tables say what there is.
    Open,
    /// A StopCCN is on its way; the flag tells whether [`Event::Closed`] is owed.
    Closing { closed_due: bool },
    /// All is said; the peer's retransmissions are still acknowledged.
    Lingering,
    /// Nothing is left.
    Gone,
}

/// The LAC of one control connection with one session. It is used once.
///
/// Exactly one of [`Event::Closed`] and [`Event::Failed`] ends it. It may be dropped then; a caller that keeps it until
/// [`Lac::poll_timeout`] is `None` delivers the last messages reliably and answers the retransmissions of the peer for a full
/// cycle, as section 5.8 asks.
pub struct Lac {
    config: Config,
    rng: StdRng,
    control: control::State,
    session: session::State,
    phase: Phase,
    channel: Channel,
    tunnel_id: TunnelId,
    session_id: SessionId,
    peer_session_id: SessionId,
    /// Our Challenge, and our response to the peer's.
    challenge: [u8; CHALLENGE],
    challenge_response: Option<[u8; CHALLENGE]>,
    framing_type: u32,
    sequence: Sequence,
    timers: Timers<Timer>,
    last_received: Option<Instant>,
    hello_sent: Option<Instant>,
    refusals: VecDeque<Vec<u8>>,
    /// Each comes once at most.
    events: VecDeque<Event>,
}

impl Lac {
    /// A LAC that has done nothing yet.
    pub fn new(config: Config, mut rng: StdRng) -> Self {
        // Not to be guessed: whoever could would inject data into a tunnel without IPsec (section 9.2).
        let tunnel_id = TunnelId(rng.random_range(1..=u16::MAX));
        let session_id = SessionId(rng.random_range(1..=u16::MAX));
        let mut challenge = [0; CHALLENGE];
        rng.fill_bytes(&mut challenge);
        Self {
            channel: Channel::new(config.retransmission, config.receive_window),
            config,
            rng,
            control: control::State::Idle,
            session: session::State::Idle,
            phase: Phase::Open,
            tunnel_id,
            session_id,
            peer_session_id: SessionId::default(),
            challenge,
            challenge_response: None,
            framing_type: establishment::FRAMING_SYNC,
            sequence: Sequence::default(),
            timers: Timers::default(),
            last_received: None,
            hello_sent: None,
            refusals: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Opens the control connection, then the session.
    pub fn connect(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            return;
        }
        let (action, next) = self.session.on(session::Event::Ready);
        self.session = next;
        if action == session::Action::OpenTunnel {
            self.on_control(now, control::Event::Open, Ending::Local(CloseReason::Administrative));
        }
        self.channel.flush(now);
    }

    /// Ends the session, then the control connection.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        if self.phase != Phase::Open {
            return;
        }
        self.on_session(now, session::Event::Close, Ending::Local(reason.clone()));
        // The end of the session is the end of the tunnel, except where there was no session.
        if self.phase == Phase::Open {
            self.on_control(now, control::Event::Close, Ending::Local(reason));
        }
        self.channel.flush(now);
    }

    /// Takes a UDP payload. Control messages are used up; of a data message of the session the PPP frame is returned.
    pub fn handle_message<'a>(&mut self, now: Instant, message: &'a [u8]) -> Option<&'a [u8]> {
        match Packet::read(message) {
            Ok(Packet::Data(header, frame)) => {
                let ours = header.tunnel_id == self.tunnel_id && header.session_id == self.session_id;
                if !ours || self.session != session::State::Established {
                    return None;
                }
                self.handle_activity(now);
                self.sequence.accept(header.ns).then_some(frame)
            }
            Ok(Packet::Control(header, body)) => {
                self.handle_control(now, &header, body);
                self.channel.flush(now);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "L2TP message discarded");
                None
            }
        }
    }

    /// Takes notice that the peer is alive: a Hello is not due.
    pub fn handle_activity(&mut self, now: Instant) {
        self.last_received = Some(now);
    }

    /// Does what time demands.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Answer => self.on_answer_timer(now),
                Timer::Hello => self.on_hello_timer(now),
                Timer::Linger => self.phase = Phase::Gone,
            }
        }
        if let Some(Exhausted(message)) = self.channel.handle_timeout(now) {
            self.on_exhausted(now, message);
        }
        self.channel.flush(now);
    }

    /// When [`Lac::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.channel.poll_timeout()).min()
    }

    /// The next control message to be sent, as a UDP payload.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.channel.poll_transmit().or_else(|| self.refusals.pop_front())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends the header of a data message; the caller appends the PPP frame, of `ppp_length` octets.
    pub fn write_data_header(&mut self, out: &mut Vec<u8>, ppp_length: usize) -> Result<(), NotEstablished> {
        if self.session != session::State::Established {
            return Err(NotEstablished);
        }
        let header = DataHeader {
            tunnel_id: self.channel.tunnel_id(),
            session_id: self.peer_session_id,
            ns: self.sequence.next(),
        };
        header.encode(out, ppp_length);
        Ok(())
    }

    /// The length of the header that [`Lac::write_data_header`] writes. It changes when the LNS switches sequencing.
    pub fn data_overhead(&self) -> usize {
        if self.sequence.is_on() { SEQUENCED_DATA_HEADER } else { DATA_HEADER }
    }

    /// Whether data can be sent.
    pub fn is_established(&self) -> bool {
        self.session == session::State::Established
    }

    fn handle_control(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        if header.tunnel_id == TunnelId::default() && self.handle_outside_tunnel(body) {
            return;
        }
        let ours = header.tunnel_id == self.tunnel_id || self.is_early_stop_ccn(header, body);
        // Before the SCCRQ and after the end the ID means nothing to the peer.
        if !ours || self.phase == Phase::Gone || (self.phase == Phase::Open && self.control == control::State::Idle) {
            tracing::debug!(tunnel = header.tunnel_id.0, "control message of another tunnel discarded");
            return;
        }
        self.handle_activity(now);
        self.channel.handle_message(now, header, body);
        while let Some((session_id, body)) = self.channel.poll_message() {
            match Message::read(&body, self.config.secret.as_ref().map(|secret| secret.as_slice())) {
                Ok(message) => self.on_message(now, session_id, &message),
                Err(error) => self.on_message_error(now, session_id, error),
            }
        }
        if let Phase::Closing { closed_due } = self.phase
            && self.channel.unacknowledged() == 0
        {
            self.linger(now, closed_due);
        }
    }

    /// An SCCRQ asks for a tunnel of its own, which is refused without keeping anything about it: "Send StopCCN".
    fn handle_outside_tunnel(&mut self, body: &[u8]) -> bool {
        let Ok(message) = Message::read(body, None) else { return false };
        if message.message_type != MessageType::SCCRQ {
            return false;
        }
        let peer = message.u16(Attribute::ASSIGNED_TUNNEL_ID).filter(|&id| id != 0);
        if let Some(peer) = peer.filter(|_| self.refusals.len() < MAX_REFUSALS) {
            let outcome = Outcome { result: StopCcnResult::NOT_AUTHORIZED.0, error: None, text: String::new() };
            let body = Body::new(MessageType::STOPCCN)
                .u16(Attribute::ASSIGNED_TUNNEL_ID, self.rng.random_range(1..=u16::MAX))
                .bytes(Attribute::RESULT_CODE, &outcome.encode());
            let header = ControlHeader { tunnel_id: TunnelId(peer), session_id: SessionId::default(), ns: 0, nr: 1 };
            self.refusals.push_back(header.encode(&body.into_octets()));
        }
        true
    }

    /// A StopCCN may come from a peer that could not read the Assigned Tunnel ID of the SCCRQ: then its header names no tunnel.
    fn is_early_stop_ccn(&self, header: &ControlHeader, body: &[u8]) -> bool {
        header.tunnel_id == TunnelId::default()
            && self.control == control::State::WaitCtlReply
            && Message::read(body, None).is_ok_and(|message| message.message_type == MessageType::STOPCCN)
    }

    fn on_message(&mut self, now: Instant, session_id: SessionId, message: &Message) {
        if self.phase != Phase::Open {
            self.on_late_message(now, message);
            return;
        }
        let message_type = message.message_type;
        let unexpected = Ending::Failed(Error::UnexpectedMessage(message_type));
        let of_session = session_id == self.session_id;
        match message_type {
            MessageType::SCCRQ => self.on_control(now, control::Event::Sccrq, unexpected),
            MessageType::SCCRP if self.control == control::State::WaitCtlReply => match self.accept_sccrp(message) {
                Ok(peer) => {
                    self.events.push_back(Event::ControlEstablished(peer));
                    self.on_control(now, control::Event::SccrpAcceptable, unexpected);
                }
                Err(error) => self.on_control(now, control::Event::SccrpNotAcceptable, Ending::Failed(error)),
            },
            MessageType::SCCRP => self.on_control(now, control::Event::SccrpNotAcceptable, unexpected),
            MessageType::SCCCN => self.on_control(now, control::Event::Scccn, unexpected),
            MessageType::STOPCCN => {
                self.learn_tunnel_id(message);
                self.on_control(now, control::Event::StopCcn, Ending::Failed(stop_ccn(message)));
            }
            // A new call of the peer names no session of ours.
            MessageType::ICRQ if session_id == SessionId::default() => self.refuse_call(message),
            MessageType::OCRQ => self.refuse_call(message),
            MessageType::ICRQ if of_session => self.on_session(now, session::Event::Icrq, unexpected),
            MessageType::ICRP if of_session => match self.accept_icrp(message) {
                Ok(()) => self.on_session(now, session::Event::IcrpAcceptable, unexpected),
                Err(error) => self.on_session(now, session::Event::IcrpNotAcceptable, Ending::Failed(error)),
            },
            MessageType::ICCN | MessageType::OCRP | MessageType::OCCN if of_session => {
                self.on_session(now, session::Event::Iccn, unexpected);
            }
            MessageType::CDN if of_session || self.is_cdn_of_session(session_id, message) => {
                self.on_session(now, session::Event::Cdn, Ending::Failed(cdn(message)));
            }
            // "Accepted at any time": a Hello wants no more than its acknowledgment, SLI and WEN are about a line that does not
            // exist. Unknown types that are not mandatory are ignored, and so is what belongs to another session.
            _ => tracing::debug!(%message_type, session = session_id.0, "control message needs nothing"),
        }
    }

    /// What still matters once the tunnel has ended here: the name that the peer has for it, and that it ends there too.
    fn on_late_message(&mut self, now: Instant, message: &Message) {
        if message.message_type == MessageType::SCCRP {
            self.learn_tunnel_id(message);
        }
        if message.message_type == MessageType::STOPCCN
            && let Phase::Closing { closed_due } = self.phase
        {
            self.channel.clear();
            self.linger(now, closed_due);
        }
    }

    fn learn_tunnel_id(&mut self, message: &Message) {
        if self.channel.tunnel_id() == TunnelId::default()
            && let Some(id) = message.u16(Attribute::ASSIGNED_TUNNEL_ID)
        {
            self.channel.set_tunnel_id(TunnelId(id));
        }
    }

    fn on_message_error(&mut self, now: Instant, session_id: SessionId, error: MessageError) {
        if self.phase != Phase::Open {
            return;
        }
        let (of_session, error) = match error {
            MessageError::Malformed(malformed) => (false, Error::Malformed(malformed)),
            MessageError::UnknownType(message) => (false, Error::UnknownMessage(message)),
            MessageError::Avp { message, vendor, attribute, fault } => (
                message.is_of_session(),
                match fault {
                    Fault::Unrecognized => Error::MandatoryAvp { message, vendor, attribute },
                    Fault::Unopened => Error::HiddenAvp { message, attribute },
                    Fault::WrongLength => Error::InvalidAvp { message, attribute },
                },
            ),
        };
        if of_session && session_id == self.session_id {
            self.on_session(now, session::Event::Close, Ending::Failed(error));
        } else if of_session {
            // "The session associated with this message MUST be terminated", and there is none.
            tracing::debug!(%error, session = session_id.0, "control message of another session discarded");
        } else {
            self.on_control(now, control::Event::Close, Ending::Failed(error));
        }
    }

    fn on_control(&mut self, now: Instant, event: control::Event, ending: Ending) {
        let (action, next) = self.control.on(event);
        tracing::debug!(from = ?self.control, ?event, to = ?next, "control connection");
        self.control = next;
        match action {
            control::Action::Nothing => {}
            control::Action::SendSccrq => {
                self.send_sccrq();
                self.arm_answer(now);
            }
            control::Action::SendScccn => {
                self.send_scccn();
                self.on_session(now, session::Event::TunnelOpen, ending);
            }
            control::Action::TunnelOpen => self.on_session(now, session::Event::TunnelOpen, ending),
            control::Action::SendStopCcn => {
                let body = Body::new(MessageType::STOPCCN)
                    .u16(Attribute::ASSIGNED_TUNNEL_ID, self.tunnel_id.0)
                    .bytes(Attribute::RESULT_CODE, &ending.stop_ccn().encode());
                self.send(SessionId::default(), body);
                let closed_due = self.end(ending);
                self.phase = Phase::Closing { closed_due };
            }
            control::Action::CleanUp => {
                self.channel.clear();
                let closed_due = self.end(ending);
                if self.last_received.is_some() {
                    self.linger(now, closed_due);
                } else {
                    self.phase = Phase::Gone;
                    if closed_due {
                        self.events.push_back(Event::Closed);
                    }
                }
            }
        }
    }

    fn on_session(&mut self, now: Instant, event: session::Event, ending: Ending) {
        let (action, next) = self.session.on(event);
        tracing::debug!(from = ?self.session, ?event, to = ?next, "session");
        self.session = next;
        match action {
            session::Action::Nothing | session::Action::OpenTunnel => {}
            session::Action::SendIcrq => {
                self.send_icrq();
                self.arm_answer(now);
            }
            session::Action::SendIccn => {
                self.send_iccn();
                self.events.push_back(Event::SessionEstablished);
                self.timers.stop(Timer::Answer);
                self.arm_hello(now);
            }
            session::Action::SendCdn => {
                let body = self
                    .body(MessageType::CDN)
                    .bytes(Attribute::RESULT_CODE, &ending.cdn().encode())
                    .u16(Attribute::ASSIGNED_SESSION_ID, self.session_id.0);
                self.send(self.peer_session_id, body);
                self.on_control(now, control::Event::Close, ending);
            }
            // The tunnel has no other session: "After the last session is cleared, the control connection MAY be torn down".
            session::Action::CleanUp => self.on_control(now, control::Event::Close, ending),
        }
    }

    /// Ends the session with the tunnel and tells of a failure; returns whether [`Event::Closed`] is owed.
    fn end(&mut self, ending: Ending) -> bool {
        self.session = session::State::Idle;
        self.timers.clear();
        match ending {
            Ending::Local(_) => true,
            Ending::Failed(error) => {
                self.events.push_back(Event::Failed(error));
                false
            }
        }
    }

    fn linger(&mut self, now: Instant, closed_due: bool) {
        self.phase = Phase::Lingering;
        self.timers.set(Timer::Linger, now + self.config.retransmission.cycle());
        if closed_due {
            self.events.push_back(Event::Closed);
        }
    }

    fn on_exhausted(&mut self, now: Instant, message: MessageType) {
        match self.phase {
            Phase::Open => {
                let alive = self.last_received > self.hello_sent;
                if message == MessageType::HELLO && alive {
                    // Some peers never acknowledge a Hello (OS X), or not while they sleep (Android).
                    self.hello_sent = Some(now);
                    self.channel.persist(now);
                } else {
                    self.give_up();
                    self.events.push_back(Event::Failed(Error::NoResponse { to: message }));
                }
            }
            Phase::Closing { closed_due } => {
                self.give_up();
                if closed_due {
                    self.events.push_back(Event::Closed);
                }
            }
            Phase::Lingering | Phase::Gone => {}
        }
    }

    /// "The tunnel and all sessions within MUST be cleared"; there is nobody to tell.
    fn give_up(&mut self) {
        self.phase = Phase::Gone;
        self.control = control::State::Idle;
        self.session = session::State::Idle;
        self.channel.clear();
        self.timers.clear();
    }

    /// Waits longer for an answer than a message without acknowledgment is sent for.
    fn arm_answer(&mut self, now: Instant) {
        self.timers.set(Timer::Answer, now + self.config.retransmission.cycle() + ANSWER_MARGIN);
    }

    fn on_answer_timer(&mut self, now: Instant) {
        let to = match self.session {
            session::State::WaitTunnel => MessageType::SCCRQ,
            session::State::WaitReply => MessageType::ICRQ,
            session::State::Idle | session::State::Established => return,
        };
        self.on_session(now, session::Event::Close, Ending::Failed(Error::NoResponse { to }));
    }

    fn arm_hello(&mut self, now: Instant) {
        if !self.config.hello.is_zero() {
            self.timers.set(Timer::Hello, self.last_received.unwrap_or(now) + self.config.hello);
        }
    }

    fn on_hello_timer(&mut self, now: Instant) {
        let idle = self.last_received.map_or(self.config.hello, |at| now.saturating_duration_since(at));
        if idle < self.config.hello {
            self.arm_hello(now);
            return;
        }
        // A message that waits for its acknowledgment tells as much as a Hello.
        if self.channel.unacknowledged() == 0 {
            self.hello_sent = Some(now);
            self.send(SessionId::default(), Body::new(MessageType::HELLO));
        }
        self.timers.set(Timer::Hello, now + self.config.hello);
    }

    /// A CDN whose sender did not know our Session ID names its own instead.
    fn is_cdn_of_session(&self, session_id: SessionId, message: &Message) -> bool {
        let named = message.u16(Attribute::ASSIGNED_SESSION_ID).map(SessionId);
        session_id == SessionId::default()
            && (self.peer_session_id == SessionId::default() || named == Some(self.peer_session_id))
    }

    /// A LAC that places no calls answers the peer's call with CDN; our own session goes on.
    fn refuse_call(&mut self, message: &Message) {
        let id = message.u16(Attribute::ASSIGNED_SESSION_ID).filter(|&id| id != 0);
        if let Some(id) = id.filter(|_| self.channel.unacknowledged() < MAX_BACKLOG) {
            let outcome = Outcome { result: CdnResult::NO_FACILITIES.0, error: None, text: String::new() };
            // The call is refused before it has an ID of ours; any but that of the session will do.
            let refused = loop {
                let id = SessionId(self.rng.random_range(1..=u16::MAX));
                if id != self.session_id {
                    break id;
                }
            };
            let body = Body::new(MessageType::CDN)
                .bytes(Attribute::RESULT_CODE, &outcome.encode())
                .u16(Attribute::ASSIGNED_SESSION_ID, refused.0);
            self.send(SessionId(id), body);
        }
    }

    /// Starts a message whose values are hidden if they are to be.
    fn body(&mut self, message: MessageType) -> Body {
        let secret = self.config.secret.as_ref().filter(|_| self.config.hide_avps);
        let hiding = secret.map(|secret| {
            let mut random_vector = [0; 16];
            self.rng.fill_bytes(&mut random_vector);
            Hiding { secret: secret.clone(), random_vector }
        });
        Body::new(message).hide(hiding)
    }

    fn send(&mut self, session_id: SessionId, body: Body) {
        let message_type = body.message_type();
        // The messages of one session and a bounded number of answers never fill the channel.
        if let Err(error) = self.channel.send(session_id, body) {
            tracing::warn!(%message_type, %error, "control message not sent");
        }
    }
}
