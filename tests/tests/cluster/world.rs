//! What every test begins with: the cluster, the chart, a gateway at an address of its own.

use std::net::Ipv4Addr;

use towline_tests::cluster::Cluster;
use towline_tests::peer::{Guest, Lns};
use towline_tests::release;

/// The cluster with the chart installed. It stays for the next test.
pub(super) fn cluster() -> Cluster {
    let cluster = Cluster::up(release::TEST_CLUSTER, Ipv4Addr::new(192, 0, 2, 12)).unwrap();
    release::install(&cluster, &["replicas=2"]).unwrap();
    cluster
}

/// A gateway at `address`.
pub(super) fn gateway(cluster: &Cluster, address: &str, lns: &Lns) -> Guest {
    release::gateway(cluster, &format!("gateway-{}", address.rsplit('.').next().unwrap()), address, lns).unwrap()
}

/// Removes the objects at the end of a test, whether it passed or not.
pub(super) struct Cleanup<'a>(pub(super) &'a Cluster, pub(super) &'a [&'a str]);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        for object in self.1 {
            if let Err(error) = self.0.kubectl(&["delete", object, "--ignore-not-found", "--timeout=60s"]) {
                eprintln!("{error:#}");
            }
        }
    }
}
