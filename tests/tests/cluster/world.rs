//! What the tests share: the cluster with the chart, three tunnels with a gateway each, and a pod that talks. They stay for
//! the next test, which puts them in order first; the last test takes all of it down.
//!
//! A Linux kernel as a gateway cannot tell two clients behind one NAT apart, and all pods are behind that of their node:
//! each tunnel has a gateway of its own, and at most one pod has the sidecar.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use towline_tests::cluster::Cluster;
use towline_tests::peer::{Guest, INNER, Lns};
use towline_tests::process::wait_until;
use towline_tests::release::{
    self, NAMESPACE, WAIT, app, condition, describe, gateway_tunnel, secret, sidecar_tunnel, tunnel, wait_for_pod,
};

use super::uninstall;

/// The node.
pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
/// Replicas of the operator.
pub(super) const REPLICAS: &str = "2";
/// A pod without a tunnel.
pub(super) const APP: &str = "app";
/// The pod with the sidecar.
pub(super) const WITH: &str = "with";

/// How long a tunnel may take from its objects to traffic, its gateway being up.
const SETTLE: Duration = Duration::from_secs(120);

static INSTALLED: Mutex<bool> = Mutex::new(false);
static GATEWAYS: [Mutex<Option<Guest>>; 3] = [const { Mutex::new(None) }; 3];

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    // A test that failed leaves the place as it is, and the next one puts it in order.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster with the chart installed.
pub(super) fn cluster() -> Cluster {
    let cluster = Cluster::up(release::TEST_CLUSTER, NODE).unwrap();
    let mut installed = lock(&INSTALLED);
    if !*installed {
        uninstall::remember(&cluster);
        release::install(&cluster, &[&format!("replicas={REPLICAS}")]).unwrap();
        *installed = true;
    }
    cluster
}

/// Whoever changes the release has it installed anew for the next test.
pub(super) fn forget_release() {
    *lock(&INSTALLED) = false;
}

/// The gateways' settings. The secrets are such that no other text contains them.
pub(super) fn lns() -> Lns {
    Lns {
        psk: "marker-4711-psk".to_owned(),
        password: "marker-4711-password".to_owned(),
        esp: "aes256-sha256,aes256gcm16".to_owned(),
        ..Lns::default()
    }
}

/// A tunnel with its gateway.
pub(super) struct Tunnel {
    pub(super) cluster: Cluster,
    /// Name of the `VpnTunnel`.
    pub(super) name: &'static str,
    /// The gateway's.
    pub(super) address: &'static str,
    /// What the shared tunnel is made of.
    pub(super) manifest: String,
    gateway: MutexGuard<'static, Option<Guest>>,
}

/// A Gateway with the export `web` and a TCP probe; it is up, and the pod [`APP`] is there.
pub(super) fn alta() -> Tunnel {
    let tunnel = Tunnel::new("alta", "192.0.2.41", 0, gateway_tunnel);
    tunnel.cluster.apply(&app(APP, None)).unwrap();
    settle(&tunnel.cluster, tunnel.name);
    wait_for_pod(&tunnel.cluster, APP).unwrap();
    tunnel
}

/// A Gateway whose probe is the LCP echo, and that logs all it can; it is up.
pub(super) fn bodo() -> Tunnel {
    let tunnel = Tunnel::new("bodo", "192.0.2.43", 1, |name, gateway, secret| {
        let manifest = gateway_tunnel(name, gateway, secret);
        let (without_check, _) = manifest.split_once("  healthCheck").unwrap();
        format!("{without_check}  log: {{level: Trace}}\n")
    });
    settle(&tunnel.cluster, tunnel.name);
    tunnel
}

/// A tunnel for sidecars. It may have no pod.
pub(super) fn dale() -> Tunnel {
    Tunnel::new("dale", "192.0.2.42", 2, sidecar_tunnel)
}

/// The same with the pod [`WITH`], which is up.
pub(super) fn dale_with_pod() -> Tunnel {
    let tunnel = dale();
    let pod = eager("true");
    if tunnel.cluster.apply(&pod).is_err() {
        // A test has one there that begins otherwise, and a pod cannot be changed.
        kubectl(&tunnel.cluster, &format!("delete pod {WITH} --ignore-not-found --timeout=60s"));
        tunnel.cluster.apply(&pod).unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&tunnel.cluster)));
    }
    wait_for_pod(&tunnel.cluster, WITH).unwrap();
    settle(&tunnel.cluster, tunnel.name);
    tunnel
}

/// The pod [`WITH`], which first of all does what `script` says.
pub(super) fn eager(script: &str) -> String {
    app(WITH, Some("dale")).replace(WAIT, &format!("{script}; {WAIT}"))
}

impl Tunnel {
    fn new(
        name: &'static str,
        address: &'static str,
        place: usize,
        manifest: impl Fn(&str, &str, &str) -> String,
    ) -> Self {
        let cluster = cluster();
        let manifest = manifest(name, address, &credentials(name));
        let mut tunnel = Self { cluster, name, address, manifest, gateway: lock(&GATEWAYS[place]) };
        if tunnel.gateway.is_none() {
            // What an earlier run left is Ready until it notices that its gateway is another one.
            kubectl(&tunnel.cluster, &format!("delete vpntunnel {name} --ignore-not-found --timeout=60s"));
            kubectl(&tunnel.cluster, &format!("delete pods -l towline.dev/tunnel={name} --timeout=60s"));
            tunnel.boot_gateway();
        }
        tunnel.apply();
        tunnel
    }

    /// Writes the Secret and the tunnel as they are shared.
    pub(super) fn apply(&self) {
        self.cluster.apply(&format!("{}---\n{}", secret(&credentials(self.name), &lns()), self.manifest)).unwrap();
    }

    /// Writes the tunnel with `old` replaced by `new`, and waits until it is up with that.
    pub(super) fn change(&self, old: &str, new: &str) {
        assert!(self.manifest.contains(old), "{old} is not in {}", self.manifest);
        self.cluster.apply(&self.manifest.replace(old, new)).unwrap();
        settle(&self.cluster, self.name);
    }

    /// The gateway, which runs.
    pub(super) fn gateway(&self) -> &Guest {
        self.gateway.as_ref().unwrap()
    }

    /// Cuts the gateway's power.
    pub(super) fn kill_gateway(&mut self) {
        drop(self.gateway.take());
    }

    /// Boots the gateway.
    pub(super) fn boot_gateway(&mut self) {
        let last = self.address.rsplit('.').next().unwrap();
        let guest = release::gateway(&self.cluster, &format!("gateway-{last}"), self.address, &lns()).unwrap();
        *self.gateway = Some(guest);
    }

    /// The tunnel's only pod that does not end: its name and UID.
    pub(super) fn pod(&self) -> (String, String) {
        pod_of(&self.cluster, self.name)
    }

    /// What must not change when nothing happens to the tunnel: its pod, the pod's restarts, its dials, since when it is up.
    pub(super) fn identity(&self) -> (String, u64, String, Value) {
        let (pod, uid) = self.pod();
        let since = tunnel(&self.cluster, self.name).unwrap()["status"]["establishedAt"].clone();
        (uid, restarts(&self.cluster, &pod), metric(&self.cluster, &pod, "vpn_tunnel_dials_total"), since)
    }
}

/// The only pod of the tunnel `name` that does not end: its name and UID.
pub(super) fn pod_of(cluster: &Cluster, name: &str) -> (String, String) {
    let pods = json(cluster, &format!("get pods -l towline.dev/tunnel={name} -o json"));
    let pods: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
            (text("name"), text("uid"))
        })
        .collect();
    let [pod] = pods.as_slice() else { panic!("{name} has not one pod but {pods:?}") };
    pod.clone()
}

fn credentials(tunnel: &str) -> String {
    format!("{tunnel}-vpn")
}

/// Waits until the tunnel is up as it is specified.
pub(super) fn settle(cluster: &Cluster, name: &str) {
    wait_until(&format!("{name} to be up"), SETTLE, || {
        tunnel(cluster, name).is_ok_and(|tunnel| {
            tunnel["status"]["observedGeneration"] == tunnel["metadata"]["generation"]
                && condition(&tunnel, "Provisioned").0 == "True"
                && condition(&tunnel, "Ready").0 == "True"
        })
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(cluster)));
}

/// Runs kubectl with words that have no blanks in them.
pub(super) fn kubectl(cluster: &Cluster, words: &str) -> String {
    cluster.kubectl(&words.split_whitespace().collect::<Vec<_>>()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// The same for an answer in JSON.
pub(super) fn json(cluster: &Cluster, words: &str) -> Value {
    serde_json::from_str(&kubectl(cluster, words)).unwrap()
}

/// How often the tunnel's container was started again.
pub(super) fn restarts(cluster: &Cluster, pod: &str) -> u64 {
    let status = &json(cluster, &format!("get pod {pod} -o json"))["status"];
    let containers = ["containerStatuses", "initContainerStatuses"].map(|list| status[list].as_array());
    let container =
        containers.into_iter().flatten().flatten().find(|container| container["name"] == "towline").unwrap();
    container["restartCount"].as_u64().unwrap()
}

/// A metric of a tunnel's pod, as text.
pub(super) fn metric(cluster: &Cluster, pod: &str, name: &str) -> String {
    let metrics = kubectl(cluster, &format!("get --raw /api/v1/namespaces/default/pods/{pod}:9090/proxy/metrics"));
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no metric {name} in\n{metrics}")).to_owned()
}

/// Waits until the operator's replicas are as they should be.
pub(super) fn wait_for_operator(cluster: &Cluster) {
    kubectl(cluster, &format!("--namespace {NAMESPACE} rollout status deployment/towline --timeout=120s"));
}

/// The answer of [`INNER`]'s web server to the container `app` of `pod`, by one attempt; or what wget said.
pub(super) fn ask_once(cluster: &Cluster, pod: &str, seconds: u32) -> Result<String, String> {
    let seconds = format!("{seconds}");
    let url = format!("http://{INNER}/");
    let wget = ["exec", pod, "-c", APP, "--", "wget", "-nv", "-t", "1", "-T", &seconds, "-O", "-", &url];
    cluster.kubectl(&wget).map_err(|error| format!("{error:#}"))
}

/// Removes objects at the end of a test, whether it passed or not.
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
