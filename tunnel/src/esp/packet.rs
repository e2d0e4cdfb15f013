//! The form of an ESP packet (RFC 4303 section 2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |               Security Parameters Index (SPI)                 |  \
//! +---------------------------------------------------------------+   |
//! |                      Sequence Number                          |   |
//! +---------------------------------------------------------------+   | ICV covers
//! |                 IV (variable, in the clear)                   |   |
//! +---------------------------------------------------------------+   |
//! |                   Payload Data (variable)                     | \ |
//! +               +-----------------------------------------------+  | encrypted
//! |               |     Padding (0-255 octets: 1, 2, 3, ...)      |  ||
//! +---------------+---------------+---------------+---------------+  ||
//! |                               |  Pad Length   |  Next Header  | / |
//! +-------------------------------+-------------------------------+  /
//! |         Integrity Check Value (ICV, variable)                 |
//! +---------------------------------------------------------------+
//! ```

use super::{NEXT_HEADER_NONE, OpenError};

/// Octets of the SPI and the sequence number.
pub(super) const HEADER: usize = 8;

/// Octets of the pad length and the next header.
pub(super) const TRAILER: usize = 2;

/// The padding of RFC 4303 section 2.4, as long as any cipher needs it.
const PADDING: [u8; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The sequence number; none if the packet has none or has 0, which no packet bears.
pub(super) fn sequence_number(packet: &[u8]) -> Option<u32> {
    let (_spi, rest) = packet.split_first_chunk::<4>()?;
    rest.first_chunk().map(|octets| u32::from_be_bytes(*octets)).filter(|&number| number != 0)
}

pub(super) fn write_header(out: &mut Vec<u8>, spi: u32, sequence_number: u32) {
    out.extend_from_slice(&spi.to_be_bytes());
    //= rfc4303 2.2 "The field is mandatory and MUST always be present even if the receiver does not elect to enable the anti-replay service for a specific SA."
    //= test: the_first_packet_has_number_1_and_vectors_never_repeat, sequence_number_zero_does_not_exist
    //= rfc4303 2.2 "Thus, the sender MUST always transmit this field, but the receiver need not act upon it (see the discussion of Sequence Number Verification in the "Inbound Packet Processing" section (3.4.3) below)."
    //= test: the_first_packet_has_number_1_and_vectors_never_repeat, sequence_number_zero_does_not_exist
    out.extend_from_slice(&sequence_number.to_be_bytes());
}

/// The number of octets that pad a payload so that it ends, with the trailer, at the end of a block.
pub(super) fn padding(payload: usize, block: usize) -> usize {
    (payload + TRAILER).next_multiple_of(block) - (payload + TRAILER)
}

/// Completes the plaintext that begins at `plaintext` in `out`.
pub(super) fn write_trailer(out: &mut Vec<u8>, plaintext: usize, block: usize, next_header: u8) {
    //= rfc4303 2.4 "all implementations MUST support generation and consumption of padding."
    //= test: every_payload_ends_with_its_trailer_at_the_end_of_a_block, padding_of_other_octets_or_longer_than_the_packet_is_refused
    //= rfc4303 2.4 "If Padding bytes are needed but the encryption algorithm does not specify the padding contents, then the following default processing MUST be used."
    //= test: every_payload_ends_with_its_trailer_at_the_end_of_a_block, padding_of_other_octets_or_longer_than_the_packet_is_refused
    let padding = padding(out.len() - plaintext, block);
    out.extend(PADDING.iter().take(padding));
    out.extend([padding as u8, next_header]);
}

/// The next header and the length of the payload of an authentic plaintext.
pub(super) fn read_trailer(plaintext: &[u8]) -> Result<(u8, usize), OpenError> {
    let (rest, [pad_length, next_header]) = plaintext.split_last_chunk().ok_or(OpenError::Padding)?;
    // Before anything else: the rest of a dummy packet "need not be well-formed" (RFC 4303 section 2.6).
    //= rfc4303 2.6 "a receiver MUST be prepared to discard such packets, without indicating an error."
    //= test: dummies_are_dropped_by_a_name_of_their_own, a_dummy_is_a_dummy_whatever_else_it_holds
    //= rfc4303 2.6 "To facilitate the rapid generation and discarding of the padding traffic in support of traffic flow confidentiality (see Section 2.4), the protocol value 59 (which means "no next header") MUST be used to designate a "dummy" packet."
    //= test: a_dummy_is_a_dummy_whatever_else_it_holds, dummies_are_dropped_by_a_name_of_their_own
    if *next_header == NEXT_HEADER_NONE {
        return Err(OpenError::Dummy);
    }
    let length = rest.len().checked_sub((*pad_length).into()).ok_or(OpenError::Padding)?;
    let (payload, padding) = rest.split_at(length);
    // RFC 4303 section 2.4: "the receiver SHOULD inspect the Padding field". All padding counts from 1, however long.
    if padding.iter().zip(1..=u8::MAX).all(|(octet, expected)| *octet == expected) {
        Ok((*next_header, payload.len()))
    } else {
        Err(OpenError::Padding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_ends_with_its_trailer_at_the_end_of_a_block() {
        for block in [4, 8, 16] {
            for length in 0..64 {
                let mut out = vec![0xEE; 5];
                out.resize(5 + length, 7);
                write_trailer(&mut out, 5, block, 17);
                let plaintext = &out[5..];
                assert_eq!(plaintext.len() % block, 0);
                assert!(plaintext.len() < length + TRAILER + block);
                assert_eq!(read_trailer(plaintext), Ok((17, length)));
            }
        }
    }

    #[test]
    fn padding_longer_than_needed_is_taken_up_to_its_limit() {
        let padding: Vec<u8> = (1..=255).collect();
        let plaintext = [&[7, 7, 7][..], &padding, &[255, 17]].concat();
        assert_eq!(read_trailer(&plaintext), Ok((17, 3)));
    }

    #[test]
    fn padding_of_other_octets_or_longer_than_the_packet_is_refused() {
        assert_eq!(read_trailer(&[9, 1, 2, 2, 17]), Ok((17, 1)));
        for wrong in
            [&[9, 1, 1, 2, 17][..], &[9, 0, 0, 2, 17], &[9, 2, 1, 2, 17], &[1, 2, 3, 4, 17], &[0xFF; 2], &[17], &[]]
        {
            assert_eq!(read_trailer(wrong), Err(OpenError::Padding), "{wrong:?}");
        }
    }

    #[test]
    fn a_dummy_is_a_dummy_whatever_else_it_holds() {
        assert_eq!(read_trailer(&[0xAA, 0xBB, 200, 59]), Err(OpenError::Dummy));
    }

    #[test]
    fn sequence_number_zero_does_not_exist() {
        assert_eq!(sequence_number(&[0, 0, 1, 1, 0, 0, 0, 2]), Some(2));
        assert_eq!(sequence_number(&[0, 0, 1, 1, 0, 0, 0, 0]), None);
        assert_eq!(sequence_number(&[0, 0, 1, 1, 0, 0, 0]), None);
    }
}
