//! What an owner of many relations, who finds them by cookie and SPI, needs besides: the names that this end gives, a peer that
//! moves, and a new phase 1 of a peer that is known.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;

use super::main_mode::Role;
use super::message::Cookies;
use super::{Event, Ike};
use crate::buffer::Port;

/// The SPIs that this end may choose: those whose first bits are a given number, so that one look at a packet tells whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpiSpace {
    /// The first bits.
    pub prefix: u32,
    /// How many bits that are, at most 24.
    pub bits: u8,
}

impl SpiSpace {
    /// The SPI of the space that a random number stands for; none if it is one of those that are reserved (RFC 4303 section 2.1).
    fn spi(self, random: u32) -> Option<u32> {
        let free = 32_u32.saturating_sub(self.bits.into());
        let spi = match self.prefix.checked_shl(free) {
            Some(prefix) => prefix | random.checked_shr(self.bits.into()).unwrap_or_default(),
            None => random,
        };
        (spi > 255).then_some(spi)
    }
}

/// The initiator's and the responder's cookie of an ISAKMP message (RFC 2408 section 3.1), without any look at the rest of it.
pub fn cookies(message: &[u8]) -> Option<[[u8; 8]; 2]> {
    let (initiator, rest) = message.split_first_chunk()?;
    Some([*initiator, *rest.first_chunk()?])
}

impl Cookies {
    /// The one that this end chose.
    pub(super) fn own(&self, role: Role) -> [u8; 8] {
        match role {
            Role::Initiator => self.initiator,
            Role::Responder => self.responder,
        }
    }
}

impl Ike {
    /// Chooses SPIs from `space` from here on.
    pub fn set_spi_space(&mut self, space: SpiSpace) {
        self.config.spis = space;
    }

    //= rfc2408 2.4 "During the SA establishment, a SPI MUST be generated."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, an_answer_with_an_spi_that_is_in_use_is_refused
    /// An SPI for this end to receive on.
    pub(super) fn spi(&mut self) -> u32 {
        loop {
            let random = self.rng.next_u32();
            if let Some(spi) = self.config.spis.spi(random)
                && self.pairs.iter().all(|pair| pair.inbound != spi)
            {
                return spi;
            }
        }
    }

    /// The cookies by which the peer's messages to this end are known: one for each Main Mode and each ISAKMP SA.
    pub fn own_cookies(&self) -> impl Iterator<Item = [u8; 8]> + '_ {
        let negotiations = self.negotiations.iter().map(|negotiation| negotiation.cookies.own(negotiation.role));
        negotiations.chain(self.isakmp.iter().map(|sa| sa.cookies.own(sa.role)))
    }

    /// Reports that a cookie of this end is in use or no longer in use.
    pub(super) fn report_cookie(&mut self, cookies: Cookies, role: Role, alive: bool) {
        self.events.push_back(Event::OwnCookie { cookie: cookies.own(role), alive });
    }

    /// Whether nothing is left and nothing is under way, so that the relation can be forgotten.
    pub fn is_idle(&self) -> bool {
        self.negotiations.is_empty() && self.isakmp.is_empty() && self.pairs.is_empty()
    }

    /// The peer is now at `remote` for what is sent from `port`. The owner decides that, and only on an authenticated packet (RFC
    /// 3947 section 7).
    pub fn set_remote(&mut self, port: Port, remote: SocketAddr) {
        self.config.remote = remote.ip().to_canonical();
        match port {
            Port::Ike => self.config.remote_port_ike = remote.port(),
            Port::NatT => self.config.remote_port_nat_t = remote.port(),
        }
    }

    /// Takes over the ISAKMP SA that a relation admitted by a [`super::Responder`] has just established, as the renewal of ours: the
    /// owner has found that it is the same peer, and has handed nothing else to `other` since. A relation that was over goes on. What `other` has still to send and
    /// to say comes out of this relation.
    pub fn absorb(&mut self, now: Instant, other: Self) {
        self.closed = false;
        self.transmits.extend(other.transmits);
        self.events.extend(other.events);
        for mut sa in other.isakmp {
            sa.id = self.fresh_id();
            self.report_cookie(sa.cookies, sa.role, true);
            self.add_isakmp(now, sa);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_begins_with_the_bits_of_its_space_and_is_never_reserved() {
        let space = SpiSpace { prefix: 0x1234, bits: 16 };
        assert_eq!(space.spi(0xffff_ffff), Some(0x1234_ffff));
        assert_eq!(space.spi(0), Some(0x1234_0000));
        assert_eq!(SpiSpace::default().spi(0xffff_fffe), Some(0xffff_fffe));
        assert_eq!(SpiSpace::default().spi(255), None);
        assert_eq!(SpiSpace { prefix: 0, bits: 16 }.spi(0x00ff_0000), None);
    }
}
