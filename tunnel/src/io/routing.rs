//! Routes that fail closed: what is for the networks behind the peer goes into the tunnel or nowhere, whatever else the host
//! routes.
//!
//! A table of our own has an `unreachable` route for each remote network from the first moment of the process on, and a better
//! one into the TUN device while the link is up. A rule in front of the host's own leads into it:
//!
//! ```text
//!   0      all                                                     local
//!   1701   all but packets of this process to cluster and peer     table 1701; what it has no route for goes on
//!   32766  all                                                     main
//! ```
//!
//! So peer, operator and kubelet are reached even when their addresses lie in a remote network. A name server of the host that
//! does has a `throw` route: applications ask it as well as this process, outside the tunnel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use socket2::SockRef;

use super::netlink::{Error, Netlink, context};
use crate::config::Network;
use crate::config::server::Server;
use crate::inet::{IKE_PORT, NAT_T_PORT};

/// Our routing table.
const TABLE: u32 = 1_701;
/// Priority of the rules for what comes from a peer inside a remote network.
const PEER_PRIORITY: u32 = 1_700;
/// Priority of the rule that leads into the table.
const REMOTE_PRIORITY: u32 = 1_701;
/// What marks a socket of this process that does not go through the tunnel. None of its bits means anything to kube-proxy
/// (0xc000) or Tailscale (0xff0000).
const MARK: u32 = 0x1701;
/// Who set our routes and rules, in the kernel's lists: a number that no routing daemon has registered.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(171);
/// Metric of the routes into the tunnel.
const TUNNEL_METRIC: u32 = 50;
/// Metric of the routes to nowhere: worse than any that leads somewhere.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;

/// Keeps the packets of a socket, and of those that it accepts, out of the tunnel.
///
/// # Errors
/// Without `CAP_NET_ADMIN`.
pub fn mark(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_mark(MARK)
}

/// What the kernel is to do with packets. The default is what a host does without us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routing {
    /// The networks behind the peer.
    pub remote: Vec<IpNet>,
    /// The name servers of the host.
    pub name_servers: Vec<IpAddr>,
    /// The peer.
    pub peer: Option<IpAddr>,
    /// The link while it is up: the name of the device, and our address.
    pub link: Option<(String, Ipv4Addr)>,
}

impl Routing {
    /// That of a tunnel that is down.
    pub fn new(network: &Network, name_servers: Vec<IpAddr>) -> Self {
        Self { remote: network.remote_cidrs.iter().map(IpNet::trunc).collect(), name_servers, ..Self::default() }
    }

    /// That of a server, whose clients and sites are the remote networks. Those of which only their own configuration knows
    /// come to `remote` and go from it with their sessions.
    pub fn of_server(server: &Server, name_servers: Vec<IpAddr>) -> Self {
        let addresses = &server.addresses;
        let pools = addresses.pools.iter().copied().map(IpNet::V4).chain(addresses.ipv6_pool.map(IpNet::V6));
        let fixed = server.users.iter().filter_map(|user| user.address).map(|address| IpNet::from(IpAddr::V4(address)));
        let sites = server.users.iter().flat_map(|user| &user.networks).copied().map(IpNet::V4);
        let remote = IpNet::aggregate(&pools.chain(fixed).chain(sites).collect());
        let link = Some((server.network.device.clone(), addresses.local));
        Self { remote, name_servers, link, ..Self::default() }
    }

    /// The name servers that lie in a remote network, and are asked outside the tunnel all the same.
    pub fn exempt(&self) -> impl Iterator<Item = IpAddr> {
        self.name_servers.iter().copied().filter(|server| self.covers(*server))
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.remote.iter().any(|network| network.contains(&address))
    }

    fn routes(&self, device: Option<u32>) -> Vec<RouteMessage> {
        let exempt = self.exempt().map(|server| route(server.into(), RouteType::Throw));
        let blocked = self.remote.iter().map(|network| {
            let mut route = route(*network, RouteType::Unreachable);
            route.attributes.push(RouteAttribute::Priority(UNREACHABLE_METRIC));
            route
        });
        let link = device.zip(self.link.as_ref());
        let tunnelled = link.into_iter().flat_map(|(index, (_, address))| {
            self.remote.iter().map(move |network| {
                let mut route = route(*network, RouteType::Unicast);
                route.header.scope = RouteScope::Link;
                route.attributes.extend([RouteAttribute::Oif(index), RouteAttribute::Priority(TUNNEL_METRIC)]);
                if network.addr().is_ipv4() {
                    route.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(*address)));
                }
                route
            })
        });
        exempt.chain(blocked).chain(tunnelled).collect()
    }

    fn rules(&self) -> Vec<RuleMessage> {
        let families = [AddressFamily::Inet, AddressFamily::Inet6].into_iter();
        let families = families.filter(|family| self.remote.iter().any(|network| family_of(network.addr()) == *family));
        let remote = families.map(|family| {
            let mut rule = rule(family, REMOTE_PRIORITY, TABLE, [RuleAttribute::FwMark(MARK)]);
            rule.header.flags = RuleFlags::Invert;
            rule
        });
        // A host with a reverse path filter looks up where the peer's packets come from as if it were to answer them, without
        // the mark. Nothing but IKE and ESP fits.
        let peer = self.peer.filter(|peer| self.covers(*peer)).into_iter().flat_map(|peer| {
            let udp = [IKE_PORT, NAT_T_PORT].map(|port| {
                let ports = RuleAttribute::SourcePortRange(RulePortRange { start: port, end: port });
                vec![RuleAttribute::IpProtocol(IpProtocol::Udp), ports]
            });
            udp.into_iter().chain([vec![RuleAttribute::IpProtocol(IpProtocol::Esp)]]).map(move |attributes| {
                let (family, main) = (family_of(peer), RouteHeader::RT_TABLE_MAIN.into());
                let mut rule = rule(family, PEER_PRIORITY, main, attributes);
                rule.header.dst_len = IpNet::from(peer).prefix_len();
                rule.attributes.push(RuleAttribute::Destination(peer));
                rule
            })
        });
        remote.chain(peer).collect()
    }
}

impl Netlink {
    /// Makes the kernel do as `routing` says. What an earlier process has left is taken over or removed.
    ///
    /// # Errors
    /// The first step that failed; those before it are done.
    pub async fn apply(&self, routing: &Routing) -> Result<(), Error> {
        let device = match &routing.link {
            Some((device, _)) => Some(self.index(device).await?),
            None => None,
        };
        let (rules, routes) = (routing.rules(), routing.routes(device));
        let present = self.present_rules().await?;
        // First of all: a kernel without policy routing would put the routes into its only table.
        for rule in rules.iter().filter(|rule| !present.iter().any(|present| is_same_rule(rule, present))) {
            let mut request = self.handle.rule().add();
            request.message_mut().clone_from(rule);
            request.execute().await.map_err(context(|| "set a routing rule".to_owned()))?;
        }
        let before = self.present_routes().await?;
        for route in routes.iter().filter(|route| !before.iter().any(|present| is_same_route(route, present))) {
            let action = || format!("set the route to {}", destination(route));
            self.handle.route().add(route.clone()).replace().execute().await.map_err(context(action))?;
        }
        for route in before.iter().filter(|present| !routes.iter().any(|route| is_same_route(route, present))) {
            let action = || format!("remove the route to {}", destination(route));
            gone(self.handle.route().del(route.clone()).execute().await.map_err(context(action)))?;
        }
        for rule in present.iter().filter(|present| !rules.iter().any(|rule| is_same_rule(rule, present))) {
            let action = || "remove a routing rule".to_owned();
            gone(self.handle.rule().del(rule.clone()).execute().await.map_err(context(action)))?;
        }
        Ok(())
    }

    /// Our rules.
    async fn present_rules(&self) -> Result<Vec<RuleMessage>, Error> {
        let mut rules: Vec<RuleMessage> = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let listed = self.handle.rule().get(version).execute().try_collect().await.map_err(context(list));
            rules.extend::<Vec<_>>(without_family(listed)?);
        }
        rules.retain(|rule| rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL)));
        Ok(rules)
    }

    /// Our routes.
    async fn present_routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut routes: Vec<RouteMessage> = Vec::new();
        let queries = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for query in queries {
            let listed = self.handle.route().get(query).execute().try_collect().await.map_err(context(list));
            routes.extend::<Vec<_>>(without_family(listed)?);
        }
        routes.retain(|route| {
            route.header.protocol == PROTOCOL && route.attributes.contains(&RouteAttribute::Table(TABLE))
        });
        Ok(routes)
    }
}

/// A kernel without IPv6 has nothing to list.
fn without_family<T>(listed: Result<Vec<T>, Error>) -> Result<Vec<T>, Error> {
    match listed {
        Err(error) if [libc::EAFNOSUPPORT, libc::EOPNOTSUPP].into_iter().any(|number| error.is(number)) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

fn list() -> String {
    "list routes and rules".to_owned()
}

/// What is to be removed may be gone already, with its device or by hand.
fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if [libc::ESRCH, libc::ENOENT, libc::ENODEV].into_iter().any(|number| error.is(number)) => Ok(()),
        other => other,
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A route of our table.
fn route(network: IpNet, kind: RouteType) -> RouteMessage {
    let mut route = match network {
        IpNet::V4(network) => {
            let route =
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network.network(), network.prefix_len());
            route.table_id(TABLE).protocol(PROTOCOL).build()
        }
        IpNet::V6(network) => {
            let route =
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(network.network(), network.prefix_len());
            route.table_id(TABLE).protocol(PROTOCOL).build()
        }
    };
    route.header.kind = kind;
    route
}

/// A rule that leads what fits `selectors` into `table`.
fn rule(
    family: AddressFamily,
    priority: u32,
    table: u32,
    selectors: impl IntoIterator<Item = RuleAttribute>,
) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes.extend([
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(PROTOCOL),
    ]);
    rule.attributes.extend(selectors);
    rule
}

/// Whether the kernel's `present` is `wanted`; it tells more than it is told.
fn is_same_route(wanted: &RouteMessage, present: &RouteMessage) -> bool {
    wanted.header.address_family == present.header.address_family
        && wanted.header.kind == present.header.kind
        && wanted.header.destination_prefix_length == present.header.destination_prefix_length
        && wanted.attributes.iter().all(|attribute| present.attributes.contains(attribute))
}

/// Whether the kernel's `present` is `wanted`; it tells more than it is told.
fn is_same_rule(wanted: &RuleMessage, present: &RuleMessage) -> bool {
    wanted.header.family == present.header.family
        && wanted.header.dst_len == present.header.dst_len
        && wanted.header.flags == present.header.flags
        && wanted.attributes.iter().all(|attribute| present.attributes.contains(attribute))
}

/// The network that a route leads to, for messages.
fn destination(route: &RouteMessage) -> String {
    let length = route.header.destination_prefix_length;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(format!("{address}/{length}")),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(format!("{address}/{length}")),
        _ => None,
    });
    address.unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::namespace::in_namespace;
    use crate::io::tun::Device;
    use ipnet::Ipv4Net;

    const HOST: [u8; 4] = [10, 20, 0, 1];

    /// A packet to `to`, by a socket of this process if `marked`: where the kernel would send it.
    async fn lookup(netlink: &Netlink, to: impl Into<IpAddr>, marked: bool) -> Result<RouteMessage, i32> {
        let to = IpNet::from(to.into());
        let mut query = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.addr(), to.prefix_len()).unwrap();
        if marked {
            query = query.mark(MARK);
        }
        match netlink.handle.route().get(query.build()).execute().try_next().await {
            Ok(route) => Ok(route.unwrap()),
            Err(rtnetlink::Error::NetlinkError(message)) => Err(-message.raw_code()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn leads_to(netlink: &Netlink, to: impl Into<IpAddr>, marked: bool, device: &str) -> bool {
        let index = netlink.index(device).await.unwrap();
        let route = lookup(netlink, to, marked).await;
        route.is_ok_and(|route| route.attributes.contains(&RouteAttribute::Oif(index)))
    }

    /// A host with a default route, and two routes in its main table that compete with the tunnel's.
    async fn host(netlink: &Netlink) -> Device {
        let outside = Device::open("outside0").unwrap();
        netlink.set_link("outside0", [192, 0, 2, 9].into(), 1400).await.unwrap();
        let index = netlink.index("outside0").await.unwrap();
        for network in ["0.0.0.0/0", "10.20.0.0/16", "10.20.0.0/24"] {
            let network: Ipv4Net = network.parse().unwrap();
            let route = RouteMessageBuilder::<Ipv4Addr>::new().scope(RouteScope::Link).output_interface(index);
            let route = route.destination_prefix(network.network(), network.prefix_len()).build();
            netlink.handle.route().add(route).execute().await.unwrap();
        }
        outside
    }

    fn down() -> Routing {
        let network = Network {
            remote_cidrs: vec!["10.20.0.0/16".parse().unwrap(), "10.30.0.7/24".parse().unwrap()],
            ..Network::default()
        };
        Routing::new(&network, Vec::new())
    }

    fn up(address: [u8; 4]) -> Routing {
        Routing { link: Some(("towline7".to_owned(), address.into())), ..down() }
    }

    async fn count(netlink: &Netlink) -> (usize, usize) {
        (netlink.present_rules().await.unwrap().len(), netlink.present_routes().await.unwrap().len())
    }

    #[test]
    fn remote_networks_lead_into_the_tunnel_or_nowhere_whatever_else_is_routed() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = host(&netlink).await;
            assert!(leads_to(&netlink, HOST, false, "outside0").await);
            for _ in 0..2 {
                netlink.apply(&down()).await.unwrap();
                for to in [HOST, [10, 20, 9, 1], [10, 30, 0, 1]] {
                    assert_eq!(lookup(&netlink, to, false).await, Err(libc::EHOSTUNREACH));
                }
                assert!(leads_to(&netlink, [192, 0, 2, 77], false, "outside0").await);
            }
            let device = Device::open("towline7").unwrap();
            for address in [[10, 9, 0, 4], [10, 9, 0, 5]] {
                netlink.set_link("towline7", address.into(), 1300).await.unwrap();
                netlink.apply(&up(address)).await.unwrap();
                assert!(leads_to(&netlink, HOST, false, "towline7").await);
                let source = RouteAttribute::PrefSource(RouteAddress::Inet(address.into()));
                assert!(lookup(&netlink, HOST, false).await.unwrap().attributes.contains(&source));
            }
            netlink.apply(&down()).await.unwrap();
            assert_eq!(lookup(&netlink, HOST, false).await, Err(libc::EHOSTUNREACH));
            // A killed process takes its device with it, and nothing else.
            netlink.apply(&up([10, 9, 0, 5])).await.unwrap();
            drop(device);
            assert_eq!(lookup(&netlink, HOST, false).await, Err(libc::EHOSTUNREACH));
            netlink.apply(&Routing::default()).await.unwrap();
            assert!(leads_to(&netlink, HOST, false, "outside0").await);
            assert_eq!(count(&netlink).await, (0, 0));
        });
    }

    #[test]
    fn own_sockets_and_name_servers_stay_outside_the_tunnel() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = host(&netlink).await;
            let name_servers = vec![[10, 20, 0, 53].into(), [192, 0, 2, 53].into()];
            netlink.apply(&Routing { name_servers, ..down() }).await.unwrap();
            assert!(leads_to(&netlink, HOST, true, "outside0").await);
            assert!(leads_to(&netlink, [10, 20, 0, 53], false, "outside0").await);
            assert_eq!(count(&netlink).await, (1, 3));
            netlink.apply(&down()).await.unwrap();
            assert_eq!(lookup(&netlink, [10, 20, 0, 53], false).await, Err(libc::EHOSTUNREACH));
        });
    }

    #[test]
    fn own_packets_that_have_no_way_outside_do_not_take_the_one_inside() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _device = Device::open("towline7").unwrap();
            netlink.set_link("towline7", [10, 9, 0, 5].into(), 1300).await.unwrap();
            netlink.apply(&up([10, 9, 0, 5])).await.unwrap();
            assert!(leads_to(&netlink, HOST, false, "towline7").await);
            assert_eq!(lookup(&netlink, HOST, true).await, Err(libc::ENETUNREACH));
        });
    }

    #[test]
    fn only_ike_and_esp_pass_to_a_peer_inside_a_remote_network() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = host(&netlink).await;
            netlink.apply(&Routing { peer: Some(HOST.into()), ..down() }).await.unwrap();
            let index = netlink.index("outside0").await.unwrap();
            // A reverse path filter, strict and loose.
            for filter in ["1", "2"] {
                std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", filter).unwrap();
                for (port, passes) in [(500, true), (4500, true), (4501, false)] {
                    let query = RouteMessageBuilder::<Ipv4Addr>::new().source_prefix(HOST.into(), 32);
                    let query = query.destination_prefix([192, 0, 2, 9].into(), 32).input_interface(index);
                    let query = query.ip_protocol(IpProtocol::Udp.into()).sport(port).dport(port).build();
                    let found = netlink.handle.route().get(query).execute().try_next().await;
                    assert_eq!(found.is_ok(), passes, "{filter} {port} {found:?}");
                }
            }
            assert_eq!(lookup(&netlink, HOST, false).await, Err(libc::EHOSTUNREACH));
            netlink.apply(&Routing { peer: Some([192, 0, 2, 1].into()), ..down() }).await.unwrap();
            assert_eq!(count(&netlink).await, (1, 2));
        });
    }

    #[test]
    fn what_another_process_left_behind_is_taken_over_or_removed() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = host(&netlink).await;
            let other = Network { remote_cidrs: vec!["10.77.0.0/16".parse().unwrap()], ..Network::default() };
            let left =
                Routing { peer: Some([10, 77, 0, 1].into()), ..Routing::new(&other, vec![[10, 77, 0, 53].into()]) };
            netlink.apply(&left).await.unwrap();
            // Of the remote networks, and to the peer for IKE, ESP in UDP, and ESP.
            assert_eq!(count(&netlink).await, (4, 2));
            netlink.apply(&down()).await.unwrap();
            assert_eq!(count(&netlink).await, (1, 2));
            assert!(leads_to(&netlink, [10, 77, 0, 1], false, "outside0").await);
        });
    }

    #[test]
    fn clients_and_sites_of_a_server_are_reached_by_its_device_as_long_as_they_are_known() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _device = Device::open("towline7").unwrap();
            let text = r#"{"mode": "Server", "credentials": {"preSharedKeys": [{"file": {"path": "/dev/null"}}]},
                "addresses": {"local": "10.9.0.1", "pools": ["10.9.0.0/24"], "ipv6Pool": "fd09::/56"},
                "users": [{"name": "fixed", "password": {"path": "/dev/null"}, "address": "10.8.0.7"},
                          {"name": "site", "password": {"path": "/dev/null"}, "networks": ["172.16.5.0/24"]}],
                "network": {"device": "towline7"}}"#;
            let server: Server = serde_json::from_str(text).unwrap();
            netlink.set_link("towline7", server.addresses.local, 1400).await.unwrap();
            let mut routing = Routing::of_server(&server, Vec::new());
            let clients = ["10.9.0.5", "10.8.0.7", "172.16.5.1", "fd09::5"].map(|to| to.parse::<IpAddr>().unwrap());
            for _ in 0..2 {
                netlink.apply(&routing).await.unwrap();
                for to in clients {
                    assert!(leads_to(&netlink, to, false, "towline7").await, "{to}");
                    // A peer may have such an address outside.
                    assert_eq!(lookup(&netlink, to, true).await, Err(libc::ENETUNREACH));
                }
                assert_eq!(count(&netlink).await, (2, 8));
            }
            assert_eq!(lookup(&netlink, [10, 77, 0, 1], false).await, Err(libc::ENETUNREACH));
            // A site of which only RADIUS knows.
            routing.remote.push("10.77.0.0/16".parse().unwrap());
            netlink.apply(&routing).await.unwrap();
            assert!(leads_to(&netlink, [10, 77, 0, 1], false, "towline7").await);
            routing.remote.pop();
            netlink.apply(&routing).await.unwrap();
            assert_eq!(lookup(&netlink, [10, 77, 0, 1], false).await, Err(libc::ENETUNREACH));
            // While the device is made again nothing goes another way.
            netlink.apply(&Routing { link: None, ..routing }).await.unwrap();
            for to in clients {
                assert_eq!(lookup(&netlink, to, false).await, Err(libc::EHOSTUNREACH), "{to}");
            }
            netlink.apply(&Routing::default()).await.unwrap();
            assert_eq!(count(&netlink).await, (0, 0));
        });
    }
}
