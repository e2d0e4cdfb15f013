//! Deadlines of a state machine: one per variant of an enum, held as data and never as a future.

use std::collections::BTreeMap;
use std::time::Instant;

/// The pending deadlines of one machine, keyed by its timer enum.
#[derive(Debug, Clone)]
pub struct Timers<T> {
    deadlines: BTreeMap<T, Instant>,
}

impl<T: Ord + Copy> Timers<T> {
    /// Sets or moves the deadline of `timer`.
    pub fn set(&mut self, timer: T, at: Instant) {
        self.deadlines.insert(timer, at);
    }

    /// Removes the deadline of `timer`, if it has one.
    pub fn stop(&mut self, timer: T) {
        self.deadlines.remove(&timer);
    }

    /// Removes every deadline.
    pub fn clear(&mut self) {
        self.deadlines.clear();
    }

    /// Removes and returns one timer whose deadline is not after `now`, the earliest first.
    pub fn pop_expired(&mut self, now: Instant) -> Option<T> {
        let (&timer, _) = self.deadlines.iter().filter(|&(_, &at)| at <= now).min_by_key(|&(_, &at)| at)?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    /// The deadline of `timer`, if it is set.
    pub fn deadline(&self, timer: T) -> Option<Instant> {
        self.deadlines.get(&timer).copied()
    }

    /// The earliest deadline of all.
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn expired_timers_come_out_once_and_earliest_first() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set('b', start + Duration::from_secs(1));
        timers.set('a', start + Duration::from_secs(2));
        timers.set('c', start + Duration::from_secs(9));
        let now = start + Duration::from_secs(2);
        assert_eq!(timers.pop_expired(now), Some('b'));
        assert_eq!(timers.pop_expired(now), Some('a'));
        assert_eq!(timers.pop_expired(now), None);
        assert_eq!(timers.next(), Some(start + Duration::from_secs(9)));
    }
}
