//! Lifetimes in packets and octets (RFC 4301 section 4.4.2.1): a soft limit asks for a successor, a hard limit ends the SA.

/// How much one SA may carry; nothing named is no limit. Seconds are counted by IKE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    /// The most packets.
    pub packets: Option<u64>,
    /// The most octets of payload; the packet that crosses the limit is the last.
    pub octets: Option<u64>,
}

/// How much an SA has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Packets.
    pub packets: u64,
    /// Octets of payload: of the IP payload when sent, of the decrypted octets with their padding when received.
    pub octets: u64,
}

/// Usage held against a lifetime.
#[derive(Debug)]
pub(super) struct Meter {
    lifetime: Lifetime,
    usage: Usage,
}

/// The part of a limit, one in this many, that is left when a successor should be negotiated: 20 %.
const RESERVE: u64 = 5;

/// Whether so much of a limit is used that a successor is due.
pub(super) fn is_low(used: u64, limit: u64) -> bool {
    used >= limit - limit / RESERVE
}

impl Meter {
    pub(super) fn new(lifetime: Lifetime) -> Self {
        Self { lifetime, usage: Usage::default() }
    }

    /// Lowers the limit of octets.
    pub(super) fn limit_octets(&mut self, octets: u64) {
        self.lifetime.octets = self.lifetime.octets.into_iter().chain([octets]).min();
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    pub(super) fn count(&mut self, octets: usize) {
        self.usage.packets = self.usage.packets.saturating_add(1);
        self.usage.octets = self.usage.octets.saturating_add(octets as u64);
    }

    pub(super) fn needs_rekey(&self) -> bool {
        self.limits().any(|(used, limit)| is_low(used, limit))
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.limits().any(|(used, limit)| used >= limit)
    }

    fn limits(&self) -> impl Iterator<Item = (u64, u64)> {
        let packets = self.lifetime.packets.map(|limit| (self.usage.packets, limit));
        let octets = self.lifetime.octets.map(|limit| (self.usage.octets, limit));
        packets.into_iter().chain(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_a_limit_ask_for_a_successor_and_all_of_it_is_the_end() {
        let lifetimes = [
            Lifetime { packets: Some(10), octets: None },
            Lifetime { packets: None, octets: Some(1000) },
            Lifetime { packets: Some(10), octets: Some(1000) },
        ];
        for lifetime in lifetimes {
            let mut meter = Meter::new(lifetime);
            for packets in 0..10 {
                assert_eq!(
                    (meter.needs_rekey(), meter.is_exhausted()),
                    (packets >= 8, false),
                    "{lifetime:?} {packets}"
                );
                meter.count(100);
            }
            assert!(meter.is_exhausted(), "{lifetime:?}");
            assert_eq!(meter.usage(), Usage { packets: 10, octets: 1000 });
        }
    }

    #[test]
    fn without_a_limit_there_is_no_end() {
        let mut meter = Meter::new(Lifetime::default());
        meter.count(usize::MAX);
        meter.count(usize::MAX);
        assert!(!meter.needs_rekey() && !meter.is_exhausted());
        assert_eq!(meter.usage(), Usage { packets: 2, octets: u64::MAX });
    }
}
