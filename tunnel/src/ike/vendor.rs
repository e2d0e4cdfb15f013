//! Vendor IDs: what a peer says that it can do, and what it is (RFC 2408 section 3.16).

use super::message::{Chain, Payloads};
use super::nat::Flavour;
use super::registry::PayloadType;

/// Dead peer detection, version 1.0 (RFC 3706 section 5.1).
const DPD: [u8; 16] = 0xafca_d713_68a1_f1c9_6b86_96fc_7757_0100_u128.to_be_bytes();

/// MD5("MS NT5 ISAKMPOAKLEY"): Windows; four octets with its version follow.
const WINDOWS: [u8; 16] = 0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes();

/// What the Vendor IDs of a peer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abilities {
    /// The form of NAT traversal that both ends speak.
    pub(super) flavour: Flavour,
    /// It takes part in dead peer detection.
    pub(super) dpd: bool,
    /// It is Windows, which sends no ESP to a server that is behind a NAT.
    pub(super) windows: bool,
}

impl Abilities {
    /// How many bits [`Self::bits`] has.
    pub(super) const BITS: u32 = 5;

    /// Reads them; none for a peer without NAT traversal.
    pub(super) fn of(payloads: &Payloads<'_>) -> Option<Self> {
        let has = |wanted: &[u8]| payloads.all(PayloadType::VID).any(|id| id.starts_with(wanted));
        Some(Self { flavour: Flavour::of(payloads)?, dpd: has(&DPD), windows: has(&WINDOWS) })
    }

    /// They in few bits.
    pub(super) fn bits(self) -> u64 {
        let flavour = Flavour::ALL.iter().position(|flavour| *flavour == self.flavour).unwrap_or_default();
        u64::try_from(flavour).unwrap_or_default() | u64::from(self.dpd) << 3 | u64::from(self.windows) << 4
    }

    /// The reverse of [`Self::bits`]; none for bits that it never gives.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        let flavour = usize::try_from(bits & 0b111).ok().and_then(|index| Flavour::ALL.get(index))?;
        Some(Self { flavour: *flavour, dpd: bits & 1 << 3 != 0, windows: bits & 1 << 4 != 0 })
    }

    /// The Vendor IDs of the answer, the most important first: those that both ends know.
    pub(super) fn vendor_ids(self) -> impl Iterator<Item = Vec<u8>> {
        [Some(self.flavour.vendor_id().to_vec()), self.dpd.then(|| DPD.to_vec())].into_iter().flatten()
    }

    /// All that this end knows, for the first message of an initiator.
    pub(super) fn announce(chain: &mut Chain) {
        for flavour in Flavour::ALL {
            chain.push(PayloadType::VID, &flavour.vendor_id());
        }
        chain.push(PayloadType::VID, &DPD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_survive_their_bits() {
        for flavour in Flavour::ALL {
            for (dpd, windows) in [(false, false), (false, true), (true, false), (true, true)] {
                let abilities = Abilities { flavour, dpd, windows };
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
        let abilities = Abilities::of(&Payloads::read(chain.first(), chain.octets()).unwrap()).unwrap();
        assert_eq!(abilities, Abilities { flavour: Flavour::Draft02LineFeed, dpd: false, windows: true });
    }
}
