//! What phase 1 is authenticated with: pre-shared keys (RFC 2409 section 5.4) and whose they are, or signatures (section 5.1).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::error::Error;
use super::payload::Identity;
use super::registry::AuthenticationMethod;
use crate::config::server::MAX_PRE_SHARED_KEYS;
use crate::crypto::signature::Algorithm;
use crate::suite::Hash;

/// How both ends prove who they are (RFC 2409 appendix A, RFC 4754).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    PreSharedKey,
    RsaSignature,
    EcdsaSha256,
    EcdsaSha384,
}

impl Method {
    pub(super) const ALL: [Self; 4] = [Self::PreSharedKey, Self::RsaSignature, Self::EcdsaSha256, Self::EcdsaSha384];

    /// The signatures of a key.
    pub(super) fn of(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Rsa => Self::RsaSignature,
            Algorithm::EcdsaP256 => Self::EcdsaSha256,
            Algorithm::EcdsaP384 => Self::EcdsaSha384,
        }
    }

    pub(super) fn number(self) -> AuthenticationMethod {
        match self {
            Self::PreSharedKey => AuthenticationMethod::PRE_SHARED_KEY,
            Self::RsaSignature => AuthenticationMethod::RSA_SIGNATURES,
            Self::EcdsaSha256 => AuthenticationMethod::ECDSA_256,
            Self::EcdsaSha384 => AuthenticationMethod::ECDSA_384,
        }
    }

    pub(super) fn of_number(number: AuthenticationMethod) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.number() == number)
    }

    /// The hash of HASH_I and HASH_R: the negotiated one, unless the signature is tied to another (RFC 2409 section 5.1).
    pub(super) fn hash(self, negotiated: Hash) -> Hash {
        match self {
            Self::PreSharedKey | Self::RsaSignature => negotiated,
            Self::EcdsaSha256 => Hash::Sha256,
            Self::EcdsaSha384 => Hash::Sha384,
        }
    }
}

/// A pre-shared key and whose it is.
#[derive(Clone)]
pub struct PreSharedKey {
    /// What to call it in logs: nothing secret.
    pub name: String,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
    /// The networks that peers with this key are in; anywhere if none is named.
    pub addresses: Vec<IpNet>,
    /// Who a peer with this key has to be; anyone if none is named.
    pub remote_id: Option<Identity>,
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreSharedKey")
            .field("name", &self.name)
            .field("addresses", &self.addresses)
            .field("remote_id", &self.remote_id)
            .finish_non_exhaustive()
    }
}

/// What this end proves itself with, and what proves the peer.
#[derive(Debug, Default)]
pub struct Credentials {
    /// Pre-shared keys. Two that fit the same peers are the old and the new one of a rotation.
    pub pre_shared_keys: Vec<PreSharedKey>,
    /// Our certificate, and what those of peers are judged by. An initiator that has one uses no pre-shared key.
    pub certificate: Option<Certificate>,
}

/// A pre-shared key in the list of all.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) index: usize,
    pub(super) key: &'a PreSharedKey,
}

impl Credentials {
    /// One pre-shared key that every peer has.
    pub fn pre_shared_key(key: Zeroizing<Vec<u8>>) -> Arc<Self> {
        let key = PreSharedKey { name: "pre-shared key".to_owned(), key, addresses: Vec::new(), remote_id: None };
        Arc::new(Self { pre_shared_keys: vec![key], certificate: None })
    }

    /// The keys that a peer at this address may have: those for its network, and then those for anywhere.
    pub(super) fn candidates(&self, remote: IpAddr) -> Vec<Candidate<'_>> {
        let remote = remote.to_canonical();
        let all = || {
            let keys = self.pre_shared_keys.iter().enumerate().take(MAX_PRE_SHARED_KEYS);
            keys.map(|(index, key)| Candidate { index, key })
        };
        let near = all().filter(|other| other.key.addresses.iter().any(|network| network.contains(&remote)));
        near.chain(all().filter(|other| other.key.addresses.is_empty())).collect()
    }

    /// The methods that a peer may choose from. Whether a key is for it shows with message 5.
    pub(super) fn methods(&self) -> Vec<Method> {
        let certificate = self.certificate.as_ref().map(Certificate::method);
        let key = (!self.pre_shared_keys.is_empty()).then_some(Method::PreSharedKey);
        certificate.into_iter().chain(key).collect()
    }

    /// The method that this end offers: the one of `before` as long as there is something for it.
    pub(super) fn offer(&self, remote: IpAddr, before: Option<&Authentication>) -> Result<Method, Error> {
        let mut methods = self.methods();
        methods.retain(|method| *method != Method::PreSharedKey || !self.candidates(remote).is_empty());
        let same = before.and_then(|before| methods.iter().find(|method| before.is_by(**method)));
        same.or_else(|| methods.first()).copied().ok_or(Error::Config("it has nothing that proves who this end is"))
    }

    /// The key that this end begins with: the one of `before` as long as it is there.
    pub(super) fn own_key(&self, remote: IpAddr, before: Option<&Authentication>) -> Result<Candidate<'_>, Error> {
        let candidates = self.candidates(remote);
        let same = |candidate: &&Candidate<'_>| before.is_some_and(|before| before.is_with(candidate));
        let key = candidates.iter().find(same).or_else(|| candidates.first());
        key.copied().ok_or(Error::Config("it has no pre-shared key for the peer"))
    }

    pub(super) fn own_certificate(&self) -> Result<&Certificate, Error> {
        self.certificate.as_ref().ok_or(Error::Config("it has no certificate"))
    }
}

/// What a peer has proved itself by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// A pre-shared key.
    PreSharedKey {
        /// Its place in [`Credentials::pre_shared_keys`] at that time.
        index: usize,
        /// Its name.
        name: String,
    },
    /// A certificate and a signature.
    Certificate {
        /// The subject as RFC 4514 writes it, or another name of it if that is empty.
        subject: String,
    },
}

impl Authentication {
    /// Whether it was with this key.
    fn is_with(&self, candidate: &Candidate<'_>) -> bool {
        matches!(self, Self::PreSharedKey { name, .. } if *name == candidate.key.name)
    }

    /// Whether it was by this method, or, for a certificate, by one like it.
    fn is_by(&self, method: Method) -> bool {
        matches!(self, Self::PreSharedKey { .. }) == (method == Method::PreSharedKey)
    }
}

impl From<Candidate<'_>> for Authentication {
    fn from(candidate: Candidate<'_>) -> Self {
        Self::PreSharedKey { index: candidate.index, name: candidate.key.name.clone() }
    }
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreSharedKey { name, .. } => name.fmt(f),
            Self::Certificate { subject } => write!(f, "certificate {subject}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, addresses: &[&str]) -> PreSharedKey {
        let addresses = addresses.iter().map(|network| network.parse().unwrap()).collect();
        PreSharedKey { name: name.to_owned(), key: Zeroizing::new(b"wonderland".to_vec()), addresses, remote_id: None }
    }

    fn credentials() -> Credentials {
        let keys = [("all", &[][..]), ("oslo", &["192.0.2.0/24", "2001:db8::/32"]), ("rome", &["198.51.100.7/32"])];
        let pre_shared_keys = keys.into_iter().map(|(name, addresses)| key(name, addresses)).collect();
        Credentials { pre_shared_keys, certificate: None }
    }

    fn names(credentials: &Credentials, remote: &str) -> Vec<String> {
        let candidates = credentials.candidates(remote.parse().unwrap());
        candidates.into_iter().map(|candidate| candidate.key.name.clone()).collect()
    }

    #[test]
    fn keys_for_a_network_come_before_those_for_anywhere_and_those_for_others_not_at_all() {
        for (remote, expected) in [
            ("192.0.2.9", &["oslo", "all"][..]),
            ("::ffff:192.0.2.9", &["oslo", "all"]),
            ("2001:db8::1", &["oslo", "all"]),
            ("198.51.100.7", &["rome", "all"]),
            ("203.0.113.1", &["all"]),
        ] {
            assert_eq!(names(&credentials(), remote), expected, "{remote}");
        }
    }

    #[test]
    fn no_peer_makes_this_end_try_more_keys_than_a_server_may_have() {
        let keys = (0..MAX_PRE_SHARED_KEYS + 9).map(|number| key(&number.to_string(), &[])).collect();
        let many = Credentials { pre_shared_keys: keys, certificate: None };
        assert_eq!(names(&many, "192.0.2.1").len(), MAX_PRE_SHARED_KEYS);
    }

    #[test]
    fn a_renewal_begins_with_the_key_of_before_wherever_it_stands_by_now() {
        let remote = [203, 0, 113, 1].into();
        let keys = vec![key("new", &[]), key("old", &[])];
        let mut credentials = Credentials { pre_shared_keys: keys, certificate: None };
        let before = Authentication::PreSharedKey { index: 0, name: "old".to_owned() };
        assert_eq!(credentials.own_key(remote, Some(&before)).unwrap().index, 1);
        assert_eq!(credentials.own_key(remote, None).unwrap().index, 0);
        credentials.pre_shared_keys.pop();
        assert_eq!(credentials.own_key(remote, Some(&before)).unwrap().key.name, "new");
        assert!(Credentials::default().own_key(remote, None).is_err());
    }

    #[test]
    fn no_key_is_shown() {
        assert!(!format!("{:?}", credentials()).contains("wonderland"));
    }
}
