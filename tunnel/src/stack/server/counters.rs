//! What a server counts; the process turns it into metrics.

use std::collections::BTreeMap;

use super::session::EndCause;
use crate::aaa::Cause;

/// Counters since the start of the process. Every key is of a closed list.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// IP packets that came from clients.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_octets: u64,
    /// IP packets that went to clients.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_octets: u64,
    /// Packets that were dropped, by the reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Peers that have proved themselves.
    pub phase1: u64,
    /// Peers that have not, or that were too many, by the reason.
    pub refused_peers: BTreeMap<&'static str, u64>,
    /// Users who were let in.
    pub accepted: u64,
    /// Users who were not, by the cause.
    pub refused_users: BTreeMap<Cause, u64>,
    /// Sessions that ended, by the cause.
    pub ended: BTreeMap<EndCause, u64>,
}

fn count<K: Ord>(counters: &mut BTreeMap<K, u64>, key: K) {
    let count = counters.entry(key).or_default();
    *count = count.saturating_add(1);
}

impl Counters {
    pub(super) fn drop_packet(&mut self, reason: &'static str) {
        count(&mut self.dropped, reason);
    }

    pub(super) fn refuse_peer(&mut self, reason: &'static str) {
        count(&mut self.refused_peers, reason);
    }

    pub(super) fn refuse_user(&mut self, cause: Cause) {
        count(&mut self.refused_users, cause);
    }

    pub(super) fn end_session(&mut self, cause: EndCause) {
        count(&mut self.ended, cause);
    }
}
