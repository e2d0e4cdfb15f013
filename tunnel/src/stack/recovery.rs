//! When and where to dial next: exponential back-off with jitter and a cap, the next peer of the list, fresh source ports.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub(super) const CAP: Duration = Duration::from_secs(60);
/// The shortest wait after refused credentials: gateways lock accounts that fail too often.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
/// A tunnel that was up for this long starts over with the first wait.
const STABLE: Duration = Duration::from_secs(60);

/// The ladder of attempts.
#[derive(Debug)]
pub(super) struct Recovery {
    failures: u32,
    peer: usize,
}

impl Recovery {
    pub(super) fn new() -> Self {
        Self { failures: 0, peer: 0 }
    }

    /// How many attempts have failed since the tunnel was last stable.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The index of the peer to dial.
    pub(super) fn peer(&self) -> usize {
        self.peer
    }

    /// Whether the next attempt takes new source ports: a NAT may hold a dead mapping for the old ones.
    pub(super) fn wants_fresh_ports(&self) -> bool {
        self.failures > 0
    }

    /// Counts a failure, moves on to the next peer and tells how long to wait: doubling, capped, plus or minus a fifth.
    pub(super) fn failed(&mut self, peers: usize, refused: bool, up_since: Option<Instant>, now: Instant, rng: &mut StdRng) -> Duration {
        if up_since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.failures = 0;
        }
        let wait = FIRST.saturating_mul(1 << self.failures.min(6)).min(CAP);
        let wait = if refused { wait.max(AFTER_REFUSAL) } else { wait };
        self.failures = self.failures.saturating_add(1);
        self.peer = self.peer.saturating_add(1).checked_rem(peers).unwrap_or(0);
        wait.mul_f64(rng.random_range(0.8..1.2))
    }

    /// Begins again with the first peer: the configuration or the credentials are new.
    pub(super) fn start_over(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_double_up_to_the_cap_and_peers_take_turns() {
        let (mut recovery, mut rng, now) = (Recovery::new(), StdRng::seed_from_u64(1), Instant::now());
        let mut waits = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..10 {
            peers.push(recovery.peer());
            waits.push(recovery.failed(3, false, None, now, &mut rng));
        }
        assert_eq!(peers, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        for (index, wait) in waits.iter().enumerate() {
            let nominal = Duration::from_secs((1u64 << index.min(6)).min(60));
            assert!(*wait >= nominal.mul_f64(0.8) && *wait <= nominal.mul_f64(1.2), "{index}: {wait:?}");
        }
        assert!(recovery.wants_fresh_ports());
    }

    #[test]
    fn refused_credentials_wait_longer_and_a_stable_tunnel_starts_over() {
        let (mut recovery, mut rng, now) = (Recovery::new(), StdRng::seed_from_u64(2), Instant::now());
        assert!(recovery.failed(1, true, None, now, &mut rng) >= Duration::from_secs(8));
        recovery.failed(1, false, None, now, &mut rng);
        let wait = recovery.failed(1, false, Some(now), now + STABLE, &mut rng);
        assert!(wait <= Duration::from_millis(1200), "{wait:?}");
    }
}
