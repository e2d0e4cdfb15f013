//! Vendor IDs: what a peer says that it can do, and what it is (RFC 2408 section 3.16).

use super::error::Error;
use super::message::{Chain, Payloads};
use super::nat::{Flavour, NatPayloads, NatTraversal};
use super::registry::PayloadType;

/// Dead peer detection, version 1.0 (RFC 3706 section 5.1).
const DPD: [u8; 16] = 0xafca_d713_68a1_f1c9_6b86_96fc_7757_0100_u128.to_be_bytes();

/// MD5("MS NT5 ISAKMPOAKLEY"): Windows; four octets with its version follow.
const WINDOWS: [u8; 16] = 0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes();

/// MD5("FRAGMENTATION"), and the bit that says: in Main Mode. Some peers leave the bits out.
const FRAGMENTATION: [u8; 16] = 0x4048_b7d5_6ebc_e885_25e7_de7f_00d6_c2d3_u128.to_be_bytes();
const FRAGMENTATION_BITS: [u8; 4] = [0x80, 0, 0, 0];

/// XAUTH (draft-beaulieu-ike-xauth-02 section 4).
const XAUTH: [u8; 8] = 0x0900_2689_dfd6_b712_u64.to_be_bytes();

/// What the Vendor IDs of a peer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// The form of NAT traversal that both ends speak; none if one of them speaks none.
    pub(super) flavour: Option<Flavour>,
    /// It takes part in dead peer detection.
    pub(super) dpd: bool,
    /// It is Windows, which sends no ESP to a server that is behind a NAT.
    pub(super) windows: bool,
    /// It takes messages in fragments.
    pub(super) fragmentation: bool,
}

impl Abilities {
    /// How many bits [`Self::bits`] has.
    pub(super) const BITS: u32 = 6;

    /// Reads them, and refuses a peer without NAT traversal in a form that this end speaks where that is required.
    pub(super) fn of(payloads: &Payloads<'_>, required: NatTraversal, own: NatPayloads) -> Result<Self, Error> {
        let has = |wanted: &[u8]| payloads.all(PayloadType::VID).any(|id| id.starts_with(wanted));
        let (dpd, windows, fragmentation) = (has(&DPD), has(&WINDOWS), has(&FRAGMENTATION));
        Ok(Self { flavour: required.agree(Flavour::of(payloads, own.flavours()))?, dpd, windows, fragmentation })
    }

    /// They in few bits.
    pub(super) fn bits(self) -> u64 {
        // The number behind the last one is that of none.
        let flavour = Flavour::ALL.iter().position(|flavour| Some(*flavour) == self.flavour);
        let flavour = flavour.unwrap_or(Flavour::ALL.len());
        let flags = [self.dpd, self.windows, self.fragmentation];
        let flags = (3..).zip(flags).fold(0, |sum, (bit, flag)| sum | u64::from(flag) << bit);
        u64::try_from(flavour).unwrap_or_default() | flags
    }

    /// The reverse of [`Self::bits`]; none for bits that it never gives.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let index = usize::try_from(bits & 0b111).ok().filter(|index| *index <= Flavour::ALL.len())?;
        let flavour = Flavour::ALL.get(index).copied();
        let [dpd, windows, fragmentation] = [3, 4, 5].map(|bit| bits >> bit & 1 == 1);
        Some(Self { flavour, dpd, windows, fragmentation })
    }

    /// The Vendor IDs of the answer, the most important first: those that both ends know.
    pub(super) fn vendor_ids(self) -> impl Iterator<Item = Vec<u8>> {
        let fragmentation = self.fragmentation.then(|| [&FRAGMENTATION[..], &FRAGMENTATION_BITS].concat());
        let flavour = self.flavour.map(|flavour| flavour.vendor_id().to_vec());
        [flavour, self.dpd.then(|| DPD.to_vec()), fragmentation].into_iter().flatten()
    }

    /// Appends the NAT-D payloads with these bodies, if both ends traverse NATs.
    pub(super) fn write_nat_d(self, bodies: &[Vec<u8>; 2], chain: &mut Chain) {
        if let Some(flavour) = self.flavour {
            bodies.iter().for_each(|body| chain.push(flavour.nat_d(), body));
        }
    }

    //= rfc2408 3.16 "If a Vendor ID payload is sent, it MUST be sent during the Phase 1 negotiation."
    //= test: the_first_message_is_answered_with_its_own_proposal_and_the_vendor_ids_that_both_know, vendor_ids_that_do_not_fit_are_left_out_the_least_important_first
    //= rfc3706 5.1 "Both peers of an IKE session MUST send the DPD vendor ID before DPD exchanges can begin."
    //= test: a_dead_peer_is_noticed_and_a_quiet_one_is_not_dead, dead_peer_detection_stays_off_with_a_peer_that_does_not_know_it
    //= rfc3947 3.1 "In the first two messages of Phase 1, the vendor id payload for this specification MUST be sent if supported (and it MUST be received by both sides) for the NAT-Traversal probe to continue."
    //= test: the_drafts_of_nat_traversal_are_spoken_with_peers_that_know_no_other, a_peer_without_nat_traversal_is_named
    //= rfc2408 3.16 "A vendor sending the Vendor ID MUST not make any assumptions about private payloads that it may send unless a Vendor ID is received as well."
    //= test: the_drafts_of_nat_traversal_are_spoken_with_peers_that_know_no_other, a_peer_that_does_not_announce_it_is_sent_no_fragments
    //= rfc3706 5.1 "An IKE peer MUST send the Vendor ID if it wishes to take part in DPD exchanges."
    //= test: the_first_message_is_answered_with_its_own_proposal_and_the_vendor_ids_that_both_know, dead_peer_detection_stays_off_with_a_peer_that_does_not_know_it
    /// All that this end knows, for the first message of an initiator that offers XAUTH or does not.
    pub(super) fn announce(chain: &mut Chain, nat_traversal: NatTraversal, own: NatPayloads, xauth: bool) {
        if nat_traversal != NatTraversal::Off {
            own.flavours().iter().for_each(|flavour| chain.push(PayloadType::VID, &flavour.vendor_id()));
        }
        chain.push(PayloadType::VID, &DPD);
        if xauth {
            chain.push(PayloadType::VID, &XAUTH);
        }
        chain.push(PayloadType::VID, &[&FRAGMENTATION[..], &FRAGMENTATION_BITS].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_survive_their_bits() {
        for flavour in Flavour::ALL.map(Some).into_iter().chain([None]) {
            for flags in 0..8 {
                let [dpd, windows, fragmentation] = [1, 2, 4].map(|flag| flags & flag != 0);
                let abilities = Abilities { flavour, dpd, windows, fragmentation };
                assert!(abilities.bits() < 1 << Abilities::BITS);
                assert_eq!(Abilities::from_bits(abilities.bits()), Some(abilities));
            }
        }
        assert_eq!(Abilities::from_bits(0b111), None);
    }

    #[test]
    fn windows_is_known_by_its_vendor_id_whatever_its_version() {
        let mut chain = Chain::new();
        chain.push(PayloadType::VID, &Flavour::Draft02LineFeed.vendor_id());
        chain.push(PayloadType::VID, &[&WINDOWS[..], &[0, 0, 0, 9]].concat());
        let payloads = Payloads::read(chain.first(), chain.octets()).unwrap();
        let abilities = Abilities::of(&payloads, NatTraversal::Required, NatPayloads::Any).unwrap();
        let (flavour, dpd, fragmentation) = (Some(Flavour::Draft02LineFeed), false, false);
        assert_eq!(abilities, Abilities { flavour, dpd, windows: true, fragmentation });
    }
}
