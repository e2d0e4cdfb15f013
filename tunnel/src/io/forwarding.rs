//! What the kernel forwards between clients and networks, and with which source address: a table of nf_tables in the network
//! namespace of this process, set over netlink.
//!
//! ```text
//!   input        from the device only to our own address: ping, imports, and answers to what this host began
//!   forward      from the device only to the networks of the configuration, and answers
//!                into the device only answers, and what goes to sites, or to clients that have their own address outside
//!   postrouting  what came in by the device leaves with the address of the device that it leaves by, if that is asked for
//! ```
//!
//! What has nothing to do with the device passes. Packets between clients are the stack's: the kernel never sees them, so that
//! one that would go back into the device goes nowhere. Whether a client may send to a network is the stack's as well.

mod nftables;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::IpNet;

use self::nftables::{Action, Chain, Failure, Family, Match, Rule, Set, Table};
use crate::config::Protocol;
use crate::config::server::{Import, Server, SourceNat};

/// Our table.
const TABLE: &str = "towline";
/// Where filters are among the chains of a hook (`NF_IP_PRI_FILTER`).
const FILTER_PRIORITY: i32 = libc::NF_IP_PRI_FILTER;
/// Where a source is translated (`NF_IP_PRI_NAT_SRC`).
const NAT_PRIORITY: i32 = libc::NF_IP_PRI_NAT_SRC;

/// The sets: networks that clients reach, and those that may reach into the device.
const NETWORKS: [(&str, Family); 2] = [("networks", Family::Ipv4), ("networks6", Family::Ipv6)];
const INSIDE: [(&str, Family); 2] = [("inside", Family::Ipv4), ("inside6", Family::Ipv6)];

/// What is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The device that clients' packets come out of.
    pub device: String,
    /// Our own address inside every link.
    pub local: Ipv4Addr,
    /// What clients reach at it, beside ping.
    pub services: Vec<(Protocol, u16)>,
    /// Networks that clients reach through this host.
    pub networks: Vec<IpNet>,
    /// With which source address.
    pub source_nat: SourceNat,
    /// Networks behind the device that others may send to of their own accord.
    pub inside: Vec<IpNet>,
}

impl Rules {
    /// Those of a configuration, for the sites in it.
    pub fn new(server: &Server) -> Self {
        let addresses = &server.addresses;
        let pools = addresses.pools.iter().copied().map(IpNet::V4).chain(addresses.ipv6_pool.map(IpNet::V6));
        let fixed = server.users.iter().filter_map(|user| user.address).map(|address| IpNet::from(IpAddr::V4(address)));
        let sites = server.users.iter().flat_map(|user| &user.networks).copied().map(IpNet::V4);
        // Nobody outside knows a client that goes out with our address.
        let inside = match server.forwarding.source_nat {
            SourceNat::Masquerade => sites.collect(),
            SourceNat::None => pools.chain(fixed).chain(sites).collect(),
        };
        Self {
            device: server.network.device.clone(),
            local: addresses.local,
            services: server.imports.iter().map(|Import { protocol, listen, .. }| (*protocol, *listen)).collect(),
            networks: server.forwarding.networks.clone(),
            source_nat: server.forwarding.source_nat,
            inside,
        }
    }

    fn table(&self) -> Table<'_> {
        let set = |(name, family), networks: &[IpNet]| Set { name, family, networks: networks.to_vec() };
        let sets = NETWORKS.map(|id| set(id, &self.networks)).into_iter().chain(INSIDE.map(|id| set(id, &self.inside)));
        let mut chains = vec![self.input(), self.forward()];
        if self.source_nat == SourceNat::Masquerade {
            chains.push(self.postrouting());
        }
        Table { name: TABLE, sets: sets.collect(), chains }
    }

    fn input(&self) -> Chain<'_> {
        let service = |(protocol, port): &(Protocol, u16)| match protocol {
            Protocol::Tcp => Match::Tcp(*port),
            Protocol::Udp => Match::Udp(*port),
        };
        let own = std::iter::once(Match::Icmp).chain(self.services.iter().map(service));
        let mut rules = vec![accept([Match::NotFrom(&self.device)]), accept([Match::Answer]), accept([Match::Related])];
        rules.extend(own.map(|service| accept([Match::To(self.local), service])));
        rules.push(Rule { matches: Vec::new(), action: Action::Drop });
        Chain { name: "input", kind: "filter", hook: libc::NF_INET_LOCAL_IN, priority: FILTER_PRIORITY, rules }
    }

    fn forward(&self) -> Chain<'_> {
        let (from, into) = (Match::From(&self.device), Match::Into(&self.device));
        let mut rules = vec![
            accept([Match::NotFrom(&self.device), Match::NotInto(&self.device)]),
            Rule { matches: vec![from, into], action: Action::Drop },
            accept([Match::Answer]),
            accept([Match::Related]),
        ];
        rules.extend(NETWORKS.map(|(name, family)| accept([from, Match::Towards(name, family)])));
        rules.extend(INSIDE.map(|(name, family)| accept([into, Match::Towards(name, family)])));
        rules.push(Rule { matches: Vec::new(), action: Action::Drop });
        Chain { name: "forward", kind: "filter", hook: libc::NF_INET_FORWARD, priority: FILTER_PRIORITY, rules }
    }

    fn postrouting(&self) -> Chain<'_> {
        let rule = |(name, family)| Rule {
            // That the first is known here takes Linux 5.7.
            matches: vec![Match::From(&self.device), Match::Towards(name, family)],
            action: Action::Masquerade,
        };
        let rules = NETWORKS.map(rule).into_iter().collect();
        Chain { name: "postrouting", kind: "nat", hook: libc::NF_INET_POST_ROUTING, priority: NAT_PRIORITY, rules }
    }
}

fn accept<const N: usize>(matches: [Match<'_>; N]) -> Rule<'_> {
    Rule { matches: matches.into(), action: Action::Accept }
}

/// Why packets are not forwarded as they should be, and what helps.
#[derive(Debug, thiserror::Error)]
#[error("The kernel cannot be told what to forward (nf_tables, {message}): {error}{}.", remedy(.message, .error))]
pub struct Error {
    message: &'static str,
    error: io::Error,
}

impl From<Failure> for Error {
    fn from(Failure { message, error }: Failure) -> Self {
        Self { message, error }
    }
}

fn remedy(message: &str, error: &io::Error) -> &'static str {
    match (error.raw_os_error(), message) {
        (Some(libc::EPERM | libc::EACCES), _) => {
            "; run it as root or with CAP_NET_ADMIN, and give a container the capability NET_ADMIN"
        }
        // What NAT and connection tracking need are modules of their own.
        (Some(libc::ENOENT | libc::EOPNOTSUPP), "op-newchain-do" | "op-newrule-do") => {
            "; the kernel needs nf_tables with NAT and connection tracking (CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT; on \
             the node: modprobe -a nft_chain_nat nft_masq nft_ct)"
        }
        (Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EINVAL), _) => {
            "; the kernel needs nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET; on the node: modprobe nf_tables)"
        }
        _ => "",
    }
}

/// What the kernel forwards on behalf of this process.
#[derive(Debug, Default)]
pub struct Forwarding {
    applied: Option<Rules>,
}

impl Forwarding {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the kernel do as `rules` say, in place of whatever it did before. Connections go on.
    ///
    /// # Errors
    /// Why it does not; it does as before.
    pub fn apply(&mut self, rules: &Rules) -> Result<(), Error> {
        if self.applied.as_ref() != Some(rules) {
            nftables::replace(&rules.table())?;
            self.applied = Some(rules.clone());
        }
        Ok(())
    }

    /// Leaves nothing behind.
    ///
    /// # Errors
    /// Why something stays.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.applied = None;
        Ok(nftables::remove(TABLE)?)
    }
}

/// Makes the kernel forward packets at all, also those of IPv6 if `ipv6`.
///
/// # Errors
/// A sentence for each setting that forbids it, with the remedy.
pub fn detect(ipv6: bool) -> Result<(), String> {
    detect_in(Path::new("/proc/sys"), ipv6)
}

fn detect_in(root: &Path, ipv6: bool) -> Result<(), String> {
    let settings = [Some("net.ipv4.ip_forward"), ipv6.then_some("net.ipv6.conf.all.forwarding")];
    let obstacles: Vec<_> = settings.into_iter().flatten().filter_map(|setting| enable(root, setting).err()).collect();
    if obstacles.is_empty() { Ok(()) } else { Err(obstacles.join(" ")) }
}

/// Sets a setting of the kernel to 1 unless it is.
fn enable(root: &Path, setting: &str) -> Result<(), String> {
    let path = root.join(setting.replace('.', "/"));
    let read = || std::fs::read_to_string(&path).map(|value| value.trim().to_owned());
    let value = read().map_err(|error| format!("{setting} cannot be read: {error}."))?;
    if value == "1" {
        return Ok(());
    }
    std::fs::write(&path, "1").map_err(|error| {
        format!(
            "{setting} is {value} and cannot be changed from the pod: {error}. Set it in securityContext.sysctls of the pod \
             (the kubelet must allow it: --allowed-unsafe-sysctls={setting}), by a privileged init container \
             (sysctl -w {setting}=1), or on the node before the pod starts."
        )
    })?;
    tracing::info!(setting, "the kernel forwards packets");
    Ok(())
}

#[cfg(test)]
mod tests;
