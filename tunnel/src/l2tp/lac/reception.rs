//! The control messages that come in (RFC 2661 sections 5.6, 6 and 7): which tunnel and which session they are for, and what event
//! of the tables they are.

use std::time::Instant;

use rand::RngExt;

use super::{Lac, Phase};
use crate::l2tp::avp::Attribute;
use crate::l2tp::config::Event;
use crate::l2tp::control;
use crate::l2tp::ending::{Ending, MAX_REFUSALS, cdn, cdn_body, refuse_tunnel, stop_ccn};
use crate::l2tp::error::Error;
use crate::l2tp::message::{Body, ControlHeader, Message, MessageError, MessageType, SessionId, TunnelId};
use crate::l2tp::outcome::{CdnResult, Outcome, StopCcnResult};
use crate::l2tp::session::lac as session;

/// While so many messages wait for an acknowledgment, requests of the peer are not answered: its answers to ours come first.
const MAX_BACKLOG: usize = 8;

impl Lac {
    pub(super) fn handle_control(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        if header.tunnel_id == TunnelId::default() && self.handle_outside_tunnel(now, header, body) {
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

    /// An SCCRQ asks for a tunnel of its own. Unless it crosses ours and wins, it is refused without keeping anything about it:
    /// "Send StopCCN".
    fn handle_outside_tunnel(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) -> bool {
        let Ok(message) = Message::read(body, None) else { return false };
        if message.message_type != MessageType::SCCRQ {
            return false;
        }
        if self.phase == Phase::Open && self.handle_crossing(now, header, body, &message) {
            return true;
        }
        let peer = message.u16(Attribute::ASSIGNED_TUNNEL_ID).filter(|&id| id != 0);
        if let Some(peer) = peer.filter(|_| self.refusals.len() < MAX_REFUSALS) {
            let outcome = Outcome { result: StopCcnResult::NOT_AUTHORIZED.0, error: None, text: String::new() };
            let ours = TunnelId(self.rng.random_range(1..=u16::MAX));
            self.refusals.push_back(refuse_tunnel(TunnelId(peer), ours, &outcome));
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
        self.hides |= message.is_hidden();
        if self.phase != Phase::Open {
            self.on_late_message(now, message);
            return;
        }
        let message_type = message.message_type;
        let unexpected = Ending::Failed(Error::UnexpectedMessage(message_type));
        let of_session = session_id == self.session_id;
        match message_type {
            MessageType::SCCRQ => self.on_control(now, control::Event::SccrqNotAcceptable, unexpected),
            MessageType::SCCRP if self.control == control::State::WaitCtlReply => match self.accept_sccrp(message) {
                Ok(peer) => {
                    self.events.push_back(Event::ControlEstablished(peer));
                    self.on_control(now, control::Event::SccrpAcceptable, unexpected);
                }
                Err(error) => self.on_control(now, control::Event::SccrpNotAcceptable, Ending::Failed(error)),
            },
            MessageType::SCCRP => self.on_control(now, control::Event::SccrpNotAcceptable, unexpected),
            MessageType::SCCCN if self.control == control::State::WaitCtlConn => self.on_scccn(now, message),
            MessageType::SCCCN => self.on_control(now, control::Event::ScccnNotAcceptable, unexpected),
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
        let (of_session, error) = (error.is_of_session(), Error::from(error));
        if of_session && session_id == self.session_id {
            self.on_session(now, session::Event::Close, Ending::Failed(error));
        } else if of_session {
            // "The session associated with this message MUST be terminated", and there is none.
            tracing::debug!(%error, session = session_id.0, "control message of another session discarded");
        } else {
            self.on_control(now, control::Event::Close, Ending::Failed(error));
        }
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
            self.send(SessionId(id), cdn_body(Body::new(MessageType::CDN), refused, &outcome));
        }
    }
}
