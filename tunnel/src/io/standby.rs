//! What the process does when the operator says that its `VpnTunnel` is gone: it says goodbye, keeps the remote networks
//! unreachable, and waits for one of the same name. Pure.

use crate::report::{Layer, Reason, Report, State};

/// What a person reads meanwhile.
const MESSAGE: &str = "The VpnTunnel does not exist any more: the tunnel is closed, and its remote networks stay unreachable. \
     Create it again, or remove this pod.";

/// What the operator's answers to reports say about the `VpnTunnel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It is there.
    Exists,
    /// It is gone: 410.
    Gone,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Say goodbye to the gateway, and go on without a tunnel.
    Close,
    /// Dial.
    Dial,
}

/// Whether the process is without its `VpnTunnel`.
#[derive(Debug, Default)]
pub struct Standby {
    is_gone: bool,
}

impl Standby {
    /// The operator said something else than before.
    pub fn hear(&mut self, existence: Existence) -> Step {
        match (existence, self.is_gone) {
            (Existence::Gone, false) => {
                tracing::warn!("{MESSAGE}");
                self.is_gone = true;
                Step::Close
            }
            (Existence::Exists, true) => {
                tracing::info!("the VpnTunnel is there again");
                self.is_gone = false;
                Step::Dial
            }
            (Existence::Gone, true) | (Existence::Exists, false) => Step::Stay,
        }
    }

    /// Whether the process goes on without a tunnel.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// The report of the stack, with the cause that the stack does not know.
    pub fn report(&self, mut report: Report) -> Report {
        if self.is_gone {
            for layer in Layer::CLIENT {
                report.set(layer, State::Down, Reason::Stopping, MESSAGE);
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_that_is_gone_is_closed_once_and_dialled_when_it_returns() {
        let mut standby = Standby::default();
        assert_eq!(standby.hear(Existence::Exists), Step::Stay);
        assert_eq!(standby.hear(Existence::Gone), Step::Close);
        assert_eq!(standby.hear(Existence::Gone), Step::Stay);
        assert!(standby.is_gone());
        assert_eq!(standby.hear(Existence::Exists), Step::Dial);
        assert!(!standby.is_gone());
        assert_eq!(standby.hear(Existence::Exists), Step::Stay);
    }

    #[test]
    fn the_report_names_the_cause_and_is_not_ready_while_the_tunnel_is_gone() {
        let mut report = Report::new("7".to_owned());
        report.set(Layer::Probe, State::Up, Reason::ProbeSucceeded, "It works.");
        let mut standby = Standby::default();
        assert!(standby.report(report.clone()).is_ready());
        standby.hear(Existence::Gone);
        let told = standby.report(report);
        assert!(!told.is_ready());
        assert!(told.cause().unwrap().message.starts_with("The VpnTunnel does not exist any more"));
    }
}
