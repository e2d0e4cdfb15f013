//! `cargo xtask demo`: everything, from an empty machine to a page from behind a foreign gateway.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::peer::{INNER, Lns, PACKAGES, stop_kept};
use crate::process::{Identity, wait_until};
use crate::{package, product, release, tool};

/// The demo's cluster and its address.
const CLUSTER: (&str, Ipv4Addr) = ("demo", Ipv4Addr::new(192, 0, 2, 11));
/// Name and address of the gateways. A Linux kernel as a gateway cannot tell two clients behind one NAT apart, and all pods are
/// behind that of their node: each tunnel has a gateway of its own.
const GATEWAYS: [(&str, &str); 2] = [("oslo", "192.0.2.21"), ("bergen", "192.0.2.22")];

/// Arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Takes everything down again instead
    #[arg(long)]
    down: bool,
}

/// A gateway that a run left.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    identity: Identity,
    bridge: String,
    tap: String,
}

fn state() -> std::path::PathBuf {
    tool::folder().join("demo-gateways.json")
}

fn kept() -> Vec<Kept> {
    fs::read(state()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
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
    step("two foreign gateways: strongSwan, xl2tpd and pppd, each on a Linux kernel of its own", || {
        let mut running = kept();
        for (name, address) in GATEWAYS {
            if running.iter().any(|kept| kept.name == name && kept.identity.is_alive()) {
                continue;
            }
            if let Some(dead) = running.iter().position(|kept| kept.name == name) {
                let dead = running.remove(dead);
                stop_kept(dead.identity, &dead.bridge, &dead.tap)?;
            }
            let (identity, bridge, tap) = release::gateway(&cluster, name, address, &lns)?.keep();
            running.push(Kept { name: name.to_owned(), identity, bridge, tap });
            fs::write(state(), serde_json::to_vec(&running)?)?;
        }
        Ok(())
    })?;
    step("helm install", || release::install(&cluster, &[]))?;
    step("kubectl apply of a Secret, two VpnTunnels and two pods", || {
        let [(oslo, oslo_address), (bergen, bergen_address)] = GATEWAYS;
        cluster.apply(&release::secret("vpn", &lns))?;
        cluster.apply(&release::gateway_tunnel(oslo, oslo_address, "vpn"))?;
        cluster.apply(&release::sidecar_tunnel(bergen, bergen_address, "vpn"))?;
        cluster.apply(&release::app("app", None))?;
        cluster.apply(&release::app("app-with-sidecar", Some(bergen)))
    })?;
    step("kubectl wait --for=condition=Ready", || {
        GATEWAYS.iter().try_for_each(|(tunnel, _)| release::wait_ready(&cluster, tunnel))?;
        ["app", "app-with-sidecar"].iter().try_for_each(|pod| release::wait_for_pod(&cluster, pod))?;
        wait_until("the Service", Duration::from_secs(30), || {
            release::fetch(&cluster, "app", "http://oslo-web/").is_ok()
        })
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

fn stop_gateways() -> Result<()> {
    for gateway in kept() {
        stop_kept(gateway.identity, &gateway.bridge, &gateway.tap)?;
    }
    if state().exists() {
        fs::remove_file(state())?;
    }
    Ok(())
}

fn down() -> Result<()> {
    step("the foreign gateways end", stop_gateways)?;
    step("the cluster ends", || Cluster::open(CLUSTER.0)?.map_or(Ok(()), Cluster::down))
}
