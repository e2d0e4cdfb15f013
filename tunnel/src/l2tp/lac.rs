//! The LAC: the tables of [`super::control`] and [`super::session`] driven by messages, timers and the local user.

mod collision;
mod establishment;
mod liveness;
mod reception;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use self::collision::TIE_BREAKER;
use super::authentication::CHALLENGE;
use super::channel::{Channel, Exhausted, Retransmission};
use super::config::{Config, Event, NotEstablished, Peer};
use super::control;
use super::data::Sequence;
use super::ending::{CloseReason, Ending, cdn_body, stop_ccn_body};
use super::introduction::FRAMING_SYNC;
use super::message::{
    Body, DATA_HEADER, DataHeader, Hiding, MessageType, Packet, SEQUENCED_DATA_HEADER, SessionId, TunnelId,
};
use super::session::lac as session;
use crate::timer::Timers;

/// How many control messages the peer may send ahead: more than one tunnel with one session ever has on its way.
const RECEIVE_WINDOW: u16 = 8;

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
    tie_breaker: [u8; TIE_BREAKER],
    /// Whether an SCCRQ of the peer has won against ours.
    accepted_sccrq: bool,
    /// Who has sent it, until its SCCCN comes.
    peer: Option<Peer>,
    /// Whether the LNS hides values, so that it can open ours.
    hides: bool,
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
        let mut tie_breaker = [0; TIE_BREAKER];
        rng.fill_bytes(&mut tie_breaker);
        Self {
            channel: Channel::new(Retransmission::default(), RECEIVE_WINDOW),
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
            framing_type: FRAMING_SYNC,
            tie_breaker,
            accepted_sccrq: false,
            peer: None,
            hides: false,
            sequence: Sequence::of_lac(),
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

    fn on_control(&mut self, now: Instant, event: control::Event, ending: Ending) {
        let (action, next) = self.control.on(event);
        tracing::debug!(from = ?self.control, ?event, to = ?next, "control connection");
        self.control = next;
        match action {
            control::Action::Nothing => {}
            control::Action::RequeueSccrq => self.discard_tunnel(),
            control::Action::SendSccrp => {
                self.send_sccrp();
                self.arm_answer(now);
            }
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
                self.send(SessionId::default(), stop_ccn_body(self.tunnel_id, &ending.stop_ccn()));
                self.channel.hasten(now);
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
                let body = cdn_body(self.body(MessageType::CDN), self.session_id, &ending.cdn());
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
        self.timers.set(Timer::Linger, now + Retransmission::default().cycle());
        if closed_due {
            self.events.push_back(Event::Closed);
        }
    }

    /// Starts a message whose values are hidden if those of the LNS are.
    fn body(&mut self, message: MessageType) -> Body {
        let secret = self.config.secret.as_ref().filter(|_| self.hides);
        Body::new(message).hide(Hiding::new(secret, &mut self.rng))
    }

    fn send(&mut self, session_id: SessionId, body: Body) {
        let message_type = body.message_type();
        // The messages of one session and a bounded number of answers never fill the channel.
        if let Err(error) = self.channel.send(session_id, body) {
            tracing::warn!(%message_type, %error, "control message not sent");
        }
    }
}
