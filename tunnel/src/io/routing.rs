//! Routes that fail closed: what is for the networks behind the peer goes into the tunnel or nowhere, whatever else the host
//! routes.
//!
//! A table of our own has an `unreachable` route for each remote network from the first moment of the process on, and a better
//! one into the TUN device while the link is up. Rules in front of the host's own lead into it:
//!
//! ```text
//!   0      all                                                     local
//!   1700   packets of this process to its cluster and its peer     main
//!   1701   all                                                     table 1701; what it has no route for goes on
//!   32766  all                                                     main
//! ```
//!
//! So peer, operator and kubelet are reached even when their addresses lie in a remote network. A name server of the host that
//! does has a `throw` route: applications ask it as well as this process, outside the tunnel.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use socket2::SockRef;

use super::netlink::{Error, Netlink, context};
use crate::config::Network;
use crate::inet::{IKE_PORT, NAT_T_PORT};

/// Our routing table.
const TABLE: u32 = 1_701;
/// Priority of the rules that keep this process's own packets out of the table.
const OWN_PRIORITY: u32 = 1_700;
/// Priority of the rule that leads all others into it.
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

    /// The name servers that lie in a remote network, and are asked outside the tunnel all the same.
    pub fn exempt(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.name_servers.iter().filter_map(|server| match server {
            IpAddr::V4(address) if self.covers(*server) => Some(*address),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.remote.iter().any(|network| network.contains(&address))
    }

    fn routes(&self, device: Option<u32>) -> Vec<RouteMessage> {
        let exempt = self.exempt().map(|server| route(server.into()).kind(RouteType::Throw));
        let blocked =
            ipv4(&self.remote).map(|network| route(network).kind(RouteType::Unreachable).priority(UNREACHABLE_METRIC));
        let link = device.zip(self.link.as_ref());
        let tunnelled = link.into_iter().flat_map(|(index, (_, address))| {
            ipv4(&self.remote).map(move |network| {
                let route = route(network).scope(RouteScope::Link).output_interface(index).priority(TUNNEL_METRIC);
                RouteMessageBuilder::<Ipv4Addr>::pref_source(route, *address)
            })
        });
        exempt.chain(blocked).chain(tunnelled).map(RouteMessageBuilder::build).collect()
    }

    fn rules(&self) -> Vec<RuleMessage> {
        if self.remote.is_empty() {
            return Vec::new();
        }
        let main = RouteHeader::RT_TABLE_MAIN.into();
        let mut rules = vec![rule(OWN_PRIORITY, main, [RuleAttribute::FwMark(MARK)])];
        // A host with a reverse path filter looks up where the peer's packets come from as if it were to answer them, without
        // the mark. Nothing but IKE and ESP fits.
        if let Some(peer) = self.peer.filter(|peer| self.covers(*peer)) {
            rules.extend([IKE_PORT, NAT_T_PORT].map(|port| {
                let ports = RulePortRange { start: port, end: port };
                let udp = RuleAttribute::IpProtocol(IpProtocol::Udp);
                let mut rule = rule(OWN_PRIORITY, main, [udp, RuleAttribute::SourcePortRange(ports)]);
                rule.header.dst_len = 32;
                rule.attributes.push(RuleAttribute::Destination(peer));
                rule
            }));
        }
        rules.push(rule(REMOTE_PRIORITY, TABLE, []));
        rules
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
        let rules: Vec<_> =
            self.handle.rule().get(IpVersion::V4).execute().try_collect().await.map_err(context(list))?;
        let ours = |rule: &RuleMessage| rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL));
        Ok(rules.into_iter().filter(ours).collect())
    }

    /// Our routes.
    async fn present_routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<_> = request.execute().try_collect().await.map_err(context(list))?;
        let ours = |route: &RouteMessage| {
            route.header.protocol == PROTOCOL && route.attributes.contains(&RouteAttribute::Table(TABLE))
        };
        Ok(routes.into_iter().filter(ours).collect())
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

/// The networks that IPCP can carry.
fn ipv4(networks: &[IpNet]) -> impl Iterator<Item = Ipv4Net> {
    networks.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some(*network),
        IpNet::V6(_) => None,
    })
}

/// A route of our table.
fn route(network: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().table_id(TABLE).protocol(PROTOCOL);
    route.destination_prefix(network.network(), network.prefix_len())
}

/// A rule that leads what fits `selectors` into `table`.
fn rule<const N: usize>(priority: u32, table: u32, selectors: [RuleAttribute; N]) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
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
    wanted.header.kind == present.header.kind
        && wanted.header.destination_prefix_length == present.header.destination_prefix_length
        && wanted.attributes.iter().all(|attribute| present.attributes.contains(attribute))
}

/// Whether the kernel's `present` is `wanted`; it tells more than it is told.
fn is_same_rule(wanted: &RuleMessage, present: &RuleMessage) -> bool {
    wanted.header.dst_len == present.header.dst_len
        && wanted.attributes.iter().all(|attribute| present.attributes.contains(attribute))
}

/// The network that a route leads to, for messages.
fn destination(route: &RouteMessage) -> String {
    use netlink_packet_route::route::RouteAddress::Inet;
    let length = route.header.destination_prefix_length;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(Inet(address)) => Some(format!("{address}/{length}")),
        _ => None,
    });
    address.unwrap_or_else(|| "default".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::namespace::in_namespace;
    use crate::io::tun::Device;
    use netlink_packet_route::route::RouteAddress;

    const HOST: [u8; 4] = [10, 20, 0, 1];

    /// A packet to `to`, by a socket of this process if `marked`: where the kernel would send it.
    async fn lookup(netlink: &Netlink, to: impl Into<Ipv4Addr>, marked: bool) -> Result<RouteMessage, i32> {
        let mut query = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.into(), 32);
        if marked {
            query = query.mark(MARK);
        }
        match netlink.handle.route().get(query.build()).execute().try_next().await {
            Ok(route) => Ok(route.unwrap()),
            Err(rtnetlink::Error::NetlinkError(message)) => Err(-message.raw_code()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn leads_to(netlink: &Netlink, to: impl Into<Ipv4Addr>, marked: bool, device: &str) -> bool {
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
            assert_eq!(count(&netlink).await, (2, 3));
            netlink.apply(&down()).await.unwrap();
            assert_eq!(lookup(&netlink, [10, 20, 0, 53], false).await, Err(libc::EHOSTUNREACH));
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
            assert_eq!(count(&netlink).await, (2, 2));
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
            assert_eq!(count(&netlink).await, (4, 2));
            netlink.apply(&down()).await.unwrap();
            assert_eq!(count(&netlink).await, (2, 2));
            assert!(leads_to(&netlink, [10, 77, 0, 1], false, "outside0").await);
        });
    }
}
