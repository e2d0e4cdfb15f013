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
