//! One control connection of an LNS, as its recipient, and its calls: the tables of [`control`] and [`session`] driven by
//! messages, timers and the local user.

mod calls;
mod liveness;
mod reception;

use std::collections::VecDeque;
use std::time::Instant;

use rand::Rng;

use self::calls::Session;
use super::{Call, LnsEvent, Shared};
use crate::l2tp::authentication::{self, CHALLENGE};
use crate::l2tp::avp::Attribute;
use crate::l2tp::channel::{Channel, MAX_RECEIVE_WINDOW, Retransmission};
use crate::l2tp::config::Peer;
use crate::l2tp::control;
use crate::l2tp::ending::{CloseReason, Ending, stop_ccn_body};
use crate::l2tp::error::Error;
use crate::l2tp::introduction::Introduction;
use crate::l2tp::message::{Body, ControlHeader, Hiding, Message, MessageType, SessionId, TunnelId};
use crate::timer::Timers;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The SCCRP is acknowledged and not answered.
    Answer,
    /// There is no call.
    Unused,
    Hello,
    Linger,
}

/// What is left of the tunnel once the tables have it idle again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The tables say what there is.
    Open,
    /// A StopCCN is on its way.
    Closing,
    /// All is said; the peer's retransmissions are still acknowledged.
    Lingering,
    /// Nothing is left.
    Gone,
}

/// What only the setup of a control connection needs.
struct Setup {
    peer: Peer,
    challenge: [u8; CHALLENGE],
    /// Our response to the Challenge of the SCCRQ.
    response: Option<[u8; CHALLENGE]>,
}

/// One control connection.
pub(super) struct Tunnel {
    id: TunnelId,
    /// What the SCCRQ that made it is recognized by.
    fingerprint: u64,
    control: control::State,
    phase: Phase,
    channel: Channel,
    setup: Option<Box<Setup>>,
    /// Whether the LAC hides values, so that it can open ours.
    hides: bool,
    /// In the order of their IDs.
    sessions: Vec<Session>,
    /// Calls that wait for ICCN and until when, the earliest first.
    waiting: VecDeque<(Instant, SessionId)>,
    timers: Timers<Timer>,
    hello_sent: Option<Instant>,
    /// Whether the SCCRQ that made it has come once more since the peer has sent something else: late, or of a peer that has
    /// forgotten the tunnel and starts in the same words.
    doubted: bool,
    /// Whether [`LnsEvent::HelloLost`] was told and no acknowledgment has come since.
    hello_lost: bool,
}

impl Tunnel {
    /// The control connection that an acceptable SCCRQ asks for. [`Tunnel::start`] has to follow.
    pub(super) fn accept(shared: &mut Shared, id: TunnelId, fingerprint: u64, sccrq: &Message) -> Result<Self, Error> {
        let mut channel = Channel::new(Retransmission::default(), MAX_RECEIVE_WINDOW);
        channel.set_tunnel_id(Introduction::tunnel_id(sccrq)?);
        let Introduction { framing: _, window, peer } = Introduction::read(sccrq)?;
        channel.set_peer_window(window);
        let response = authentication::answer(sccrq, MessageType::SCCRP, shared.secret())?;
        let mut challenge = [0; CHALLENGE];
        shared.rng.fill_bytes(&mut challenge);
        Ok(Self {
            id,
            fingerprint,
            control: control::State::Idle,
            phase: Phase::Open,
            channel,
            setup: Some(Box::new(Setup { peer, challenge, response })),
            hides: sccrq.is_hidden(),
            sessions: Vec::new(),
            waiting: VecDeque::new(),
            timers: Timers::default(),
            hello_sent: None,
            doubted: false,
            hello_lost: false,
        })
    }

    /// Takes the SCCRQ that made it, and answers.
    pub(super) fn start(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        header: &ControlHeader,
        body: &[u8],
        sccrq: &Message,
    ) {
        shared.last_received = Some(now);
        self.channel.handle_message(now, header, body);
        // It was read already.
        if self.channel.poll_message().is_some() {
            let ending = Ending::Failed(Error::UnexpectedMessage(sccrq.message_type));
            self.on_control(now, shared, control::Event::SccrqAcceptable, ending);
        }
        self.channel.flush(now);
    }

    /// This end's name of it.
    pub(super) fn id(&self) -> TunnelId {
        self.id
    }

    /// Whether the peer has, as far as is known here, a tunnel by the name `peer`, and it is this one.
    pub(super) fn is_of(&self, peer: TunnelId) -> bool {
        !self.is_over() && self.channel.tunnel_id() == peer
    }

    /// Whether the SCCRQ with this fingerprint has made it.
    pub(super) fn is_made_by(&self, fingerprint: u64) -> bool {
        self.fingerprint == fingerprint
    }

    /// Takes the SCCRQ that made it once more.
    pub(super) fn handle_sccrq_again(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        header: &ControlHeader,
        body: &[u8],
    ) {
        self.handle_control(now, shared, header, body);
        if self.control == control::State::Established {
            self.doubted = true;
            self.probe(now);
        }
    }

    /// Whether both ends know that it has ended, or this one has given up.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Lingering | Phase::Gone)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether it has no call.
    pub(super) fn is_unused(&self) -> bool {
        self.sessions.is_empty()
    }

    /// When [`Tunnel::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|&(at, _)| at);
        self.timers.next().into_iter().chain(self.channel.poll_timeout()).chain(waiting).min()
    }

    /// The next control message to be sent.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let next = self.channel.poll_transmit();
        if next.is_none() {
            self.waiting.shrink_to_fit();
        }
        next
    }

    /// Ends it with all calls.
    pub(super) fn close(&mut self, now: Instant, shared: &mut Shared, reason: &CloseReason) {
        if self.phase == Phase::Open {
            self.close_calls(now, shared, reason);
            self.on_control(now, shared, control::Event::Close, Ending::Local(reason.clone()));
            self.channel.flush(now);
        }
    }

    /// Ends it without a word to the peer.
    pub(super) fn forget(mut self, shared: &mut Shared) {
        if self.phase == Phase::Open {
            self.end(shared, Ending::Local(CloseReason::Administrative));
        }
    }

    fn on_control(&mut self, now: Instant, shared: &mut Shared, event: control::Event, ending: Ending) {
        let (action, next) = self.control.on(event);
        tracing::debug!(tunnel = self.id.0, from = ?self.control, ?event, to = ?next, "control connection");
        self.control = next;
        match action {
            // A recipient has not sent an SCCRQ.
            control::Action::Nothing
            | control::Action::SendSccrq
            | control::Action::SendScccn
            | control::Action::RequeueSccrq => {}
            control::Action::SendSccrp => {
                self.send_sccrp(shared);
                self.arm_answer(now);
            }
            control::Action::TunnelOpen => self.open(now, shared),
            //= rfc2661 7.2.1 "In the event of a local termination, the originator MUST send a Stop-Control-Connection-Notification and clean up the tunnel."
            //= test: close_tells_all_of_it_to_everybody_and_waits_for_their_acknowledgments, a_tunnel_without_a_call_ends_after_a_minute_and_one_with_a_call_does_not
            control::Action::SendStopCcn => {
                //= rfc2661 5.8 "the state and reliable delivery mechanisms MUST be maintained and operated for the full retransmission interval after the final message exchange has occurred."
                //= test: a_peer_that_does_not_hear_the_goodbye_is_waited_for_one_cycle, the_receiver_of_a_stop_ccn_acknowledges_retransmissions_for_31_seconds
                self.send(SessionId::default(), stop_ccn_body(self.id, &ending.stop_ccn()));
                self.channel.hasten(now);
                self.end(shared, ending);
                self.phase = Phase::Closing;
            }
            //= rfc2661 7.2.1 "If the originator receives a Stop-Control-Connection-Notification it MUST also clean up the tunnel."
            //= test: result_codes_in_the_order_of_apples_processor_are_understood, the_receiver_of_a_stop_ccn_acknowledges_retransmissions_for_31_seconds
            control::Action::CleanUp => {
                self.channel.clear();
                self.end(shared, ending);
                self.linger(now);
            }
        }
    }

    fn open(&mut self, now: Instant, shared: &mut Shared) {
        self.timers.stop(Timer::Answer);
        self.arm_hello(now, shared);
        self.arm_unused(now);
        if let Some(setup) = self.setup.take() {
            shared.events.push_back(LnsEvent::TunnelOpened { tunnel: self.id, peer: setup.peer });
        }
    }

    /// Ends the calls with the tunnel, and tells.
    fn end(&mut self, shared: &mut Shared, ending: Ending) {
        let error = match ending {
            Ending::Local(_) => None,
            Ending::Failed(error) => Some(error),
        };
        while let Some(session) = self.sessions.pop() {
            self.report_end(shared, &session, error.clone());
        }
        self.waiting.clear();
        self.timers.clear();
        self.setup = None;
        shared.events.push_back(LnsEvent::TunnelClosed { tunnel: self.id, error });
    }

    fn linger(&mut self, now: Instant) {
        self.phase = Phase::Lingering;
        //= rfc2661 5.7 "The receiver of a StopCCN MUST send a ZLB ACK to acknowledge receipt of the message and maintain enough control connection state"
        //= test: the_receiver_of_a_stop_ccn_acknowledges_retransmissions_for_31_seconds, close_tells_all_of_it_to_everybody_and_waits_for_their_acknowledgments
        self.timers.set(Timer::Linger, now + Retransmission::default().cycle());
    }

    fn send_sccrp(&mut self, shared: &mut Shared) {
        let body = self.body(shared, MessageType::SCCRP);
        let window = self.channel.receive_window();
        let mut body = Introduction::write(body, &shared.config.host_name, self.id, window);
        if let Some(setup) = &self.setup {
            if shared.config.secret.is_some() {
                body = body.bytes(Attribute::CHALLENGE, &setup.challenge);
            }
            if let Some(response) = &setup.response {
                body = body.bytes(Attribute::CHALLENGE_RESPONSE, response);
            }
        }
        self.send(SessionId::default(), body);
    }

    fn accept_scccn(&self, shared: &Shared, scccn: &Message) -> Result<(), Error> {
        let setup = self.setup.as_ref().ok_or(Error::UnexpectedMessage(MessageType::SCCCN))?;
        authentication::check(scccn, shared.secret(), &setup.challenge)
    }

    /// Starts a message whose values are hidden if those of the LAC are.
    fn body(&self, shared: &mut Shared, message: MessageType) -> Body {
        let secret = shared.config.secret.as_ref().filter(|_| self.hides);
        Body::new(message).hide(Hiding::new(secret, &mut shared.rng))
    }

    fn send(&mut self, session_id: SessionId, body: Body) {
        let message_type = body.message_type();
        // Only a peer that asks for far more than it acknowledges gets no answer.
        if let Err(error) = self.channel.send(session_id, body) {
            tracing::warn!(tunnel = self.id.0, %message_type, %error, "control message not sent");
        }
    }
}
