//! UDP exports: a flow for each client, which ends when it is silent, when the host does not listen, or when the link has
//! another address.
//!
//! An answer leaves from the address that the system prefers towards the client. A pod has one; a host with several should
//! name one of them in the export's `listen`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

use super::{ACCEPT_PAUSE, Complaint, Counted, Shared};

/// How long a UDP client may be silent.
const FLOW_IDLE: Duration = Duration::from_secs(60);
/// The longest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A UDP client.
struct Flow {
    host: Arc<UdpSocket>,
    /// When one of its datagrams was last sent on.
    last: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

/// Serves the clients of one export for ever.
pub(super) async fn serve(socket: Arc<UdpSocket>, target: SocketAddr, shared: Shared) {
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
                    let flow = match flows.entry(client) {
                        Entry::Occupied(flow) => flow,
                        Entry::Vacant(place) => match begin(&socket, client, target, &shared, &mut tasks).await {
                            Some(flow) => place.insert_entry(flow),
                            None => continue,
                        },
                    };
                    if let Err(error) = flow.get().send(octets.get(..length).unwrap_or_default()) {
                        tracing::debug!(%error, %target, "datagram cannot be sent; the flow ends");
                        shared.instruments.refused.inc();
                        flow.remove().task.abort();
                    }
                }
                Err(error) => {
                    complaint.log(&error, target);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A flow for `client`, if there is a place and a way to the host.
async fn begin(
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    shared: &Shared,
    tasks: &mut JoinSet<(SocketAddr, tokio::task::Id)>,
) -> Option<Flow> {
    let counted = shared.admit()?;
    let host = match open(target).await {
        Ok(host) => Arc::new(host),
        Err(error) => {
            tracing::debug!(%error, %target, "host cannot be reached");
            shared.instruments.refused.inc();
            return None;
        }
    };
    let last = Arc::new(Mutex::new(Instant::now()));
    let task = tasks.spawn(answer(Arc::clone(socket), client, Arc::clone(&host), Arc::clone(&last), counted));
    Some(Flow { host, last, task })
}

impl Flow {
    /// Sends at once or not at all: a socket that is full must not hold up the other flows.
    fn send(&self, octets: &[u8]) -> io::Result<()> {
        match SockRef::from(&*self.host).send(octets) {
            Ok(_) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Sends the host's answers back until neither end has sent anything for a while, or the host does not listen.
async fn answer(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    host: Arc<UdpSocket>,
    last: Arc<Mutex<Instant>>,
    _counted: Counted,
) -> (SocketAddr, tokio::task::Id) {
    let ended = (client, tokio::task::id());
    loop {
        match tokio::time::timeout(FLOW_IDLE, host.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return ended,
            Err(_) if last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= FLOW_IDLE => return ended,
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
                return ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use crate::io::relay::Relays;
    use crate::io::relay::tests::{ADDRESS, export, until};
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
            let client = open(export.listen).await.unwrap();
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
        let client = open(export.listen).await.unwrap();
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
        let client = open(export.listen).await.unwrap();
        let refused = relays.instruments().refused.clone();
        // Nothing listens at the target: a send that comes after the host has said so fails, and ends the flow.
        until_sent(&client, || refused.get() > 0).await;
        let host = UdpSocket::bind(target).await.unwrap();
        let mut octets = [0; 9];
        until_sent(&client, || host.try_recv_from(&mut octets).is_ok()).await;
    }

    /// Sends until `condition` holds.
    async fn until_sent(client: &UdpSocket, mut condition: impl FnMut() -> bool) {
        while !condition() {
            client.send(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}
