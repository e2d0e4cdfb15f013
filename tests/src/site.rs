//! A test network: a wide-area bridge with a host on the "Internet", and a local network behind a NAT.
//!
//! ```text
//!   wan  192.0.2.0/24     router 192.0.2.1, which is 203.0.113.1 too
//!    └ nat 192.0.2.2 ── masquerade ── 198.51.100.1
//!                                      └ lan  198.51.100.0/24
//!                                          └ router 198.51.100.31 ── masquerade ── 192.168.1.1
//!                                                                                   └ home  192.168.1.0/24
//! ```
//!
//! There may be several homes, all with the same addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use nix::sys::signal::Signal;

use crate::netns::{self, Bridge, Namespace};
use crate::peer::INNER;
use crate::process::{Process, run, wait_until};
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
        masquerade(&nat)?;
        Ok(Self { wan, lan, nat, _router: router })
    }

    /// A home in the network behind the NAT: a network behind a NAT of its own, whose outer address is `outer`, as
    /// `198.51.100.31`.
    pub fn home(&self, outer: &str) -> Result<Home> {
        let (bridge, router) = (Bridge::new()?, Namespace::new("home")?);
        self.lan.attach(&router, "out", &format!("{outer}/24"))?;
        bridge.attach(&router, "in", &format!("{}/24", Home::ROUTER))?;
        router.default_route(Side::Lan.router())?;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        masquerade(&router)?;
        Ok(Home { bridge, _router: router })
    }

    /// A network behind `server`, on its interface `inside`, and a host there.
    pub fn inside(&self, server: &Namespace, page: &str) -> Result<Inside> {
        let (bridge, host) = (Bridge::new()?, Namespace::new("inside")?);
        bridge.attach(server, "inside", "10.20.4.1/24")?;
        bridge.attach(&host, "eth0", &format!("{INNER}/24"))?;
        host.ip(&["address", "add", &format!("{}/32", Inside::OTHER), "dev", "lo"])?;
        server.ip(&["route", "add", &format!("{}/32", Inside::OTHER), "via", INNER])?;
        host.default_route(Inside::SERVER)?;
        let folder = tool::target().join("peers").join(format!("{}-web", host.name()));
        fs::create_dir_all(folder.join("cgi-bin"))?;
        fs::write(folder.join("index.html"), format!("{page}\n"))?;
        let from = folder.join("cgi-bin/from");
        fs::write(
            &from,
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho \"$REMOTE_ADDR\" | tr -d '[]' | sed 's/^::ffff://'\n",
        )?;
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755))?;
        let mut httpd = host.exec("busybox");
        httpd.args(["httpd", "-f", "-p", "80", "-h"]).arg(&folder);
        let web = Process::spawn(httpd, folder.with_extension("log"))?;
        wait_until("the web server", Duration::from_secs(10), || {
            run(host.exec("curl").args(["-sS", "--max-time", "2"]).arg(format!("http://{INNER}/"))).is_ok()
        })?;
        Ok(Inside { host, _web: web, _bridge: bridge })
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

    /// Makes the NAT drop fragments of IPv4 packets before it looks into them, as many a firewall does.
    pub fn drop_fragments(&self) -> Result<()> {
        // Before the kernel puts them together for the NAT (NF_IP_PRI_CONNTRACK_DEFRAG is -400).
        let rules = "table ip fragments { counter dropped { }; chain pre { type filter hook prerouting priority -450; \
                     ip frag-off & 0x3fff != 0 counter name dropped drop; }; }";
        run(self.nat.exec("nft").arg(rules)).map(drop)
    }

    /// How many the NAT has dropped.
    pub fn dropped_fragments(&self) -> Result<u64> {
        let said = run(self.nat.exec("nft").args(["list", "counter", "ip", "fragments", "dropped"]))?;
        let number = said.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        number.with_context(|| format!("no counter in {said}"))
    }

    /// Makes the NAT forget every mapping, as a router that was switched off and on.
    pub fn forget_mappings(&self) -> Result<()> {
        run(self.nat.exec("conntrack").arg("-F")).map(drop)
    }
}

/// A network behind a NAT behind the NAT.
#[derive(Debug)]
pub struct Home {
    /// The network, 192.168.1.0/24.
    pub bridge: Bridge,
    _router: Namespace,
}

impl Home {
    /// The default gateway of its hosts.
    pub const ROUTER: &str = "192.168.1.1";
}

/// A host behind a server: [`INNER`], with a web page, and a page `cgi-bin/from` that says who asks.
#[derive(Debug)]
pub struct Inside {
    /// The host.
    pub host: Namespace,
    _web: Process,
    _bridge: Bridge,
}

impl Inside {
    /// The server's address there.
    pub const SERVER: &str = "10.20.4.1";
    /// Another address of the host, in another network.
    pub const OTHER: &str = "10.20.6.11";
    /// The network over IPv6, once it has that.
    pub const NETWORK6: &str = "fd20:4::/64";
    /// The host's address there.
    pub const ADDRESS6: &str = "fd20:4::11";

    /// Gives the network behind `server` IPv6 as well.
    pub fn add_ipv6(&self, server: &Namespace) -> Result<()> {
        let own = format!("{}/64", Self::ADDRESS6);
        self.host.ip(&["address", "add", &own, "dev", "eth0", "nodad"])?;
        server.ip(&["address", "add", "fd20:4::1/64", "dev", "inside", "nodad"])?;
        self.host.ip(&["-6", "route", "add", "default", "via", "fd20:4::1"]).map(drop)
    }
}

/// Hides what goes out through the interface `out` behind its address, with ports of its own choice.
fn masquerade(router: &Namespace) -> Result<()> {
    let rules =
        "table ip nat { chain post { type nat hook postrouting priority 100; oifname \"out\" masquerade random; }; }";
    run(router.exec("nft").arg(rules)).map(drop)
}

/// The kernel's buffer for a capture in KiB: the traffic of a whole node goes through `any`, in bursts.
const CAPTURE_BUFFER: &str = "131072";
/// The octets of a packet that are kept: all of them. Each place of the buffer is as long as that, so that more would be fewer.
const SNAPSHOT: &str = "65535";

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
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}-{name}.pcap", namespace.name()));
        let mut command = namespace.exec("tcpdump");
        command.args(["-i", interface, "-B", CAPTURE_BUFFER, "--immediate-mode", "-U", "-n", "-s", SNAPSHOT]);
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
