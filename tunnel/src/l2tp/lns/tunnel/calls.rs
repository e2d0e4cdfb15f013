//! The calls of a control connection (RFC 2661 sections 5.2.1, 5.4, 5.6, 6.6 to 6.8 and 6.12).

use std::time::Instant;

use rand::RngExt;

use super::super::MAX_CALLS;
use super::{Call, LnsEvent, Phase, Shared, Timer, Tunnel};
use crate::l2tp::avp::Attribute;
use crate::l2tp::config::NotEstablished;
use crate::l2tp::control;
use crate::l2tp::data::Sequence;
use crate::l2tp::ending::{CloseReason, Ending, cdn_body};
use crate::l2tp::error::Error;
use crate::l2tp::introduction::{FRAMING_ASYNC, FRAMING_SYNC};
use crate::l2tp::message::{DATA_HEADER, DataHeader, Message, MessageType, SEQUENCED_DATA_HEADER, SessionId};
use crate::l2tp::outcome::{CdnResult, ErrorCode, Outcome, printable};
use crate::l2tp::session::lns as session;

/// The most calls that are disconnected one by one before a StopCCN, which ends the others by itself (section 5.7).
const MAX_GOODBYES: usize = 8;

/// What ICRQ says about a call.
pub(super) struct Announcement {
    serial_number: u32,
    bearer_type: Option<u32>,
    calling_number: Option<String>,
    called_number: Option<String>,
}

/// One call.
pub(super) struct Session {
    /// This end's name of it.
    id: SessionId,
    /// The peer's name of it.
    peer_id: SessionId,
    state: session::State,
    sequence: Sequence,
    /// Kept until [`LnsEvent::CallOpened`].
    announcement: Option<Box<Announcement>>,
}

impl Tunnel {
    /// Takes the number of a data message and tells whether to use it; `None` where there is no such call.
    pub(in super::super) fn accept_data(&mut self, id: SessionId, ns: Option<u16>) -> Option<bool> {
        let session = self.established(id)?;
        Some(session.sequence.accept(ns))
    }

    /// See [`Lns::write_data_header`](super::super::Lns::write_data_header).
    pub(in super::super) fn write_data_header(
        &mut self,
        id: SessionId,
        out: &mut Vec<u8>,
        ppp_length: usize,
    ) -> Result<(), NotEstablished> {
        let tunnel_id = self.channel.tunnel_id();
        let session = self.established(id).ok_or(NotEstablished)?;
        //= rfc2661 4.4.4 "The L2TP peer MUST place this value in the Session ID header field of all control and data messages"
        //= test: two_tunnels_with_sessions_of_the_same_name_are_kept_apart, data_of_no_call_and_before_iccn_is_dropped
        let header = DataHeader { tunnel_id, session_id: session.peer_id, ns: session.sequence.next() };
        header.encode(out, ppp_length);
        Ok(())
    }

    /// See [`Lns::data_overhead`](super::super::Lns::data_overhead).
    pub(in super::super) fn data_overhead(&self, id: SessionId) -> usize {
        let session = self.index(id).and_then(|index| self.sessions.get(index));
        if session.is_some_and(|session| session.sequence.is_on()) { SEQUENCED_DATA_HEADER } else { DATA_HEADER }
    }

    /// Ends a call.
    pub(in super::super) fn close_call(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        id: SessionId,
        reason: CloseReason,
    ) {
        if let Some(index) = self.index(id) {
            self.on_session(now, shared, index, session::Event::Close, Ending::Local(reason));
            self.channel.flush(now);
        }
    }

    /// Says goodbye to the calls, as far as it is worth it.
    pub(super) fn close_calls(&mut self, now: Instant, shared: &mut Shared, reason: &CloseReason) {
        while (1..=MAX_GOODBYES).contains(&self.sessions.len()) {
            self.on_session(now, shared, 0, session::Event::Close, Ending::Local(reason.clone()));
        }
    }

    /// Where the call with this end's `id` is in the list.
    pub(super) fn index(&self, id: SessionId) -> Option<usize> {
        self.sessions.binary_search_by_key(&id, |session| session.id).ok()
    }

    /// Where the call with the peer's `id` is in the list.
    pub(super) fn index_of_peer(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.peer_id == id)
    }

    fn established(&mut self, id: SessionId) -> Option<&mut Session> {
        let index = self.index(id)?;
        //= rfc2661 5.0 "An L2TP Session MUST be established before L2TP can begin to tunnel PPP frames."
        //= test: data_flows_both_ways_and_its_numbers_are_those_of_the_lac_only_where_required, data_of_no_call_and_before_iccn_is_dropped
        self.sessions.get_mut(index).filter(|session| session.state == session::State::Established)
    }

    /// A call that the peer announces.
    pub(super) fn on_icrq(&mut self, now: Instant, shared: &mut Shared, icrq: &Message) {
        let id = match assigned_session_id(icrq) {
            Ok(id) => id,
            Err(error) => return self.refuse_call(shared, icrq, &Ending::Failed(error).cdn()),
        };
        if let Some(index) = self.index_of_peer(id) {
            let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::ICRQ));
            return self.on_session(now, shared, index, session::Event::IcrqNotAcceptable, unexpected);
        }
        //= rfc2661 5.0 "The Tunnel and corresponding Control Connection MUST be established before an incoming or outgoing call is initiated."
        //= test: a_call_is_opened_with_what_the_lac_says_about_it, a_call_before_the_tunnel_is_established_is_refused
        if self.control != control::State::Established {
            let error = Some(ErrorCode::NO_CONTROL_CONNECTION);
            let outcome = Outcome { result: CdnResult::GENERAL_ERROR.0, error, text: String::new() };
            return self.refuse_call(shared, icrq, &outcome);
        }
        if shared.calls >= shared.config.max_calls.min(MAX_CALLS) {
            let result = CdnResult::NO_FACILITIES_NOW.0;
            return self.refuse_call(shared, icrq, &Outcome { result, error: None, text: String::new() });
        }
        match announcement(icrq) {
            Ok(announcement) => {
                let index = self.add_call(shared, id, announcement);
                let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::ICRQ));
                self.on_session(now, shared, index, session::Event::IcrqAcceptable, unexpected);
            }
            Err(error) => self.refuse_call(shared, icrq, &Ending::Failed(error).cdn()),
        }
    }

    /// The peer says that the call is connected.
    pub(super) fn on_iccn(&mut self, now: Instant, shared: &mut Shared, index: usize, iccn: &Message) {
        let accepted = match self.sessions.get_mut(index) {
            Some(session) if session.state == session::State::WaitConnect => accept_iccn(session, iccn),
            Some(_) | None => Err(Error::UnexpectedMessage(MessageType::ICCN)),
        };
        match accepted {
            Ok(()) => {
                let unexpected = Ending::Failed(Error::UnexpectedMessage(MessageType::ICCN));
                self.on_session(now, shared, index, session::Event::IccnAcceptable, unexpected);
            }
            Err(error) => {
                self.on_session(now, shared, index, session::Event::IccnNotAcceptable, Ending::Failed(error));
            }
        }
    }

    pub(super) fn on_session(
        &mut self,
        now: Instant,
        shared: &mut Shared,
        index: usize,
        event: session::Event,
        ending: Ending,
    ) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let (action, next) = session.state.on(event);
        tracing::debug!(tunnel = self.id.0, session = session.id.0, from = ?session.state, ?event, to = ?next, "session");
        session.state = next;
        let (id, peer_id) = (session.id, session.peer_id);
        match action {
            session::Action::Nothing => {}
            session::Action::SendIcrp => {
                //= rfc2661 6.7 "The following AVPs MUST be present in the ICRP:"
                //= test: a_call_is_opened_with_what_the_lac_says_about_it, an_icrp_without_a_session_id_is_refused
                let body = self.body(shared, MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, id.0);
                self.send(peer_id, body);
                self.arm_call(now, id);
            }
            session::Action::PrepareForData => {
                self.waiting.retain(|&(_, waiting)| waiting != id);
                self.report_start(shared, index);
            }
            session::Action::SendCdn => {
                let body = cdn_body(self.body(shared, MessageType::CDN), id, &ending.cdn());
                self.send(peer_id, body);
                self.remove_call(now, shared, index, ending);
            }
            //= rfc2661 6.12 "The peer MUST clean up any resources, and does not send back any indication of success or failure for such cleanup."
            //= test: a_cdn_ends_the_call_that_it_names_by_either_id, data_of_no_call_and_before_iccn_is_dropped
            session::Action::CleanUp => self.remove_call(now, shared, index, ending),
        }
    }

    /// Answers a call that is not accepted with CDN; nothing is kept about it.
    pub(super) fn refuse_call(&mut self, shared: &mut Shared, message: &Message, outcome: &Outcome) {
        // Without a name of the peer's there is none to refuse it by.
        let Ok(peer_id) = assigned_session_id(message) else { return };
        let refused = self.unused_session_id(shared);
        let body = cdn_body(self.body(shared, MessageType::CDN), refused, outcome);
        self.send(peer_id, body);
    }

    fn add_call(&mut self, shared: &mut Shared, peer_id: SessionId, announcement: Announcement) -> usize {
        let id = self.unused_session_id(shared);
        let index = self.sessions.partition_point(|session| session.id < id);
        let session = Session {
            id,
            peer_id,
            state: session::State::Idle,
            sequence: Sequence::default(),
            announcement: Some(Box::new(announcement)),
        };
        // Most tunnels carry one call, and there are many tunnels.
        self.sessions.reserve_exact(1);
        self.sessions.insert(index, session);
        shared.calls = shared.calls.saturating_add(1);
        self.timers.stop(Timer::Unused);
        index
    }

    fn remove_call(&mut self, now: Instant, shared: &mut Shared, index: usize, ending: Ending) {
        let session = self.sessions.remove(index);
        self.waiting.retain(|&(_, id)| id != session.id);
        let error = match ending {
            Ending::Local(_) => None,
            Ending::Failed(error) => Some(error),
        };
        self.report_end(shared, &session, error);
        if self.sessions.is_empty() && self.phase == Phase::Open {
            self.arm_unused(now);
        }
    }

    fn report_start(&mut self, shared: &mut Shared, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let Some(announcement) = session.announcement.take() else { return };
        let Announcement { serial_number, bearer_type, calling_number, called_number } = *announcement;
        let call = Call { tunnel: self.id, session: session.id };
        shared.events.push_back(LnsEvent::CallOpened {
            call,
            serial_number,
            bearer_type,
            calling_number,
            called_number,
        });
    }

    /// Tells the end of a call whose start was told.
    pub(super) fn report_end(&mut self, shared: &mut Shared, session: &Session, error: Option<Error>) {
        shared.calls = shared.calls.saturating_sub(1);
        if session.announcement.is_none() {
            let call = Call { tunnel: self.id, session: session.id };
            shared.events.push_back(LnsEvent::CallClosed { call, error });
        }
    }

    fn unused_session_id(&self, shared: &mut Shared) -> SessionId {
        loop {
            let id = SessionId(shared.rng.random_range(1..=u16::MAX));
            if self.index(id).is_none() {
                return id;
            }
        }
    }
}

fn assigned_session_id(message: &Message) -> Result<SessionId, Error> {
    let attribute = Attribute::ASSIGNED_SESSION_ID;
    let id = message.u16(attribute).filter(|&id| id != 0);
    id.map(SessionId).ok_or(Error::InvalidAvp { message: message.message_type, attribute })
}

fn announcement(icrq: &Message) -> Result<Announcement, Error> {
    //= rfc2661 6.6 "The following AVPs MUST be present in the ICRQ:"
    //= test: a_call_is_opened_with_what_the_lac_says_about_it, a_call_without_a_required_avp_is_refused
    let attribute = Attribute::CALL_SERIAL_NUMBER;
    let serial_number = icrq.u32(attribute).ok_or(Error::InvalidAvp { message: MessageType::ICRQ, attribute })?;
    let number = |attribute| icrq.value(attribute).map(printable).filter(|number| !number.is_empty());
    Ok(Announcement {
        serial_number,
        bearer_type: icrq.u32(Attribute::BEARER_TYPE),
        calling_number: number(Attribute::CALLING_NUMBER),
        called_number: number(Attribute::CALLED_NUMBER),
    })
}

fn accept_iccn(session: &mut Session, iccn: &Message) -> Result<(), Error> {
    let invalid = |attribute| Error::InvalidAvp { message: MessageType::ICCN, attribute };
    let missing = |attribute| move || invalid(attribute);
    //= rfc2661 6.8 "The following AVPs MUST be present in the ICCN:"
    //= test: a_call_is_opened_with_what_the_lac_says_about_it, a_call_without_a_required_avp_is_refused
    iccn.u32(Attribute::TX_CONNECT_SPEED).ok_or_else(missing(Attribute::TX_CONNECT_SPEED))?;
    let framing = iccn.u32(Attribute::FRAMING_TYPE).ok_or_else(missing(Attribute::FRAMING_TYPE))?;
    // "A value not advertised in the Framing Capabilities AVP [...] will result in the call being rejected". Android's client
    // asks for both at once.
    //= rfc2661 4.4.3 "A peer MUST NOT request an incoming or outgoing call with a Framing Type AVP specifying a value not advertised"
    //= test: both_framing_types_at_once_are_taken, a_call_without_a_required_avp_is_refused
    if framing & !(FRAMING_ASYNC | FRAMING_SYNC) != 0 {
        return Err(invalid(Attribute::FRAMING_TYPE));
    }
    if iccn.value(Attribute::SEQUENCING_REQUIRED).is_some() {
        //= rfc2661 5.4 "If this AVP is present during session setup, sequence numbers MUST be present at all times."
        //= test: data_flows_both_ways_and_its_numbers_are_those_of_the_lac_only_where_required, sequencing_that_the_lns_requires_stays_on
        //= rfc2661 4.4.4 "The Sequencing Required AVP, Attribute Type 39, indicates to the LNS that Sequence Numbers MUST always be present on the data channel."
        //= test: data_flows_both_ways_and_its_numbers_are_those_of_the_lac_only_where_required, sequencing_that_the_lns_requires_stays_on
        session.sequence.require();
    }
    Ok(())
}
