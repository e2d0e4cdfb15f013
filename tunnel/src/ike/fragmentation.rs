//! Fragmentation of IKEv1 messages, which no RFC has: what Microsoft and Cisco began, and racoon, pluto and charon took over, for
//! messages with certificates on paths that lose IP fragments.
//!
//! ```text
//!   ISAKMP header: the cookies, next payload 132
//!   +---------------+---------------+-------------------------------+
//!   |       0       |       0       |        Payload Length         |
//!   |          Fragment ID          |    Number     |  Flags: 1=last|
//!   |      a piece of the whole message, its header included        |
//!   +---------------------------------------------------------------+
//! ```
//!
//! The ID is 1 with all peers, whatever the message, and the numbers begin with 1. The fragments themselves are not protected.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::{Chain, Cookies, HEADER_LENGTH, Header, Payloads};
use super::registry::{ExchangeType, PayloadType};
use super::{Ike, Transmit};
use crate::wire::{Malformed, Reader};

/// Longer messages are sent in fragments of this length if the peer takes them: with the headers of UDP and IP that fits all paths.
const LONGEST: usize = 1280;

/// The most fragments of one message.
const MAX_FRAGMENTS: u8 = 16;

/// The longest message that is put together.
const MAX_OCTETS: usize = 10_000;

/// How long the fragments of one message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The generic header of the payload and what stands before the piece.
const OVERHEAD: usize = HEADER_LENGTH + 8;

/// The ID of all messages.
const FRAGMENT_ID: u16 = 1;

/// The flag of the last fragment.
const LAST: u8 = 1;

/// One fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment<'a> {
    id: u16,
    number: u8,
    last: bool,
    piece: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let payloads = Payloads::read(PayloadType::FRAGMENT, body)?;
        let mut reader = Reader::new(payloads.single(PayloadType::FRAGMENT, "fragment")?);
        let (id, number, flags) =
            (reader.u16("fragment ID")?, reader.u8("fragment number")?, reader.u8("fragment flags")?);
        let piece = reader.rest();
        if !(1..=MAX_FRAGMENTS).contains(&number) || piece.is_empty() {
            return Err(Malformed::Invalid("fragment"));
        }
        Ok(Self { id, number, last: flags & LAST != 0, piece })
    }
}

/// The fragments of a message that is not whole yet.
#[derive(Debug)]
pub(super) struct Reassembly {
    cookies: Cookies,
    begun: Instant,
    id: u16,
    pieces: BTreeMap<u8, Vec<u8>>,
    last: Option<u8>,
}

impl Reassembly {
    fn new(now: Instant, cookies: Cookies, id: u16) -> Self {
        Self { cookies, begun: now, id, pieces: BTreeMap::new(), last: None }
    }

    /// Whether a fragment is one of another message: of another ID, or with another content where there is one already.
    fn contradicts(&self, fragment: &Fragment<'_>) -> bool {
        let known = self.pieces.get(&fragment.number);
        let beyond = self.last.is_some_and(|last| fragment.number > last || (fragment.last && fragment.number != last));
        fragment.id != self.id || beyond || known.is_some_and(|known| known != fragment.piece)
    }

    fn octets(&self) -> usize {
        self.pieces.values().map(Vec::len).sum()
    }

    /// Adds a fragment that fits; returns the message if that makes it whole.
    fn add(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        self.pieces.insert(fragment.number, fragment.piece.to_vec());
        if fragment.last {
            self.last = Some(fragment.number);
        }
        let last = self.last?;
        let whole = (1..=last).all(|number| self.pieces.contains_key(&number));
        whole.then(|| self.pieces.values().flatten().copied().collect())
    }
}

/// The fragments of a message.
fn split(message: &[u8]) -> Vec<Vec<u8>> {
    let Ok((header, _)) = Header::read(message) else { return vec![message.to_vec()] };
    // As in the first exchange of all, whatever the message: some peers look for Quick Mode by a Message ID that fragments lack.
    let header = Header::new(header.cookies, ExchangeType::IDENTITY_PROTECTION, 0);
    let pieces: Vec<&[u8]> = message.chunks(LONGEST - OVERHEAD).collect();
    (1..)
        .zip(&pieces)
        .map(|(number, piece)| {
            let flags = if usize::from(number) == pieces.len() { LAST } else { 0 };
            let mut body = FRAGMENT_ID.to_be_bytes().to_vec();
            body.extend_from_slice(&[number, flags]);
            body.extend_from_slice(piece);
            let mut chain = Chain::new();
            chain.push(PayloadType::FRAGMENT, &body);
            header.write_plain(&chain)
        })
        .collect()
}

impl Ike {
    /// Takes a fragment; returns the message if that makes it whole. Only a peer that is known to be where it says that it is has
    /// its fragments kept, and only those of one message.
    pub(super) fn handle_fragment(&mut self, now: Instant, header: &Header, body: &[u8]) -> Option<Vec<u8>> {
        let known = |cookies: &Cookies| {
            self.negotiations.iter().any(|negotiation| negotiation.cookies == *cookies)
                || self.isakmp.iter().any(|sa| sa.cookies == *cookies)
        };
        self.reassemblies.retain(|one| known(&one.cookies) && now < one.begun + PATIENCE);
        let fragment = Fragment::read(body).ok().filter(|_| known(&header.cookies))?;
        let index = self.reassemblies.iter().position(|one| one.cookies == header.cookies);
        let mut reassembly = match index.map(|index| self.reassemblies.swap_remove(index)) {
            Some(begun) if !begun.contradicts(&fragment) => begun,
            Some(_) | None => Reassembly::new(now, header.cookies, fragment.id),
        };
        let whole = reassembly.add(&fragment);
        if whole.is_none() && reassembly.octets() <= MAX_OCTETS {
            self.reassemblies.push(reassembly);
        }
        whole.filter(|message| message.len() <= MAX_OCTETS)
    }

    /// What is sent in place of a message: its fragments if it is long and the peer takes them.
    fn fragments(&self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        if message.len() <= LONGEST {
            return None;
        }
        let (header, _) = Header::read(message).ok()?;
        let negotiation = self.negotiations.iter().find(|negotiation| negotiation.cookies == header.cookies);
        let sa = self.isakmp.iter().find(|sa| sa.cookies == header.cookies);
        let abilities = negotiation.and_then(|found| found.abilities()).or_else(|| sa.map(|sa| sa.abilities))?;
        abilities.fragmentation.then(|| split(message))
    }

    /// Puts the fragments of a message in front of all that waits, and takes the first of them.
    pub(super) fn first_fragment(&mut self, transmit: Transmit) -> Option<Transmit> {
        if let Transmit::Message { port, message } = &transmit
            && let Some(fragments) = self.fragments(message)
        {
            let port = *port;
            fragments
                .into_iter()
                .rev()
                .for_each(|message| self.transmits.push_front(Transmit::Message { port, message }));
            return self.transmits.pop_front();
        }
        Some(transmit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    const COOKIES: Cookies = Cookies { initiator: [1; 8], responder: [2; 8] };

    fn long() -> Vec<u8> {
        let mut header = Header::new(COOKIES, ExchangeType::QUICK_MODE, 77);
        header.flags = 1;
        header.write(&(0..3000).map(|index| index as u8).collect::<Vec<u8>>())
    }

    fn fragment(number: u8, last: bool, piece: &[u8]) -> Fragment<'_> {
        Fragment { id: 1, number, last, piece }
    }

    #[test]
    fn fragments_are_as_other_peers_write_them() {
        let fragments = split(&long());
        assert_eq!(fragments.iter().map(Vec::len).collect::<Vec<_>>(), [1280, 1280, 28 + 3000 - 2 * 1244 + 36]);
        // Cookies, next payload 132, version 1.0, Main Mode, no flags, Message ID 0.
        let expected = hex!("0101010101010101 0202020202020202 84 10 02 00 00000000 00000500 00 00 04E4 0001 01 00");
        assert_eq!(fragments[0][..36], expected);
        assert_eq!(fragments[2][24..36], hex!("00000240 0000 0224 0001 03 01"));
    }

    #[test]
    fn a_message_is_whole_when_every_number_up_to_the_last_one_is_there() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut reassembly = Reassembly::new(Instant::now(), COOKIES, 1);
            let whole: Vec<_> =
                order.iter().map(|&number| reassembly.add(&fragment(number, number == 3, &[number; 4]))).collect();
            assert_eq!(whole[..2], [None, None]);
            assert_eq!(whole[2].as_deref(), Some(&[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3][..]));
        }
    }

    #[test]
    fn what_cannot_belong_to_the_same_message_contradicts_it() {
        let mut reassembly = Reassembly::new(Instant::now(), COOKIES, 1);
        reassembly.add(&fragment(1, false, b"one"));
        reassembly.add(&fragment(3, true, b"three"));
        assert!(!reassembly.contradicts(&fragment(1, false, b"one")));
        assert!(!reassembly.contradicts(&fragment(2, false, b"two")));
        assert!(!reassembly.contradicts(&fragment(3, true, b"three")));
        assert!(reassembly.contradicts(&fragment(1, false, b"eno")));
        assert!(reassembly.contradicts(&fragment(2, true, b"two")));
        assert!(reassembly.contradicts(&fragment(4, false, b"four")));
        assert!(reassembly.contradicts(&Fragment { id: 2, ..fragment(2, false, b"two") }));
    }

    #[test]
    fn fragments_without_a_number_or_a_piece_and_cut_ones_are_refused() {
        let read = |body: &[u8]| Fragment::read(body).is_ok();
        assert!(read(&hex!("00000009 0001 01 01 AA")));
        assert!(read(&hex!("00000009 0001 10 00 AA")));
        assert!(!read(&hex!("00000009 0001 00 01 AA")));
        assert!(!read(&hex!("00000009 0001 11 00 AA")));
        assert!(!read(&hex!("00000008 0001 01 01")));
        let whole = hex!("00000009 0001 01 01 AA");
        assert!((0..whole.len()).all(|length| !read(&whole[..length])));
    }
}
