//! What a machine must have, looked at before anything is built: everything that is missing is said at once, in plain words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access, geteuid};

use crate::process::run;
use crate::{cluster, package, peer, tool};

/// Free disk in MiB: for everything from its sources, and for a run whose programs are built.
const DISK: (u64, u64) = (16_384, 4_096);

/// Free memory in MiB for three guests, whose memory is a file of a tmpfs.
const GUEST_MEMORY: u64 = 640;

/// The longest path of a checkout: Unix sockets below it have 107 characters at most.
const LONGEST_PATH: usize = 50;

/// Packages for building the product.
pub const BUILD_PACKAGES: &[&str] = &["cmake", "g++", "gcc", "libc6-dev"];

/// Packages of tests that make network namespaces and certificates.
pub const NAMESPACE_PACKAGES: &[&str] = &["iproute2", "openssl", "util-linux"];

/// What a command does that a machine may not be able to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Compiles C and C++.
    Compiler,
    /// Makes network namespaces and TUN devices.
    Namespaces,
    /// Boots guests.
    Guests,
    /// Runs charon outside of guests.
    Charon,
    /// Runs the peers that are no guests.
    OtherPeers,
    /// Captures and filters packets.
    Network,
    /// Builds the programs of Kubernetes.
    Go,
    /// Starts a cluster.
    Cluster,
}

impl Need {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Compiler => BUILD_PACKAGES,
            Self::Namespaces => NAMESPACE_PACKAGES,
            Self::Guests => peer::GUEST_PACKAGES,
            Self::Charon => peer::CHARON_PACKAGES,
            Self::OtherPeers => peer::OTHER_PACKAGES,
            Self::Network => peer::NETWORK_PACKAGES,
            Self::Go => tool::PACKAGES,
            Self::Cluster => cluster::PACKAGES,
        }
    }

    fn needs_root(self) -> bool {
        !matches!(self, Self::Compiler | Self::Go)
    }
}

/// The packages of all the needs, each once.
pub fn packages(needs: &[Need]) -> Vec<&'static str> {
    let all: BTreeSet<_> = needs.iter().flat_map(|need| need.packages()).copied().collect();
    all.into_iter().collect()
}

/// Fails with everything that is missing.
pub fn check(needs: &[Need]) -> Result<()> {
    let mut problems = Problems(Vec::new());
    let has = |need: Need| needs.contains(&need);
    problems.root(needs.iter().any(|need| need.needs_root()));
    problems.packages(&packages(needs));
    problems.path();
    problems.disk(has(Need::Go) && !tool::is_built());
    if has(Need::Namespaces) && geteuid().is_root() {
        problems.namespaces();
    }
    if has(Need::Guests) {
        problems.guest_memory();
    }
    if has(Need::Go)
        && !tool::is_built()
        && let Err(problem) = tool::check_go()
    {
        problems.0.push(problem);
    }
    if has(Need::Cluster) && geteuid().is_root() {
        problems.cgroups();
    }
    problems.report()
}

/// Sentences for a person, each with what to do.
struct Problems(Vec<String>);

impl Problems {
    fn report(self) -> Result<()> {
        match self.0.as_slice() {
            [] => Ok(()),
            problems => bail!("this machine lacks something:\n  - {}", problems.join("\n  - ")),
        }
    }

    fn root(&mut self, needed: bool) {
        if needed && !geteuid().is_root() {
            self.0.push("root: run this as root, because it makes network namespaces, mounts and devices".to_owned());
        }
    }

    fn packages(&mut self, packages: &[&str]) {
        match package::missing(packages) {
            Ok(missing) if missing.is_empty() || geteuid().is_root() => {}
            Ok(missing) => self.0.push(format!("packages: run as root: apt-get install {}", missing.join(" "))),
            Err(error) => self.0.push(format!("{error:#}")),
        }
    }

    fn path(&mut self) {
        let target = tool::target();
        let text = target.to_string_lossy();
        if text.chars().any(char::is_whitespace) {
            self.0
                .push(format!("a path without blanks: {text:?} goes into a kernel's command line; move the checkout"));
        }
        if text.len() > LONGEST_PATH {
            let remedy = "set CARGO_TARGET_DIR to a shorter path";
            self.0.push(format!(
                "a short path: {text} has more than {LONGEST_PATH} characters, and sockets lie below it; {remedy}"
            ));
        }
    }

    fn disk(&mut self, from_sources: bool) {
        let needed = if from_sources { DISK.0 } else { DISK.1 };
        let target = tool::target();
        let existing = target.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
        if let Some(free) = free(existing).filter(|&free| free < needed) {
            self.0.push(format!("disk: {free} MiB are free for {}, and {needed} MiB are needed", target.display()));
        }
    }

    fn namespaces(&mut self) {
        if !Path::new("/dev/net/tun").exists() {
            let container = "in a container, give it the device (--device /dev/net/tun)";
            self.0.push(format!("/dev/net/tun: load the module with `modprobe tun`; {container}"));
        }
        if let Err(error) = run(Command::new("unshare").args(["--net", "--mount", "true"])) {
            let remedy = "a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN (--privileged)";
            self.0.push(format!("network namespaces: {remedy}; {error:#}"));
        }
    }

    fn guest_memory(&mut self) {
        let place = Path::new("/dev/shm");
        let Ok(state) = statvfs(place) else {
            self.0.push("/dev/shm: guests keep their memory there; mount a tmpfs".to_owned());
            return;
        };
        if state.flags().contains(FsFlags::ST_NOEXEC) {
            self.0.push("/dev/shm without noexec: guests run from it; `mount -o remount,exec /dev/shm`".to_owned());
        }
        if let Some(free) = free(place).filter(|&free| free < GUEST_MEMORY) {
            let remedy = "`mount -o remount,size=1G /dev/shm`, or --shm-size=1g of the container";
            self.0.push(format!("/dev/shm: {free} MiB are free, and guests need {GUEST_MEMORY} MiB; {remedy}"));
        }
    }

    fn cgroups(&mut self) {
        let hierarchies = cluster::node::hierarchies().unwrap_or_default();
        if hierarchies.is_empty() {
            self.0.push("cgroups: none is mounted; mount them at /sys/fs/cgroup".to_owned());
        }
        for folder in hierarchies {
            if access(&folder, AccessFlags::W_OK).is_err() {
                let remedy = "a container needs --privileged --cgroupns=host or a writable mount";
                self.0.push(format!("writable cgroups: {} is read-only; {remedy}", folder.display()));
            }
        }
    }
}

/// Free space in MiB where `place` is; none where it cannot be told.
fn free(place: &Path) -> Option<u64> {
    let state = statvfs(&fs::canonicalize(place).ok()?).ok()?;
    Some(state.blocks_available() * state.fragment_size() / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let mut problems = Problems(Vec::new());
        problems.0.push("one".to_owned());
        problems.0.push("two".to_owned());
        assert_eq!(problems.report().unwrap_err().to_string(), "this machine lacks something:\n  - one\n  - two");
        Problems(Vec::new()).report().unwrap();
    }

    #[test]
    fn packages_stand_once_and_builds_need_no_root() {
        let packages = packages(&[Need::Compiler, Need::Guests, Need::Cluster]);
        assert_eq!(packages.iter().filter(|&&name| name == "gcc").count(), 1);
        assert!(packages.contains(&"user-mode-linux") && !packages.contains(&"softether-vpnserver"));
        assert!(!Need::Compiler.needs_root() && Need::Guests.needs_root());
    }

    #[test]
    fn free_space_is_told() {
        assert!(free(Path::new("/")).is_some());
        assert_eq!(free(Path::new("/no/such/place")), None);
    }
}
