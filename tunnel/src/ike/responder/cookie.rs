//! The cookie of a responder that keeps nothing (RFC 2408 section 2.5.3): what it has to know when message 3 comes, and the proof
//! that it said so itself, to this peer, a short while ago.
//!
//! ```text
//!    63   62 … 51             50 … 45     44 … 0
//!   +---+-------------------+-----------+-----------------------------+
//!   | 1 | number of the SA  | abilities | MAC                         |
//!   +---+-------------------+-----------+-----------------------------+
//! ```

use std::net::SocketAddr;

use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use crate::buffer::Port;
use crate::crypto::hash::{self, HmacKey};
use crate::ike::message::Cookie;
use crate::ike::payload::address_octets;
use crate::ike::vendor::Abilities;
use crate::suite::Hash;

/// How many bits name the SA payload.
pub(super) const NUMBER_BITS: u32 = 12;

/// What remains for the MAC. A guess is right once in 2^45 tries, of which a source has some ten in a second.
const MAC_BITS: u32 = 63 - NUMBER_BITS - Abilities::BITS;

/// Set in each cookie: one of zeros would say "not known yet".
const ALWAYS: u64 = 1 << 63;

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// The number of the SA payload of message 1.
    pub(super) number: u16,
    /// What the Vendor IDs of message 1 say.
    pub(super) abilities: Abilities,
}

/// What a cookie is good for besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) initiator: Cookie,
    pub(super) remote: SocketAddr,
    pub(super) port: Port,
    /// The digest of the SA payload: its number may have passed to another.
    pub(super) digest: &'a [u8],
}

/// The secret of this process.
pub(super) struct Secret(HmacKey);

impl Secret {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut key[..]);
        Self(HmacKey::new(Hash::Sha256, &key[..]))
    }

    //= rfc2408 2.5.3 "1. The cookie must depend on the specific parties."
    //= test: a_cookie_says_what_it_was_made_of_and_is_never_zero, a_cookie_is_good_for_one_peer_one_port_and_one_payload
    //= rfc2408 2.5.3 "2. It must not be possible for anyone other than the issuing entity to generate cookies that will be accepted by that entity."
    //= test: a_cookie_is_good_for_two_periods, each_bit_of_a_cookie_counts
    //= rfc2408 2.5.3 "The details of cookie generation are implementation dependent, but MUST satisfy these basic requirements (originally stated by Phil Karn in [Karn]):"
    //= test: a_cookie_is_good_for_one_peer_one_port_and_one_payload, each_bit_of_a_cookie_counts
    //= rfc2408 2.5.3 "ISAKMP requires that the cookie be unique for each SA establishment to help prevent replay attacks, therefore, the date and time MUST be added to the information hashed."
    //= test: a_cookie_is_good_for_two_periods, message_3_is_taken_only_from_where_message_1_came_from_and_for_a_minute_at_most, cookies_and_nonces_are_never_the_same_twice
    fn mac(&self, word: u64, bound: &Bound<'_>, period: u64) -> u64 {
        let address = address_octets(bound.remote.ip());
        let port = if bound.port == Port::Ike { 0 } else { 1 };
        let code = self.0.authenticate(&[
            &word.to_be_bytes(),
            &period.to_be_bytes(),
            &bound.initiator,
            bound.digest,
            &bound.remote.port().to_be_bytes(),
            &[port],
            &address,
        ]);
        let first = code.iter().take(8).fold(0, |sum, &octet| sum << 8 | u64::from(octet));
        first & ((1 << MAC_BITS) - 1)
    }

    /// The cookie of this period.
    pub(super) fn seal(&self, claim: Claim, bound: &Bound<'_>, period: u64) -> Cookie {
        let word =
            ALWAYS | u64::from(claim.number) << (MAC_BITS + Abilities::BITS) | claim.abilities.bits() << MAC_BITS;
        (word | self.mac(word, bound, period)).to_be_bytes()
    }

    /// Whether a cookie that makes this claim was made in this period or in the one before it.
    pub(super) fn verifies(&self, cookie: Cookie, bound: &Bound<'_>, period: u64) -> bool {
        let word = u64::from_be_bytes(cookie);
        let (word, mac) = (word & !((1 << MAC_BITS) - 1), word & ((1 << MAC_BITS) - 1));
        [Some(period), period.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|period| hash::eq(&mac.to_be_bytes(), &self.mac(word, bound, period).to_be_bytes()))
    }
}

/// What a cookie says, before anything is known of its truth; none if it is not of this form.
pub(super) fn claim(cookie: Cookie) -> Option<Claim> {
    let word = u64::from_be_bytes(cookie);
    let number = u16::try_from(word >> (MAC_BITS + Abilities::BITS) & ((1 << NUMBER_BITS) - 1)).ok()?;
    let abilities = Abilities::from_bits(word >> MAC_BITS & ((1 << Abilities::BITS) - 1))?;
    (word & ALWAYS != 0).then_some(Claim { number, abilities })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::nat::Flavour;
    use rand::SeedableRng;

    const CLAIM: Claim = Claim {
        number: 4095,
        abilities: Abilities { flavour: Some(Flavour::Draft02), dpd: true, windows: true, fragmentation: true },
    };

    fn secret() -> Secret {
        Secret::new(&mut StdRng::seed_from_u64(1))
    }

    fn bound() -> Bound<'static> {
        let remote = "192.0.2.7:500".parse().unwrap();
        Bound { initiator: [3; 8], remote, port: Port::Ike, digest: &[9; 32] }
    }

    #[test]
    fn a_cookie_says_what_it_was_made_of_and_is_never_zero() {
        let cookie = secret().seal(CLAIM, &bound(), 5);
        assert_eq!(claim(cookie), Some(CLAIM));
        assert!(secret().verifies(cookie, &bound(), 5));
        assert_eq!(claim([0; 8]), None);
        assert_ne!(secret().seal(Claim { number: 0, ..CLAIM }, &bound(), 5)[0] & 0x80, 0);
    }

    #[test]
    fn a_cookie_is_good_for_two_periods() {
        let cookie = secret().seal(CLAIM, &bound(), 5);
        let good: Vec<u64> = (0..10).filter(|period| secret().verifies(cookie, &bound(), *period)).collect();
        assert_eq!(good, [5, 6]);
    }

    #[test]
    fn a_cookie_is_good_for_one_peer_one_port_and_one_payload() {
        let cookie = secret().seal(CLAIM, &bound(), 5);
        let others = [
            Bound { initiator: [4; 8], ..bound() },
            Bound { remote: "192.0.2.8:500".parse().unwrap(), ..bound() },
            Bound { remote: "192.0.2.7:501".parse().unwrap(), ..bound() },
            Bound { port: Port::NatT, ..bound() },
            Bound { digest: &[8; 32], ..bound() },
        ];
        assert!(others.iter().all(|other| !secret().verifies(cookie, other, 5)));
        let other = Secret::new(&mut StdRng::seed_from_u64(2));
        assert!(!other.verifies(cookie, &bound(), 5));
    }

    #[test]
    fn each_bit_of_a_cookie_counts() {
        let cookie = u64::from_be_bytes(secret().seal(CLAIM, &bound(), 5));
        let wrong = |bit: u32| {
            let changed = (cookie ^ 1 << bit).to_be_bytes();
            claim(changed).is_none() || !secret().verifies(changed, &bound(), 5)
        };
        assert!((0..64).all(wrong));
    }
}
