//! Echoes (RFC 1661 section 5.8): what asks a peer that says nothing whether it lives.

use std::time::{Duration, Instant};

/// An Echo-Reply that takes longer is lost.
const REPLY_WAIT: Duration = Duration::from_secs(3);

/// The Echo-Requests of one link.
pub(super) struct Echo {
    interval: Duration,
    /// When the next request, or the verdict on the one that is out, is due.
    next: Option<Instant>,
    /// Identifier and time of the request that is out.
    pending: Option<(u8, Instant)>,
    lost: u32,
    id: u8,
}

/// An Echo-Request to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its Identifier.
    pub(super) id: u8,
    /// How many in a row were lost, if the one before it was.
    pub(super) lost: Option<u32>,
}

impl Echo {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: None, pending: None, lost: 0, id: 0 }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.next = Some(now + self.interval);
    }

    pub(super) fn stop(&mut self) {
        (self.next, self.pending) = (None, None);
    }

    /// The peer is heard: it needs no request for a while.
    pub(super) fn handle_activity(&mut self, now: Instant) {
        self.lost = 0;
        if self.next.is_some() && self.pending.is_none() {
            self.next = Some(now + self.interval);
        }
    }

    /// An Echo-Reply came; returns its round trip if it answers the request that is out.
    pub(super) fn handle_reply(&mut self, now: Instant, id: u8) -> Option<Duration> {
        let (_, sent) = self.pending.filter(|(pending, _)| *pending == id)?;
        (self.pending, self.lost, self.next) = (None, 0, Some(now + self.interval));
        Some(now.saturating_duration_since(sent))
    }

    /// The request to send now, unless one waits for its answer; one that waited too long is lost.
    pub(super) fn request(&mut self, now: Instant) -> Option<Request> {
        let mut lost = None;
        if let Some((_, sent)) = self.pending {
            if now < sent + REPLY_WAIT {
                self.next = Some(sent + REPLY_WAIT);
                return None;
            }
            self.lost = self.lost.saturating_add(1);
            lost = Some(self.lost);
        }
        //= rfc1661 5.8 "On transmission, the Identifier field MUST be changed whenever the content of the Data field changes, and whenever a valid reply has been received for a previous request."
        //= test: each_terminate_request_and_each_echo_has_an_identifier_of_its_own, echoes_are_sent_when_nothing_comes_and_counted_when_they_are_lost
        self.id = self.id.wrapping_add(1);
        self.pending = Some((self.id, now));
        self.next = Some(now + self.interval.min(REPLY_WAIT));
        Some(Request { id: self.id, lost })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}
