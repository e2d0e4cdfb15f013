//! The users of the configuration: whether a [`Request`] of one is right, and what the user gets.
//!
//! Nobody learns from an answer or from its time whether a name exists: a user who may not come in costs the same
//! computations as one who may, and [`refuse_unknown`] does them for a name that nobody has.

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use zeroize::Zeroizing;

use crate::aaa::{Cause, Grant, Proof, Refusal, Request, Verdict};
use crate::config;
use crate::crypto::hash;
use crate::ppp::mschapv2::Exchange;
use crate::suite::Hash;

/// What is computed with where there is no password; a proof that fits it is refused all the same.
const NO_PASSWORD: &str = "0123456789abcdef";

/// Somebody who may dial in, with the password read from its file.
#[derive(Clone)]
pub struct User {
    /// The name, compared octet by octet.
    pub name: String,
    /// The password. Without one the user can only come with a certificate.
    pub password: Option<Zeroizing<String>>,
    /// A fixed address; one of a pool unless there is one.
    pub address: Option<Ipv4Addr>,
    /// Networks behind the user.
    pub networks: Vec<Ipv4Net>,
    /// Where the user may send packets to; anywhere that is forwarded if none is named.
    pub destinations: Option<Vec<IpNet>>,
    /// When the user may not come in any more, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// The user may not come in for now.
    pub suspended: bool,
}

impl User {
    /// A user of the configuration, with the content of the file that has the password.
    pub fn new(user: &config::server::User, password: Option<Zeroizing<String>>) -> Self {
        Self {
            name: user.name.clone(),
            password,
            address: user.address,
            networks: user.networks.clone(),
            destinations: user.destinations.clone(),
            expires_at: user.expires_at,
            suspended: user.suspended,
        }
    }

    /// What keeps the user out, whatever the proof.
    fn obstacle(&self, now_unix: u64) -> Option<Cause> {
        if self.suspended {
            Some(Cause::Suspended)
        } else if self.expires_at.is_some_and(|at| at <= now_unix) {
            Some(Cause::Expired)
        } else {
            None
        }
    }

    /// Why a proof is not right.
    fn failure(&self, proof: &Proof) -> Cause {
        match proof {
            Proof::Eap { .. } => Cause::NoCredentials,
            _ if self.password.is_none() => Cause::NoCredentials,
            _ => Cause::WrongPassword,
        }
    }

    fn grant(&self, now_unix: u64) -> Grant {
        Grant {
            name: self.name.clone(),
            address: self.address,
            networks: self.networks.clone(),
            destinations: self.destinations.clone(),
            total: self.expires_at.map(|at| Duration::from_secs(at.saturating_sub(now_unix))),
            ..Grant::default()
        }
    }
}

/// The users of the configuration, at most [`config::server::MAX_USERS`], by name.
#[derive(Default)]
pub struct Users(HashMap<String, User>);

impl Users {
    /// Takes the users of a checked configuration, in which each name is there once.
    pub fn new(users: Vec<User>) -> Self {
        Self(users.into_iter().map(|user| (user.name.clone(), user)).collect())
    }

    /// Decides about somebody who wants in, at a time in seconds since the Unix epoch.
    ///
    /// `None` says that no user has the name: a RADIUS server is to be asked, or [`refuse_unknown`]. EAP packets are refused:
    /// their methods are computed at this end for users of the configuration, and ask with another proof.
    pub fn judge(&self, now_unix: u64, request: &Request) -> Option<Verdict> {
        let user = self.find(&request.name)?;
        let proved = prove(user.password.as_deref().map(String::as_str), request);
        Some(match (user.obstacle(now_unix), proved) {
            (Some(cause), _) => Verdict::Reject(Refusal::new(cause)),
            (None, None) => Verdict::Reject(Refusal::new(user.failure(&request.proof))),
            (None, Some(Proved { authenticator_response })) => {
                Verdict::Accept(Box::new(Grant { authenticator_response, ..user.grant(now_unix) }))
            }
        })
    }

    /// What a user who has proved itself before gets at this time, or why the user has to leave: asked for every session when
    /// the configuration changes. `None` says that no user has the name.
    pub fn grant(&self, now_unix: u64, name: &str) -> Option<Result<Grant, Cause>> {
        let user = self.find(name)?;
        Some(user.obstacle(now_unix).map_or_else(|| Ok(user.grant(now_unix)), Err))
    }

    /// The user of a name as it is sent, or of what follows a Windows domain in it.
    fn find(&self, name: &str) -> Option<&User> {
        self.0.get(name).or_else(|| name.split_once('\\').and_then(|(_, name)| self.0.get(name)))
    }
}

/// Refuses a name that nobody has, after the computations that a wrong password costs.
pub fn refuse_unknown(request: &Request) -> Verdict {
    // Or else a compiler may leave out what nothing comes of.
    black_box(prove(None, request).is_some());
    Verdict::Reject(Refusal::new(Cause::UnknownUser))
}

/// The proof is right.
struct Proved {
    authenticator_response: Option<String>,
}

/// Checks a proof; without a password the same is computed with another, and nothing is proved.
fn prove(password: Option<&str>, request: &Request) -> Option<Proved> {
    let known = password.unwrap_or(NO_PASSWORD);
    let (is_right, authenticator_response) = match &request.proof {
        // Digests, because a comparison of the passwords takes a time that tells their length.
        Proof::Pap { password } => {
            let digest = |password: &[u8]| Zeroizing::new(hash::digest(Hash::Sha256, &[password]));
            (hash::eq(&digest(password), &digest(known.as_bytes())), None)
        }
        Proof::Chap { id, challenge, response } => {
            let expected = hash::digest(Hash::Md5, &[&[*id], known.as_bytes(), challenge]);
            (hash::eq(&expected, response), None)
        }
        Proof::MsChapV2 { id: _, authenticator_challenge, peer_challenge, nt_response } => {
            let exchange = Exchange {
                authenticator_challenge: *authenticator_challenge,
                peer_challenge: *peer_challenge,
                username: &request.name,
                password: known,
            };
            let answer = exchange.authenticator_response(nt_response);
            (exchange.verify(nt_response), Some(answer))
        }
        Proof::Eap { .. } => return None,
        Proof::Certificate => return Some(Proved { authenticator_response: None }),
    };
    (is_right && password.is_some()).then_some(Proved { authenticator_response })
}

#[cfg(test)]
mod tests;
