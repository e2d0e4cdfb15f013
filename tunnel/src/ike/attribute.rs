//! Data attributes of ISAKMP (RFC 2408 section 3.3): two octets of class, and a value of two octets in place of a length or one of
//! that length behind it.

use crate::wire::{Malformed, Reader};

/// The most attributes of one list: of a transform 9 are defined that matter, of a configuration some 20.
const MAX_ATTRIBUTES: usize = 32;

/// The Attribute Format bit: the value stands in place of the length.
const TYPE_VALUE: u16 = 0x8000;

/// A data attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) class: u16,
    pub(super) value: &'a [u8],
}

impl Attribute<'_> {
    /// The value as a number; none when it does not fit into eight octets.
    pub(super) fn number(&self) -> Option<u64> {
        let significant = self.value.iter().position(|&octet| octet != 0).unwrap_or(self.value.len());
        let value = self.value.get(significant..).unwrap_or_default();
        (value.len() <= 8).then(|| value.iter().fold(0, |sum, &octet| sum << 8 | u64::from(octet)))
    }
}

pub(super) fn read(octets: &[u8]) -> Result<Vec<Attribute<'_>>, Malformed> {
    let mut reader = Reader::new(octets);
    let mut attributes = Vec::new();
    while !reader.is_empty() {
        if attributes.len() >= MAX_ATTRIBUTES {
            return Err(Malformed::Invalid("number of attributes"));
        }
        let class = reader.u16("attribute type")?;
        let value = if class & TYPE_VALUE != 0 {
            reader.take(2, "attribute value")?
        } else {
            let length = reader.u16("attribute length")?;
            reader.take(usize::from(length), "attribute value")?
        };
        attributes.push(Attribute { class: class & !TYPE_VALUE, value });
    }
    Ok(attributes)
}

//= rfc2407 4.5 "Attributes described as basic MUST NOT be encoded as variable."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, a_life_follows_its_unit_and_is_basic_if_it_fits
//= rfc2409 Appendix.A "Attributes described as basic MUST NOT be encoded as variable."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, a_life_follows_its_unit_and_is_basic_if_it_fits
//= rfc2409 Appendix.A "(MUST use network byte order)."
//= test: a_key_length_is_stated_for_aes_alone_and_in_network_order, a_key_length_beside_a_cipher_of_one_length_or_in_another_order_is_passed_over
pub(super) fn write_basic(out: &mut Vec<u8>, class: u16, value: u16) {
    out.extend_from_slice(&(class | TYPE_VALUE).to_be_bytes());
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes an attribute with a value of any length up to 64 KiB.
pub(super) fn write_variable(out: &mut Vec<u8>, class: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("values of this crate are shorter than 64 KiB");
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn both_forms_are_read_and_written() {
        let mut out = Vec::new();
        write_basic(&mut out, 16_520, 0);
        write_variable(&mut out, 16_521, b"joe");
        write_variable(&mut out, 16_522, b"");
        assert_eq!(out, hex!("c0880000 40890003 6a6f65 408a0000"));
        let read: Vec<_> = read(&out).unwrap().iter().map(|found| (found.class, found.value)).collect();
        assert_eq!(read, [(16_520, &[0, 0][..]), (16_521, b"joe"), (16_522, b"")]);
    }

    #[test]
    fn a_number_may_have_leading_zeros_and_at_most_eight_octets() {
        let number = |value: &[u8]| Attribute { class: 1, value }.number();
        assert_eq!((number(&[0, 1]), number(&[]), number(&[0; 20])), (Some(1), Some(0), Some(0)));
        assert_eq!((number(&[1; 8]), number(&[1; 9])), (Some(0x0101_0101_0101_0101), None));
    }

    #[test]
    fn lists_cut_short_and_lists_without_end_are_refused() {
        let list = hex!("c0880000 40890003 6a6f65");
        for length in [1, 2, 3, 5, 6, 7, 8, 9, 10] {
            assert!(read(&list[..length]).is_err(), "{length}");
        }
        assert!(read(&[0xc0, 0x88, 0, 0].repeat(32)).is_ok());
        assert_eq!(read(&[0xc0, 0x88, 0, 0].repeat(33)), Err(Malformed::Invalid("number of attributes")));
    }
}
