//! Signatures: RSA with the padding of PKCS#1 v1.5 (RFC 8017 section 8.2) and ECDSA on P-256 and P-384, over the hashes of IKE (RFC
//! 2409 section 5.1, RFC 4754) and inside of certificates.
//!
//! The two differ in their encodings: IKE signs the bare hash with RSA, without the name of the hash algorithm in front of it,
//! and writes r and s of ECDSA at full width; certificates name the hash and write r and s as a SEQUENCE.

use p256::ecdsa::signature::hazmat::{PrehashVerifier as _, RandomizedPrehashSigner as _};
use rand::rngs::StdRng;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPublicKey as _};
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::{BoxedUint, Pkcs1v15Sign};
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature as Mismatch, PrivateKeyDer, SignatureVerificationAlgorithm, alg_id,
};
use sha2::{Sha256, Sha384, Sha512};

use super::hash;
use super::{InvalidKey, InvalidSignature};
use crate::suite::Hash;

/// The sizes of RSA keys in bits: shorter ones are weak, longer ones cost whoever checks them too much.
const RSA_SIZES: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA, 2048 to 8192 bits.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
}

/// A private key.
pub struct SigningKey(Private);

enum Private {
    Rsa(Box<rsa::PrivateKey>),
    P256(Box<p256::ecdsa::SigningKey>),
    P384(Box<p384::ecdsa::SigningKey>),
}

impl SigningKey {
    /// Reads a key in the encoding of PKCS#8, PKCS#1 or SEC1.
    pub fn read(der: &PrivateKeyDer<'_>) -> Result<Self, InvalidKey> {
        let private = match der {
            PrivateKeyDer::Pkcs1(der) => {
                Private::Rsa(Box::new(rsa::PrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).map_err(|_| InvalidKey)?))
            }
            PrivateKeyDer::Sec1(der) => sec1(der.secret_sec1_der()).ok_or(InvalidKey)?,
            PrivateKeyDer::Pkcs8(der) => pkcs8(der.secret_pkcs8_der()).ok_or(InvalidKey)?,
            _ => return Err(InvalidKey),
        };
        let key = Self(private);
        // Refuses one whose size nobody else would take.
        VerifyingKey::read(key.algorithm(), &key.public_key()?).map(|_| key)
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Private::Rsa(_) => Algorithm::Rsa,
            Private::P256(_) => Algorithm::EcdsaP256,
            Private::P384(_) => Algorithm::EcdsaP384,
        }
    }

    /// The public key as the subjectPublicKey of a certificate holds it: RSAPublicKey (RFC 8017 appendix A.1.1) or an
    /// uncompressed point (RFC 5480 section 2.2).
    pub fn public_key(&self) -> Result<Vec<u8>, InvalidKey> {
        Ok(match &self.0 {
            Private::Rsa(key) => key.as_public_key().to_pkcs1_der().map_err(|_| InvalidKey)?.as_bytes().to_vec(),
            Private::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Private::P384(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        })
    }

    /// The signature of IKE over a hash.
    pub fn sign(&self, rng: &mut StdRng, hash: &[u8]) -> Result<Vec<u8>, InvalidKey> {
        match &self.0 {
            Private::Rsa(key) => key.sign_with_rng(rng, Pkcs1v15Sign::new_unprefixed(), hash).map_err(|_| InvalidKey),
            Private::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash_with_rng(rng, hash).map_err(|_| InvalidKey)?;
                Ok(signature.to_bytes().to_vec())
            }
            Private::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash_with_rng(rng, hash).map_err(|_| InvalidKey)?;
                Ok(signature.to_bytes().to_vec())
            }
        }
    }
}

fn sec1(der: &[u8]) -> Option<Private> {
    let p256 = || p256::SecretKey::from_sec1_der(der).ok().map(|key| Private::P256(Box::new(key.into())));
    let p384 = || p384::SecretKey::from_sec1_der(der).ok().map(|key| Private::P384(Box::new(key.into())));
    p256().or_else(p384)
}

fn pkcs8(der: &[u8]) -> Option<Private> {
    let rsa = || rsa::PrivateKey::from_pkcs8_der(der).ok().map(|key| Private::Rsa(Box::new(key)));
    let p256 = || p256::SecretKey::from_pkcs8_der(der).ok().map(|key| Private::P256(Box::new(key.into())));
    let p384 = || p384::SecretKey::from_pkcs8_der(der).ok().map(|key| Private::P384(Box::new(key.into())));
    rsa().or_else(p256).or_else(p384)
}

/// A public key.
pub struct VerifyingKey(Public);

enum Public {
    Rsa(Box<rsa::PublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
}

impl VerifyingKey {
    /// Reads the subjectPublicKey of a certificate.
    pub fn read(algorithm: Algorithm, key: &[u8]) -> Result<Self, InvalidKey> {
        Ok(Self(match algorithm {
            Algorithm::Rsa => Public::Rsa(Box::new(rsa_public_key(key).ok_or(InvalidKey)?)),
            Algorithm::EcdsaP256 => {
                Public::P256(Box::new(p256::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidKey)?))
            }
            Algorithm::EcdsaP384 => {
                Public::P384(Box::new(p384::ecdsa::VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidKey)?))
            }
        }))
    }

    /// Checks the signature of IKE over a hash.
    pub fn verify(&self, hash: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        match &self.0 {
            Public::Rsa(key) => {
                key.verify(Pkcs1v15Sign::new_unprefixed(), hash, signature).map_err(|_| InvalidSignature)
            }
            Public::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify_prehash(hash, &signature))
                .map_err(|_| InvalidSignature),
            Public::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .and_then(|signature| key.verify_prehash(hash, &signature))
                .map_err(|_| InvalidSignature),
        }
    }

    /// Checks the signature of a certificate over its octets.
    fn verify_certificate(&self, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let digest = hash::digest(hash, &[message]);
        match &self.0 {
            Public::Rsa(key) => {
                let padding = match hash {
                    Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
                    Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
                    Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
                    Hash::Md5 | Hash::Sha1 => return Err(InvalidSignature),
                };
                key.verify(padding, &digest, signature).map_err(|_| InvalidSignature)
            }
            Public::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .and_then(|signature| key.verify_prehash(&digest, &signature))
                .map_err(|_| InvalidSignature),
            Public::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .and_then(|signature| key.verify_prehash(&digest, &signature))
                .map_err(|_| InvalidSignature),
        }
    }
}

fn rsa_public_key(der: &[u8]) -> Option<rsa::PublicKey> {
    let key = rsa::pkcs1::RsaPublicKeyRef::try_from(der).ok()?;
    let number = |octets: &[u8]| {
        let bits = u32::try_from(octets.len()).ok()?.checked_mul(8)?;
        BoxedUint::from_be_slice(octets, bits).ok()
    };
    // A longer key is refused before anything is computed with it.
    let modulus = key.modulus.as_bytes();
    if modulus.len() > RSA_SIZES.end() / 8 {
        return None;
    }
    let (modulus, exponent) = (number(modulus)?, number(key.public_exponent.as_bytes())?);
    rsa::PublicKey::new_with_size_limits(modulus, exponent, RSA_SIZES).ok()
}

/// A signature algorithm of certificates.
#[derive(Debug)]
struct OfCertificates {
    key: Algorithm,
    hash: Hash,
    key_id: AlgorithmIdentifier,
    signature_id: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for OfCertificates {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Mismatch> {
        let key = VerifyingKey::read(self.key, public_key).map_err(|_| Mismatch)?;
        key.verify_certificate(self.hash, message, signature).map_err(|_| Mismatch)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key_id
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature_id
    }
}

const fn rsa(hash: Hash, signature_id: AlgorithmIdentifier) -> OfCertificates {
    OfCertificates { key: Algorithm::Rsa, hash, key_id: alg_id::RSA_ENCRYPTION, signature_id }
}

const fn p256(hash: Hash, signature_id: AlgorithmIdentifier) -> OfCertificates {
    OfCertificates { key: Algorithm::EcdsaP256, hash, key_id: alg_id::ECDSA_P256, signature_id }
}

const fn p384(hash: Hash, signature_id: AlgorithmIdentifier) -> OfCertificates {
    OfCertificates { key: Algorithm::EcdsaP384, hash, key_id: alg_id::ECDSA_P384, signature_id }
}

/// The signature algorithms that certificates and revocation lists may have; SHA-1 and MD5 are none of them.
pub const OF_CERTIFICATES: &[&dyn SignatureVerificationAlgorithm] = &[
    &rsa(Hash::Sha256, alg_id::RSA_PKCS1_SHA256),
    &rsa(Hash::Sha384, alg_id::RSA_PKCS1_SHA384),
    &rsa(Hash::Sha512, alg_id::RSA_PKCS1_SHA512),
    &p256(Hash::Sha256, alg_id::ECDSA_SHA256),
    &p256(Hash::Sha384, alg_id::ECDSA_SHA384),
    &p256(Hash::Sha512, alg_id::ECDSA_SHA512),
    &p384(Hash::Sha256, alg_id::ECDSA_SHA256),
    &p384(Hash::Sha384, alg_id::ECDSA_SHA384),
    &p384(Hash::Sha512, alg_id::ECDSA_SHA512),
];

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use rand::SeedableRng;
    use rustls_pki_types::PrivatePkcs8KeyDer;

    fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> SigningKey {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        SigningKey::read(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()))).unwrap()
    }

    #[test]
    fn a_signature_over_a_hash_is_good_for_this_hash_and_this_key_only() {
        let mut rng = StdRng::seed_from_u64(1);
        for (algorithm, size) in
            [(&rcgen::PKCS_RSA_SHA256, 256), (&rcgen::PKCS_ECDSA_P256_SHA256, 64), (&rcgen::PKCS_ECDSA_P384_SHA384, 96)]
        {
            let (mine, other) = (key(algorithm), key(algorithm));
            let hash = vec![7; if size == 96 { 48 } else { 32 }];
            let signature = mine.sign(&mut rng, &hash).unwrap();
            assert_eq!(signature.len(), size);
            let public = |key: &SigningKey| VerifyingKey::read(key.algorithm(), &key.public_key().unwrap()).unwrap();
            assert_eq!(public(&mine).verify(&hash, &signature), Ok(()));
            assert!(public(&other).verify(&hash, &signature).is_err());
            let mut wrong = hash.clone();
            wrong[3] ^= 1;
            assert!(public(&mine).verify(&wrong, &signature).is_err());
            for at in [0, size / 2, size - 1] {
                let mut wrong = signature.clone();
                wrong[at] ^= 1;
                assert!(public(&mine).verify(&hash, &wrong).is_err(), "{size} {at}");
            }
            assert!(public(&mine).verify(&hash, &[]).is_err() && public(&mine).verify(&hash, &[0; 4096]).is_err());
        }
    }

    #[test]
    fn rsa_signs_the_bare_hash_behind_the_padding_of_block_type_1() {
        use crypto_bigint::modular::BoxedMontyForm;
        use rsa::traits::PublicKeyParts as _;
        let mine = key(&rcgen::PKCS_RSA_SHA256);
        let hash = [0x5a; 20];
        let signature = mine.sign(&mut StdRng::seed_from_u64(2), &hash).unwrap();
        let Private::Rsa(private) = &mine.0 else { panic!("not RSA") };
        // The public operation of RFC 8017 section 5.2.2 uncovers the encoded message.
        let signature = BoxedUint::from_be_slice(&signature, 2048).unwrap();
        let form = BoxedMontyForm::new(signature, private.n_params());
        let encoded = form.pow(private.e()).retrieve();
        let mut expected = vec![0, 1];
        expected.resize(256 - 21, 0xff);
        expected.push(0);
        expected.extend_from_slice(&hash);
        assert_eq!(encoded.to_be_bytes().to_vec(), expected);
    }

    #[test]
    fn the_signatures_of_rfc_4754_are_good() {
        // Section 8.1: the hash of "abc".
        let key = hex!(
            "04 2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970"
            "6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D"
        );
        let signature = hex!(
            "CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C"
            "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315"
        );
        let public = VerifyingKey::read(Algorithm::EcdsaP256, &key).unwrap();
        assert_eq!(public.verify(&hash::digest(Hash::Sha256, &[b"abc"]), &signature), Ok(()));
        assert!(public.verify(&hash::digest(Hash::Sha256, &[b"abd"]), &signature).is_err());
    }

    #[test]
    fn keys_are_read_as_pkcs_8_pkcs_1_and_sec_1() {
        use rsa::pkcs1::EncodeRsaPrivateKey as _;
        let read = |der: PrivateKeyDer<'_>| SigningKey::read(&der).unwrap().public_key().unwrap();
        let rsa = key(&rcgen::PKCS_RSA_SHA256);
        let Private::Rsa(private) = &rsa.0 else { panic!("not RSA") };
        let pkcs1 = private.to_pkcs1_der().unwrap();
        assert_eq!(read(PrivateKeyDer::Pkcs1(pkcs1.as_bytes().into())), rsa.public_key().unwrap());
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let ecdsa = key(algorithm);
            let sec1 = match &ecdsa.0 {
                Private::P256(key) => p256::SecretKey::from(key.as_nonzero_scalar()).to_sec1_der().unwrap(),
                Private::P384(key) => p384::SecretKey::from(key.as_nonzero_scalar()).to_sec1_der().unwrap(),
                Private::Rsa(_) => panic!("RSA"),
            };
            assert_eq!(read(PrivateKeyDer::Sec1(sec1.as_slice().into())), ecdsa.public_key().unwrap());
        }
    }

    #[test]
    fn short_and_very_long_rsa_keys_are_refused() {
        use rsa::pkcs1::UintRef;
        use x509_cert::der::Encode as _;
        let read = |bits: usize| {
            let modulus = vec![0xff; bits / 8];
            let key = rsa::pkcs1::RsaPublicKeyRef {
                modulus: UintRef::new(&modulus).unwrap(),
                public_exponent: UintRef::new(&[1, 0, 1]).unwrap(),
            };
            VerifyingKey::read(Algorithm::Rsa, &key.to_der().unwrap()).is_ok()
        };
        assert_eq!([1024, 2040, 2048, 4096, 8192, 8200].map(read), [false, false, true, true, true, false]);
    }

    #[test]
    fn a_key_of_another_curve_or_none_is_refused() {
        let p384 = key(&rcgen::PKCS_ECDSA_P384_SHA384).public_key().unwrap();
        assert!(VerifyingKey::read(Algorithm::EcdsaP256, &p384).is_err());
        assert!(VerifyingKey::read(Algorithm::Rsa, &p384).is_err());
        assert!(SigningKey::read(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(vec![0x30, 0]))).is_err());
    }
}
