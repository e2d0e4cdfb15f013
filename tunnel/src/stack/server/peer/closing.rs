//! How sessions and peers end.

use std::time::Instant;

use super::super::super::life::Verdict;
use super::super::session::{EndCause, Session};
use super::{CLOSE_WAIT, Call, Context, LINGER, MAX_LAST_FRAMES, Peer, Phase, Step};
use crate::l2tp::CloseReason;

impl Peer {
    /// Ends a session with its goodbyes.
    pub(in crate::stack::server) fn end_session(&mut self, context: &mut Context<'_>, session: u64, cause: EndCause) {
        if let Some(call) = self.session_mut(session).map(|session| session.call) {
            self.end_session_of(context, call, cause);
            self.pump(context);
        }
    }

    pub(super) fn end_session_of(&mut self, context: &mut Context<'_>, call: Call, cause: EndCause) {
        let now = context.now;
        let Some(index) = self.sessions.iter().position(|session| session.call == call) else { return };
        let mut session = self.sessions.remove(index);
        let cause = session.ending.unwrap_or(cause);
        session.ppp.close(now);
        self.keep_last_frames(&mut session);
        let reason = match cause {
            EndCause::Stopping => CloseReason::ShuttingDown,
            EndCause::Failed => CloseReason::Failure("PPP failed".to_owned()),
            _ => CloseReason::Administrative,
        };
        self.lns.close_call(now, call, reason);
        self.step(Step::Ended { session: Box::new(session), cause });
        if self.sessions.is_empty() && self.phase == Phase::Serving {
            self.phase = Phase::Lingering(now + LINGER);
        }
    }

    /// What PPP has still to say leaves in front of the goodbye of L2TP.
    fn keep_last_frames(&mut self, session: &mut Session) {
        while let Some(frame) = session.ppp.poll_transmit() {
            let mut message = Vec::with_capacity(frame.len());
            if self.last_frames.len() < MAX_LAST_FRAMES
                && self.lns.write_data_header(session.call, &mut message, frame.len()).is_ok()
            {
                message.extend_from_slice(&frame);
                self.last_frames.push_back(message);
            }
        }
    }

    /// Ends everything with every goodbye.
    pub(in crate::stack::server) fn close(&mut self, context: &mut Context<'_>, cause: EndCause) {
        if matches!(self.phase, Phase::Closing(_) | Phase::Gone) {
            return;
        }
        self.end_sessions(context, cause);
        let reason = if cause == EndCause::Stopping { CloseReason::ShuttingDown } else { CloseReason::Administrative };
        self.lns.close(context.now, reason);
        self.phase = Phase::Closing(context.now + CLOSE_WAIT);
        self.pump(context);
        self.finish(context.now);
    }

    /// A peer has not proved itself: one line for it, and no more.
    pub(super) fn give_up(&mut self, context: &mut Context<'_>) {
        let excuse = self.excuse.take();
        let peer = self.remote().map(|remote| remote.to_string());
        match &excuse {
            Some(excuse) => {
                tracing::warn!(peer, reason = excuse, "a peer is refused: it has not proved itself");
                context.counters.refuse_peer("unproved");
            }
            None => {
                tracing::debug!(peer, "a peer went away before it had proved itself");
                context.counters.refuse_peer("silent");
            }
        }
        self.drop_all(context, EndCause::Failed);
    }

    /// The peer has nobody to say goodbye to any more.
    pub(super) fn drop_all(&mut self, context: &mut Context<'_>, cause: EndCause) {
        if self.phase != Phase::Gone {
            self.end_sessions(context, cause);
            self.leave(context.now);
        }
    }

    fn end_sessions(&mut self, context: &mut Context<'_>, cause: EndCause) {
        while let Some(call) = self.sessions.first().map(|session| session.call) {
            self.end_session_of(context, call, cause);
        }
    }

    fn leave(&mut self, now: Instant) {
        self.ike.close(now);
        self.phase = Phase::Gone;
    }

    /// Ends the SAs once L2TP is done.
    pub(super) fn finish(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Closing(_)) && self.lns.is_idle() {
            self.leave(now);
        }
    }

    /// Ends what has lasted too long, and asks a silent peer.
    pub(super) fn end_overdue(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let limits = &context.config.limits;
        let overdue = |session: &Session| session.limit(limits).filter(|(at, _)| *at <= now);
        let over: Vec<(Call, EndCause)> =
            self.sessions.iter().filter_map(|session| Some((session.call, overdue(session)?.1))).collect();
        for (call, cause) in over {
            self.end_session_of(context, call, cause);
        }
        match self.phase {
            Phase::HalfOpen(at) if at <= now => self.give_up(context),
            Phase::Secured(at) if at <= now => self.close(context, EndCause::Failed),
            Phase::Lingering(at) if at <= now => self.close(context, EndCause::PeerClosed),
            Phase::Closing(at) if at <= now => self.leave(now),
            Phase::Closing(_) => self.finish(now),
            Phase::Serving => {
                let verdict = self.life.handle_timeout(now);
                self.handle_life(context, verdict, None);
            }
            Phase::HalfOpen(_) | Phase::Secured(_) | Phase::Lingering(_) | Phase::Gone => {}
        }
    }

    /// What the verdict means: for the call whose echoes are lost, or for the whole peer.
    pub(super) fn handle_life(&mut self, context: &mut Context<'_>, verdict: Verdict, call: Option<Call>) {
        match (verdict, call) {
            (Verdict::Alive, _) => {}
            (Verdict::Ask, _) => {
                self.ike.probe(context.now);
                self.lns.probe(context.now);
                for session in self.sessions.iter_mut().filter(|_| call.is_none()) {
                    session.ppp.echo(context.now);
                }
            }
            (Verdict::Dead, Some(call)) => self.end_session_of(context, call, EndCause::DeadPeer),
            (Verdict::Dead, None) => self.drop_all(context, EndCause::DeadPeer),
        }
    }
}
