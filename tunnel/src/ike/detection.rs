//! Dead peer detection (RFC 3706): R-U-THERE and its answer, sequence numbers, and what counts as a sign of life.

use std::time::{Duration, Instant};

use rand::Rng;

use super::payload::Notification;
use super::registry::{NotifyType, PayloadType, ProtocolId};
use super::{Event, Ike, Timer};
use crate::buffer::Port;

/// How often one R-U-THERE may come with the same sequence number: some peers repeat it instead of counting on.
const MAX_REPEATED_QUESTIONS: u8 = 3;

/// Questions between the first one and the verdict.
const QUESTIONS: u32 = 5;

/// The least pause between two questions.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The sequence numbers of one ISAKMP SA: each end counts on its own (RFC 3706 section 6.2).
#[derive(Debug, Default)]
pub(super) struct Sequences {
    /// That of our last question.
    own: Option<u32>,
    /// Our last question has no answer yet.
    outstanding: bool,
    /// The peer's last one, and how often it was repeated.
    peer: Option<(u32, u8)>,
}

impl Sequences {
    /// The number of the next question: at first a random one with the high bit zero, then each time one more.
    fn next(&mut self, random: u32) -> u32 {
        //= rfc3706 6.2 "As both DPD peers can initiate a DPD exchange (i.e., both peers can send R-U-THERE messages), each peer MUST maintain its own sequence number for R-U-THERE messages."
        //= test: our_numbers_begin_below_the_high_bit_and_count_on_by_one, a_question_has_to_be_newer_than_all_before_it
        //= rfc3706 6.2 "The first R-U-THERE message sent in a session MUST be a randomly chosen number."
        //= test: our_numbers_begin_below_the_high_bit_and_count_on_by_one, only_the_answer_to_the_last_question_counts_and_only_once
        //= rfc3706 6.2 "Subsequent R-U-THERE messages MUST increment the sequence number by one."
        //= test: our_numbers_begin_below_the_high_bit_and_count_on_by_one, a_question_has_to_be_newer_than_all_before_it
        let next = self.own.map_or(random >> 1, |last| last.wrapping_add(1));
        self.own = Some(next);
        self.outstanding = true;
        next
    }

    /// Whether an answer is that to the last question, and the first one to it.
    fn accept_answer(&mut self, sequence: u32) -> bool {
        //= rfc3706 6.1 "The initial sender SHOULD reject the R-U-THERE-ACK if the sequence number fails to match the one sent with the R-U-THERE message."
        //= test: a_probe_asks_at_once_and_its_answer_is_a_sign_of_life, only_the_answer_to_the_last_question_counts_and_only_once
        self.own == Some(sequence) && std::mem::take(&mut self.outstanding)
    }

    /// Whether a question of the peer is newer than all before it, or one of the few repetitions that are allowed.
    fn accept_question(&mut self, sequence: u32) -> bool {
        let repeats = match self.peer {
            Some((last, repeats)) if last == sequence => repeats.saturating_add(1),
            // RFC 3706 section 6.2 keeps the numbers from wrapping, so whatever is lower is older.
            //= rfc3706 6.2 "Each entity SHOULD also maintain its peer's R-U-THERE sequence number, and an entity SHOULD reject the R-U-THERE message if it fails to match the expected sequence number."
            //= test: a_repeated_question_is_accepted_three_times, a_question_has_to_be_newer_than_all_before_it
            Some((last, _)) if sequence < last => return false,
            Some(_) | None => 0,
        };
        if repeats > MAX_REPEATED_QUESTIONS {
            return false;
        }
        self.peer = Some((sequence, repeats));
        true
    }
}

impl Ike {
    /// When the peer gave its last sign of life: an authenticated ISAKMP message, or an ESP packet that the owner told of.
    pub fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Asks the peer at once whether it is there, if it takes part in dead peer detection; an answer shows in
    /// [`Self::last_heard`].
    pub fn probe(&mut self, _now: Instant) {
        if let Some(isakmp) = self.current().filter(|sa| sa.abilities.dpd).map(|sa| sa.id) {
            self.ask(isakmp);
        }
    }

    /// Something authenticated came from the peer.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
        self.asked = false;
    }

    /// Begins to watch the peer, if it takes part and the configuration does not leave that to the owner.
    pub(super) fn watch(&mut self, now: Instant) {
        let takes_part = self.current().is_some_and(|sa| sa.abilities.dpd) && !self.config.dpd.interval.is_zero();
        if takes_part && self.timers.deadline(Timer::Dpd).is_none() {
            self.timers.set(Timer::Dpd, now + self.config.dpd.interval);
        }
    }

    //= rfc3706 5.4 "A peer MUST keep track of the state of a given DPD exchange."
    //= test: a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead, only_the_answer_to_the_last_question_counts_and_only_once
    /// The timer of dead peer detection: nothing, a question, or the verdict.
    pub(super) fn detect(&mut self, now: Instant) {
        let Some(isakmp) = self.current().filter(|sa| sa.abilities.dpd).map(|sa| sa.id) else { return };
        let (interval, timeout) = (self.config.dpd.interval, self.config.dpd.timeout);
        let heard = self.last_heard.unwrap_or(now);
        // RFC 3706 section 5.4: traffic is proof of life, and nobody asks while there is some.
        //= rfc3706 5.4 "To this end, if traffic is regularly exchanged between two peers, either peer SHOULD use this traffic as proof of liveliness, and both peers SHOULD NOT initiate a DPD exchange."
        //= test: traffic_is_proof_of_life_enough, a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead
        if now < heard + interval {
            return self.timers.set(Timer::Dpd, heard + interval);
        }
        //= rfc3706 5.4 "After some number of retransmitted messages, an implementation SHOULD assume its peer to be unreachable and delete IPSec and IKE SAs to the peer."
        //= test: a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead, traffic_is_proof_of_life_enough
        if self.asked && now >= heard + timeout {
            self.events.push_back(Event::DeadPeer);
            return self.shut();
        }
        self.asked = true;
        self.ask(isakmp);
        let pause = (timeout.saturating_sub(interval) / QUESTIONS).max(LEAST_PAUSE);
        self.timers.set(Timer::Dpd, (now + pause).min((heard + timeout).max(now + LEAST_PAUSE)));
    }

    fn ask(&mut self, isakmp: u32) {
        let random = self.rng.next_u32();
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == isakmp) else { return };
        let sequence = sa.sequences.next(random);
        self.send_detection(isakmp, None, NotifyType::R_U_THERE, sequence);
    }

    //= rfc3706 5.3 "When sent, the R-U-THERE message MUST take the following form:"
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
    //= rfc3706 5.3 "- Notify Message Type (2 octets) - MUST be set to R-U-THERE"
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
    //= rfc3706 5.3 "Again, the Notification Data MUST be sent to the sequence number corresponding to the received R-U-THERE message."
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, only_the_answer_to_the_last_question_counts_and_only_once
    //= rfc3706 6.1 "To guard against message replay attacks and false proof of liveliness, a 32-bit sequence number MUST be presented with each R-U-THERE message."
    //= test: a_question_and_its_answer_have_the_form_of_the_rfc_and_the_same_number, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
    fn send_detection(&mut self, isakmp: u32, port: Option<Port>, kind: NotifyType, sequence: u32) {
        let Some(sa) = self.isakmp.iter().find(|sa| sa.id == isakmp) else { return };
        let (spi, data) = (sa.cookies.spi(), sequence.to_be_bytes());
        //= rfc3706 5.3 "- Protocol ID (1 octet) - MUST be set to the protocol ID for ISAKMP."
        //= test: a_probe_asks_at_once_and_its_answer_is_a_sign_of_life, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
        //= rfc3706 5.3 "- Notification Data (4 octets) - MUST be set to the sequence number corresponding to this message"
        //= test: a_probe_asks_at_once_and_its_answer_is_a_sign_of_life, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
        //= rfc3706 5.3 "The format of the R-U-THERE-ACK message is the same, with the exception that the Notify Message Type MUST be set to R-U-THERE-ACK."
        //= test: a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
        let notification = Notification { protocol: ProtocolId::ISAKMP, spi: &spi, kind, data: &data };
        self.inform(isakmp, port, PayloadType::N, &notification.body(), 1);
    }

    /// Takes an R-U-THERE or its answer; returns whether it proves life, which one that is refused does not.
    pub(super) fn handle_detection(&mut self, isakmp: u32, port: Port, notification: &Notification<'_>) -> bool {
        let Some(sa) = self.isakmp.iter_mut().find(|sa| sa.id == isakmp) else { return false };
        // Section 6.1: both ends SHOULD check the cookies in the SPI field. Some leave it empty.
        let named = notification.spi.is_empty() || notification.spi == sa.cookies.spi();
        let sequence = <[u8; 4]>::try_from(notification.data).map(u32::from_be_bytes);
        let (true, Ok(sequence)) = (named, sequence) else {
            self.notice("a message of dead peer detection is ignored: wrong cookies or no sequence number".to_owned());
            return false;
        };
        if notification.kind == NotifyType::R_U_THERE {
            let accepted = sa.sequences.accept_question(sequence);
            if accepted {
                //= rfc3706 5.2 "An entity that has sent the DPD Vendor ID MUST respond to an R-U-THERE query."
                //= test: a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead, messages_of_dead_peer_detection_that_do_not_fit_are_no_sign_of_life_and_get_no_answer
                //= rfc3706 6.1 "A responder to an R-U-THERE message MUST send an R-U-THERE-ACK with the same sequence number."
                //= test: a_probe_asks_at_once_and_its_answer_is_a_sign_of_life, only_the_answer_to_the_last_question_counts_and_only_once
                self.send_detection(isakmp, Some(port), NotifyType::R_U_THERE_ACK, sequence);
            }
            return accepted;
        }
        let accepted = sa.sequences.accept_answer(sequence);
        if !accepted {
            self.notice(format!("an R-U-THERE-ACK with sequence {sequence} answers no question"));
        }
        accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_numbers_begin_below_the_high_bit_and_count_on_by_one() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.next(u32::MAX), u32::MAX >> 1);
        assert_eq!(sequences.next(7), 1 << 31);
    }

    #[test]
    fn only_the_answer_to_the_last_question_counts_and_only_once() {
        let mut sequences = Sequences::default();
        assert!(!sequences.accept_answer(0));
        let first = sequences.next(1000);
        let second = sequences.next(1000);
        assert!(!sequences.accept_answer(first) && !sequences.accept_answer(second + 1));
        assert!(sequences.accept_answer(second));
        assert!(!sequences.accept_answer(second));
    }

    #[test]
    fn a_question_has_to_be_newer_than_all_before_it() {
        let mut sequences = Sequences::default();
        assert!(sequences.accept_question(1 << 20));
        assert!(sequences.accept_question((1 << 20) + 5), "a gap is a lost question");
        for older in [(1 << 20) + 4, 1, 0] {
            assert!(!sequences.accept_question(older), "{older}");
        }
    }

    #[test]
    fn a_repeated_question_is_accepted_three_times() {
        let mut sequences = Sequences::default();
        let accepted = (0..10).filter(|_| sequences.accept_question(9)).count();
        assert_eq!(accepted, 1 + usize::from(MAX_REPEATED_QUESTIONS));
    }
}
