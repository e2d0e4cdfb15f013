//! Block ciphers in CBC mode: AES (RFC 3602) and triple DES (RFC 2451); single DES for MS-CHAPv2 (RFC 2759 section 8.6).
//!
//! Padding is the protocol's: ISAKMP and ESP pad differently. Round keys are computed once for each key.

use aes::cipher::array::Array;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, InnerIvInit as _, KeyInit,
};
use aes::{Aes128, Aes192, Aes256};
use des::{Des, TdesEde3};
use zeroize::Zeroizing;

use super::{InvalidKey, InvalidLength};
use crate::suite::Cipher;

/// The longest block, that of AES.
pub const MAX_BLOCK: usize = 16;

/// The number of octets of a cipher's key; with AES-GCM without the salt.
pub fn key_size(cipher: Cipher) -> usize {
    match cipher {
        Cipher::Aes128 | Cipher::Aes128Gcm16 => 16,
        Cipher::Aes192 | Cipher::TripleDes => 24,
        Cipher::Aes256 | Cipher::Aes256Gcm16 => 32,
    }
}

/// A key of a block cipher, expanded for both directions.
pub struct CbcKey(Expanded);

#[allow(clippy::large_enum_variant, reason = "one value per security association, read for each packet")]
enum Expanded {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
    TripleDes(TdesEde3),
}

macro_rules! with_cipher {
    ($expanded:expr, $cipher:ident => $do:expr) => {
        match $expanded {
            Expanded::Aes128($cipher) => $do,
            Expanded::Aes192($cipher) => $do,
            Expanded::Aes256($cipher) => $do,
            Expanded::TripleDes($cipher) => $do,
        }
    };
}

impl CbcKey {
    /// Expands a key of exactly [`key_size`] octets. Refuses AES-GCM, and triple DES keys that are single DES in disguise.
    pub fn new(cipher: Cipher, key: &[u8]) -> Result<Self, InvalidKey> {
        fn expand<C: KeyInit>(key: &[u8]) -> Result<C, InvalidKey> {
            C::new_from_slice(key).map_err(|_wrong_length| InvalidKey)
        }
        Ok(Self(match cipher {
            Cipher::Aes128 => Expanded::Aes128(expand(key)?),
            Cipher::Aes192 => Expanded::Aes192(expand(key)?),
            Cipher::Aes256 => Expanded::Aes256(expand(key)?),
            Cipher::TripleDes if is_single_des(key) => return Err(InvalidKey),
            Cipher::TripleDes => Expanded::TripleDes(expand(key)?),
            Cipher::Aes128Gcm16 | Cipher::Aes256Gcm16 => return Err(InvalidKey),
        }))
    }

    /// The number of octets of a block, which is that of an initialization vector.
    pub fn block_size(&self) -> usize {
        match self.0 {
            Expanded::Aes128(_) | Expanded::Aes192(_) | Expanded::Aes256(_) => 16,
            Expanded::TripleDes(_) => 8,
        }
    }

    /// Encrypts whole blocks in place.
    pub fn encrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength> {
        fn run<C: BlockCipherEncrypt>(cipher: &C, iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength> {
            let iv = iv.try_into().map_err(|_wrong_length| InvalidLength)?;
            let (blocks, []) = Array::slice_as_chunks_mut(data) else { return Err(InvalidLength) };
            cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
            Ok(())
        }
        with_cipher!(&self.0, cipher => run(cipher, iv, data))
    }

    /// Decrypts whole blocks in place.
    pub fn decrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength> {
        fn run<C: BlockCipherDecrypt>(cipher: &C, iv: &[u8], data: &mut [u8]) -> Result<(), InvalidLength> {
            let iv = iv.try_into().map_err(|_wrong_length| InvalidLength)?;
            let (blocks, []) = Array::slice_as_chunks_mut(data) else { return Err(InvalidLength) };
            cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
            Ok(())
        }
        with_cipher!(&self.0, cipher => run(cipher, iv, data))
    }
}

/// RFC 2451 section 2.3: "if the first two or last two independent 64-bit keys are equal (k1 == k2 or k2 == k3), then the 3DES
/// operation is simply the same as DES. Implementers MUST reject keys that exhibit this property." Parity is no part of a key.
fn is_single_des(key: &[u8]) -> bool {
    const WITHOUT_PARITY: u64 = 0xFEFE_FEFE_FEFE_FEFE;
    let (keys, _) = key.as_chunks::<8>();
    let same = |a: &[u8; 8], b: &[u8; 8]| (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)) & WITHOUT_PARITY == 0;
    keys.array_windows().any(|[a, b]| same(a, b))
}

/// `DesEncrypt` of RFC 2759 section 8.6: one block under a key of 56 bits without parity.
pub fn des_encrypt_block(key: [u8; 7], block: [u8; 8]) -> [u8; 8] {
    let bits = key.iter().fold(0_u64, |bits, &octet| bits << 8 | u64::from(octet));
    // Seven bits to an octet; the lowest, the parity, is ignored by the cipher.
    let spread: Zeroizing<[u8; 8]> = Zeroizing::new(std::array::from_fn(|i| ((bits >> (49 - 7 * i)) << 1) as u8));
    let mut block = Array(block);
    Des::new(&Array(*spread)).encrypt_block(&mut block);
    block.0
}
