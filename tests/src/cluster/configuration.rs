//! Configuration files of a node. JSON is YAML, so serde writes most of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use serde_json::{Value, json};

use super::Settings;
use crate::{image, tool};

/// Those who talk to the API server with a kubeconfig of their own, `NAME.conf`.
const CLIENTS: &[&str] = &["admin", "controller-manager", "scheduler", "proxy", "kubelet"];

/// Requests a second that components may make. Their defaults delay the start of a cluster by seconds.
pub(super) const REQUESTS_PER_SECOND: u32 = 1000;

/// Writes the configuration of every component below the cluster's folder.
pub(super) fn write(state: &Path, settings: &Settings) -> Result<()> {
    for client in CLIENTS {
        let path = state.join(format!("{client}.conf"));
        write_json(&path, &kubeconfig(state, settings, client))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    }
    write_json(&state.join("kubelet.json"), &kubelet(state, settings))?;
    fs::create_dir(state.join("cni"))?;
    write_json(&state.join("cni/10-pods.conflist"), &network(state, settings))?;
    fs::write(state.join("containerd.toml"), containerd(state)?)?;
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, serde_json::to_vec_pretty(value)?).with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig(state: &Path, settings: &Settings, client: &str) -> Value {
    let (name, pki) = (&settings.name, state.join("pki"));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{}:6443", settings.address),
            "certificate-authority": pki.join("ca.crt"),
        }}],
        "users": [{ "name": client, "user": {
            "client-certificate": pki.join(format!("{client}.crt")),
            "client-key": pki.join(format!("{client}.key")),
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": client } }],
        "current-context": name,
    })
}

fn kubelet(state: &Path, settings: &Settings) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.address,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": state.join("pki/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": state.join("pki/kubelet.crt"),
        "tlsPrivateKeyFile": state.join("pki/kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", state.join("containerd.sock").display()),
        "podLogsDir": state.join("pod-logs"),
        "volumePluginDir": state.join("volume-plugins"),
        // Machines with cgroup v1 exist; Kubernetes refuses them unless told.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", settings.node),
        "failSwapOn": false,
        // The disk belongs to the developer: evict late, and never delete an image, since none can be pulled again.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [settings.dns_service()],
        "clusterDomain": "cluster.local",
        "resolvConf": "/dev/null",
        "kubeAPIQPS": REQUESTS_PER_SECOND,
        "kubeAPIBurst": REQUESTS_PER_SECOND,
        // Changed Secrets and ConfigMaps reach a pod's volumes with the next of these; the default is a minute.
        "syncFrequency": "5s",
        // Those that a test may change in a pod by its securityContext.
        "allowedUnsafeSysctls": ["net.ipv4.ip_forward", "net.ipv4.conf.*", "net.ipv6.conf.*"],
    })
}

/// Network of the pods: a bridge in the node, translated to the node's address on the way out.
fn network(state: &Path, settings: &Settings) -> Value {
    let node_network = settings.pods().replace("/16", "/24");
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": true,
                "ipMasqBackend": "nftables",
                "ipam": {
                    "type": "host-local",
                    "dataDir": state.join("pod-addresses"),
                    "ranges": [[{ "subnet": node_network }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            // A new network namespace copies this setting from the machine and not from the node, where it is 1 as
            // on every node.
            { "type": "tuning", "sysctl": { "net.ipv4.ip_forward": "1" } },
            { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } },
        ],
    })
}

fn containerd(state: &Path) -> Result<String> {
    // The kernel does not stack overlayfs on overlayfs, which is what a container's own files lie on. Copies always work.
    let file_system = statfs(state).with_context(|| format!("cannot look at {}", state.display()))?.filesystem_type();
    let snapshotter = if file_system == OVERLAYFS_SUPER_MAGIC { "native" } else { "overlayfs" };
    let state = state.display();
    let tools = tool::folder();
    let tools = tools.display();
    let pause = image::PAUSE;
    // Without CAP_SYS_RESOURCE, which containers often lack, a process cannot lower its oom_score_adj.
    Ok(format!(
        r#"version = 3
root = "{state}/containerd"
state = "{state}/containerd-run"

[grpc]
address = "{state}/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"
pinned_images = {{ sandbox = "{pause}" }}

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cni = {{ bin_dirs = ["{tools}/cni"], conf_dir = "{state}/cni" }}

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
options = {{ BinaryName = "{tools}/bin/runc", Root = "{state}/runc", SystemdCgroup = false }}
"#
    ))
}
