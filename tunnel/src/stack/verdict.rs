//! What a failure means to a person: the layer, the reason of the closed list, the peer's words, and what to do next.

use std::time::Duration;

use super::PathError;
use super::rung::Facet;
use crate::report::{Encapsulation, Layer, Reason};
use crate::{ike, l2tp, ppp};

/// Why an attempt ended, or an established tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) layer: Layer,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// The peer refused our credentials: trying again soon may lock the account.
    pub(super) refused: bool,
    /// In what another attempt may differ so that the peer likes it better, the likeliest first.
    pub(super) facets: &'static [Facet],
}

impl Failure {
    /// One that no other way of dialling helps against.
    pub(super) fn new(layer: Layer, reason: Reason, message: String) -> Self {
        Self { layer, reason, message, refused: false, facets: &[] }
    }
}

pub(super) fn of_path(peer: &str, error: PathError) -> Failure {
    match error {
        PathError::Credentials { reason, message } => Failure::new(Layer::Credentials, reason, message),
        PathError::Unresolvable(error) => Failure::new(
            Layer::Peer,
            Reason::PeerUnresolvable,
            format!(
                "The name {peer} has no address ({}). Check the name, and that the pod's DNS knows it.",
                unpunctuated(&error)
            ),
        ),
        PathError::Unreachable(error) => Failure::new(
            Layer::Peer,
            Reason::PeerUnreachable,
            format!(
                "There is no way to {peer} ({}). Check the address and the routes towards it.",
                unpunctuated(&error)
            ),
        ),
        PathError::RawSocketFailed(error) => Failure::new(
            Layer::Ipsec,
            Reason::RawSocketFailed,
            format!(
                "ESP without UDP cannot be sent ({}). Give the process the capability NET_RAW, or set esp.encapsulation to Udp.",
                unpunctuated(&error)
            ),
        ),
    }
}

/// What IKE failed with; `encapsulation` is that of ESP below it.
pub(super) fn of_ike(error: &ike::Error, encapsulation: Option<Encapsulation>) -> Failure {
    use ike::registry::{ExchangeType, NotifyType};
    let (layer, reason, advice) = match error {
        ike::Error::NoResponse { exchange: ExchangeType::QUICK_MODE, .. } => (
            Layer::Ipsec,
            Reason::QuickModeTimeout,
            "The gateway may have no policy for L2TP (UDP 1701) from this address: look into its log.",
        ),
        ike::Error::NoResponse { message: 1, .. } => (
            Layer::Peer,
            Reason::PeerSilent,
            "Check the address, that UDP 500 and 4500 are open on the way, and that the gateway accepts IKEv1, in Main Mode unless ike.exchange is Aggressive.",
        ),
        ike::Error::NoResponse { .. } => (
            Layer::Ike,
            Reason::IkeTimeout,
            "The gateway answered before: check that UDP 4500 is open on the way, and look into its log.",
        ),
        ike::Error::NoProposalChosen { phase: 1, .. } => (
            Layer::Ike,
            Reason::NoProposalChosen,
            "Ask the gateway's administrator for its algorithms and name them in ike.proposals, or lower ike.security; and whether it asks by XAUTH for a user, which client.xauth names.",
        ),
        ike::Error::NoProposalChosen { .. } => (
            Layer::Ipsec,
            Reason::QuickModeRejected,
            "Ask the gateway's administrator for its algorithms and name them in esp.proposals, with a group if it asks for PFS.",
        ),
        ike::Error::AuthenticationFailed { .. } => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "Compare the pre-shared key in the Secret with the gateway's; it may also be bound to an identity (ike.localId), or to XAUTH or its absence (client.xauth).",
        ),
        ike::Error::CertificateRefused { .. } => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "Check that the gateway trusts the authority of our certificate, that it has not expired, and that it has the name in ike.localId.",
        ),
        ike::Error::NoCertificate => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "Let the gateway send its certificate (CERT) when it is asked for one.",
        ),
        ike::Error::InvalidCertificate { problem: ike::CertificateProblem::Untrusted, .. } => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "Put the authority that issued it into ca.crt of the Secret, if it is the right gateway.",
        ),
        ike::Error::InvalidCertificate { .. } => {
            (Layer::Ike, Reason::AuthenticationFailed, "Let the gateway's administrator renew it.")
        }
        ike::Error::InvalidSignature => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "The gateway has not the key of the certificate that it sends, or somebody is between us.",
        ),
        ike::Error::NotInCertificate { .. } => (
            Layer::Ike,
            Reason::InvalidIdentity,
            "Set ike.remoteId to a subject alternative name of the gateway's certificate, if it is the right gateway.",
        ),
        ike::Error::XauthUnconfigured => (
            Layer::Ike,
            Reason::XauthFailed,
            "Name a Secret with the user name and the password for it in client.xauth.",
        ),
        ike::Error::XauthRefused { .. } => (
            Layer::Ike,
            Reason::XauthFailed,
            "Compare user name and password in the Secret of client.xauth with the account at the gateway.",
        ),
        ike::Error::XauthUnanswerable { .. } => (
            Layer::Ike,
            Reason::XauthFailed,
            "Let the gateway ask this account for a user name and a fixed password only.",
        ),
        ike::Error::XauthTimeout { asked: true } => {
            (Layer::Ike, Reason::IkeTimeout, "The user database of the gateway may not answer: look into its log.")
        }
        ike::Error::XauthTimeout { asked: false } => {
            (Layer::Ike, Reason::IkeTimeout, "Look into the gateway's log; remove client.xauth if it asks for no user.")
        }
        ike::Error::InvalidHash(ExchangeType::QUICK_MODE) | ike::Error::InvalidHash(ExchangeType::INFORMATIONAL) => {
            (Layer::Ipsec, Reason::QuickModeRejected, "The gateway does not keep to the protocol: look into its log.")
        }
        ike::Error::InvalidHash(_) => {
            (Layer::Ike, Reason::AuthenticationFailed, "Compare the pre-shared key in the Secret with the gateway's.")
        }
        ike::Error::IdentityRefused { notification: NotifyType::AUTHENTICATION_FAILED } => (
            Layer::Ike,
            Reason::AuthenticationFailed,
            "The pre-shared key is right. Set ike.localId to what the gateway knows this end by, of the kind that it asks for, client.xauth if it asks for a user, and only then, and ike.exchange to the mode that it knows.",
        ),
        ike::Error::IdentityRefused { .. } => (
            Layer::Ike,
            Reason::InvalidIdentity,
            "Set ike.localId to the name by which the gateway knows this end, and of the kind that it asks for.",
        ),
        ike::Error::InvalidId { .. } => (
            Layer::Ike,
            Reason::InvalidIdentity,
            "Set ike.remoteId to what the gateway calls itself, or remove it to accept any identity.",
        ),
        ike::Error::NoNatTraversal => (
            Layer::Ike,
            Reason::NatTraversalUnsupported,
            "Switch NAT traversal (NAT-T) on at the gateway, or set esp.encapsulation to Auto, which lets ESP travel without UDP.",
        ),
        ike::Error::Rejected { exchange: ExchangeType::QUICK_MODE, .. }
            if encapsulation == Some(Encapsulation::None) =>
        {
            (
                Layer::Ipsec,
                Reason::QuickModeRejected,
                "ESP travels without UDP, and the gateway takes this end for the address that it comes from: check that no NAT is on the way, or set esp.encapsulation to Udp; else its policy for L2TP (UDP 1701, transport mode) does not fit: look into its log.",
            )
        }
        ike::Error::Rejected { exchange: ExchangeType::QUICK_MODE, .. }
        | ike::Error::NotOffered { phase: 2, .. }
        | ike::Error::InvalidSelectors { .. }
        | ike::Error::SpiInUse => (
            Layer::Ipsec,
            Reason::QuickModeRejected,
            "The gateway's policy for L2TP (UDP 1701, transport mode) does not fit: look into its log.",
        ),
        ike::Error::PeerDeleted => {
            (Layer::Ike, Reason::PeerClosed, "The gateway closed the connection: look into its log.")
        }
        ike::Error::Expired => (
            Layer::Ipsec,
            Reason::QuickModeTimeout,
            "The keys could not be renewed in time; the tunnel is dialled again.",
        ),
        _ => (Layer::Ike, Reason::IkeRefused, "Look into the gateway's log."),
    };
    let refused = matches!(reason, Reason::AuthenticationFailed | Reason::XauthFailed);
    Failure { refused, facets: Facet::after(error), ..Failure::new(layer, reason, sentence(error, advice)) }
}

/// What L2TP failed with; `encapsulation` is that of ESP below it, and `up` says whether there was a link.
pub(super) fn of_l2tp(error: &l2tp::Error, encapsulation: Option<Encapsulation>, up: bool) -> Failure {
    let (reason, advice) = match error {
        l2tp::Error::StopCcn { .. } | l2tp::Error::Cdn { .. } if up => {
            (Reason::PeerClosed, "The tunnel is dialled again; look into the gateway's log if that repeats.")
        }
        l2tp::Error::NoResponse { .. } if encapsulation == Some(Encapsulation::None) => (
            Reason::L2tpTimeout,
            "ESP travels without UDP: check that IP protocol 50 is open on the way and no NAT is on it, and look into the gateway's log.",
        ),
        l2tp::Error::NoResponse { .. } => (
            Reason::L2tpTimeout,
            "IPsec is up, so the gateway's L2TP service does not run or drops UDP 1701 behind IPsec: look into its log.",
        ),
        l2tp::Error::TunnelAuthenticationFailed(_) | l2tp::Error::HiddenAvp { .. } => (
            Reason::TunnelAuthenticationFailed,
            "Compare the L2TP tunnel secret, which tunnelSecret names, with the gateway's.",
        ),
        l2tp::Error::StopCcn { .. } | l2tp::Error::Cdn { .. } => (
            Reason::L2tpRefused,
            "Look into the gateway's log; it may have no free address or session, or a host name it expects (l2tp.hostName).",
        ),
        _ => (Reason::L2tpRefused, "The gateway does not keep to RFC 2661: look into its log."),
    };
    Failure::new(Layer::L2tp, reason, sentence(error, advice))
}

pub(super) fn of_ppp(error: &ppp::Error) -> Failure {
    let (reason, advice) = match error {
        ppp::Error::AuthenticationFailed { .. } => (
            Reason::PppAuthenticationFailed,
            "Compare user name and password in the Secret with the account at the gateway.",
        ),
        ppp::Error::NoAcceptableAuthentication { .. } => {
            (Reason::PppNegotiationFailed, "Add what it asks for to ppp.auth, if the gateway is trusted with it.")
        }
        ppp::Error::AuthenticatorNotVerified => (
            Reason::AuthenticatorNotVerified,
            "The gateway does not know the password, so it may not be the gateway: check the address and the pre-shared key.",
        ),
        ppp::Error::AuthenticationSkipped => (
            Reason::AuthenticatorNotVerified,
            "Let it ask for MS-CHAPv2, or add Chap or Pap to ppp.auth if its pre-shared key is proof enough.",
        ),
        ppp::Error::NoResponse { .. } => (Reason::PppTimeout, "The gateway's PPP does not answer: look into its log."),
        _ => (Reason::PppNegotiationFailed, "Look into the gateway's PPP log."),
    };
    let refused = reason == Reason::PppAuthenticationFailed;
    Failure { refused, ..Failure::new(Layer::Ppp, reason, sentence(error, advice)) }
}

pub(super) fn ppp_terminated(text: &str) -> Failure {
    let said = if text.is_empty() { String::new() } else { format!(", saying {text:?}") };
    Failure::new(
        Layer::Ppp,
        Reason::PeerClosed,
        format!("The gateway ended PPP{said}. Look into its log; the tunnel is dialled again."),
    )
}

pub(super) fn echo_lost(count: u32) -> Failure {
    Failure::new(
        Layer::Ppp,
        Reason::DeadPeer,
        format!("The gateway's PPP left {count} LCP Echo-Requests unanswered. The tunnel is dialled again."),
    )
}

pub(super) fn l2tp_closed() -> Failure {
    Failure::new(
        Layer::L2tp,
        Reason::PeerClosed,
        "The gateway closed the L2TP tunnel. The tunnel is dialled again.".to_owned(),
    )
}

pub(super) fn sas_deleted() -> Failure {
    Failure::new(
        Layer::Ipsec,
        Reason::PeerClosed,
        "The gateway deleted the IPsec security associations. The tunnel is dialled again.".to_owned(),
    )
}

/// The SAs of an established tunnel went, and nobody answers the Quick Mode for new ones.
pub(super) fn not_renewed(error: &ike::Error) -> Failure {
    let advice = "The IPsec security associations expired or were deleted before. The tunnel is dialled again; look into the gateway's log.";
    Failure::new(Layer::Ipsec, Reason::QuickModeTimeout, sentence(error, advice))
}

pub(super) fn unusable_keys() -> Failure {
    Failure::new(
        Layer::Ipsec,
        Reason::QuickModeRejected,
        "The keys of Quick Mode cannot be used. The tunnel is dialled again.".to_owned(),
    )
}

pub(super) fn dead_peer(silence: Duration) -> Failure {
    Failure::new(
        Layer::Peer,
        Reason::DeadPeer,
        format!(
            "The gateway has said nothing for {} s, although it was asked. The tunnel is dialled again.",
            silence.as_secs()
        ),
    )
}

/// The failure of refused credentials, with when and why it is tried again.
pub(super) fn with_wait(failure: Failure, wait: Duration) -> Failure {
    let wait = wait.as_secs().max(1);
    let message = format!(
        "{} It is tried again in {wait} s, not sooner lest the gateway lock us out, but at once when the Secret changes.",
        failure.message
    );
    Failure { message, ..failure }
}

/// Other people's words, to be put in front of our own punctuation.
fn unpunctuated(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '.' | ':' | ';' | ',' | '!'))
}

/// What happened, as a sentence, and what to do.
fn sentence(error: &impl ToString, advice: &str) -> String {
    let error = error.to_string();
    let error = unpunctuated(&error);
    let mut letters = error.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}. {advice}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike::registry::NotifyType;

    #[test]
    fn the_words_of_others_keep_their_sentence_without_a_second_stop() {
        let failure = of_path("vpn.example.com", PathError::Unresolvable("no record found.".to_owned()));
        assert_eq!(
            failure.message,
            "The name vpn.example.com has no address (no record found). Check the name, and that the pod's DNS knows it."
        );
    }

    #[test]
    fn a_refused_identity_is_not_a_wrong_key() {
        for (notification, reason, refused) in [
            (NotifyType::INVALID_ID_INFORMATION, Reason::InvalidIdentity, false),
            (NotifyType::AUTHENTICATION_FAILED, Reason::AuthenticationFailed, true),
        ] {
            let failure = of_ike(&ike::Error::IdentityRefused { notification }, None);
            assert_eq!((failure.layer, failure.reason, failure.refused), (Layer::Ike, reason, refused));
            assert!(failure.message.contains("ike.localId"), "{}", failure.message);
        }
    }

    #[test]
    fn certificates_get_the_reason_of_a_proof_or_of_a_name_and_no_advice_about_keys() {
        let subject = || "CN=gateway".to_owned();
        let expired = ike::CertificateProblem::Expired;
        for (error, reason) in [
            (ike::Error::CertificateRefused { notification: None }, Reason::AuthenticationFailed),
            (ike::Error::NoCertificate, Reason::AuthenticationFailed),
            (ike::Error::InvalidSignature, Reason::AuthenticationFailed),
            (ike::Error::InvalidCertificate { subject: subject(), problem: expired }, Reason::AuthenticationFailed),
            (
                ike::Error::NotInCertificate { subject: subject(), name: ike::Identity::Fqdn("a.b".to_owned()) },
                Reason::InvalidIdentity,
            ),
        ] {
            let failure = of_ike(&error, None);
            assert_eq!((failure.layer, failure.reason), (Layer::Ike, reason));
            assert!(!failure.message.contains("pre-shared"), "{}", failure.message);
        }
    }

    #[test]
    fn what_xauth_fails_with_has_a_reason_of_its_own_and_only_a_silent_gateway_is_asked_again_soon() {
        let message = || "account locked".to_owned();
        for (error, words) in [
            (ike::Error::XauthUnconfigured, ["none is configured", "client.xauth"]),
            (ike::Error::XauthRefused { message: message() }, ["\"account locked\"", "client.xauth"]),
            (
                ike::Error::XauthUnanswerable { wanted: "a new PIN", message: message() },
                ["a new PIN", "fixed password"],
            ),
        ] {
            let failure = of_ike(&error, None);
            assert_eq!((failure.layer, failure.reason, failure.refused), (Layer::Ike, Reason::XauthFailed, true));
            assert!(words.iter().all(|word| failure.message.contains(word)), "{}", failure.message);
            assert!(!failure.message.contains("pre-shared"), "{}", failure.message);
        }
        for asked in [false, true] {
            let failure = of_ike(&ike::Error::XauthTimeout { asked }, None);
            assert_eq!((failure.layer, failure.reason, failure.refused), (Layer::Ike, Reason::IkeTimeout, false));
            assert_eq!(failure.message.contains("client.xauth"), !asked, "{}", failure.message);
        }
    }

    #[test]
    fn a_quick_mode_that_is_rejected_without_udp_names_the_nat_and_the_field() {
        use ike::registry::ExchangeType;
        let rejected = ike::Error::Rejected {
            exchange: ExchangeType::QUICK_MODE,
            notification: NotifyType::INVALID_ID_INFORMATION,
        };
        for (encapsulation, named) in [(Encapsulation::None, true), (Encapsulation::Udp, false)] {
            let failure = of_ike(&rejected, Some(encapsulation));
            assert_eq!((failure.layer, failure.reason), (Layer::Ipsec, Reason::QuickModeRejected));
            for word in ["NAT", "esp.encapsulation to Udp"] {
                assert_eq!(failure.message.contains(word), named, "{}", failure.message);
            }
        }
    }

    #[test]
    fn an_expiry_of_our_own_is_not_blamed_on_the_gateway() {
        let failure = of_ike(&ike::Error::Expired, None);
        assert!(failure.message.contains("expired") && !failure.message.contains("deleted"), "{}", failure.message);
    }

    #[test]
    fn a_gateway_that_ends_a_call_of_hours_has_not_refused_it() {
        let result = l2tp::outcome::StopCcnResult(1);
        let ended = l2tp::Error::StopCcn { result, error: None, text: String::new() };
        let [refused, closed] = [false, true].map(|up| of_l2tp(&ended, None, up));
        assert_eq!((refused.reason, closed.reason), (Reason::L2tpRefused, Reason::PeerClosed));
        assert!(
            !closed.message.contains("l2tp.hostName") && closed.message.contains("dialled again"),
            "{}",
            closed.message
        );
    }

    #[test]
    fn refused_credentials_say_when_and_why_they_are_tried_again() {
        let failure = of_ike(&ike::Error::AuthenticationFailed { notification: None }, None);
        assert!(failure.refused);
        let message = with_wait(failure, Duration::from_secs(37)).message;
        assert!(message.contains("in 37 s") && message.contains("when the Secret changes"), "{message}");
        assert!(message.chars().count() < crate::report::MAX_MESSAGE, "{message}");
    }

    #[test]
    fn a_gateway_that_asks_for_no_authentication_has_not_proved_itself() {
        let failure = of_ppp(&ppp::Error::AuthenticationSkipped);
        assert_eq!((failure.layer, failure.reason), (Layer::Ppp, Reason::AuthenticatorNotVerified));
        assert!(failure.message.contains("ppp.auth") && !failure.refused, "{}", failure.message);
    }
}
