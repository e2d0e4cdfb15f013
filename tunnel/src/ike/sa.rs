//! Security associations that exist: the ISAKMP SA of phase 1 and the pairs of ESP SAs of phase 2, and when they are renewed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Sa;
use super::detection::Sequences;
use super::key::Keys;
use super::main_mode::{Established, MainMode, Role};
use super::message::Cookies;
use super::nat::{Flavour, Nat};
use super::payload::Identity;
use crate::buffer::Port;
use crate::suite::IkeProposal;

/// How many Message IDs of the peer are remembered per ISAKMP SA, four octets each. Dead peer detection every 30 s fills this
/// in 17 h; phase 1 is renewed before that.
const MAX_MESSAGE_IDS: usize = 2048;

/// An ISAKMP SA.
pub(super) struct IsakmpSa {
    pub(super) id: u32,
    pub(super) cookies: Cookies,
    pub(super) role: Role,
    pub(super) keys: Keys,
    pub(super) last_block: Vec<u8>,
    /// Where messages of this end begin.
    pub(super) port: Port,
    pub(super) proposal: IkeProposal,
    pub(super) flavour: Flavour,
    pub(super) dpd: bool,
    pub(super) nat: Nat,
    pub(super) peer_id: Identity,
    pub(super) begun: Instant,
    pub(super) established: Instant,
    pub(super) expires: Instant,
    /// A newer ISAKMP SA has taken over.
    pub(super) superseded: bool,
    /// This end tells the peer when the SA goes.
    pub(super) deletes: bool,
    /// The last message of phase 1 that was answered, with the answer.
    pub(super) answered: Option<[Vec<u8>; 2]>,
    /// Those of dead peer detection.
    pub(super) sequences: Sequences,
    message_ids: VecDeque<u32>,
}

impl IsakmpSa {
    pub(super) fn new(now: Instant, id: u32, negotiation: &MainMode, established: Established) -> Self {
        Self {
            id,
            cookies: negotiation.cookies,
            role: negotiation.role,
            keys: established.keys,
            last_block: established.last_block,
            port: negotiation.port,
            proposal: established.proposal,
            flavour: established.flavour,
            dpd: established.dpd,
            nat: established.nat,
            peer_id: established.peer_id,
            begun: negotiation.begun,
            established: now,
            expires: now + established.lifetime,
            superseded: false,
            deletes: false,
            answered: established.answered,
            sequences: Sequences::default(),
            message_ids: VecDeque::new(),
        }
    }

    /// Whether the peer has used this Message ID.
    pub(super) fn has_seen(&self, message_id: u32) -> bool {
        self.message_ids.contains(&message_id)
    }

    /// Remembers a Message ID of an authenticated message.
    pub(super) fn remember(&mut self, message_id: u32) {
        if self.message_ids.len() >= MAX_MESSAGE_IDS {
            self.message_ids.pop_front();
        }
        self.message_ids.push_back(message_id);
    }
}

/// A pair of ESP SAs.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) inbound: u32,
    pub(super) outbound: u32,
    /// Whether the outbound SA is installed.
    pub(super) confirmed: bool,
    pub(super) begun: Instant,
    pub(super) established: Instant,
    pub(super) expires: Instant,
    /// A newer pair has taken over.
    pub(super) superseded: bool,
    /// This end tells the peer when the pair goes.
    pub(super) deletes: bool,
    /// Whether this end began its Quick Mode.
    pub(super) initiator: bool,
    /// The smaller nonce, which decides collisions.
    pub(super) nonce: Vec<u8>,
    /// The outbound SA of the redundant pair of a collision, which is not in use.
    pub(super) held: Option<Sa>,
}

/// How long after it was made an SA is renewed: 10 to 20 % of its life before the end for the side that made it, half of that
/// for the other side, so that both begin at once only by accident.
pub(super) fn renewal(life: Duration, leads: bool, rng: &mut StdRng) -> Duration {
    // At least a minute for the exchange, but never a larger share of a short life than 15 %.
    let margin = (life / 10).max(Duration::from_secs(60)).min(life.mul_f64(0.15));
    if leads { life - margin.mul_f64(1.0 + rng.random::<f64>()).min(life / 5) } else { life - margin / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_leading_side_renews_first_and_in_time() {
        let mut rng = StdRng::seed_from_u64(1);
        for seconds in [20, 60, 300, 1800, 3600, 28_800, 86_400] {
            let life = Duration::from_secs(seconds);
            for _ in 0..50 {
                let leads = renewal(life, true, &mut rng);
                let follows = renewal(life, false, &mut rng);
                assert!(leads >= life.mul_f64(0.8) && leads <= life.mul_f64(0.9), "{life:?} {leads:?}");
                assert!(follows > leads && follows < life, "{life:?} {follows:?}");
            }
        }
    }
}
