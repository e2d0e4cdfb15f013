//! The computations of MS-CHAPv2 (RFC 2759 section 8).

//= out: rfc2759 0 "In this document, the key words "MAY", "MUST, "MUST NOT", "optional", "recommended", "SHOULD", and "SHOULD NOT" are to be interpreted as described in [3]." it says how words are to be read and demands nothing
//= out: rfc2759 7 "Reserved 8 octets, must be zero." a password is not changed over the link: its owner does that where it is kept
use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::crypto::{cbc::des_encrypt_block, hash};
use crate::suite::Hash;
use crate::wire::Reader;

/// The length of both challenges.
pub const CHALLENGE: usize = 16;
/// The length of an NT-Response.
pub const NT_RESPONSE: usize = 24;
/// The length of an authenticator response: `S=` and 40 hexadecimal digits.
pub const AUTHENTICATOR_RESPONSE: usize = 42;

/// The constants of section 8.7.
const MAGIC_1: &[u8; 39] = b"Magic server to client signing constant";
const MAGIC_2: &[u8; 41] = b"Pad to make it do more than one iteration";

/// The reserved octets of the value of a Response packet (section 4).
const RESERVED: usize = 8;
/// The length of the whole value, with an octet of flags at the end.
const RESPONSE: usize = CHALLENGE + RESERVED + NT_RESPONSE + 1;

/// The value of a Response packet (section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The challenge of the peer.
    pub peer_challenge: [u8; CHALLENGE],
    /// The NT-Response.
    pub nt_response: [u8; NT_RESPONSE],
}

impl Response {
    /// Reads a value; none unless it has the length of one. What the reserved octets and the flags say is of no account.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let peer_challenge = reader.array("peer challenge").ok()?;
        reader.take(RESERVED, "reserved").ok()?;
        let nt_response = reader.array("NT-Response").ok()?;
        reader.u8("flags").ok()?;
        reader.is_empty().then_some(Self { peer_challenge, nt_response })
    }

    /// The value, with zeros where there must be zeros.
    pub fn write(&self) -> [u8; RESPONSE] {
        //= rfc2759 4 "The Flag field is reserved for future use and MUST be zero."
        //= test: a_response_has_49_octets_and_zeros_between_its_parts, a_response_that_is_no_answer_to_the_challenge_is_ignored
        let mut value = [0; RESPONSE];
        let parts = self.peer_challenge.iter().chain(&[0; RESERVED]).chain(&self.nt_response);
        value.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
        value
    }
}

/// What the peer of an exchange knows.
pub struct Exchange<'a> {
    /// The challenge of the authenticator.
    pub authenticator_challenge: [u8; CHALLENGE],
    /// That of the peer.
    pub peer_challenge: [u8; CHALLENGE],
    /// The user name, as it is sent: a domain in front of it does not count.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

impl Exchange<'_> {
    /// GenerateNTResponse (section 8.1).
    pub fn nt_response(&self) -> [u8; NT_RESPONSE] {
        let challenge = self.challenge_hash();
        let password_hash = self.password_hash();
        // ChallengeResponse (section 8.5): the hash, padded with zeros to three keys of 7 octets.
        let mut padded = Zeroizing::new([0; 21]);
        padded.iter_mut().zip(password_hash.iter()).for_each(|(to, from)| *to = *from);
        let mut response = [0; NT_RESPONSE];
        for (block, key) in response.as_chunks_mut::<8>().0.iter_mut().zip(padded.as_chunks::<7>().0) {
            *block = des_encrypt_block(*key, challenge);
        }
        response
    }

    /// Whether `nt_response` is that of a peer that knows the password. Takes the same time whatever the answer.
    pub fn verify(&self, nt_response: &[u8; NT_RESPONSE]) -> bool {
        hash::eq(&self.nt_response(), nt_response)
    }

    /// GenerateAuthenticatorResponse (section 8.7).
    pub fn authenticator_response(&self, nt_response: &[u8; NT_RESPONSE]) -> String {
        let password_hash_hash = hash::md4(self.password_hash().as_slice());
        let digest = hash::digest(Hash::Sha1, &[password_hash_hash.as_slice(), nt_response, MAGIC_1]);
        let digest = hash::digest(Hash::Sha1, &[&digest, &self.challenge_hash(), MAGIC_2]);
        digest.iter().fold(String::from("S="), |mut text, octet| {
            // Writing to a string cannot fail.
            //= rfc2759 5 "The hexadecimal digits A-F (if present) MUST be uppercase."
            //= test: the_example_of_the_rfc_comes_out, an_authenticator_that_does_not_know_the_password_is_found_out
            let _infallible = write!(text, "{octet:02X}");
            text
        })
    }

    /// NtPasswordHash (section 8.3) of the password in UTF-16, little-endian.
    fn password_hash(&self) -> Zeroizing<[u8; 16]> {
        let unicode: Zeroizing<Vec<u8>> =
            Zeroizing::new(self.password.encode_utf16().flat_map(u16::to_le_bytes).collect());
        hash::md4(&unicode)
    }

    /// ChallengeHash (section 8.2); the user name without a domain in front of it (section 4).
    fn challenge_hash(&self) -> [u8; 8] {
        let name = self.username.rsplit_once('\\').map_or(self.username, |(_, name)| name);
        let digest = hash::digest(Hash::Sha1, &[&self.peer_challenge, &self.authenticator_challenge, name.as_bytes()]);
        digest.first_chunk().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// The example of RFC 2759 section 9.2.
    fn example(username: &str) -> Exchange<'_> {
        Exchange {
            authenticator_challenge: hex!("5B5D7C7D7B3F2F3E3C2C602132262628"),
            peer_challenge: hex!("21402324255E262A28295F2B3A337C7E"),
            username,
            password: "clientPass",
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let exchange = example("User");
        assert_eq!(exchange.challenge_hash(), hex!("D02E4386BCE91226"));
        assert_eq!(*exchange.password_hash(), hex!("44EBBA8D5312B8D611474411F56989AE"));
        let response = exchange.nt_response();
        assert_eq!(response, hex!("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"));
        assert!(exchange.verify(&response));
        assert!(!Exchange { password: "clientpass", ..example("User") }.verify(&response));
        assert_eq!(exchange.authenticator_response(&response), "S=407A5589115FD0D6209F510FE9C04566932CDA56");
    }

    #[test]
    fn a_response_has_49_octets_and_zeros_between_its_parts() {
        let response = Response { peer_challenge: [1; 16], nt_response: [2; 24] };
        let value = response.write();
        assert_eq!((&value[16..24], value[48]), (&[0; 8][..], 0));
        assert_eq!(Response::parse(&value), Some(response));
        assert_eq!(Response::parse(&value[1..]), None);
        assert_eq!(Response::parse(&[&value[..], &[0]].concat()), None);
    }

    #[test]
    fn a_domain_is_no_part_of_the_hash() {
        assert_eq!(example("CORP\\User").nt_response(), example("User").nt_response());
    }
}
