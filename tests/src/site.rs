//! A test network: a wide-area bridge with a host on the "Internet", and a local network behind a NAT.
//!
//! ```text
//!   wan  192.0.2.0/24     router 192.0.2.1, which is 203.0.113.1 too
//!    └ nat 192.0.2.2 ── masquerade ── 198.51.100.1
//!                                      └ lan  198.51.100.0/24
//! ```

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use nix::sys::signal::Signal;

use crate::netns::{self, Bridge, Namespace};
use crate::process::{Process, run};
use crate::tool;

/// Which network a host is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The wide-area network, 192.0.2.0/24.
    Wan,
    /// The network behind the NAT, 198.51.100.0/24.
    Lan,
}

impl Side {
    /// The default gateway of its hosts.
    pub fn router(self) -> &'static str {
        match self {
            Self::Wan => "192.0.2.1",
            Self::Lan => "198.51.100.1",
        }
    }
}

/// The networks; everything goes when it is dropped.
#[derive(Debug)]
pub struct Site {
    /// The wide-area network.
    pub wan: Bridge,
    /// The network behind the NAT.
    pub lan: Bridge,
    nat: Namespace,
    _router: Namespace,
}

impl Site {
    /// Makes the networks, after those of killed harnesses are removed.
    pub fn new() -> Result<Self> {
        netns::sweep()?;
        let (wan, lan) = (Bridge::new()?, Bridge::new()?);
        let router = Namespace::new("router")?;
        wan.attach(&router, "eth0", "192.0.2.1/24")?;
        router.ip(&["address", "add", "203.0.113.1/24", "dev", "lo"])?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        let nat = Namespace::new("nat")?;
        wan.attach(&nat, "out", "192.0.2.2/24")?;
        lan.attach(&nat, "in", "198.51.100.1/24")?;
        nat.default_route("192.0.2.1")?;
        nat.sysctl("net.ipv4.ip_forward", "1")?;
        let rules = "table ip nat { chain post { type nat hook postrouting priority 100; oifname \"out\" masquerade random; }; }";
        run(nat.exec("nft").arg(rules))?;
        Ok(Self { wan, lan, nat, _router: router })
    }

    /// A host: a namespace with `address` on its interface `eth0`.
    pub fn host(&self, name: &str, side: Side, address: &str) -> Result<Namespace> {
        let host = Namespace::new(name)?;
        self.bridge(side).attach(&host, "eth0", &format!("{address}/24"))?;
        host.default_route(side.router())?;
        Ok(host)
    }

    /// The bridge of a side.
    pub fn bridge(&self, side: Side) -> &Bridge {
        match side {
            Side::Wan => &self.wan,
            Side::Lan => &self.lan,
        }
    }

    /// Makes the NAT forget every mapping, as a router that was switched off and on.
    pub fn forget_mappings(&self) -> Result<()> {
        run(self.nat.exec("conntrack").arg("-F")).map(drop)
    }
}

/// The kernel's buffer for a capture in KiB: the traffic of a whole node goes through `any`, in bursts.
const CAPTURE_BUFFER: &str = "65536";

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures `interface` of `namespace`; `any` is all of them.
    pub fn start(namespace: &Namespace, interface: &str, name: &str) -> Result<Self> {
        let folder = tool::target().join("peers");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}-{name}.pcap", namespace.name()));
        let mut command = namespace.exec("tcpdump");
        command.args(["-i", interface, "-B", CAPTURE_BUFFER, "--immediate-mode", "-U", "-n", "-s", "0"]);
        command.args(["-Z", "root", "-w"]).arg(&file);
        // What a host says to itself, such as the output of a command in a pod, crosses no network.
        command.arg("not net 127.0.0.0/8");
        let mut process = Process::spawn(command, file.with_extension("log"))?;
        process.wait_for_line("listening on", Duration::from_secs(20))?;
        Ok(Self { process, file })
    }

    /// Ends the capture and returns its file, in which nothing is missing.
    pub fn stop(self) -> Result<PathBuf> {
        self.process.signal(Signal::SIGTERM)?;
        let said = self.process.finish(Duration::from_secs(10))?;
        ensure!(said.lines().any(|line| line.trim() == "0 packets dropped by kernel"), "the capture has gaps: {said}");
        Ok(self.file)
    }
}

/// What tshark says about a capture, one line a packet, with the given arguments.
pub fn tshark(file: &std::path::Path, arguments: &[&str]) -> Result<String> {
    run(Command::new("tshark").args(["-n", "-r"]).arg(file).args(arguments))
}
