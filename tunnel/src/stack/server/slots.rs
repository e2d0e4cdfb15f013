//! The places of peers: found by SPI, by where they are, and by what is due. The number of a slot is the prefix of each SPI that
//! this end chooses for its peer, so an ESP packet finds its peer without a search.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::peer::Peer;
use super::source;
use crate::config::server::Server as Config;
use crate::ike::SpiSpace;

/// How many bits of an SPI name the slot; the others are drawn.
const SLOT_BITS: u8 = 18;
/// The most slots: number 0 is left out, because SPIs up to 255 are reserved (RFC 4303 section 2.1).
const MAX_SLOTS: usize = (1 << SLOT_BITS) - 1;

/// The SPIs of a slot.
pub(super) fn spi_space(slot: u32) -> SpiSpace {
    SpiSpace { prefix: slot, bits: SLOT_BITS }
}

/// The slot of an SPI.
pub(super) fn of_spi(spi: u32) -> u32 {
    spi >> (u32::BITS - u32::from(SLOT_BITS))
}

struct Slot {
    peer: Peer,
    source: IpAddr,
    /// Under which it stands in [`Slots::places`].
    place: Option<SocketAddr>,
    due: Option<Instant>,
    half_open: bool,
    /// Our cookies in exchanges with the peer.
    cookies: Vec<[u8; 8]>,
}

/// Peers by their slots.
pub(super) struct Slots {
    slots: HashMap<u32, Slot>,
    most: usize,
    /// Where the search for a vacant one goes on.
    next: u32,
    due: BTreeSet<(Instant, u32)>,
    /// Whose exchange a cookie of ours belongs to.
    cookies: HashMap<[u8; 8], u32>,
    places: HashMap<SocketAddr, u32>,
    sources: HashMap<IpAddr, BTreeSet<u32>>,
    /// Those that have not proved themselves, the oldest first; some of them have meanwhile, or are gone.
    newcomers: VecDeque<u32>,
    half_open: usize,
    senders: VecDeque<u32>,
    sending: HashSet<u32>,
}

impl Slots {
    pub(super) fn new(most: usize) -> Self {
        Self {
            slots: HashMap::new(),
            most: most.min(MAX_SLOTS),
            next: 0,
            due: BTreeSet::new(),
            cookies: HashMap::new(),
            places: HashMap::new(),
            sources: HashMap::new(),
            newcomers: VecDeque::new(),
            half_open: 0,
            senders: VecDeque::new(),
            sending: HashSet::new(),
        }
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = most.min(MAX_SLOTS);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn half_open(&self) -> usize {
        self.half_open
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Peer> {
        self.slots.get(&slot).map(|slot| &slot.peer)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Peer> {
        self.slots.get_mut(&slot).map(|slot| &mut slot.peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.values().map(|slot| &slot.peer)
    }

    pub(super) fn all(&self) -> Vec<u32> {
        self.slots.keys().copied().collect()
    }

    /// The peer that has one of these cookies of ours: as responder the second, as initiator the first.
    pub(super) fn by_cookie(&self, [initiator, responder]: [[u8; 8]; 2]) -> Option<u32> {
        self.cookies.get(&responder).or_else(|| self.cookies.get(&initiator)).copied()
    }

    /// A cookie of ours is in use with a peer.
    pub(super) fn add_cookie(&mut self, number: u32, cookie: [u8; 8]) {
        if let Some(slot) = self.slots.get_mut(&number) {
            if !slot.cookies.contains(&cookie) {
                slot.cookies.push(cookie);
            }
            self.cookies.insert(cookie, number);
        }
    }

    /// A cookie of ours is no longer in use with a peer.
    pub(super) fn remove_cookie(&mut self, number: u32, cookie: [u8; 8]) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.cookies.retain(|known| *known != cookie);
        }
        if self.cookies.get(&cookie) == Some(&number) {
            self.cookies.remove(&cookie);
        }
    }

    #[cfg(test)]
    pub(super) fn cookies(&self) -> usize {
        self.cookies.len()
    }

    /// The peer whose packets come from there.
    pub(super) fn at(&self, remote: SocketAddr) -> Option<u32> {
        self.places.get(&remote).copied()
    }

    /// How many come from an address.
    pub(super) fn of_source(&self, address: IpAddr) -> u32 {
        self.sources.get(&address).map_or(0, |slots| u32::try_from(slots.len()).unwrap_or(u32::MAX))
    }

    /// The others from the address of `slot`.
    pub(super) fn of_same_source(&self, slot: u32) -> impl Iterator<Item = u32> {
        let source = self.slots.get(&slot).map(|slot| slot.source);
        let others = source.and_then(|source| self.sources.get(&source));
        others.into_iter().flatten().copied().filter(move |other| *other != slot)
    }

    /// A slot that nobody has, as long as there are not too many peers.
    pub(super) fn vacant(&mut self) -> Option<u32> {
        if self.slots.len() >= self.most {
            return None;
        }
        // A slot is used again as late as possible: packets for the one before may still arrive.
        loop {
            self.next = self.next % (1 << SLOT_BITS) + 1;
            if self.next < 1 << SLOT_BITS && !self.slots.contains_key(&self.next) {
                return Some(self.next);
            }
        }
    }

    pub(super) fn occupy(&mut self, slot: u32, peer: Peer, source: IpAddr) {
        self.sources.entry(source).or_default().insert(slot);
        self.newcomers.push_back(slot);
        self.half_open = self.half_open.saturating_add(1);
        self.slots.insert(slot, Slot { peer, source, place: None, due: None, half_open: true, cookies: Vec::new() });
    }

    /// Takes a peer out.
    pub(super) fn remove(&mut self, number: u32) -> Option<Peer> {
        let slot = self.slots.remove(&number)?;
        for cookie in &slot.cookies {
            if self.cookies.get(cookie) == Some(&number) {
                self.cookies.remove(cookie);
            }
        }
        if let Some(due) = slot.due {
            self.due.remove(&(due, number));
        }
        if let Some(place) = slot.place.filter(|place| self.places.get(place) == Some(&number)) {
            self.places.remove(&place);
        }
        if let Some(of_source) = self.sources.get_mut(&slot.source) {
            of_source.remove(&number);
            if of_source.is_empty() {
                self.sources.remove(&slot.source);
            }
        }
        if slot.half_open {
            self.half_open = self.half_open.saturating_sub(1);
        }
        Some(slot.peer)
    }

    /// The one that has not proved itself for longest.
    pub(super) fn oldest_half_open(&mut self) -> Option<u32> {
        while let Some(slot) = self.newcomers.pop_front() {
            if self.slots.get(&slot).is_some_and(|slot| slot.half_open) {
                return Some(slot);
            }
        }
        None
    }

    /// Takes note of what has changed about a peer.
    pub(super) fn touch(&mut self, number: u32, config: &Config) {
        let Some(slot) = self.slots.get_mut(&number) else { return };
        if slot.half_open && !slot.peer.is_half_open() {
            slot.half_open = false;
            self.half_open = self.half_open.saturating_sub(1);
            // So that the list is not longer than those that it is about.
            while self.newcomers.front().is_some_and(|front| *front == number) {
                self.newcomers.pop_front();
            }
        }
        let (due, place) = (slot.peer.poll_timeout(config), slot.peer.remote().filter(|_| !slot.half_open));
        if slot.due != due {
            if let Some(old) = slot.due {
                self.due.remove(&(old, number));
            }
            self.due.extend(due.map(|due| (due, number)));
            slot.due = due;
        }
        if slot.place != place {
            if let Some(old) = slot.place.filter(|old| self.places.get(old) == Some(&number)) {
                self.places.remove(&old);
            }
            self.places.extend(place.map(|place| (place, number)));
            slot.place = place;
        }
        if slot.source != place.map_or(slot.source, source) {
            let (old, new) = (slot.source, place.map_or(slot.source, source));
            slot.source = new;
            if let Some(of_source) = self.sources.get_mut(&old) {
                of_source.remove(&number);
                if of_source.is_empty() {
                    self.sources.remove(&old);
                }
            }
            self.sources.entry(new).or_default().insert(number);
        }
        self.push_sender(number);
    }

    pub(super) fn push_sender(&mut self, slot: u32) {
        if self.sending.insert(slot) {
            self.senders.push_back(slot);
        }
    }

    /// One that may have something to send.
    pub(super) fn pop_sender(&mut self) -> Option<u32> {
        let slot = self.senders.pop_front()?;
        self.sending.remove(&slot);
        Some(slot)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// One that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(due, number) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, number));
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.due = None;
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_names_its_slot() {
        let space = spi_space(4_711);
        let first = space.prefix << (32 - u32::from(space.bits));
        assert_eq!([first, first | 0x3fff].map(of_spi), [4_711, 4_711]);
        assert!(spi_space(1).prefix << (32 - u32::from(SLOT_BITS)) > crate::esp::LAST_RESERVED_SPI);
    }
}
