//! Why a tunnel or a session failed, split by what a person would do about it.

use std::fmt;

use super::avp::{Attribute, Fault};
use super::message::{MessageError, MessageType};
use super::outcome::{CdnResult, ErrorCode, StopCcnResult};
use crate::wire::Malformed;

/// How tunnel authentication failed (RFC 2661 section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Authentication {
    /// The peer has not answered our Challenge: it knows no secret for us.
    #[error("the peer did not answer the challenge; it has no tunnel secret for this host name")]
    ResponseMissing,
    /// The peer's answer is wrong: another secret.
    #[error("the peer answered the challenge with another tunnel secret")]
    ResponseWrong,
    /// The peer sent a Challenge, and no secret is configured.
    #[error("the peer demands a tunnel secret, and none is configured")]
    SecretMissing,
}

/// Why a tunnel or a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A control message was sent for the whole retransmission cycle and never acknowledged.
    #[error("no answer to {to}")]
    NoResponse {
        /// The message.
        to: MessageType,
    },
    /// The peer closed the control connection.
    #[error("the peer closed the control connection: {}", Words { description: result.description(), code: result.0, meaning: Meaning::of(*result, *error), text })]
    StopCcn {
        /// Its Result Code; zero where it sent none.
        result: StopCcnResult,
        /// Its Error Code.
        error: Option<ErrorCode>,
        /// Its text: printable and bounded.
        text: String,
    },
    /// The peer refused or ended the session.
    #[error("the peer disconnected the call: {}", Words { description: result.description(), code: result.0, meaning: Meaning::general(*error), text })]
    Cdn {
        /// Its Result Code; zero where it sent none.
        result: CdnResult,
        /// Its Error Code.
        error: Option<ErrorCode>,
        /// Its text: printable and bounded.
        text: String,
    },
    /// Tunnel authentication failed.
    #[error("tunnel authentication failed: {0}")]
    TunnelAuthenticationFailed(Authentication),
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks version {version} of L2TP and not 1")]
    UnsupportedVersion {
        /// The Ver of its Protocol Version AVP.
        version: u8,
    },
    /// The peer marked an AVP as mandatory that is not known here.
    #[error("{message} holds an unknown mandatory AVP: attribute {} of vendor {vendor}", attribute.0)]
    MandatoryAvp {
        /// The message.
        message: MessageType,
        /// Zero, or the vendor whose attribute it is.
        vendor: u16,
        /// The attribute.
        attribute: Attribute,
    },
    /// A hidden mandatory AVP does not open: there is no secret, or the peer has another.
    #[error("{message} hides {attribute}, which does not open with the tunnel secret")]
    HiddenAvp {
        /// The message.
        message: MessageType,
        /// The attribute.
        attribute: Attribute,
    },
    /// A required AVP is missing, or a mandatory one has a wrong length or a value that is not allowed.
    #[error("{message} has no valid {attribute}")]
    InvalidAvp {
        /// The message.
        message: MessageType,
        /// The attribute.
        attribute: Attribute,
    },
    /// The AVPs of a control message cannot be told apart.
    #[error("malformed control message: {0}")]
    Malformed(Malformed),
    /// A message of a type that is not known here was marked as mandatory.
    #[error("unknown mandatory message type {}", .0.0)]
    UnknownMessage(MessageType),
    /// The peer sent a message that has no place in the state that it came in.
    #[error("unexpected {0}")]
    UnexpectedMessage(MessageType),
}

impl From<MessageError> for Error {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Malformed(malformed) => Self::Malformed(malformed),
            MessageError::UnknownType(message) => Self::UnknownMessage(message),
            MessageError::Avp { message, vendor, attribute, fault } => match fault {
                Fault::Unrecognized => Self::MandatoryAvp { message, vendor, attribute },
                Fault::Unopened => Self::HiddenAvp { message, attribute },
                Fault::WrongLength => Self::InvalidAvp { message, attribute },
            },
        }
    }
}

/// What an Error Code says.
enum Meaning {
    Nothing,
    General(ErrorCode),
    /// "Error Code indicates highest version supported" (section 4.4.2).
    HighestVersion(u16),
}

impl Meaning {
    fn general(error: Option<ErrorCode>) -> Self {
        error.filter(|&error| error != ErrorCode::NONE).map_or(Self::Nothing, Self::General)
    }

    fn of(result: StopCcnResult, error: Option<ErrorCode>) -> Self {
        match (Self::general(error), result) {
            (Self::General(error), StopCcnResult::UNSUPPORTED_VERSION) => Self::HighestVersion(error.0),
            (meaning, _) => meaning,
        }
    }
}

struct Words<'a> {
    description: &'static str,
    code: u16,
    meaning: Meaning,
    text: &'a str,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (result {}", self.description, self.code)?;
        match self.meaning {
            Meaning::Nothing => {}
            Meaning::General(error) => write!(f, ", error {}: {}", error.0, error.description())?,
            Meaning::HighestVersion(version) => match version.to_be_bytes() {
                // The Protocol Version AVP has version and revision in an octet each; a plain number is a version.
                [0, version] => write!(f, ", it supports version {version} at most")?,
                [version, revision] => write!(f, ", it supports version {version}.{revision} at most")?,
            },
        }
        f.write_str(")")?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ", \"{}\"", self.text) }
    }
}
