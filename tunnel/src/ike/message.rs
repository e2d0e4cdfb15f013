//! The ISAKMP header and the chain of payloads (RFC 2408 sections 3.1 and 3.2).
//!
//! ```text
//!   0                   1                   2                   3
//!  +---------------------------------------------------------------+
//!  |                        Initiator Cookie (8)                   |
//!  |                        Responder Cookie (8)                   |
//!  +---------------+-------+-------+---------------+---------------+
//!  | Next Payload  | MjVer | MnVer | Exchange Type |     Flags     |
//!  |                          Message ID                           |
//!  |                            Length                             |
//!  +---------------------------------------------------------------+
//! ```

use zeroize::Zeroizing;

use super::registry::{ExchangeType, PayloadType};
use crate::wire::{Malformed, Reader, fix_length};

//= out: rfc2408 1.4.1 "Other protocols that provide algorithm and mechanism independent security MUST define their requirements for SA attributes." a demand on those who write protocols and documents; those of IPsec are in RFC 2407 section 4.5
//= out: rfc2408 1.4.2 "Security Association (SA) establishment MUST be part of the key management protocol defined for IP based networks." a demand on those who write protocols and documents: it is, in IKE
//= out: rfc2408 1.4.2 "The basic set of SA attributes that MUST be implemented to provide ISAKMP interoperability are defined in Appendix A." Appendix A defines none: those of RFC 2407 section 4.5 and RFC 2409 appendix A are what is implemented
//= out: rfc2408 1.5.2 "The CA MUST define the naming semantics for the certificates it issues." a demand on authorities; names are compared as RFC 4945 section 3.1 has it
//= out: rfc2408 1.5.3 "A digital signature algorithm MUST be used within ISAKMP's authentication component." signatures are supported, but RFC 2409 section 4 makes pre-shared keys mandatory, and most clients of L2TP have nothing else
//= out: rfc2408 3.1 "Implementations based on previous versions of ISAKMP Internet-Drafts MUST set the Major Version to 0." this implementation is based on the RFC
//= out: rfc2408 3.1 "Implementations based on previous versions of ISAKMP Internet-Drafts MUST set the Minor Version to 1." this implementation is based on the RFC
//= out: rfc2408 3.1 "In this instance, the Message ID field of the Informational Exchange MUST contain the Message ID of the original ISAKMP Phase 2 SA negotiation." binds who has set the Commit bit, which this end never does
//= out: rfc2408 3.16 "An implementation is NOT REQUIRED to understand any Vendor ID payloads." a permission
//= out: rfc2408 3.16 "An implementation is NOT REQUIRED to send any Vendor ID payload at all." a permission
//= out: rfc2408 3.16 "The vendor defined constant MUST be unique." a demand on who defines one: none is defined here, and those that are sent are those of RFC 3947 and its drafts, RFC 3706 and the fragments of Cisco
//= out: rfc2408 4.1 "If the defined exchanges do not meet the security requirements defined by the DOI, then the DOI MUST specify new exchange type(s) and the valid sequences of payloads that make up a successful exchange, and how to build and interpret those payloads." a demand on those who write protocols and documents
//= out: rfc2408 4.8 "When the Commit Bit is set, the Message ID field of the Informational Exchange MUST contain the Message ID of the original ISAKMP Phase 2 SA negotiation, rather than a new Message ID (MID)." binds who has set the Commit bit, which this end never does
//= out: rfc2408 5.1 "The receiving entity (initiator or responder) MUST do the following:" what follows are two things that one may do about a wrong length; neither is done, because anybody can send such a message
//= out: rfc2408 A.3 "All DOIs MUST reserve ISAKMP with a Protocol-ID of 1." a demand on those who write protocols and documents; RFC 2407 section 4.4.1 does
//= out: rfc2408 B "If a designer chooses to start from scratch, the following MUST be defined:" a demand on those who write protocols and documents

/// The length of the ISAKMP header.
pub(super) const HEADER_LENGTH: usize = 28;

/// The most payloads that one message may hold. Real first messages carry one SA and up to some 15 Vendor IDs.
const MAX_PAYLOADS: usize = 40;

/// The longest message that is looked at: the longest offer of real peers is below 4 KiB, eight certificates of RSA take some 12.
pub(super) const MAX_MESSAGE: usize = 16_384;

/// The Encryption bit.
pub(super) const FLAG_ENCRYPTION: u8 = 1;

/// The flags that are defined: Encryption, Commit and Authentication Only.
const FLAGS: u8 = 7;

const VERSION: u8 = 0x10;

pub(super) type Cookie = [u8; 8];

/// The two cookies: the name of an ISAKMP SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookies {
    pub(super) initiator: Cookie,
    pub(super) responder: Cookie,
}

impl Cookies {
    /// Both cookies in order, the SPI of the protocol ISAKMP.
    pub(super) fn spi(&self) -> [u8; 16] {
        let mut spi = [0; 16];
        let (initiator, responder) = spi.split_at_mut(8);
        initiator.copy_from_slice(&self.initiator);
        responder.copy_from_slice(&self.responder);
        spi
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cookies: Cookies,
    pub(super) next_payload: PayloadType,
    pub(super) exchange: ExchangeType,
    pub(super) flags: u8,
    pub(super) message_id: u32,
}

impl Header {
    /// A header for a message that is sent.
    pub(super) fn new(cookies: Cookies, exchange: ExchangeType, message_id: u32) -> Self {
        Self { cookies, next_payload: PayloadType::NONE, exchange, flags: 0, message_id }
    }

    //= rfc2408 2.4 "An 'X' in the column means the value MUST be present."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, a_header_that_does_not_fit_its_exchange_is_not_looked_at
    //= rfc2408 5.2 "When an ISAKMP message is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, a_header_that_does_not_fit_its_exchange_is_not_looked_at, flags_that_are_not_defined_are_refused
    /// Reads the header and returns it with the octets that follow it.
    pub(super) fn read(message: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        if message.len() > MAX_MESSAGE {
            return Err(Malformed::Invalid("ISAKMP message length"));
        }
        let mut reader = Reader::new(message);
        let cookies =
            Cookies { initiator: reader.array("initiator cookie")?, responder: reader.array("responder cookie")? };
        let next_payload = PayloadType(reader.u8("next payload")?);
        // RFC 2408 section 3.1: "Implementations SHOULD never accept packets with a minor version number larger than its own".
        if reader.u8("version")? != VERSION {
            return Err(Malformed::Invalid("ISAKMP version"));
        }
        let exchange = ExchangeType(reader.u8("exchange type")?);
        let flags = reader.u8("flags")?;
        if flags & !FLAGS != 0 {
            return Err(Malformed::Invalid("ISAKMP flags"));
        }
        let message_id = reader.u32("message ID")?;
        let length = reader.u32("length")?;
        let body = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_sub(HEADER_LENGTH))
            .ok_or(Malformed::Invalid("ISAKMP length"))?;
        // Octets behind the stated length are ignored: some clients append zeros.
        let body = reader.take(body, "ISAKMP message")?;
        if cookies.initiator == [0; 8] {
            return Err(Malformed::Invalid("initiator cookie"));
        }
        Ok((Self { cookies, next_payload, exchange, flags, message_id }, body))
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.flags & FLAG_ENCRYPTION != 0
    }

    //= rfc2408 3.1 "The remaining bits of the Flags field MUST be set to 0 prior to transmission."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, flags_that_are_not_defined_are_refused
    //= rfc2408 3.1 "However, the value MUST be reset after the Phase 1 negotiation."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, the_commit_bit_and_a_fourth_message_of_quick_mode_are_tolerated
    //= rfc2408 5.2 "When creating an ISAKMP message, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, trailing_octets_and_other_versions_are_refused, a_header_that_does_not_fit_its_exchange_is_not_looked_at
    /// Writes the header in front of `body`.
    pub(super) fn write(&self, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_LENGTH + body.len()).expect("messages of this crate are shorter than 64 KiB");
        let mut out = Vec::with_capacity(HEADER_LENGTH + body.len());
        out.extend_from_slice(&self.cookies.spi());
        //= rfc2408 3.1 "Implementations based on this version of the ISAKMP Internet-Draft MUST set the Major Version to 1."
        //= test: a_chain_is_read_as_it_was_written, trailing_octets_and_other_versions_are_refused
        //= rfc2408 3.1 "Implementations based on this version of the ISAKMP Internet-Draft MUST set the Minor Version to 0."
        //= test: a_chain_is_read_as_it_was_written, trailing_octets_and_other_versions_are_refused
        out.extend_from_slice(&[self.next_payload.0, VERSION, self.exchange.0, self.flags]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    /// A message without encryption.
    pub(super) fn write_plain(mut self, chain: &Chain) -> Vec<u8> {
        self.next_payload = chain.first;
        self.write(&chain.octets)
    }
}

/// One payload without its generic header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload<'a> {
    pub(super) kind: PayloadType,
    pub(super) body: &'a [u8],
}

/// The payloads of a message.
#[derive(Debug, Clone)]
pub(super) struct Payloads<'a> {
    list: Vec<Payload<'a>>,
    /// What stands behind the first payload up to the end of the last one: what the HASH payload of phase 2 covers.
    after_first: &'a [u8],
    /// What stands behind the last payload: padding of an encrypted message.
    padding: &'a [u8],
}

impl<'a> Payloads<'a> {
    //= rfc2408 3.4 "This field MUST NOT contain the values for the Proposal or Transform payloads as they are considered part of the security association negotiation."
    //= test: the_first_message_is_answered_with_its_own_proposal_and_the_vendor_ids_that_both_know, proposals_and_transforms_outside_of_an_sa_payload_are_refused
    //= rfc2408 5.3 "When any of the ISAKMP Payloads are received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: a_chain_is_read_as_it_was_written, proposals_and_transforms_outside_of_an_sa_payload_are_refused, a_reserved_field_that_is_not_zero_is_refused
    /// Follows the chain that begins with a payload of type `first`.
    pub(super) fn read(first: PayloadType, octets: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(octets);
        let (mut list, mut kind, mut first_end) = (Vec::new(), first, 0);
        while kind != PayloadType::NONE {
            if list.len() >= MAX_PAYLOADS {
                return Err(Malformed::Invalid("number of payloads"));
            }
            // They stand inside of an SA payload. What is not known at all is of another vendor, and is passed over.
            if matches!(kind, PayloadType::P | PayloadType::T) {
                return Err(Malformed::Invalid("next payload"));
            }
            let next = PayloadType(reader.u8("next payload")?);
            // RFC 2408 section 3.2: the field RESERVED is 0. A wrong key shows here first.
            if reader.u8("reserved")? != 0 {
                return Err(Malformed::Invalid("reserved field of a payload"));
            }
            let length = reader.u16("payload length")?;
            let length = usize::from(length).checked_sub(4).ok_or(Malformed::Invalid("payload length"))?;
            list.push(Payload { kind, body: reader.take(length, "payload")? });
            if list.len() == 1 {
                first_end = octets.len() - reader.len();
            }
            kind = next;
        }
        let end = octets.len() - reader.len();
        Ok(Self { list, after_first: octets.get(first_end..end).unwrap_or_default(), padding: reader.rest() })
    }

    /// Follows the chain of a message without encryption, where nothing may follow but zeros up to a multiple of 4.
    pub(super) fn read_plain(first: PayloadType, octets: &'a [u8]) -> Result<Self, Malformed> {
        let payloads = Self::read(first, octets)?;
        if payloads.padding.len() > 3 || payloads.padding.iter().any(|&octet| octet != 0) {
            return Err(Malformed::Trailing("ISAKMP message"));
        }
        Ok(payloads)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Payload<'a>> + '_ {
        self.list.iter().copied()
    }

    /// The bodies of all payloads of one type.
    pub(super) fn all(&self, kind: PayloadType) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.iter().filter(move |payload| payload.kind == kind).map(|payload| payload.body)
    }

    /// The body of the first payload of the type.
    pub(super) fn first(&self, kind: PayloadType) -> Option<&'a [u8]> {
        self.all(kind).next()
    }

    /// The body of the only payload of the type; a second one is refused.
    pub(super) fn single(&self, kind: PayloadType, what: &'static str) -> Result<&'a [u8], Malformed> {
        let mut all = self.all(kind);
        let body = all.next().ok_or(Malformed::Truncated(what))?;
        if all.next().is_some() { Err(Malformed::Invalid(what)) } else { Ok(body) }
    }

    //= rfc2409 5 "The SA payload MUST precede all other payloads in a phase 1 exchange."
    //= test: the_first_message_is_answered_with_its_own_proposal_and_the_vendor_ids_that_both_know, the_sa_payload_of_phase_1_comes_first_and_alone
    /// The body of the only SA payload of phase 1, which comes first (RFC 2409 section 5).
    pub(super) fn sa(&self) -> Result<&'a [u8], Malformed> {
        match self.list.first() {
            Some(first) if first.kind == PayloadType::SA => self.single(PayloadType::SA, "SA payload"),
            Some(_) | None => Err(Malformed::Invalid("first payload")),
        }
    }

    //= rfc2408 5.13 "When a Nonce payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: nonces_have_8_to_256_octets, nobody_is_admitted_without_a_public_value_of_the_right_length_and_a_nonce
    /// The body of the only NONCE payload: 8 to 256 octets (RFC 2409 section 5).
    pub(super) fn nonce(&self) -> Result<&'a [u8], Malformed> {
        //= rfc2409 5 "The length of nonce payload MUST be between 8 and 256 bytes inclusive."
        //= test: a_peer_is_kept_from_message_3_on_and_its_tunnel_comes_up, nonces_have_8_to_256_octets
        let nonce = self.single(PayloadType::NONCE, "nonce")?;
        if (8..=256).contains(&nonce.len()) { Ok(nonce) } else { Err(Malformed::Invalid("nonce length")) }
    }

    /// The body of the HASH payload that has to come first, and what it covers.
    pub(super) fn hashed(&self) -> Option<(&'a [u8], &'a [u8])> {
        //= rfc2409 5.5 "In Quick Mode, a HASH payload MUST immediately follow the ISAKMP header and a SA payload MUST immediately follow the HASH."
        //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, a_hash_behind_another_payload_is_none
        let first = self.list.first().filter(|payload| payload.kind == PayloadType::HASH)?;
        Some((first.body, self.after_first))
    }
}

/// A chain of payloads that is being written.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    first: PayloadType,
    /// Some of them are secret.
    octets: Zeroizing<Vec<u8>>,
    last: Option<usize>,
}

impl Chain {
    pub(super) fn new() -> Self {
        Self { first: PayloadType::NONE, octets: Zeroizing::default(), last: None }
    }

    //= rfc2408 5.3 "When creating the Generic Payload Header, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: a_chain_is_read_as_it_was_written, a_reserved_field_that_is_not_zero_is_refused
    /// Appends a payload.
    pub(super) fn push(&mut self, kind: PayloadType, body: &[u8]) {
        let at = self.octets.len();
        match self.last.and_then(|last| self.octets.get_mut(last)) {
            Some(next) => *next = kind.0,
            None => self.first = kind,
        }
        //= rfc2408 2.5.2 "All RESERVED fields in the ISAKMP protocol MUST be set to zero (0) when a packet is issued."
        //= test: a_chain_is_read_as_it_was_written, a_reserved_field_that_is_not_zero_is_refused
        self.octets.extend_from_slice(&[PayloadType::NONE.0, 0, 0, 0]);
        self.octets.extend_from_slice(body);
        fix_length(&mut self.octets, at + 2, at);
        self.last = Some(at);
    }

    /// The chain with a HASH payload in front of it.
    pub(super) fn behind_hash(&self, hash: &[u8]) -> Self {
        let mut chain = Self::new();
        chain.push(PayloadType::HASH, hash);
        if let Some(next) = chain.octets.first_mut() {
            *next = self.first.0;
        }
        let at = chain.octets.len();
        chain.octets.extend_from_slice(&self.octets);
        chain.last = self.last.map_or(chain.last, |last| Some(at + last));
        chain
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn first(&self) -> PayloadType {
        self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Vec<u8> {
        let mut chain = Chain::new();
        chain.push(PayloadType::NONCE, &[7; 16]);
        chain.push(PayloadType::VID, &[8; 3]);
        let cookies = Cookies { initiator: [1; 8], responder: [2; 8] };
        Header::new(cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain)
    }

    #[test]
    fn a_chain_is_read_as_it_was_written() {
        let message = message();
        let (header, body) = Header::read(&message).unwrap();
        assert_eq!((header.exchange, header.next_payload), (ExchangeType::IDENTITY_PROTECTION, PayloadType::NONCE));
        let payloads = Payloads::read_plain(header.next_payload, body).unwrap();
        assert_eq!(payloads.first(PayloadType::NONCE), Some(&[7; 16][..]));
        assert_eq!(payloads.first(PayloadType::VID), Some(&[8; 3][..]));
        assert_eq!(payloads.iter().count(), 2);
    }

    #[test]
    fn a_hash_covers_everything_behind_it_but_the_padding() {
        let mut rest = Chain::new();
        rest.push(PayloadType::NONCE, &[7; 8]);
        let chain = rest.behind_hash(&[9; 4]);
        let mut padded = chain.octets().to_vec();
        padded.extend_from_slice(&[0; 5]);
        let payloads = Payloads::read(chain.first(), &padded).unwrap();
        assert_eq!(payloads.hashed(), Some((&[9; 4][..], rest.octets())));
    }

    #[test]
    fn messages_cut_short_anywhere_are_refused() {
        let message = message();
        for length in 0..message.len() {
            let cut = message.get(..length).unwrap();
            assert!(Header::read(cut).is_err(), "{length}");
            // The same with a length field that fits.
            let mut cut = cut.to_vec();
            if let Some(field) = cut.get_mut(24..28) {
                field.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
                let (header, body) = Header::read(&cut).unwrap();
                assert!(Payloads::read_plain(header.next_payload, body).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn trailing_octets_and_other_versions_are_refused() {
        let mut long = message();
        long.extend_from_slice(b"more");
        let length = u32::try_from(long.len()).unwrap();
        long[24..28].copy_from_slice(&length.to_be_bytes());
        let (header, body) = Header::read(&long).unwrap();
        assert_eq!(Payloads::read_plain(header.next_payload, body).unwrap_err(), Malformed::Trailing("ISAKMP message"));
        let mut newer = message();
        newer[17] = 0x20;
        assert_eq!(Header::read(&newer).unwrap_err(), Malformed::Invalid("ISAKMP version"));
    }

    #[test]
    fn a_reserved_field_that_is_not_zero_is_refused() {
        let mut message = message();
        assert_eq!(message[HEADER_LENGTH + 1], 0);
        message[HEADER_LENGTH + 1] = 1;
        let (header, body) = Header::read(&message).unwrap();
        let refused = Malformed::Invalid("reserved field of a payload");
        assert_eq!(Payloads::read_plain(header.next_payload, body).unwrap_err(), refused);
    }

    fn chain(content: &[(PayloadType, &[u8])]) -> Chain {
        let mut chain = Chain::new();
        content.iter().for_each(|(kind, body)| chain.push(*kind, body));
        chain
    }

    #[test]
    fn the_sa_payload_of_phase_1_comes_first_and_alone() {
        let (sa, nonce) = ((PayloadType::SA, &[7; 8][..]), (PayloadType::NONCE, &[8; 8][..]));
        let found = |content: &[(PayloadType, &[u8])]| {
            let chain = chain(content);
            Payloads::read(chain.first(), chain.octets()).unwrap().sa().map(<[u8]>::to_vec)
        };
        assert_eq!(found(&[sa, nonce]), Ok(vec![7; 8]));
        for wrong in [&[nonce, sa][..], &[sa, sa], &[sa, nonce, sa], &[nonce], &[]] {
            assert!(found(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn proposals_and_transforms_outside_of_an_sa_payload_are_refused() {
        for kind in [PayloadType::P, PayloadType::T] {
            for content in [&[(kind, &[7; 8][..])][..], &[(PayloadType::SA, &[7; 8]), (kind, &[8; 8])]] {
                let chain = chain(content);
                let refused = Payloads::read(chain.first(), chain.octets()).unwrap_err();
                assert_eq!(refused, Malformed::Invalid("next payload"));
            }
        }
        // One of a vendor is none of our business.
        let chain = chain(&[(PayloadType(200), &[7; 8]), (PayloadType::NONCE, &[8; 8])]);
        assert!(Payloads::read(chain.first(), chain.octets()).unwrap().nonce().is_ok());
    }

    #[test]
    fn flags_that_are_not_defined_are_refused() {
        for (flags, taken) in [(0, true), (1, true), (2, true), (4, true), (8, false), (0x80, false), (0x41, false)] {
            let mut message = message();
            message[19] = flags;
            assert_eq!(Header::read(&message).is_ok(), taken, "{flags:x}");
        }
    }

    #[test]
    fn nonces_have_8_to_256_octets() {
        for (length, taken) in [(7, false), (8, true), (256, true), (257, false)] {
            let mut chain = Chain::new();
            chain.push(PayloadType::NONCE, &vec![7; length]);
            let payloads = Payloads::read(chain.first(), chain.octets()).unwrap();
            assert_eq!(payloads.nonce().is_ok(), taken, "{length}");
        }
    }

    #[test]
    fn a_hash_behind_another_payload_is_none() {
        let mut chain = Chain::new();
        chain.push(PayloadType::NONCE, &[7; 8]);
        chain.push(PayloadType::HASH, &[9; 4]);
        assert_eq!(Payloads::read(chain.first(), chain.octets()).unwrap().hashed(), None);
    }
}
