//! Security associations that exist: the ISAKMP SA of phase 1 and the pairs of ESP SAs of phase 2, and when they are renewed.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::Sa;
use super::authentication::Authentication;
use super::detection::Sequences;
use super::key::Keys;
use super::main_mode::{Established, MainMode, Role};
use super::message::Cookies;
use super::nat::Nat;
use super::payload::Identity;
use super::quick_mode::Terms;
use super::retransmission::Answered;
use super::vendor::Abilities;
use super::xauth::Progress;
use crate::buffer::Port;
use crate::suite::IkeProposal;

/// How many Message IDs of both ends are remembered per ISAKMP SA, four octets each. When they are used up the SA takes nothing
/// new any more.
const MAX_MESSAGE_IDS: usize = 2048;

/// After this many Message IDs phase 1 is renewed.
const WORN: usize = MAX_MESSAGE_IDS / 4 * 3;

/// How long the SA before the last one still receives: far more than any packet is under way.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// What the peer began this soon after an SA was established may have begun before it knew of it: longer than any message is under
/// way, and far shorter than any lifetime.
pub(super) const CROSSING: Duration = Duration::from_secs(1);

/// The pause before a failed renewal is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(10);

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
    pub(super) abilities: Abilities,
    pub(super) nat: Nat,
    pub(super) peer_id: Identity,
    pub(super) authentication: Authentication,
    pub(super) begun: Instant,
    pub(super) established: Instant,
    pub(super) expires: Instant,
    /// A newer ISAKMP SA has taken over.
    pub(super) superseded: bool,
    /// When the peer last used it.
    pub(super) used: Option<Instant>,
    /// The last message of phase 1 that was answered, with the answer.
    pub(super) answered: Option<Answered>,
    /// Those of dead peer detection.
    pub(super) sequences: Sequences,
    /// Extended authentication; nothing else is protected by this SA as long as it is awaited.
    pub(super) xauth: Progress,
    message_ids: Vec<u32>,
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
            abilities: established.abilities,
            nat: established.nat,
            peer_id: established.peer_id,
            authentication: established.authentication,
            begun: negotiation.begun,
            established: now,
            expires: now + established.lifetime,
            superseded: false,
            used: None,
            answered: established.answered,
            sequences: Sequences::default(),
            xauth: Progress::new(established.xauth == Some(negotiation.role)),
            message_ids: Vec::new(),
        }
    }

    /// Whether a message on this port is older than the float to port 4500 (RFC 3947 section 4).
    pub(super) fn is_stale(&self, port: Port) -> bool {
        //= rfc3947 4 "All subsequent packets sent to this peer (including informational notifications) MUST be sent on port 4500."
        //= test: message_5_and_everything_after_it_goes_to_port_4500, messages_on_port_500_are_old_once_the_port_has_changed
        //= rfc3947 4 "If the packet is a Main Mode or an Aggressive Mode packet (with the same cookies as previous packets), it SHOULD be discarded."
        //= test: message_5_and_everything_after_it_goes_to_port_4500, messages_on_port_500_are_old_once_the_port_has_changed
        self.port == Port::NatT && port == Port::Ike
    }

    /// The peer has used it. That it does shows that it has message 6, so that nobody asks for that one again.
    pub(super) fn touch(&mut self, now: Instant) {
        self.used = Some(now);
        self.answered = None;
    }

    /// Whether either end has used this Message ID.
    pub(super) fn has_seen(&self, message_id: u32) -> bool {
        self.message_ids.contains(&message_id)
    }

    /// Whether a message of the peer with this Message ID has to be refused: it comes again, or it could not be remembered.
    pub(super) fn refuses(&self, message_id: u32) -> bool {
        self.message_ids.len() >= MAX_MESSAGE_IDS || self.has_seen(message_id)
    }

    /// Remembers a Message ID: one of ours, or that of an authenticated message.
    pub(super) fn remember(&mut self, message_id: u32) {
        if self.message_ids.len() < MAX_MESSAGE_IDS {
            self.message_ids.push(message_id);
        }
    }

    /// Whether so many Message IDs are used that another ISAKMP SA is needed.
    pub(super) fn is_worn(&self) -> bool {
        self.message_ids.len() >= WORN
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
    /// When the peer last sent on it.
    pub(super) used: Option<Instant>,
    /// Whether this end began its Quick Mode.
    pub(super) initiator: bool,
    /// What the peer asked for, if it began.
    pub(super) terms: Option<Terms>,
    /// The smaller nonce, which decides collisions.
    pub(super) nonce: Vec<u8>,
    /// The outbound SA of the redundant pair of a collision, which is not in use.
    pub(super) held: Option<Sa>,
}

/// How long a replaced SA stays: the side that deletes it waits less, so that the other one seldom has to.
pub(super) fn grace(deletes: bool) -> Duration {
    if deletes { GRACE } else { GRACE * 2 }
}

/// Until when a replaced SA that the peer still uses has to stay, if it has to: never beyond its own end.
pub(super) fn postponed(used: Option<Instant>, expires: Instant, now: Instant) -> Option<Instant> {
    used.map(|used| (used + GRACE).min(expires)).filter(|&until| until > now)
}

/// The pause before what the peer took away is begun anew. A peer that takes it away each time is asked more and more seldom.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Backoff {
    /// When the peer hangs up, the next Delete comes before this.
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    /// What lived this long was no failure.
    const STEADY: Duration = Duration::from_secs(60);

    /// The pause after something that lived for `lived`.
    pub(super) fn next(&mut self, lived: Duration) -> Duration {
        if lived >= Self::STEADY {
            self.pause = Self::FIRST;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::LONGEST);
        pause
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: Self::FIRST }
    }
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
    fn pauses_double_up_to_a_minute_until_something_lives_that_long() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.next(Duration::from_secs(59)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.next(Duration::from_secs(60)).as_secs(), 1);
    }

    #[test]
    fn a_replaced_sa_stays_while_it_is_used_but_never_beyond_its_end() {
        let now = Instant::now();
        let (soon, late) = (now + GRACE / 2, now + GRACE * 3);
        assert_eq!(postponed(None, late, now), None);
        assert_eq!(postponed(Some(now), late, now + GRACE), None);
        assert_eq!(postponed(Some(now), late, now), Some(now + GRACE));
        assert_eq!(postponed(Some(now), soon, now), Some(soon));
    }

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
