//! UDP: a flow for each client, which ends when it is silent, when the host does not listen, or when the link has
//! another address.
//!
//! An answer leaves from the address that the system prefers towards the client. A pod has one; a host with several should
//! name one of them in the export's `listen`. While the name of a host is resolved only the first datagram of a flow is kept.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};

use super::{ACCEPT_PAUSE, Complaint, Shared, Target};
use crate::io::routing;

/// How long a UDP client may be silent.
const FLOW_IDLE: Duration = Duration::from_secs(60);
/// The longest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A UDP client.
struct Flow {
    /// Towards the host, once its address is known.
    host: Arc<OnceCell<UdpSocket>>,
    /// When one of its datagrams was last sent on.
    last: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

/// Serves the clients of one relay for ever.
pub(super) async fn serve(socket: Arc<UdpSocket>, target: Target, shared: Shared) {
    let mut link = shared.link.clone();
    let mut address = *link.borrow_and_update();
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut complaint = Complaint::default();
    let mut octets = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            biased;
            Ok(()) = link.changed() => {
                let new = *link.borrow_and_update();
                if new.is_some() && new != address {
                    // The host knows the flows by an address that is no longer ours.
                    flows.clear();
                    tasks.abort_all();
                    address = new;
                }
            }
            Some(ended) = tasks.join_next() => {
                if let Ok((client, task)) = ended
                    && flows.get(&client).is_some_and(|flow| flow.task.id() == task)
                {
                    flows.remove(&client);
                }
            }
            received = socket.recv_from(&mut octets) => match received {
                Ok((length, client)) => {
                    let datagram = octets.get(..length).unwrap_or_default();
                    let flow = match flows.entry(client) {
                        Entry::Occupied(flow) => flow,
                        Entry::Vacant(place) => {
                            let ends = (Arc::clone(&socket), client);
                            let Some(flow) = begin(ends, datagram, &target, &shared, &mut tasks).await else { continue };
                            let flow = place.insert_entry(flow);
                            if matches!(target, Target::Outside(..)) {
                                continue;
                            }
                            flow
                        }
                    };
                    if let Err(error) = flow.get().send(datagram) {
                        tracing::debug!(%error, %target, "datagram cannot be sent; the flow ends");
                        shared.instruments.refused.inc();
                        flow.remove().task.abort();
                    }
                }
                Err(error) => {
                    complaint.log(&error, &target);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A flow for a client, if there is a place and a way to the host. One outside sends `datagram` itself.
async fn begin(
    (socket, client): (Arc<UdpSocket>, SocketAddr),
    datagram: &[u8],
    target: &Target,
    shared: &Shared,
    tasks: &mut JoinSet<(SocketAddr, tokio::task::Id)>,
) -> Option<Flow> {
    let counted = shared.admit()?;
    let host = Arc::new(OnceCell::new());
    let mut first = None;
    match target {
        Target::Inside(_) => {
            reach(&host, target, shared).await?;
        }
        // A name may take its time, in which the other flows must go on.
        Target::Outside(..) => first = Some(datagram.to_vec()),
    }
    let last = Arc::new(Mutex::new(Instant::now()));
    let flow = (Arc::clone(&host), Arc::clone(&last));
    let (target, shared) = (target.clone(), shared.clone());
    let task = tasks.spawn(async move {
        let _counted = counted;
        if let Some(host) = reach(&host, &target, &shared).await {
            if let Some(Err(error)) = first.map(|datagram| SockRef::from(host).send(&datagram)) {
                tracing::debug!(%error, %target, "the first datagram of a flow cannot be sent");
            }
            answer(&socket, client, host, &last).await;
        }
        (client, tokio::task::id())
    });
    Some(Flow { host: flow.0, last: flow.1, task })
}

/// The socket towards the host.
async fn reach<'a>(host: &'a OnceCell<UdpSocket>, target: &Target, shared: &Shared) -> Option<&'a UdpSocket> {
    match host.get_or_try_init(|| target.reach(open)).await {
        Ok(host) => Some(host),
        Err(error) => {
            tracing::debug!(%error, %target, "host cannot be reached");
            shared.instruments.refused.inc();
            None
        }
    }
}

impl Flow {
    /// Sends at once or not at all: a socket that is full must not hold up the other flows.
    fn send(&self, octets: &[u8]) -> io::Result<()> {
        let Some(host) = self.host.get() else { return Ok(()) };
        match SockRef::from(host).send(octets) {
            Ok(_) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

pub(super) async fn open(target: SocketAddr, outside: bool) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    if outside {
        routing::mark(&socket)?;
    }
    socket.connect(target).await?;
    Ok(socket)
}

/// Sends the host's answers back until neither end has sent anything for a while, or the host does not listen.
async fn answer(socket: &UdpSocket, client: SocketAddr, host: &UdpSocket, last: &Mutex<Instant>) {
    loop {
        match tokio::time::timeout(FLOW_IDLE, host.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) if last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= FLOW_IDLE => return,
            Err(_) => continue,
        }
        // Not kept from one datagram to the next: a thousand idle flows would hold 64 MiB.
        let mut octets = Vec::with_capacity(MAX_DATAGRAM);
        match host.try_recv_buf(&mut octets) {
            Ok(_) => {
                if let Err(error) = socket.send_to(&octets, client).await {
                    tracing::trace!(%error, "datagram cannot be sent back");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(%error, "the host does not take the datagrams; the flow ends");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::config::server::Import;
    use crate::io::namespace::{Packet, add_address, in_namespace};
    use crate::io::netlink::Netlink;
    use crate::io::relay::tests::{ADDRESS, PATIENCE, export, import, until};
    use crate::io::relay::{Relay, Relays};
    use crate::io::routing::Routing;
    use crate::io::tun::Device;
    use tokio::sync::watch;

    #[tokio::test]
    async fn answers_find_their_client() {
        let host = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Udp);
        assert!(!relays.apply(std::slice::from_ref(&export)).await);
        let mut octets = [0; 99];
        let mut clients = Vec::new();
        for name in [b"a", b"b"] {
            let client = open(export.listen, false).await.unwrap();
            client.send(name).await.unwrap();
            let (length, from) = host.recv_from(&mut octets).await.unwrap();
            assert_eq!(&octets[..length], name);
            clients.push((client, from, name));
        }
        for (client, from, name) in clients.iter().rev() {
            host.send_to(*name, from).await.unwrap();
            let length = client.recv(&mut octets).await.unwrap();
            assert_eq!(&octets[..length], *name);
        }
        assert_eq!(relays.instruments().connections.get(), 2);
    }

    #[tokio::test]
    async fn a_flow_ends_when_the_address_of_the_link_changes_and_the_next_datagram_begins_another() {
        let host = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (state, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let export = export(host.local_addr().unwrap(), Protocol::Udp);
        assert!(!relays.apply(std::slice::from_ref(&export)).await);
        let client = open(export.listen, false).await.unwrap();
        let mut flows = Vec::new();
        for address in [ADDRESS, None, ADDRESS, Some([10, 9, 0, 6].into())] {
            state.send_replace(address);
            if address.is_none() {
                continue;
            }
            client.send(b"x").await.unwrap();
            let (_, from) = host.recv_from(&mut [0; 9]).await.unwrap();
            host.send_to(b"y", from).await.unwrap();
            assert_eq!(client.recv(&mut [0; 9]).await.unwrap(), 1);
            flows.push(from);
        }
        assert_eq!(flows[0], flows[1]);
        assert_ne!(flows[1], flows[2]);
        until(|| relays.instruments().connections.get() == 1).await;
    }

    #[tokio::test]
    async fn a_flow_whose_datagrams_cannot_be_sent_gives_its_place_back() {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = free.local_addr().unwrap();
        drop(free);
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::with_places(link, 1);
        let export = export(target, Protocol::Udp);
        assert!(!relays.apply(std::slice::from_ref(&export)).await);
        let client = open(export.listen, false).await.unwrap();
        let refused = relays.instruments().refused.clone();
        // Nothing listens at the target: a send that comes after the host has said so fails, and ends the flow.
        let connections = relays.instruments().connections.clone();
        until_sent(&client, || refused.get() > 0 && connections.get() == 0).await;
        let host = UdpSocket::bind(target).await.unwrap();
        let mut octets = [0; 9];
        until_sent(&client, || host.try_recv_from(&mut octets).is_ok()).await;
    }

    #[tokio::test]
    async fn an_import_sends_each_datagram_once_and_what_the_host_answers_back() {
        let host = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_up, link) = watch::channel(ADDRESS);
        let mut relays = Relays::new(link);
        let import = import(host.local_addr().unwrap().port(), Protocol::Udp);
        assert!(!relays.apply(std::slice::from_ref(&import)).await);
        let client = open(import.listen, false).await.unwrap();
        let mut octets = [0; 9];
        for name in [b"a", b"b"] {
            client.send(name).await.unwrap();
            let (length, from) = host.recv_from(&mut octets).await.unwrap();
            assert_eq!(&octets[..length], name);
            host.send_to(name, from).await.unwrap();
            assert_eq!(client.recv(&mut octets).await.unwrap(), 1);
        }
        assert!(host.try_recv(&mut octets).is_err());
    }

    #[test]
    fn an_import_answers_its_client_through_the_device() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            add_address(&netlink, "lo", [192, 0, 2, 1].into()).await;
            let mut device = Device::open("towline7").unwrap();
            netlink.set_link("towline7", [10, 9, 0, 1].into(), 1400).await.unwrap();
            let link = Some(("towline7".to_owned(), [10, 9, 0, 1].into()));
            let routing = Routing { remote: vec!["10.9.0.0/24".parse().unwrap()], link, ..Routing::default() };
            netlink.apply(&routing).await.unwrap();
            let host = UdpSocket::bind("192.0.2.1:53").await.unwrap();
            let (_up, link) = watch::channel(ADDRESS);
            let mut relays = Relays::new(link);
            let dns = Import {
                name: "dns".to_owned(),
                listen: 53,
                host: "192.0.2.1".to_owned(),
                port: 53,
                protocol: Protocol::Udp,
            };
            assert!(!relays.apply(&[Relay::import(&dns, [10, 9, 0, 1].into())]).await);
            let question = Packet::new("10.9.0.5:1000", "10.9.0.1:53", 1);
            device.send(&question.octets()).unwrap();
            let (_, from) = host.recv_from(&mut [0; 9]).await.unwrap();
            host.send_to(&[2], from).await.unwrap();
            assert_eq!(Packet::next(&mut device).await, question.reply(2));
        });
    }

    /// Sends until `condition` holds.
    async fn until_sent(client: &UdpSocket, mut condition: impl FnMut() -> bool) {
        let wait = async {
            while !condition() {
                client.send(b"x").await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}
