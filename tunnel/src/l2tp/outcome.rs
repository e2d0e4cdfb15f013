//! Why a tunnel or a session ended (RFC 2661 section 4.4.2): the Result Code AVP of StopCCN and CDN.

use crate::registry;
use crate::wire;

/// The most characters of a peer's text that are kept: enough for a sentence, too little to flood a log.
pub const MAX_TEXT: usize = 160;

registry! {
    /// The Result Code of a StopCCN.
    pub struct StopCcnResult(u16) {
        CLEAR = 1, GENERAL_ERROR = 2, ALREADY_EXISTS = 3, NOT_AUTHORIZED = 4, UNSUPPORTED_VERSION = 5, SHUTTING_DOWN = 6,
        FSM_ERROR = 7,
    }
}

impl StopCcnResult {
    /// What the code says.
    pub fn description(self) -> &'static str {
        match self {
            Self::CLEAR => "general request to clear the control connection",
            Self::GENERAL_ERROR => "general error",
            Self::ALREADY_EXISTS => "control channel already exists",
            Self::NOT_AUTHORIZED => "requester is not authorized to establish a control channel",
            Self::UNSUPPORTED_VERSION => "protocol version of the requester is not supported",
            Self::SHUTTING_DOWN => "requester is being shut down",
            Self::FSM_ERROR => "finite state machine error",
            _ => "unknown result",
        }
    }
}

registry! {
    /// The Result Code of a CDN.
    pub struct CdnResult(u16) {
        LOSS_OF_CARRIER = 1, GENERAL_ERROR = 2, ADMINISTRATIVE = 3, NO_FACILITIES_NOW = 4, NO_FACILITIES = 5,
        INVALID_DESTINATION = 6, NO_CARRIER = 7, BUSY = 8, NO_DIAL_TONE = 9, TIMED_OUT = 10, NO_FRAMING = 11,
    }
}

impl CdnResult {
    /// What the code says.
    pub fn description(self) -> &'static str {
        match self {
            Self::LOSS_OF_CARRIER => "loss of carrier",
            Self::GENERAL_ERROR => "general error",
            Self::ADMINISTRATIVE => "disconnected for administrative reasons",
            Self::NO_FACILITIES_NOW => "lack of appropriate facilities, temporarily",
            Self::NO_FACILITIES => "lack of appropriate facilities, permanently",
            Self::INVALID_DESTINATION => "invalid destination",
            Self::NO_CARRIER => "no carrier detected",
            Self::BUSY => "busy signal",
            Self::NO_DIAL_TONE => "no dial tone",
            Self::TIMED_OUT => "not established within the time allotted by the LAC",
            Self::NO_FRAMING => "connected, but no appropriate framing detected",
            _ => "unknown result",
        }
    }
}

registry! {
    /// The general Error Code behind a Result Code.
    pub struct ErrorCode(u16) {
        NONE = 0, NO_CONTROL_CONNECTION = 1, WRONG_LENGTH = 2, OUT_OF_RANGE = 3, INSUFFICIENT_RESOURCES = 4,
        INVALID_SESSION_ID = 5, VENDOR_SPECIFIC = 6, TRY_ANOTHER = 7, UNKNOWN_MANDATORY_AVP = 8,
    }
}

impl ErrorCode {
    /// What the code says.
    pub fn description(self) -> &'static str {
        match self {
            Self::NONE => "no general error",
            Self::NO_CONTROL_CONNECTION => "no control connection exists yet",
            Self::WRONG_LENGTH => "length is wrong",
            Self::OUT_OF_RANGE => "a value is out of range, or a reserved field is not zero",
            Self::INSUFFICIENT_RESOURCES => "insufficient resources now",
            Self::INVALID_SESSION_ID => "the Session ID is invalid in this context",
            Self::VENDOR_SPECIFIC => "vendor-specific error",
            Self::TRY_ANOTHER => "try another LNS",
            Self::UNKNOWN_MANDATORY_AVP => "an unknown AVP was marked mandatory",
            _ => "unknown error",
        }
    }
}

/// The value of a Result Code AVP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The Result Code: a [`StopCcnResult`] or a [`CdnResult`].
    pub result: u16,
    /// The Error Code, if there is one.
    pub error: Option<ErrorCode>,
    /// The Error Message: printable, at most [`MAX_TEXT`] characters.
    pub text: String,
}

impl Outcome {
    /// Reads the value of a Result Code AVP; `known` tells whether a Result Code is defined for the message.
    ///
    /// Apple's client sends the codes in the order of its processor: a code that is not defined, and would be with its octets
    /// swapped, is swapped.
    pub fn read(value: &[u8], known: impl Fn(u16) -> bool) -> Option<Self> {
        let (result, rest) = value.split_first_chunk()?;
        let result = u16::from_be_bytes(*result);
        let swapped = !known(result) && known(result.swap_bytes());
        let (error, text) = match rest.split_first_chunk() {
            Some((error, text)) => (Some(u16::from_be_bytes(*error)), text),
            None => (None, &[][..]),
        };
        let error = error.map(|code| {
            let other = ErrorCode(code.swap_bytes());
            if swapped && ErrorCode(code).name().is_none() && other.name().is_some() { other } else { ErrorCode(code) }
        });
        Some(Self { result: if swapped { result.swap_bytes() } else { result }, error, text: printable(text) })
    }

    /// The value of a Result Code AVP: at most [`MAX_TEXT`] characters of the text, which needs an Error Code before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.result.to_be_bytes().to_vec();
        let error = self.error.or_else(|| (!self.text.is_empty()).then_some(ErrorCode::NONE));
        if let Some(error) = error {
            out.extend_from_slice(&error.0.to_be_bytes());
            //= rfc2661 4.4.2 "Human readable text in all error messages MUST be provided in the UTF-8 charset using the Default Language [RFC2277]."
            //= test: the_lns_is_told_why, text_is_shown_only_as_far_as_it_is_printable
            out.extend(self.text.chars().take(MAX_TEXT).collect::<String>().bytes());
        }
        out
    }
}

/// A peer's text as it may be shown: at most [`MAX_TEXT`] characters.
pub(super) fn printable(text: &[u8]) -> String {
    wire::printable(text, MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn read(value: &[u8]) -> Option<Outcome> {
        Outcome::read(value, |code| StopCcnResult(code).name().is_some())
    }

    #[test]
    fn all_three_lengths_are_read() {
        let outcome = |result, error, text: &str| Some(Outcome { result, error, text: text.into() });
        assert_eq!(read(&hex!("0006")), outcome(6, None, ""));
        assert_eq!(read(&hex!("0002 0004")), outcome(2, Some(ErrorCode::INSUFFICIENT_RESOURCES), ""));
        // The StopCCN of xl2tpd 1.3.18.
        let goodbye = hex!("0001 0000 476f6f6462796521");
        assert_eq!(read(&goodbye), outcome(1, Some(ErrorCode::NONE), "Goodbye!"));
        assert_eq!(read(&goodbye).unwrap().encode(), goodbye);
        assert_eq!(read(&[1]), None);
    }

    #[test]
    fn only_implausible_codes_are_swapped() {
        assert_eq!(read(&hex!("0200 0400")).map(|o| (o.result, o.error)), Some((2, Some(ErrorCode(4)))));
        assert_eq!(read(&hex!("0200 0004")).map(|o| (o.result, o.error)), Some((2, Some(ErrorCode(4)))));
        assert_eq!(read(&hex!("0005 0100")).map(|o| (o.result, o.error)), Some((5, Some(ErrorCode(0x0100)))));
        assert_eq!(read(&hex!("0900")).map(|o| o.result), Some(0x0900));
    }
}
