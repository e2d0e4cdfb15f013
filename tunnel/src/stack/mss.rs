//! TCP maximum segment size clamp (RFC 879, RFC 6691; RFC 8200 section 8.3): a SYN that goes through the tunnel never asks for segments that do not fit.

use crate::inet::{Checksum, IPV4_HEADER, IPV6_HEADER, PROTOCOL_TCP};

/// A TCP header without options.
const TCP_HEADER: u16 = 20;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Where the TCP header lies in `packet`, if there is one, and the largest segment that fits `mtu` octets beside headers without
/// options. Behind extension headers of IPv6 nobody looks: no SYN has any.
fn segment(packet: &[u8], mtu: u16) -> Option<(usize, u16)> {
    let first = *packet.first()?;
    let (header, smallest) = match first >> 4 {
        4 => {
            let header = usize::from(first & 0x0f).checked_mul(4)?;
            let fragment_offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
            if header < IPV4_HEADER || *packet.get(9)? != PROTOCOL_TCP || fragment_offset != 0 {
                return None;
            }
            (header, IPV4_HEADER)
        }
        6 if *packet.get(6)? == PROTOCOL_TCP => (IPV6_HEADER, IPV6_HEADER),
        _ => return None,
    };
    Some((header, mtu.saturating_sub(TCP_HEADER).saturating_sub(u16::try_from(smallest).ok()?)))
}

/// Where the value of the MSS option lies in `packet`, if that is a TCP segment with SYN whose header lies at `header`.
fn mss_option(packet: &[u8], header: usize) -> Option<usize> {
    let tcp = packet.get(header..)?;
    if tcp.get(13)? & FLAG_SYN == 0 {
        return None;
    }
    let options_end = usize::from(tcp.get(12)? >> 4).checked_mul(4)?;
    let mut at = 20;
    while at < options_end {
        match *tcp.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let length = usize::from(*tcp.get(at + 1)?);
                if kind == OPTION_MSS && length == 4 && at + 4 <= options_end {
                    return Some(header + at + 2);
                }
                // A shorter length would never move on.
                at = at.checked_add(length.max(2))?;
            }
        }
    }
    None
}

/// Whether [`clamp`] would change `packet`.
pub(super) fn exceeds(packet: &[u8], mtu: u16) -> bool {
    let Some((header, most)) = segment(packet, mtu) else { return false };
    let Some(at) = mss_option(packet, header) else { return false };
    packet.get(at..at + 2).is_some_and(|value| value > most.to_be_bytes().as_slice())
}

/// Lowers the MSS of a SYN to what fits `mtu` and corrects the TCP checksum (RFC 1624); leaves every other packet as it is.
pub(super) fn clamp(packet: &mut [u8], mtu: u16) {
    if !exceeds(packet, mtu) {
        return;
    }
    let Some((header, new)) = segment(packet, mtu) else { return };
    let Some(at) = mss_option(packet, header) else { return };
    let Some(old) = packet.get(at..at + 2).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes) else {
        return;
    };
    let checksum_at = header + 16;
    let Some(checksum) =
        packet.get(checksum_at..checksum_at + 2).and_then(|sum| sum.try_into().ok()).map(u16::from_be_bytes)
    else {
        return;
    };
    // The option may lie at an odd offset of the segment; then its octets enter the sum exchanged.
    let odd = (at - header) % 2 == 1;
    let (old_word, new_word) = if odd { (old.swap_bytes(), new.swap_bytes()) } else { (old, new) };
    // RFC 1624 section 3, equation 3: HC' = ~(~HC + ~m + m').
    let corrected = Checksum::default()
        .with(&(!checksum).to_be_bytes())
        .with(&(!old_word).to_be_bytes())
        .with(&new_word.to_be_bytes())
        .finish();
    for (place, value) in [(at, new), (checksum_at, corrected)] {
        if let Some(field) = packet.get_mut(place..place + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum of the TCP segment in `packet` over its pseudo header; zero when the one inside is right.
    fn tcp_checksum(packet: &[u8]) -> u16 {
        let tcp = &packet[20..];
        let mut octets = packet[12..20].to_vec();
        octets.extend([0, PROTOCOL_TCP]);
        octets.extend((tcp.len() as u16).to_be_bytes());
        octets.extend(tcp);
        crate::inet::checksum(&octets)
    }

    fn syn(options: &[u8]) -> Vec<u8> {
        let tcp_length = 20 + options.len();
        let mut packet =
            vec![0x45, 0, 0, (20 + tcp_length) as u8, 0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([
            0x9c,
            0x40,
            0,
            80,
            1,
            2,
            3,
            4,
            0,
            0,
            0,
            0,
            ((tcp_length / 4) << 4) as u8,
            FLAG_SYN,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
        packet.extend(options);
        let sum = tcp_checksum(&packet);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(tcp_checksum(&packet), 0);
        packet
    }

    #[test]
    fn a_large_mss_is_lowered_and_the_checksum_stays_right() {
        for options in [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4, 1, 1, 0], &[3, 3, 7, 2, 4, 0x05, 0xb4, 0]] {
            let mut packet = syn(options);
            clamp(&mut packet, 1354);
            let at = mss_option(&packet, 20).unwrap();
            assert_eq!(packet[at..at + 2], 1314u16.to_be_bytes());
            assert_eq!(tcp_checksum(&packet), 0);
        }
    }

    #[test]
    fn over_ipv6_twenty_octets_less_fit() {
        let ipv4 = syn(&[2, 4, 0x05, 0xb4]);
        let (ends, tcp) = ([0xfd; 32], &ipv4[20..]);
        let mut packet = [&[0x60, 0, 0, 0, 0, 24, PROTOCOL_TCP, 64][..], &ends, tcp].concat();
        let sum = |packet: &[u8]| Checksum::default().with(&ends).with(&[0, 24, 0, 6]).with(&packet[40..]);
        packet[56..58].fill(0);
        let right = sum(&packet).finish().to_be_bytes();
        packet[56..58].copy_from_slice(&right);
        clamp(&mut packet, 1354);
        assert_eq!((&packet[62..64], sum(&packet).finish()), (&1294_u16.to_be_bytes()[..], 0));
        let same = packet.clone();
        clamp(&mut packet, 1354);
        assert_eq!(packet, same);
    }

    #[test]
    fn what_fits_and_what_is_no_syn_stays_as_it_is() {
        let small = syn(&[2, 4, 0x02, 0x18]);
        let mut ack = syn(&[2, 4, 0x05, 0xb4]);
        ack[33] = 0x10;
        let mut fragment = syn(&[2, 4, 0x05, 0xb4]);
        fragment[7] = 9;
        for packet in [small, ack, fragment] {
            let mut same = packet.clone();
            clamp(&mut same, 1354);
            assert_eq!(same, packet);
        }
    }

    #[test]
    fn cut_and_wild_packets_are_left_alone() {
        let whole = syn(&[2, 4, 0x05, 0xb4]);
        for length in 0..whole.len() {
            clamp(&mut whole[..length].to_vec(), 1354);
        }
        let mut endless = syn(&[99, 0, 99, 0]);
        clamp(&mut endless, 576);
    }
}
