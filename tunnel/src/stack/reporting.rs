//! What the tunnel tells of itself: the layers in its report, and what both ends agreed on.

use super::Tunnel;
use crate::config::Exchange;
use crate::report::{Layer, Negotiated, Reason, State};
use crate::suite;

/// What Aggressive Mode costs (RFC 2409 section 5.4).
const AGGRESSIVE: &str =
    "Aggressive Mode shows the identities and a hash of the pre-shared key, on which anybody can try keys";

impl Tunnel {
    /// Changes what was agreed on, if anything was.
    pub(super) fn negotiated(&mut self, change: impl FnOnce(&mut Negotiated)) {
        if let Some(negotiated) = &mut self.report.negotiated {
            change(negotiated);
            self.judge_negotiated();
        }
    }

    pub(super) fn judge_negotiated(&mut self) {
        let Some(negotiated) = &mut self.report.negotiated else { return };
        // Whether the gateway asks who we are is known once there is an address.
        let anonymous = self.report.assigned_address.is_some() && negotiated.ppp_auth.is_none();
        let anonymous = anonymous.then(|| "the gateway asked for no PPP authentication".to_owned());
        let truncated = matches!(&self.state, super::State::Connected(connection) if connection.is_truncated());
        let truncated = truncated.then(|| "the gateway sends 96 bits of HMAC-SHA2-256 in place of 128".to_owned());
        let weak = suite::weakness(&negotiated.ike, negotiated.esp.as_ref());
        let aggressive = (self.config.ike.exchange == Exchange::Aggressive).then(|| AGGRESSIVE.to_owned());
        let weak: Vec<_> = weak.into_iter().chain(aggressive).chain(anonymous).chain(truncated).collect();
        negotiated.weakness = (!weak.is_empty()).then(|| weak.join("; "));
        self.report_changed = true;
    }

    /// Reports the link that is up.
    pub(super) fn show_link(&mut self, mtu: u16) {
        self.negotiated(|negotiated| negotiated.mtu = Some(mtu));
        let auth = self.report.negotiated.as_ref().and_then(|negotiated| negotiated.ppp_auth);
        let auth = auth.map_or_else(|| "without authentication".to_owned(), |auth| format!("by {auth}"));
        let address = self.report.assigned_address.map(|address| address.to_string()).unwrap_or_default();
        self.layer_up(Layer::Ppp, Reason::IpcpOpened, format!("{address} {auth}, MTU {mtu}."));
    }

    pub(super) fn layers_wait(&mut self) {
        for layer in [Layer::Ike, Layer::Ipsec, Layer::L2tp, Layer::Ppp, Layer::Probe] {
            self.progress(layer, Reason::WaitingForLowerLayer, "Waits for the layer below.");
        }
    }

    pub(super) fn set(&mut self, layer: Layer, state: State, reason: Reason, message: impl Into<String>) {
        self.report_changed |= self.report.set(layer, state, reason, message);
    }

    pub(super) fn layer_up(&mut self, layer: Layer, reason: Reason, message: String) {
        self.report_changed |= self.outage.up(&mut self.report, layer, reason, message);
    }

    pub(super) fn progress(&mut self, layer: Layer, reason: Reason, message: &str) {
        self.report_changed |= self.outage.progress(&mut self.report, layer, reason, message);
    }
}
