//! Where a connection goes and with what, as the process finds it out for each attempt.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::ike;
use crate::report::Reason;

/// Where a connection goes, and with what.
pub struct Path {
    /// What the Secrets hold.
    pub credentials: Credentials,
    /// Our address towards the peer.
    pub local: IpAddr,
    /// The port of the socket towards the peer's port 500.
    pub local_ike_port: u16,
    /// The port of the socket towards the peer's port 4500.
    pub local_nat_t_port: u16,
    /// The peer's address.
    pub remote: IpAddr,
    /// The MTU of the interface towards the peer, in octets.
    pub mtu: u16,
}

/// The secrets of one tunnel.
#[derive(Clone)]
pub struct Credentials {
    /// What proves who we are in phase 1, and what proves the peer.
    pub ike: Arc<ike::Credentials>,
    /// PPP user name.
    pub username: Zeroizing<String>,
    /// PPP password.
    pub password: Zeroizing<String>,
    /// Secret of L2TP tunnel authentication.
    pub tunnel_secret: Option<Zeroizing<Vec<u8>>>,
    /// What is neglected about them, as sentences.
    pub warnings: Vec<String>,
}

/// Why there is no path to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// A Secret cannot be read or used.
    Credentials {
        /// [`Reason::CredentialsMissing`] or [`Reason::CredentialsInvalid`].
        reason: Reason,
        /// Which one, and the remedy.
        message: String,
    },
    /// The peer's name has no address; in the resolver's words.
    Unresolvable(String),
    /// No socket could be opened towards it; in the system's words.
    Unreachable(String),
    /// The socket for ESP without UDP could not be opened; in the system's words.
    RawSocketFailed(String),
}
