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
use super::key::Keys;
use super::main_mode::{Context, Role};
use super::message::{Chain, Header, Payloads};
use super::nat;
use super::payload::Notification;
use super::proposal::{self, ChosenEsp, StatedLife};
use super::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::retransmission::{Answered, Retransmission};
use super::sa::IsakmpSa;
use super::selector;
use super::{Lifetime, Sa};
use crate::crypto::dh::KeyPair;
use crate::crypto::hash;
use crate::suite::EspProposal;

/// What a peer asked for when it began a Quick Mode: with the same it is asked for the renewal of that pair. Behind a NAT nothing
/// else fits what it has configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) proposal: EspProposal,
    /// The bodies of IDci and IDcr; none at all or both.
    pub(super) selectors: Vec<Vec<u8>>,
}

/// Both SAs that a Quick Mode agrees on.
pub(super) struct NewPair {
    pub(super) inbound: Sa,
    pub(super) outbound: Sa,
    /// Those of the peer, if it began this or the first of the pairs that it renews.
    pub(super) terms: Option<Terms>,
    /// The smaller nonce: both ends know it and so agree on which of two colliding pairs is the redundant one.
    pub(super) nonce: Vec<u8>,
}

enum State {
    /// Initiator: for message 2.
    Answer {
        offered: Vec<EspProposal>,
        terms: Option<Terms>,
        spi: u32,
        nonce: Vec<u8>,
        pair: Option<Box<KeyPair>>,
        iv: Vec<u8>,
    },
    /// Responder: for message 3.
    Confirmation { answered: Answered, iv: Vec<u8>, nonces: [Vec<u8>; 2], outbound: Box<Sa>, inbound_spi: u32 },
    /// The last word is spoken: message 3 of the initiator, or a refusal. It is repeated when what it answers comes again.
    Answered(Answered),
    /// Responder: complete.
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
    //= rfc2409 5 "In addition, Quick Mode MUST be implemented as a mechanism to generate fresh keying material and negotiate non-ISAKMP security services."
    //= test: every_proposal_of_esp_establishes_with_keys_of_the_right_size, a_quick_mode_with_a_wrong_hash_or_another_sa_payload_is_not_answered
    //= rfc2409 5.5 "Similarly, if client identities are used, they MUST apply to every SA in the negotiation."
    //= test: quick_mode_names_l2tp_and_the_original_addresses_on_the_wire, a_quick_mode_with_a_wrong_hash_or_another_sa_payload_is_not_answered
    //= rfc3947 5.2 "The initiator MUST send the payloads if it proposes any UDP-Encapsulated-Transport mode, and the responder MUST send the payload only if it selected UDP-Encapsulated-Transport mode."
    //= test: quick_mode_names_l2tp_and_the_original_addresses_on_the_wire, no_mode_but_transport_in_udp_is_chosen_where_no_other_is_wanted
    /// Begins as initiator; returns message 1 as well.
    pub(super) fn initiate(
        context: &mut Context<'_>,
        now: Instant,
        sa: &IsakmpSa,
        [id, message_id, spi]: [u32; 3],
        replaces: Option<u32>,
        terms: Option<&Terms>,
    ) -> (Self, Vec<u8>) {
        let config = context.config;
        let mode = nat::offered_mode(sa.abilities.flavour);
        let offered = terms.map_or_else(|| config.esp_proposals.clone(), |terms| vec![terms.proposal]);
        let offer = proposal::offer_phase2(&offered, config.esp_lifetime, mode, spi);
        let nonce = context.nonce();
        // All proposals of one offer have the same group (RFC 2409 section 5.5).
        let group = offered.first().and_then(|proposal| proposal.group);
        let pair = group.map(|group| Box::new(KeyPair::generate(group, context.rng)));
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &offer);
        chain.push(PayloadType::NONCE, &nonce);
        if let Some(pair) = &pair {
            chain.push(PayloadType::KE, pair.public_value());
        }
        match terms {
            // What it called itself when it was the initiator it is called as the responder.
            Some(terms) => terms.selectors.iter().rev().for_each(|id| chain.push(PayloadType::ID, id)),
            None => selector::offer(config).iter().for_each(|id| chain.push(PayloadType::ID, id)),
        }
        //= rfc3947 5.2 "In the case of transport mode, both ends MUST send both original Initiator and Responder addresses to the other end."
        //= test: quick_mode_names_l2tp_and_the_original_addresses_on_the_wire, nat_oa_payloads_may_be_many_or_missing
        nat::write_nat_oa(sa.abilities.flavour, [config.local, config.remote], &mut chain);
        let hash = sa.keys.hash(&[&message_id.to_be_bytes(), chain.octets()]);
        let mut iv = sa.keys.exchange_iv(&sa.last_block, message_id);
        let header = Header::new(sa.cookies, ExchangeType::QUICK_MODE, message_id);
        let message = sa.keys.seal(header, &chain.behind_hash(&hash), &mut iv);
        let retransmission = Some(Retransmission::new(now, sa.port, message.clone(), context.rng));
        let state = State::Answer { offered, terms: terms.cloned(), spi, nonce, pair, iv };
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
        let (plain, mut iv) = sa.keys.open(&iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
        if !hash::eq(hash, &sa.keys.hash(&[&message_id.to_be_bytes(), covered])) {
            return Err(Error::InvalidHash(ExchangeType::QUICK_MODE));
        }
        let nonce_i = payloads.nonce()?;
        //= rfc2409 5.5 "The information exchanged along with Quick Mode MUST be protected by the ISAKMP SA-- i.e. all payloads except the ISAKMP header are encrypted."
        //= test: its_quick_mode_is_accepted_and_its_proposal_returned_with_another_spi, unprotected_messages_change_nothing
        let Answer { chain, nonce: nonce_r, chosen, secret } = Self::answer(context, sa, &payloads, spi)?;
        let hash = sa.keys.hash(&[&message_id.to_be_bytes(), nonce_i, chain.octets()]);
        let response_header = Header::new(sa.cookies, ExchangeType::QUICK_MODE, message_id);
        let response = sa.keys.seal(response_header, &chain.behind_hash(&hash), &mut iv);
        let lifetime = chosen.life.shorten(config.esp_lifetime);
        let nonces = [nonce_i.to_vec(), nonce_r];
        let mut pair = new_pair(sa, secret.as_ref(), spi, &chosen, lifetime, &nonces, false);
        let selectors = payloads.all(PayloadType::ID).map(<[u8]>::to_vec).collect();
        pair.terms = Some(Terms { proposal: chosen.proposal, selectors });
        let state = State::Confirmation {
            answered: Answered::new(message, response.clone()),
            iv,
            nonces,
            outbound: Box::new(pair.outbound.clone()),
            inbound_spi: spi,
        };
        let retransmission = Some(Retransmission::new(now, sa.port, response.clone(), context.rng));
        let begun = Self { id, isakmp: sa.id, message_id, begun: now, replaces: None, state, retransmission };
        Ok((begun, pair, response))
    }

    //= rfc2408 4.2 "When responding to a Security Association payload, the responder MUST send a Security Association payload with the selected proposal, which may consist of multiple Proposal payloads and their associated Transform payloads."
    //= test: the_chosen_transform_of_quick_mode_is_returned_octet_for_octet, an_answer_without_an_sa_payload_is_none
    /// Everything of message 2 that its hash covers.
    fn answer(context: &mut Context<'_>, sa: &IsakmpSa, request: &Payloads<'_>, spi: u32) -> Result<Answer, Error> {
        let config = context.config;
        let offer = request.single(PayloadType::SA, "SA payload")?;
        let modes = nat::accepted_modes(sa.abilities.flavour);
        let (chosen, answer) = proposal::choose_phase2(&config.esp_proposals, modes, offer, spi)?
            .ok_or(Error::NoProposalChosen { phase: 2, notification: None })?;
        selector::judge(request, Role::Responder)?;
        let nonce = context.nonce();
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &answer);
        chain.push(PayloadType::NONCE, &nonce);
        let mut secret = None;
        if let Some(group) = chosen.proposal.group {
            let pair = KeyPair::generate(group, context.rng);
            secret = Some(fresh_secret(&pair, request)?);
            chain.push(PayloadType::KE, pair.public_value());
        }
        // Whatever the initiator calls the two ends is returned to it: behind a NAT the addresses mean nothing to us.
        for id in request.all(PayloadType::ID) {
            chain.push(PayloadType::ID, id);
        }
        // RFC 3947 section 5.2: for the responder the initiator is at the address that it sees.
        nat::write_nat_oa(sa.abilities.flavour, [config.remote, config.local], &mut chain);
        Ok(Answer { chain, nonce, chosen, secret })
    }

    /// A Quick Mode of the peer that is refused with the Informational message `response`.
    pub(super) fn refuse(
        now: Instant,
        isakmp: u32,
        [id, message_id]: [u32; 2],
        message: &[u8],
        response: Vec<u8>,
    ) -> Self {
        let state = State::Answered(Answered::new(message, response));
        Self { id, isakmp, message_id, begun: now, replaces: None, state, retransmission: None }
    }

    /// Whether the initiator still waits for an answer.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Answer { .. })
    }

    /// The inbound SPI of a responder that waits for message 3.
    pub(super) fn unconfirmed(&self) -> Option<u32> {
        match &self.state {
            State::Confirmation { inbound_spi, .. } => Some(*inbound_spi),
            State::Answer { .. } | State::Answered(_) | State::Finished => None,
        }
    }

    /// Counts the first ESP packet on the new inbound SA as message 3.
    pub(super) fn confirm(&mut self) -> Option<Box<Sa>> {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Confirmation { outbound, .. } => {
                self.retransmission = None;
                Some(outbound)
            }
            state @ (State::Answer { .. } | State::Answered(_) | State::Finished) => {
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
            // Windows sends a fourth message here; only the second one again means that the third was lost.
            State::Answered(answered) | State::Confirmation { answered, .. } if answered.is_for(message) => {
                Ok(answered.again().map_or(Step::Nothing, Step::Again))
            }
            State::Confirmation { .. } => self.message_3(sa, header, body),
            State::Answered(_) | State::Finished => Ok(Step::Nothing),
        }
    }

    fn message_2(
        &mut self,
        context: &Context<'_>,
        sa: &IsakmpSa,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let State::Answer { offered, terms, spi, nonce, pair, iv } = &self.state else { return Ok(Step::Nothing) };
        let id = self.message_id.to_be_bytes();
        let (plain, mut iv) = sa.keys.open(iv, body)?;
        let payloads = Keys::payloads(header.next_payload, &plain)?;
        self.authenticate(sa, nonce, &payloads)?;
        let (chosen, lifetime) = accept(offered, context.config.esp_lifetime, sa, &payloads)?;
        let secret = pair.as_ref().map(|pair| fresh_secret(pair, &payloads)).transpose()?;
        let nonces = [nonce.clone(), payloads.nonce()?.to_vec()];
        let mut pair = new_pair(sa, secret.as_ref(), *spi, &chosen, lifetime, &nonces, true);
        pair.terms = terms.clone();
        let mut chain = Chain::new();
        chain.push(PayloadType::HASH, &sa.keys.hash(&[&[0], &id, &nonces[0], &nonces[1]]));
        let response_header = Header::new(sa.cookies, ExchangeType::QUICK_MODE, self.message_id);
        let confirmation = sa.keys.seal(response_header, &chain, &mut iv);
        self.retransmission = None;
        self.state = State::Answered(Answered::new(message, confirmation.clone()));
        Ok(Step::Agreed { pair: Box::new(pair), confirmation })
    }

    /// Checks HASH(2). A peer that refuses inside the exchange says so as an error.
    fn authenticate(&self, sa: &IsakmpSa, nonce: &[u8], payloads: &Payloads<'_>) -> Result<(), Error> {
        let id = self.message_id.to_be_bytes();
        let (hash, covered) = payloads.hashed().ok_or(Error::Undecryptable)?;
        let accepts = payloads.first(PayloadType::SA).is_some();
        // A refusal inside the exchange is hashed like any Informational message by some peers.
        if !hash::eq(hash, &sa.keys.hash(&[&id, nonce, covered]))
            && (accepts || !hash::eq(hash, &sa.keys.hash(&[&id, covered])))
        {
            return Err(Error::InvalidHash(ExchangeType::QUICK_MODE));
        }
        let refusal = notifications(payloads).find(|notification| notification.kind.is_error());
        match refusal {
            Some(refusal) if !accepts => Err(Error::from_notification(ExchangeType::QUICK_MODE, refusal.kind, true)),
            Some(_) | None => Ok(()),
        }
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

/// What message 2 is made of.
struct Answer {
    chain: Chain,
    nonce: Vec<u8>,
    chosen: ChosenEsp,
    secret: Option<Zeroizing<Vec<u8>>>,
}

fn notifications<'a>(payloads: &Payloads<'a>) -> impl Iterator<Item = Notification<'a>> {
    let bodies: Vec<&[u8]> = payloads.all(PayloadType::N).collect();
    bodies.into_iter().filter_map(|body| Notification::read(body).ok())
}

/// What the responder chose, and for how long.
fn accept(
    offered: &[EspProposal],
    ours: Lifetime,
    sa: &IsakmpSa,
    payloads: &Payloads<'_>,
) -> Result<(ChosenEsp, Lifetime), Error> {
    let answer = payloads.single(PayloadType::SA, "SA payload")?;
    let chosen = proposal::accept_phase2(offered, nat::offered_mode(sa.abilities.flavour), answer)
        .map_err(|reason| Error::NotOffered { phase: 2, reason })?;
    selector::judge(payloads, Role::Initiator)?;
    let mut lifetime = chosen.life.shorten(ours);
    //= rfc2407 4.5.4 "Section 4.6.3.1 defines the payload layout for the RESPONDER-LIFETIME Notification Message type which MUST be used for this purpose."
    //= test: a_responder_lifetime_inside_message_2_is_obeyed, lives_of_next_to_nothing_are_not_obeyed
    for notification in notifications(payloads).filter(|notified| notified.kind == NotifyType::RESPONDER_LIFETIME) {
        if let Ok(stated) = StatedLife::read(notification.data, ProtocolId::ESP) {
            lifetime = stated.shorten(lifetime);
        }
    }
    Ok((chosen, lifetime))
}

//= rfc2409 5.5 "While use of the key exchange payload with Quick Mode is optional it MUST be supported."
//= test: every_group_establishes_in_both_phases, a_fresh_exchange_with_our_own_value_is_refused
/// The secret of a fresh exchange (RFC 2409 section 5.5).
fn fresh_secret(pair: &KeyPair, payloads: &Payloads<'_>) -> Result<Zeroizing<Vec<u8>>, Error> {
    let public = payloads.first(PayloadType::KE).ok_or(Error::InvalidKeyInformation("missing public value"))?;
    if public == pair.public_value() {
        return Err(Error::InvalidKeyInformation("public value (it is ours)"));
    }
    pair.shared_secret(public).map_err(|_| Error::InvalidKeyInformation("public value"))
}

fn new_pair(
    isakmp: &IsakmpSa,
    secret: Option<&Zeroizing<Vec<u8>>>,
    own_spi: u32,
    chosen: &ChosenEsp,
    lifetime: Lifetime,
    nonces: &[Vec<u8>; 2],
    initiator: bool,
) -> NewPair {
    let make = |spi, pair| sa(isakmp, secret, [spi, pair], chosen.proposal, lifetime, nonces, initiator);
    let [nonce_i, nonce_r] = nonces;
    NewPair {
        inbound: make(own_spi, chosen.spi),
        outbound: make(chosen.spi, own_spi),
        terms: None,
        nonce: nonce_i.min(nonce_r).clone(),
    }
}

//= rfc2409 Appendix.B "ISAKMP produces the requested amount of keying material from which the service MUST generate a suitable key."
//= test: every_device_comes_up_behind_a_nat, every_proposal_of_esp_establishes_with_keys_of_the_right_size, triple_des_refuses_what_is_single_des_even_behind_other_parity_bits
/// The keys of one direction: the cipher's come first in KEYMAT, then those of the integrity algorithm (RFC 2407 is silent; RFC
/// 4301 section 4.5.2 has the order).
fn sa(
    isakmp: &IsakmpSa,
    secret: Option<&Zeroizing<Vec<u8>>>,
    [spi, pair]: [u32; 2],
    proposal: EspProposal,
    lifetime: Lifetime,
    [nonce_i, nonce_r]: &[Vec<u8>; 2],
    initiator: bool,
) -> Sa {
    let (encryption, integrity) = proposal.key_sizes();
    let secret = secret.map(|secret| secret.as_slice());
    let keymat = isakmp.keys.keymat(secret, spi, [nonce_i, nonce_r], encryption.saturating_add(integrity));
    let (encryption_key, integrity_key) = keymat.split_at(encryption.min(keymat.len()));
    Sa {
        spi,
        proposal,
        encryption_key: Zeroizing::new(encryption_key.to_vec()),
        integrity_key: Zeroizing::new(integrity_key.to_vec()),
        lifetime,
        pair,
        initiator,
        encapsulated: isakmp.abilities.flavour.is_some(),
    }
}
