//! The last report of each pod, in memory: a restarted operator hears from every pod within a heartbeat.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use towline_tunnel::report::Report;

pub use read::read;

/// Pods whose reports are kept; a report is a few kilobytes.
const MAX_PODS: usize = 8_192;
/// A pod that has not reported for this long is silent: three heartbeats and some.
pub const SILENCE: Duration = Duration::from_secs(35);

/// How often is looked for pods that have fallen silent.
const SCAN: Duration = Duration::from_secs(5);

/// A pod of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// The namespace of both.
    pub namespace: String,
    /// Name of the tunnel.
    pub tunnel: String,
    /// Name of the pod.
    pub pod: String,
}

/// A report and when it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which pod of that name.
    pub uid: String,
    /// What it said.
    pub report: Report,
    /// When, to tell its age.
    pub at: Instant,
    /// When, to tell people.
    pub time: Timestamp,
    /// Its silence is known.
    told: bool,
}

#[derive(Default)]
struct Store {
    reports: BTreeMap<PodKey, Received>,
    /// When was last looked for silent pods.
    scanned: Option<Instant>,
    /// Tunnels, by namespace and name, whose reports changed since they were last taken.
    changed: BTreeSet<(String, String)>,
    received: u64,
}

/// Shared by the endpoint, which records, and the controller, which reads.
#[derive(Clone, Default)]
pub struct Reports(Arc<(Mutex<Store>, Notify)>);

impl Reports {
    fn store(&self) -> MutexGuard<'_, Store> {
        // Nothing in here panics between two changes that belong together.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `report` as the last of a pod. One that differs from the last wakes whoever waits in [`Self::changed`].
    pub fn record(&self, key: PodKey, uid: String, report: Report) {
        let mut store = self.store();
        store.received = store.received.saturating_add(1);
        let now = Instant::now();
        let known = store.reports.get(&key);
        let is_news = known.is_none_or(|known| {
            known.uid != uid || known.report != report || now.saturating_duration_since(known.at) > SILENCE
        });
        if known.is_none() && store.reports.len() >= MAX_PODS {
            store.reports.retain(|_, received| now.saturating_duration_since(received.at) <= SILENCE);
            if store.reports.len() >= MAX_PODS {
                return;
            }
        }
        let tunnel = (key.namespace.clone(), key.tunnel.clone());
        store.reports.insert(key, Received { uid, report, at: now, time: Timestamp::now(), told: false });
        if is_news {
            store.changed.insert(tunnel);
            drop(store);
            self.0.1.notify_one();
        }
    }

    /// Waits for a tunnel whose reports changed, or one of whose pods has fallen silent; returns its namespace and name.
    pub async fn changed(&self) -> (String, String) {
        loop {
            self.scan(Instant::now());
            if let Some(tunnel) = self.store().changed.pop_first() {
                return tunnel;
            }
            // Woken by a report or by the time of the next scan: the loop looks for both.
            drop(tokio::time::timeout(SCAN, self.0.1.notified()).await);
        }
    }

    /// Marks tunnels with pods that have fallen silent, each silence once.
    fn scan(&self, now: Instant) {
        let mut store = self.store();
        if store.scanned.is_some_and(|scanned| now.saturating_duration_since(scanned) < SCAN) {
            return;
        }
        store.scanned = Some(now);
        let Store { reports, changed, .. } = &mut *store;
        for (key, received) in reports.iter_mut().filter(|(_, received)| !received.told) {
            if now.saturating_duration_since(received.at) > SILENCE {
                received.told = true;
                changed.insert((key.namespace.clone(), key.tunnel.clone()));
            }
        }
    }

    /// The last report of a pod, if it is that very pod's.
    pub fn last(&self, key: &PodKey, uid: &str) -> Option<Received> {
        self.store().reports.get(key).filter(|received| received.uid == uid).cloned()
    }

    /// Forgets pods of a tunnel that are not among `pods`.
    pub fn keep_only(&self, namespace: &str, tunnel: &str, pods: &[&str]) {
        self.store()
            .reports
            .retain(|key, _| key.namespace != namespace || key.tunnel != tunnel || pods.contains(&key.pod.as_str()));
    }

    /// Forgets a tunnel that is gone.
    pub fn forget(&self, namespace: &str, tunnel: &str) {
        self.keep_only(namespace, tunnel, &[]);
        self.store().changed.remove(&(namespace.to_owned(), tunnel.to_owned()));
    }

    /// How many tunnels have news that nobody took yet.
    pub fn waiting(&self) -> usize {
        self.store().changed.len()
    }

    /// How many pods are known.
    pub fn len(&self) -> usize {
        self.store().reports.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many reports came.
    pub fn received(&self) -> u64 {
        self.store().received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pod: &str) -> PodKey {
        PodKey { namespace: "erp".to_owned(), tunnel: "oslo".to_owned(), pod: pod.to_owned() }
    }

    #[tokio::test]
    async fn news_wake_the_controller_and_repetitions_do_not() {
        let reports = Reports::default();
        reports.record(key("a"), "u-1".to_owned(), Report::new("1".to_owned()));
        assert_eq!(reports.changed().await, ("erp".to_owned(), "oslo".to_owned()));
        reports.record(key("a"), "u-1".to_owned(), Report::new("1".to_owned()));
        let waiting = tokio::time::timeout(Duration::from_millis(20), reports.changed());
        assert!(waiting.await.is_err());
        reports.record(key("a"), "u-1".to_owned(), Report::new("2".to_owned()));
        reports.changed().await;
        assert_eq!((reports.len(), reports.received()), (1, 3));
    }

    #[test]
    fn a_pod_that_falls_silent_is_told_once() {
        let reports = Reports::default();
        reports.record(key("a"), "u-1".to_owned(), Report::new("1".to_owned()));
        reports.store().changed.clear();
        let silent = Instant::now() + SILENCE + SCAN;
        reports.scan(Instant::now());
        assert!(reports.store().changed.is_empty());
        reports.scan(silent);
        assert_eq!(reports.store().changed.pop_first(), Some(("erp".to_owned(), "oslo".to_owned())));
        reports.scan(silent + SCAN);
        assert!(reports.store().changed.is_empty());
    }

    #[test]
    fn a_replaced_pod_has_no_report_and_gone_ones_are_forgotten() {
        let reports = Reports::default();
        reports.record(key("a"), "u-1".to_owned(), Report::new("1".to_owned()));
        assert!(reports.last(&key("a"), "u-1").is_some());
        assert!(reports.last(&key("a"), "u-2").is_none());
        reports.keep_only("erp", "oslo", &["b"]);
        assert!(reports.is_empty());
    }
}
