//! How often something may happen: a token bucket of one number.

use std::time::Duration;

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// So many at once.
    pub burst: u32,
    /// And so many per second on average. Any number with 0.
    pub per_second: u32,
}

/// A bucket of tokens, full at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// When it is full again, in nanoseconds since the beginning of whoever asks.
    full_at: u64,
}

impl Bucket {
    /// Takes a token, `elapsed` after the beginning; false if there is none.
    pub fn take(&mut self, elapsed: Duration, rate: Rate) -> bool {
        let Some(interval) = 1_000_000_000_u64.checked_div(u64::from(rate.per_second)) else { return true };
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let next = self.full_at.max(now).saturating_add(interval);
        let allowed = next.saturating_sub(now) <= interval.saturating_mul(u64::from(rate.burst));
        if allowed {
            self.full_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, at: u64, rate: Rate) -> usize {
        (0..100).filter(|_| bucket.take(Duration::from_secs(at), rate)).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_share() {
        let (mut bucket, rate) = (Bucket::default(), Rate { burst: 8, per_second: 4 });
        assert_eq!([0, 1, 1000].map(|at| taken(&mut bucket, at, rate)), [8, 4, 8]);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        assert_eq!(taken(&mut Bucket::default(), 0, Rate { burst: 1, per_second: 0 }), 100);
    }
}
