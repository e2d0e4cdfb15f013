//! The network of the benchmark: one host that serves, and one that plays all clients, each with an address of its own.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use towline_tests::netns::{Bridge, Namespace};

/// Where the server is. All addresses are of the network for benchmarks (RFC 2544 appendix C.2.2).
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Where the clients' network begins.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);

/// Both hosts, and a processor for each where the machine has two: neither takes from the other.
pub(crate) struct Network {
    pub(crate) server: Namespace,
    pub(crate) clients: Namespace,
    processors: Option<[usize; 2]>,
    _bridge: Bridge,
}

impl Network {
    pub(crate) fn new() -> Result<Self> {
        let bridge = Bridge::new()?;
        let (server, clients) = (Namespace::new("server")?, Namespace::new("clients")?);
        bridge.attach(&server, "eth0", &format!("{SERVER}/24"))?;
        bridge.attach(&clients, "eth0", "198.18.0.2/24")?;
        server.ip(&["route", "add", &format!("{CLIENTS}/16"), "via", "198.18.0.2"])?;
        // Every address of it is this host's.
        clients.ip(&["route", "add", "local", &format!("{CLIENTS}/16"), "dev", "lo"])?;
        Ok(Self { server, clients, processors: processors()?, _bridge: bridge })
    }

    /// Whether server and clients have a processor each.
    pub(crate) fn is_parallel(&self) -> bool {
        self.processors.is_some()
    }

    /// Starts a server on its processor. This thread, which plays the clients, goes on on the other.
    pub(crate) fn serve<T>(&self, start: impl FnOnce(&Namespace) -> Result<T>) -> Result<T> {
        let Some([server, clients]) = self.processors else { return start(&self.server) };
        pin(server)?;
        let started = start(&self.server);
        pin(clients)?;
        started
    }
}

/// The address of a client.
pub(crate) fn address(client: u32) -> IpAddr {
    Ipv4Addr::from_bits(CLIENTS.to_bits() + 1 + client).into()
}

/// The client at an address.
pub(crate) fn client(address: IpAddr) -> Option<u32> {
    let IpAddr::V4(address) = address else { return None };
    address.to_bits().checked_sub(CLIENTS.to_bits() + 1)
}

/// The first two processors that this process may use.
fn processors() -> Result<Option<[usize; 2]>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut numbers = (0..CpuSet::count()).filter(|&number| allowed.is_set(number).unwrap_or(false));
    Ok(numbers.next().zip(numbers.next()).map(|(server, clients)| [server, clients]))
}

/// This thread, and what it starts, runs there.
fn pin(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
