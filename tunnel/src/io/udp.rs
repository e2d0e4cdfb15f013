//! The two UDP sockets of a path: one towards the peer's port 500, one towards its port 4500 (RFC 3947 section 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::Domain;

use super::endpoint::{self, Endpoint, ReceiveBuffer, Received, Sent};
use crate::buffer::{Port, Run};
use crate::inet::{IKE_PORT, NAT_T_PORT};

/// Both sockets of a path.
#[derive(Debug)]
pub struct Sockets {
    ike: Socket,
    nat_t: Socket,
}

impl Sockets {
    /// Opens both towards `remote`, from the well-known ports unless `fresh_ports` or somebody else has them.
    ///
    /// # Errors
    /// What the system says, such as that there is no route.
    pub fn open(remote: IpAddr, fresh_ports: bool) -> io::Result<Self> {
        let open = |port| Socket::open(SocketAddr::new(remote, port), (!fresh_ports).then_some(port));
        Ok(Self { ike: open(IKE_PORT)?, nat_t: open(NAT_T_PORT)? })
    }

    /// The socket of `port`.
    pub fn get(&self, port: Port) -> &Socket {
        match port {
            Port::Ike => &self.ike,
            Port::NatT => &self.nat_t,
        }
    }
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct Socket {
    endpoint: Endpoint,
    remote: SocketAddr,
}

impl Socket {
    /// Opens a socket towards `remote`, from `local_port` if nobody has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(remote: SocketAddr, local_port: Option<u16>) -> io::Result<Self> {
        let socket = endpoint::prepare(Domain::for_address(remote))?;
        endpoint::coalesce(&socket);
        let any = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        if let Some(port) = local_port
            && let Err(error) = socket.bind(&SocketAddr::new(any, port).into())
        {
            tracing::debug!(%error, port, "source port is not to be had; any will do");
        }
        socket.connect(&remote.into())?;
        Ok(Self { endpoint: Endpoint::connected(socket)?, remote })
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.endpoint.local()
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The longest IP packet that reaches the peer, as far as the kernel knows: by the route, and by what routers have told.
    pub fn path_mtu(&self) -> u16 {
        self.endpoint.path_mtu(self.remote)
    }

    /// Waits until there may be a datagram.
    pub async fn readable(&self) {
        self.endpoint.readable().await;
    }

    /// Receives what is there: one datagram, or several of one size (the last may be shorter) back to back.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else an error that the network told about this path.
    pub fn receive<'a>(&self, buffer: &'a mut ReceiveBuffer) -> io::Result<Received<'a>> {
        let arrival = self.endpoint.receive(buffer)?;
        Ok(buffer.received(&arrival))
    }

    /// Sends every datagram of `run`. What the socket does not take at once is dropped: the protocols above repeat what matters.
    pub fn send_run(&self, run: &Run<'_>) -> Sent {
        self.endpoint.send_run(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{DatagramBatch, PacketBatch, Way};
    use crate::io::namespace::in_namespace;
    use crate::io::netlink::Netlink;
    use crate::io::tun::Device;
    use netlink_packet_route::route::{RouteAttribute, RouteMetric};
    use rtnetlink::RouteMessageBuilder;

    fn all(socket: &Socket, buffer: &mut ReceiveBuffer, count: usize) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while datagrams.len() < count {
            let received = socket.receive(buffer).unwrap();
            datagrams.extend(received.octets.chunks(received.segment).map(<[u8]>::to_vec));
        }
        datagrams
    }

    #[tokio::test]
    async fn a_run_arrives_datagram_by_datagram() {
        let there = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = Socket::open(there.local_addr().unwrap(), None).unwrap();
        there.connect(here.local()).unwrap();
        let mut batch = DatagramBatch::new();
        let sizes = [1400, 1400, 1400, 20, 1400];
        for (index, size) in sizes.into_iter().enumerate() {
            assert!(batch.push(Port::NatT, here.remote(), &vec![index as u8; size]));
        }
        for segmentation in [true, false] {
            here.endpoint.segment(segmentation);
            for run in batch.runs() {
                let sent = here.send_run(&run);
                assert_eq!((sent.dropped, sent.error.map(|error| error.to_string())), (0, None));
            }
            let mut octets = [0; 2000];
            for (index, size) in sizes.into_iter().enumerate() {
                assert_eq!(there.recv(&mut octets).unwrap(), size);
                assert_eq!(octets[0], index as u8);
            }
        }
        assert!(there.set_nonblocking(true).is_ok() && there.recv(&mut [0; 9]).is_err());
    }

    #[tokio::test]
    async fn coalesced_datagrams_come_apart_again() {
        let (a, b) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        let free = std::net::UdpSocket::bind(b).unwrap().local_addr().unwrap();
        let receiver = Socket::open(a.local_addr().unwrap(), Some(free.port())).unwrap();
        assert_eq!(receiver.local().port(), free.port());
        drop(a);
        let sender = Socket::open(receiver.local(), Some(receiver.remote().port())).unwrap();
        let mut batch = DatagramBatch::new();
        for index in 0..40 {
            assert!(batch.push(Port::NatT, sender.remote(), &vec![index; if index == 39 { 7 } else { 1000 }]));
        }
        batch.runs().for_each(|run| assert_eq!(sender.send_run(&run).dropped, 0));
        receiver.readable().await;
        let datagrams = all(&receiver, &mut ReceiveBuffer::default(), 40);
        assert!(datagrams.iter().enumerate().all(|(index, datagram)| datagram[0] == index as u8));
        assert_eq!(datagrams.iter().map(Vec::len).sum::<usize>(), 39_007);
    }

    #[test]
    fn what_the_path_does_not_take_is_refused_and_only_isakmp_is_fragmented() {
        /// What fits behind the headers of IP and UDP.
        const LONGEST: usize = 1300 - 20 - 8;
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let mut outside = Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1500).await.unwrap();
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix([198, 51, 100, 0].into(), 24);
            let mut route = route.output_interface(netlink.index("outside0").await.unwrap()).build();
            route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1300)]));
            netlink.handle.route().add(route).execute().await.unwrap();

            let socket = Socket::open("198.51.100.1:4500".parse().unwrap(), None).unwrap();
            assert_eq!(socket.path_mtu(), 1300);
            for (segment, count, refused) in [(LONGEST, 1, 0), (LONGEST, 3, 0), (LONGEST + 1, 1, 1), (1400, 3, 3)] {
                let esp = vec![1; segment * count];
                let mut run = Run { port: Port::NatT, way: Way::from(socket.remote()), segment, octets: &esp };
                let sent = socket.send_run(&run);
                assert_eq!(sent.dropped, refused);
                assert_eq!(sent.error.and_then(|error| error.raw_os_error()), (refused > 0).then_some(libc::EMSGSIZE));
                let isakmp = vec![0; segment * count];
                run.octets = &isakmp;
                assert_eq!(socket.send_run(&run).dropped, 0);
                // All of those that were not whole are fragments of ISAKMP messages, two of each.
                let mut packets = PacketBatch::default();
                outside.readable().await;
                outside.receive(&mut packets).unwrap();
                let is_fragment = |packet: &&[u8]| packet[0] >> 4 == 4 && (packet[6] & 0x3f != 0 || packet[7] != 0);
                let fragments = packets.iter().filter(is_fragment);
                assert_eq!(fragments.count() as u64, 2 * refused);
            }
            assert!(socket.endpoint.is_segmenting());
        });
    }

    #[tokio::test]
    async fn a_port_that_is_taken_gives_way_to_another() {
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let socket = Socket::open("127.0.0.1:4500".parse().unwrap(), Some(port)).unwrap();
        assert_ne!(socket.local().port(), port);
    }
}
