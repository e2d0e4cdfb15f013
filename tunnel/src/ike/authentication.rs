//! What phase 1 is authenticated with: pre-shared keys (RFC 2409 section 5.4), and whose they are.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::error::Error;
use super::payload::Identity;
use crate::config::server::MAX_PRE_SHARED_KEYS;

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
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Pre-shared keys. Two that fit the same peers are the old and the new one of a rotation.
    pub pre_shared_keys: Vec<PreSharedKey>,
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
        Arc::new(Self { pre_shared_keys: vec![key] })
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

    /// The key that this end begins with: the one of `before` as long as it is there.
    pub(super) fn own(&self, remote: IpAddr, before: Option<&Authentication>) -> Result<Candidate<'_>, Error> {
        let candidates = self.candidates(remote);
        let same = |candidate: &&Candidate<'_>| before.is_some_and(|before| before.is_by(candidate));
        let key = candidates.iter().find(same).or_else(|| candidates.first());
        key.copied().ok_or(Error::Config("it has no pre-shared key for the peer"))
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
}

impl Authentication {
    /// Whether it was by this key.
    fn is_by(&self, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::PreSharedKey { name, .. } => *name == candidate.key.name,
        }
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
        Credentials { pre_shared_keys: keys.into_iter().map(|(name, addresses)| key(name, addresses)).collect() }
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
        let many = Credentials { pre_shared_keys: keys };
        assert_eq!(names(&many, "192.0.2.1").len(), MAX_PRE_SHARED_KEYS);
    }

    #[test]
    fn a_renewal_begins_with_the_key_of_before_wherever_it_stands_by_now() {
        let remote = [203, 0, 113, 1].into();
        let mut credentials = Credentials { pre_shared_keys: vec![key("new", &[]), key("old", &[])] };
        let before = Authentication::PreSharedKey { index: 0, name: "old".to_owned() };
        assert_eq!(credentials.own(remote, Some(&before)).unwrap().index, 1);
        assert_eq!(credentials.own(remote, None).unwrap().index, 0);
        credentials.pre_shared_keys.pop();
        assert_eq!(credentials.own(remote, Some(&before)).unwrap().key.name, "new");
        assert!(Credentials::default().own(remote, None).is_err());
    }

    #[test]
    fn no_key_is_shown() {
        assert!(!format!("{:?}", credentials()).contains("wonderland"));
    }
}
