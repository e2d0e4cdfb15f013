//! The option of IPV6CP: interface identifiers that differ (RFC 5072 section 4.1). Addresses beyond the link-local ones that follow
//! from them are the owner's business.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::negotiation::{Judgement, Negotiate};
use super::packet::{Protocol, options, write_option};
use crate::registry;

registry! {
    /// The types of IPV6CP options (RFC 5072 section 4).
    pub struct OptionType(u8) {
        INTERFACE_IDENTIFIER = 1,
    }
}

/// The universal/local bit: zero in an identifier that follows from no hardware address.
const UNIVERSAL: u64 = 1 << 57;

/// Both ends' options.
pub(super) struct Ipv6cp {
    /// Our identifier; none once the peer rejects the option.
    local: Option<u64>,
    /// The identifier that the peer uses.
    peer: Option<u64>,
    /// What the peer was last told to use.
    suggested: Option<u64>,
    rng: StdRng,
}

impl Ipv6cp {
    pub(super) fn new(mut rng: StdRng) -> Self {
        let local = Some(random(&mut rng));
        Self { local, peer: None, suggested: None, rng }
    }

    /// Our identifier and the peer's, where each has one.
    pub(super) fn identifiers(&self) -> Option<([u8; 8], [u8; 8])> {
        Some((self.local?.to_be_bytes(), self.peer?.to_be_bytes()))
    }

    /// An identifier that neither end has.
    fn another(&mut self) -> u64 {
        loop {
            let identifier = random(&mut self.rng);
            if Some(identifier) != self.local && Some(identifier) != self.peer {
                return identifier;
            }
        }
    }

    fn suggest(&mut self, nak: &mut Vec<u8>) {
        let identifier = self.another();
        self.suggested = Some(identifier);
        write_option(nak, OptionType::INTERFACE_IDENTIFIER.0, &identifier.to_be_bytes());
    }
}

fn random(rng: &mut StdRng) -> u64 {
    loop {
        //= rfc5072 4.1 "bit of the interface identifier MUST be set to zero (0)."
        //= test: the_tentative_identifier_is_random_local_and_not_zero, zero_and_our_own_identifier_are_naked_with_one_that_differs
        let identifier = rng.random::<u64>() & !UNIVERSAL;
        if identifier != 0 {
            return identifier;
        }
    }
}

impl Negotiate for Ipv6cp {
    const PROTOCOL: Protocol = Protocol::IPV6CP;

    fn request(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(local) = self.local {
            write_option(&mut out, OptionType::INTERFACE_IDENTIFIER.0, &local.to_be_bytes());
        }
        out
    }

    fn judge(&mut self, request: &[u8], last: bool) -> Judgement {
        self.peer = None;
        let Ok(options) = options(request) else { return Judgement::Reject(request.to_vec()) };
        let (mut nak, mut reject, mut named) = (Vec::new(), Vec::new(), false);
        for option in options {
            match (OptionType(option.kind), <[u8; 8]>::try_from(option.data).map(u64::from_be_bytes)) {
                (OptionType::INTERFACE_IDENTIFIER, Ok(identifier)) if !named => {
                    named = true;
                    //= rfc5072 4.1 "the interface identifier MUST be acknowledged"
                    //= test: another_identifier_is_acknowledged, zero_and_our_own_identifier_are_naked_with_one_that_differs
                    //= rfc5072 4.1 "If the two interface identifiers are equal and are not zero, Configure-Nak MUST be sent"
                    //= test: zero_and_our_own_identifier_are_naked_with_one_that_differs, another_identifier_is_acknowledged
                    if identifier != 0 && Some(identifier) != self.local {
                        self.peer = Some(identifier);
                    } else if last {
                        reject.extend(option.whole);
                    } else {
                        self.suggest(&mut nak);
                    }
                }
                // Exactly one identifier, and nothing else.
                _ => reject.extend(option.whole),
            }
        }
        // A peer that names none is told one; one that then still names none has none.
        //= rfc5072 4.1 "the peer MUST NOT send another Configure-Nak with this option included."
        //= test: a_peer_that_names_no_identifier_is_told_one_once, a_peer_that_names_no_identifier_is_told_one_once
        if !named && self.suggested.is_none() && !last {
            self.suggest(&mut nak);
        }
        match (reject.is_empty(), nak.is_empty()) {
            (false, _) => Judgement::Reject(reject),
            (true, false) => Judgement::Nak(nak),
            (true, true) => Judgement::Ack,
        }
    }

    fn handle_nak(&mut self, kind: u8, value: &[u8]) {
        if let (OptionType::INTERFACE_IDENTIFIER, Ok(octets), Some(_)) =
            (OptionType(kind), <[u8; 8]>::try_from(value), self.local)
        {
            // What was suggested to the peer comes back when both ends choose alike.
            let suggested = Some(u64::from_be_bytes(octets))
                .filter(|identifier| *identifier != 0 && self.suggested != Some(*identifier))
                .filter(|identifier| self.peer != Some(*identifier));
            //= rfc5072 4.1 "a new Configure-Request MUST be sent with the identifier value suggested in the last Configure-Nak from the peer."
            //= test: a_suggestion_is_followed_unless_it_is_the_one_that_we_made, a_suggestion_is_followed_unless_it_is_the_one_that_we_made
            //= rfc5072 4.1 "a new interface identifier MUST be chosen."
            //= test: a_suggestion_is_followed_unless_it_is_the_one_that_we_made, a_suggestion_is_followed_unless_it_is_the_one_that_we_made
            self.local = Some(suggested.unwrap_or_else(|| self.another()));
        }
    }

    fn handle_reject(&mut self, kind: u8) {
        if OptionType(kind) == OptionType::INTERFACE_IDENTIFIER {
            //= rfc5072 4.1 "A new Configure-Request MUST NOT contain the interface-identifier option if a valid Interface-Identifier Configure-Reject is received."
            //= test: a_rejected_identifier_does_not_come_back, a_rejected_ipv6cp_is_asked_for_no_more
            self.local = None;
        }
    }

    fn is_hopeless(&self) -> bool {
        self.local.is_none()
    }

    fn name(kind: u8) -> String {
        OptionType(kind).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn ipv6cp(seed: u8) -> Ipv6cp {
        Ipv6cp::new(StdRng::from_seed([seed; 32]))
    }

    fn option(identifier: u64) -> Vec<u8> {
        [&[1, 10][..], &identifier.to_be_bytes()].concat()
    }

    fn naked(judgement: Judgement) -> u64 {
        let Judgement::Nak(nak) = judgement else { panic!("{judgement:?}") };
        assert_eq!(nak[..2], [1, 10]);
        u64::from_be_bytes(nak[2..].try_into().unwrap())
    }

    #[test]
    fn the_tentative_identifier_is_random_local_and_not_zero() {
        let identifiers: std::collections::BTreeSet<u64> = (0..200).map(|seed| ipv6cp(seed).local.unwrap()).collect();
        assert_eq!(identifiers.len(), 200);
        assert!(identifiers.iter().all(|identifier| *identifier != 0 && identifier & UNIVERSAL == 0));
        assert!(identifiers.iter().any(|identifier| identifier >> 63 == 1), "the other bits are random");
        assert_eq!(ipv6cp(1).request(), option(ipv6cp(1).local.unwrap()));
    }

    #[test]
    fn another_identifier_is_acknowledged() {
        let mut ipv6cp = ipv6cp(1);
        assert_eq!(ipv6cp.judge(&option(7), false), Judgement::Ack);
        assert_eq!(ipv6cp.identifiers(), Some((ipv6cp.local.unwrap().to_be_bytes(), 7_u64.to_be_bytes())));
    }

    #[test]
    fn zero_and_our_own_identifier_are_naked_with_one_that_differs() {
        let mut ipv6cp = ipv6cp(1);
        let own = ipv6cp.local.unwrap();
        for asked in [0, own] {
            let suggested = naked(ipv6cp.judge(&option(asked), false));
            assert!(suggested != 0 && suggested != own && suggested & UNIVERSAL == 0);
            assert_eq!(ipv6cp.identifiers(), None);
            assert_eq!(ipv6cp.judge(&option(asked), true), Judgement::Reject(option(asked)));
        }
    }

    #[test]
    fn a_peer_that_names_no_identifier_is_told_one_once() {
        let mut ipv6cp = ipv6cp(1);
        naked(ipv6cp.judge(&[], false));
        assert_eq!(ipv6cp.judge(&[], false), Judgement::Ack);
        assert_eq!(ipv6cp.identifiers(), None);
    }

    #[test]
    fn a_second_identifier_and_other_options_are_rejected() {
        let compression = [2, 4, 0, 0x61];
        let request = [&option(7)[..], &option(8), &compression].concat();
        assert_eq!(ipv6cp(1).judge(&request, false), Judgement::Reject([&option(8)[..], &compression].concat()));
        assert_eq!(ipv6cp(1).judge(&[1, 4, 0, 9], false), Judgement::Reject(vec![1, 4, 0, 9]));
        assert_eq!(ipv6cp(1).judge(&[1, 9], false), Judgement::Reject(vec![1, 9]));
    }

    #[test]
    fn a_suggestion_is_followed_unless_it_is_the_one_that_we_made() {
        let mut ipv6cp = ipv6cp(1);
        ipv6cp.handle_nak(1, &9_u64.to_be_bytes());
        assert_eq!(ipv6cp.local, Some(9));
        let made = naked(ipv6cp.judge(&option(9), false));
        for useless in [made, 0] {
            ipv6cp.handle_nak(1, &useless.to_be_bytes());
            assert!(![Some(made), Some(9), Some(0), None].contains(&ipv6cp.local), "{:?}", ipv6cp.local);
        }
    }

    #[test]
    fn a_rejected_identifier_does_not_come_back() {
        let mut ipv6cp = ipv6cp(1);
        ipv6cp.handle_reject(1);
        ipv6cp.handle_nak(1, &9_u64.to_be_bytes());
        assert_eq!((ipv6cp.request(), ipv6cp.is_hopeless()), (vec![], true));
    }
}
