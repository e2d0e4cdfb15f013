//! Network namespaces and the Ethernet between them, made with the `ip` program.
//!
//! A test's namespaces carry their workspace and their harness in their name, and are deleted on drop together with what runs
//! in them. Those of a harness that was killed are deleted by the next one of the same workspace ([`sweep`]).

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::{fs, io};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::process::{Identity, run};
use crate::tool;

/// Start of the name of every namespace that belongs to one run of a harness. Its workspace follows, its pid and its start time.
const PREFIX: &str = "tl";

/// Where `ip netns` keeps names.
const FOLDER: &str = "/run/netns";

/// Name of the bridge inside its namespace.
const BRIDGE: &str = "br0";

/// A named network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    delete_on_drop: bool,
}

impl Namespace {
    /// Makes a namespace with a unique name that contains `label`, with `lo` up. It is deleted on drop.
    pub fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut namespace = Self::named(&format!("{}{number}-{label}", own_prefix()?))?;
        namespace.delete_on_drop = true;
        Ok(namespace)
    }

    /// The namespace with this name, made if it is missing. It stays until [`Namespace::delete`].
    pub fn named(name: &str) -> Result<Self> {
        let namespace = Self { name: name.to_owned(), delete_on_drop: false };
        if !namespace.exists() {
            ip(&["netns", "add", name]).context("network namespaces need root (CAP_SYS_ADMIN)")?;
            namespace.ip(&["link", "set", "lo", "up"])?;
        }
        Ok(namespace)
    }

    /// Name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Whether there is a namespace with this name.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// A command that runs the program in the namespace, with the pid of the program itself.
    pub fn exec(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `ip` on the namespace and returns what it wrote.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Sets a kernel setting of the namespace, as `("net.ipv4.ip_forward", "1")`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.inside(|| fs::write(&path, value))?.with_context(|| format!("cannot write {path} in {}", self.name))
    }

    /// Runs a function on a thread that is in the namespace: its sockets belong to the namespace, wherever they are used.
    pub fn inside<T: Send>(&self, function: impl FnOnce() -> T + Send) -> Result<T> {
        let file = fs::File::open(self.path()).with_context(|| format!("no namespace {}", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(function())
            });
            let result: nix::Result<T> = thread.join().map_err(|_| anyhow!("panicked in namespace {}", self.name))?;
            Ok(result?)
        })
    }

    /// Gives an interface its address and sets it up.
    fn set_address(&self, link: &str, address: &str) -> Result<()> {
        self.ip(&["address", "add", address, "dev", link])?;
        self.ip(&["link", "set", link, "up"])?;
        Ok(())
    }

    /// Sends every packet without a better route to `gateway`.
    pub fn default_route(&self, gateway: &str) -> Result<()> {
        self.ip(&["route", "replace", "default", "via", gateway])?;
        Ok(())
    }

    /// Kills what runs in the namespace and deletes it; one that does not exist is no error.
    pub fn delete(mut self) -> Result<()> {
        self.delete_on_drop = false;
        self.remove()
    }

    fn remove(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        for pid in ip(&["netns", "pids", &self.name])?.split_whitespace() {
            if let Some(identity) = Identity::of(pid.parse()?) {
                identity.signal(Signal::SIGKILL)?;
            }
        }
        ip(&["netns", "delete", &self.name])?;
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.delete_on_drop
            && let Err(error) = self.remove()
        {
            eprintln!("cannot delete namespace {}: {error:#}", self.name);
        }
    }
}

/// An Ethernet segment: a Linux bridge in a namespace of its own, with no address.
#[derive(Debug)]
pub struct Bridge {
    namespace: Namespace,
}

impl Bridge {
    /// Makes a bridge that is deleted on drop.
    pub fn new() -> Result<Self> {
        Self::set_up(Namespace::new("wan")?)
    }

    /// The bridge in the namespace with this name, made if it is missing. It stays until [`Bridge::delete`].
    pub fn named(name: &str) -> Result<Self> {
        Self::set_up(Namespace::named(name)?)
    }

    fn set_up(namespace: Namespace) -> Result<Self> {
        if namespace.ip(&["link", "show", BRIDGE]).is_err() {
            // Ports forward at once; there is no loop to detect.
            namespace.ip(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"])?;
            namespace.ip(&["link", "set", BRIDGE, "up"])?;
        }
        Ok(Self { namespace })
    }

    /// The namespace that the bridge lives in; it sees every frame on the interface `br0` and on its ports.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs a namespace in: its new interface `link` gets the address, as `192.0.2.20/24`.
    pub fn attach(&self, namespace: &Namespace, link: &str, address: &str) -> Result<()> {
        let port = self.free_port()?;
        let bridge = &self.namespace;
        namespace.ip(&["link", "add", link, "type", "veth", "peer", "name", &port, "netns", &bridge.name])?;
        bridge.ip(&["link", "set", &port, "alias", namespace.name()])?;
        bridge.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        namespace.set_address(link, address)
    }

    /// Unplugs a namespace: removes its interface `link` and the port, at once (deleting the namespace takes its time).
    pub fn detach(&self, namespace: &Namespace, link: &str) -> Result<()> {
        if namespace.exists() && namespace.ip(&["link", "show", link]).is_ok() {
            namespace.ip(&["link", "delete", link])?;
        }
        Ok(())
    }

    /// Deletes the bridge and its ports.
    pub fn delete(self) -> Result<()> {
        self.namespace.delete()
    }

    /// A port name that is not in use: the lowest number.
    fn free_port(&self) -> Result<String> {
        let ports = self.ports()?;
        let free = (0..=ports.len()).map(|number| format!("port{number}")).find(|name| !ports.contains(name));
        free.context("more names than ports, so one is free")
    }

    fn ports(&self) -> Result<Vec<String>> {
        let links = self.namespace.ip(&["-br", "link", "show", "type", "veth"])?;
        let names = links.lines().filter_map(|line| line.split(['@', ' ']).next());
        Ok(names.map(str::to_owned).collect())
    }
}

/// Start of the names that belong to this workspace in this PID namespace, where pids mean something.
fn workspace_prefix() -> String {
    let pids = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{PREFIX}{:04x}-", tool::short_hash(&[tool::target().as_os_str(), pids.as_os_str()]))
}

/// Start of the names that belong to this process.
fn own_prefix() -> Result<&'static str> {
    static OWN: OnceLock<String> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let own = Identity::of(i32::try_from(std::process::id())?).context("this process is not in /proc")?;
    Ok(OWN.get_or_init(|| format!("{}{}-{}-", workspace_prefix(), own.pid, own.started)))
}

/// Deletes the namespaces of this workspace's harnesses that ended without doing so, with what still runs in them: guests,
/// captures, tunnels. Returns their names.
pub fn sweep() -> Result<Vec<String>> {
    // Tests begin at the same time, and each of them sweeps.
    let _lock = tool::lock("sweep")?;
    sweep_names(&workspace_prefix())
}

fn sweep_names(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {FOLDER}"))?,
    };
    let mut deleted = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(owner) = name.strip_prefix(prefix).and_then(owner) else { continue };
        if !owner.is_alive() {
            Namespace { name: name.clone(), delete_on_drop: false }.delete()?;
            deleted.push(name);
        }
    }
    Ok(deleted)
}

/// The harness that a namespace belongs to, from its name without the workspace: `PID-STARTED-NUMBER-LABEL`.
fn owner(name: &str) -> Option<Identity> {
    let mut parts = name.split('-');
    Some(Identity { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? })
}

fn ip(arguments: &[&str]) -> Result<String> {
    ensure!(!arguments.is_empty(), "ip without arguments");
    run(Command::new("ip").args(arguments))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::process::{Process, wait_until};

    #[test]
    fn datagrams_cross_the_bridge_and_namespaces_go_with_their_owner() {
        let bridge = Bridge::new().unwrap();
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        bridge.attach(&a, "eth0", "192.0.2.1/24").unwrap();
        bridge.attach(&b, "eth0", "192.0.2.2/24").unwrap();
        let receiver = b.inside(|| UdpSocket::bind("192.0.2.2:4500")).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let sender = a.inside(|| UdpSocket::bind("192.0.2.1:0")).unwrap().unwrap();
        sender.send_to(b"datagram", "192.0.2.2:4500").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 8);

        bridge.detach(&b, "eth0").unwrap();
        assert!(b.ip(&["link", "show", "eth0"]).is_err());
        let paths = [bridge.namespace().path(), a.path(), b.path()];
        assert!(paths.iter().all(|path| path.exists()));
        drop((bridge, a, b));
        assert!(!paths.iter().any(|path| path.exists()));
    }

    #[test]
    fn a_sysctl_is_set_in_its_namespace_only() {
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        a.sysctl("net.ipv4.ip_forward", "1").unwrap();
        b.sysctl("net.ipv4.ip_forward", "0").unwrap();
        let read = |namespace: &Namespace| {
            let key = "/proc/sys/net/ipv4/ip_forward";
            namespace.inside(|| fs::read_to_string(key)).unwrap().unwrap()
        };
        assert_eq!((read(&a).trim(), read(&b).trim()), ("1", "0"));
    }

    #[test]
    fn only_namespaces_of_dead_harnesses_are_swept() {
        assert_eq!(owner("4711-99-0-a"), Some(Identity { pid: 4711, started: 99 }));
        assert_eq!(owner("wan"), None);
        assert!(!workspace_prefix().starts_with("tlk"), "clusters have names of their own");
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        // A prefix of its own: nothing else on the machine is touched.
        let prefix = format!("tltest{}-", own.pid);
        let named = |rest: String| Namespace::named(&format!("{prefix}{rest}")).unwrap();
        let living = named(format!("{}-{}-0-living", own.pid, own.started));
        // The pid lives, and is another process's.
        let lost = named(format!("{}-{}-0-lost", own.pid, own.started + 1));
        let left = {
            let mut command = lost.exec("sleep");
            command.arg("60");
            Process::spawn(command, std::env::temp_dir().join(&lost.name)).unwrap()
        };
        // nsenter has entered it.
        let inhabited = || !ip(&["netns", "pids", &lost.name]).unwrap().is_empty();
        wait_until("the process in its namespace", Duration::from_secs(5), inhabited).unwrap();
        let swept = sweep_names(&prefix).unwrap();
        assert_eq!(swept, std::slice::from_ref(&lost.name));
        assert!(living.exists() && !lost.exists());
        wait_until("the end of what ran there", Duration::from_secs(5), || !left.identity().is_alive()).unwrap();
        living.delete().unwrap();
        fs::remove_file(left.log()).unwrap();
    }
}
