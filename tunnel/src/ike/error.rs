//! What can go wrong, told apart by who has to act, and what of it is said to the peer.

use super::Identity;
use super::certificate::Problem;
use super::registry::{ExchangeType, NotifyType};
use crate::wire::Malformed;

/// Why an exchange or the whole connection failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers.
    #[error("no response to message {message} of {}", exchange_name(*.exchange))]
    NoResponse {
        /// The exchange.
        exchange: ExchangeType,
        /// The number of the message that was sent again and again, from 1.
        message: u8,
    },
    /// The peer accepts none of the offered proposals.
    #[error("the peer accepts none of the proposals of phase {phase}{}", said(*.notification))]
    NoProposalChosen {
        /// 1 or 2.
        phase: u8,
        /// The peer's words.
        notification: Option<NotifyType>,
    },
    /// The peer cannot read message 5 of Main Mode, or says that it does not believe it: in all likelihood another
    /// pre-shared key.
    #[error("authentication failed, probably because the pre-shared keys differ{}", said(*.notification))]
    AuthenticationFailed {
        /// The peer's words, if it said any.
        notification: Option<NotifyType>,
    },
    /// The peer refuses who this end says that it is, or has nothing for it. It was proved to have our pre-shared key, or did not
    /// see any use of it.
    #[error("the peer refuses this end, and not for its key (it answered {})", rfc_name(*.notification))]
    IdentityRefused {
        /// The peer's words.
        notification: NotifyType,
    },
    /// A HASH payload of the peer is wrong.
    #[error("the peer's hash in {} is wrong", exchange_name(*.0))]
    InvalidHash(ExchangeType),
    /// The peer does not believe our certificate or our signature.
    #[error("the peer does not accept our certificate or what is signed with its key{}", said(*.notification))]
    CertificateRefused {
        /// The peer's words, if it said any.
        notification: Option<NotifyType>,
    },
    /// The peer sent no certificate.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// The peer's certificate cannot be believed.
    #[error("the peer's certificate {subject:?} {problem}")]
    InvalidCertificate {
        /// Whose it says that it is.
        subject: String,
        /// Why it cannot be believed.
        problem: Problem,
    },
    /// The peer's signature was not made with the key of its certificate.
    #[error("the peer's signature is not of the key of its certificate")]
    InvalidSignature,
    /// The peer's certificate is for others than the peer.
    #[error("the peer's certificate {subject:?} has not the name {name}")]
    NotInCertificate {
        /// Whose it says that it is.
        subject: String,
        /// The name that it must have.
        name: Identity,
    },
    /// The peer is not who it has to be.
    #[error("the peer calls itself {received}, expected is {expected}")]
    InvalidId {
        /// The configured identity.
        expected: Identity,
        /// The identity that the peer has proved.
        received: Identity,
    },
    /// The peer knows no NAT traversal, and ESP travels in UDP only.
    #[error("the peer does not support NAT traversal (RFC 3947)")]
    NoNatTraversal,
    /// The peer answers with something that was not offered.
    #[error("the peer's answer in phase {phase} was not offered: {reason}")]
    NotOffered {
        /// 1 or 2.
        phase: u8,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The peer wants phase 2 for other traffic than L2TP.
    #[error("the peer wants phase 2 for IP protocol {protocol} and port {port} instead of L2TP (UDP port 1701)")]
    InvalidSelectors {
        /// The IP protocol that it names.
        protocol: u8,
        /// The port that it names.
        port: u16,
    },
    /// The peer names an SPI that another of its SAs has.
    #[error("the peer's SPI is already in use")]
    SpiInUse,
    /// A public value or a key cannot be used.
    #[error("the peer's {0} cannot be used")]
    InvalidKeyInformation(&'static str),
    /// The peer refuses with another error.
    #[error("the peer refuses {} with {}", exchange_name(*.exchange), rfc_name(*.notification))]
    Rejected {
        /// The exchange.
        exchange: ExchangeType,
        /// The peer's words.
        notification: NotifyType,
    },
    /// The peer asks who our user is, by XAUTH, and there is none.
    #[error("the peer asks for a user and a password by XAUTH, and none is configured")]
    XauthUnconfigured,
    /// The peer asks by XAUTH for something that nobody at this end can know.
    #[error("the peer asks by XAUTH for {wanted}, and nobody is here to answer{}", saying(.message))]
    XauthUnanswerable {
        /// What it asks for.
        wanted: &'static str,
        /// Its text: printable and bounded.
        message: String,
    },
    /// The peer does not let our user in.
    #[error("the peer refuses the user or the password of XAUTH{}", saying(.message))]
    XauthRefused {
        /// Its text: printable and bounded.
        message: String,
    },
    /// The peer agreed to XAUTH and leaves us without a verdict.
    #[error("the peer agreed to XAUTH and {}", if *.asked { "gives no verdict on the user" } else { "asks for no user" })]
    XauthTimeout {
        /// It has asked.
        asked: bool,
    },
    /// The peer deleted the ISAKMP SA while it was needed.
    #[error("the peer deleted the ISAKMP SA")]
    PeerDeleted,
    /// Every SA expired before a new one was agreed on.
    #[error("the last security association expired and could not be renewed")]
    Expired,
    /// A message cannot be read.
    #[error("malformed message: {0}")]
    Malformed(#[from] Malformed),
    /// A message is not readable after decryption.
    #[error("a message cannot be decrypted")]
    Undecryptable,
    /// The configuration cannot be used.
    #[error("the configuration cannot be used: {0}")]
    Config(&'static str),
}

impl Error {
    /// What the peer is told about its own message, if anything.
    pub(super) fn notification(&self) -> Option<NotifyType> {
        match self {
            Self::NoProposalChosen { .. } | Self::NoNatTraversal => Some(NotifyType::NO_PROPOSAL_CHOSEN),
            Self::AuthenticationFailed { .. } => Some(NotifyType::AUTHENTICATION_FAILED),
            Self::Undecryptable => Some(NotifyType::PAYLOAD_MALFORMED),
            Self::InvalidHash(_) => Some(NotifyType::INVALID_HASH_INFORMATION),
            Self::InvalidId { .. } | Self::InvalidSelectors { .. } | Self::NotInCertificate { .. } => {
                Some(NotifyType::INVALID_ID_INFORMATION)
            }
            Self::NoCertificate => Some(NotifyType::CERTIFICATE_UNAVAILABLE),
            Self::InvalidCertificate { problem: Problem::Untrusted, .. } => Some(NotifyType::INVALID_CERT_AUTHORITY),
            Self::InvalidCertificate { .. } => Some(NotifyType::INVALID_CERTIFICATE),
            Self::InvalidSignature => Some(NotifyType::INVALID_SIGNATURE),
            Self::SpiInUse => Some(NotifyType::INVALID_SPI),
            Self::InvalidKeyInformation(_) => Some(NotifyType::INVALID_KEY_INFORMATION),
            Self::NoResponse { .. }
            | Self::NotOffered { .. }
            | Self::Rejected { .. }
            | Self::CertificateRefused { .. }
            | Self::XauthUnconfigured
            | Self::XauthUnanswerable { .. }
            | Self::XauthRefused { .. }
            | Self::XauthTimeout { .. }
            | Self::IdentityRefused { .. }
            | Self::PeerDeleted
            | Self::Expired
            | Self::Malformed(_)
            | Self::Config(_) => None,
        }
    }

    /// Whether the peer has proved what it is wrong with, so that there is nothing better to wait for.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::InvalidId { .. }
                | Self::NoCertificate
                | Self::InvalidCertificate { .. }
                | Self::InvalidSignature
                | Self::NotInCertificate { .. }
        )
    }

    /// What it means where signatures prove who is who, and pre-shared keys have no part in it.
    pub(super) fn with_signatures(self) -> Self {
        match self {
            Self::AuthenticationFailed { notification } => Self::CertificateRefused { notification },
            Self::IdentityRefused { notification } if notification == NotifyType::AUTHENTICATION_FAILED => {
                Self::CertificateRefused { notification: Some(notification) }
            }
            other => other,
        }
    }

    /// What it means where the pre-shared key cannot be at fault: what refuses it was written with that very key, or the peer has
    /// seen nothing that was made with it.
    pub(super) fn with_right_key(self) -> Self {
        match self {
            Self::AuthenticationFailed { notification: Some(notification @ NotifyType::AUTHENTICATION_FAILED) } => {
                Self::IdentityRefused { notification }
            }
            other => other,
        }
    }

    /// The error that a notification of the peer stands for, in the given exchange.
    pub(super) fn from_notification(exchange: ExchangeType, notification: NotifyType, after_keys: bool) -> Self {
        let phase = if exchange == ExchangeType::IDENTITY_PROTECTION { 1 } else { 2 };
        match notification {
            NotifyType::NO_PROPOSAL_CHOSEN
            | NotifyType::ATTRIBUTES_NOT_SUPPORTED
            | NotifyType::BAD_PROPOSAL_SYNTAX
            | NotifyType::INVALID_TRANSFORM_ID
                if !(phase == 1 && after_keys) =>
            {
                Self::NoProposalChosen { phase, notification: Some(notification) }
            }
            NotifyType::INVALID_CERT_ENCODING
            | NotifyType::INVALID_CERTIFICATE
            | NotifyType::CERT_TYPE_UNSUPPORTED
            | NotifyType::INVALID_CERT_AUTHORITY
            | NotifyType::INVALID_SIGNATURE
            | NotifyType::CERTIFICATE_UNAVAILABLE
                if phase == 1 =>
            {
                Self::CertificateRefused { notification: Some(notification) }
            }
            NotifyType::INVALID_ID_INFORMATION if phase == 1 => Self::IdentityRefused { notification },
            NotifyType::AUTHENTICATION_FAILED => Self::AuthenticationFailed { notification: Some(notification) },
            NotifyType::PAYLOAD_MALFORMED
            | NotifyType::INVALID_HASH_INFORMATION
            | NotifyType::INVALID_PAYLOAD_TYPE
            | NotifyType::UNEQUAL_PAYLOAD_LENGTHS
            | NotifyType::INVALID_FLAGS
                if phase == 1 && after_keys =>
            {
                Self::AuthenticationFailed { notification: Some(notification) }
            }
            _ => Self::Rejected { exchange, notification },
        }
    }
}

fn said(notification: Option<NotifyType>) -> String {
    notification.map(|notification| format!(" (it answered {})", rfc_name(notification))).unwrap_or_default()
}

fn saying(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says {message:?})") }
}

/// The name of a notification as the RFC writes it.
pub(super) fn rfc_name(notification: NotifyType) -> String {
    notification.to_string().replace('_', "-")
}

fn exchange_name(exchange: ExchangeType) -> String {
    match exchange {
        ExchangeType::IDENTITY_PROTECTION => "Main Mode".to_owned(),
        ExchangeType::AGGRESSIVE => "Aggressive Mode".to_owned(),
        ExchangeType::QUICK_MODE => "Quick Mode".to_owned(),
        ExchangeType::INFORMATIONAL => "the Informational exchange".to_owned(),
        ExchangeType::TRANSACTION => "the Transaction exchange".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_exchange_and_the_words_of_the_peer() {
        let error = Error::from_notification(ExchangeType::QUICK_MODE, NotifyType::NO_PROPOSAL_CHOSEN, true);
        assert_eq!(
            error.to_string(),
            "the peer accepts none of the proposals of phase 2 (it answered NO-PROPOSAL-CHOSEN)"
        );
        let error = Error::NoResponse { exchange: ExchangeType::IDENTITY_PROTECTION, message: 1 };
        assert_eq!(error.to_string(), "no response to message 1 of Main Mode");
    }

    #[test]
    fn a_failed_authentication_is_about_the_identity_where_the_key_is_known_to_be_right() {
        let notification = NotifyType::AUTHENTICATION_FAILED;
        let said = |kind| Error::from_notification(ExchangeType::IDENTITY_PROTECTION, kind, true);
        assert!(matches!(said(notification), Error::AuthenticationFailed { .. }));
        assert_eq!(said(notification).with_right_key(), Error::IdentityRefused { notification });
        let malformed = said(NotifyType::PAYLOAD_MALFORMED);
        assert_eq!(malformed.clone().with_right_key(), malformed);
        // With signatures it may be the certificate as well.
        let refused = Error::CertificateRefused { notification: Some(notification) };
        assert_eq!(said(notification).with_right_key().with_signatures(), refused);
        let notification = NotifyType::INVALID_ID_INFORMATION;
        assert_eq!(said(notification).with_signatures(), Error::IdentityRefused { notification });
    }

    #[test]
    fn a_malformed_payload_means_a_wrong_key_only_once_there_are_keys() {
        let malformed = |after_keys| {
            Error::from_notification(ExchangeType::IDENTITY_PROTECTION, NotifyType::PAYLOAD_MALFORMED, after_keys)
        };
        assert!(matches!(malformed(true), Error::AuthenticationFailed { .. }));
        assert!(matches!(malformed(false), Error::Rejected { .. }));
    }
}
