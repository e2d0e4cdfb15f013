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
