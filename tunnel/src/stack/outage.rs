//! How an outage reads in the report: the layer that failed stays down with its message until an attempt passes it, the layers
//! below it wait until then, and none of them changes with every attempt.

use super::verdict::Failure;
use crate::report::{Layer, Reason, Report, State};

/// The layer that failed last, and what the attempt under way has reached below it.
#[derive(Debug, Default)]
pub(super) struct Outage {
    failed: Option<Layer>,
    /// One at most for each layer.
    reached: Vec<(Layer, Reason, String)>,
}

impl Outage {
    /// A layer is up; returns whether the report is different.
    pub(super) fn up(&mut self, report: &mut Report, layer: Layer, reason: Reason, message: String) -> bool {
        if self.failed.is_some_and(|failed| layer < failed) {
            self.reached.retain(|(reached, ..)| *reached != layer);
            self.reached.push((layer, reason, message));
            return false;
        }
        self.failed = None;
        let mut changed = false;
        for (layer, reason, message) in std::mem::take(&mut self.reached) {
            changed |= report.set(layer, State::Up, reason, message);
        }
        changed | report.set(layer, State::Up, reason, message)
    }

    /// A layer is on its way; returns whether the report is different.
    pub(super) fn progress(&self, report: &mut Report, layer: Layer, reason: Reason, message: &str) -> bool {
        let is_down = report.layer(layer).is_some_and(|report| report.state == State::Down);
        if is_down || self.failed.is_some_and(|failed| layer <= failed) {
            return false;
        }
        report.set(layer, State::Pending, reason, message)
    }

    /// An attempt failed, or a tunnel; returns whether the report is different.
    pub(super) fn fail(&mut self, report: &mut Report, failure: &Failure) -> bool {
        self.failed = Some(failure.layer);
        self.reached.clear();
        let mut changed = false;
        for layer in Layer::CLIENT.into_iter().filter(|&layer| layer > Layer::Credentials) {
            if layer > failure.layer {
                let message = "Waits for the layer below.";
                changed |= report.set(layer, State::Pending, Reason::WaitingForLowerLayer, message);
            } else if layer < failure.layer {
                let message = "The tunnel is dialled again; the layer that failed says why.";
                changed |= report.set(layer, State::Pending, Reason::BackingOff, message);
            }
        }
        changed | report.set(failure.layer, State::Down, failure.reason, failure.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(layer: Layer) -> Failure {
        Failure::new(layer, Reason::PppTimeout, "It failed.".to_owned())
    }

    fn states(report: &Report) -> [(State, Reason); 7] {
        Layer::CLIENT.map(|layer| report.layer(layer).map(|found| (found.state, found.reason)).unwrap())
    }

    fn climb(outage: &mut Outage, report: &mut Report, to: Layer) -> Vec<bool> {
        let below = Layer::CLIENT.into_iter().filter(|&layer| layer <= to);
        below.map(|layer| outage.up(report, layer, Reason::Valid, "Up.".to_owned())).collect()
    }

    #[test]
    fn attempts_that_fail_alike_change_nothing() {
        let (mut outage, mut report) = (Outage::default(), Report::new(String::new()));
        climb(&mut outage, &mut report, Layer::L2tp);
        assert!(outage.fail(&mut report, &failure(Layer::Ppp)));
        let before = states(&report);
        assert_eq!(before[2], (State::Pending, Reason::BackingOff));
        for _ in 0..3 {
            for layer in Layer::CLIENT {
                outage.progress(&mut report, layer, Reason::WaitingForLowerLayer, "Waits for the layer below.");
            }
            assert_eq!(climb(&mut outage, &mut report, Layer::L2tp), [false; 5]);
            assert!(!outage.fail(&mut report, &failure(Layer::Ppp)));
            assert_eq!(states(&report), before);
        }
    }

    #[test]
    fn an_attempt_that_passes_the_failed_layer_shows_all_of_them_up() {
        let (mut outage, mut report) = (Outage::default(), Report::new(String::new()));
        outage.fail(&mut report, &failure(Layer::Ppp));
        climb(&mut outage, &mut report, Layer::Ppp);
        assert_eq!(states(&report)[..6], [(State::Up, Reason::Valid); 6]);
        assert!(outage.progress(&mut report, Layer::Probe, Reason::Negotiating, "Probing."));
    }

    #[test]
    fn a_lower_layer_that_fails_takes_the_blame() {
        let (mut outage, mut report) = (Outage::default(), Report::new(String::new()));
        outage.fail(&mut report, &failure(Layer::Ppp));
        climb(&mut outage, &mut report, Layer::Peer);
        outage.fail(&mut report, &failure(Layer::Ike));
        assert_eq!(report.cause().unwrap().layer, Layer::Ike);
        assert_eq!(states(&report)[5], (State::Pending, Reason::WaitingForLowerLayer));
        climb(&mut outage, &mut report, Layer::Ike);
        assert_eq!(states(&report)[2], (State::Up, Reason::Valid));
    }
}
