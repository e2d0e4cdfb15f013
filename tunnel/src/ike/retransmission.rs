//! Sending a message again until it is answered: the same octets, after 1, 2, 4, 8, 8 and 8 seconds.

use std::time::{Duration, Instant};

use super::Transmit;
use crate::buffer::Port;

const FIRST: Duration = Duration::from_secs(1);
/// A peer that is back after an outage is noticed within this time.
const LONGEST: Duration = Duration::from_secs(8);
/// The message was sent at 0, 1, 3, 7, 15 and 23 s when nobody hopes for an answer any more.
const GIVE_UP: Duration = Duration::from_secs(31);

/// The last message of an exchange and when it is sent again.
#[derive(Debug, Clone)]
pub(super) struct Retransmission {
    message: Vec<u8>,
    port: Port,
    begun: Instant,
    wait: Duration,
    due: Instant,
}

impl Retransmission {
    /// For a message that is sent at `now`.
    pub(super) fn new(now: Instant, port: Port, message: Vec<u8>) -> Self {
        Self { message, port, begun: now, wait: FIRST, due: now + FIRST }
    }

    /// When [`Self::again`] is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The message without its way.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The message, as it has to be sent.
    pub(super) fn transmit(&self) -> Transmit {
        Transmit::Message { port: self.port, message: self.message.clone() }
    }

    /// The message once more, or none when it is time to give up.
    pub(super) fn again(&mut self, now: Instant) -> Option<Transmit> {
        if now.saturating_duration_since(self.begun) >= GIVE_UP {
            return None;
        }
        self.wait = (self.wait * 2).min(LONGEST);
        self.due = now + self.wait;
        Some(self.transmit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_sent_six_times_in_31_seconds_and_never_changes() {
        let start = Instant::now();
        let mut retransmission = Retransmission::new(start, Port::Ike, vec![1, 2, 3]);
        let mut seconds = Vec::new();
        let end = loop {
            let now = retransmission.due();
            match retransmission.again(now) {
                Some(transmit) => assert_eq!(transmit, Transmit::Message { port: Port::Ike, message: vec![1, 2, 3] }),
                None => break now,
            }
            seconds.push((now - start).as_secs());
        };
        assert_eq!(seconds, [1, 3, 7, 15, 23]);
        assert_eq!(end - start, GIVE_UP);
    }
}
