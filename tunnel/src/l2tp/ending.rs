//! How the end of the session and of the tunnel is told: to the peer by the Result Codes of CDN and StopCCN (RFC 2661 section
//! 4.4.2), and from the peer by an error.

use super::avp::Attribute;
use super::error::Error;
use super::message::{Body, ControlHeader, Message, MessageType, SessionId, TunnelId};
use super::outcome::{CdnResult, ErrorCode, Outcome, StopCcnResult};

/// Version 1, revision 0: the value of the Protocol Version AVP.
pub(super) const PROTOCOL_VERSION: u16 = 0x0100;

/// Why the local side closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// Somebody asked for it.
    Administrative,
    /// The process ends.
    ShuttingDown,
    /// PPP, or what runs on it, has failed; the text is for the peer's log.
    Failure(String),
}

/// Why a tunnel or session ends.
pub(super) enum Ending {
    Local(CloseReason),
    Failed(Error),
}

impl Ending {
    /// What a StopCCN says about it.
    pub(super) fn stop_ccn(&self) -> Outcome {
        let plain = |result: StopCcnResult| Outcome { result: result.0, error: None, text: String::new() };
        let general = |error, text| Outcome { result: StopCcnResult::GENERAL_ERROR.0, error: Some(error), text };
        match self {
            Self::Local(CloseReason::Administrative) => plain(StopCcnResult::CLEAR),
            Self::Local(CloseReason::Failure(text)) => general(ErrorCode::VENDOR_SPECIFIC, text.clone()),
            Self::Local(CloseReason::ShuttingDown) => plain(StopCcnResult::SHUTTING_DOWN),
            Self::Failed(error) => match error {
                Error::NoResponse { .. } | Error::StopCcn { .. } | Error::Cdn { .. } => plain(StopCcnResult::CLEAR),
                Error::TunnelAuthenticationFailed(_) => plain(StopCcnResult::NOT_AUTHORIZED),
                // "Error Code indicates highest version supported".
                Error::UnsupportedVersion { .. } => Outcome {
                    result: StopCcnResult::UNSUPPORTED_VERSION.0,
                    error: Some(ErrorCode(PROTOCOL_VERSION)),
                    text: String::new(),
                },
                Error::UnexpectedMessage(_) => plain(StopCcnResult::FSM_ERROR),
                Error::MandatoryAvp { .. } => general(ErrorCode::UNKNOWN_MANDATORY_AVP, error.to_string()),
                Error::Malformed(_) => general(ErrorCode::WRONG_LENGTH, error.to_string()),
                Error::HiddenAvp { .. } | Error::InvalidAvp { .. } | Error::UnknownMessage(_) => {
                    general(ErrorCode::OUT_OF_RANGE, error.to_string())
                }
            },
        }
    }

    /// What a CDN says about it.
    pub(super) fn cdn(&self) -> Outcome {
        let general = |error, text| Outcome { result: CdnResult::GENERAL_ERROR.0, error: Some(error), text };
        match self {
            Self::Local(CloseReason::Administrative | CloseReason::ShuttingDown) => {
                Outcome { result: CdnResult::ADMINISTRATIVE.0, error: None, text: String::new() }
            }
            Self::Local(CloseReason::Failure(text)) => general(ErrorCode::VENDOR_SPECIFIC, text.clone()),
            Self::Failed(error) => match error {
                Error::MandatoryAvp { .. } => general(ErrorCode::UNKNOWN_MANDATORY_AVP, error.to_string()),
                Error::InvalidAvp { .. } | Error::HiddenAvp { .. } | Error::UnknownMessage(_) => {
                    general(ErrorCode::OUT_OF_RANGE, error.to_string())
                }
                Error::Malformed(_) => general(ErrorCode::WRONG_LENGTH, error.to_string()),
                Error::NoResponse { .. } => {
                    Outcome { result: CdnResult::TIMED_OUT.0, error: None, text: String::new() }
                }
                Error::StopCcn { .. }
                | Error::Cdn { .. }
                | Error::TunnelAuthenticationFailed(_)
                | Error::UnsupportedVersion { .. }
                | Error::UnexpectedMessage(_) => general(ErrorCode::VENDOR_SPECIFIC, error.to_string()),
            },
        }
    }
}

/// A StopCCN for the tunnel that this end calls `ours`.
pub(super) fn stop_ccn_body(ours: TunnelId, outcome: &Outcome) -> Body {
    Body::new(MessageType::STOPCCN)
        //= rfc2661 4.4.3 "the Assigned Tunnel ID AVP MUST be the same as the Assigned Tunnel ID AVP first sent to the receiving peer"
        //= test: close_tells_all_of_it_to_everybody_and_waits_for_their_acknowledgments, a_stop_ccn_of_a_peer_that_has_not_heard_the_sccrp_names_the_tunnel_by_its_own_id
        .u16(Attribute::ASSIGNED_TUNNEL_ID, ours.0)
        //= rfc2661 6.4 "The following AVPs MUST be present in the StopCCN:"
        //= test: close_tells_all_of_it_to_everybody_and_waits_for_their_acknowledgments, a_stop_ccn_without_a_result_ends_the_tunnel_all_the_same
        .bytes(Attribute::RESULT_CODE, &outcome.encode())
}

/// A CDN for the session that this end calls `ours`; `body` is a new one, which may hide.
pub(super) fn cdn_body(body: Body, ours: SessionId, outcome: &Outcome) -> Body {
    //= rfc2661 6.12 "The following AVPs MUST be present in the CDN:"
    //= test: the_end_of_a_call_is_told_to_the_lac_with_its_reason, a_cdn_without_a_result_ends_the_call_all_the_same
    body.bytes(Attribute::RESULT_CODE, &outcome.encode()).u16(Attribute::ASSIGNED_SESSION_ID, ours.0)
}

/// The most refusals of tunnels that wait to be sent; the peer asks again for others.
pub(super) const MAX_REFUSALS: usize = 4;

/// The StopCCN that answers an SCCRQ of which nothing is kept. A peer that does not hear it asks again.
pub(super) fn refuse_tunnel(peer: TunnelId, ours: TunnelId, outcome: &Outcome) -> Vec<u8> {
    let header = ControlHeader { tunnel_id: peer, session_id: SessionId::default(), ns: 0, nr: 1 };
    header.encode(&stop_ccn_body(ours, outcome).into_octets())
}

/// What the peer's StopCCN says.
pub(super) fn stop_ccn(message: &Message) -> Error {
    let known = |code| StopCcnResult(code).name().is_some();
    let outcome = message.value(Attribute::RESULT_CODE).and_then(|value| Outcome::read(value, known));
    let Outcome { result, error, text } = outcome.unwrap_or_default();
    Error::StopCcn { result: StopCcnResult(result), error, text }
}

/// What the peer's CDN says.
pub(super) fn cdn(message: &Message) -> Error {
    let known = |code| CdnResult(code).name().is_some();
    let outcome = message.value(Attribute::RESULT_CODE).and_then(|value| Outcome::read(value, known));
    let Outcome { result, error, text } = outcome.unwrap_or_default();
    Error::Cdn { result: CdnResult(result), error, text }
}
