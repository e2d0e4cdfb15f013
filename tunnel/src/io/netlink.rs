//! Addresses, links and routes, over rtnetlink.
//!
//! Every remote network has two routes: `unreachable` with the worst metric, from the first moment of the process on, and one
//! into the TUN device while the link is up. Whichever moment a packet comes in, it goes into the tunnel or nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

/// Metric of the routes into the tunnel: better than what a host usually has.
const TUNNEL_METRIC: u32 = 50;
/// Metric of the routes to nowhere: worse than any that leads somewhere.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;
/// Packets that the kernel keeps for the device while this process is busy.
const QUEUE_LENGTH: u32 = 1_000;
/// What is assumed of an interface that does not tell its MTU.
const USUAL_MTU: u16 = 1_500;

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action}: {}.", remedy(.error))]
pub struct Error {
    action: String,
    error: io::Error,
}

fn remedy(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{error}; the container needs the capability NET_ADMIN")
    } else {
        error.to_string()
    }
}

/// Says what was tried, with the system's own error.
fn context(action: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> Error {
    |error| {
        let error = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Error { action: action(), error }
    }
}

impl Error {
    fn is(&self, number: i32) -> bool {
        self.error.raw_os_error() == Some(number)
    }
}

/// A connection to the kernel.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
}

/// A host route that keeps packets to the peer itself out of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin(RouteMessage);

impl Netlink {
    /// Opens the connection; it is served by a task of the runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Sends what is for `networks` nowhere, unless a better route takes it.
    ///
    /// # Errors
    /// The first route that could not be set.
    pub async fn block(&self, networks: &[IpNet]) -> Result<(), Error> {
        for network in ipv4(networks) {
            self.add(unreachable(network)).await?;
        }
        Ok(())
    }

    /// Takes back [`Self::block`].
    ///
    /// # Errors
    /// The first route that could not be removed.
    pub async fn unblock(&self, networks: &[IpNet]) -> Result<(), Error> {
        for network in ipv4(networks) {
            self.delete(unreachable(network)).await?;
        }
        Ok(())
    }

    /// Gives the device its only address and its MTU, and switches it on.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn set_link(&self, device: &str, address: Ipv4Addr, mtu: u16) -> Result<(), Error> {
        let index = self.index(device).await?;
        let link = LinkUnspec::new_with_index(index).mtu(mtu.into()).txqueuelen(QUEUE_LENGTH).up().build();
        let action = || format!("switch on the device {device} with an MTU of {mtu}");
        self.handle.link().set(link).execute().await.map_err(context(action))?;

        let action = || format!("give the device {device} the address {address}");
        let request = self.handle.address().get().set_link_index_filter(index);
        let present: Vec<_> = request.execute().try_collect().await.map_err(context(action))?;
        let mut wanted = false;
        for message in present {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
            match local {
                Some(local) if local == address => wanted = true,
                Some(_) => self.handle.address().del(message).execute().await.map_err(context(action))?,
                None => {}
            }
        }
        if !wanted {
            // A prefix of one address: the peer's own is never routed, some gateways tell their public one (or none).
            self.handle.address().add(index, address.into(), 32).execute().await.map_err(context(action))?;
        }
        Ok(())
    }

    /// Routes `networks` into the device, from `address`.
    ///
    /// # Errors
    /// The first route that could not be set.
    pub async fn route(&self, device: &str, address: Ipv4Addr, networks: &[IpNet]) -> Result<(), Error> {
        let index = self.index(device).await?;
        for network in ipv4(networks) {
            let route = through(index, network);
            self.add(RouteMessageBuilder::<Ipv4Addr>::pref_source(route, address)).await?;
        }
        Ok(())
    }

    /// Takes back [`Self::route`].
    ///
    /// # Errors
    /// The first route that could not be removed.
    pub async fn unroute(&self, device: &str, networks: &[IpNet]) -> Result<(), Error> {
        let index = self.index(device).await?;
        for network in ipv4(networks) {
            self.delete(through(index, network)).await?;
        }
        Ok(())
    }

    /// Keeps packets to `peer` on the way that they take without the tunnel, by a host route. There must be such a way.
    ///
    /// # Errors
    /// When there is none, or the route cannot be set.
    pub async fn pin(&self, peer: Ipv4Addr, device: &str) -> Result<Pin, Error> {
        let tunnel = self.index(device).await.ok();
        let action = || format!("find the way to the peer {peer} outside the tunnel");
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<_> = request.execute().try_collect().await.map_err(context(action))?;
        let Some(pin) = outer_route(&routes, peer, tunnel) else {
            let error = io::Error::from_raw_os_error(libc::ENETUNREACH);
            return Err(Error { action: action(), error });
        };
        let action = || format!("set a host route to the peer {peer}");
        self.handle.route().add(pin.clone()).replace().execute().await.map_err(context(action))?;
        Ok(Pin(pin))
    }

    /// Takes back [`Self::pin`].
    ///
    /// # Errors
    /// When the route cannot be removed.
    pub async fn unpin(&self, pin: Pin) -> Result<(), Error> {
        let action = || "remove the host route to the peer".to_owned();
        ignore_missing(self.handle.route().del(pin.0).execute().await.map_err(context(action)))
    }

    /// The MTU of the way to `remote`.
    ///
    /// # Errors
    /// When there is no way to it.
    pub async fn path_mtu(&self, remote: IpAddr) -> Result<u16, Error> {
        let action = || format!("find the interface towards {remote}");
        let prefix = if remote.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(remote, prefix);
        let message = message.map_err(|error| Error { action: action(), error: io::Error::other(error) })?.build();
        let routes: Vec<_> = self.handle.route().get(message).execute().try_collect().await.map_err(context(action))?;
        let mut mtu = USUAL_MTU;
        for attribute in routes.iter().flat_map(|route| &route.attributes) {
            match attribute {
                RouteAttribute::Oif(index) => mtu = mtu.min(self.link_mtu(*index).await.map_err(context(action))?),
                RouteAttribute::Metrics(metrics) => {
                    let of_route = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
                        _ => None,
                    });
                    mtu = mtu.min(of_route.unwrap_or(mtu));
                }
                _ => {}
            }
        }
        Ok(mtu)
    }

    async fn link_mtu(&self, index: u32) -> Result<u16, rtnetlink::Error> {
        let link = self.handle.link().get().match_index(index).execute().try_next().await?;
        let mtu = link.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(u16::try_from(*mtu).unwrap_or(u16::MAX)),
            _ => None,
        });
        Ok(mtu.unwrap_or(USUAL_MTU))
    }

    async fn index(&self, device: &str) -> Result<u32, Error> {
        let action = || format!("find the device {device}");
        let link = self.handle.link().get().match_name(device).execute().try_next().await.map_err(context(action))?;
        match link {
            Some(link) => Ok(link.header.index),
            None => Err(Error { action: action(), error: io::Error::from_raw_os_error(libc::ENODEV) }),
        }
    }

    async fn add(&self, route: RouteMessageBuilder<Ipv4Addr>) -> Result<(), Error> {
        let message = route.build();
        let action =
            || format!("set the route to {}", destination(&message).map(|net| net.to_string()).unwrap_or_default());
        self.handle.route().add(message.clone()).replace().execute().await.map_err(context(action))
    }

    async fn delete(&self, route: RouteMessageBuilder<Ipv4Addr>) -> Result<(), Error> {
        let message = route.build();
        let name = destination(&message).map(|net| net.to_string()).unwrap_or_default();
        let action = || format!("remove the route to {name}");
        ignore_missing(self.handle.route().del(message).execute().await.map_err(context(action)))
    }
}

/// What is to be removed may be gone already, with its device or by hand.
fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is(libc::ESRCH) || error.is(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// The networks that IPCP can carry.
fn ipv4(networks: &[IpNet]) -> impl Iterator<Item = Ipv4Net> {
    networks.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some(network.trunc()),
        IpNet::V6(_) => None,
    })
}

fn unreachable(network: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().kind(RouteType::Unreachable).priority(UNREACHABLE_METRIC);
    route.destination_prefix(network.network(), network.prefix_len())
}

fn through(index: u32, network: Ipv4Net) -> RouteMessageBuilder<Ipv4Addr> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().scope(RouteScope::Link).priority(TUNNEL_METRIC);
    route.output_interface(index).destination_prefix(network.network(), network.prefix_len())
}

/// The network that a route leads to.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), route.header.destination_prefix_length).ok()
}

/// A host route to `peer` by the best of `routes` that does not lead into the device `tunnel` or nowhere.
fn outer_route(routes: &[RouteMessage], peer: Ipv4Addr, tunnel: Option<u32>) -> Option<RouteMessage> {
    let find = |route: &RouteMessage, pick: fn(&RouteAttribute) -> Option<u32>| route.attributes.iter().find_map(pick);
    let interface = |route: &RouteMessage| {
        find(route, |attribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None })
    };
    let metric = |route: &RouteMessage| {
        find(route, |attribute| if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None })
    };
    let best = routes
        .iter()
        .filter(|route| route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast)
        .filter(|route| interface(route).is_some() && interface(route) != tunnel)
        .filter(|route| destination(route).is_some_and(|network| network.contains(&peer)))
        .max_by_key(|route| {
            (route.header.destination_prefix_length, std::cmp::Reverse(metric(route).unwrap_or_default()))
        })?;
    let mut pin = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(peer, 32)
        .scope(best.header.scope)
        .output_interface(interface(best)?);
    for attribute in &best.attributes {
        if let RouteAttribute::Gateway(_) | RouteAttribute::PrefSource(_) = attribute {
            pin.get_mut().attributes.push(attribute.clone());
        }
    }
    pin.get_mut().header.flags = best.header.flags;
    Some(pin.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn route(network: &str, index: u32, metric: u32, gateway: Option<Ipv4Addr>) -> RouteMessage {
        let network = net(network);
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).priority(metric);
        let route = route.destination_prefix(network.network(), network.prefix_len());
        match gateway {
            Some(gateway) => route.gateway(gateway).build(),
            None => route.build(),
        }
    }

    #[test]
    fn the_peer_is_reached_by_the_best_route_outside_the_tunnel() {
        let [near, far]: [Ipv4Addr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 254].into()];
        let peer: Ipv4Addr = [10, 20, 0, 1].into();
        let routes = [
            route("0.0.0.0/0", 2, 0, Some(far)),
            route("10.0.0.0/8", 2, 100, Some(far)),
            route("10.0.0.0/8", 3, 10, Some(near)),
            route("10.20.0.0/16", 7, TUNNEL_METRIC, None),
            unreachable(net("10.20.0.0/16")).build(),
            route("10.99.0.0/16", 4, 0, None),
        ];
        let pin = outer_route(&routes, peer, Some(7)).unwrap();
        assert_eq!(destination(&pin), Some(net("10.20.0.1/32")));
        assert!(pin.attributes.contains(&RouteAttribute::Oif(3)));
        assert!(pin.attributes.contains(&RouteAttribute::Gateway(RouteAddress::Inet(near))));
        assert_eq!(outer_route(&routes[3..], peer, Some(7)), None);
    }

    /// Runs `test` on a thread in a network namespace of its own; nothing of it outlives the thread. Needs root.
    fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
        assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace: run it as root");
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        });
        assert!(thread.join().is_ok());
    }

    /// What the kernel would do with a packet to `to`.
    async fn lookup(netlink: &Netlink, to: [u8; 4]) -> Result<RouteMessage, i32> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.into(), 32).build();
        match netlink.handle.route().get(message).execute().try_next().await {
            Ok(route) => Ok(route.unwrap()),
            Err(rtnetlink::Error::NetlinkError(message)) => Err(-message.raw_code()),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn remote_networks_lead_into_the_tunnel_or_nowhere() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let outside = crate::io::tun::Device::open("outside0").unwrap();
            netlink.set_link(outside.name(), [192, 0, 2, 9].into(), 1400).await.unwrap();
            netlink.route(outside.name(), [192, 0, 2, 9].into(), &["0.0.0.0/0".parse().unwrap()]).await.unwrap();
            let networks: [IpNet; 2] = ["10.20.0.0/16".parse().unwrap(), "10.30.0.7/24".parse().unwrap()];
            assert!(lookup(&netlink, [10, 20, 0, 1]).await.is_ok());
            netlink.block(&networks).await.unwrap();
            netlink.block(&networks).await.unwrap();
            for host in [[10, 20, 0, 1], [10, 30, 0, 1]] {
                assert_eq!(lookup(&netlink, host).await, Err(libc::EHOSTUNREACH));
            }

            let device = crate::io::tun::Device::open("towline7").unwrap();
            let index = netlink.index("towline7").await.unwrap();
            for address in [[10, 9, 0, 4], [10, 9, 0, 5]] {
                netlink.set_link("towline7", address.into(), 1300).await.unwrap();
                netlink.route("towline7", address.into(), &networks).await.unwrap();
                let route = lookup(&netlink, [10, 20, 0, 1]).await.unwrap();
                assert!(route.attributes.contains(&RouteAttribute::Oif(index)));
                assert!(route.attributes.contains(&RouteAttribute::PrefSource(RouteAddress::Inet(address.into()))));
            }
            assert_eq!(netlink.path_mtu([10, 30, 0, 1].into()).await.unwrap(), 1300);

            netlink.unroute("towline7", &networks).await.unwrap();
            netlink.unroute("towline7", &networks).await.unwrap();
            assert_eq!(lookup(&netlink, [10, 20, 0, 1]).await, Err(libc::EHOSTUNREACH));

            // A route disappears with its device; the one to nowhere stays.
            netlink.route("towline7", [10, 9, 0, 5].into(), &networks).await.unwrap();
            drop(device);
            assert_eq!(lookup(&netlink, [10, 20, 0, 1]).await, Err(libc::EHOSTUNREACH));

            netlink.unblock(&networks).await.unwrap();
            assert!(lookup(&netlink, [10, 20, 0, 1]).await.is_ok());
        });
    }

    #[test]
    fn the_peer_itself_stays_outside_the_tunnel() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = crate::io::tun::Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1400).await.unwrap();
            netlink.route("outside0", [192, 0, 2, 9].into(), &["0.0.0.0/0".parse().unwrap()]).await.unwrap();
            let networks = ["10.20.0.0/16".parse().unwrap()];
            netlink.block(&networks).await.unwrap();
            let outside = netlink.index("outside0").await.unwrap();
            let pin = netlink.pin([10, 20, 0, 1].into(), "towline7").await.unwrap();
            let _device = crate::io::tun::Device::open("towline7").unwrap();
            netlink.set_link("towline7", [10, 9, 0, 5].into(), 1300).await.unwrap();
            netlink.route("towline7", [10, 9, 0, 5].into(), &networks).await.unwrap();
            let route = lookup(&netlink, [10, 20, 0, 1]).await.unwrap();
            assert!(route.attributes.contains(&RouteAttribute::Oif(outside)));
            assert_eq!(netlink.path_mtu([10, 20, 0, 1].into()).await.unwrap(), 1400);
            netlink.unpin(pin).await.unwrap();
            let route = lookup(&netlink, [10, 20, 0, 1]).await.unwrap();
            assert!(!route.attributes.contains(&RouteAttribute::Oif(outside)));
        });
    }
}
