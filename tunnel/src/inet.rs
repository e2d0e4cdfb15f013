//! What several layers need of UDP and IP: ports, protocol numbers, header lengths, the Internet checksum (RFC 768, 791, 1071, 8200).

/// Where ISAKMP listens (RFC 2408 section 2.5.1).
pub const IKE_PORT: u16 = 500;
/// Where UDP-encapsulated ESP and the ISAKMP behind it listen (RFC 3948 section 2.1).
pub const NAT_T_PORT: u16 = 4500;
/// Where L2TP listens (RFC 2661 section 8.1).
pub const L2TP_PORT: u16 = 1701;

/// ICMP as an IP protocol.
pub const PROTOCOL_ICMP: u8 = 1;
/// TCP as an IP protocol.
pub const PROTOCOL_TCP: u8 = 6;
/// ICMPv6 as an IP protocol.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// UDP as an IP protocol, and as the next header of ESP.
pub const PROTOCOL_UDP: u8 = 17;

/// Octets of a UDP header.
pub const UDP_HEADER: usize = 8;
/// Octets of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Octets of an IPv6 header without extensions.
pub const IPV6_HEADER: usize = 40;

/// The Internet checksum (RFC 1071) over parts of any length, as if they lay back to back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum {
    sum: u64,
    odd: bool,
}

impl Checksum {
    /// Goes on with `octets`.
    #[must_use]
    pub fn with(mut self, octets: &[u8]) -> Self {
        for &octet in octets {
            let value = u64::from(octet);
            // No packet is so long that it would overflow.
            self.sum = self.sum.wrapping_add(if self.odd { value } else { value << 8 });
            self.odd = !self.odd;
        }
        self
    }

    /// What stands in a header; zero over octets that hold a right one.
    pub fn finish(self) -> u16 {
        let mut sum = self.sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

/// The Internet checksum of `octets`.
pub fn checksum(octets: &[u8]) -> u16 {
    Checksum::default().with(octets).finish()
}

/// Writes the Internet checksum of `octets`, whose place for it holds zeros, at `at`.
pub fn set_checksum(octets: &mut [u8], at: usize) {
    let sum = checksum(octets).to_be_bytes();
    if let Some(place) = octets.get_mut(at..at.saturating_add(2)) {
        place.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071_section_3() {
        // "the 1's complement sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2"
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x01]), !0x0100);
    }

    #[test]
    fn parts_of_odd_lengths_count_as_one() {
        let whole = [1, 2, 3, 4, 5, 6, 7];
        let [first, second] = [&whole[..3], &whole[3..]];
        assert_eq!(Checksum::default().with(first).with(second).finish(), checksum(&whole));
    }
}
