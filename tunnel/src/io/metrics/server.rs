//! What a server adds to `/metrics`: peers, users and sessions in numbers. A series for each session would be as many as there
//! are people; `towline-tunnel status --sessions` lists them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{OfReason, counter, gauge};
use crate::io::ServerSnapshot;

/// Registers them.
pub(super) fn register(registry: &mut Registry, server: &ServerSnapshot, sessions: u32) {
    let ServerSnapshot { counters, responder, peers: (half_open, peers), .. } = server;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    gauge(registry, "sessions", "Users who are in", sessions.into());
    gauge(registry, "peers", "IPsec peers, those that have not proved themselves among them", number(*peers));
    gauge(registry, "half_open_peers", "IPsec peers that have not proved themselves", number(*half_open));
    counter(registry, "first_messages_answered", "First messages of phase 1 that were answered", responder.answered);
    counter(
        registry,
        "first_messages_refused",
        "First messages of phase 1 that were answered with no",
        responder.refused,
    );
    let ignored = responder.ignored().map(|(reason, count)| (reason.label(), count));
    family(registry, "isakmp_ignored_messages", "ISAKMP messages of strangers that were not answered", ignored);
    counter(registry, "peers_established", "Peers that have proved themselves", counters.phase1);
    let refused = counters.refused_peers.iter().map(|(reason, count)| (*reason, *count));
    family(registry, "peers_refused", "Peers that have not, or that were too many", refused);
    counter(registry, "users_accepted", "Users who were let in", counters.accepted);
    let refused = counters.refused_users.iter().map(|(cause, count)| (cause.name(), *count));
    family(registry, "users_refused", "Users who were not let in", refused);
    let ended = counters.ended.iter().map(|(cause, count)| (cause.name(), *count));
    family(registry, "sessions_ended", "Sessions that are over", ended);
}

fn family(registry: &mut Registry, name: &str, help: &str, counts: impl Iterator<Item = (&'static str, u64)>) {
    let family = Family::<OfReason, Counter>::default();
    for (reason, count) in counts {
        family.get_or_create(&OfReason { reason }).inc_by(count);
    }
    registry.register(name, help, family);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aaa::Cause;
    use crate::ike::ResponderStatistics;
    use crate::stack::server::{Counters, EndCause};
    use prometheus_client::encoding::text;

    #[test]
    fn refusals_and_ends_are_counted_by_their_causes() {
        let mut counters = Counters { accepted: 3, phase1: 4, ..Counters::default() };
        counters.refused_users.insert(Cause::WrongPassword, 7);
        counters.ended.insert(EndCause::Idle, 2);
        counters.refused_peers.insert("source_limit", 9);
        let server =
            ServerSnapshot { counters, responder: ResponderStatistics::default(), peers: (1, 5), sessions: Vec::new() };
        let mut registry = Registry::default();
        register(&mut registry, &server, 6);
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        for line in [
            "sessions 6",
            "peers 5",
            "half_open_peers 1",
            "users_accepted_total 3",
            "users_refused_total{reason=\"wrong_password\"} 7",
            "sessions_ended_total{reason=\"idle\"} 2",
            "peers_refused_total{reason=\"source_limit\"} 9",
            "isakmp_ignored_messages_total{reason=\"malformed\"} 0",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        }
    }
}
