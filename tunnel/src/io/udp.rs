//! The sockets of a path: one towards the peer's UDP port 500, one towards its UDP port 4500 (RFC 3947 section 4), and one
//! for ESP as an IP protocol (RFC 4303 section 2) where that may be agreed on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::Domain;

use super::endpoint::{self, Endpoint, ReceiveBuffer, Received, Sent};
use crate::buffer::{Carrier, Port, Run};
use crate::inet::{IKE_PORT, IPV4_HEADER, NAT_T_PORT};

/// The sockets of a path.
#[derive(Debug)]
pub struct Sockets {
    ike: Socket,
    nat_t: Socket,
    esp: Option<Socket>,
}

impl Sockets {
    //= rfc2408 2.5.1 "Implementations MUST include send and receive capability for ISAKMP using the User Datagram Protocol (UDP) on port 500."
    //= test: both_sockets_speak_to_the_well_known_ports_and_from_them_unless_fresh_ones_are_asked_for, an_answer_leaves_from_the_address_that_was_asked, a_port_that_is_taken_gives_way_to_another
    /// Opens those of UDP towards `remote`, from the well-known ports unless `fresh_ports` or somebody else has them.
    ///
    /// # Errors
    /// What the system says, such as that there is no route.
    pub fn open(remote: IpAddr, fresh_ports: bool) -> io::Result<Self> {
        let open = |port| Socket::open(SocketAddr::new(remote, port), (!fresh_ports).then_some(port));
        Ok(Self { ike: open(IKE_PORT)?, nat_t: open(NAT_T_PORT)?, esp: None })
    }

    /// Opens that of ESP as well.
    ///
    /// # Errors
    /// What the system says: `EPERM` without `CAP_NET_RAW`.
    pub fn open_esp(&mut self) -> io::Result<()> {
        self.esp = Some(Socket::open_esp(self.ike.remote.ip())?);
        Ok(())
    }

    /// The socket of `carrier`, if it is open.
    pub fn of(&self, carrier: Carrier) -> Option<&Socket> {
        match carrier {
            Carrier::Udp(port) => Some(self.get(port)),
            Carrier::Esp => self.esp.as_ref(),
        }
    }

    /// Waits until a socket may have a datagram.
    pub async fn readable(&self) -> Carrier {
        let esp = async {
            match &self.esp {
                Some(esp) => esp.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = esp => Carrier::Esp,
            () = self.nat_t.readable() => Carrier::Udp(Port::NatT),
            () = self.ike.readable() => Carrier::Udp(Port::Ike),
        }
    }

    /// The UDP socket of `port`.
    pub fn get(&self, port: Port) -> &Socket {
        match port {
            Port::Ike => &self.ike,
            Port::NatT => &self.nat_t,
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    endpoint: Endpoint,
    remote: SocketAddr,
    /// Whether what arrives begins with a header of IPv4.
    headed: bool,
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
        Ok(Self { endpoint: Endpoint::connected(socket)?, remote, headed: false })
    }

    /// Opens a socket for ESP towards `remote`, that takes nothing of others.
    fn open_esp(remote: IpAddr) -> io::Result<Self> {
        let remote = SocketAddr::new(remote, 0);
        let socket = endpoint::prepare_esp(Domain::for_address(remote))?;
        socket.connect(&remote.into())?;
        Ok(Self { endpoint: Endpoint::connected(socket)?, remote, headed: remote.is_ipv4() })
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
        let received = buffer.received(&arrival);
        Ok(if self.headed { without_header(received) } else { received })
    }

    /// Sends every datagram of `run`. What the socket does not take at once is dropped: the protocols above repeat what matters.
    pub fn send_run<S: Copy + Into<Carrier>>(&self, run: &Run<'_, S>) -> Sent {
        self.endpoint.send_run(run)
    }
}

/// A packet of IPv4 without its header (RFC 791 section 3.1); of what is none nothing is left.
fn without_header(Received { octets, segment }: Received<'_>) -> Received<'_> {
    let words = octets.first().map_or(0, |first| first & 0x0f);
    let header = usize::from(words).saturating_mul(4);
    let octets = octets.get_mut(header..).filter(|_| header >= IPV4_HEADER).unwrap_or_default();
    Received { segment: segment.saturating_sub(header).max(1), octets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{DatagramBatch, PacketBatch, Way};
    use crate::io::namespace::{add_address, in_namespace};
    use crate::io::netlink::Netlink;
    use crate::io::tun::Device;
    use netlink_packet_route::route::{RouteAttribute, RouteMetric};
    use rtnetlink::RouteMessageBuilder;
    use std::time::Duration;

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

    /// What of `addresses` comes to a socket for ESP at the first of them, towards the second: one packet of each, with its
    /// own number in it.
    async fn esp_from(addresses: [&str; 3]) -> Vec<u8> {
        let [here, there, other] = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        let bound = |from: IpAddr, to: IpAddr| {
            let socket = endpoint::prepare_esp(Domain::for_address(SocketAddr::new(to, 0))).unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            socket.connect(&SocketAddr::new(to, 0).into()).unwrap();
            Socket {
                endpoint: Endpoint::connected(socket).unwrap(),
                remote: SocketAddr::new(to, 0),
                headed: to.is_ipv4(),
            }
        };
        let receiver = bound(here, there);
        for (from, number) in [(other, 1), (there, 2)] {
            let run = Run {
                socket: Carrier::Esp,
                way: Way::from(SocketAddr::new(here, 0)),
                segment: 300,
                octets: &[number; 300],
            };
            assert_eq!(bound(from, here).send_run(&run).dropped, 0);
        }
        receiver.readable().await;
        let mut buffer = ReceiveBuffer::default();
        let mut heard = Vec::new();
        while let Ok(received) = receiver.receive(&mut buffer) {
            assert_eq!((received.octets.len(), received.segment), (300, 300));
            heard.extend(received.octets.first());
        }
        heard
    }

    #[test]
    fn esp_arrives_without_a_header_of_ip_and_from_the_peer_alone() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            for address in ["127.0.0.9", "fd00::1", "fd00::2", "fd00::3"] {
                add_address(&netlink, "lo", address.parse().unwrap()).await;
            }
            assert_eq!(esp_from(["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await, [2]);
            assert_eq!(esp_from(["fd00::1", "fd00::2", "fd00::3"]).await, [2]);
        });
    }

    #[test]
    fn every_datagram_of_a_run_of_esp_leaves_as_a_packet_of_its_own() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            add_address(&netlink, "lo", "127.0.0.9".parse().unwrap()).await;
            let socket = Socket::open_esp("127.0.0.1".parse().unwrap()).unwrap();
            let mut batch = DatagramBatch::new();
            for index in 0..5 {
                assert!(batch.push(Carrier::Esp, socket.remote(), &vec![index; if index == 4 { 7 } else { 1000 }]));
            }
            batch.runs().for_each(|run| assert_eq!(socket.send_run(&run).dropped, 0));
            socket.readable().await;
            let mut buffer = ReceiveBuffer::default();
            for index in 0..5 {
                let received = socket.receive(&mut buffer).unwrap();
                assert_eq!(*received.octets, vec![index; if index == 4 { 7 } else { 1000 }]);
            }
            assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn of_a_packet_whose_header_is_not_all_there_nothing_is_left() {
        let left = |mut octets: Vec<u8>| {
            let segment = octets.len().max(1);
            without_header(Received { octets: &mut octets, segment }).octets.len()
        };
        for (first, length, rest) in [
            (0x45, 20, 0),
            (0x45, 21, 1),
            (0x4f, 60, 0),
            (0x4f, 61, 1),
            (0x4f, 59, 0),
            (0x45, 19, 0),
            (0x44, 40, 0),
            (0x40, 40, 0),
            (0x45, 1, 0),
        ] {
            assert_eq!(left([vec![first], vec![0; length - 1]].concat()), rest, "{first:#x} {length}");
        }
        assert_eq!(left(Vec::new()), 0);
    }

    /// What a router says that cannot pass `packet` on: RFC 1191 section 4.
    fn fragmentation_needed(packet: &[u8], mtu: u16) -> Vec<u8> {
        let [high, low] = mtu.to_be_bytes();
        let mut icmp = [&[3, 4, 0, 0, 0, 0, high, low], &packet[..28]].concat();
        crate::inet::set_checksum(&mut icmp, 2);
        let mut ip = [&[0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 7], &packet[12..16]].concat();
        crate::inet::set_checksum(&mut ip, 10);
        [ip, icmp].concat()
    }

    #[test]
    fn a_router_that_cannot_pass_on_a_packet_is_heard_by_either_kind_of_socket() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let mut outside = Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1500).await.unwrap();
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix([198, 51, 100, 0].into(), 24);
            let route = route.output_interface(netlink.index("outside0").await.unwrap()).build();
            netlink.handle.route().add(route).execute().await.unwrap();
            let udp = Socket::open("198.51.100.1:4500".parse().unwrap(), None).unwrap();
            let esp = Socket::open_esp([198, 51, 100, 2].into()).unwrap();
            let udp = (udp, Carrier::Udp(Port::NatT));
            for ((socket, carrier), mtu, protocol) in [(udp, 1_200, 17), ((esp, Carrier::Esp), 1_300, 50)] {
                assert_eq!(socket.path_mtu(), 1_500);
                let run = Run { socket: carrier, way: Way::from(socket.remote()), segment: 1_400, octets: &[7; 1_400] };
                assert_eq!(socket.send_run(&run).dropped, 0);
                let mut packets = PacketBatch::new();
                while !packets.iter().any(|packet| packet[0] == 0x45 && packet[9] == protocol) {
                    outside.readable().await;
                    outside.receive(&mut packets).unwrap();
                }
                let packet = packets.iter().find(|packet| packet[0] == 0x45 && packet[9] == protocol).unwrap();
                assert_eq!(packet[6] & 0x40, 0x40, "may be fragmented");
                outside.send(&fragmentation_needed(packet, mtu)).unwrap();
                let heard = async {
                    while socket.path_mtu() != mtu {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
                // What is too long for it is refused from then on, which is how the owner hears of it.
                let error = socket.send_run(&run).error.and_then(|error| error.raw_os_error());
                assert_eq!(error, Some(libc::EMSGSIZE));
            }
        });
    }

    #[test]
    fn what_the_path_does_not_take_is_refused_and_only_isakmp_is_fragmented() {
        /// What fits behind the header of IP, and behind that of UDP as well.
        const LONGEST: [(Carrier, usize); 2] = [(Carrier::Esp, 1300 - 20), (Carrier::Udp(Port::NatT), 1300 - 20 - 8)];
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let mut outside = Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1500).await.unwrap();
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix([198, 51, 100, 0].into(), 24);
            let mut route = route.output_interface(netlink.index("outside0").await.unwrap()).build();
            route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1300)]));
            netlink.handle.route().add(route).execute().await.unwrap();

            let esp = Socket::open_esp([198, 51, 100, 1].into()).unwrap();
            let udp = Socket::open("198.51.100.1:4500".parse().unwrap(), None).unwrap();
            for (socket, (carrier, longest)) in [&esp, &udp].into_iter().zip(LONGEST) {
                assert_eq!(socket.path_mtu(), 1300);
                for (segment, count, refused) in [(longest, 1, 0), (longest, 3, 0), (longest + 1, 1, 1), (1400, 3, 3)] {
                    let octets = vec![1; segment * count];
                    let mut run = Run { socket: carrier, way: Way::from(socket.remote()), segment, octets: &octets };
                    let sent = socket.send_run(&run);
                    assert_eq!(sent.dropped, refused);
                    let error = sent.error.and_then(|error| error.raw_os_error());
                    assert_eq!(error, (refused > 0).then_some(libc::EMSGSIZE));
                    if carrier == Carrier::Esp {
                        continue;
                    }
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
            }
            assert_eq!([esp, udp].map(|socket| socket.endpoint.is_segmenting()), [false, true]);
        });
    }

    #[test]
    fn both_sockets_speak_to_the_well_known_ports_and_from_them_unless_fresh_ones_are_asked_for() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            add_address(&netlink, "lo", "127.0.0.9".parse().unwrap()).await;
            for fresh in [false, true] {
                let sockets = Sockets::open([127, 0, 0, 1].into(), fresh).unwrap();
                for (port, number) in [(Port::Ike, 500), (Port::NatT, 4500)] {
                    let socket = sockets.get(port);
                    assert_eq!((socket.remote().port(), socket.local().port() == number), (number, !fresh));
                }
            }
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
