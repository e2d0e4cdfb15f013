//! Quick Mode (RFC 2409 section 5.5), with NAT-OA (RFC 3947 section 5).
//!
//! ```text
//!   initiator                                                  responder
//!   1  HDR*, HASH(1), SA, Ni [, KE], IDci, IDcr,
//!            NAT-OAi, NAT-OAr                        ->
//!                                                    <-        HDR*, HASH(2), SA, Nr [, KE], IDci, IDcr,
//!                                                                    NAT-OAi, NAT-OAr                       2
//!   3  HDR*, HASH(3)                                 ->
//! ```
//!
//! The responder receives on the new SA before it sends message 2, and sends on it after message 3 or the first ESP packet.

use std::time::Instant;

use zeroize::Zeroizing;

use super::error::Error;
use super::key::{Keys, esp_key_sizes};
use super::main_mode::Context;
use super::message::{Chain, Header, Payloads};
use super::nat;
use super::payload::{Identity, Notification};
use super::proposal::{self, ChosenEsp, StatedLife};
use super::registry::{ExchangeType, NotifyType, PayloadType};
use super::retransmission::Retransmission;
use super::sa::IsakmpSa;
use super::{L2TP_PORT, Lifetime, Sa, UDP};
use crate::crypto::dh::KeyPair;
use crate::crypto::hash;
use crate::suite::EspProposal;
use crate::wire::Malformed;

/// How often a duplicate is answered: more than any peer repeats itself within its own patience.
const MAX_REPEATS: u8 = 10;

/// Both SAs that a Quick Mode agrees on.
pub(super) struct NewPair {
    pub(super) inbound: Sa,
    pub(super) outbound: Sa,
    /// The smaller nonce: both ends know it and so agree on which of two colliding pairs is the redundant one.
    pub(super) nonce: Vec<u8>,
}

enum State {
    /// Initiator: for message 2.
    Answer { spi: u32, nonce: Vec<u8>, pair: Option<Box<KeyPair>>, iv: Vec<u8> },
    /// Initiator: message 3 was sent; it is sent again when `answer` comes again.
    Confirmed { answer: Vec<u8>, confirmation: Vec<u8>, repeats: u8 },
    /// Responder: for message 3.
    Confirmation {
        request: Vec<u8>,
        iv: Vec<u8>,
        nonces: [Vec<u8>; 2],
        outbound: Box<Sa>,
        inbound_spi: u32,
        repeats: u8,
    },
    /// Responder: complete, or failed and remembered.
    Finished,
}

/// One Quick Mode, kept for a while after it is complete.
pub(super) struct QuickMode {
    pub(super) id: u32,
    /// The ISAKMP SA that protects it.
    pub(super) isakmp: u32,
    pub(super) message_id: u32,
    pub(super) begun: Instant,
    /// The inbound SPI of the pair that this exchange is to replace.
    pub(super) replaces: Option<u32>,
    state: State,
    pub(super) retransmission: Option<Retransmission>,
}

/// What a message leads to.
pub(super) enum Step {
    /// Initiator: the pair is agreed on; message 3 has to be sent.
    Agreed { pair: Box<NewPair>, confirmation: Vec<u8> },
    /// Responder: the peer has confirmed.
    Confirmed(Box<Sa>),
    /// The last message has to be sent again.
    Again(Vec<u8>),
    /// Nothing has to be done.
    Nothing,
}

impl QuickMode {
    /// Begins as initiator; returns message 1 as well.
    pub(super) fn initiate(
        context: &mut Context<'_>,
        now: Instant,
        sa: &IsakmpSa,
        [id, message_id, spi]: [u32; 3],
        replaces: Option<u32>,
    ) -> (Self, Vec<u8>) {
        let config = context.config;
        let mode = sa.flavour.udp_transport();
        let offer = proposal::offer_phase2(&config.esp_proposals, config.esp_lifetime, mode, spi);
        let nonce = context.nonce();
        // All proposals of one offer have the same group (RFC 2409 section 5.5).
        let group = config.esp_proposals.first().and_then(|proposal| proposal.group);
        let pair = group.map(|group| Box::new(KeyPair::generate(group, context.rng)));
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &offer);
        chain.push(PayloadType::NONCE, &nonce);
        if let Some(pair) = &pair {
            chain.push(PayloadType::KE, pair.public_value());
        }
        chain.push(PayloadType::ID, &Identity::Address(config.local).body(UDP, L2TP_PORT));
        chain.push(PayloadType::ID, &Identity::Address(config.remote).body(UDP, L2TP_PORT));
        chain.push(sa.flavour.nat_oa(), &nat::nat_oa_body(config.local));
        chain.push(sa.flavour.nat_oa(), &nat::nat_oa_body(config.remote));
        let hash = sa.keys.hash(&[&message_id.to_be_bytes(), chain.octets()]);
        let mut iv = sa.keys.exchange_iv(&sa.last_block, message_id);
        let header = Header::new(sa.cookies, ExchangeType::QUICK_MODE, message_id);
        let message = sa.keys.seal(header, &chain.behind_hash(&hash), &mut iv);
        let retransmission = Some(Retransmission::new(now, sa.port, message.clone()));
        let state = State::Answer { spi, nonce, pair, iv };
        (Self { id, isakmp: sa.id, message_id, begun: now, replaces, state, retransmission }, message)
    }

    /// Begins as responder with message 1; returns message 2 as well.
    pub(super) fn respond(
        context: &mut Context<'_>,
        now: Instant,
        sa: &IsakmpSa,
        [id, spi]: [u32; 2],
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<(Self, NewPair, Vec<u8>), Error> {
        let config = context.config;
        let message_id = header.message_id;
        let iv = sa.keys.exchange_iv(&sa.last_block, message_id);
        let (plain, iv) = sa.keys.open(&iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
        if !hash::eq(hash, &sa.keys.hash(&[&message_id.to_be_bytes(), covered])) {
            return Err(Error::InvalidHash(ExchangeType::QUICK_MODE));
        }
        let nonce_i = quick_nonce(&payloads)?;
        let modes = [sa.flavour.udp_transport()];
        let offer = payloads.single(PayloadType::SA, "SA payload")?;
        let (chosen, answer) = proposal::choose_phase2(&config.esp_proposals, &modes, offer, spi)?
            .ok_or(Error::NoProposalChosen { phase: 2, notification: None })?;
        let nonce_r = context.nonce();
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &answer);
        chain.push(PayloadType::NONCE, &nonce_r);
        let mut secret = None;
        if let Some(group) = chosen.proposal.group {
            let public = payloads.first(PayloadType::KE).ok_or(Error::InvalidKeyInformation("missing public value"))?;
            let pair = KeyPair::generate(group, context.rng);
            secret = Some(pair.shared_secret(public).map_err(|_| Error::InvalidKeyInformation("public value"))?);
            chain.push(PayloadType::KE, pair.public_value());
        }
        // Whatever the initiator calls the two ends is returned to it: behind a NAT the addresses mean nothing to us.
        for id in payloads.all(PayloadType::ID).take(2) {
            chain.push(PayloadType::ID, id);
        }
        // RFC 3947 section 5.2: for the responder the initiator is at the address that it sees.
        chain.push(sa.flavour.nat_oa(), &nat::nat_oa_body(config.remote));
        chain.push(sa.flavour.nat_oa(), &nat::nat_oa_body(config.local));
        let hash = sa.keys.hash(&[&message_id.to_be_bytes(), nonce_i, chain.octets()]);
        let mut iv = iv;
        let response_header = Header::new(sa.cookies, ExchangeType::QUICK_MODE, message_id);
        let response = sa.keys.seal(response_header, &chain.behind_hash(&hash), &mut iv);
        let lifetime = chosen.life.shorten(config.esp_lifetime);
        let nonces = [nonce_i.to_vec(), nonce_r];
        let pair = new_pair(&sa.keys, secret.as_ref(), spi, &chosen, lifetime, &nonces, false);
        let state = State::Confirmation {
            request: message.to_vec(),
            iv,
            nonces,
            outbound: Box::new(pair.outbound.clone()),
            inbound_spi: spi,
            repeats: 0,
        };
        let retransmission = Some(Retransmission::new(now, sa.port, response.clone()));
        let begun = Self { id, isakmp: sa.id, message_id, begun: now, replaces: None, state, retransmission };
        Ok((begun, pair, response))
    }

    /// Whether the initiator still waits for an answer.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Answer { .. })
    }

    /// The inbound SPI of a responder that waits for message 3.
    pub(super) fn unconfirmed(&self) -> Option<u32> {
        match &self.state {
            State::Confirmation { inbound_spi, .. } => Some(*inbound_spi),
            State::Answer { .. } | State::Confirmed { .. } | State::Finished => None,
        }
    }

    /// Counts the first ESP packet on the new inbound SA as message 3.
    pub(super) fn confirm(&mut self) -> Option<Box<Sa>> {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Confirmation { outbound, .. } => {
                self.retransmission = None;
                Some(outbound)
            }
            state @ (State::Answer { .. } | State::Confirmed { .. } | State::Finished) => {
                self.state = state;
                None
            }
        }
    }

    /// Takes a message of this exchange.
    pub(super) fn handle(
        &mut self,
        context: &Context<'_>,
        sa: &IsakmpSa,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        match &mut self.state {
            State::Answer { .. } => self.message_2(context, sa, header, [body, message]),
            State::Confirmed { answer, confirmation, repeats } => {
                // Windows sends a fourth message here; only the second one again means that the third was lost.
                if answer == message && *repeats < MAX_REPEATS {
                    *repeats += 1;
                    return Ok(Step::Again(confirmation.clone()));
                }
                Ok(Step::Nothing)
            }
            State::Confirmation { request, repeats, .. } if request == message => {
                if *repeats >= MAX_REPEATS {
                    return Ok(Step::Nothing);
                }
                *repeats += 1;
                let response = self.retransmission.as_ref().map(|retransmission| retransmission.message().to_vec());
                Ok(response.map_or(Step::Nothing, Step::Again))
            }
            State::Confirmation { .. } => self.message_3(sa, header, body),
            State::Finished => Ok(Step::Nothing),
        }
    }

    fn message_2(
        &mut self,
        context: &Context<'_>,
        sa: &IsakmpSa,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let State::Answer { spi, nonce, pair, iv } = &self.state else { return Ok(Step::Nothing) };
        let id = self.message_id.to_be_bytes();
        let (plain, iv) = sa.keys.open(iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
        if !hash::eq(hash, &sa.keys.hash(&[&id, nonce, covered])) {
            // A refusal inside the exchange is hashed like any Informational message by some peers.
            if !hash::eq(hash, &sa.keys.hash(&[&id, covered])) || payloads.first(PayloadType::SA).is_some() {
                return Err(Error::InvalidHash(ExchangeType::QUICK_MODE));
            }
        }
        let notifications: Vec<_> =
            payloads.all(PayloadType::N).filter_map(|body| Notification::read(body).ok()).collect();
        let refusal = notifications.iter().find(|notification| notification.kind.is_error());
        if let (None, Some(refusal)) = (payloads.first(PayloadType::SA), refusal) {
            return Err(Error::from_notification(ExchangeType::QUICK_MODE, refusal.kind, true));
        }
        let nonce_r = quick_nonce(&payloads)?;
        let answer = payloads.single(PayloadType::SA, "SA payload")?;
        let config = context.config;
        let chosen = proposal::accept_phase2(&config.esp_proposals, sa.flavour.udp_transport(), answer)
            .map_err(|reason| Error::NotOffered { phase: 2, reason })?;
        let secret = match pair {
            None => None,
            Some(pair) => {
                let public =
                    payloads.first(PayloadType::KE).ok_or(Error::InvalidKeyInformation("missing public value"))?;
                Some(pair.shared_secret(public).map_err(|_| Error::InvalidKeyInformation("public value"))?)
            }
        };
        let mut lifetime = chosen.life.shorten(config.esp_lifetime);
        for notification in notifications.iter().filter(|notified| notified.kind == NotifyType::RESPONDER_LIFETIME) {
            if let Ok(stated) = StatedLife::read_phase2(notification.data) {
                lifetime = stated.shorten(lifetime);
            }
        }
        let nonces = [nonce.clone(), nonce_r.to_vec()];
        let pair = new_pair(&sa.keys, secret.as_ref(), *spi, &chosen, lifetime, &nonces, true);
        let mut chain = Chain::new();
        chain.push(PayloadType::HASH, &sa.keys.hash(&[&[0], &id, &nonces[0], &nonces[1]]));
        let mut iv = iv;
        let confirmation =
            sa.keys.seal(Header::new(sa.cookies, ExchangeType::QUICK_MODE, self.message_id), &chain, &mut iv);
        self.retransmission = None;
        self.state = State::Confirmed { answer: message.to_vec(), confirmation: confirmation.clone(), repeats: 0 };
        Ok(Step::Agreed { pair: Box::new(pair), confirmation })
    }

    fn message_3(&mut self, sa: &IsakmpSa, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let State::Confirmation { iv, nonces: [nonce_i, nonce_r], .. } = &self.state else { return Ok(Step::Nothing) };
        let (plain, _) = sa.keys.open(iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let (hash, _) = payloads.hashed().ok_or(Error::Undecryptable)?;
        if !hash::eq(hash, &sa.keys.hash(&[&[0], &self.message_id.to_be_bytes(), nonce_i, nonce_r])) {
            return Err(Error::InvalidHash(ExchangeType::QUICK_MODE));
        }
        Ok(self.confirm().map_or(Step::Nothing, Step::Confirmed))
    }
}

fn quick_nonce<'a>(payloads: &Payloads<'a>) -> Result<&'a [u8], Malformed> {
    let nonce = payloads.single(PayloadType::NONCE, "nonce")?;
    if (8..=256).contains(&nonce.len()) { Ok(nonce) } else { Err(Malformed::Invalid("nonce length")) }
}

fn new_pair(
    keys: &Keys,
    secret: Option<&Zeroizing<Vec<u8>>>,
    own_spi: u32,
    chosen: &ChosenEsp,
    lifetime: Lifetime,
    nonces: &[Vec<u8>; 2],
    initiator: bool,
) -> NewPair {
    let make = |spi, pair| sa(keys, secret, [spi, pair], chosen.proposal, lifetime, nonces, initiator);
    let [nonce_i, nonce_r] = nonces;
    NewPair {
        inbound: make(own_spi, chosen.spi),
        outbound: make(chosen.spi, own_spi),
        nonce: nonce_i.min(nonce_r).clone(),
    }
}

/// The keys of one direction: the cipher's come first in KEYMAT, then those of the integrity algorithm (RFC 2407 is silent; RFC
/// 4301 section 4.5.2 has the order).
fn sa(
    keys: &Keys,
    secret: Option<&Zeroizing<Vec<u8>>>,
    [spi, pair]: [u32; 2],
    proposal: EspProposal,
    lifetime: Lifetime,
    [nonce_i, nonce_r]: &[Vec<u8>; 2],
    initiator: bool,
) -> Sa {
    let (encryption, integrity) = esp_key_sizes(proposal.cipher, proposal.integrity);
    let secret = secret.map(|secret| secret.as_slice());
    let keymat = keys.keymat(secret, spi, [nonce_i, nonce_r], encryption.saturating_add(integrity));
    let (encryption_key, integrity_key) = keymat.split_at(encryption.min(keymat.len()));
    Sa {
        spi,
        proposal,
        encryption_key: Zeroizing::new(encryption_key.to_vec()),
        integrity_key: Zeroizing::new(integrity_key.to_vec()),
        lifetime,
        pair,
        initiator,
    }
}
