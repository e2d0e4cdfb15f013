//! The probe behind `Ready`: how many failed in a row, and when the next LCP echo is due. Probes of hosts are made by the process.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{HealthCheck, ProbeKind};
use crate::report::{Reason, State};

/// The results so far.
#[derive(Debug, Default)]
pub(super) struct Probe {
    failures: u32,
    /// When the next LCP probe is due, or the one on its way has failed.
    due: Option<Instant>,
    /// Whether an LCP probe is on its way.
    waiting: bool,
}

impl Probe {
    /// Begins anew; an LCP probe is due at once.
    pub(super) fn new(check: &HealthCheck, now: Instant) -> Self {
        Self { due: (check.kind == ProbeKind::Lcp).then_some(now), ..Self::default() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// The next LCP probe is sent; returns whether the one before it is lost.
    pub(super) fn ask(&mut self, now: Instant, check: &HealthCheck) -> bool {
        self.due = Some(now + check.interval());
        std::mem::replace(&mut self.waiting, true)
    }

    /// An LCP Echo-Reply came; returns whether a probe waited for it.
    pub(super) fn answered(&mut self) -> bool {
        std::mem::take(&mut self.waiting)
    }

    /// Counts a result; returns what it makes of the layer, if it changes anything.
    pub(super) fn judge(
        &mut self,
        check: &HealthCheck,
        result: Result<Duration, String>,
    ) -> Option<(State, Reason, String)> {
        let what = match (check.kind, check.host, check.port) {
            (ProbeKind::Tcp, Some(host), Some(port)) => format!("TCP {}", SocketAddr::new(host, port)),
            (ProbeKind::Icmp, Some(host), _) => format!("ICMP echo to {host}"),
            (ProbeKind::Lcp | ProbeKind::Icmp | ProbeKind::Tcp, ..) => "LCP echo".to_owned(),
        };
        match result {
            Ok(_) => {
                self.failures = 0;
                Some((State::Up, Reason::ProbeSucceeded, format!("{what} answered through the tunnel.")))
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                let message = || {
                    format!(
                        "{what} does not answer through the tunnel: {why}. The tunnel is up: check the host, and the routes and filters behind the gateway."
                    )
                };
                (self.failures >= check.failure_threshold).then(|| (State::Down, Reason::ProbeFailed, message()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_count_and_one_success_makes_good() {
        let check = HealthCheck::default();
        let mut probe = Probe::new(&check, Instant::now());
        let state = |judged: Option<(State, Reason, String)>| judged.map(|(state, ..)| state);
        let failed = || Err("no LCP Echo-Reply".to_owned());
        let states = [failed(), failed(), Ok(Duration::ZERO), failed(), failed(), failed()]
            .map(|result| state(probe.judge(&check, result)));
        assert_eq!(states, [None, None, Some(State::Up), None, None, Some(State::Down)]);
    }

    #[test]
    fn an_lcp_probe_is_lost_when_the_next_is_due() {
        let (check, start) = (HealthCheck::default(), Instant::now());
        let mut probe = Probe::new(&check, start);
        assert!(probe.is_due(start));
        assert!(!probe.ask(start, &check));
        assert!(!probe.is_due(start + check.interval() / 2));
        assert!(probe.ask(start + check.interval(), &check));
        assert!(probe.answered());
        assert!(!probe.answered());
        assert!(!probe.ask(start + 2 * check.interval(), &check));
    }
}
