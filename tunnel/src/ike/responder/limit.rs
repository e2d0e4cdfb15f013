//! How often one source may ask for work before it has proved anything: a token bucket for each address, in a table of fixed size.
//!
//! The buckets have no names. Which one a source uses follows from its address and a secret, so that a flood of forged addresses
//! neither grows the table nor throws anybody out of it, and nobody knows which addresses share a bucket.

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// The number of buckets. A flood of 10 000 messages per second from forged addresses costs each of them less than one per second.
const BUCKETS: usize = 16_384;

/// How much one source may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many at once.
    pub burst: u32,
    /// And so many per second on average. Any number with 0.
    pub per_second: u32,
}

/// The buckets of all sources.
pub(super) struct Limiter {
    secret: [u8; 16],
    /// When each bucket is full again, in nanoseconds since the beginning.
    full_at: Vec<u64>,
}

impl Limiter {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self { secret, full_at: vec![0; BUCKETS] }
    }

    /// Takes a token out of the bucket of `source`, `elapsed` after the beginning; false if there is none.
    pub(super) fn allow(&mut self, elapsed: Duration, source: IpAddr, rate: Rate) -> bool {
        let Some(interval) = 1_000_000_000_u64.checked_div(u64::from(rate.per_second)) else { return true };
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bucket(source);
        let Some(full_at) = self.full_at.get_mut(bucket) else { return false };
        let next = (*full_at).max(now).saturating_add(interval);
        let allowed = next.saturating_sub(now) <= interval.saturating_mul(u64::from(rate.burst));
        if allowed {
            *full_at = next;
        }
        allowed
    }

    fn bucket(&self, source: IpAddr) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.secret);
        match source.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            // A site has at least a network of 64 bits to take addresses from.
            IpAddr::V6(address) => hasher.write(address.octets().get(..8).unwrap_or_default()),
        }
        usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const RATE: Rate = Rate { burst: 8, per_second: 4 };

    fn allowed(limiter: &mut Limiter, at: u64, source: &str, rate: Rate) -> usize {
        let source = source.parse().unwrap();
        (0..100).filter(|_| limiter.allow(Duration::from_secs(at), source, rate)).count()
    }

    #[test]
    fn a_source_has_a_burst_and_then_its_share() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.1", RATE), 8);
        assert_eq!(allowed(&mut limiter, 1, "192.0.2.1", RATE), 4);
        assert_eq!(allowed(&mut limiter, 1000, "192.0.2.1", RATE), 8);
    }

    #[test]
    fn other_sources_have_their_own_and_a_network_of_ipv6_is_one_source() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.1", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "::ffff:192.0.2.1", RATE), 0);
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.2", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8::1", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8::ffff:0:0:1", RATE), 0);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8:0:1::1", RATE), 8);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.1", Rate { burst: 1, per_second: 0 }), 100);
    }
}
