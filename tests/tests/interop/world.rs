//! What most tests begin with: networks, a gateway, a host for the tunnel.

use serde_json::Value;
use towline_tests::netns::Namespace;
use towline_tests::peer::{Guest, Lns};
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, fetch_page};
use towline_tunnel::report::{LayerReport, Reason, Report};

pub(super) const GATEWAY: &str = "192.0.2.10";

/// Everything but the tunnel, in the order in which it goes.
pub(super) struct World {
    pub(super) gateway: Guest,
    pub(super) host: Namespace,
    pub(super) site: Site,
    pub(super) lns: Lns,
}

impl World {
    /// A gateway on the wide-area network, and a host on `side`.
    pub(super) fn new(lns: Lns, side: Side) -> Self {
        let site = Site::new().unwrap();
        let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
        let address = match side {
            Side::Wan => "192.0.2.20",
            Side::Lan => "198.51.100.20",
        };
        let host = site.host("client", side, address).unwrap();
        Self { gateway, host, site, lns }
    }

    /// A tunnel that has just been started.
    pub(super) fn start(&self, change: impl FnOnce(&mut Value)) -> Tunnel {
        let mut config = config(GATEWAY);
        change(&mut config);
        Tunnel::start(&self.host, config, &self.lns).unwrap()
    }

    /// A tunnel through which the page came.
    pub(super) fn connect(&self, change: impl FnOnce(&mut Value)) -> (Tunnel, Report) {
        let mut tunnel = self.start(change);
        let report = tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
        assert_eq!(fetch_page(&self.host).unwrap(), self.lns.page);
        (tunnel, report)
    }

    /// The gateway's side of the story.
    pub(super) fn logs(&self) -> String {
        ["charon", "l2tp", "pppd"].map(|name| self.gateway.log(name)).join("\n")
    }
}

/// Words of the report of a layer that failed.
pub(super) fn assert_failed(failed: &LayerReport, reason: Reason, words: &[&str]) {
    assert_eq!(failed.reason, reason, "{failed:?}");
    for word in words {
        assert!(failed.message.contains(word), "{word:?} is not in {:?}", failed.message);
    }
}
