//! A UDP socket of this process: datagrams of equal size leave with generic segmentation offload (`UDP_SEGMENT`) and arrive
//! with generic receive offload (`UDP_GRO`) where the kernel has them; without, each is a send of its own. So it is on a raw
//! socket for ESP without UDP, which has neither.
//!
//! ESP is never fragmented: what is longer than the path takes is refused with `EMSGSIZE`, and [`Endpoint::path_mtu`] tells what fits.
//! An ISAKMP message that is too long goes in fragments of IP: there is no other way to a peer that knows none of IKE.
//! [`super::udp`] connects such sockets to one peer, [`super::listener`] hears all.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::slice::ChunksMut;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::routing;
use crate::buffer::{BATCH_PACKETS, Carrier, MAX_PACKET, Port, Run, Way};
use crate::esp::{Datagram, classify};

/// The receive buffer that is asked for: some 30 ms of 1 Gbit/s.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What is assumed of a path that the kernel knows nothing about.
const USUAL_MTU: u16 = 1_500;
/// The most octets of one segmented send: the longest UDP payload over IPv4.
const MAX_SEGMENTED: usize = 65_507;
/// The most segments of one send (`UDP_MAX_SEGMENTS` of older kernels).
const MAX_SEGMENTS: usize = 64;

/// What became of a run of datagrams.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that could not be sent.
    pub dropped: u64,
    /// Why the last of them could not.
    pub error: Option<io::Error>,
}

/// A socket that is ready for use.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// What polls it and gives its descriptor: nothing of this is peculiar to UDP, and tokio has no raw sockets.
    socket: UdpSocket,
    local: SocketAddr,
    /// Whether each datagram names where it goes, and from which of this host's addresses.
    addressed: bool,
    segmentation: Cell<bool>,
}

/// Whether datagrams are fragmented, as the options of IPv4 and of IPv6 have it.
type Fragmenting = (libc::c_int, libc::c_int);

const WHOLE: Fragmenting = (libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO);
const FRAGMENTED: Fragmenting = (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT);

/// A UDP socket that is neither bound nor connected. Its packets stay out of the tunnel, and whole.
///
/// # Errors
/// What the system says.
pub(super) fn prepare(domain: Domain) -> io::Result<RawSocket> {
    open(domain, Type::DGRAM, None)
}

/// The same for ESP as an IP protocol. Packets leave without and, over IPv4 alone, arrive with the header of IP. While it is
/// open the kernel tells nobody that it does not know the protocol.
///
/// # Errors
/// What the system says: `EPERM` without `CAP_NET_RAW`.
pub(super) fn prepare_esp(domain: Domain) -> io::Result<RawSocket> {
    //= rfc4303 2 "The (outer) protocol header (IPv4, IPv6, or Extension) that immediately precedes the ESP header SHALL contain the value 50 in its Protocol (IPv4) or Next Header (IPv6, Extension) field (see IANA web page at http://www.iana.org/assignments/protocol-numbers)."
    //= test: a_gateway_that_hears_nothing_of_nat_traversal_gets_esp_as_protocol_50_and_rekeys_lose_no_packet, a_gateway_with_nat_traversal_gets_esp_in_udp_unless_port_4500_is_closed
    open(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_ESP)))
}

fn open(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<RawSocket> {
    let socket = RawSocket::new(domain, kind.nonblocking().cloexec(), protocol)?;
    // The plain option is capped by net.core.rmem_max; the forced one needs NET_ADMIN. Neither is vital.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err()
        && let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER)
    {
        tracing::debug!(%error, "receive buffer stays as it is");
    }
    routing::mark(&socket)?;
    // A UDP socket for IPv6 may carry IPv4 as well; a raw one does not know the option.
    set_fragmenting(&socket, (domain == Domain::IPV4 || kind == Type::DGRAM, domain == Domain::IPV6), WHOLE)?;
    Ok(socket)
}

/// Sets it for the versions of IP that the socket carries: 4 and 6.
fn set_fragmenting(socket: &impl AsFd, carries: (bool, bool), (ipv4, ipv6): Fragmenting) -> nix::Result<()> {
    if carries.0 {
        setsockopt(socket, options::Ipv4MtuDiscover, &ipv4)?;
    }
    if carries.1 {
        setsockopt(socket, options::Ipv6MtuDiscover, &ipv6)?;
    }
    Ok(())
}

/// Whether this leaves the socket as an ISAKMP message.
fn is_isakmp(carrier: Carrier, datagram: &[u8]) -> bool {
    match carrier {
        Carrier::Udp(Port::Ike) => true,
        Carrier::Udp(Port::NatT) => matches!(classify(datagram), Datagram::Isakmp(_)),
        Carrier::Esp => false,
    }
}

/// Lets datagrams of one peer arrive several at a time where the kernel can do that.
pub(super) fn coalesce(socket: &RawSocket) {
    if let Err(error) = setsockopt(socket, sockopt::UdpGroSegment, &true) {
        tracing::debug!(%error, "no generic receive offload");
    }
}

impl Endpoint {
    /// A socket that is connected.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn connected(socket: RawSocket) -> io::Result<Self> {
        Self::new(socket, false)
    }

    /// A socket that is bound, and tells and is told the addresses of each datagram.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn bound(socket: RawSocket) -> io::Result<Self> {
        if socket.domain()? == Domain::IPV6 {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Self::new(socket, true)
    }

    fn new(socket: RawSocket, addressed: bool) -> io::Result<Self> {
        let segmentation = Cell::new(socket.r#type()? == Type::DGRAM);
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local, addressed, segmentation })
    }

    /// Our end.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The longest IP packet that reaches `remote`, which the socket is connected to, as far as the kernel knows: by the route,
    /// and by what routers have told.
    pub(super) fn path_mtu(&self, remote: SocketAddr) -> u16 {
        let mtu = match remote {
            SocketAddr::V4(_) => getsockopt(&self.socket, sockopt::IpMtu),
            SocketAddr::V6(_) => getsockopt(&self.socket, options::Ipv6Mtu),
        };
        mtu.map_or(USUAL_MTU, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Waits until there may be a datagram.
    pub(super) async fn readable(&self) {
        if let Err(error) = self.socket.readable().await {
            tracing::warn!(%error, "socket cannot be polled");
            std::future::pending::<()>().await;
        }
    }

    /// Receives what is there: one datagram, or several of one size (the last may be shorter) back to back.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else an error that the network told about the path of a connected socket.
    pub(super) fn receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<Arrival> {
        let ReceiveBuffer { octets, control } = buffer;
        if octets.is_empty() {
            octets.resize(MAX_PACKET, 0);
            *control = nix::cmsg_space!(libc::c_int, libc::in6_pktinfo);
        }
        self.socket.try_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(octets)];
            let control = Some(control.as_mut_slice());
            let message = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut slices, control, MsgFlags::empty())?;
            let mut arrival = Arrival { length: message.bytes, ..Arrival::default() };
            message.cmsgs()?.for_each(|control| arrival.hear(control));
            arrival.remote = message.address.as_ref().and_then(address);
            Ok(arrival)
        })
    }

    /// Sends every datagram of `run`. What the socket does not take at once is dropped: the protocols above repeat what matters.
    pub(super) fn send_run<S: Copy + Into<Carrier>>(&self, run: &Run<'_, S>) -> Sent {
        let mut sent = Sent::default();
        if run.segment == 0 {
            return sent;
        }
        let target = if self.addressed { Some(Target::new(run.way, self.local)) } else { None };
        let most = (MAX_SEGMENTED / run.segment).clamp(1, MAX_SEGMENTS);
        for octets in run.octets.chunks(run.segment.saturating_mul(most)) {
            let mut unsegmented = None;
            if octets.len() > run.segment && self.segmentation.get() {
                match self.send(octets, Some(run.segment), target.as_ref()) {
                    Ok(()) => continue,
                    // The socket is full: to try each datagram alone would only cost time.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        sent.dropped = sent.dropped.saturating_add(octets.chunks(run.segment).len() as u64);
                        sent.error = Some(error);
                        continue;
                    }
                    Err(error) => unsegmented = Some(error),
                }
            }
            let (before, mut fragmented) = (sent.dropped, false);
            for datagram in octets.chunks(run.segment) {
                let mut sending = self.send(datagram, None, target.as_ref());
                if let Err(error) = &sending
                    && error.raw_os_error() == Some(libc::EMSGSIZE)
                    && is_isakmp(run.socket.into(), datagram)
                {
                    fragmented = true;
                    sending = self.send_fragmented(datagram, target.as_ref());
                }
                if let Err(error) = sending {
                    sent.dropped = sent.dropped.saturating_add(1);
                    sent.error = Some(error);
                }
            }
            // An interface without checksum offload, or an old kernel. What is wrong with the way or with the length of the
            // datagrams has the same errors, and is wrong with each datagram too.
            if let Some(error) = unsegmented
                && sent.dropped == before
                && !fragmented
            {
                tracing::debug!(%error, "no generic segmentation offload");
                self.segmentation.set(false);
            }
        }
        sent
    }

    /// Whether several datagrams leave with one send.
    #[cfg(test)]
    pub(super) fn is_segmenting(&self) -> bool {
        self.segmentation.get()
    }

    /// Lets several datagrams leave with one send or not.
    #[cfg(test)]
    pub(super) fn segment(&self, segmentation: bool) {
        self.segmentation.set(segmentation);
    }

    /// Sends a datagram in as many fragments of IP as it takes.
    fn send_fragmented(&self, octets: &[u8], target: Option<&Target>) -> io::Result<()> {
        let carries = (true, self.local.is_ipv6());
        set_fragmenting(&self.socket, carries, FRAGMENTED)?;
        let sent = self.send(octets, None, target);
        set_fragmenting(&self.socket, carries, WHOLE)?;
        sent
    }

    fn send(&self, octets: &[u8], segment: Option<usize>, target: Option<&Target>) -> io::Result<()> {
        let segment = segment.map(u16::try_from).transpose().map_err(io::Error::other)?;
        let segments = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        let source = target.and_then(|target| target.source.as_ref()).map(|source| match source {
            Source::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Source::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        });
        let control: Vec<_> = segments.into_iter().chain(source).collect();
        let remote = target.map(|target| &target.remote);
        sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(octets)], &control, MsgFlags::empty(), remote)?;
        Ok(())
    }
}

/// Where a datagram goes and where it comes from, as a socket takes it.
struct Target {
    remote: SockaddrStorage,
    source: Option<Source>,
}

enum Source {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Target {
    /// For a socket that is bound to `socket`: one for IPv6 knows IPv4 as mapped addresses.
    fn new(Way { local, remote }: Way, socket: SocketAddr) -> Self {
        let remote = match remote {
            SocketAddr::V4(remote) if socket.is_ipv6() => {
                SocketAddr::new(remote.ip().to_ipv6_mapped().into(), remote.port())
            }
            remote => remote,
        };
        let source = local.map(|local| match local {
            IpAddr::V4(local) if socket.is_ipv4() => Source::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }),
            local => {
                let s6_addr = match local {
                    IpAddr::V4(local) => local.to_ipv6_mapped().octets(),
                    IpAddr::V6(local) => local.octets(),
                };
                Source::V6(libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr }, ipi6_ifindex: 0 })
            }
        });
        Self { remote: remote.into(), source }
    }
}

/// What the kernel says about the datagrams of one read beside their octets.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// Octets of all of them.
    length: usize,
    /// The length of each but the last, when there are several.
    segment: Option<usize>,
    /// Who sent them, where the kernel tells.
    pub(super) remote: Option<SocketAddr>,
    /// Which address of this host they were sent to, where the kernel tells.
    pub(super) local: Option<IpAddr>,
}

impl Arrival {
    fn hear(&mut self, control: ControlMessageOwned) {
        match control {
            ControlMessageOwned::UdpGroSegments(segment) => self.segment = usize::try_from(segment).ok(),
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                self.local = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                self.local = Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical());
            }
            _ => {}
        }
    }
}

/// An address of a socket; one of IPv4 is never a mapped one.
fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(address.ip().into(), address.port()));
    }
    let address = storage.as_sockaddr_in6()?;
    Some(match address.ip().to_ipv4_mapped() {
        Some(mapped) => SocketAddr::new(mapped.into(), address.port()),
        None => SocketAddr::V6((*address).into()),
    })
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

impl ReceiveBuffer {
    /// The datagrams of the last read.
    pub(super) fn received(&mut self, arrival: &Arrival) -> Received<'_> {
        let segment = arrival.segment.filter(|&segment| segment > 0).unwrap_or_else(|| arrival.length.max(1));
        Received { octets: self.octets.get_mut(..arrival.length).unwrap_or_default(), segment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_of_more_segments_than_a_batch_holds_comes_in_batches() {
        let mut octets = vec![0; 128 * 400 - 1];
        let received = Received { octets: &mut octets, segment: 400 };
        let counts: Vec<usize> = received.batches().map(Iterator::count).collect();
        assert_eq!(counts, [BATCH_PACKETS; 2]);
    }
}
