//! What the server itself says in ICMPv6 (RFC 4443): Router Advertisements (RFC 4861 section 4.2) with routes (RFC 4191 section
//! 2.3), Echo Replies, and Packet Too Big.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::inet::{Checksum, IPV6_HEADER, PROTOCOL_ICMPV6};

/// Types (RFC 4443, RFC 4861 section 4). Those below 128 are errors.
const PACKET_TOO_BIG: u8 = 2;
const FIRST_INFORMATIONAL: u8 = 128;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;
/// Types of options (RFC 4861 section 4.6, RFC 4191 section 2.3).
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_ROUTE: u8 = 24;
/// The prefix is on the link, and addresses are made of it (RFC 4861 section 4.6.2).
const ON_LINK_AUTONOMOUS: u8 = 0xc0;
/// How long what is advertised holds, in seconds: three times as long as until the next one (RFC 4861 section 6.2.1).
const LIFETIME: u16 = 1_800;
/// Neighbour discovery never passes a router, which is seen by this (RFC 4861 section 3.1); and so does nothing else of ours.
const MAX_HOPS: u8 = 255;
/// The hop limit that clients are told to use (RFC 1700).
const HOPS: u8 = 64;
/// No error is longer (RFC 4443 section 2.4).
const MAX_ERROR: usize = 1_280;
/// Octets of what stands in front of the packet in an error, and of the smallest message.
const ICMP_HEADER: usize = 8;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// An IPv6 packet without what a link may have put behind it, and its ends (RFC 8200 section 3); none if it is not whole.
pub(super) fn ends(packet: &[u8]) -> Option<(&[u8], Ipv6Addr, Ipv6Addr)> {
    let header: &[u8; IPV6_HEADER] = packet.first_chunk()?;
    let [first, _, _, _, high, low, _, _, addresses @ ..] = header;
    let length = IPV6_HEADER.checked_add(u16::from_be_bytes([*high, *low]).into())?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let destination: [u8; 16] = destination.try_into().ok()?;
    let whole = packet.get(..length).filter(|_| first >> 4 == 6)?;
    Some((whole, Ipv6Addr::from(*source), Ipv6Addr::from(destination)))
}

/// The ICMPv6 message of a packet that has no extension headers.
fn message(packet: &[u8]) -> Option<&[u8]> {
    packet.get(IPV6_HEADER..).filter(|_| packet.get(6) == Some(&PROTOCOL_ICMPV6))
}

/// The checksum over a message and its pseudo header (RFC 8200 section 8.1).
fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo_header = Checksum::default().with(&source.octets()).with(&destination.octets());
    pseudo_header.with(&length.to_be_bytes()).with(&[0, 0, 0, PROTOCOL_ICMPV6]).with(message).finish()
}

/// An IPv6 packet with `message`, whose checksum is filled in.
pub(in crate::stack::server) fn packet(source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = sum(source, destination, &message).to_be_bytes();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
    let mut out = vec![0x60, 0, 0, 0];
    out.extend_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&[PROTOCOL_ICMPV6, MAX_HOPS]);
    out.extend_from_slice(&source.octets());
    out.extend_from_slice(&destination.octets());
    out.extend_from_slice(&message);
    out
}

/// What a client is told of its link.
pub(super) struct Advertisement<'a> {
    /// Our address on it.
    pub(super) from: Ipv6Addr,
    pub(super) prefix: Ipv6Net,
    pub(super) mtu: u16,
    /// Whether we are the way to everywhere.
    pub(super) is_default: bool,
    /// To where else we are the way.
    pub(super) routes: &'a [Ipv6Net],
}

impl Advertisement<'_> {
    /// A Router Advertisement to all nodes of the link.
    pub(super) fn packet(&self) -> Vec<u8> {
        let [high, low] = if self.is_default { LIFETIME } else { 0 }.to_be_bytes();
        // Neither managed nor other configuration; reachable and retransmission times are not our business.
        let mut out = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOPS, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
        let lifetime = u32::from(LIFETIME).to_be_bytes();
        out.extend_from_slice(&[OPTION_MTU, 1, 0, 0]);
        out.extend_from_slice(&u32::from(self.mtu).to_be_bytes());
        out.extend_from_slice(&[OPTION_PREFIX, 4, self.prefix.prefix_len(), ON_LINK_AUTONOMOUS]);
        out.extend_from_slice(&lifetime);
        out.extend_from_slice(&lifetime);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.prefix.network().octets());
        for route in self.routes {
            // Lengths are counted in units of 8 octets, and the prefix takes none, one or two of them.
            let units = route.prefix_len().div_ceil(64);
            out.extend_from_slice(&[OPTION_ROUTE, units.saturating_add(1), route.prefix_len(), 0]);
            out.extend_from_slice(&lifetime);
            out.extend(route.network().octets().into_iter().take(usize::from(units) * 8));
        }
        packet(self.from, ALL_NODES, out)
    }
}

/// What a client asks of us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A Router Solicitation.
    Router,
    /// An Echo Request, and the packet that answers it.
    Echo(Vec<u8>),
}

/// The question in a packet to one of our addresses `own`, or to all routers.
pub(super) fn question(whole: &[u8], own: &[Ipv6Addr]) -> Option<Question> {
    let (_, source, destination) = ends(whole)?;
    let message = message(whole).filter(|message| message.len() >= ICMP_HEADER)?;
    if sum(source, destination, message) != 0 {
        return None;
    }
    let to_us = own.contains(&destination);
    match *message.first_chunk()? {
        // RFC 4861 section 6.1.1.
        [ROUTER_SOLICITATION, 0] if to_us || destination == ALL_ROUTERS => {
            (whole.get(7) == Some(&MAX_HOPS)).then_some(Question::Router)
        }
        [ECHO_REQUEST, 0] if to_us && !source.is_unspecified() => {
            let mut reply = vec![ECHO_REPLY, 0, 0, 0];
            reply.extend_from_slice(message.get(4..)?);
            Some(Question::Echo(packet(destination, source, reply)))
        }
        _ => None,
    }
}

/// Tells the sender of `whole`, in the name of `from`, that only `mtu` octets fit (RFC 4443 section 3.2); none for packets that are
/// never answered by an error (section 2.4).
pub(super) fn too_big(whole: &[u8], mtu: u16, from: Ipv6Addr) -> Option<Vec<u8>> {
    let (_, source, _) = ends(whole)?;
    let kind = message(whole).and_then(|message| message.first());
    let is_error = kind.is_some_and(|kind| *kind < FIRST_INFORMATIONAL || *kind == REDIRECT);
    if is_error || source.is_unspecified() || source.is_multicast() {
        return None;
    }
    let mut out = vec![PACKET_TOO_BIG, 0, 0, 0];
    out.extend_from_slice(&u32::from(mtu).to_be_bytes());
    out.extend(whole.iter().take(MAX_ERROR - IPV6_HEADER - ICMP_HEADER));
    Some(packet(from, source, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn network(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn an_advertisement_has_the_layout_of_rfc_4861_and_rfc_4191() {
        let routes = [network("fd00::/8"), network("2001:db8::/96")];
        let prefix = network("fd09:0:0:5::/64");
        let packet = Advertisement { from: OWN, prefix, mtu: 1_350, is_default: false, routes: &routes }.packet();
        let (whole, source, destination) = ends(&packet).unwrap();
        assert_eq!((whole.len(), source, destination, packet[7]), (packet.len(), OWN, ALL_NODES, 255));
        assert_eq!(sum(source, destination, &whole[40..]), 0);
        let mut expected = vec![134, 0, packet[42], packet[43], 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([5, 1, 0, 0, 0, 0, 5, 70]);
        expected.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
        expected.extend([0xfd, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([24, 2, 8, 0, 0, 0, 7, 8, 0xfd, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([24, 3, 96, 0, 0, 0, 7, 8, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(whole[40..], expected);
    }

    #[test]
    fn only_the_way_to_everywhere_is_a_default_router() {
        let packet = |is_default| {
            Advertisement { from: OWN, prefix: network("fd09::/64"), mtu: 1_280, is_default, routes: &[] }.packet()
        };
        assert_eq!((&packet(true)[46..48], &packet(false)[46..48]), (&[7, 8][..], &[0, 0][..]));
    }

    #[test]
    fn routers_are_asked_for_on_the_link_only() {
        let ask = |source: &str, destination| packet(address(source), destination, vec![133, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(question(&ask("fe80::9", ALL_ROUTERS), &[OWN]), Some(Question::Router));
        assert_eq!(question(&ask("::", ALL_ROUTERS), &[OWN]), Some(Question::Router));
        assert_eq!(question(&ask("fe80::9", address("fe80::8")), &[OWN]), None);
        let mut routed = ask("fe80::9", ALL_ROUTERS);
        routed[7] = 254;
        assert_eq!(question(&routed, &[OWN]), None);
        let mut damaged = ask("fe80::9", ALL_ROUTERS);
        damaged[47] = 1;
        assert_eq!(question(&damaged, &[OWN]), None);
    }

    #[test]
    fn an_echo_comes_back_as_it_was() {
        let request = packet(address("fe80::9"), OWN, vec![128, 0, 0, 0, 1, 2, 3, 4, 5]);
        let Some(Question::Echo(reply)) = question(&request, &[OWN]) else { panic!() };
        assert_eq!(reply, packet(OWN, address("fe80::9"), vec![129, 0, 0, 0, 1, 2, 3, 4, 5]));
        assert_eq!(question(&request, &[address("fe80::2")]), None);
    }

    #[test]
    fn errors_and_packets_of_nobody_are_never_answered() {
        let from = address("fd09::1");
        for (source, kind) in [("fd01::1", 1), ("fd01::1", 137), ("::", 128), ("ff02::1", 128)] {
            let whole = packet(address(source), from, vec![kind; 1_400]);
            assert_eq!(too_big(&whole, 1_280, from), None, "{source} {kind}");
        }
        let whole = packet(address("fd01::1"), from, vec![128; 1_400]);
        let answer = too_big(&whole, 1_300, from).unwrap();
        assert_eq!((answer.len(), &answer[40..42], &answer[44..48]), (1_280, &[2, 0][..], &[0, 0, 5, 20][..]));
        assert_eq!(answer[48..], whole[..1_232]);
        let (_, source, destination) = ends(&answer).unwrap();
        assert_eq!(sum(source, destination, &answer[40..]), 0);
    }

    #[test]
    fn only_whole_packets_have_ends_and_padding_is_cut_off() {
        let mut padded = packet(OWN, ALL_NODES, vec![0; 8]);
        padded.extend([0; 3]);
        assert_eq!(ends(&padded).map(|(whole, ..)| whole.len()), Some(48));
        assert_eq!(ends(&padded[..47]), None);
        padded[0] = 0x45;
        assert_eq!(ends(&padded), None);
    }
}
