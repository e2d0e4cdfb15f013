//! A node: its namespaces, its cgroups and its first process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, io, thread};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::{WaitPidFlag, waitpid};

use super::configuration::REQUESTS_PER_SECOND;
use super::{Component, Settings};
use crate::netns::Namespace;
use crate::process::{Identity, wait_until};
use crate::tool;

/// Pause before a component that ended is started again: long enough that one that cannot start leaves the CPU alone.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Folders whose place components do not let one choose; each node has its own.
const PRIVATE_FOLDERS: &[&str] = &["/run/containerd", "/var/log/containers", "/etc/cni"];

/// Time for the kernel to empty the cgroups of killed processes.
const CGROUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts a node's first process in new PID and mount namespaces, in a session of its own. The process returned holds
/// the node: when it is killed, so is the first process, and with it the whole node.
pub(super) fn spawn(namespace: &Namespace, state: &Path) -> Result<Identity> {
    for folder in PRIVATE_FOLDERS {
        fs::create_dir_all(folder)?;
    }
    let log = File::create(state.join("log/node"))?;
    let inner = namespace.exec("unshare");
    let mut command = Command::new("setsid");
    command.arg(inner.get_program()).args(inner.get_args());
    command.args(["--mount", "--propagation=private", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    command.arg(xtask()?).args(["cluster", "node"]).arg(state);
    // Nothing of the caller's environment reaches the components but this; containerd finds its shim in PATH.
    command
        .env_clear()
        .env("PATH", super::path()?)
        .envs(env::var_os("CARGO_TARGET_DIR").map(|path| ("CARGO_TARGET_DIR", path)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().context("cannot start setsid")?;
    Identity::of(i32::try_from(child.id())?).context("the node's first process ended at once")
}

/// The xtask program, which is this one or, in a test, lies beside or above it.
fn xtask() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let candidates = own.ancestors().take(3).map(|path| path.with_file_name("xtask"));
    candidates.into_iter().find(|path| path.is_file()).context("cargo has not built xtask beside this program")
}

/// Runs as the node's first process: starts the components, keeps them running and reaps orphans. Never returns well.
pub fn run(state: &Path) -> Result<()> {
    if nix::unistd::getpid().as_raw() != 1 {
        bail!("this is the first process of a node; `cargo xtask cluster up` starts it");
    }
    // kubelet and containerd share mounts with the pods' namespaces that they make.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("cannot share mounts")?;
    for folder in PRIVATE_FOLDERS {
        mount(Some("tmpfs"), *folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .with_context(|| format!("cannot mount on {folder}"))?;
    }
    env::set_current_dir(state)?;
    let settings: Settings = serde_json::from_slice(&fs::read("settings.json")?)?;
    let mut running = BTreeMap::new();
    let start = |component: Component, running: &mut BTreeMap<i32, Component>| match start(component, state, &settings)
    {
        Ok(pid) => {
            running.insert(pid, component);
        }
        Err(error) => println!("cannot start {}: {error:#}", component.name()),
    };
    for component in [Component::Etcd, Component::ApiServer, Component::Containerd] {
        start(component, &mut running);
    }
    // The others give up without an API server.
    while !api_is_ready() {
        if let Some(component) = reap(WaitPidFlag::WNOHANG, &mut running)? {
            thread::sleep(RESTART_DELAY);
            start(component, &mut running);
        }
        thread::sleep(Duration::from_millis(50));
    }
    for component in [Component::ControllerManager, Component::Scheduler, Component::Kubelet, Component::Proxy] {
        start(component, &mut running);
    }
    loop {
        let ended = reap(WaitPidFlag::empty(), &mut running)?;
        thread::sleep(RESTART_DELAY);
        if let Some(component) = ended {
            start(component, &mut running);
        }
    }
}

/// Waits for a component to end, and reaps the node's orphans meanwhile. `None`: nobody has ended, or nobody is left.
fn reap(flags: WaitPidFlag, running: &mut BTreeMap<i32, Component>) -> Result<Option<Component>> {
    loop {
        let status = match waitpid(None, Some(flags)) {
            Err(Errno::ECHILD) => return Ok(None),
            status => status.context("cannot wait for a process")?,
        };
        // None: with WNOHANG, nobody has ended.
        let Some(pid) = status.pid() else { return Ok(None) };
        if let Some(component) = running.remove(&pid.as_raw()) {
            println!("{} ended: {status:?}", component.name());
            return Ok(Some(component));
        }
    }
}

fn api_is_ready() -> bool {
    let mut command = Command::new(tool::program("kubectl"));
    command.args(["--kubeconfig=admin.conf", "get", "--raw", "/readyz", "--request-timeout=2s"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Starts a component in the cluster's folder, and records its pid in the node's PID namespace.
fn start(component: Component, state: &Path, settings: &Settings) -> Result<i32> {
    let name = component.name();
    let log = File::options().create(true).append(true).open(state.join("log").join(name))?;
    let mut command = Command::new(tool::program(name));
    command.args(arguments(component, state, settings)).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    fs::write(state.join("pids").join(name), child.id().to_string())?;
    Ok(i32::try_from(child.id())?)
}

/// The command line of a component. Relative paths are below the cluster's folder.
fn arguments(component: Component, state: &Path, settings: &Settings) -> Vec<String> {
    let Settings { name, address, .. } = settings;
    let client = |name: &str| {
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={name}.conf"))
            .to_vec()
    };
    let fixed = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    match component {
        Component::Etcd => fixed(&[
            "--data-dir=etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ]),
        Component::ApiServer => [
            fixed(&[
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=0.0.0.0",
                "--secure-port=6443",
                "--tls-cert-file=pki/apiserver.crt",
                "--tls-private-key-file=pki/apiserver.key",
                "--cert-dir=apiserver",
                "--client-ca-file=pki/ca.crt",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-account-key-file=pki/sa.pub",
                "--service-account-signing-key-file=pki/sa.key",
                "--kubelet-preferred-address-types=InternalIP",
                "--kubelet-certificate-authority=pki/ca.crt",
                "--kubelet-client-certificate=pki/admin.crt",
                "--kubelet-client-key=pki/admin.key",
                "--proxy-client-cert-file=pki/front-proxy.crt",
                "--proxy-client-key-file=pki/front-proxy.key",
                "--requestheader-client-ca-file=pki/ca.crt",
                "--requestheader-allowed-names=front-proxy",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            ]),
            vec![
                format!("--advertise-address={address}"),
                format!("--service-cluster-ip-range={}", settings.services()),
            ],
        ]
        .concat(),
        Component::Containerd => fixed(&["--config=containerd.toml"]),
        Component::ControllerManager => [
            client("controller-manager"),
            fixed(&[
                "--cert-dir=controller-manager",
                "--root-ca-file=pki/ca.crt",
                "--service-account-private-key-file=pki/sa.key",
                "--cluster-signing-cert-file=pki/ca.crt",
                "--cluster-signing-key-file=pki/ca.key",
                "--use-service-account-credentials",
                "--leader-elect=false",
            ]),
            vec![format!("--kube-api-qps={REQUESTS_PER_SECOND}"), format!("--kube-api-burst={REQUESTS_PER_SECOND}")],
        ]
        .concat(),
        Component::Scheduler => {
            [client("scheduler"), fixed(&["--cert-dir=scheduler", "--leader-elect=false"])].concat()
        }
        Component::Kubelet => [
            fixed(&["--config=kubelet.json", "--kubeconfig=kubelet.conf", "--v=2"]),
            vec![
                format!("--hostname-override={name}"),
                format!("--node-ip={address}"),
                format!("--root-dir={}", state.join("kubelet").display()),
                format!("--cert-dir={}", state.join("kubelet/pki").display()),
            ],
        ]
        .concat(),
        Component::Proxy => [
            // The connection table belongs to the machine: leave its size alone.
            fixed(&[
                "--kubeconfig=proxy.conf",
                "--proxy-mode=nftables",
                "--conntrack-max-per-core=0",
                "--conntrack-min=0",
            ]),
            vec![format!("--cluster-cidr={}", settings.pods()), format!("--hostname-override={name}")],
        ]
        .concat(),
    }
}

/// The process that has pid `inner` in the PID namespace whose first process is `first`.
pub(super) fn outer_process(first: Identity, inner: &str) -> Option<Identity> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(first.pid)?;
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // NSpid lists the pid in each namespace, from this one inwards.
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let found = pids.split_whitespace().next_back()? == inner && namespace(pid)? == wanted;
        if found { Identity::of(pid) } else { None }
    })
}

/// Makes the node's cgroup in each hierarchy of the machine.
pub(super) fn make_cgroups(node: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        // cgroup v2: a controller works in a group when the group above hands it down. (A file is missing in v1.)
        if let Ok(controllers) = fs::read_to_string(hierarchy.join("cgroup.controllers")) {
            let control = hierarchy.join("cgroup.subtree_control");
            let given = fs::read_to_string(&control)?;
            for controller in controllers.split_whitespace() {
                if !given.split_whitespace().any(|name| name == controller) {
                    fs::write(&control, format!("+{controller}"))
                        .with_context(|| format!("cannot enable {controller} in {}", control.display()))?;
                }
            }
        }
        let group = hierarchy.join(node);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // cgroup v1: a new cpuset is empty, and no process can join it. The memory nodes come first.
        for file in ["cpuset.mems", "cpuset.cpus"] {
            let (own, above) = (group.join(file), hierarchy.join(file));
            if above.exists() && fs::read_to_string(&own)?.trim().is_empty() {
                fs::write(own, fs::read_to_string(above)?)?;
            }
        }
    }
    Ok(())
}

/// Removes the node's cgroups, when all its processes have ended.
pub(super) fn remove_cgroups(node: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(node);
        // The kernel counts a process out of its group a moment after its end.
        wait_until(&format!("{} to become empty", group.display()), CGROUP_TIMEOUT, || remove_groups(&group).is_ok())?;
    }
    Ok(())
}

/// Removes a cgroup and those in it; its files are not deleted but go with it.
fn remove_groups(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Where the machine's cgroup hierarchies are mounted.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.filter_map(|fields| match fields.as_slice() {
        [_, folder, "cgroup" | "cgroup2", ..] => Some(PathBuf::from(folder)),
        _ => None,
    });
    Ok(found.collect())
}
