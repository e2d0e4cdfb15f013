//! What the operator counts, in the text format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::Store;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::api::condition::{ConditionType, find};
use crate::cache::{Tunnel, User};
use crate::reports::Reports;
use crate::status;

/// Bounds of the histogram of reconciliations in seconds.
const BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    ready: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAcceptance {
    accepted: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// Why a report was not taken: the closed list of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its tunnel does not exist.
    NoTunnel,
    /// The token is missing, or not for us.
    Unauthenticated,
    /// The pod is not the tunnel's.
    Forbidden,
    /// It could not be read.
    Malformed,
    /// This replica does not lead, or the API server could not be asked.
    Unavailable,
}

impl Refused {
    const ALL: [Self; 5] = [Self::NoTunnel, Self::Unauthenticated, Self::Forbidden, Self::Malformed, Self::Unavailable];

    fn name(self) -> &'static str {
        match self {
            Self::NoTunnel => "no-tunnel",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How the webhook answered: the closed list of the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reviewed {
    /// The pod was let through, with a sidecar or as it was.
    Allowed,
    /// The pod was refused with a remedy.
    Denied,
    /// There was no answer about the pod.
    Failed,
}

impl Reviewed {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "error",
        }
    }
}

/// Shared by all parts.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Counted>);

struct Counted {
    reconciliations: Family<OfResult, Counter>,
    running: Gauge,
    duration: Histogram,
    leader: Gauge,
    refused: Family<OfReason, Counter>,
    reviews: Family<OfResult, Counter>,
    /// Seconds since the Unix epoch.
    certificate_expires: Gauge<f64, AtomicU64>,
    watched: OnceLock<(Store<Tunnel>, Store<User>, Reports)>,
}

impl Default for Counted {
    fn default() -> Self {
        let counted = Self {
            reconciliations: Family::default(),
            running: Gauge::default(),
            duration: Histogram::new(BUCKETS),
            leader: Gauge::default(),
            refused: Family::default(),
            reviews: Family::default(),
            certificate_expires: Gauge::default(),
            watched: OnceLock::new(),
        };
        // A series that appears with its first event hides that event from `rate`.
        for result in ["success", "error"] {
            drop(counted.reconciliations.get_or_create(&OfResult { result }));
        }
        for reason in Refused::ALL {
            drop(counted.refused.get_or_create(&OfReason { reason: reason.name() }));
        }
        for result in Reviewed::ALL {
            drop(counted.reviews.get_or_create(&OfResult { result: result.name() }));
        }
        counted
    }
}

impl Metrics {
    /// What tunnels and pods are counted from when somebody asks. The first call counts.
    pub fn watch(&self, tunnels: Store<Tunnel>, users: Store<User>, reports: Reports) {
        self.0.watched.get_or_init(|| (tunnels, users, reports));
    }

    /// A run of the controller begins.
    pub fn reconciling(&self) {
        self.0.running.inc();
    }

    /// It is over.
    pub fn reconciled(&self, good: bool, took: Duration) {
        let result = if good { "success" } else { "error" };
        self.0.running.dec();
        self.0.reconciliations.get_or_create(&OfResult { result }).inc();
        self.0.duration.observe(took.as_secs_f64());
    }

    /// This replica leads, or does not any more.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(leads.into());
    }

    /// A report was not taken.
    pub fn refused(&self, reason: Refused) {
        self.0.refused.get_or_create(&OfReason { reason: reason.name() }).inc();
    }

    /// The webhook answered.
    pub fn reviewed(&self, result: Reviewed) {
        self.0.reviews.get_or_create(&OfResult { result: result.name() }).inc();
    }

    /// Until when the certificate in use is valid.
    pub fn certificate(&self, expires: Timestamp) {
        // Whole seconds of this age are exact in a float.
        self.0.certificate_expires.set(expires.as_duration().as_secs_f64());
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// None in practice: a string takes all that is written into it.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let counted = &*self.0;
        let mut registry = Registry::with_prefix("towline_operator");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The operator's version", build);
        registry.register("leader", "Whether this replica leads", counted.leader.clone());
        registry.register("reconciliations", "Runs of the controller by result", counted.reconciliations.clone());
        let help = "Runs of the controller that are under way";
        registry.register("reconciliations_running", help, counted.running.clone());
        let help = "How long a run of the controller took";
        registry.register_with_unit("reconciliation_duration", help, Unit::Seconds, counted.duration.clone());
        registry.register("reports_refused", "Reports that were not taken, by reason", counted.refused.clone());
        registry.register(
            "webhook_reviews",
            "Pods that the webhook was asked about, by result",
            counted.reviews.clone(),
        );
        let help = "Until when the certificate of the HTTPS servers is valid, since the Unix epoch";
        let expires = counted.certificate_expires.clone();
        registry.register_with_unit("certificate_expiry_timestamp", help, Unit::Seconds, expires);
        if let Some((tunnels, users, reports)) = counted.watched.get() {
            register_watched(&mut registry, tunnels, reports);
            register_users(&mut registry, users);
        }
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

fn register_users(registry: &mut Registry, users: &Store<User>) {
    let by_status = Family::<OfAcceptance, Gauge>::default();
    for accepted in ["True", "False", "Unknown"] {
        by_status.get_or_create(&OfAcceptance { accepted }).set(0);
    }
    for user in users.state() {
        let status = user.0.as_ref().ok().and_then(|user| user.status.clone()).unwrap_or_default();
        let told = find(&status.conditions, ConditionType::Accepted).map(|accepted| accepted.status.as_str());
        let accepted = match told {
            Some("True") => "True",
            Some("False") => "False",
            _ => "Unknown",
        };
        by_status.get_or_create(&OfAcceptance { accepted }).inc();
    }
    registry.register("users", "VpnUsers by the status of their condition Accepted", by_status);
}

fn register_watched(registry: &mut Registry, tunnels: &Store<Tunnel>, reports: &Reports) {
    let by_status = Family::<OfStatus, Gauge>::default();
    for ready in ["True", "False", "Unknown"] {
        by_status.get_or_create(&OfStatus { ready }).set(0);
    }
    for tunnel in tunnels.state() {
        let told = tunnel.0.as_ref().ok().and_then(|tunnel| status::readiness(tunnel.status.as_ref()));
        let ready = match told {
            Some(("True", _)) => "True",
            Some(("False", _)) => "False",
            _ => "Unknown",
        };
        by_status.get_or_create(&OfStatus { ready }).inc();
    }
    registry.register("tunnels", "VpnTunnels by the status of their condition Ready", by_status);
    let received = Counter::<u64>::default();
    received.inc_by(reports.received());
    registry.register("reports", "Reports that were accepted from tunnel pods", received);
    let gauge = |count: usize| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        gauge
    };
    registry.register("reporting_pods", "Tunnel pods that are known by their reports", gauge(reports.len()));
    let help = "Tunnels with news from their pods that wait for a run of the controller";
    registry.register("tunnels_waiting", help, gauge(reports.waiting()));
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::api::condition::Verdict;
    use crate::api::tunnel::VpnTunnelStatus;
    use crate::api::user::VpnUserStatus;
    use crate::build::tests::tunnel;
    use crate::build::users::tests::user;
    use crate::cache::Cache;

    #[test]
    fn tunnels_are_counted_by_their_status_and_forgotten_with_their_end() {
        let (cache, mut writers) = Cache::new();
        let metrics = Metrics::default();
        metrics.watch(cache.tunnels, cache.users, Reports::default());
        let mut ready = tunnel("Gateway");
        let verdict = Verdict::yes(towline_tunnel::report::Reason::ProbeSucceeded, "It works.");
        let condition = verdict.condition(ConditionType::Ready, &[], None, Timestamp::UNIX_EPOCH);
        ready.status = Some(VpnTunnelStatus { conditions: vec![condition], ..VpnTunnelStatus::default() });
        let ready = DeserializeGuard(Ok(ready));
        let count = |status: &str, count: u32| {
            let (line, text) =
                (format!("towline_operator_tunnels{{ready=\"{status}\"}} {count}\n"), metrics.render().unwrap());
            assert!(text.contains(&line), "{text}");
        };
        writers.tunnels.apply_watcher_event(&Event::Apply(ready.clone()));
        count("True", 1);
        count("Unknown", 0);
        writers.tunnels.apply_watcher_event(&Event::Delete(ready));
        count("True", 0);
    }

    #[test]
    fn users_are_counted_by_whether_they_are_let_in() {
        let (cache, mut writers) = Cache::new();
        let metrics = Metrics::default();
        metrics.watch(cache.tunnels, cache.users, Reports::default());
        let mut alice = user("alice", 1, &serde_json::json!({}));
        writers.users.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(alice.clone()))));
        assert!(metrics.render().unwrap().contains("towline_operator_users{accepted=\"Unknown\"} 1\n"));
        let verdict = Verdict::no(towline_tunnel::report::Reason::Conflict, "Somebody has the name.");
        let condition = verdict.condition(ConditionType::Accepted, &[], None, Timestamp::UNIX_EPOCH);
        alice.status = Some(VpnUserStatus { conditions: vec![condition], ..VpnUserStatus::default() });
        writers.users.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(alice))));
        let text = metrics.render().unwrap();
        assert!(text.contains("towline_operator_users{accepted=\"False\"} 1\n"), "{text}");
        assert!(text.contains("towline_operator_users{accepted=\"Unknown\"} 0\n"), "{text}");
    }

    #[test]
    fn every_series_is_there_before_its_first_event() {
        let metrics = Metrics::default();
        metrics.certificate(Timestamp::from_second(1_800_000_000).unwrap());
        metrics.reconciling();
        metrics.reconciled(false, Duration::from_millis(20));
        metrics.refused(Refused::NoTunnel);
        let text = metrics.render().unwrap();
        for line in [
            "towline_operator_reconciliations_total{result=\"error\"} 1",
            "towline_operator_reconciliations_running 0",
            "towline_operator_reports_refused_total{reason=\"no-tunnel\"} 1",
            "towline_operator_reports_refused_total{reason=\"malformed\"} 0",
            "towline_operator_webhook_reviews_total{result=\"denied\"} 0",
            "towline_operator_certificate_expiry_timestamp_seconds 1800000000.0",
            "towline_operator_leader 0",
            "towline_operator_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
