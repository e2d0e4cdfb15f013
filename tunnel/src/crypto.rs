//! The one seam between the protocols and the cryptographic primitives.
//!
//! Algorithms are named by [`crate::suite`]; what a primitive needs beyond its name (sizes, widths, encodings, refusals) is kept
//! here and not in the protocols. No primitive is implemented here: they come from RustCrypto and, for AES-GCM, from AWS-LC.
//!
//! | module | what | RFCs |
//! |---|---|---|
//! | [`hash`] | digests, HMAC, comparison | 1320, 2104, 2202, 4231 |
//! | [`cbc`] | AES and triple DES in CBC mode, single DES for MS-CHAPv2 | 2451, 3602, 2759 |
//! | [`dh`] | MODP and ECP groups | 2409, 3526, 5903 |
//! | [`aead`] | AES-GCM | 4106 |
//! | [`signature`] | RSA and ECDSA, of IKE and of certificates | 2409, 4754, 8017 |

pub mod aead;
pub mod cbc;
pub mod dh;
pub mod hash;
pub mod signature;

/// A key that the algorithm does not take: of the wrong length, or one that the RFC refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key does not fit the algorithm")]
pub struct InvalidKey;

/// Data or an initialization vector whose length is not what the block size asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the length does not fit the block size of the cipher")]
pub struct InvalidLength;

/// A public value of a Diffie-Hellman exchange that is not a usable member of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public value is not valid in the group")]
pub struct InvalidPublicValue;

/// A signature that was not made with the key over the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct InvalidSignature;

/// An authentication tag that does not belong to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authentication tag does not match")]
pub struct AuthenticationFailed;
