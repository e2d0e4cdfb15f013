//! Attribute value pairs (RFC 2661 section 4): format, the rules of each attribute, and the hiding of values.
//!
//! ```text
//!    0                   1                   2                   3
//!    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!   |M|H| rsvd  |      Length       |           Vendor ID           |
//!   |         Attribute Type        |        Attribute Value...
//!   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use std::ops::RangeInclusive;

use md5::{Digest, Md5};

use crate::registry;
use crate::wire::{Malformed, Reader};

/// The M bit: the AVP must be understood.
pub const MANDATORY: u16 = 0x8000;
const HIDDEN: u16 = 0x4000;
const RESERVED: u16 = 0x3c00;
const LENGTH_MASK: u16 = 0x03ff;

/// The header of an AVP, and so its least Length.
const HEADER: usize = 6;

/// The longest value: the Length has 10 bits.
pub const MAX_VALUE: usize = 0x3ff - HEADER;

/// The most AVPs that are read from one message; the RFC defines 39 attributes, and none of them comes twice but the Random
/// Vector.
const MAX_AVPS: usize = 64;

registry! {
    /// The attribute types of vendor 0 (sections 4.4.1 to 4.4.6).
    pub struct Attribute(u16) {
        MESSAGE_TYPE = 0, RESULT_CODE = 1, PROTOCOL_VERSION = 2, FRAMING_CAPABILITIES = 3, BEARER_CAPABILITIES = 4,
        TIE_BREAKER = 5, FIRMWARE_REVISION = 6, HOST_NAME = 7, VENDOR_NAME = 8, ASSIGNED_TUNNEL_ID = 9,
        RECEIVE_WINDOW_SIZE = 10, CHALLENGE = 11, Q931_CAUSE_CODE = 12, CHALLENGE_RESPONSE = 13, ASSIGNED_SESSION_ID = 14,
        CALL_SERIAL_NUMBER = 15, MINIMUM_BPS = 16, MAXIMUM_BPS = 17, BEARER_TYPE = 18, FRAMING_TYPE = 19, CALLED_NUMBER = 21,
        CALLING_NUMBER = 22, SUB_ADDRESS = 23, TX_CONNECT_SPEED = 24, PHYSICAL_CHANNEL_ID = 25,
        INITIAL_RECEIVED_LCP_CONFREQ = 26, LAST_SENT_LCP_CONFREQ = 27, LAST_RECEIVED_LCP_CONFREQ = 28, PROXY_AUTHEN_TYPE = 29,
        PROXY_AUTHEN_NAME = 30, PROXY_AUTHEN_CHALLENGE = 31, PROXY_AUTHEN_ID = 32, PROXY_AUTHEN_RESPONSE = 33,
        CALL_ERRORS = 34, ACCM = 35, RANDOM_VECTOR = 36, PRIVATE_GROUP_ID = 37, RX_CONNECT_SPEED = 38,
        SEQUENCING_REQUIRED = 39,
    }
}

/// What the RFC says about the AVPs of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The M bit that the attribute is sent with.
    pub mandatory: bool,
    /// Whether the value may be hidden.
    pub may_hide: bool,
    /// The lengths that the value may have.
    pub length: RangeInclusive<usize>,
}

impl Attribute {
    //= rfc2661 4.4.1 "The M-bit for this AVP MUST be set to 1."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.2 "The M-bit for this AVP MUST be set to 1."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.3 "The M-bit for this AVP MUST be set to 1."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.3 "The M-bit for this AVP MUST be set to 0."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.4 "The M-bit for this AVP MUST be set to 1."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.4 "The M-bit for this AVP MUST be set to 0."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.5 "The M-bit for this AVP MUST be set to 0."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.6 "The M-bit for this AVP MUST be set to 1."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, messages_are_written_as_xl2tpd_writes_them
    //= rfc2661 4.4.1 "This AVP MUST NOT be hidden (the H-bit MUST be 0)."
    //= test: values_that_must_not_be_hidden_are_never_hidden, a_hidden_value_that_must_not_be_hidden_is_not_used
    //= rfc2661 4.4.2 "This AVP MUST NOT be hidden (the H-bit MUST be 0)."
    //= test: values_that_must_not_be_hidden_are_never_hidden, a_hidden_value_that_must_not_be_hidden_is_not_used
    //= rfc2661 4.4.3 "This AVP MUST NOT be hidden (the H-bit MUST be 0)."
    //= test: values_that_must_not_be_hidden_are_never_hidden, a_hidden_value_that_must_not_be_hidden_is_not_used
    //= rfc2661 4.4.4 "This AVP MUST NOT be hidden (the H-bit MUST be 0)."
    //= test: values_that_must_not_be_hidden_are_never_hidden, a_hidden_value_that_must_not_be_hidden_is_not_used
    /// The rules of the attribute, if it is known.
    pub fn rules(self) -> Option<Rules> {
        let (mandatory, may_hide, length) = match self {
            Self::MESSAGE_TYPE | Self::PROTOCOL_VERSION | Self::ASSIGNED_TUNNEL_ID | Self::RECEIVE_WINDOW_SIZE => {
                (true, self == Self::ASSIGNED_TUNNEL_ID, 2..=2)
            }
            Self::RESULT_CODE => (true, false, 2..=MAX_VALUE),
            Self::FRAMING_CAPABILITIES | Self::BEARER_CAPABILITIES => (true, true, 4..=4),
            Self::TIE_BREAKER => (false, false, 8..=8),
            Self::FIRMWARE_REVISION => (false, true, 2..=2),
            Self::HOST_NAME => (true, false, 1..=MAX_VALUE),
            Self::VENDOR_NAME => (false, true, 0..=MAX_VALUE),
            Self::CHALLENGE => (true, true, 1..=MAX_VALUE),
            Self::Q931_CAUSE_CODE => (true, false, 3..=MAX_VALUE),
            Self::CHALLENGE_RESPONSE => (true, true, 16..=16),
            Self::ASSIGNED_SESSION_ID => (true, true, 2..=2),
            Self::CALL_SERIAL_NUMBER
            | Self::MINIMUM_BPS
            | Self::MAXIMUM_BPS
            | Self::BEARER_TYPE
            | Self::FRAMING_TYPE
            | Self::TX_CONNECT_SPEED => (true, true, 4..=4),
            Self::CALLED_NUMBER | Self::CALLING_NUMBER | Self::SUB_ADDRESS => (true, true, 0..=MAX_VALUE),
            Self::PHYSICAL_CHANNEL_ID | Self::RX_CONNECT_SPEED => (false, true, 4..=4),
            Self::INITIAL_RECEIVED_LCP_CONFREQ
            | Self::LAST_SENT_LCP_CONFREQ
            | Self::LAST_RECEIVED_LCP_CONFREQ
            | Self::PROXY_AUTHEN_NAME
            | Self::PROXY_AUTHEN_CHALLENGE
            | Self::PROXY_AUTHEN_RESPONSE
            | Self::PRIVATE_GROUP_ID => (false, true, 0..=MAX_VALUE),
            Self::PROXY_AUTHEN_TYPE | Self::PROXY_AUTHEN_ID => (false, true, 2..=2),
            Self::CALL_ERRORS => (true, true, 26..=26),
            Self::ACCM => (true, true, 10..=10),
            Self::RANDOM_VECTOR => (true, false, 1..=MAX_VALUE),
            Self::SEQUENCING_REQUIRED => (true, false, 0..=0),
            _ => return None,
        };
        Some(Rules { mandatory, may_hide, length })
    }
}

/// An AVP that is recognized, with its value in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Avp {
    /// The attribute.
    pub attribute: Attribute,
    /// The value; its length is one that the attribute allows.
    pub value: Vec<u8>,
}

/// Why a mandatory AVP cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The attribute is not known, is a vendor's own, or has a reserved bit set.
    #[error("not recognized")]
    Unrecognized,
    /// The value has a length that the attribute does not allow.
    #[error("wrong length")]
    WrongLength,
    /// The value is hidden, and no Random Vector comes before it, or there is no secret, or another one.
    #[error("hidden, and does not open with the secret of the tunnel")]
    Unopened,
}

/// Why the AVPs of a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadError {
    Malformed(Malformed),
    Mandatory { vendor: u16, attribute: Attribute, fault: Fault },
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The AVPs of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Avps {
    pub(super) list: Vec<Avp>,
    /// Whether one of them was hidden, and opened.
    pub(super) hidden: bool,
}

/// What is done about an AVP that is marked mandatory and cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// The message is refused, as section 4.1 asks.
    Refuse,
    /// It is left out: the message ends in any case what would have to be ended because of it.
    Tolerate,
}

/// Reads all AVPs behind the Message Type. What is not mandatory and cannot be used is left out, as section 7.1 asks.
pub(super) fn read_all(body: &[u8], secret: Option<&[u8]>, strictness: Strictness) -> Result<Avps, ReadError> {
    let mut reader = Reader::new(body);
    let mut avps = Avps::default();
    let mut random_vector = None;
    for _ in 0..MAX_AVPS {
        if reader.is_empty() {
            return Ok(avps);
        }
        let flags = reader.u16("AVP header")?;
        let vendor = reader.u16("AVP header")?;
        let attribute = Attribute(reader.u16("AVP header")?);
        let length = usize::from(flags & LENGTH_MASK).checked_sub(HEADER).ok_or(Malformed::Invalid("AVP Length"))?;
        let value = reader.take(length, "AVP")?;
        match read_value(flags, vendor, attribute, value, random_vector, secret) {
            Ok(_) if attribute == Attribute::RANDOM_VECTOR => random_vector = Some(value),
            Ok(value) => {
                avps.hidden |= flags & HIDDEN != 0;
                avps.list.push(Avp { attribute, value });
            }
            Err(fault) if flags & MANDATORY != 0 && strictness == Strictness::Refuse => {
                return Err(ReadError::Mandatory { vendor, attribute, fault });
            }
            //= rfc2661 4.1 "If the M bit is not set, an unrecognized AVP MUST be ignored."
            //= test: an_unknown_avp_is_ignored_unless_it_is_mandatory, an_unknown_mandatory_avp_in_an_sccrq_refuses_the_tunnel_and_an_optional_one_does_not
            Err(fault) => tracing::debug!(vendor, attribute = attribute.0, %fault, "AVP ignored"),
        }
    }
    reader.finish("list of AVPs").map(|()| avps).map_err(ReadError::Malformed)
}

fn read_value(
    flags: u16,
    vendor: u16,
    attribute: Attribute,
    value: &[u8],
    random_vector: Option<&[u8]>,
    secret: Option<&[u8]>,
) -> Result<Vec<u8>, Fault> {
    // "An AVP received with a reserved bit set to 1 MUST be treated as an unrecognized AVP."
    //= rfc2661 4.1 "An AVP received with a reserved bit set to 1 MUST be treated as an unrecognized AVP."
    //= test: messages_of_xl2tpd_are_read, the_m_bit_decides_about_what_cannot_be_used
    let known = flags & RESERVED == 0 && vendor == 0;
    let rules = attribute.rules().filter(|_| known).ok_or(Fault::Unrecognized)?;
    let value = if flags & HIDDEN == 0 {
        value.to_vec()
    } else {
        let (secret, random_vector) = secret.zip(random_vector).filter(|_| rules.may_hide).ok_or(Fault::Unopened)?;
        unhide(attribute, value, secret, random_vector).ok_or(Fault::Unopened)?
    };
    if rules.length.contains(&value.len()) { Ok(value) } else { Err(Fault::WrongLength) }
}

/// Appends an AVP in the clear. A value that is longer than an AVP can hold is cut.
pub(super) fn encode(out: &mut Vec<u8>, attribute: Attribute, value: &[u8]) {
    encode_with(out, attribute, value, 0);
}

/// Appends an AVP with its value hidden; the Random Vector is in the message already.
pub(super) fn encode_hidden(
    out: &mut Vec<u8>,
    attribute: Attribute,
    value: &[u8],
    secret: &[u8],
    random_vector: &[u8],
) {
    encode_with(out, attribute, &hide(attribute, value, secret, random_vector), HIDDEN);
}

fn encode_with(out: &mut Vec<u8>, attribute: Attribute, value: &[u8], hidden: u16) {
    let value = value.get(..MAX_VALUE).unwrap_or(value);
    let mandatory = if attribute.rules().is_some_and(|rules| rules.mandatory) { MANDATORY } else { 0 };
    let length = u16::try_from(HEADER + value.len()).expect("MAX_VALUE keeps the Length within 10 bits");
    //= rfc2661 4.1 "Reserved bits MUST be set to 0."
    //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, the_m_bit_decides_about_what_cannot_be_used
    //= rfc2661 7.1 "This MUST NOT be considered a license to send malformed AVPs, but simply a guide towards how to handle an improperly formatted message if one is received."
    //= test: messages_are_written_as_xl2tpd_writes_them, a_value_that_is_too_long_is_cut
    for field in [mandatory | hidden | length, 0, attribute.0] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out.extend_from_slice(value);
}

/// The block of an MD5 result, by which hidden values are chained.
const BLOCK: usize = 16;

/// Section 4.3: the hidden form of `value`, without padding.
fn hide(attribute: Attribute, value: &[u8], secret: &[u8], random_vector: &[u8]) -> Vec<u8> {
    let value = value.get(..MAX_VALUE - 2).unwrap_or(value);
    let length = u16::try_from(value.len()).expect("MAX_VALUE is less than 64 KiB");
    let mut subformat = length.to_be_bytes().to_vec();
    subformat.extend_from_slice(value);
    let mut mask = first_mask(attribute, secret, random_vector);
    for block in subformat.chunks_mut(BLOCK) {
        xor(block, &mask);
        mask = next_mask(secret, block);
    }
    subformat
}

/// Section 4.3, reversed; `None` when the length inside does not fit, as after a wrong secret.
fn unhide(attribute: Attribute, hidden: &[u8], secret: &[u8], random_vector: &[u8]) -> Option<Vec<u8>> {
    let mut subformat = hidden.to_vec();
    let mut mask = first_mask(attribute, secret, random_vector);
    for (block, hidden) in subformat.chunks_mut(BLOCK).zip(hidden.chunks(BLOCK)) {
        xor(block, &mask);
        mask = next_mask(secret, hidden);
    }
    let (length, rest) = subformat.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length))).map(<[u8]>::to_vec)
}

fn first_mask(attribute: Attribute, secret: &[u8], random_vector: &[u8]) -> [u8; BLOCK] {
    Md5::new()
        .chain_update(attribute.0.to_be_bytes())
        .chain_update(secret)
        .chain_update(random_vector)
        .finalize()
        .into()
}

fn next_mask(secret: &[u8], hidden: &[u8]) -> [u8; BLOCK] {
    Md5::new().chain_update(secret).chain_update(hidden).finalize().into()
}

fn xor(block: &mut [u8], mask: &[u8; BLOCK]) {
    for (octet, mask) in block.iter_mut().zip(mask) {
        *octet ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l2tp::message::{Body, Hiding, MessageType};
    use hex_literal::hex;
    use zeroize::Zeroizing;

    // Computed from the formulas of section 4.3 with another implementation of MD5; the second value has five octets of padding.
    const SECRET: &[u8] = b"tunnel secret";
    const RANDOM_VECTOR: [u8; 16] = hex!("000102030405060708090a0b0c0d0e0f");
    const SESSION_ID: [u8; 4] = hex!("372c0fd9");
    const CHALLENGE: &[u8] = b"a challenge of more than two blocks, 43 oct";
    const HIDDEN_CHALLENGE: [u8; 50] =
        hex!("34dca2a258fce7a8a1dbeb5689d15be6d968944871279f42354d837fb6de469e78a55bd7ecc231ee2c28127b676f8f7cfddb");

    /// The attributes as sections 4.4.1 to 4.4.6 have them: which are sent with the M bit, and which values must not be hidden.
    const MANDATORY_ONES: [u16; 23] =
        [0, 1, 2, 3, 4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 34, 35];
    const MORE_MANDATORY_ONES: [u16; 2] = [36, 39];
    const NEVER_HIDDEN: [u16; 9] = [0, 1, 2, 5, 7, 10, 12, 36, 39];

    /// Every attribute with a value of the least length that it may have.
    fn all() -> impl Iterator<Item = (Attribute, Vec<u8>)> {
        (0..=39).map(Attribute).filter_map(|attribute| Some((attribute, vec![0; *attribute.rules()?.length.start()])))
    }

    fn read(body: &[u8], secret: Option<&[u8]>) -> Result<Avps, ReadError> {
        read_all(body, secret, Strictness::Refuse)
    }

    #[test]
    fn values_are_hidden_by_the_formula() {
        assert_eq!(hide(Attribute::ASSIGNED_SESSION_ID, &hex!("b03f"), SECRET, &RANDOM_VECTOR), SESSION_ID);
        let hidden = hide(Attribute::CHALLENGE, CHALLENGE, SECRET, &RANDOM_VECTOR);
        assert_eq!(hidden, HIDDEN_CHALLENGE[..45]);
    }

    #[test]
    fn hidden_values_are_opened_with_the_secret_only() {
        let open = |secret| unhide(Attribute::CHALLENGE, &HIDDEN_CHALLENGE, secret, &RANDOM_VECTOR);
        assert_eq!(open(SECRET).as_deref(), Some(CHALLENGE));
        assert_eq!(open(b"other"), None);
        assert_eq!(unhide(Attribute::CHALLENGE, &[1], SECRET, &RANDOM_VECTOR), None);
        assert_eq!(unhide(Attribute::CHALLENGE, &[], SECRET, &RANDOM_VECTOR), None);
    }

    #[test]
    fn a_hidden_avp_uses_the_random_vector_before_it() {
        let hidden = hex!("c00a 0000 000e 372c0fd9");
        let vector = hex!("8016 0000 0024 000102030405060708090a0b0c0d0e0f");
        let avps = read(&[&hex!("8008 0000 0024 ffff")[..], &vector, &hidden].concat(), Some(SECRET)).unwrap();
        let list = vec![Avp { attribute: Attribute::ASSIGNED_SESSION_ID, value: hex!("b03f").to_vec() }];
        assert_eq!(avps, Avps { list, hidden: true });
        let attribute = Attribute::ASSIGNED_SESSION_ID;
        let unopened = Err(ReadError::Mandatory { vendor: 0, attribute, fault: Fault::Unopened });
        assert_eq!(read(&[&hidden[..], &vector].concat(), Some(SECRET)), unopened);
        assert_eq!(read(&[&vector[..], &hidden].concat(), None), unopened);
    }

    #[test]
    fn the_m_bit_of_each_attribute_is_that_of_the_rfc() {
        assert_eq!(all().count(), 39);
        for (attribute, value) in all() {
            let mut out = Vec::new();
            encode(&mut out, attribute, &value);
            let mandatory = [&MANDATORY_ONES[..], &MORE_MANDATORY_ONES].concat().contains(&attribute.0);
            // The reserved bits are zero.
            assert_eq!(out[0] & 0xfc, if mandatory { 0x80 } else { 0 }, "{attribute}");
        }
    }

    #[test]
    fn values_that_must_not_be_hidden_are_never_hidden() {
        let hiding = Hiding { secret: Zeroizing::new(SECRET.to_vec()), random_vector: RANDOM_VECTOR };
        let before = Body::new(MessageType::SCCRQ).hide(Some(hiding.clone())).into_octets();
        // Message Type and Random Vector come first and in the clear.
        assert_eq!((&before[..2], &before[8..10]), (&hex!("8008")[..], &hex!("8016")[..]));
        for (attribute, value) in all() {
            let body = Body::new(MessageType::SCCRQ).hide(Some(hiding.clone())).bytes(attribute, &value);
            let is_hidden = body.into_octets()[before.len()] & 0x40 != 0;
            assert_eq!(is_hidden, !NEVER_HIDDEN.contains(&attribute.0), "{attribute}");
        }
    }

    #[test]
    fn a_hidden_value_that_must_not_be_hidden_is_not_used() {
        for (attribute, value) in all() {
            let mut body = Vec::new();
            encode(&mut body, Attribute::RANDOM_VECTOR, &RANDOM_VECTOR);
            encode_hidden(&mut body, attribute, &value, SECRET, &RANDOM_VECTOR);
            let read = read_all(&body, Some(SECRET), Strictness::Tolerate).unwrap();
            let used = read.list.iter().any(|avp| avp.attribute == attribute);
            assert_eq!(used, !NEVER_HIDDEN.contains(&attribute.0), "{attribute}");
        }
    }

    #[test]
    fn the_m_bit_decides_about_what_cannot_be_used() {
        for (mandatory, fault) in [
            (hex!("8008 0000 0063 0000"), Fault::Unrecognized),
            (hex!("8008 0001 0009 0000"), Fault::Unrecognized),
            (hex!("8408 0000 0009 0000"), Fault::Unrecognized),
            (hex!("8008 0000 0003 0000"), Fault::WrongLength),
            (hex!("c008 0000 0007 0000"), Fault::Unopened),
        ] {
            let [vendor, attribute] = [2, 4].map(|at| u16::from_be_bytes([mandatory[at], mandatory[at + 1]]));
            let expected = ReadError::Mandatory { vendor, attribute: Attribute(attribute), fault };
            assert_eq!(read(&mandatory, Some(SECRET)), Err(expected));
            assert_eq!(read_all(&mandatory, Some(SECRET), Strictness::Tolerate), Ok(Avps::default()));
            let mut optional = mandatory;
            optional[0] &= 0x7f;
            assert_eq!(read(&optional, Some(SECRET)), Ok(Avps::default()));
        }
    }

    #[test]
    fn lengths_that_do_not_fit_and_endless_lists_are_malformed() {
        for input in [&hex!("8005 0000 0009")[..], &hex!("8009 0000 0009 0000"), &hex!("8008 0000 00")] {
            assert!(matches!(read(input, None), Err(ReadError::Malformed(_))), "{input:02x?}");
        }
        let empty = hex!("0006 0000 0008");
        assert!(read(&empty.repeat(MAX_AVPS), None).is_ok());
        assert!(read(&empty.repeat(MAX_AVPS + 1), None).is_err());
    }

    #[test]
    fn a_value_that_is_too_long_is_cut() {
        let mut out = Vec::new();
        encode(&mut out, Attribute::HOST_NAME, &[b'a'; 2000]);
        assert_eq!(out.len(), 1023);
        assert_eq!(out[..2], [0x83, 0xff]);
        out.clear();
        encode_hidden(&mut out, Attribute::CHALLENGE, &[7; 2000], SECRET, &RANDOM_VECTOR);
        assert_eq!(out.len(), 1023);
    }
}
