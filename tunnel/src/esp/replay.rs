//! The anti-replay window (RFC 4303 section 3.4.3).
//!
//! The bits lie in a ring of words, so moving the window clears the words that it enters and shifts nothing (RFC 6479).

use super::OpenError;

const WORDS: u32 = 32;

/// Sequence numbers that the window spans: one word less than the ring, because the newest word is filled bit by bit while it
/// still holds room for numbers to come. RFC 4303 asks for 32 at least and 64 by default; a fast path that spreads packets over
/// several queues reorders by hundreds.
pub const WINDOW: u32 = (WORDS - 1) * u64::BITS;

/// Which of the latest sequence numbers were accepted.
#[derive(Debug, Default)]
pub(super) struct ReplayWindow {
    highest: u32,
    seen: [u64; WORDS as usize],
}

impl ReplayWindow {
    /// Whether a packet may have this sequence number; changes nothing, since the packet is not yet believed.
    pub(super) fn check(&self, sequence_number: u32) -> Result<(), OpenError> {
        let Some(age) = self.highest.checked_sub(sequence_number) else { return Ok(()) };
        //= rfc4303 3.4.3 "All ESP implementations MUST support the anti-replay service, though its use may be enabled or disabled by the receiver on a per-SA basis."
        //= test: the_window_agrees_with_a_set_of_all_numbers, each_number_is_taken_once
        //= rfc4303 3.4.3 "For each received packet, the receiver MUST verify that the packet contains a Sequence Number that does not duplicate the Sequence Number of any other packets received during the life of this SA."
        //= test: the_window_agrees_with_a_set_of_all_numbers, each_number_is_taken_once
        //= rfc4303 3.4.3 "A minimum window size of 32 packets MUST be supported when 32-bit sequence numbers are employed; a window size of 64 is preferred and SHOULD be employed as the default."
        //= test: each_number_is_taken_once, the_end_of_the_number_space_is_reached_and_not_passed
        if age >= WINDOW {
            return Err(OpenError::Stale);
        }
        let (word, bit) = place(sequence_number);
        if self.seen[word] & bit == 0 { Ok(()) } else { Err(OpenError::Replayed) }
    }

    /// Marks the sequence number of an authentic packet that [`Self::check`] let pass.
    pub(super) fn accept(&mut self, sequence_number: u32) {
        if sequence_number > self.highest {
            let [from, to] = [self.highest, sequence_number].map(|number| number / u64::BITS);
            for entered in (from + 1..=to).take(WORDS as usize) {
                self.seen[(entered % WORDS) as usize] = 0;
            }
            self.highest = sequence_number;
        }
        let (word, bit) = place(sequence_number);
        self.seen[word] |= bit;
    }

    /// The highest sequence number that was accepted.
    pub(super) fn highest(&self) -> u32 {
        self.highest
    }
}

fn place(sequence_number: u32) -> (usize, u64) {
    ((sequence_number / u64::BITS % WORDS) as usize, 1 << (sequence_number % u64::BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const _: () = assert!(WINDOW >= 1024);

    fn take(window: &mut ReplayWindow, number: u32) -> Result<(), OpenError> {
        window.check(number).map(|()| window.accept(number))
    }

    #[test]
    fn each_number_is_taken_once() {
        let mut window = ReplayWindow::default();
        for number in [1, 3, 2, 5000, 4999, 5000 - WINDOW + 1] {
            assert_eq!(take(&mut window, number), Ok(()), "{number}");
            assert_eq!(take(&mut window, number), Err(OpenError::Replayed), "{number}");
        }
        assert_eq!(take(&mut window, 5000 - WINDOW), Err(OpenError::Stale));
        assert_eq!(take(&mut window, 4), Err(OpenError::Stale));
    }

    #[test]
    fn the_end_of_the_number_space_is_reached_and_not_passed() {
        let mut window = ReplayWindow::default();
        assert_eq!(take(&mut window, u32::MAX), Ok(()));
        assert_eq!(take(&mut window, u32::MAX), Err(OpenError::Replayed));
        assert_eq!(take(&mut window, u32::MAX - WINDOW + 1), Ok(()));
        assert_eq!(take(&mut window, 1), Err(OpenError::Stale));
    }

    #[test]
    fn a_question_changes_nothing() {
        let mut window = ReplayWindow::default();
        window.accept(1);
        assert_eq!(window.check(1_000_000), Ok(()));
        assert_eq!(window.highest(), 1);
        assert_eq!(take(&mut window, 2), Ok(()));
    }

    #[test]
    fn the_window_agrees_with_a_set_of_all_numbers() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut window, mut seen, mut highest) = (ReplayWindow::default(), BTreeSet::new(), 0_u32);
            for _ in 0..5000 {
                let number = match rng.random_range(0..20) {
                    0 => highest + rng.random_range(0..3 * WINDOW),
                    1..8 => highest + rng.random_range(0..4),
                    _ => highest.saturating_sub(rng.random_range(0..WINDOW + 100)),
                }
                .max(1);
                let expected = if highest >= WINDOW && number <= highest - WINDOW {
                    Err(OpenError::Stale)
                } else if !seen.insert(number) {
                    Err(OpenError::Replayed)
                } else {
                    Ok(())
                };
                highest = highest.max(number);
                assert_eq!(take(&mut window, number), expected, "seed {seed}, number {number}, highest {highest}");
            }
        }
    }
}
