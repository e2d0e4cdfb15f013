//! `cargo xtask demo`: everything, from an empty machine to a page from behind a foreign gateway.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::peer::{INNER, Lns, PACKAGES, stop_kept};
use crate::process::Identity;
use crate::{package, product, release, tool};

/// The demo's cluster, its address, and that of the gateway.
const CLUSTER: (&str, Ipv4Addr) = ("demo", Ipv4Addr::new(192, 0, 2, 11));
const GATEWAY: &str = "192.0.2.21";

/// Arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Takes everything down again instead
    #[arg(long)]
    down: bool,
}

/// The gateway that a run left.
#[derive(Serialize, Deserialize)]
struct Kept {
    identity: Identity,
    bridge: String,
    tap: String,
}

fn state() -> std::path::PathBuf {
    tool::folder().join("demo-gateway.json")
}

fn kept() -> Option<Kept> {
    serde_json::from_slice(&fs::read(state()).ok()?).ok()
}

impl Arguments {
    /// Shows a tunnel, or takes the demo down.
    pub fn run(self) -> Result<()> {
        ensure!(nix::unistd::geteuid().is_root(), "run this as root: it makes network namespaces, mounts and cgroups");
        ensure!(
            std::path::Path::new("/dev/net/tun").exists(),
            "/dev/net/tun is missing: load the module tun (modprobe tun)"
        );
        if self.down { down() } else { up() }
    }
}

/// Prints what is done, and afterwards how long it took.
fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    std::io::stdout().flush()?;
    let began = Instant::now();
    let done = action()?;
    println!("    {:.1} s", began.elapsed().as_secs_f32());
    Ok(done)
}

fn up() -> Result<()> {
    let began = Instant::now();
    let lns = Lns { page: "Hello from behind the foreign gateway.".to_owned(), ..Lns::default() };
    step("Debian packages of the foreign gateway", || package::install(PACKAGES))?;
    step("static binaries and images (once, and after changes)", product::images)?;
    let cluster = step("a Kubernetes cluster (its programs are built once, from their Go modules)", || {
        Cluster::up(CLUSTER.0, CLUSTER.1)
    })?;
    if !kept().is_some_and(|kept| kept.identity.is_alive()) {
        step("a foreign gateway: strongSwan, xl2tpd and pppd on a Linux kernel of their own", || {
            forget_gateway()?;
            let (identity, bridge, tap) = release::gateway(&cluster, "gateway", GATEWAY, &lns)?.keep();
            Ok(fs::write(state(), serde_json::to_vec(&Kept { identity, bridge, tap })?)?)
        })?;
    }
    step("helm install", || release::install(&cluster, &[]))?;
    step("kubectl apply of a Secret, two VpnTunnels and two pods", || {
        cluster.apply(&release::secret("oslo-vpn", &lns))?;
        cluster.apply(&release::gateway_tunnel("oslo", GATEWAY, "oslo-vpn"))?;
        cluster.apply(&release::sidecar_tunnel("oslo-direct", GATEWAY, "oslo-vpn"))?;
        cluster.apply(&release::app("app", None))?;
        cluster.apply(&release::app("app-with-sidecar", Some("oslo-direct")))
    })?;
    step("kubectl wait --for=condition=Ready", || {
        ["oslo", "oslo-direct"].iter().try_for_each(|tunnel| release::wait_ready(&cluster, tunnel))?;
        ["app", "app-with-sidecar"].iter().try_for_each(|pod| release::wait_for_pod(&cluster, pod))
    })?;
    println!("\n$ kubectl get vpntunnel\n{}", cluster.kubectl(&["get", "vpntunnel"])?);
    let columns = "-o=jsonpath={range .status.conditions[*]}{.type}{\"\\t\"}{.status}{\"\\t\"}{.reason}{\"\\t\"}{.message}{\"\\n\"}{end}";
    println!("conditions of oslo:\n{}", cluster.kubectl(&["get", "vpntunnel", "oslo", columns])?);
    println!("through the Service http://oslo-web/:  {}", release::fetch(&cluster, "app", "http://oslo-web/")?);
    let direct = release::fetch(&cluster, "app-with-sidecar", &format!("http://{INNER}/"))?;
    println!("through the sidecar http://{INNER}/: {direct}");
    println!("\nThe demo took {:.0} s and stays up. Look around:", began.elapsed().as_secs_f32());
    for line in [
        "kubectl get vt --watch",
        "kubectl describe vt oslo",
        "kubectl exec app -- wget -qO- http://oslo-web/",
        "kubectl logs deployment/towline-oslo",
        "kubectl -n towline-system logs deployment/towline",
    ] {
        println!("  cargo xtask cluster exec {} -- {line}", CLUSTER.0);
    }
    println!("Take it down: cargo xtask demo --down");
    Ok(())
}

fn forget_gateway() -> Result<()> {
    if let Some(kept) = kept() {
        stop_kept(kept.identity, &kept.bridge, &kept.tap)?;
        fs::remove_file(state())?;
    }
    Ok(())
}

fn down() -> Result<()> {
    step("the foreign gateway ends", forget_gateway)?;
    step("the cluster ends", || Cluster::open(CLUSTER.0)?.map_or(Ok(()), Cluster::down))
}
