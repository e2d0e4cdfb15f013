//! What phase 1 is authenticated with: pre-shared keys (RFC 2409 section 5.4) and whose they are, or signatures (section 5.1).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::certificate::Certificate;
use super::error::Error;
use super::main_mode::Role;
use super::payload::Identity;
use super::registry::AuthenticationMethod;
use super::xauth;
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

    /// Its number, if the given end authenticates itself by XAUTH afterwards (draft-beaulieu-ike-xauth-02 section 7.2). ECDSA has
    /// none with XAUTH.
    pub(super) fn extended(self, xauth: Option<Role>) -> Option<AuthenticationMethod> {
        match (self, xauth) {
            (_, None) => Some(self.into()),
            (Self::PreSharedKey, Some(Role::Initiator)) => Some(AuthenticationMethod::XAUTH_INIT_PRE_SHARED),
            (Self::PreSharedKey, Some(Role::Responder)) => Some(AuthenticationMethod::XAUTH_RESP_PRE_SHARED),
            (Self::RsaSignature, Some(Role::Initiator)) => Some(AuthenticationMethod::XAUTH_INIT_RSA),
            (Self::RsaSignature, Some(Role::Responder)) => Some(AuthenticationMethod::XAUTH_RESP_RSA),
            (Self::EcdsaSha256 | Self::EcdsaSha384, Some(Role::Initiator | Role::Responder)) => None,
        }
    }

    pub(super) fn of_number(number: AuthenticationMethod) -> Option<(Self, Option<Role>)> {
        let all = || Self::ALL.into_iter();
        let extensions = [None, Some(Role::Initiator), Some(Role::Responder)].into_iter();
        extensions
            .flat_map(|xauth| all().map(move |method| (method, xauth)))
            .find(|(method, xauth)| method.extended(*xauth) == Some(number))
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

impl From<Method> for AuthenticationMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::PreSharedKey => Self::PRE_SHARED_KEY,
            Method::RsaSignature => Self::RSA_SIGNATURES,
            Method::EcdsaSha256 => Self::ECDSA_256,
            Method::EcdsaSha384 => Self::ECDSA_384,
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
    /// Who this end is by XAUTH. A client that has it connects only to a gateway that asks for it.
    pub xauth: Option<xauth::User>,
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
        Arc::new(Self::of_key(key))
    }

    /// The same, to be added to.
    pub fn of_key(key: Zeroizing<Vec<u8>>) -> Self {
        let key = PreSharedKey { name: "pre-shared key".to_owned(), key, addresses: Vec::new(), remote_id: None };
        Self { pre_shared_keys: vec![key], ..Self::default() }
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

    /// What a peer may choose as initiator: the methods alone, and those after which it asks us by XAUTH.
    pub(super) fn acceptable(&self) -> Vec<AuthenticationMethod> {
        let asked = self.xauth.as_ref().map(|_| Some(Role::Responder));
        let extensions = [None].into_iter().chain(asked);
        extensions
            .flat_map(|xauth| self.methods().into_iter().filter_map(move |method| method.extended(xauth)))
            .collect()
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
        Credentials { pre_shared_keys, ..Credentials::default() }
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
        let many = Credentials { pre_shared_keys: keys, ..Credentials::default() };
        assert_eq!(names(&many, "192.0.2.1").len(), MAX_PRE_SHARED_KEYS);
    }

    #[test]
    fn a_renewal_begins_with_the_key_of_before_wherever_it_stands_by_now() {
        let remote = [203, 0, 113, 1].into();
        let keys = vec![key("new", &[]), key("old", &[])];
        let mut credentials = Credentials { pre_shared_keys: keys, ..Credentials::default() };
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
