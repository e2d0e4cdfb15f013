//! Batches of packets in one contiguous buffer: what the TUN device, the stack and the UDP sockets hand to each other.
//!
//! Datagrams of a batch lie back to back, so a run of equal sizes to one destination is ready for a single send with generic
//! segmentation offload. A batch is emptied and used again; it allocates only until it has reached its usual size.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// The most packets that one batch holds; more are refused, and the caller flushes first.
pub const BATCH_PACKETS: usize = 64;

/// The longest IP packet or datagram that a batch takes: the longest UDP payload.
pub const MAX_PACKET: usize = 65_535;

/// IP packets, as read from or to be written to the TUN device.
#[derive(Debug, Default)]
pub struct PacketBatch {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl PacketBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a packet; returns false, and leaves the batch as it was, when it is full or the packet is too long.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        if self.is_full() || packet.len() > MAX_PACKET {
            return false;
        }
        self.octets.extend_from_slice(packet);
        self.ends.push(self.octets.len());
        true
    }

    /// The packets in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        ranges(&self.ends).filter_map(|range| self.octets.get(range))
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.ends.clear();
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the next push would be refused.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= BATCH_PACKETS
    }
}

/// Which of the two sockets of a connection carries a datagram (RFC 3947 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The socket that speaks to the peer's port 500: ISAKMP without a marker.
    Ike,
    /// The socket that speaks to the peer's port 4500: ESP, and ISAKMP behind four zero octets.
    NatT,
}

/// What carries a datagram of a client to its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// UDP.
    Udp(Port),
    /// IP itself, as protocol 50: ESP alone (RFC 4303 section 2).
    Esp,
}

impl Carrier {
    /// The port of UDP.
    pub fn port(self) -> Option<Port> {
        match self {
            Self::Udp(port) => Some(port),
            Self::Esp => None,
        }
    }
}

impl From<Port> for Carrier {
    fn from(port: Port) -> Self {
        Self::Udp(port)
    }
}

/// Between which addresses a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Way {
    /// Where it leaves from: the address that the peer speaks to. The kernel chooses if none is named.
    pub local: Option<IpAddr>,
    /// Where it goes.
    pub remote: SocketAddr,
}

impl From<SocketAddr> for Way {
    fn from(remote: SocketAddr) -> Self {
        Self { local: None, remote }
    }
}

/// Datagrams to be sent, each by one of the sockets of its owner: `S` tells them apart.
#[derive(Debug)]
pub struct DatagramBatch<S = Port> {
    octets: Vec<u8>,
    ends: Vec<usize>,
    paths: Vec<(S, Way)>,
}

impl<S> Default for DatagramBatch<S> {
    fn default() -> Self {
        Self { octets: Vec::new(), ends: Vec::new(), paths: Vec::new() }
    }
}

/// Datagrams of one size (the last may be shorter) that go one way, back to back.
#[derive(Debug, PartialEq, Eq)]
pub struct Run<'a, S = Port> {
    /// The socket to send from.
    pub socket: S,
    /// From where to where.
    pub way: Way,
    /// The length of each datagram but the last.
    pub segment: usize,
    /// All datagrams of the run.
    pub octets: &'a [u8],
}

impl<S: Copy + PartialEq> DatagramBatch<S> {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a datagram that `fill` writes at the end of the buffer. Nothing is kept when `fill` returns an error or has
    /// written nothing, or when the batch is full.
    pub fn push_with<E>(
        &mut self,
        socket: S,
        way: impl Into<Way>,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.is_full() {
            return Ok(false);
        }
        let start = self.octets.len();
        let filled = fill(&mut self.octets);
        let length = self.octets.len().saturating_sub(start);
        if filled.is_err() || length == 0 || length > MAX_PACKET {
            self.octets.truncate(start);
            return filled.map(|()| false);
        }
        self.ends.push(self.octets.len());
        self.paths.push((socket, way.into()));
        Ok(true)
    }

    /// Appends a copy of `datagram`; returns false when the batch is full or the datagram empty or too long.
    pub fn push(&mut self, socket: S, way: impl Into<Way>, datagram: &[u8]) -> bool {
        let pushed: Result<bool, std::convert::Infallible> = self.push_with(socket, way, |octets| {
            octets.extend_from_slice(datagram);
            Ok(())
        });
        matches!(pushed, Ok(true))
    }

    /// The datagrams in order, grouped into runs that one send with segmentation offload can carry.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_, S>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (first, &(socket, way)) = (self.range(next)?, self.paths.get(next)?);
            let (segment, start, mut end) = (first.len(), first.start, first.end);
            next += 1;
            while let (Some(range), Some(path)) = (self.range(next), self.paths.get(next)) {
                if *path != (socket, way) || range.len() > segment {
                    break;
                }
                end = range.end;
                next += 1;
                if range.len() < segment {
                    break;
                }
            }
            Some(Run { socket, way, segment, octets: self.octets.get(start..end)? })
        })
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.ends.clear();
        self.paths.clear();
    }

    /// The number of datagrams.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no datagram.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the next push would be refused.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= BATCH_PACKETS
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(start..end)
    }
}

fn ranges(ends: &[usize]) -> impl Iterator<Item = Range<usize>> {
    ends.iter().scan(0, |start, &end| Some(std::mem::replace(start, end)..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_datagrams_that_go_one_way_are_one_run() {
        let [a, b] = [1, 2].map(|host| Way::from(SocketAddr::from(([192, 0, 2, host], 4500))));
        let c = Way { local: Some([198, 51, 100, 1].into()), ..b };
        let mut batch = DatagramBatch::new();
        for (way, length) in [(a, 4), (a, 4), (a, 2), (a, 4), (b, 4), (c, 4)] {
            assert!(batch.push(Port::NatT, way, &vec![7; length]));
        }
        let runs: Vec<_> = batch.runs().map(|run| (run.way, run.segment, run.octets.len())).collect();
        assert_eq!(runs, [(a, 4, 10), (a, 4, 4), (b, 4, 4), (c, 4, 4)]);
    }

    #[test]
    fn a_failed_fill_leaves_no_trace() {
        let mut batch = DatagramBatch::new();
        let remote = SocketAddr::from(([192, 0, 2, 1], 500));
        assert_eq!(
            batch.push_with(Port::Ike, remote, |octets| {
                octets.push(1);
                Err("no")
            }),
            Err("no")
        );
        assert!(batch.is_empty());
        assert!(batch.push(Port::Ike, remote, b"abc"));
        assert_eq!(batch.runs().next().map(|run| run.octets.to_vec()), Some(b"abc".to_vec()));
    }

    #[test]
    fn a_full_batch_refuses_more() {
        let mut batch = PacketBatch::new();
        for _ in 0..BATCH_PACKETS {
            assert!(batch.push(&[1]));
        }
        assert!(!batch.push(&[1]));
        assert_eq!(batch.iter().count(), BATCH_PACKETS);
    }
}
