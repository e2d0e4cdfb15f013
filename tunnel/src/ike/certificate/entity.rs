//! What one certificate says (RFC 5280 section 4, RFC 4945 section 5.1).

use std::net::IpAddr;
use std::time::Duration;

use x509_cert::Certificate as X509;
use x509_cert::der::oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoOwned};

use crate::crypto::InvalidKey;
use crate::crypto::signature::{Algorithm, VerifyingKey};
use crate::ike::authentication::Method;
use crate::ike::payload::Identity;

/// How much of a subject is told.
const MAX_TITLE: usize = 200;

/// The most names of one certificate that are looked at.
const MAX_NAMES: usize = 64;

/// A certificate.
pub(super) struct Entity {
    der: Vec<u8>,
    /// The subject in DER; none if it is empty.
    subject: Option<Vec<u8>>,
    title: String,
    names: Vec<Identity>,
    algorithm: Option<Algorithm>,
    key: Vec<u8>,
    authority: bool,
    usage: Option<KeyUsage>,
    /// notBefore and notAfter since the Unix epoch.
    validity: [Duration; 2],
}

/// The subject as RFC 4514 writes it, without anything that a terminal would obey.
pub(in crate::ike) fn title(name: &Name) -> String {
    name.to_string().chars().take(MAX_TITLE).collect::<String>().escape_debug().to_string()
}

/// What the key of a certificate is for.
fn algorithm(info: &SubjectPublicKeyInfoOwned) -> Option<Algorithm> {
    let curve = || info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok();
    match info.algorithm.oid {
        RSA_ENCRYPTION => Some(Algorithm::Rsa),
        ID_EC_PUBLIC_KEY if curve() == Some(SECP_256_R_1) => Some(Algorithm::EcdsaP256),
        ID_EC_PUBLIC_KEY if curve() == Some(SECP_384_R_1) => Some(Algorithm::EcdsaP384),
        _ => None,
    }
}

fn identity(name: &GeneralName) -> Option<Identity> {
    match name {
        GeneralName::DnsName(name) => Some(Identity::Fqdn(name.as_str().to_owned())),
        GeneralName::Rfc822Name(name) => Some(Identity::UserFqdn(name.as_str().to_owned())),
        GeneralName::IpAddress(octets) => match *octets.as_bytes() {
            [a, b, c, d] => Some(Identity::Address(IpAddr::from([a, b, c, d]))),
            ref octets => <[u8; 16]>::try_from(octets).ok().map(|octets| Identity::Address(octets.into())),
        },
        _ => None,
    }
}

impl Entity {
    /// Reads a certificate; none if it cannot be read.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let certificate = X509::from_der(der).ok()?;
        let tbs = certificate.tbs_certificate();
        let subject = if tbs.subject().is_empty() { None } else { Some(tbs.subject().to_der().ok()?) };
        let names = tbs.get_extension::<SubjectAltName>().ok()?.map(|(_, names)| names.0).unwrap_or_default();
        let names: Vec<Identity> = names.iter().take(MAX_NAMES).filter_map(identity).collect();
        let title = match (&subject, names.first()) {
            (None, Some(name)) => name.to_string(),
            _ => title(tbs.subject()),
        };
        let info = tbs.subject_public_key_info();
        let validity = [tbs.validity().not_before, tbs.validity().not_after].map(|time| time.to_unix_duration());
        let authority = tbs.get_extension::<BasicConstraints>().ok()?.is_some_and(|(_, constraints)| constraints.ca);
        Some(Self {
            der: der.to_vec(),
            subject,
            title,
            names,
            algorithm: algorithm(info),
            key: info.subject_public_key.as_bytes()?.to_vec(),
            authority,
            usage: tbs.get_extension::<KeyUsage>().ok()?.map(|(_, usage)| usage),
            validity,
        })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn into_der(self) -> Vec<u8> {
        self.der
    }

    /// The subject in DER; none if it is empty.
    pub(super) fn subject(&self) -> Option<&[u8]> {
        self.subject.as_deref()
    }

    /// What to call it in logs.
    pub(super) fn title(&self) -> String {
        self.title.clone()
    }

    /// The subject, else the first of the other names (RFC 4945 sections 3.1.5 and 3.1.8).
    pub(super) fn identity(&self) -> Option<Identity> {
        self.subject.clone().map(Identity::DistinguishedName).or_else(|| self.names.first().cloned())
    }

    /// Whether it is a certificate for this identity: a distinguished name is the subject octet by octet (RFC 4945 section 3.1.5),
    /// any other one a subject alternative name (section 3.1.9).
    pub(super) fn has_name(&self, name: &Identity) -> bool {
        match name {
            Identity::DistinguishedName(der) => self.subject.as_ref() == Some(der),
            name => self.names.iter().any(|own| own.is_same(name)),
        }
    }

    /// The method of phase 1 that its key is for.
    pub(super) fn method(&self) -> Option<Method> {
        self.algorithm.map(Method::of)
    }

    pub(super) fn key(&self) -> Result<VerifyingKey, InvalidKey> {
        VerifyingKey::read(self.algorithm.ok_or(InvalidKey)?, &self.key)
    }

    /// The subjectPublicKey.
    pub(super) fn key_octets(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether it may issue certificates, as far as its key usage says.
    pub(super) fn may_issue(&self) -> bool {
        self.authority && self.usage.is_none_or(|usage| usage.key_cert_sign())
    }

    /// Whether its key is for signatures (RFC 4945 section 5.1.3.2).
    pub(super) fn may_sign(&self) -> bool {
        self.usage.is_none_or(|usage| usage.digital_signature() || usage.non_repudiation())
    }

    /// Whether its time is not over, and has begun.
    pub(super) fn is_valid(&self, unix: Duration) -> bool {
        let [begin, end] = self.validity;
        (begin..=end).contains(&unix)
    }

    /// notAfter since the Unix epoch.
    pub(super) fn expires(&self) -> Duration {
        self.validity[1]
    }
}
