//! What an [`EspProposal`] does to a packet: its sizes, encryption and ICV.

use std::ops::Deref;

use super::packet::{HEADER, TRAILER, padding};
use super::{Keys, OpenError};
use crate::crypto::aead::{self, AesGcm};
use crate::crypto::cbc::{self, CbcKey};
use crate::crypto::hash::{self, HmacKey};
use crate::crypto::{InvalidKey, InvalidLength};
use crate::inet::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER};
use crate::suite::{Cipher, EspProposal, Hash};

/// Octets of the salt that follows a key of AES-GCM (RFC 4106 section 8.1).
pub(super) const SALT: usize = 4;

/// The longest initialization vector, that of AES-CBC.
pub(super) const MAX_IV: usize = cbc::MAX_BLOCK;

/// The longest ICV, that of HMAC-SHA2-512-256.
const MAX_ICV: usize = 32;

/// The lengths that an algorithm gives to the fields of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) iv: usize,
    /// What the payload with its trailer is a multiple of: the block of the cipher, but 4 at least (RFC 4303 section 2.4).
    pub(super) block: usize,
    pub(super) icv: usize,
}

impl Sizes {
    //= rfc4303 2.3 "Note that the beginning of the next layer protocol header MUST be aligned relative to the beginning of the ESP header as follows."
    //= test: the_payload_begins_at_a_multiple_of_eight_octets_and_ends_at_one_of_four, every_changed_or_missing_octet_is_noticed
    fn of(proposal: &EspProposal) -> Self {
        let icv = proposal.integrity.map_or(0, icv_size);
        match proposal.cipher {
            Cipher::Aes256 | Cipher::Aes192 | Cipher::Aes128 => Self { iv: 16, block: 16, icv },
            Cipher::TripleDes => Self { iv: 8, block: 8, icv },
            Cipher::Aes256Gcm16 | Cipher::Aes128Gcm16 => Self { iv: 8, block: 4, icv: aead::TAG },
        }
    }

    /// The whole packet around a payload.
    pub(super) fn packet(&self, payload: usize) -> usize {
        HEADER + self.iv + payload + padding(payload, self.block) + TRAILER + self.icv
    }
}

/// RFC 2403 and 2404 cut to 96 bits, RFC 4868 to half of the output.
fn icv_size(hash: Hash) -> usize {
    match hash {
        Hash::Md5 | Hash::Sha1 => 12,
        Hash::Sha256 => 16,
        Hash::Sha384 => 24,
        Hash::Sha512 => 32,
    }
}

/// Octets of the ESP packet around a payload.
pub fn packet_size(proposal: &EspProposal, payload: usize) -> usize {
    Sizes::of(proposal).packet(payload)
}

/// The longest ESP payload (a UDP header and what follows it) whose packet fits into `outer_mtu`, over IP without options
/// and in UDP if it is `encapsulated` (RFC 3948); 0 if none fits.
pub fn inner_udp_payload(outer_mtu: usize, ipv6: bool, encapsulated: bool, proposal: &EspProposal) -> usize {
    let Sizes { iv, block, icv } = Sizes::of(proposal);
    let ip_header = if ipv6 { IPV6_HEADER } else { IPV4_HEADER };
    let udp_header = if encapsulated { UDP_HEADER } else { 0 };
    let plaintext = outer_mtu.saturating_sub(ip_header + udp_header + HEADER + iv + icv);
    (plaintext / block * block).saturating_sub(TRAILER)
}

/// How much of a code of HMAC-SHA2-256 travels with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// 128 bits, as RFC 4868 section 2.3 has it.
    Bits128,
    /// 96 bits, as in the drafts before it: Android before version 12, and gateways that want to be reached by it.
    Bits96,
}

impl Truncation {
    const ALL: [Self; 2] = [Self::Bits128, Self::Bits96];

    fn octets(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits96 => 12,
        }
    }
}

/// The algorithms of one SA with their keys.
pub(super) struct Transform {
    sizes: Sizes,
    /// Only with HMAC-SHA2-256.
    truncation: Option<Truncation>,
    protection: Protection,
}

#[allow(clippy::large_enum_variant, reason = "one value per security association, read for each packet")]
enum Protection {
    Cbc { cipher: CbcKey, integrity: HmacKey },
    Gcm { cipher: AesGcm, salt: [u8; SALT] },
}

/// An ICV, without a heap.
pub(super) struct Icv {
    octets: [u8; MAX_ICV],
    length: usize,
}

impl Deref for Icv {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.split_at(self.length).0
    }
}

impl Icv {
    /// The leftmost octets of a code, as many as the SA sends.
    fn cut(code: &[u8], length: usize) -> Self {
        let mut icv = Self { octets: [0; MAX_ICV], length };
        icv.octets.iter_mut().zip(code).for_each(|(to, from)| *to = *from);
        icv
    }
}

impl Transform {
    pub(super) fn new(keys: &Keys) -> Result<Self, InvalidKey> {
        //= rfc4303 1 "- confidentiality and integrity (MUST be supported)"
        //= test: what_one_end_seals_the_other_opens_under_every_suite, reserved_spis_and_unfit_keys_are_refused
        //= rfc4303 3.2 "Note that although both confidentiality and integrity are optional, at least one of these services MUST be selected, hence both algorithms MUST NOT be simultaneously NULL."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, reserved_spis_and_unfit_keys_are_refused
        //= rfc4303 5 "NOTE that although integrity and encryption may each be "NULL" under the circumstances noted above, they MUST NOT both be "NULL"."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, reserved_spis_and_unfit_keys_are_refused
        let proposal = &keys.proposal;
        if (keys.encryption.len(), keys.integrity.len()) != proposal.key_sizes() {
            return Err(InvalidKey);
        }
        let protection = match proposal.integrity {
            Some(hash) => Protection::Cbc {
                cipher: CbcKey::new(proposal.cipher, &keys.encryption)?,
                integrity: HmacKey::new(hash, &keys.integrity),
            },
            None if proposal.cipher.is_aead() => {
                let (key, salt) = keys.encryption.split_last_chunk().ok_or(InvalidKey)?;
                Protection::Gcm { cipher: AesGcm::new(key)?, salt: *salt }
            }
            None => return Err(InvalidKey),
        };
        let truncation = (proposal.integrity == Some(Hash::Sha256)).then_some(Truncation::Bits128);
        Ok(Self { sizes: Sizes::of(proposal), truncation, protection })
    }

    /// How much of its code travels, with HMAC-SHA2-256.
    pub(super) fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// Changes that; with other algorithms nothing changes.
    pub(super) fn set_truncation(&mut self, truncation: Truncation) {
        if let Some(known) = &mut self.truncation {
            *known = truncation;
            self.sizes.icv = truncation.octets();
        }
    }

    /// Takes the truncation that a packet of this length can have: the blocks of the ciphers leave one at most.
    pub(super) fn fit(&mut self, packet: usize) {
        let Sizes { iv, block, .. } = self.sizes;
        let fits = |truncation: &Truncation| {
            packet.checked_sub(HEADER + iv + truncation.octets()).is_some_and(|rest| rest.is_multiple_of(block))
        };
        if let Some(truncation) = Truncation::ALL.into_iter().find(fits) {
            self.set_truncation(truncation);
        }
    }

    pub(super) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(super) fn is_aead(&self) -> bool {
        matches!(self.protection, Protection::Gcm { .. })
    }

    /// Encrypts a packet that is complete but for its ICV, in place.
    pub(super) fn seal(&self, packet: &mut [u8]) -> Icv {
        const COMPLETE: &str = "the caller wrote a header, an initialization vector and whole blocks";
        match &self.protection {
            Protection::Cbc { cipher, integrity } => {
                let (iv, plaintext) = packet.split_at_mut(HEADER).1.split_at_mut(self.sizes.iv);
                cipher.encrypt(iv, plaintext).expect(COMPLETE);
                Icv::cut(&integrity.authenticate(&[packet]), self.sizes.icv)
            }
            Protection::Gcm { cipher, salt } => {
                let (header, rest) = packet.split_at_mut(HEADER);
                let (iv, plaintext) = rest.split_first_chunk_mut().expect(COMPLETE);
                Icv::cut(&cipher.seal_in_place(&nonce(*salt, *iv), header, plaintext), self.sizes.icv)
            }
        }
    }

    /// Checks the ICV of a packet and decrypts it in place. The plaintext still has its trailer.
    pub(super) fn open<'a>(&self, packet: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let Sizes { iv, block, icv } = self.sizes;
        let encrypted = packet.len().checked_sub(HEADER + iv + icv).ok_or(OpenError::Malformed)?;
        if encrypted == 0 || !encrypted.is_multiple_of(block) {
            return Err(OpenError::Malformed);
        }
        let (covered, icv) = packet.split_at_mut(HEADER + iv + encrypted);
        match &self.protection {
            Protection::Cbc { cipher, integrity } => {
                let code = Icv::cut(&integrity.authenticate(&[covered]), self.sizes.icv);
                if !hash::eq(&code, icv) {
                    return Err(OpenError::Authentication);
                }
                let (iv, data) = covered.split_at_mut(HEADER).1.split_at_mut(iv);
                cipher.decrypt(iv, data).map_err(|InvalidLength| OpenError::Malformed)?;
                Ok(data)
            }
            Protection::Gcm { cipher, salt } => {
                let (header, rest) = covered.split_at_mut(HEADER);
                let (iv, data) = rest.split_first_chunk_mut().ok_or(OpenError::Malformed)?;
                let tag = icv.first_chunk().ok_or(OpenError::Malformed)?;
                match cipher.open_in_place(&nonce(*salt, *iv), header, data, tag) {
                    Ok(()) => Ok(data),
                    Err(_) => Err(OpenError::Authentication),
                }
            }
        }
    }
}

/// RFC 4106 section 4: the salt of the SA, then the IV of the packet.
fn nonce(salt: [u8; SALT], iv: [u8; 8]) -> [u8; aead::NONCE] {
    let mut nonce = [0; aead::NONCE];
    nonce.iter_mut().zip(salt.into_iter().chain(iv)).for_each(|(to, from)| *to = from);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP, L2TP with its length field and no sequence numbers, PPP with address and control.
    const INNER_HEADERS: usize = 8 + 8 + 4;

    /// By hand from the forms of RFC 768, 791, 2661, 3948, 4303 and 8200: floor((outer - IP - UDP - ESP - IV - ICV) to a block)
    /// - trailer - inner headers.
    #[test]
    fn the_longest_inner_packets_are_those_of_the_table() {
        // The last column but one is ESP without UDP.
        let table: [(&[&str], [usize; 5], usize, usize); 5] = [
            (&["aes256-sha1", "aes128-md5", "aes192-sha256"], [1402, 1402, 1354, 1322, 1306], 1418, 1386),
            (&["aes256-sha384"], [1402, 1386, 1338, 1322, 1290], 1402, 1370),
            (&["aes128-sha512"], [1386, 1386, 1338, 1306, 1290], 1402, 1370),
            (&["3des-sha1", "3des-md5"], [1418, 1410, 1370, 1338, 1322], 1426, 1402),
            (&["aes128gcm16", "aes256gcm16"], [1418, 1410, 1366, 1338, 1318], 1426, 1398),
        ];
        for (suites, ipv4, plain, ipv6) in table {
            for suite in suites {
                let proposal = suite.parse().unwrap();
                let fits =
                    |mtu, ipv6, encapsulated| inner_udp_payload(mtu, ipv6, encapsulated, &proposal) - INNER_HEADERS;
                let inner = [1500, 1492, 1450, 1420, 1400].map(|mtu| fits(mtu, false, true));
                assert_eq!(inner, ipv4, "{suite}");
                assert_eq!((fits(1500, false, false), fits(1500, true, true)), (plain, ipv6), "{suite}");
            }
        }
    }

    #[test]
    fn the_payload_begins_at_a_multiple_of_eight_octets_and_ends_at_one_of_four() {
        for &cipher in Cipher::ALL {
            let integrity = (!cipher.is_aead()).then_some(Hash::Sha1);
            let proposal = EspProposal { cipher, integrity, group: None };
            let Sizes { iv, block, icv: _ } = Sizes::of(&proposal);
            assert_eq!(((HEADER + iv) % 8, block % 4), (0, 0), "{proposal}");
        }
    }

    #[test]
    fn the_longest_payload_fits_and_one_octet_more_does_not() {
        for suite in ["aes256-sha256", "aes256-sha384", "3des-sha1", "aes128gcm16"] {
            let proposal = suite.parse().unwrap();
            for (mtu, (encapsulated, udp_header)) in (576..1501).flat_map(|mtu| [(mtu, (true, 8)), (mtu, (false, 0))]) {
                let payload = inner_udp_payload(mtu, true, encapsulated, &proposal);
                let fits = |payload| packet_size(&proposal, payload) + IPV6_HEADER + udp_header <= mtu;
                assert!(fits(payload) && !fits(payload + 1), "{suite} {mtu} {encapsulated}");
            }
            for mtu in 0..52 {
                assert_eq!(inner_udp_payload(mtu, false, false, &proposal), 0, "{suite} {mtu}");
                assert_eq!(inner_udp_payload(mtu + 8, false, true, &proposal), 0, "{suite} {mtu}");
            }
        }
    }
}
