//! EAP (RFC 3748) over PPP: packets, and the two ends of a conversation.

use super::packet::{Packet, Protocol};
use crate::registry;

pub(super) use authenticator::{Authenticator, Step};
pub(super) use peer::{Outcome, Peer};
pub use tls::{Credentials, TlsClient, TlsServer, Unusable};

mod authenticator;
mod mschapv2;
mod peer;
mod tls;

registry! {
    /// The Code field (RFC 3748 section 4).
    pub struct EapCode(u8) {
        REQUEST = 1,
        RESPONSE = 2,
        SUCCESS = 3,
        FAILURE = 4,
    }
}

registry! {
    /// The Type field (RFC 3748 section 5, RFC 5216 section 3.1, and EAP-MSCHAPv2 of draft-kamath-pppext-eap-mschapv2).
    pub struct EapType(u8) {
        IDENTITY = 1,
        NOTIFICATION = 2,
        NAK = 3,
        TLS = 13,
        MS_CHAP_V2 = 26,
    }
}

/// The first Type that is a method of authentication (RFC 3748 section 4.2).
const FIRST_METHOD: u8 = 4;

/// Who answers the clients of a server that demands EAP.
#[derive(Clone)]
pub enum Eap {
    /// This end, by these methods in this order.
    Local(Vec<Method>),
    /// A RADIUS server, which the owner asks.
    PassThrough,
}

/// A method that this end speaks as an authenticator.
#[derive(Clone)]
pub enum Method {
    /// EAP-MSCHAPv2.
    MsChapV2,
    /// EAP-TLS (RFC 5216).
    Tls(TlsServer),
}

impl Method {
    fn kind(&self) -> EapType {
        match self {
            Self::MsChapV2 => EapType::MS_CHAP_V2,
            Self::Tls(_) => EapType::TLS,
        }
    }
}

/// A frame with a Request or a Response.
fn frame(code: EapCode, id: u8, kind: EapType, data: &[u8]) -> Vec<u8> {
    Packet { code: code.0, id, data: &[&[kind.0], data].concat() }.frame(Protocol::EAP)
}

/// A frame with a Success or a Failure.
fn verdict(code: EapCode, id: u8) -> Vec<u8> {
    Packet { code: code.0, id, data: &[] }.frame(Protocol::EAP)
}
