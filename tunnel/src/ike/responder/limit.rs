//! How often one source may ask for work before it has proved anything: a token bucket for each address, in a table of fixed size.
//!
//! The buckets have no names. Which one a source uses follows from its address and a secret, so that a flood of forged addresses
//! neither grows the table nor throws anybody out of it, and nobody knows which addresses share a bucket.

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::rate::{Bucket, Rate};

/// The number of buckets. A flood of 10 000 messages per second from forged addresses costs each of them less than one per second.
const BUCKETS: usize = 16_384;

/// The buckets of all sources.
pub(super) struct Limiter {
    secret: [u8; 16],
    buckets: Vec<Bucket>,
}

impl Limiter {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self { secret, buckets: vec![Bucket::default(); BUCKETS] }
    }

    /// Takes a token out of the bucket of `source`, `elapsed` after the beginning; false if there is none.
    pub(super) fn allow(&mut self, elapsed: Duration, source: IpAddr, rate: Rate) -> bool {
        let bucket = self.bucket(source);
        self.buckets.get_mut(bucket).is_some_and(|bucket| bucket.take(elapsed, rate))
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
    fn other_sources_have_their_own_and_a_network_of_ipv6_is_one_source() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.1", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "::ffff:192.0.2.1", RATE), 0);
        assert_eq!(allowed(&mut limiter, 0, "192.0.2.2", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8::1", RATE), 8);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8::ffff:0:0:1", RATE), 0);
        assert_eq!(allowed(&mut limiter, 0, "2001:db8:0:1::1", RATE), 8);
    }
}
