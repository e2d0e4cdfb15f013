//! The control messages that come in (RFC 2661 sections 5.6, 6 and 7): which call they are for, and what event of the tables they
//! are.

use std::time::Instant;

use super::{Phase, Shared, Tunnel};
use crate::l2tp::avp::Attribute;
use crate::l2tp::control;
use crate::l2tp::ending::{Ending, cdn, stop_ccn};
use crate::l2tp::error::Error;
use crate::l2tp::message::{ControlHeader, Message, MessageError, MessageType, SessionId};
use crate::l2tp::outcome::{CdnResult, Outcome};
use crate::l2tp::session::lns as session;

impl Tunnel {
    /// Takes a control message of this tunnel.
    pub(in super::super) fn handle_control(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        header: &ControlHeader,
        body: &[u8],
    ) {
        shared.last_received = Some(now);
        self.channel.handle_message(now, header, body);
        while let Some((session_id, body)) = self.channel.poll_message() {
            match Message::read(&body, shared.secret()) {
                Ok(message) => self.on_message(now, shared, session_id, &message),
                Err(error) => self.on_message_error(now, shared, session_id, &body, error),
            }
        }
        if self.channel.unacknowledged() == 0 {
            (self.hello_lost, self.doubted) = (false, false);
            if self.phase == Phase::Closing {
                self.linger(now);
            }
        }
        self.channel.flush(now);
    }

    fn on_message(&mut self, now: Instant, shared: &mut Shared, session_id: SessionId, message: &Message) {
        self.hides |= message.is_hidden();
        if self.phase != Phase::Open {
            self.on_late_message(now, message);
            return;
        }
        let message_type = message.message_type;
        let unexpected = Ending::Failed(Error::UnexpectedMessage(message_type));
        match message_type {
            MessageType::SCCRQ => self.on_control(now, shared, control::Event::SccrqNotAcceptable, unexpected),
            MessageType::SCCRP => self.on_control(now, shared, control::Event::SccrpNotAcceptable, unexpected),
            MessageType::SCCCN if self.control == control::State::WaitCtlConn => self.on_scccn(now, shared, message),
            MessageType::SCCCN => self.on_control(now, shared, control::Event::ScccnNotAcceptable, unexpected),
            MessageType::STOPCCN => {
                self.on_control(now, shared, control::Event::StopCcn, Ending::Failed(stop_ccn(message)));
            }
            // A new call names no session of ours.
            MessageType::ICRQ if self.index(session_id).is_none() => self.on_icrq(now, shared, message),
            MessageType::OCRQ => self.refuse_call(shared, message, &NO_OUTGOING_CALLS),
            // The answer to a call that this end has not announced.
            MessageType::ICRP if self.index(session_id).is_none() => {
                self.refuse_call(shared, message, &unexpected.cdn());
            }
            MessageType::ICRQ | MessageType::ICRP | MessageType::ICCN | MessageType::CDN => {
                self.on_call_message(now, shared, session_id, message);
            }
            // "Accepted at any time": a Hello wants no more than its acknowledgment, SLI and WEN are about a line that matters
            // to nobody here. Unknown types that are not mandatory are ignored, and so is what answers outgoing calls.
            _ => tracing::debug!(tunnel = self.id.0, %message_type, "control message needs nothing"),
        }
    }

    fn on_scccn(&mut self, now: Instant, shared: &mut Shared, scccn: &Message) {
        // Android's client waits for a message that is nothing but the acknowledgment before it announces its call.
        self.channel.acknowledge();
        match self.accept_scccn(shared, scccn) {
            Ok(()) => {
                let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::SCCCN));
                self.on_control(now, shared, control::Event::ScccnAcceptable, unexpected);
            }
            Err(error) => {
                self.on_control(now, shared, control::Event::ScccnNotAcceptable, Ending::Failed(error));
            }
        }
    }

    fn on_call_message(&mut self, now: Instant, shared: &mut Shared, session_id: SessionId, message: &Message) {
        let message_type = message.message_type;
        let named = || message.u16(Attribute::ASSIGNED_SESSION_ID).map(SessionId);
        let index = match message_type {
            // A CDN whose sender did not know our Session ID names its own instead.
            MessageType::CDN if session_id == SessionId::default() => named().and_then(|id| self.index_of_peer(id)),
            _ => self.index(session_id),
        };
        let Some(index) = index else {
            tracing::debug!(tunnel = self.id.0, session = session_id.0, %message_type, "control message of no call");
            return;
        };
        let unexpected = Ending::Failed(Error::UnexpectedMessage(message_type));
        match message_type {
            MessageType::ICCN => self.on_iccn(now, shared, index, message),
            MessageType::ICRP => self.on_session(now, shared, index, session::Event::Icrp, unexpected),
            MessageType::CDN => {
                self.on_session(now, shared, index, session::Event::Cdn, Ending::Failed(cdn(message)));
            }
            _ => self.on_session(now, shared, index, session::Event::IcrqNotAcceptable, unexpected),
        }
    }

    /// What still matters once the tunnel has ended here: that it ends there too.
    fn on_late_message(&mut self, now: Instant, message: &Message) {
        if message.message_type == MessageType::STOPCCN && self.phase == Phase::Closing {
            self.channel.clear();
            self.linger(now);
        }
    }

    fn on_message_error(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        session_id: SessionId,
        body: &[u8],
        error: MessageError,
    ) {
        if self.phase != Phase::Open {
            return;
        }
        let (of_session, error) = (error.is_of_session(), Error::from(error));
        let index = self.index(session_id);
        let ending = Ending::Failed(error);
        //= rfc2661 4.1 "the session associated with this message MUST be terminated."
        //= test: an_optional_unknown_avp_leaves_call_and_tunnel_alone, an_unknown_mandatory_avp_ends_the_call_that_its_message_is_about
        //= rfc2661 4.1 "the entire tunnel (and all sessions within) MUST be terminated."
        //= test: an_optional_unknown_avp_leaves_call_and_tunnel_alone, an_unknown_mandatory_avp_ends_the_call_that_its_message_is_about
        if !of_session {
            self.on_control(now, shared, control::Event::Close, ending);
        } else if let Some(index) = index {
            self.on_session(now, shared, index, session::Event::Close, ending);
        } else if let Ok(message) = Message::read_for_refusal(body, shared.secret()) {
            // "The session associated with this message MUST be terminated": the one that it asks for.
            self.refuse_call(shared, &message, &ending.cdn());
        }
    }
}

/// This LNS does not place calls for its peer, and is no LAC.
const NO_OUTGOING_CALLS: Outcome = Outcome { result: CdnResult::NO_FACILITIES.0, error: None, text: String::new() };
