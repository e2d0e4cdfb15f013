//! What the user of a LAC says to it and hears from it.

use std::time::Duration;

use zeroize::Zeroizing;

use super::channel::Retransmission;
use super::error::Error;

/// What a LAC is told.
#[derive(Clone)]
pub struct Config {
    /// The name that the LNS knows it by.
    pub host_name: String,
    /// The secret of tunnel authentication and of hidden AVPs.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// Whether values are hidden from SCCCN on; the LNS finds the secret only by the SCCRQ. Needs a secret.
    pub hide_avps: bool,
    /// How long nothing must have come from the peer before a Hello is sent; zero for never.
    pub hello: Duration,
    /// How many control messages the peer may send ahead, at most [`super::channel::MAX_RECEIVE_WINDOW`].
    pub receive_window: u16,
    /// Whether sequence numbers are always present on the data channel (the Sequencing Required AVP).
    pub require_sequencing: bool,
    /// What the logs of both ends call this call; should grow from one call to the next.
    pub call_serial_number: u32,
    /// The times of retransmission.
    pub retransmission: Retransmission,
}

impl Config {
    /// The defaults of the RFC for a LAC named `host_name`, without a secret.
    pub fn new(host_name: impl Into<String>) -> Self {
        Self {
            host_name: host_name.into(),
            secret: None,
            hide_avps: false,
            hello: Duration::from_secs(60),
            receive_window: 8,
            require_sequencing: false,
            call_serial_number: 1,
            retransmission: Retransmission::default(),
        }
    }
}

/// What the other end says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its Host Name: printable and bounded.
    pub host_name: String,
    /// Its Vendor Name: printable and bounded.
    pub vendor_name: Option<String>,
    /// Its Firmware Revision.
    pub firmware_revision: Option<u16>,
}

/// What the LAC has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The control connection is established.
    ControlEstablished(Peer),
    /// The session is established: data goes both ways.
    SessionEstablished,
    /// The end that [`Lac::close`](super::Lac::close) asked for: the peer has acknowledged it or is gone.
    Closed,
    /// The end for any other reason.
    Failed(Error),
}

/// There is no session to send data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the L2TP session is not established")]
pub struct NotEstablished;
