//! Two clusters, one Server and one Client: Services of each are reached from the other by name, and whichever pod is killed,
//! both recover.

use std::net::Ipv4Addr;
use std::time::Duration;

use towline_tests::cluster::Cluster;
use towline_tests::process::wait_until;
use towline_tests::release::{self, FAR_CLUSTER, app, condition, describe, fetch, tunnel, wait_for_pod};

use super::server::{LOCAL, PAGE, PAGE_PORT, ROAD, page, passwords, road, server, user, wait_for_user};
use super::world::{APP, Cleanup, NODE, kubectl, lns, pod_of, settle};

/// The other cluster's node.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
/// The address that the client always gets.
const CLIENT: &str = "10.99.0.50";
/// What the other cluster's page says.
const ORDERS: &str = "orders of the far cluster";

/// How long both ends may take until traffic flows again after one of them was killed: the other one has to notice.
const RECOVERY: Duration = Duration::from_secs(180);

/// The other cluster; it goes with the test.
struct Far(Option<Cluster>);

impl Far {
    fn up() -> Self {
        let far = Self(Some(Cluster::up(FAR_CLUSTER, FAR).unwrap()));
        release::install(far.cluster(), &[]).unwrap();
        far
    }

    fn cluster(&self) -> &Cluster {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Cluster::down) {
            eprintln!("{error:#}");
        }
    }
}

/// The client with its Secret, and the Service that it offers to the other side.
fn site() -> String {
    let (psk, password) = (lns().psk, lns().password);
    let objects = [
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: site-vpn}}
stringData: {{psk: {psk}, username: far, password: {password}-far}}
"
        ),
        format!(
            "apiVersion: towline.dev/v1alpha1
kind: VpnTunnel
metadata: {{name: site}}
spec:
  mode: Client
  client:
    peers: [{{address: {NODE}}}]
    preSharedKey: {{name: site-vpn, key: psk}}
    user: {{secretName: site-vpn}}
  network: {{remoteCIDRs: [{LOCAL}/32]}}
  exports: [{{name: page, host: {LOCAL}, port: {PAGE_PORT}}}]
  imports: [{{name: orders, serviceName: orders, servicePort: 80}}]
  healthCheck: {{type: Tcp, host: {LOCAL}, port: {PAGE_PORT}, intervalSeconds: 2}}
"
        ),
        page("orders", ORDERS),
        app(APP, None),
    ];
    objects.join("---\n")
}

/// Waits until pods of each cluster get the page of the other one by the name of a Service.
fn wait_for_both_ways(near: &Cluster, far: &Cluster) {
    let page = format!("http://site-page.default.svc:{PAGE_PORT}/");
    for (cluster, url, text) in [(far, &*page, PAGE), (near, "http://road-orders.default.svc/", ORDERS)] {
        let mut last = String::new();
        wait_until(&format!("{url} in cluster {}", cluster.name()), RECOVERY, || {
            last = fetch(cluster, APP, url).unwrap_or_else(|error| format!("{error:#}"));
            last == text
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last}\n{}\n{}", describe(near), describe(far)));
    }
}

/// Ends the pod of a tunnel without a goodbye, and waits until there is another one.
fn kill(cluster: &Cluster, name: &str) {
    let (pod, uid) = pod_of(cluster, name);
    kubectl(cluster, &format!("delete pod {pod} --force --grace-period=0"));
    wait_until(&format!("another pod of {name}"), RECOVERY, || {
        let pods = format!("get pods -l towline.dev/tunnel={name} -o=jsonpath={{.items[*].metadata.uid}}");
        let pods = kubectl(cluster, &pods);
        !pods.trim().is_empty() && !pods.contains(&uid)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(cluster)));
}

#[test]
fn services_of_two_clusters_reach_each_other_by_name_and_again_after_either_pod_was_killed() {
    let near = road();
    let far = Far::up();
    let _cleanup = Cleanup(&near, &["vpnuser/road-far"]);
    let exports = format!("  exports: [{{name: orders, host: {CLIENT}, port: 80}}]\n");
    let objects = [
        passwords(&["alice", "bob", "far"]),
        server(&near, &exports),
        user("far", &format!(", address: {CLIENT}")),
        app(APP, None),
    ];
    near.apply(&objects.join("---\n")).unwrap();
    far.cluster().apply(&site()).unwrap();
    for cluster in [&near, far.cluster()] {
        wait_for_pod(cluster, APP).unwrap();
    }
    settle(&near, ROAD);
    settle(far.cluster(), "site");
    let (_, reason, _) = condition(&tunnel(far.cluster(), "site").unwrap(), "Ready");
    assert_eq!(reason, "ProbeSucceeded");
    let status = tunnel(far.cluster(), "site").unwrap();
    assert_eq!(status["status"]["assignedAddress"], CLIENT, "{status:#}");
    wait_for_both_ways(&near, far.cluster());
    wait_for_user(&near, "far", "session", |user| user["status"]["sessions"] == 1);

    for (cluster, name) in [(&near, ROAD), (far.cluster(), "site")] {
        kill(cluster, name);
        wait_for_both_ways(&near, far.cluster());
        settle(&near, ROAD);
        settle(far.cluster(), "site");
    }
}
