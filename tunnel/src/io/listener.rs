//! The two UDP sockets of a server: one for ISAKMP, one for UDP-encapsulated ESP and the ISAKMP behind it (RFC 3947 section 4).
//!
//! They hear everybody. An answer leaves from the address that was asked, whatever else the host has: a client behind a NAT
//! takes it from no other. What the network says about one peer is no news about another, so that only a send tells errors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket as RawSocket};

use super::endpoint::{self, Arrival, Endpoint, ReceiveBuffer, Sent};
use crate::buffer::{Port, Run, Way};
use crate::config::server::Listen;

/// Reads of the socket for ESP in one turn of the loop; each may bring as many datagrams as the kernel has put together.
const NAT_T_READS: u32 = 32;
/// Messages of the socket for ISAKMP in one turn of the loop: strangers' first messages must not keep others' packets waiting.
const IKE_READS: u32 = 8;

/// Both sockets.
#[derive(Debug)]
pub struct Listener {
    ike: Endpoint,
    nat_t: Endpoint,
}

/// What one turn of the loop may still read.
#[derive(Debug)]
pub struct Turn {
    nat_t: u32,
    ike: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self { nat_t: NAT_T_READS, ike: IKE_READS }
    }
}

/// Datagrams of one peer.
#[derive(Debug)]
pub struct Received<'a> {
    /// The socket that heard them.
    pub port: Port,
    /// The address and port that the peer spoke to.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// The datagrams.
    pub datagrams: endpoint::Received<'a>,
}

impl Received<'_> {
    /// The way of an answer.
    pub fn way_back(&self) -> Way {
        Way { local: Some(self.local.ip()), remote: self.remote }
    }
}

impl Listener {
    /// Opens both sockets. One at `[::]` hears IPv4 as well, and nothing else on a host without IPv6.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn open(listen: &Listen) -> io::Result<Self> {
        // Nobody sends ISAKMP so fast that it is worth putting together, and a turn counts its messages.
        let ike = open(listen.ike, "listen.ike")?;
        let nat_t = open(listen.nat_t, "listen.natT")?;
        endpoint::coalesce(&nat_t);
        Ok(Self { ike: Endpoint::bound(ike)?, nat_t: Endpoint::bound(nat_t)? })
    }

    fn get(&self, port: Port) -> &Endpoint {
        match port {
            Port::Ike => &self.ike,
            Port::NatT => &self.nat_t,
        }
    }

    /// Where the socket of `port` listens.
    pub fn local(&self, port: Port) -> SocketAddr {
        self.get(port).local()
    }

    /// Waits until there may be a datagram at either socket.
    pub async fn readable(&self) {
        tokio::select! {
            () = self.nat_t.readable() => {}
            () = self.ike.readable() => {}
        }
    }

    /// The next datagrams of one turn of the loop: what the socket for ESP holds goes first, and each socket has a bound.
    pub fn receive<'a>(&self, turn: &mut Turn, buffer: &'a mut ReceiveBuffer) -> Option<Received<'a>> {
        let (port, local, remote, arrival) = self.next(turn, buffer)?;
        let local = SocketAddr::new(local, self.local(port).port());
        Some(Received { port, local, remote, datagrams: buffer.received(&arrival) })
    }

    fn next(&self, turn: &mut Turn, buffer: &mut ReceiveBuffer) -> Option<(Port, IpAddr, SocketAddr, Arrival)> {
        for (port, left) in [(Port::NatT, &mut turn.nat_t), (Port::Ike, &mut turn.ike)] {
            while let Some(less) = left.checked_sub(1) {
                match self.get(port).receive(buffer) {
                    Ok(arrival) => {
                        *left = less;
                        if let (Some(local), Some(remote)) = (arrival.local, arrival.remote) {
                            return Some((port, local, remote, arrival));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => *left = 0,
                    Err(error) => {
                        *left = less;
                        tracing::debug!(%error, ?port, "a datagram cannot be received");
                    }
                }
            }
        }
        None
    }

    /// Sends every datagram of `run` from the address that it names. What the socket does not take at once is dropped.
    pub fn send_run(&self, run: &Run<'_>) -> Sent {
        self.get(run.socket).send_run(run)
    }

    /// The longest IP packet that goes this way, as far as the kernel knows: by the route, and by what routers have told. To be
    /// asked at the start of a peer, and when a send to it fails with `EMSGSIZE`.
    ///
    /// # Errors
    /// When there is no way.
    pub fn path_mtu(&self, way: Way) -> io::Result<u16> {
        // The kernel tells it of a connected socket only.
        let socket = endpoint::prepare(Domain::for_address(way.remote))?;
        if let Some(local) = way.local {
            socket.bind(&SocketAddr::new(local, 0).into())?;
        }
        socket.connect(&way.remote.into())?;
        Ok(Endpoint::connected(socket)?.path_mtu(way.remote))
    }
}

/// Opens a socket at `address`, which the configuration calls `setting`.
fn open(address: SocketAddr, setting: &str) -> io::Result<RawSocket> {
    let opened = match (bind(address), without_ipv6(address)) {
        (Err(error), Some(ipv4)) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => bind(ipv4),
        (opened, _) => opened,
    };
    opened.map_err(|error| {
        let remedy = remedy(&error, setting);
        io::Error::new(error.kind(), format!("Cannot listen at UDP {address}: {error}{remedy}."))
    })
}

fn bind(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = endpoint::prepare(Domain::for_address(address))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What is left of `address` on a host without IPv6.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let all = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    all.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

fn remedy(error: &io::Error, setting: &str) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!(
            "; another process listens there, such as the IKE daemon of this host (charon, pluto, racoon): end it, give this              one a network namespace of its own (a pod without hostNetwork), or set {setting}"
        ),
        Some(libc::EACCES) => format!(
            "; ports below 1024 need CAP_NET_BIND_SERVICE or the sysctl net.ipv4.ip_unprivileged_port_start=0, or set {setting}"
        ),
        Some(libc::EPERM) => {
            "; run it as root or with CAP_NET_ADMIN, and give a container the capability NET_ADMIN".to_owned()
        }
        Some(libc::EADDRNOTAVAIL) => format!("; this host does not have the address: correct {setting}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::DatagramBatch;
    use crate::io::namespace::{add_address, in_namespace};
    use crate::io::netlink::Netlink;
    use crate::io::tun::Device;
    use crate::io::udp::Socket;
    use netlink_packet_route::route::{RouteAttribute, RouteMetric};
    use rtnetlink::RouteMessageBuilder;

    /// A host with the addresses 192.0.2.1, 192.0.2.2, 2001:db8::1 and 2001:db8::2.
    async fn host() -> Netlink {
        let netlink = Netlink::open().unwrap();
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            add_address(&netlink, "lo", address.parse().unwrap()).await;
        }
        netlink
    }

    fn listen(address: &str) -> Listen {
        let address = address.parse().unwrap();
        Listen { ike: SocketAddr::new(address, 500), nat_t: SocketAddr::new(address, 4500) }
    }

    fn client(from: &str, to: &str) -> std::net::UdpSocket {
        let client = std::net::UdpSocket::bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        client.connect(to).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Waits for datagrams at the socket of `port`.
    /// How long a datagram may take on a busy machine.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

    async fn hear<T>(listener: &Listener, port: Port, then: impl FnOnce(Received<'_>) -> T) -> T {
        let mut buffer = ReceiveBuffer::default();
        let heard = async {
            loop {
                listener.get(port).readable().await;
                if let Some(received) = listener.receive(&mut Turn::default(), &mut buffer) {
                    return then(received);
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the datagram arrives")
    }

    /// All that is there for one turn: the socket and the octets of each datagram.
    fn turn(listener: &Listener) -> Vec<(Port, Vec<u8>)> {
        let (mut turn, mut buffer) = (Turn::default(), ReceiveBuffer::default());
        let mut all = Vec::new();
        while let Some(received) = listener.receive(&mut turn, &mut buffer) {
            let port = received.port;
            all.extend(received.datagrams.batches().flatten().map(|datagram| (port, datagram.to_vec())));
        }
        all
    }

    fn send(listener: &Listener, port: Port, way: Way, datagrams: &[Vec<u8>]) -> Vec<Sent> {
        let mut batch = DatagramBatch::new();
        datagrams.iter().for_each(|datagram| assert!(batch.push(port, way, datagram)));
        batch.runs().map(|run| listener.send_run(&run)).collect()
    }

    #[test]
    fn an_answer_leaves_from_the_address_that_was_asked() {
        in_namespace(async || {
            let _host = host().await;
            for (listening, families) in [("::", 2), ("0.0.0.0", 1)] {
                let listener = Listener::open(&listen(listening)).unwrap();
                let asked = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"];
                for (address, port) in
                    asked.into_iter().take(2 * families).flat_map(|a| [(a, Port::Ike), (a, Port::NatT)])
                {
                    let address: IpAddr = address.parse().unwrap();
                    let to = SocketAddr::new(address, listener.local(port).port());
                    let client = client(if to.is_ipv4() { "127.0.0.1" } else { "::1" }, &to.to_string());
                    client.send(b"question").unwrap();
                    let way = hear(&listener, port, |received| {
                        assert_eq!((received.port, received.local), (port, to));
                        assert_eq!(received.remote, client.local_addr().unwrap());
                        assert_eq!(received.datagrams.octets, b"question");
                        received.way_back()
                    });
                    let way = way.await;
                    // A connected socket takes an answer from the other end only.
                    let sent = send(&listener, port, way, &[vec![1; 500], vec![2; 500], vec![3; 9]]);
                    assert!(sent.iter().all(|sent| sent.dropped == 0), "{sent:?}");
                    for length in [500, 500, 9] {
                        assert_eq!(client.recv(&mut [0; 600]).unwrap(), length);
                    }
                }
            }
        });
    }

    #[test]
    fn datagrams_of_one_peer_leave_and_arrive_together() {
        in_namespace(async || {
            let _host = host().await;
            let listener = Listener::open(&listen("::")).unwrap();
            let client = Socket::open("192.0.2.1:4500".parse().unwrap(), None).unwrap();
            let datagrams: Vec<Vec<u8>> =
                (0..40).map(|index| vec![index; if index == 39 { 7 } else { 1000 }]).collect();
            let mut batch = DatagramBatch::new();
            datagrams.iter().for_each(|datagram| assert!(batch.push(Port::NatT, client.remote(), datagram)));
            batch.runs().for_each(|run| assert_eq!(client.send_run(&run).dropped, 0));
            let way = hear(&listener, Port::NatT, |received| {
                assert_eq!((received.datagrams.segment, received.datagrams.octets.len()), (1000, 39_007));
                received.way_back()
            });
            let way = way.await;
            assert_eq!(way.remote.port(), client.local().port());
            send(&listener, Port::NatT, way, &datagrams);
            client.readable().await;
            assert_eq!(client.receive(&mut ReceiveBuffer::default()).unwrap().octets.len(), 39_007);
            assert!(listener.nat_t.is_segmenting());
        });
    }

    #[test]
    fn esp_goes_before_the_messages_of_strangers_and_those_are_few_in_a_turn() {
        in_namespace(async || {
            let _host = host().await;
            let listener = Listener::open(&listen("::")).unwrap();
            let stranger = client("127.0.0.1", "192.0.2.1:500");
            let most = IKE_READS as usize;
            (0..most + 2).for_each(|_| assert_eq!(stranger.send(b"first message").unwrap(), 13));
            let peer = client("127.0.0.1", "192.0.2.1:4500");
            peer.send(b"packet").unwrap();
            listener.ike.readable().await;
            listener.nat_t.readable().await;
            let first = turn(&listener);
            assert_eq!(
                first.first().map(|(port, datagram)| (*port, datagram.as_slice())),
                Some((Port::NatT, &b"packet"[..]))
            );
            assert_eq!(first.len(), 1 + most);
            assert_eq!(turn(&listener).len(), 2);
        });
    }

    #[test]
    fn a_peer_that_is_gone_does_not_disturb_the_others() {
        in_namespace(async || {
            let _host = host().await;
            let listener = Listener::open(&listen("::")).unwrap();
            let gone = client("127.0.0.1", "192.0.2.1:4500");
            let way = Way { local: Some([192, 0, 2, 1].into()), remote: gone.local_addr().unwrap() };
            drop(gone);
            // Each is answered with "port unreachable".
            for _ in 0..3 {
                assert!(send(&listener, Port::NatT, way, &[vec![0; 9]]).iter().all(|sent| sent.error.is_none()));
            }
            let peer = client("127.0.0.1", "192.0.2.1:4500");
            peer.send(b"packet").unwrap();
            listener.readable().await;
            assert_eq!(turn(&listener), [(Port::NatT, b"packet".to_vec())]);
        });
    }

    #[test]
    fn a_way_that_is_not_there_costs_nobody_the_segmentation() {
        in_namespace(async || {
            let _host = host().await;
            let listener = Listener::open(&listen("::")).unwrap();
            let peer = client("127.0.0.1", "192.0.2.1:4500");
            let way = Way { local: Some([203, 0, 113, 1].into()), remote: peer.local_addr().unwrap() };
            let sent = send(&listener, Port::NatT, way, &[vec![0; 9], vec![0; 9]]);
            assert_eq!(sent.iter().map(|sent| sent.dropped).sum::<u64>(), 2);
            assert!(listener.nat_t.is_segmenting());
        });
    }

    #[test]
    fn what_one_path_does_not_take_is_refused_and_the_path_tells_what_it_takes() {
        in_namespace(async || {
            let netlink = host().await;
            let _outside = Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1500).await.unwrap();
            for (network, mtu) in [([198, 51, 100, 0], 1300), ([203, 0, 113, 0], 1500)] {
                let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network.into(), 24);
                let mut route = route.output_interface(netlink.index("outside0").await.unwrap()).build();
                route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
                netlink.handle.route().add(route).execute().await.unwrap();
            }
            let listener = Listener::open(&listen("::")).unwrap();
            for (network, mtu) in [([198, 51, 100, 1], 1300), ([203, 0, 113, 1], 1500)] {
                for local in [None, Some([192, 0, 2, 1].into())] {
                    let way = Way { local, remote: (network, 4500).into() };
                    assert_eq!(listener.path_mtu(way).unwrap(), mtu);
                    let fits = usize::from(mtu) - 28;
                    for (length, count, refused) in [(fits, 1, 0), (fits, 3, 0), (fits + 1, 1, 1), (fits + 1, 3, 3)] {
                        let sent = send(&listener, Port::NatT, way, &vec![vec![1; length]; count]);
                        let [sent] = sent.as_slice() else { panic!("{sent:?}") };
                        assert_eq!(sent.dropped, refused);
                        let error = sent.error.as_ref().and_then(io::Error::raw_os_error);
                        assert_eq!(error, (refused > 0).then_some(libc::EMSGSIZE));
                    }
                }
            }
            assert!(listener.path_mtu(Way::from(SocketAddr::from(([10, 0, 0, 1], 4500)))).is_err());
        });
    }

    #[test]
    fn a_socket_that_cannot_be_opened_names_its_port_and_the_remedy() {
        in_namespace(async || {
            let _host = host().await;
            let _taken = std::net::UdpSocket::bind("0.0.0.0:4500").unwrap();
            let cases = [("::", "charon"), ("0.0.0.0", "listen.natT"), ("198.51.100.77", "does not have the address")];
            for (listening, word) in cases {
                let error = Listener::open(&listen(listening)).unwrap_err().to_string();
                assert!(error.contains("00") && error.contains(word), "{error}");
            }
        });
        for (number, word) in [(libc::EACCES, "CAP_NET_BIND_SERVICE"), (libc::EPERM, "CAP_NET_ADMIN")] {
            assert!(remedy(&io::Error::from_raw_os_error(number), "listen.ike").contains(word));
        }
    }

    #[test]
    fn only_what_listens_everywhere_does_without_ipv6() {
        assert_eq!(without_ipv6("[::]:500".parse().unwrap()), Some("0.0.0.0:500".parse().unwrap()));
        for address in ["[2001:db8::1]:500", "0.0.0.0:500"] {
            assert_eq!(without_ipv6(address.parse().unwrap()), None);
        }
    }
}
