//! ESP in UDP (RFC 3948 section 2): what arrives at port 4500.

/// Four zero octets where ESP has its SPI, before an ISAKMP message (RFC 3948 section 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

//= rfc3948 2.3 "The sender MUST use a one-octet-long payload with the value 0xFF."
//= test: port_4500_is_demultiplexed, keepalives_are_sent_only_when_nothing_else_is
/// The whole of a NAT keepalive (RFC 3948 section 2.3).
pub const KEEPALIVE: [u8; 1] = [0xFF];

/// What a datagram of port 4500 holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// A NAT keepalive: to be ignored, and no sign of life (RFC 3948 section 2.3).
    Keepalive,
    /// An ISAKMP message, without the marker.
    Isakmp(&'a [u8]),
    /// An ESP packet.
    Esp {
        /// Which SA it belongs to.
        spi: u32,
    },
    /// Too short to be anything.
    Short,
}

//= out: rfc3948 2.1 "o receivers MUST NOT depend on the UDP checksum being a zero value." the UDP of the kernel sees the checksum, takes it with any right value, and hands it to nobody
//= out: rfc3948 2.3 "o receivers MUST NOT depend upon the UDP checksum being a zero value." the UDP of the kernel sees the checksum, takes it with any right value, and hands it to nobody
/// Tells what a datagram of port 4500 holds.
pub fn classify(datagram: &[u8]) -> Datagram<'_> {
    //= rfc3948 2.1 "The SPI field in the ESP header MUST NOT be a zero value."
    //= test: port_4500_is_demultiplexed, reserved_spis_and_unfit_keys_are_refused
    //= rfc3948 2.3 "The receiver SHOULD ignore a received NAT-keepalive packet."
    //= test: port_4500_is_demultiplexed, only_what_is_authenticated_is_a_sign_of_life
    //= rfc3948 4 "Reception of NAT-keepalive packets MUST NOT be used to detect whether a connection is live."
    //= test: port_4500_is_demultiplexed, only_what_is_authenticated_is_a_sign_of_life
    match datagram.split_first_chunk() {
        Some((&NON_ESP_MARKER, message)) => Datagram::Isakmp(message),
        Some((spi, rest)) if rest.len() >= size_of::<u32>() => Datagram::Esp { spi: u32::from_be_bytes(*spi) },
        None if datagram == KEEPALIVE => Datagram::Keepalive,
        Some(_) | None => Datagram::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_4500_is_demultiplexed() {
        assert_eq!(classify(&[0xFF]), Datagram::Keepalive);
        assert_eq!(classify(&[0, 0, 0, 0, 1, 2]), Datagram::Isakmp(&[1, 2]));
        assert_eq!(classify(&[0; 4]), Datagram::Isakmp(&[]));
        assert_eq!(classify(&[0, 0, 1, 0, 0, 0, 0, 1]), Datagram::Esp { spi: 256 });
        assert_eq!(classify(&[0xFF; 8]), Datagram::Esp { spi: u32::MAX });
        for short in [&[][..], &[0], &[0xFE], &[0xFF, 0xFF], &[0, 0, 0], &[0, 0, 1, 0], &[1, 2, 3, 4, 5, 6, 7]] {
            assert_eq!(classify(short), Datagram::Short, "{short:?}");
        }
    }
}
