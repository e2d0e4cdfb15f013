//! Why PPP failed.

use std::fmt;

use crate::aaa::Cause;
use crate::config::PppAuth;

/// The parts of PPP that can fail by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// LCP.
    Establishment,
    /// PAP or CHAP.
    Authentication,
    /// IPCP.
    Network,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Establishment => "LCP",
            Self::Authentication => "PPP authentication",
            Self::Network => "IPCP",
        })
    }
}

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The peer refused user name and password.
    #[error("the gateway refused the user name or the password by {method}{}{}", Numbered(*code), Said(message))]
    AuthenticationFailed {
        /// The protocol.
        method: PppAuth,
        /// The error of MS-CHAPv2 (RFC 2759 section 6).
        code: Option<u32>,
        /// What the peer said.
        message: String,
    },
    /// The peer insists on an authentication protocol that may not be used.
    #[error("the gateway insists on {wanted}, which ppp.auth does not list")]
    NoAcceptableAuthentication {
        /// Its name.
        wanted: String,
    },
    /// The peer's response to MS-CHAPv2 is not that of one who knows the password (RFC 2759 section 8.8).
    #[error("the gateway did not prove that it knows the password")]
    AuthenticatorNotVerified,
    /// The peer asks for no authentication, and every protocol that may be used proves that it knows the password.
    #[error("the gateway asks for no authentication, so it does not prove that it knows the password")]
    AuthenticationSkipped,
    /// In the role of the server: the peer agrees to none of the protocols that may be demanded.
    #[error("the client agrees to no authentication protocol that ppp.auth lists")]
    NoCommonAuthentication,
    /// In the role of the server: the peer was told that it may not come in.
    #[error("the client was refused by {method}: {}", cause.name())]
    Refused {
        /// The protocol.
        method: PppAuth,
        /// Why.
        cause: Cause,
    },
    /// In the role of the server: the peer has no certificate that is worth anything, or no key of it.
    #[error("the client did not prove who it is: {problem}")]
    NotProved {
        /// What is wrong.
        problem: String,
    },
    /// Requests were sent as often as may be, and nothing valid came back.
    #[error("the peer does not answer {phase}")]
    NoResponse {
        /// Which part.
        phase: Phase,
    },
    /// Both ends never agree.
    #[error("{phase} found no common ground: {problem}")]
    NegotiationFailed {
        /// Which part.
        phase: Phase,
        /// On what.
        problem: String,
    },
    /// The peer ended it before it was up.
    #[error("the peer ended PPP during {phase}{}", Said(message))]
    PeerTerminated {
        /// Which part was under way.
        phase: Phase,
        /// What the peer said.
        message: String,
    },
}

struct Numbered(Option<u32>);

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 2759 section 6.
        let meaning = match self.0 {
            None => return Ok(()),
            Some(646) => ", restricted logon hours",
            Some(647) => ", account disabled",
            Some(648) => ", password expired",
            Some(649) => ", no permission to dial in",
            Some(691) => ", authentication failure",
            Some(709) => ", error while changing the password",
            Some(_) => "",
        };
        write!(f, " (E={}{meaning})", self.0.unwrap_or_default())
    }
}

struct Said<'a>(&'a str);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", saying {:?}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_method_the_code_and_the_words() {
        let error =
            Error::AuthenticationFailed { method: PppAuth::MsChapV2, code: Some(649), message: "not today".to_owned() };
        assert_eq!(
            error.to_string(),
            "the gateway refused the user name or the password by MS-CHAPv2 (E=649, no permission to dial in), saying \"not today\""
        );
        let error = Error::PeerTerminated { phase: Phase::Network, message: String::new() };
        assert_eq!(error.to_string(), "the peer ended PPP during IPCP");
    }
}
