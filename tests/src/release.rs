//! The chart in a local cluster, and a foreign gateway beside it: what the demo shows and the cluster tests check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::peer::{Guest, INNER, Lns};
use crate::process::{run, wait_until};
use crate::{image, product, tool};

/// The cluster that the tests share.
pub const TEST_CLUSTER: &str = "test";
/// The second one of a test that needs two; it goes with the test.
pub const FAR_CLUSTER: &str = "far";
/// The namespace of the release.
pub const NAMESPACE: &str = "towline-system";

/// Loads the images and installs or upgrades the chart with further `values`, as `replicas=2`; waits until the operator is ready.
pub fn install(cluster: &Cluster, values: &[&str]) -> Result<()> {
    let images = product::images()?;
    for archive in images.iter().chain([&image::app()?]) {
        cluster.load_image(archive)?;
    }
    upgrade(cluster, &chart(), values)
}

/// The chart of this checkout.
pub fn chart() -> PathBuf {
    tool::workspace().join("charts/towline")
}

/// Installs or upgrades a chart whose images the cluster has; waits until the operator is ready.
pub fn upgrade(cluster: &Cluster, chart: &Path, values: &[&str]) -> Result<()> {
    let chart = chart.to_str().context("the path of the chart is not UTF-8")?;
    let mut arguments = vec!["upgrade", "--install", "towline", chart, "--namespace", NAMESPACE, "--create-namespace"];
    arguments.extend(["--wait", "--timeout", "3m", "--set", "crds.keep=false"]);
    // An image of the same name may be a newer one: its age is part of the pods, so that they are made anew with it.
    let built = product::images()?.first().map(fs::metadata).transpose()?.map(|image| image.modified()).transpose()?;
    let built = built.and_then(|built| built.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    let mut sets = vec![format!("podAnnotations.towline\\.dev/built=t{}", built.as_millis())];
    for (value, image) in [("image", product::OPERATOR_IMAGE), ("tunnelImage", product::TUNNEL_IMAGE)] {
        let (repository, tag) = image.rsplit_once(':').context("an image without a tag")?;
        sets.push(format!("{value}.repository={repository},{value}.tag={tag},{value}.pullPolicy=Never"));
    }
    sets.extend(values.iter().map(|&value| value.to_owned()));
    for set in &sets {
        arguments.extend(["--set", set]);
    }
    let installed = cluster.helm(&arguments);
    installed.map(drop).map_err(|error| error.context(describe(cluster)))
}

/// What kubectl says about the release, for error messages.
pub fn describe(cluster: &Cluster) -> String {
    let ask = |arguments: &[&str]| cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
    [
        ask(&["get", "pods", "--all-namespaces", "-o", "wide"]),
        ask(&["get", "vpntunnels,vpnusers", "--all-namespaces", "-o", "yaml"]),
        ask(&["--namespace", NAMESPACE, "logs", "deployment/towline", "--tail=60", "--prefix"]),
        ask(&["logs", "-l", "towline.dev/tunnel", "-c", "towline", "--tail=60", "--prefix"]),
        ask(&["get", "events", "--sort-by=.lastTimestamp"]),
    ]
    .join("\n")
}

/// Boots a gateway on the clusters' bridge.
pub fn gateway(cluster: &Cluster, name: &str, address: &str, lns: &Lns) -> Result<Guest> {
    Guest::lns(&Cluster::bridge()?, name, address, &cluster.address().to_string(), lns)
}

/// A Secret with the credentials of `lns`.
pub fn secret(name: &str, lns: &Lns) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n  psk: {}\n  username: {}\n  password: {}\n",
        lns.psk, lns.user, lns.password
    )
}

/// A tunnel to `gateway` as one Gateway pod with the export `web`.
pub fn gateway_tunnel(name: &str, gateway: &str, secret: &str) -> String {
    format!(
        "apiVersion: towline.dev/v1alpha1
kind: VpnTunnel
metadata: {{name: {name}}}
spec:
  mode: Client
  client:
    peers: [{{address: {gateway}}}]
    preSharedKey: {{name: {secret}, key: psk}}
    user: {{secretName: {secret}}}
  network: {{remoteCIDRs: [10.20.4.0/24]}}
  exports: [{{name: web, host: {INNER}, port: 80}}]
  healthCheck: {{type: Tcp, host: {INNER}, port: 80, intervalSeconds: 2}}
"
    )
}

/// A tunnel to `gateway` for sidecars.
pub fn sidecar_tunnel(name: &str, gateway: &str, secret: &str) -> String {
    format!(
        "apiVersion: towline.dev/v1alpha1
kind: VpnTunnel
metadata: {{name: {name}}}
spec:
  mode: Client
  attachment: Sidecar
  client:
    peers: [{{address: {gateway}}}]
    preSharedKey: {{name: {secret}, key: psk}}
    user: {{secretName: {secret}}}
  network: {{remoteCIDRs: [10.20.4.0/24]}}
  healthCheck: {{type: Icmp, host: {INNER}, intervalSeconds: 2}}
"
    )
}

/// What the container of [`app`] does: it waits, and ends at once when it is told to.
pub const WAIT: &str = "trap exit TERM; sleep 1000000 & wait";

/// A pod that waits for commands; with a tunnel's name it carries that tunnel as a sidecar.
pub fn app(name: &str, tunnel: Option<&str>) -> String {
    let labels = tunnel.map(|tunnel| format!("\n  labels: {{towline.dev/tunnel: {tunnel}}}")).unwrap_or_default();
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}{labels}
spec:
  terminationGracePeriodSeconds: 10
  containers:
    - name: app
      image: {}
      imagePullPolicy: Never
      command: [/bin/sh, -c, '{WAIT}']
",
        image::APP
    )
}

/// A page, fetched in the container `app` of a pod.
pub fn fetch(cluster: &Cluster, pod: &str, url: &str) -> Result<String> {
    let page = cluster.kubectl(&["exec", pod, "-c", "app", "--", "wget", "-q", "-T", "10", "-O", "-", url])?;
    Ok(page.trim().to_owned())
}

/// A tunnel as the API server has it.
pub fn tunnel(cluster: &Cluster, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(&["get", "vpntunnel", name, "-o", "json"])?)?)
}

/// Status, reason and message of a condition; empty while there is none.
pub fn condition(tunnel: &Value, kind: &str) -> (String, String, String) {
    let conditions = tunnel["status"]["conditions"].as_array();
    let found = conditions.and_then(|conditions| conditions.iter().find(|condition| condition["type"] == kind));
    let text = |field: &str| found.and_then(|found| found[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Waits until a tunnel's condition is as `wanted` says; returns it.
pub fn wait_for_condition(
    cluster: &Cluster,
    name: &str,
    kind: &str,
    timeout: Duration,
    wanted: impl Fn(&(String, String, String)) -> bool,
) -> Result<(String, String, String)> {
    let mut last = Default::default();
    let waited = wait_until(&format!("{kind} of {name}"), timeout, || {
        last = tunnel(cluster, name).map(|tunnel| condition(&tunnel, kind)).unwrap_or_default();
        wanted(&last)
    });
    waited.with_context(|| format!("{kind} is {last:?}\n{}", describe(cluster)))?;
    Ok(last)
}

/// Waits until traffic goes through a tunnel.
pub fn wait_ready(cluster: &Cluster, name: &str) -> Result<()> {
    wait_for_condition(cluster, name, "Ready", Duration::from_secs(120), |(status, ..)| status == "True").map(drop)
}

/// Waits until a pod is ready.
pub fn wait_for_pod(cluster: &Cluster, name: &str) -> Result<()> {
    let waited = cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=120s"]);
    waited.map(drop).map_err(|error| error.context(describe(cluster)))
}

/// Writes the custom resource definitions into `crds/` and into the chart.
pub fn write_crds() -> Result<()> {
    let workspace = tool::workspace();
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(&workspace).args([
        "run",
        "--quiet",
        "--package",
        "towline-operator",
        "--",
        "crds",
        "--dir",
        "crds",
    ]);
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "the definitions could not be written");
    run(Command::new("cp").arg("-r").arg(workspace.join("crds/.")).arg(workspace.join("charts/towline/files")))?;
    for entry in fs::read_dir(workspace.join("crds"))? {
        println!("{}", entry?.path().display());
    }
    Ok(())
}
