//! What the operator counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::reports::Reports;

/// Bounds of the histogram of reconciliations in seconds.
const BUCKETS: [f64; 8] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    ready: String,
}

/// Shared by all parts.
#[derive(Clone)]
pub struct Metrics {
    reconciliations: Family<OfResult, Counter>,
    duration: Histogram,
    leader: Gauge,
    /// The status of `Ready`, by namespace and name.
    tunnels: Arc<Mutex<BTreeMap<(String, String), String>>>,
    reports: Reports,
}

impl Metrics {
    /// All at zero; reports are counted where they are kept.
    pub fn new(reports: Reports) -> Self {
        Self {
            reconciliations: Family::default(),
            duration: Histogram::new(BUCKETS),
            leader: Gauge::default(),
            tunnels: Arc::default(),
            reports,
        }
    }

    /// A tunnel was reconciled.
    pub fn reconciled(&self, good: bool, took: Duration) {
        let result = if good { "success" } else { "error" };
        self.reconciliations.get_or_create(&OfResult { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// This replica leads, or does not any more.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The status of a tunnel's `Ready`.
    pub fn tunnel(&self, namespace: &str, name: &str, ready: &str) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.insert((namespace.to_owned(), name.to_owned()), ready.to_owned());
    }

    /// A tunnel is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// None in practice: a string takes all that is written into it.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("towline_operator");
        registry.register("reconciliations", "Runs of the controller by result", self.reconciliations.clone());
        let help = "How long a run of the controller took";
        registry.register_with_unit("reconciliation_duration", help, Unit::Seconds, self.duration.clone());
        registry.register("leader", "Whether this replica leads", self.leader.clone());
        let tunnels = Family::<OfStatus, Gauge>::default();
        for status in ["True", "False", "Unknown"] {
            tunnels.get_or_create(&OfStatus { ready: status.to_owned() }).set(0);
        }
        for ready in self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).values() {
            tunnels.get_or_create(&OfStatus { ready: ready.clone() }).inc();
        }
        registry.register("tunnels", "VpnTunnels by the status of their condition Ready", tunnels);
        let received = Counter::<u64>::default();
        received.inc_by(self.reports.received());
        registry.register("reports", "Reports that were accepted from tunnel pods", received);
        let pods = Gauge::<i64>::default();
        pods.set(i64::try_from(self.reports.len()).unwrap_or(i64::MAX));
        registry.register("reporting_pods", "Tunnel pods that are known by their reports", pods);
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_are_counted_by_their_status_and_forgotten_with_their_end() {
        let metrics = Metrics::new(Reports::default());
        metrics.tunnel("erp", "a", "True");
        metrics.tunnel("erp", "b", "False");
        metrics.tunnel("erp", "b", "True");
        metrics.reconciled(false, Duration::from_millis(20));
        let text = metrics.render().unwrap();
        assert!(text.contains("towline_operator_tunnels{ready=\"True\"} 2"), "{text}");
        assert!(text.contains("towline_operator_tunnels{ready=\"False\"} 0"), "{text}");
        assert!(text.contains("towline_operator_reconciliations_total{result=\"error\"} 1"), "{text}");
        metrics.forget("erp", "a");
        assert!(metrics.render().unwrap().contains("towline_operator_tunnels{ready=\"True\"} 1"));
    }
}
