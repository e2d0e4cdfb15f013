//! When and whom to dial next: exponential back-off with jitter and a cap, the next peer of the list, and longer waits for refused
//! credentials. How the peer is dialled is up to [`super::ladder`].

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const CAP: Duration = Duration::from_secs(60);
/// The wait after the first refusal of credentials: gateways lock accounts and block addresses that fail too often.
const FIRST_REFUSAL: Duration = Duration::from_secs(30);
/// The longest wait after refused credentials.
const REFUSAL_CAP: Duration = Duration::from_secs(15 * 60);
/// A tunnel that was up for this long starts over with the first wait and the first peer.
const STABLE: Duration = Duration::from_secs(60);
/// Doublings after which every wait has reached its cap.
const MAX_DOUBLINGS: u32 = 6;

/// The attempts.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    failures: u32,
    refusals: u32,
    peer: usize,
}

impl Recovery {
    /// How many attempts have failed since the tunnel was last stable.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The index of the peer to dial.
    pub(super) fn peer(&self) -> usize {
        self.peer
    }

    /// Counts a failure, moves on to the next peer and tells how long to wait: doubling, capped, plus or minus a fifth. After a
    /// stable tunnel it begins again with the first wait and the first peer.
    pub(super) fn failed(
        &mut self,
        peers: usize,
        refused: bool,
        up_since: Option<Instant>,
        now: Instant,
        rng: &mut StdRng,
    ) -> Duration {
        let stable = up_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE);
        if stable {
            self.start_over();
        } else {
            self.peer = self.peer.saturating_add(1).checked_rem(peers).unwrap_or(0);
        }
        let doubled = |first: Duration, times: u32| first.saturating_mul(1 << times.min(MAX_DOUBLINGS));
        let wait = if refused {
            let wait = doubled(FIRST_REFUSAL, self.refusals).min(REFUSAL_CAP);
            self.refusals = self.refusals.saturating_add(1);
            wait
        } else {
            doubled(FIRST, self.failures).min(CAP)
        };
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rng.random_range(0.8..1.2))
    }

    /// Begins again with the first peer: the configuration or the credentials are new, or the tunnel was stable.
    pub(super) fn start_over(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn assert_about(wait: Duration, seconds: u64) {
        let nominal = Duration::from_secs(seconds);
        assert!(wait >= nominal.mul_f64(0.8) && wait <= nominal.mul_f64(1.2), "{wait:?} is not about {nominal:?}");
    }

    #[test]
    fn waits_double_up_to_the_cap_and_peers_take_turns() {
        let (mut recovery, mut rng, now) = (Recovery::default(), StdRng::seed_from_u64(1), Instant::now());
        for index in 0..10 {
            assert_eq!(recovery.peer(), index % 3);
            assert_about(recovery.failed(3, false, None, now, &mut rng), (1u64 << index.min(6)).min(60));
        }
    }

    #[test]
    fn refused_credentials_wait_from_half_a_minute_to_a_quarter_of_an_hour() {
        let (mut recovery, mut rng, now) = (Recovery::default(), StdRng::seed_from_u64(2), Instant::now());
        for seconds in [30, 60, 120, 240, 480, 900, 900] {
            assert_about(recovery.failed(1, true, None, now, &mut rng), seconds);
        }
        // A gateway that is away for once does not make a locked account right.
        recovery.failed(1, false, None, now, &mut rng);
        assert_about(recovery.failed(1, true, None, now, &mut rng), 900);
        recovery.start_over();
        assert_about(recovery.failed(1, true, None, now, &mut rng), 30);
    }

    #[test]
    fn a_stable_tunnel_starts_over_with_the_first_wait_and_the_first_peer() {
        let (mut recovery, mut rng, now) = (Recovery::default(), StdRng::seed_from_u64(3), Instant::now());
        recovery.failed(3, false, None, now, &mut rng);
        recovery.failed(3, false, None, now, &mut rng);
        assert_eq!(recovery.peer(), 2);
        let soon = recovery.failed(3, false, Some(now), now + STABLE / 2, &mut rng);
        assert_about(soon, 4);
        assert_eq!(recovery.peer(), 0);
        recovery.failed(3, false, None, now, &mut rng);
        assert_about(recovery.failed(3, false, Some(now), now + STABLE, &mut rng), 1);
        assert_eq!(recovery.peer(), 0);
    }
}
