//! X.509 certificates in phase 1 (RFC 4945, RFC 5280): our own with its private key, and the judgement of a peer's.
//!
//! ```text
//!   exchange   CERT and CERTREQ payloads, PKCS #7
//!   entity     what one certificate says: names, key, usage, validity
//!   trust      from a certificate to an authority: chains and revocation lists (webpki)
//!   files      from PEM, as a Secret of type kubernetes.io/tls holds it
//! ```

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::authentication::Method;
use super::error::Error;
use super::message::{Chain, Payloads};
use super::payload::Identity;
use super::registry::PayloadType;
use crate::crypto::signature::SigningKey;

mod entity;
mod exchange;
mod files;
#[cfg(test)]
pub(super) mod pki;
#[cfg(test)]
mod tests;
mod trust;

pub(super) use entity::title;
pub(super) use exchange::asks;
pub use files::{File, Pem, Unusable};

use entity::Entity;
use files::NextUpdate;
use trust::Trust;

/// The most certificates of a chain that are looked at: the end entity, six intermediate authorities, and one that is trusted.
const MAX_CHAIN: usize = 8;

/// The calendar at some instant of the clock that the protocols run by.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The instant.
    pub instant: Instant,
    /// The time since the Unix epoch at that instant.
    pub unix: Duration,
}

impl Clock {
    /// The time since the Unix epoch.
    fn at(&self, now: Instant) -> Duration {
        self.unix.saturating_add(now.saturating_duration_since(self.instant))
    }
}

/// Our certificate with its key, and what a peer's certificate must be.
pub struct Certificate {
    key: SigningKey,
    own: Entity,
    /// Ours and those of intermediate authorities, in DER.
    chain: Vec<Vec<u8>>,
    trust: Trust,
    next_updates: Vec<NextUpdate>,
    /// The peer's certificate must have one of these names; any name if none is given.
    remote_names: Vec<Identity>,
    clock: Clock,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("subject", &self.own.title()).finish_non_exhaustive()
    }
}

/// What is wrong with a certificate or with what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No chain leads to an authority that is trusted.
    #[error("comes from no authority that is trusted")]
    Untrusted,
    /// The time of one of the chain is over.
    #[error("or one that it depends on has expired")]
    Expired,
    /// The time of one of the chain has not begun.
    #[error("or one that it depends on is not valid yet")]
    NotYetValid,
    /// One of the chain is in a revocation list.
    #[error("or one that it depends on is revoked")]
    Revoked,
    /// A signature was not made by the issuer that it names.
    #[error("or one that it depends on has a signature that is wrong")]
    WrongSignature,
    /// A signature or key that is too weak or unknown here.
    #[error(
        "or one that it depends on has an algorithm that is too weak or unknown (RSA from 2048 bits, P-256 and P-384 with SHA-2 are taken)"
    )]
    Weak,
    /// An issuer that may not issue, or a chain longer than an issuer allows.
    #[error("was issued by one who may not issue it")]
    NotAnAuthority,
    /// keyUsage or extendedKeyUsage leave IKE out.
    #[error("is not for signatures in IKE by its key usage")]
    Usage,
    /// Not X.509 version 3 in DER, or with a critical extension that is unknown here.
    #[error("cannot be read")]
    Unreadable,
}

/// A peer that has proved to have the key of a certificate.
pub(super) struct Peer {
    pub(super) id: Identity,
    pub(super) subject: String,
}

impl Certificate {
    /// How it is proved that this end has the key.
    pub(super) fn method(&self) -> Method {
        Method::of(self.key.algorithm())
    }

    /// Our identity: the one that is asked for, else the subject, else the first name.
    pub(super) fn identity(&self, wanted: Option<&Identity>) -> Result<Identity, Error> {
        match wanted {
            Some(wanted) => Ok(wanted.clone()),
            None => self.own.identity().ok_or(Error::Config("our certificate has neither subject nor name")),
        }
    }

    /// Whether our certificate has this name, so that a peer may believe it.
    pub fn has_name(&self, name: &Identity) -> bool {
        self.own.has_name(name)
    }

    /// Appends our certificates.
    pub(super) fn write_chain(&self, chain: &mut Chain) {
        self.chain.iter().for_each(|der| chain.push(PayloadType::CERT, &exchange::certificate(der)));
    }

    /// Appends the wish for certificates of the authorities that are trusted.
    pub(super) fn write_requests(&self, chain: &mut Chain) {
        self.trust.requests().iter().for_each(|body| chain.push(PayloadType::CR, body));
    }

    /// Our signature over HASH_I or HASH_R.
    pub(super) fn sign(&self, rng: &mut StdRng, hash: &[u8]) -> Result<Vec<u8>, Error> {
        self.key.sign(rng, hash).map_err(|_| Error::Config("our key cannot sign this hash"))
    }

    //= rfc2408 5.12 "When a Signature payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: each_kind_of_key_establishes_with_each_hash_and_names_the_subjects, a_signature_by_another_key_or_over_another_hash_is_refused, a_certificate_of_another_kind_than_agreed_is_refused
    /// Judges the peer: `hash` is what it must have signed, `id` the body of its ID payload. The certificate must have the
    /// names `id` and `expected`, if there is one.
    pub(super) fn judge(
        &self,
        now: Instant,
        payloads: &Payloads<'_>,
        id: &[u8],
        hash: &[u8],
        expected: Option<&Identity>,
    ) -> Result<Peer, Error> {
        let received = exchange::received(payloads);
        let identity = Identity::read(id);
        let (end, others) = Self::end_entity(&received, &identity)?;
        let subject = end.title();
        let invalid = |problem| Error::InvalidCertificate { subject: subject.clone(), problem };
        if end.method() != Some(self.method()) {
            return Err(invalid(Problem::Weak));
        }
        let signature = payloads.first(PayloadType::SIG).ok_or(Error::InvalidSignature)?;
        let key = end.key().map_err(|_| invalid(Problem::Weak))?;
        key.verify(hash, signature).map_err(|_| Error::InvalidSignature)?;
        self.trust.verify(&end, &others, self.clock.at(now)).map_err(invalid)?;
        let unnamed = |name: &Identity| Error::NotInCertificate { subject: subject.clone(), name: name.clone() };
        // RFC 4945 section 3.1: "If there is not a match, this MUST be treated as an error".
        if !end.has_name(&identity) {
            return Err(unnamed(&identity));
        }
        if let Some(missing) = expected.filter(|name| !end.has_name(name)) {
            return Err(unnamed(missing));
        }
        match self.remote_names.first() {
            Some(first) if !self.remote_names.iter().any(|name| end.has_name(name)) => Err(unnamed(first)),
            _ => Ok(Peer { id: identity, subject }),
        }
    }

    /// The certificate of the peer among those that it sent, in whatever order (RFC 4945 section 3.3.10.3): one that has the
    /// name of the identity, else the first one of no authority.
    fn end_entity(received: &[Vec<u8>], identity: &Identity) -> Result<(Entity, Vec<Vec<u8>>), Error> {
        if received.is_empty() {
            return Err(Error::NoCertificate);
        }
        let mut entities: Vec<Entity> = received.iter().filter_map(|der| Entity::read(der)).collect();
        let ends = || entities.iter().enumerate().filter(|(_, entity)| !entity.is_authority());
        let named = ends().find(|(_, entity)| entity.has_name(identity)).or_else(|| ends().next());
        match named.map(|(index, _)| index) {
            Some(index) => {
                let end = entities.swap_remove(index);
                Ok((end, entities.into_iter().map(Entity::into_der).collect()))
            }
            None => Err(Error::InvalidCertificate { subject: String::new(), problem: Problem::Unreadable }),
        }
    }
}
