//! The SA payloads of first messages, each kept once: HASH_I and HASH_R cover the whole payload of message 1 (RFC 2409 section 5),
//! and peers of one kind send the same.

use std::collections::{BTreeMap, HashMap};

use super::cookie::NUMBER_BITS;
use crate::crypto::hash;
use crate::ike::main_mode::Choice;
use crate::suite::Hash;

/// The most payloads that are kept.
pub(super) const MAX_OFFERS: usize = 4096;

/// The most of them that are kept because an ISAKMP SA came of them.
const MAX_PROVEN: usize = MAX_OFFERS / 2;

/// The longest payload that is kept: the longest known offers have some 60 transforms of 28 octets.
pub(super) const MAX_OFFER: usize = 2048;

const _: () = assert!(MAX_OFFERS == 1 << NUMBER_BITS);

/// The name of a payload: it differs for each payload and each configuration.
pub(in crate::ike) type Digest = [u8; 32];

/// A payload and what was chosen of it.
pub(super) struct Offer {
    pub(super) digest: Digest,
    pub(super) sa: Vec<u8>,
    pub(super) choice: Choice,
    /// Its place in one of the two orders.
    turn: u64,
    proven: bool,
}

/// The payloads by number.
#[derive(Default)]
pub(super) struct Offers {
    list: Vec<Offer>,
    by_digest: HashMap<Digest, u16>,
    /// Those of which nothing has come yet, the oldest first.
    unproven: BTreeMap<u64, u16>,
    /// The others, the one that was unused for the longest time first.
    proven: BTreeMap<u64, u16>,
    turns: u64,
}

impl Offers {
    /// The name of a payload under a configuration.
    pub(super) fn digest(configuration: u64, sa: &[u8]) -> Digest {
        let digest = hash::digest(Hash::Sha256, &[&configuration.to_be_bytes(), sa]);
        digest.try_into().expect("SHA2-256 gives 32 octets")
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, number: u16) -> Option<&Offer> {
        self.list.get(usize::from(number))
    }

    /// The number of a payload that is kept.
    pub(super) fn number(&self, digest: &Digest) -> Option<u16> {
        self.by_digest.get(digest).copied()
    }

    /// Keeps a payload that is not kept yet, in place of the oldest one that led to nothing if there are too many.
    pub(super) fn keep(&mut self, digest: Digest, sa: &[u8], choice: Choice) -> u16 {
        let turn = self.next_turn();
        let offer = Offer { digest, sa: sa.to_vec(), choice, turn, proven: false };
        let oldest = if self.list.len() < MAX_OFFERS { None } else { self.unproven.pop_first() };
        let number = match oldest.and_then(|(_, number)| Some((number, self.list.get_mut(usize::from(number))?))) {
            Some((number, place)) => {
                let gone = std::mem::replace(place, offer);
                self.by_digest.remove(&gone.digest);
                number
            }
            None => {
                self.list.push(offer);
                u16::try_from(self.list.len().saturating_sub(1)).unwrap_or(u16::MAX)
            }
        };
        self.unproven.insert(turn, number);
        self.by_digest.insert(digest, number);
        number
    }

    /// An ISAKMP SA came of a payload: it stays as long as there are not too many others of which that is true.
    pub(super) fn prove(&mut self, digest: &Digest) {
        let Some(number) = self.number(digest) else { return };
        self.place(number, true);
        if self.proven.len() > MAX_PROVEN
            && let Some((_, oldest)) = self.proven.first_key_value()
        {
            self.place(*oldest, false);
        }
    }

    /// Puts a payload to the end of one of the orders.
    fn place(&mut self, number: u16, proven: bool) {
        let turn = self.next_turn();
        let Some(offer) = self.list.get_mut(usize::from(number)) else { return };
        if offer.proven {
            self.proven.remove(&offer.turn)
        } else {
            self.unproven.remove(&offer.turn)
        };
        (offer.turn, offer.proven) = (turn, proven);
        if proven {
            self.proven.insert(turn, number)
        } else {
            self.unproven.insert(turn, number)
        };
    }

    fn next_turn(&mut self) -> u64 {
        self.turns = self.turns.wrapping_add(1);
        self.turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::authentication::Method;
    use crate::ike::{Config, Credentials};
    use zeroize::Zeroizing;

    fn sa(index: usize) -> Vec<u8> {
        index.to_be_bytes().to_vec()
    }

    fn choice() -> Choice {
        let config = Config::new(
            [192, 0, 2, 1].into(),
            [192, 0, 2, 2].into(),
            Credentials::pre_shared_key(Zeroizing::new(b"key".to_vec())),
        );
        let offer = crate::ike::proposal::offer_phase1(&config.proposals, Method::PreSharedKey, config.lifetime);
        Choice::of(&config, &offer).unwrap()
    }

    fn keep(offers: &mut Offers, index: usize) -> u16 {
        offers.keep(Offers::digest(0, &sa(index)), &sa(index), choice())
    }

    fn is_kept(offers: &Offers, index: usize) -> bool {
        let digest = Offers::digest(0, &sa(index));
        offers.number(&digest).and_then(|number| offers.get(number)).is_some_and(|offer| offer.sa == sa(index))
    }

    #[test]
    fn the_oldest_payload_that_led_to_nothing_makes_room_and_the_number_of_all_is_bounded() {
        let mut offers = Offers::default();
        (0..MAX_OFFERS + 10).for_each(|index| {
            keep(&mut offers, index);
        });
        assert_eq!(
            (offers.list.len(), offers.by_digest.len(), offers.unproven.len()),
            (MAX_OFFERS, MAX_OFFERS, MAX_OFFERS)
        );
        assert!((0..10).all(|index| !is_kept(&offers, index)));
        assert!((10..MAX_OFFERS + 10).all(|index| is_kept(&offers, index)));
    }

    #[test]
    fn a_flood_never_displaces_a_payload_that_led_to_an_sa() {
        let mut offers = Offers::default();
        let number = keep(&mut offers, 0);
        offers.prove(&Offers::digest(0, &sa(0)));
        (1..3 * MAX_OFFERS).for_each(|index| {
            keep(&mut offers, index);
        });
        assert_eq!(offers.number(&Offers::digest(0, &sa(0))), Some(number));
    }

    #[test]
    fn half_of_the_room_stays_for_payloads_that_are_new() {
        let mut offers = Offers::default();
        for index in 0..2 * MAX_OFFERS {
            keep(&mut offers, index);
            offers.prove(&Offers::digest(0, &sa(index)));
        }
        assert_eq!((offers.proven.len(), offers.list.len()), (MAX_PROVEN, MAX_OFFERS));
        assert!(is_kept(&offers, 2 * MAX_OFFERS - 1) && is_kept(&offers, 2 * MAX_OFFERS - MAX_PROVEN));
    }

    #[test]
    fn a_payload_has_another_name_under_another_configuration() {
        assert_ne!(Offers::digest(1, &sa(0)), Offers::digest(2, &sa(0)));
    }
}
