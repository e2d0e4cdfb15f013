//! Real single-node Kubernetes clusters on this machine, without a virtual machine, a registry or a container daemon.
//!
//! A node is one PID, mount and network namespace. Its first process ([`node`]) starts the components and starts again
//! one that ends; when it is killed the kernel ends everything in the node, pods included, and drops its mounts. The
//! node is plugged into a [`Bridge`] with other nodes and with foreign gateways, so that what leaves a cluster crosses a
//! network. A cluster outlives the harness: its state is in `target/clusters/NAME` until [`Cluster::down`].

mod certificate;
pub mod command;
mod configuration;
pub mod node;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, iter, thread};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::netns::{self, Bridge, Namespace};
use crate::process::{self, Identity, run, wait_until};
use crate::{image, package, tool};

/// Name and address of the cluster of a caller who needs only one.
pub const DEFAULT: (&str, Ipv4Addr) = ("dev", Ipv4Addr::new(192, 0, 2, 10));

/// Prefix length of the network that all nodes and gateways share.
pub const PREFIX_LENGTH: u8 = 24;

/// Clusters at once: pods' networks are 10.244.0.0/16 to 10.255.0.0/16.
const MAX_CLUSTERS: u8 = 12;

/// Interface of a node on the bridge.
const LINK: &str = "eth0";

/// Longest path of a Unix socket (`sun_path` without its final zero), and the longest one below a cluster's folder.
const SOCKET_PATH: usize = 107;
const LONGEST_SOCKET: usize = "/kubelet/device-plugins/kubelet.sock".len();

/// Far more than a step of the start takes on two busy cores; what takes longer does not happen any more.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// DNS of a new cluster.
const MANIFEST: &str = include_str!("../cluster/coredns.yaml");

/// Programs of this machine that nodes and [`node`] call, by package.
pub(crate) const PACKAGES: &[&str] = &["conntrack", "iproute2", "nftables", "openssl", "util-linux"];

/// A cluster that has been started on this machine.
#[derive(Debug)]
pub struct Cluster {
    settings: Settings,
    state: PathBuf,
}

/// What distinguishes one cluster from another, kept in its folder.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    /// Picks the networks of pods and Services.
    pub(crate) index: u8,
    /// Namespace and cgroup.
    pub(crate) node: String,
    /// The process that holds the node, once it is started.
    init: Option<Identity>,
}

impl Settings {
    pub(crate) fn pods(&self) -> String {
        format!("10.{}.0.0/16", 244 + self.index)
    }

    pub(crate) fn services(&self) -> String {
        format!("10.{}.0.0/16", 96 + self.index)
    }

    /// Address of the API server's Service: always the first of the network.
    pub(crate) fn api_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.index, 0, 1)
    }

    pub(crate) fn dns_service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.index, 0, 10)
    }
}

/// A component of a cluster, for [`Cluster::signal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// The container runtime.
    Containerd,
    /// The controllers.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The node's agent.
    Kubelet,
    /// The Services' translation.
    Proxy,
}

impl Component {
    /// Name of its log and pid files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::Containerd => "containerd",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }
}

impl Cluster {
    /// Starts a cluster and waits until its DNS answers; one that is up already is returned as it is, and what a
    /// crashed one left is removed first. The node gets `address` on the bridge.
    pub fn up(name: &str, address: Ipv4Addr) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a cluster needs root: it makes namespaces, mounts and cgroups");
        check_name(name)?;
        netns::sweep()?;
        package::install(PACKAGES)?;
        tool::build()?;
        let images = image::system()?;
        let _lock = lock(name)?;
        let began = Instant::now();
        if let Some(cluster) = Self::open(name)? {
            if cluster.is_healthy() {
                let is = cluster.settings.address;
                ensure!(is == address, "cluster {name} is up with the address {is}, not {address}");
                println!("cluster {name} is up already");
                return Ok(cluster);
            }
            println!("cluster {name} is not healthy: removing what is left of it");
            cluster.remove()?;
        }
        let mut cluster = Self::prepare(name, address)?;
        if let Err(error) = cluster.start(&images, began) {
            let log = cluster.state.join("log");
            return Err(error.context(format!("cluster {name} did not start; its logs are in {}", log.display())));
        }
        Ok(cluster)
    }

    /// The cluster with this name, whether healthy or not, if it has been started and not been taken down.
    pub fn open(name: &str) -> Result<Option<Self>> {
        let state = clusters().join(name);
        let path = state.join("settings.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let settings =
                    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
                Ok(Some(Self { settings, state }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Every cluster of this workspace, in the order of their names.
    pub fn all() -> Result<Vec<Self>> {
        let mut names = Vec::new();
        match fs::read_dir(clusters()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    names.extend(entry?.file_name().into_string().ok());
                }
            }
        }
        names.sort();
        names.iter().filter_map(|name| Self::open(name).transpose()).collect()
    }

    /// Ends the cluster and removes all of it: processes, namespaces, mounts, cgroups and files.
    pub fn down(self) -> Result<()> {
        let _lock = lock(&self.settings.name)?;
        self.remove()
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Address of the node, where the API server is and what Services publish.
    pub fn address(&self) -> Ipv4Addr {
        self.settings.address
    }

    /// The administrator's kubeconfig. Its server is reached from the namespaces on the bridge only.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.conf")
    }

    /// The folder with one log per component.
    pub fn logs(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The network namespace of the node.
    pub fn namespace(&self) -> Result<Namespace> {
        Namespace::named(&self.settings.node)
    }

    /// The bridge that every cluster of this workspace is on, for foreign gateways to attach to. It goes with the last
    /// cluster.
    pub fn bridge() -> Result<Bridge> {
        Bridge::named(&Self::bridge_name())
    }

    /// Name of that bridge's namespace, whether it exists or not.
    pub fn bridge_name() -> String {
        format!("{}-wan", prefix())
    }

    /// A command in the node's network namespace that finds `kubectl`, `helm` and `ctr`, and the cluster with them.
    pub fn exec(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = self.namespace()?.exec(program);
        command.env("PATH", path()?).env("KUBECONFIG", self.kubeconfig());
        command.env("CONTAINERD_ADDRESS", self.state.join("containerd.sock")).env("CONTAINERD_NAMESPACE", "k8s.io");
        Ok(command)
    }

    /// Runs `kubectl` and returns what it wrote.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.exec(tool::program("kubectl"))?.args(arguments))
    }

    /// Runs `helm` and returns what it wrote.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        run(self.exec(tool::program("helm"))?.args(arguments))
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let mut command = self.exec(tool::program("kubectl"))?;
        command.args(["apply", "--filename=-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut input = child.stdin.take().context("stdin is a pipe")?;
        // kubectl reads to the end before it writes, so neither waits for the other.
        let written = input.write_all(manifest.as_bytes());
        drop(input);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        written.context("kubectl did not read the manifest")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Imports an image (docker-archive or oci-archive), unless this very file is in already. Pods use it with
    /// `imagePullPolicy: Never`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let data = archive.metadata().with_context(|| format!("no image {}", archive.display()))?;
        let version = format!("{} {:?}", data.len(), data.modified()?);
        let folder = self.state.join("images");
        let stamp = folder.join(archive.file_name().context("an archive has a name")?);
        if fs::read_to_string(&stamp).is_ok_and(|loaded| loaded == version) {
            return Ok(());
        }
        let mut command = self.exec(tool::program("ctr"))?;
        run(command.args(["images", "import"]).arg(archive))
            .with_context(|| format!("cannot import {}", archive.display()))?;
        fs::create_dir_all(folder)?;
        Ok(fs::write(stamp, version)?)
    }

    /// Resident memory in KiB of each process of a program in the cluster's pods.
    pub fn resident_memory(&self, program: &str) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let folder = entry?.path();
            // A process that ends meanwhile is none.
            let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
            let is_wanted =
                read("cmdline").split('\0').next().is_some_and(|path| path.rsplit('/').next() == Some(program));
            if is_wanted && read("cgroup").contains(&self.settings.node) {
                found.extend(process::resident_memory(&read("status")));
            }
        }
        Ok(found)
    }

    /// Sends a signal to a component: STOP and CONT suspend it for a while, and after KILL it starts again in a second.
    pub fn signal(&self, component: Component, signal: Signal) -> Result<()> {
        self.process(component)?.signal(signal)
    }

    /// The process of a component, as this PID namespace sees it.
    pub fn process(&self, component: Component) -> Result<Identity> {
        let first = self.first_process().with_context(|| format!("cluster {} is not running", self.name()))?;
        let path = self.state.join("pids").join(component.name());
        let inner = fs::read_to_string(&path).with_context(|| format!("{} has not started", component.name()))?;
        node::outer_process(first, inner.trim())
            .with_context(|| format!("{} does not run now (it starts again in a second)", component.name()))
    }

    /// Whether the node's first process runs and the API, the node and DNS are ready.
    pub fn is_healthy(&self) -> bool {
        let ready = |arguments: &[&str]| self.kubectl(arguments).is_ok();
        self.first_process().is_some()
            && ready(&["get", "--raw", "/readyz", "--request-timeout=5s"])
            && ready(&["wait", "--for=condition=Ready", "node", self.name(), "--timeout=5s"])
            && ready(&[
                "--namespace=kube-system",
                "wait",
                "--for=condition=Available",
                "deployment/coredns",
                "--timeout=5s",
            ])
    }

    /// The first process of the node's PID namespace.
    fn first_process(&self) -> Option<Identity> {
        let init = self.settings.init.filter(|init| init.is_alive())?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).ok()?;
        Identity::of(children.split_whitespace().next()?.parse().ok()?)
    }

    /// Makes the folder, keys, configuration, network and cgroups of a new cluster.
    fn prepare(name: &str, address: Ipv4Addr) -> Result<Self> {
        let state = clusters().join(name);
        let length = state.as_os_str().len();
        ensure!(
            length + LONGEST_SOCKET <= SOCKET_PATH,
            "{} is too long a path for the sockets below it: set CARGO_TARGET_DIR to a shorter one",
            state.display()
        );
        let cluster = {
            let _lock = tool::lock("clusters")?;
            let others = Self::all()?;
            if let Some(other) = others.iter().find(|other| other.address() == address) {
                bail!("{address} belongs to cluster {}; give this one another --address", other.name());
            }
            let used: Vec<_> = others.iter().map(|other| other.settings.index).collect();
            let index = (0..MAX_CLUSTERS).find(|index| !used.contains(index));
            let index = index.with_context(|| format!("{MAX_CLUSTERS} clusters are up; take one down"))?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
            let node = format!("{}-{name}", prefix());
            let settings = Settings { name: name.to_owned(), address, index, node, init: None };
            let cluster = Self { settings, state };
            cluster.save()?;
            cluster
        };
        for folder in ["log", "pids", "etcd", "kubelet"] {
            fs::create_dir(cluster.state.join(folder))?;
        }
        certificate::write(&cluster.state.join("pki"), &cluster.settings)?;
        configuration::write(&cluster.state, &cluster.settings)?;
        cluster.attach()?;
        node::make_cgroups(&cluster.settings.node)?;
        Ok(cluster)
    }

    fn save(&self) -> Result<()> {
        let path = self.state.join("settings.json");
        let unfinished = path.with_extension("unfinished");
        fs::write(&unfinished, serde_json::to_vec_pretty(&self.settings)?)?;
        fs::rename(unfinished, path)?;
        Ok(())
    }

    fn attach(&self) -> Result<()> {
        let _lock = network_lock()?;
        let namespace = self.namespace()?;
        let address = self.settings.address;
        Self::bridge()?.attach(&namespace, LINK, &format!("{address}/{PREFIX_LENGTH}"))?;
        // Nothing answers there, but kube-proxy and the pods need a default route to exist.
        let [a, b, c, _] = address.octets();
        namespace.default_route(&Ipv4Addr::new(a, b, c, 1).to_string())?;
        namespace.sysctl("net.ipv4.ip_forward", "1")
    }

    fn start(&mut self, images: &[PathBuf], began: Instant) -> Result<()> {
        let name = self.name().to_owned();
        let say = |what: &str| println!("cluster {name}: {what} after {:.1} s", began.elapsed().as_secs_f32());
        self.settings.init = Some(node::spawn(&self.namespace()?, &self.state)?);
        self.save()?;

        // Images go in while the API server starts.
        thread::scope(|scope| {
            let loading = scope.spawn(|| {
                self.wait("the container runtime", || run(self.exec(tool::program("ctr"))?.arg("version")))?;
                images.iter().try_for_each(|image| self.load_image(image))
            });
            self.wait("the API server", || self.kubectl(&["get", "--raw", "/readyz"]))?;
            say("API ready");
            self.apply(&MANIFEST.replace("@DNS@", &self.settings.dns_service().to_string()))?;
            // Pods are refused until the controllers have made it.
            self.wait("the first ServiceAccount", || self.kubectl(&["get", "serviceaccount", "default"]))?;
            match loading.join() {
                Ok(result) => result,
                Err(_) => bail!("panicked while importing images"),
            }
        })?;
        self.wait("the node", || {
            self.kubectl(&["wait", "--for=condition=Ready", &format!("node/{name}"), "--timeout=1s"])
        })?;
        say("node ready");
        let timeout = format!("--timeout={}s", STEP_TIMEOUT.as_secs());
        self.kubectl(&["--namespace=kube-system", "rollout", "status", "deployment/coredns", &timeout])?;
        say("DNS ready");
        Ok(())
    }

    /// Tries until it succeeds, and fails with the last error, or at once when the node is gone.
    fn wait(&self, what: &str, mut attempt: impl FnMut() -> Result<String>) -> Result<()> {
        let end = Instant::now() + STEP_TIMEOUT;
        loop {
            let Err(error) = attempt() else { return Ok(()) };
            if self.settings.init.is_none_or(|init| !init.is_alive()) {
                let log = fs::read_to_string(self.logs().join("node")).unwrap_or_default();
                bail!("the node ended before {what} was ready:\n{log}");
            }
            if Instant::now() >= end {
                return Err(error.context(format!("{what} is not ready after {} s", STEP_TIMEOUT.as_secs())));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Removes the cluster; the caller holds its lock. What is not there any more is no error.
    fn remove(&self) -> Result<()> {
        if let Some(init) = self.settings.init {
            let first = self.first_process();
            for process in [first, Some(init)].into_iter().flatten() {
                process.signal(Signal::SIGKILL)?;
            }
            // The first process goes last: when it is gone, so is every process of the node.
            wait_until("the node's processes to end", STEP_TIMEOUT, || {
                !init.is_alive() && first.is_none_or(|first| !first.is_alive())
            })?;
        }
        {
            let _lock = network_lock()?;
            let namespace = self.namespace()?;
            let bridge = Self::bridge()?;
            bridge.detach(&namespace, LINK)?;
            // Kills the node, too, if the harness was killed before it wrote down which process that is.
            namespace.delete()?;
            // With the last cluster, whatever else is still plugged in.
            if Self::all()?.iter().all(|other| other.name() == self.name()) {
                bridge.delete()?;
            }
        }
        node::remove_cgroups(&self.settings.node)?;
        // The node's mounts are gone with it. Deleting through one that is not would empty what is mounted.
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let state = self.state.to_string_lossy();
        if let Some(mount) = mounts.lines().find(|line| line.contains(&*state)) {
            bail!("not deleting {state}, because something is mounted there: {mount}");
        }
        fs::remove_dir_all(&self.state).with_context(|| format!("cannot delete {state}"))
    }
}

/// Names that Kubernetes, interfaces and folders all take.
fn check_name(name: &str) -> Result<()> {
    let valid = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    ensure!(
        (1..=20).contains(&name.len()) && name.bytes().all(valid) && name != "wan",
        "a cluster's name has 1 to 20 lower-case letters and digits, and is not \"wan\": {name:?}"
    );
    Ok(())
}

fn clusters() -> PathBuf {
    tool::target().join("clusters")
}

/// Start of the names of namespaces and cgroups: two workspaces on one machine do not meet.
fn prefix() -> String {
    format!("tlk{:04x}", tool::short_hash(&[clusters().as_os_str()]))
}

/// Held while a cluster is started or removed.
fn lock(name: &str) -> Result<File> {
    tool::lock(&format!("cluster-{name}"))
}

/// Held while the bridge or something on it is made or removed.
fn network_lock() -> Result<File> {
    tool::lock("network")
}

/// The caller's PATH with the cluster's programs before it.
fn path() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(iter::once(tool::folder().join("bin")).chain(env::split_paths(&path)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_everywhere_are_refused() {
        for name in ["", "wan", "A", "a-b", "../a", "abcdefghijklmnopqrstu"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("dev2").unwrap();
    }

    #[test]
    fn networks_of_two_clusters_differ() {
        let settings =
            |index| Settings { name: "a".to_owned(), address: DEFAULT.1, index, node: "n".to_owned(), init: None };
        let (first, last) = (settings(0), settings(MAX_CLUSTERS - 1));
        assert_eq!((first.pods(), first.services()), ("10.244.0.0/16".to_owned(), "10.96.0.0/16".to_owned()));
        assert_eq!((last.pods(), last.services()), ("10.255.0.0/16".to_owned(), "10.107.0.0/16".to_owned()));
    }
}
