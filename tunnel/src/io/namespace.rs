//! A network namespace for one test.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rtnetlink::LinkUnspec;

use super::netlink::Netlink;
use super::tun::Device;
use crate::buffer::PacketBatch;
use crate::inet::{Checksum, PROTOCOL_UDP, checksum};

/// Runs `test` on a thread in a network namespace of its own; nothing of it outlives the thread. Needs root.
pub(crate) fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace: run it as root");
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    assert!(thread.join().is_ok());
}

/// Gives a device another address, and waits until the kernel takes packets to it: that of IPv6 is made ready later.
pub(crate) async fn add_address(netlink: &Netlink, device: &str, address: IpAddr) {
    // Packets of a host to itself go this way, whatever device has the address.
    let lo = LinkUnspec::new_with_index(netlink.index("lo").await.unwrap()).up().build();
    netlink.handle.link().set(lo).execute().await.unwrap();
    let index = netlink.index(device).await.unwrap();
    let length = if address.is_ipv4() { 32 } else { 128 };
    netlink.handle.address().add(index, address, length).execute().await.unwrap();
    let ready = async || {
        let Ok(socket) = UdpSocket::bind((address, 0)) else { return false };
        socket.set_nonblocking(true).unwrap();
        let sent = socket.send_to(b"?", socket.local_addr().unwrap());
        tokio::task::yield_now().await;
        sent.is_ok() && socket.recv(&mut [0]).is_ok()
    };
    let wait = async { while !ready().await {} };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

/// A datagram of UDP with one octet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) payload: u8,
}

impl Packet {
    pub(crate) fn new(from: &str, to: &str, payload: u8) -> Self {
        Self { from: from.parse().unwrap(), to: to.parse().unwrap(), payload }
    }

    pub(crate) fn reply(&self, payload: u8) -> Self {
        Self { from: self.to, to: self.from, payload }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let address = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let addresses = [address(self.from.ip()), address(self.to.ip())].concat();
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let mut udp = [ports, vec![0, 9, 0, 0, self.payload]].concat();
        let sum = Checksum::default().with(&addresses).with(&[0, PROTOCOL_UDP, 0, 9]).with(&udp).finish();
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        if self.from.is_ipv6() {
            return [vec![0x60, 0, 0, 0, 0, 9, PROTOCOL_UDP, 64], addresses, udp].concat();
        }
        let mut ip = [vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0], addresses].concat();
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [ip, udp].concat()
    }

    /// None of anything else, such as what a kernel says of its own accord.
    fn parse(octets: &[u8]) -> Option<Self> {
        let (addresses, protocol, udp) = match octets.first()? >> 4 {
            4 => (&octets[12..20], octets[9], &octets[20..]),
            _ => (&octets[8..40], octets[6], &octets[40..]),
        };
        let (from, to) = addresses.split_at(addresses.len() / 2);
        let address = |octets: &[u8]| match <[u8; 4]>::try_from(octets) {
            Ok(octets) => IpAddr::from(octets),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(octets).unwrap()),
        };
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        (protocol == PROTOCOL_UDP).then(|| Self {
            from: SocketAddr::new(address(from), port(0)),
            to: SocketAddr::new(address(to), port(2)),
            payload: udp[8],
        })
    }

    /// The next datagram that the kernel gives to the device.
    pub(crate) async fn next(device: &mut Device) -> Self {
        let wait = async {
            loop {
                device.readable().await;
                let mut batch = PacketBatch::new();
                device.receive(&mut batch).unwrap();
                let found: Vec<_> = batch.iter().filter_map(Self::parse).collect();
                assert!(found.len() < 2, "{found:?}");
                if let Some(packet) = found.into_iter().next() {
                    return packet;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap()
    }
}
