//! The two UDP sockets of a path: one towards the peer's port 500, one towards its port 4500 (RFC 3947 section 4).
//!
//! Datagrams of equal size leave with generic segmentation offload (`UDP_SEGMENT`) and arrive with generic receive offload
//! (`UDP_GRO`) where the kernel has them; without, each is a send of its own. None is ever fragmented: one that is longer than
//! the path takes is refused with `EMSGSIZE`, and [`Socket::path_mtu`] tells what fits.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::slice::ChunksMut;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, SockRef, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::routing;
use crate::buffer::{BATCH_PACKETS, MAX_PACKET, Port, Run};
use crate::inet::{IKE_PORT, NAT_T_PORT};

/// The receive buffer that is asked for: some 30 ms of 1 Gbit/s.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What is assumed of a path that the kernel knows nothing about.
const USUAL_MTU: u16 = 1_500;
/// The most octets of one segmented send: the longest UDP payload over IPv4.
const MAX_SEGMENTED: usize = 65_507;
/// The most segments of one send (`UDP_MAX_SEGMENTS` of older kernels).
const MAX_SEGMENTS: usize = 64;

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

/// What became of a run of datagrams.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that could not be sent.
    pub dropped: u64,
    /// Why the last of them could not.
    pub error: Option<io::Error>,
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    local: SocketAddr,
    remote: SocketAddr,
    segmentation: Cell<bool>,
}

impl Socket {
    /// Opens a socket towards `remote`, from `local_port` if nobody has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(remote: SocketAddr, local_port: Option<u16>) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(remote), Type::DGRAM.nonblocking().cloexec(), None)?;
        // The plain option is capped by net.core.rmem_max; the forced one needs NET_ADMIN. Neither is vital.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err()
            && let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER)
        {
            tracing::debug!(%error, "receive buffer stays as it is");
        }
        if let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
            tracing::debug!(%error, "no generic receive offload");
        }
        routing::mark(&socket)?;
        let any = match remote {
            SocketAddr::V4(_) => {
                setsockopt(&socket, options::Ipv4MtuDiscover, &libc::IP_PMTUDISC_DO)?;
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            }
            SocketAddr::V6(_) => {
                setsockopt(&socket, options::Ipv6MtuDiscover, &libc::IPV6_PMTUDISC_DO)?;
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
        };
        if let Some(port) = local_port
            && let Err(error) = socket.bind(&SocketAddr::new(any, port).into())
        {
            tracing::debug!(%error, port, "source port is not to be had; any will do");
        }
        socket.connect(&remote.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, remote, segmentation: Cell::new(true) })
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The longest IP packet that reaches the peer, as far as the kernel knows: by the route, and by what routers have told.
    pub fn path_mtu(&self) -> u16 {
        let mtu = match self.remote {
            SocketAddr::V4(_) => getsockopt(&self.socket, sockopt::IpMtu),
            SocketAddr::V6(_) => getsockopt(&self.socket, options::Ipv6Mtu),
        };
        mtu.map_or(USUAL_MTU, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Waits until there may be a datagram.
    pub async fn readable(&self) {
        if let Err(error) = self.socket.readable().await {
            tracing::warn!(%error, "socket cannot be polled");
            std::future::pending::<()>().await;
        }
    }

    /// Receives what is there: one datagram, or several of one size (the last may be shorter) back to back.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else an error that the network told about this path.
    pub fn receive<'a>(&self, buffer: &'a mut ReceiveBuffer) -> io::Result<Received<'a>> {
        let ReceiveBuffer { octets, control } = buffer;
        if octets.is_empty() {
            octets.resize(MAX_PACKET, 0);
            *control = nix::cmsg_space!(libc::c_int);
        }
        let (length, segment) = self.socket.try_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(octets)];
            let message =
                recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(control.as_mut_slice()), MsgFlags::empty())?;
            let segment = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::UdpGroSegments(segment) => usize::try_from(segment).ok(),
                _ => None,
            });
            Ok((message.bytes, segment))
        })?;
        let octets = octets.get_mut(..length).unwrap_or_default();
        Ok(Received { octets, segment: segment.filter(|&segment| segment > 0).unwrap_or_else(|| length.max(1)) })
    }

    /// Sends every datagram of `run`. What the socket does not take at once is dropped: the protocols above repeat what matters.
    pub fn send_run(&self, run: &Run<'_>) -> Sent {
        let mut sent = Sent::default();
        if run.segment == 0 {
            return sent;
        }
        let most = (MAX_SEGMENTED / run.segment).clamp(1, MAX_SEGMENTS);
        for octets in run.octets.chunks(run.segment.saturating_mul(most)) {
            if octets.len() > run.segment && self.segmentation.get() {
                match self.send_segmented(octets, run.segment) {
                    Ok(()) => continue,
                    // The socket is full: to try each datagram alone would only cost time.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        sent.dropped = sent.dropped.saturating_add(octets.chunks(run.segment).len() as u64);
                        sent.error = Some(error);
                        continue;
                    }
                    // An older kernel, or an interface without checksum offload. A datagram longer than the path's MTU ends
                    // here as well (EMSGSIZE): that may pass.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)) => {
                        tracing::debug!(%error, "no generic segmentation offload");
                        self.segmentation.set(false);
                    }
                    Err(_) => {}
                }
            }
            for datagram in octets.chunks(run.segment) {
                if let Err(error) = SockRef::from(&self.socket).send(datagram) {
                    sent.dropped = sent.dropped.saturating_add(1);
                    sent.error = Some(error);
                }
            }
        }
        sent
    }

    fn send_segmented(&self, octets: &[u8], segment: usize) -> io::Result<()> {
        let segment = u16::try_from(segment).map_err(io::Error::other)?;
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(octets)], &control, MsgFlags::empty(), None)?;
        Ok(())
    }
}

/// Options of IP sockets that nix has no names for.
mod options {
    use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Whether datagrams may be fragmented.
        Ipv4MtuDiscover,
        SetOnly,
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::c_int
    );
    sockopt_impl!(
        /// Whether datagrams may be fragmented.
        Ipv6MtuDiscover,
        SetOnly,
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU_DISCOVER,
        libc::c_int
    );
    sockopt_impl!(
        /// The path MTU of a connected socket.
        Ipv6Mtu,
        GetOnly,
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU,
        libc::c_int
    );
}

/// Datagrams of one read.
#[derive(Debug)]
pub struct Received<'a> {
    /// All of them.
    pub octets: &'a mut [u8],
    /// The length of each but the last.
    pub segment: usize,
}

impl<'a> Received<'a> {
    /// The datagrams in batches that a [`crate::buffer::PacketBatch`] has room for.
    pub fn batches(self) -> impl Iterator<Item = ChunksMut<'a, u8>> {
        let segment = self.segment.max(1);
        let batches = self.octets.chunks_mut(segment.saturating_mul(BATCH_PACKETS));
        batches.map(move |batch| batch.chunks_mut(segment))
    }
}

/// The memory of one read, used again and again; none until the first.
#[derive(Debug, Default)]
pub struct ReceiveBuffer {
    octets: Vec<u8>,
    control: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::DatagramBatch;
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
            here.segmentation.set(segmentation);
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
    fn what_the_path_does_not_take_is_refused_and_never_fragmented() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let _outside = Device::open("outside0").unwrap();
            netlink.set_link("outside0", [192, 0, 2, 9].into(), 1500).await.unwrap();
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix([198, 51, 100, 0].into(), 24);
            let mut route = route.output_interface(netlink.index("outside0").await.unwrap()).build();
            route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1300)]));
            netlink.handle.route().add(route).execute().await.unwrap();

            let socket = Socket::open("198.51.100.1:4500".parse().unwrap(), None).unwrap();
            assert_eq!(socket.path_mtu(), 1300);
            // An IPv4 header and a UDP header.
            for (length, refused) in [(1300 - 28, 0), (1301 - 28, 1)] {
                let octets = vec![0; length];
                let run = Run { port: Port::NatT, remote: socket.remote(), segment: length, octets: &octets };
                let sent = socket.send_run(&run);
                assert_eq!(sent.dropped, refused);
                assert_eq!(sent.error.and_then(|error| error.raw_os_error()), (refused > 0).then_some(libc::EMSGSIZE));
            }
        });
    }

    #[test]
    fn a_receive_of_more_segments_than_a_batch_holds_comes_in_batches() {
        let mut octets = vec![0; 128 * 400 - 1];
        let received = Received { octets: &mut octets, segment: 400 };
        let counts: Vec<usize> = received.batches().map(Iterator::count).collect();
        assert_eq!(counts, [BATCH_PACKETS; 2]);
    }

    #[tokio::test]
    async fn a_port_that_is_taken_gives_way_to_another() {
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let socket = Socket::open("127.0.0.1:4500".parse().unwrap(), Some(port)).unwrap();
        assert_ne!(socket.local().port(), port);
    }
}
