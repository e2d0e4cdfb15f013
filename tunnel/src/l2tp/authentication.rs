//! Tunnel authentication (RFC 2661 section 5.1.1): a challenge and a response in the manner of CHAP (RFC 1994).

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::avp::Attribute;
use super::error::{Authentication, Error};
use super::message::{Message, MessageType};

/// The length of a Challenge of ours, that of its response.
pub(super) const CHALLENGE: usize = 16;

/// The length of a Challenge Response.
const RESPONSE: usize = 16;

/// The Challenge Response that `message` carries: the ID of the CHAP calculation is the number of the message that the
/// response travels in (section 4.4.3), so that a response can never be reflected.
pub fn response(message: MessageType, secret: &[u8], challenge: &[u8]) -> [u8; RESPONSE] {
    let [_, id] = message.0.to_be_bytes();
    Md5::new().chain_update([id]).chain_update(secret).chain_update(challenge).finalize().into()
}

/// Whether `received` is the response that `message` must carry; takes the same time wherever they differ.
fn verify(message: MessageType, secret: &[u8], challenge: &[u8], received: &[u8]) -> bool {
    response(message, secret, challenge).as_slice().ct_eq(received).into()
}

/// Whether `message` answers our `challenge`, which is sent where there is a secret.
pub(super) fn check(message: &Message, secret: Option<&[u8]>, challenge: &[u8]) -> Result<(), Error> {
    //= rfc2661 5.1.1 "To participate in tunnel authentication, a single shared secret MUST exist between the LAC and LNS."
    //= test: tunnel_authentication_proves_both_ends, a_wrong_or_missing_response_ends_the_tunnel_without_a_word_about_why
    //= rfc2661 9.1 "For authentication to occur, the LAC and LNS MUST share a single secret."
    //= test: tunnel_authentication_proves_both_ends, a_wrong_or_missing_response_ends_the_tunnel_without_a_word_about_why
    let Some(secret) = secret else { return Ok(()) };
    let response = message.value(Attribute::CHALLENGE_RESPONSE);
    let response = response.ok_or(Error::TunnelAuthenticationFailed(Authentication::ResponseMissing))?;
    //= rfc2661 5.1.1 "establishment of the tunnel MUST be disallowed."
    //= test: tunnel_authentication_proves_both_ends, a_wrong_or_missing_response_ends_the_tunnel_without_a_word_about_why
    if verify(message.message_type, secret, challenge, response) {
        Ok(())
    } else {
        Err(Error::TunnelAuthenticationFailed(Authentication::ResponseWrong))
    }
}

/// The response to the Challenge of `message`, if it has one, for the message `carrier`, which follows it.
pub(super) fn answer(
    message: &Message,
    carrier: MessageType,
    secret: Option<&[u8]>,
) -> Result<Option<[u8; RESPONSE]>, Error> {
    //= rfc2661 4.4.3 "This AVP MUST be present in an SCCRP or SCCCN if a challenge was received in the preceding SCCRQ or SCCRP."
    //= test: tunnel_authentication_proves_both_ends, a_challenge_that_cannot_be_answered_is_refused
    //= rfc2661 5.1.1 "If a Challenge AVP is received in an SCCRQ or SCCRP, a Challenge Response AVP MUST be sent in the following SCCRP or SCCCN, respectively."
    //= test: tunnel_authentication_proves_both_ends, a_challenge_that_cannot_be_answered_is_refused
    let Some(challenge) = message.value(Attribute::CHALLENGE) else { return Ok(None) };
    let secret = secret.ok_or(Error::TunnelAuthenticationFailed(Authentication::SecretMissing))?;
    Ok(Some(response(carrier, secret, challenge)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn the_response_depends_on_the_message_that_carries_it() {
        // Computed from RFC 1994 section 4.1 with another implementation of MD5.
        let challenge = hex!("000102030405060708090a0b0c0d0e0f");
        let [sccrp, scccn] = [hex!("6cabe3a6fd5b808fff268d6fecee6c84"), hex!("cf97f8a2d782ba6041053491d8973eae")];
        assert_eq!(response(MessageType::SCCRP, b"tunnel secret", &challenge), sccrp);
        assert_eq!(response(MessageType::SCCCN, b"tunnel secret", &challenge), scccn);
        assert!(verify(MessageType::SCCRP, b"tunnel secret", &challenge, &sccrp));
        assert!(!verify(MessageType::SCCRP, b"tunnel secret", &challenge, &scccn));
        assert!(!verify(MessageType::SCCRP, b"tunnel secret", &challenge, &sccrp[..15]));
        assert!(!verify(MessageType::SCCRP, b"tunnel secret", &challenge, &[]));
    }
}
