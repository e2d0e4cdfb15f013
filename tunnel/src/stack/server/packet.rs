//! What the server itself does with IPv4 packets: reads their ends, cuts those that do not fit, and tells the sender of those
//! that must not be cut (RFC 791, 792, 1191).

use std::net::Ipv4Addr;

use crate::inet::{IPV4_HEADER, PROTOCOL_ICMP, checksum};

/// "Don't Fragment" and "More Fragments" (RFC 791 section 3.1).
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Fragments are counted in units of 8 octets.
const UNIT: usize = 8;
/// Destination unreachable, fragmentation needed (RFC 792; RFC 1191 section 4).
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMP messages that are answers to errors of nobody (RFC 1122 section 3.2.2): destination unreachable, source quench, redirect,
/// time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// Octets of an ICMP header.
const ICMP_HEADER: usize = 8;
/// The time to live of packets of our own (RFC 1700).
const TIME_TO_LIVE: u8 = 64;
/// The most pieces that one packet is cut into: 64 KiB over the smallest link.
const MAX_FRAGMENTS: usize = 128;

/// The ends of an IPv4 packet, if it is a whole one.
pub(super) fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
    let [first, _, high, low, .., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = first >> 4 == 4 && header_length(packet)? <= length && length <= packet.len();
    whole.then(|| (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3)))
}

fn header_length(packet: &[u8]) -> Option<usize> {
    let length = usize::from(packet.first()? & 0x0f).checked_mul(4)?;
    (length >= IPV4_HEADER).then_some(length)
}

fn flags(packet: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]))
}

/// Whether the packet must not be cut.
pub(super) fn is_whole_only(packet: &[u8]) -> bool {
    flags(packet).is_some_and(|flags| flags & DONT_FRAGMENT != 0)
}

/// The packet in pieces of at most `mtu` octets (RFC 791 section 3.2); none if it cannot be cut.
pub(super) fn fragments(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    cut(packet, mtu.into()).unwrap_or_default()
}

fn cut(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let header_length = header_length(packet)?;
    let (header, data) = packet.split_at_checked(header_length)?;
    let flags = flags(packet)?;
    let room = mtu.checked_sub(header_length)? / UNIT * UNIT;
    // Options that stand in the first piece only would have to be taken out of the others; nobody sends any.
    if room == 0 || header_length != IPV4_HEADER || data.len().div_ceil(room) > MAX_FRAGMENTS {
        return None;
    }
    let mut pieces = Vec::new();
    let mut offset = flags & OFFSET;
    let mut chunks = data.chunks(room).peekable();
    while let Some(chunk) = chunks.next() {
        let more = if chunks.peek().is_some() { MORE_FRAGMENTS } else { flags & MORE_FRAGMENTS };
        let mut piece = header.to_vec();
        let length = u16::try_from(header_length.checked_add(chunk.len())?).ok()?;
        piece.get_mut(2..4)?.copy_from_slice(&length.to_be_bytes());
        piece.get_mut(6..8)?.copy_from_slice(&(more | offset).to_be_bytes());
        finish_header(&mut piece)?;
        piece.extend_from_slice(chunk);
        pieces.push(piece);
        offset = offset.checked_add(u16::try_from(chunk.len() / UNIT).ok()?)?;
    }
    Some(pieces)
}

fn finish_header(header: &mut [u8]) -> Option<()> {
    header.get_mut(10..12)?.fill(0);
    let sum = checksum(header);
    header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Tells the sender of `packet`, in the name of `from`, that only `mtu` octets fit (RFC 1191 section 4); none for packets that
/// are never answered by an error (RFC 1122 section 3.2.2).
pub(super) fn too_big(packet: &[u8], mtu: u16, from: Ipv4Addr) -> Option<Vec<u8>> {
    let (source, _) = ends(packet)?;
    let header_length = header_length(packet)?;
    let is_error = packet.get(9) == Some(&PROTOCOL_ICMP)
        && packet.get(header_length).is_some_and(|kind| ICMP_ERRORS.contains(kind));
    if is_error
        || flags(packet)? & OFFSET != 0
        || source.is_unspecified()
        || source.is_multicast()
        || source.is_broadcast()
    {
        return None;
    }
    // The header and 8 octets of what follows.
    let quoted = packet.get(..header_length.checked_add(UNIT)?).unwrap_or(packet);
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let mut icmp = vec![UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0, mtu_high, mtu_low];
    icmp.extend_from_slice(quoted);
    let sum = checksum(&icmp);
    icmp.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    let length = u16::try_from(IPV4_HEADER + ICMP_HEADER + quoted.len()).ok()?;
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_ICMP, 0, 0]);
    out.extend_from_slice(&from.octets());
    out.extend_from_slice(&source.octets());
    finish_header(&mut out)?;
    out.extend_from_slice(&icmp);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inet::PROTOCOL_UDP;

    fn packet(data: usize, flags: u16) -> Vec<u8> {
        let length = u16::try_from(IPV4_HEADER + data).unwrap().to_be_bytes();
        let [high, low] = flags.to_be_bytes();
        let mut packet =
            vec![0x45, 0, length[0], length[1], 7, 7, high, low, 64, PROTOCOL_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        finish_header(&mut packet).unwrap();
        packet.extend((0..data).map(|octet| octet as u8));
        packet
    }

    #[test]
    fn the_ends_of_whole_packets_are_read_and_of_others_not() {
        let good = packet(10, 0);
        assert_eq!(ends(&good), Some(([10, 0, 0, 1].into(), [10, 0, 0, 2].into())));
        assert_eq!(ends(&good[..29]), None, "shorter than it says");
        assert_eq!(ends(&[0x45; 10]), None);
        assert_eq!(ends(&[&[0x65][..], &good[1..]].concat()), None, "IPv6");
        assert_eq!(ends(&[&[0x44][..], &good[1..]].concat()), None, "a header of 16 octets");
    }

    #[test]
    fn a_packet_is_cut_at_multiples_of_eight_and_put_together_again() {
        let whole = packet(1000, 0);
        let pieces = fragments(&whole, 300);
        assert_eq!(pieces.len(), 4);
        let mut data = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            assert!(piece.len() <= 300 && checksum(&piece[..IPV4_HEADER]) == 0);
            let flags = flags(piece).unwrap();
            assert_eq!(usize::from(flags & OFFSET) * UNIT, data.len());
            assert_eq!(flags & MORE_FRAGMENTS != 0, index < 3);
            data.extend_from_slice(&piece[IPV4_HEADER..]);
        }
        assert_eq!(data, whole[IPV4_HEADER..]);
    }

    #[test]
    fn a_piece_that_is_cut_again_keeps_its_place() {
        let pieces = fragments(&packet(64, MORE_FRAGMENTS | 10), 52);
        let places: Vec<u16> = pieces.iter().map(|piece| flags(piece).unwrap()).collect();
        assert_eq!(places, [MORE_FRAGMENTS | 10, MORE_FRAGMENTS | 14]);
    }

    #[test]
    fn the_sender_of_a_packet_that_must_not_be_cut_hears_what_fits() {
        let answer = too_big(&packet(1000, DONT_FRAGMENT), 1322, [10, 0, 0, 9].into()).unwrap();
        assert_eq!(ends(&answer), Some(([10, 0, 0, 9].into(), [10, 0, 0, 1].into())));
        let icmp = &answer[IPV4_HEADER..];
        assert_eq!((icmp[0], icmp[1], u16::from_be_bytes([icmp[6], icmp[7]])), (3, 4, 1322));
        assert_eq!((checksum(icmp), checksum(&answer[..IPV4_HEADER])), (0, 0));
        assert_eq!(icmp[ICMP_HEADER..], packet(1000, DONT_FRAGMENT)[..IPV4_HEADER + 8]);
    }

    #[test]
    fn errors_and_later_pieces_are_never_answered() {
        let mut error = packet(100, DONT_FRAGMENT);
        error[9] = PROTOCOL_ICMP;
        error[IPV4_HEADER] = 3;
        assert_eq!(too_big(&error, 600, [10, 0, 0, 9].into()), None);
        assert_eq!(too_big(&packet(100, DONT_FRAGMENT | 5), 600, [10, 0, 0, 9].into()), None);
    }
}
