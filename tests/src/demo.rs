//! `cargo xtask demo`: everything, from an empty machine to a page from behind a foreign gateway.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;

use crate::cluster::Cluster;
use crate::peer::{INNER, Lns, end_kept, is_kept};
use crate::preflight::Need;
use crate::process::wait_until;
use crate::{interrupt, package, preflight, product, release};

/// The demo's cluster and its address.
const CLUSTER: (&str, Ipv4Addr) = ("demo", Ipv4Addr::new(192, 0, 2, 11));
/// Name and address of the gateways. A Linux kernel as a gateway cannot tell two clients behind one NAT apart, and all pods are
/// behind that of their node: each tunnel has a gateway of its own.
const GATEWAYS: [(&str, &str); 2] = [("oslo", "192.0.2.21"), ("bergen", "192.0.2.22")];

/// What the demo needs of the machine.
const NEEDS: &[Need] = &[Need::Compiler, Need::Namespaces, Need::Guests, Need::Go, Need::Cluster];

/// Arguments of `cargo xtask demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Takes everything down again instead
    #[arg(long, conflicts_with_all = ["stop", "start"])]
    down: bool,
    /// Stops a gateway of the running demo, as a power cut would: oslo or bergen
    #[arg(long, value_name = "GATEWAY", conflicts_with = "start")]
    stop: Option<String>,
    /// Starts it again
    #[arg(long, value_name = "GATEWAY")]
    start: Option<String>,
}

impl Arguments {
    /// Shows a tunnel, stops or starts its gateway, or takes the demo down.
    pub fn run(self) -> Result<()> {
        ensure!(geteuid().is_root(), "run this as root: it makes network namespaces, mounts and cgroups");
        interrupt::handle(|| {
            println!("cargo xtask demo goes on from here; cargo xtask demo --down takes away what is there");
            Ok(())
        })?;
        match (self.stop, self.start) {
            (Some(name), _) => stop(&name),
            (_, Some(name)) => start(&name),
            (None, None) if self.down => down(),
            (None, None) => up(),
        }
    }
}

/// What the gateways are like.
fn lns() -> Lns {
    Lns { page: "Hello from behind the foreign gateway.".to_owned(), ..Lns::default() }
}

fn gateway(name: &str) -> Result<(&'static str, &'static str)> {
    let known = GATEWAYS.map(|(name, _)| name).join(", ");
    GATEWAYS
        .into_iter()
        .find(|gateway| gateway.0 == name)
        .with_context(|| format!("no gateway {name}; known are {known}"))
}

fn stop(name: &str) -> Result<()> {
    let (name, address) = gateway(name)?;
    if !end_kept(&Cluster::bridge_name(), name)? {
        bail!("gateway {name} does not run");
    }
    println!("gateway {name} ({address}) is off; within 30 s `kubectl get vt {name}` tells it:");
    println!("  cargo xtask cluster exec {} -- kubectl get vt --watch", CLUSTER.0);
    println!("  cargo xtask demo --start {name}");
    Ok(())
}

fn start(name: &str) -> Result<()> {
    let (name, address) = gateway(name)?;
    let cluster = Cluster::open(CLUSTER.0)?.context("the demo is not up: cargo xtask demo")?;
    boot(&cluster, name, address)
}

/// Boots a gateway that outlives this process, unless it runs.
fn boot(cluster: &Cluster, name: &str, address: &str) -> Result<()> {
    if !is_kept(&Cluster::bridge_name(), name)? {
        release::gateway(cluster, name, address, &lns())?.keep();
    }
    Ok(())
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
    preflight::check(NEEDS)?;
    let began = Instant::now();
    step("Debian packages", || package::install(&preflight::packages(NEEDS)))?;
    step("static binaries and images (once, and after changes)", product::images)?;
    let cluster = step("a Kubernetes cluster (its programs are built once, from their Go modules)", || {
        Cluster::up(CLUSTER.0, CLUSTER.1)
    })?;
    step("two foreign gateways: strongSwan, xl2tpd and pppd, each on a Linux kernel of its own", || {
        GATEWAYS.iter().try_for_each(|(name, address)| boot(&cluster, name, address))
    })?;
    step("helm install", || release::install(&cluster, &[]))?;
    step("kubectl apply of a Secret, two VpnTunnels and two pods", || {
        let [(oslo, oslo_address), (bergen, bergen_address)] = GATEWAYS;
        cluster.apply(&release::secret("vpn", &lns()))?;
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
    for (name, _) in GATEWAYS {
        println!("conditions of {name}:\n{}", cluster.kubectl(&["get", "vpntunnel", name, columns])?);
    }
    println!("through the Service http://oslo-web/:  {}", release::fetch(&cluster, "app", "http://oslo-web/")?);
    let direct = release::fetch(&cluster, "app-with-sidecar", &format!("http://{INNER}/"))?;
    println!("through the sidecar http://{INNER}/: {direct}");
    for program in ["towline-tunnel", "towline-operator"] {
        let memory = cluster.resident_memory(program)?.iter().map(|kib| format!("{kib} KiB")).collect::<Vec<_>>();
        println!("resident memory of {program}: {}", memory.join(", "));
    }
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
    println!("Switch a gateway off, look at `kubectl get vt`, switch it on again:");
    println!("  cargo xtask demo --stop oslo");
    println!("  cargo xtask demo --start oslo");
    println!("Take it down: cargo xtask demo --down");
    Ok(())
}

fn stop_gateways() -> Result<()> {
    GATEWAYS.iter().try_for_each(|(name, _)| end_kept(&Cluster::bridge_name(), name).map(drop))
}

fn down() -> Result<()> {
    step("the foreign gateways end", stop_gateways)?;
    step("the cluster ends", || Cluster::open(CLUSTER.0)?.map_or(Ok(()), Cluster::down))
}
