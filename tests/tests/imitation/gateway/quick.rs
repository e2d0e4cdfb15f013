//! What a gateway does under an ISAKMP SA: Quick Modes of either end, Deletes, questions about life.

use std::net::IpAddr;

use rand::RngExt;
use towline_tunnel::crypto::dh::KeyPair;
use towline_tunnel::suite::Group;

use super::responder::{NO_PROPOSAL_CHOSEN, Responder};
use super::{Pfs, Preference};
use crate::device::{DhGroup, Form, NatFlavour, Phase2};
use crate::esp::{Sa, key_octets};
use crate::ike::{Event, R_U_THERE, R_U_THERE_ACK, identification, notification};
use crate::isakmp::{
    DELETE, HASH, IDENTIFICATION, KEY_EXCHANGE, Message, NONCE, NOTIFICATION, Payload, Proposal, QUICK_MODE, SA,
    Transform, chain, every, first, payloads, proposals, sa,
};
use crate::keys::Keys;

const RESPONDER_LIFETIME: u16 = 24_576;

/// A Quick Mode.
pub(super) struct Quick {
    iv: Vec<u8>,
    turn: Turn,
}

enum Turn {
    /// The client began it: its message 3 has to have this HASH, and then there are these SAs.
    Answered(Vec<u8>, Box<(Sa, Sa)>),
    /// This end began it, with these offers.
    Begun { nonce: Vec<u8>, spi: u32, pair: Option<KeyPair>, offer: Proposal },
}

impl Responder {
    pub(super) fn quick_mode(&mut self, message: &Message) -> Result<(), String> {
        let keys = self.keys.clone().ok_or("no keys")?;
        let Some(Quick { mut iv, turn }) = self.quick.remove(&message.id) else { return self.answer(message, &keys) };
        let plain = keys.decrypt(&mut iv, &message.body).ok_or("Quick Mode cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("malformed payloads in Quick Mode")?;
        match turn {
            Turn::Answered(expected, pair) => {
                if first(&all, HASH) != Some(&expected) {
                    return Err("HASH(3) is wrong".to_owned());
                }
                self.events.push(Event::Pair(pair.0, pair.1));
                Ok(())
            }
            Turn::Begun { nonce, spi, pair, offer } => {
                self.finish(message, &keys, (iv, &all), (nonce, spi, pair, offer))
            }
        }
    }

    /// The client begins Quick Mode.
    fn answer(&mut self, message: &Message, keys: &Keys) -> Result<(), String> {
        let mut iv = keys.iv_of(message.id);
        let plain = keys.decrypt(&mut iv, &message.body).ok_or("Quick Mode cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("malformed payloads in Quick Mode")?;
        let id = message.id.to_be_bytes();
        // RFC 2409 section 5.5: HASH first, then SA; the initiator's identity, then the responder's.
        let [(HASH, hash), rest @ ..] = all.as_slice() else {
            return Err("Quick Mode does not begin with HASH".to_owned());
        };
        if keys.hash(&[&id, &chain(rest)]) != *hash || rest[0].0 != SA {
            return Err("HASH(1) is wrong, or no SA follows it".to_owned());
        }
        let [theirs, own] = every(rest, IDENTIFICATION)[..] else {
            return Err("Quick Mode without identities".to_owned());
        };
        self.check_selectors(theirs, own)?;
        let offers = proposals(&rest[0].1).ok_or("malformed SA")?;
        let Some((offer, transform, suite)) = self.select(&offers) else {
            let spi = offers.first().map_or_else(Vec::new, |offer| offer.spi.clone());
            self.inform(&[(NOTIFICATION, notification(3, &spi, NO_PROPOSAL_CHOSEN, &[]))]);
            return Ok(());
        };
        let (offer, transform) = (offer.clone(), transform.clone());
        let (spi, nonce) = (self.spi(), self.random(16));
        let answered = Proposal { spi: spi.to_be_bytes().to_vec(), transforms: vec![transform.clone()], ..offer };
        let mut reply: Vec<Payload> = vec![(SA, sa(&[answered])), (NONCE, nonce.clone())];
        let their_nonce = first(rest, NONCE).ok_or("no nonce")?;
        let shared = self.fresh(transform.value(3), first(rest, KEY_EXCHANGE), &mut reply)?;
        self.ids = [theirs.to_vec(), own.to_vec()];
        reply.extend(self.ids.iter().map(|id| (IDENTIFICATION, id.clone())));
        reply.extend(self.addresses(false).into_iter().take(self.policy.original_addresses));
        reply.extend(self.claim(&transform, spi));
        let hash = keys.hash(&[&id, their_nonce, &chain(&reply)]);
        reply.insert(0, (HASH, hash));
        let body = keys.encrypt(&mut iv, &chain(&reply));
        let their_spi = u32::from_be_bytes(offer.spi.as_slice().try_into().map_err(|_| "an SPI of another size")?);
        let expected = keys.hash(&[&[0], &id, their_nonce, &nonce]);
        let material = |spi| keys.keymat(shared.as_deref(), spi, [their_nonce, &nonce], key_octets(suite));
        let pair = (Sa::new(spi, suite, material(spi)), Sa::new(their_spi, suite, material(their_spi)));
        self.quick.insert(message.id, Quick { iv, turn: Turn::Answered(expected, Box::new(pair)) });
        self.send_body(QUICK_MODE, message.id, HASH, body);
        Ok(())
    }

    /// L2TP and nothing else; addresses are not looked at, as there are NATs.
    fn check_selectors(&self, theirs: &[u8], own: &[u8]) -> Result<(), String> {
        let [1, 17, high, low, ..] = *own else { return Err(format!("not for L2TP: {own:?}")) };
        let port = u16::from_be_bytes([high, low]);
        match (theirs, port) {
            ([1, 17, ..], 0 | 1701) => Ok(()),
            _ => Err(format!("not for L2TP: {theirs:?}, {own:?}")),
        }
    }

    /// What is agreed on of these offers.
    fn select<'a>(&self, offers: &'a [Proposal]) -> Option<(&'a Proposal, &'a Transform, Phase2)> {
        let mode = self.encapsulation();
        let fits = |own: &Phase2, offer: &Transform| {
            let written = &self.form(None).transforms(&[*own], mode)[0];
            let group = offer.value(3);
            written.id == offer.id
                && [4, 5, 6].iter().all(|kind| written.value(*kind) == offer.value(*kind))
                && match self.policy.pfs {
                    Pfs::Obeys => true,
                    Pfs::Demands(wanted) => group == Some(DhGroup::Of(wanted).number().into()),
                    Pfs::Refuses => group.is_none(),
                }
        };
        let offered: Vec<_> =
            offers.iter().flat_map(|offer| offer.transforms.iter().map(move |one| (offer, one))).collect();
        let own = &self.policy.phase2;
        match self.policy.preference[1] {
            Preference::Own => own.iter().find_map(|own| {
                offered.iter().find(|(_, one)| fits(own, one)).map(|(offer, one)| (*offer, *one, *own))
            }),
            Preference::Peers => {
                offered.iter().find_map(|(offer, one)| Some((*offer, *one, *own.iter().find(|own| fits(own, one))?)))
            }
        }
    }

    /// The secret of a fresh exchange, if one is agreed on; its public value goes into the reply.
    fn fresh(
        &mut self,
        group: Option<u64>,
        theirs: Option<&[u8]>,
        reply: &mut Vec<Payload>,
    ) -> Result<Option<Vec<u8>>, String> {
        let groups = [Group::Modp1024, Group::Modp1536, Group::Modp2048, Group::Ecp256, Group::Ecp384];
        let group = group.map(|number| groups.into_iter().find(|one| u64::from(DhGroup::Of(*one).number()) == number));
        match (group, theirs) {
            (None, None) => Ok(None),
            (Some(Some(group)), Some(theirs)) => {
                let pair = KeyPair::generate(group, &mut self.rng);
                reply.push((KEY_EXCHANGE, pair.public_value().to_vec()));
                let shared = pair.shared_secret(theirs).map_err(|error| error.to_string())?;
                Ok(Some(shared.to_vec()))
            }
            _ => Err("a key exchange without its group, or a group without it".to_owned()),
        }
    }

    /// RESPONDER-LIFETIME (RFC 2407 section 4.6.3.1), where this end's limit is tighter than what is offered.
    fn claim(&self, chosen: &Transform, spi: u32) -> Option<Payload> {
        let own = u64::from(self.policy.life.0);
        let longer = self.policy.claims_life && chosen.value(2).is_none_or(|offered| offered > own);
        let data = [[0x80, 1, 0, 1, 0, 2, 0, 4].as_slice(), &self.policy.life.0.to_be_bytes()].concat();
        longer.then(|| (NOTIFICATION, notification(3, &spi.to_be_bytes(), RESPONDER_LIFETIME, &data)))
    }

    /// Begins Quick Mode, as a gateway does that renews by itself.
    pub(crate) fn begin(&mut self) {
        let Some(keys) = self.keys.clone() else { return };
        let message_id = self.rng.random_range(1..=u32::MAX);
        let (spi, nonce) = (self.spi(), self.random(16));
        let group = match self.policy.pfs {
            Pfs::Demands(group) => Some(group),
            Pfs::Obeys | Pfs::Refuses => None,
        };
        let transforms = self.form(group).transforms(&self.policy.phase2, self.encapsulation());
        let offer = Proposal { number: 1, protocol: 3, spi: spi.to_be_bytes().to_vec(), transforms };
        let pair = group.map(|group| KeyPair::generate(group, &mut self.rng));
        let mut all = vec![(SA, sa(std::slice::from_ref(&offer))), (NONCE, nonce.clone())];
        all.extend(pair.as_ref().map(|pair| (KEY_EXCHANGE, pair.public_value().to_vec())));
        // Its own identity is that of the initiator.
        all.extend(self.ids.iter().rev().map(|id| (IDENTIFICATION, id.clone())));
        all.extend(self.addresses(true));
        let hash = keys.hash(&[&message_id.to_be_bytes(), &chain(&all)]);
        let mut iv = keys.iv_of(message_id);
        all.insert(0, (HASH, hash));
        let body = keys.encrypt(&mut iv, &chain(&all));
        self.quick.insert(message_id, Quick { iv, turn: Turn::Begun { nonce, spi, pair, offer } });
        self.send_body(QUICK_MODE, message_id, HASH, body);
    }

    /// The client has answered.
    fn finish(
        &mut self,
        message: &Message,
        keys: &Keys,
        (mut iv, all): (Vec<u8>, &[Payload]),
        (nonce, spi, pair, offer): (Vec<u8>, u32, Option<KeyPair>, Proposal),
    ) -> Result<(), String> {
        let id = message.id.to_be_bytes();
        let [(HASH, hash), rest @ ..] = all else { return Err("message 2 does not begin with HASH".to_owned()) };
        if keys.hash(&[&id, &nonce, &chain(rest)]) != *hash {
            return Err("HASH(2) is wrong".to_owned());
        }
        let chosen = proposals(first(rest, SA).ok_or("no SA")?).ok_or("malformed SA")?;
        let [Proposal { number: 1, protocol: 3, spi: theirs, transforms }] = chosen.as_slice() else {
            return Err(format!("another proposal: {chosen:?}"));
        };
        let [transform] = transforms.as_slice() else { return Err("several transforms".to_owned()) };
        let place = offer.transforms.iter().position(|one| one == transform);
        let place = place.ok_or_else(|| format!("a transform that was not offered: {transform:?}"))?;
        let returned = every(rest, IDENTIFICATION);
        if !returned.iter().eq(self.ids.iter().rev().map(Vec::as_slice).collect::<Vec<_>>().iter()) {
            return Err("the identities are not those that were sent".to_owned());
        }
        let their_nonce = first(rest, NONCE).ok_or("no nonce")?;
        let shared = match (&pair, first(rest, KEY_EXCHANGE)) {
            (None, None) => None,
            (Some(pair), Some(theirs)) => Some(pair.shared_secret(theirs).map_err(|error| error.to_string())?),
            _ => return Err("a key exchange at one end only".to_owned()),
        };
        let their_spi = u32::from_be_bytes(theirs.as_slice().try_into().map_err(|_| "an SPI of another size")?);
        let suite = self.policy.phase2[place];
        let secret = shared.as_ref().map(|shared| shared.as_slice());
        let material = |spi| keys.keymat(secret, spi, [&nonce, their_nonce], key_octets(suite));
        let pair = (Sa::new(spi, suite, material(spi)), Sa::new(their_spi, suite, material(their_spi)));
        let hash = keys.hash(&[&[0], &id, &nonce, their_nonce]);
        let body = keys.encrypt(&mut iv, &chain(&[(HASH, hash)]));
        self.send_body(QUICK_MODE, message.id, HASH, body);
        self.events.push(Event::Pair(pair.0, pair.1));
        Ok(())
    }

    pub(super) fn informational(&mut self, message: &Message) -> Result<(), String> {
        let keys = self.keys.clone().ok_or("no keys")?;
        let plain = keys.decrypt(&mut keys.iv_of(message.id), &message.body).ok_or("cannot be decrypted")?;
        let all = payloads(message.first, &plain).ok_or("a malformed Informational exchange")?;
        let [(HASH, hash), rest @ ..] = all.as_slice() else { return Err("it does not begin with HASH".to_owned()) };
        if keys.hash(&[&message.id.to_be_bytes(), &chain(rest)]) != *hash {
            return Err("HASH(1) of an Informational exchange is wrong".to_owned());
        }
        for (kind, body) in rest {
            match *kind {
                DELETE if body.get(4) == Some(&3) => {
                    let spis = body[8..].chunks(4).filter_map(|spi| Some(u32::from_be_bytes(spi.try_into().ok()?)));
                    self.events.push(Event::Deleted(spis.collect()));
                }
                DELETE => self.events.push(Event::IsakmpDeleted),
                NOTIFICATION => {
                    let notified = u16::from_be_bytes([body[6], body[7]]);
                    if notified == R_U_THERE {
                        let data = body[8 + usize::from(body[5])..].to_vec();
                        let cookies = *self.cookies();
                        self.inform(&[(NOTIFICATION, notification(1, &cookies, R_U_THERE_ACK, &data))]);
                    }
                    self.events.push(Event::Notified(notified));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks whether the client lives (RFC 3706).
    pub(crate) fn ask(&mut self, sequence: u32) {
        let cookies = *self.cookies();
        self.inform(&[(NOTIFICATION, notification(1, &cookies, R_U_THERE, &sequence.to_be_bytes()))]);
    }

    /// Deletes an ESP SA by this end's SPI.
    pub(crate) fn delete(&mut self, spi: u32) {
        self.inform(&[(DELETE, [&[0, 0, 0, 1, 3, 4, 0, 1], spi.to_be_bytes().as_slice()].concat())]);
    }

    /// Deletes the ISAKMP SA.
    pub(crate) fn delete_isakmp(&mut self) {
        let cookies = *self.cookies();
        self.inform(&[(DELETE, [&[0, 0, 0, 1, 1, 16, 0, 1], cookies.as_slice()].concat())]);
    }

    fn spi(&mut self) -> u32 {
        self.rng.random_range(0x1000..=u32::MAX)
    }

    fn form(&self, pfs: Option<Group>) -> Form {
        let (seconds, kilobytes) = self.policy.life;
        Form { encoding: self.policy.encoding, omits_key_length: false, pfs, seconds, kilobytes }
    }

    /// Transport, or UDP-encapsulated transport by its number.
    fn encapsulation(&self) -> u16 {
        match (self.behind_nat, self.policy.nat) {
            ([false, false], _) => 2,
            (_, NatFlavour::Rfc | NatFlavour::Both) => 4,
            (_, NatFlavour::Draft) => 61_444,
        }
    }

    /// NAT-OA of the initiator and the responder, where there is a NAT.
    fn addresses(&self, initiator: bool) -> Vec<Payload> {
        if self.behind_nat == [false; 2] {
            return Vec::new();
        }
        let kind = if self.policy.nat == NatFlavour::Draft { 131 } else { 21 };
        let IpAddr::V4(client) = self.seen[1].ip() else { return Vec::new() };
        let mut both = [client, self.own].map(|address| (kind, identification(0, 0, address)));
        if initiator {
            both.reverse();
        }
        both.into()
    }
}
