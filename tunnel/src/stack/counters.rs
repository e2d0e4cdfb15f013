//! What a tunnel counts; the process turns it into metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::report::Layer;

/// Counters since the start of the process, and the times that only the stack knows.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// IP packets that came out of the tunnel.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_octets: u64,
    /// IP packets that went into the tunnel.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_octets: u64,
    /// Packets that were dropped, by a reason of a closed list.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Failed attempts, by the layer that failed.
    pub failures: BTreeMap<Layer, u64>,
    /// Refusals that another way was tried after, by what differed, in a word of a closed list.
    pub climbs: BTreeMap<&'static str, u64>,
    /// Attempts.
    pub dials: u64,
    /// Times that phase 1 was established anew under a running tunnel.
    pub phase1_rekeys: u64,
    /// Times that a pair of ESP SAs was replaced.
    pub phase2_rekeys: u64,
    /// When the last authenticated packet came from the peer.
    pub last_receive: Option<Instant>,
    /// Since when the tunnel is up.
    pub established: Option<Instant>,
}

impl Counters {
    pub(super) fn climb(&mut self, facet: &'static str) {
        let count = self.climbs.entry(facet).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn drop_packet(&mut self, reason: &'static str) {
        let count = self.dropped.entry(reason).or_default();
        *count = count.saturating_add(1);
    }
}
