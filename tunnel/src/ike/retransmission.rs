//! Sending a message again: the same octets after 1, 2, 4, 8, 8 and 8 seconds until it is answered, and the same answer to each
//! duplicate of a request.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Transmit;
use crate::buffer::Port;

const FIRST: Duration = Duration::from_secs(1);
/// A peer that is back after an outage is noticed within this time.
const LONGEST: Duration = Duration::from_secs(8);
/// The message was sent at 0, 1, 3, 7, 15 and 23 s when nobody hopes for an answer any more.
pub(super) const GIVE_UP: Duration = Duration::from_secs(31);
/// The share by which a pause may be longer, so that many clients of one gateway do not speak at the same time.
const JITTER: f64 = 0.1;

/// How often a duplicate is answered: more than any peer repeats itself within its own patience.
pub(super) const MAX_REPEATS: u8 = 10;

//= rfc2408 5.1 "When transmitting an ISAKMP message, the transmitting entity (initiator or responder) MUST do the following:"
//= test: retransmissions_of_every_message_are_byte_identical, silence_is_reported_after_31_seconds_with_the_message
/// The last message of an exchange and when it is sent again.
#[derive(Debug, Clone)]
pub(super) struct Retransmission {
    message: Vec<u8>,
    port: Port,
    begun: Instant,
    wait: Duration,
    patience: Duration,
    due: Instant,
}

impl Retransmission {
    /// For a message that is sent at `now`.
    pub(super) fn new(now: Instant, port: Port, message: Vec<u8>, rng: &mut StdRng) -> Self {
        Self { message, port, begun: now, wait: FIRST, patience: GIVE_UP, due: now + jittered(FIRST, rng) }
    }

    /// Gives up after `patience`.
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// When [`Self::again`] is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The message without its way.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The message once more, or none when it is time to give up.
    pub(super) fn again(&mut self, now: Instant, rng: &mut StdRng) -> Option<Transmit> {
        if now.saturating_duration_since(self.begun) >= self.patience {
            return None;
        }
        self.wait = (self.wait * 2).min(LONGEST);
        self.due = now + jittered(self.wait, rng);
        Some(Transmit::Message { port: self.port, message: self.message.clone() })
    }
}

//= rfc2408 5.1 "Implementations MUST NOT use a fixed timer."
//= test: a_message_is_sent_six_times_and_never_changes, no_two_clients_keep_the_same_pauses
fn jittered(pause: Duration, rng: &mut StdRng) -> Duration {
    pause.mul_f64(1.0 + JITTER * rng.random::<f64>())
}

//= out: rfc2408 5.1 "When transmitting an ISAKMP message, the transmitting entity (initiator or responder) MUST do the following:" the responder of Main Mode sets no timer: it answers again when it is asked again, or else everybody could make it send to others; Informational messages have no answer (sections 5.14 and 5.15)
/// A request of the peer that was answered, and the answer.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    request: Vec<u8>,
    response: Vec<u8>,
    repeats: u8,
}

impl Answered {
    pub(super) fn new(request: &[u8], response: Vec<u8>) -> Self {
        Self { request: request.to_vec(), response, repeats: 0 }
    }

    /// Whether a message is this request once more.
    pub(super) fn is_for(&self, message: &[u8]) -> bool {
        self.request == message
    }

    pub(super) fn response(&self) -> &[u8] {
        &self.response
    }

    /// The answer once more, as long as the peer does not ask too often.
    pub(super) fn again(&mut self) -> Option<Vec<u8>> {
        let more = self.repeats < MAX_REPEATS;
        self.repeats = self.repeats.saturating_add(1);
        more.then(|| self.response.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_message_is_sent_six_times_and_never_changes() {
        let mut rng = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut retransmission = Retransmission::new(start, Port::Ike, vec![1, 2, 3], &mut rng);
        let mut pauses = Vec::new();
        let mut last = start;
        let end = loop {
            let now = retransmission.due();
            pauses.push((now - last).as_secs_f64());
            last = now;
            match retransmission.again(now, &mut rng) {
                Some(transmit) => assert_eq!(transmit, Transmit::Message { port: Port::Ike, message: vec![1, 2, 3] }),
                None => break now,
            }
        };
        assert_eq!(pauses.len(), 6);
        for (pause, least) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
            assert!((least..=least * 1.1).contains(pause), "{pauses:?}");
        }
        assert!(end - start >= GIVE_UP && end - start <= GIVE_UP.mul_f64(1.0 + JITTER));
    }

    #[test]
    fn no_two_clients_keep_the_same_pauses() {
        let start = Instant::now();
        let due = |seed| Retransmission::new(start, Port::Ike, vec![], &mut StdRng::seed_from_u64(seed)).due();
        assert_ne!(due(1), due(2));
    }

    #[test]
    fn a_duplicate_is_answered_ten_times() {
        let mut answered = Answered::new(b"request", b"response".to_vec());
        assert!(answered.is_for(b"request") && !answered.is_for(b"another"));
        assert_eq!((0..100).filter(|_| answered.again().is_some()).count(), 10);
    }
}
