//! Main Mode with a pre-shared key (RFC 2409 section 5.4), with the float to port 4500 (RFC 3947 section 4).
//!
//! ```text
//!   initiator                                        responder
//!   1  HDR, SA, VID …                       ->
//!                                           <-       HDR, SA, VID …                       2
//!   3  HDR, KE, Ni, NAT-D, NAT-D            ->
//!                                           <-       HDR, KE, Nr, NAT-D, NAT-D            4
//!   5  HDR*, IDii, HASH_I [, N]  (4500)     ->
//!                                           <-       HDR*, IDir, HASH_R                   6
//! ```
//!
//! A message that does not fit leaves the exchange as it was: until message 6 anyone on the path could have written it.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::Config;
use super::authentication::{Authentication, Candidate};
use super::error::Error;
use super::key::{self, Keys};
use super::message::{Chain, Cookies, HEADER_LENGTH, Header, Payloads};
use super::nat::{self, Nat};
use super::payload::{Delete, Identity, Notification};
use super::proposal::{self, StatedLife};
use super::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::retransmission::{Answered, Retransmission};
use super::vendor::Abilities;
use crate::buffer::Port;
use crate::crypto::dh::{self, KeyPair};
use crate::crypto::hash;
use crate::suite::IkeProposal;
use crate::wire::Malformed;

/// Nonces of this end: as long as the longest common key. RFC 2409 section 5: 8 to 256 octets.
const NONCE_LENGTH: usize = 32;

/// Who began an exchange or an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Initiator,
    Responder,
}

/// What an exchange needs of its owner.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) rng: &'a mut StdRng,
}

impl Context<'_> {
    pub(super) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LENGTH];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    fn cookie(&mut self) -> [u8; 8] {
        // A cookie of zeros says "not known yet" (RFC 2408 section 2.5.3).
        self.rng.next_u64().max(1).to_be_bytes()
    }

    fn own_identity(&self) -> Vec<u8> {
        let own = Identity::Address(self.config.local);
        // RFC 3947 section 4: "the port in the ID payload in Main Mode/Aggressive Mode MUST be set to 0."
        self.config.local_id.as_ref().unwrap_or(&own).body(0, 0)
    }

    fn check_identity(&self, body: &[u8]) -> Result<Identity, Error> {
        let received = Identity::read(body);
        expect(self.config.remote_id.as_ref(), &received)?;
        Ok(received)
    }
}

/// Compares the identity that the peer has proved with the one that it must have, if any.
fn expect(expected: Option<&Identity>, received: &Identity) -> Result<(), Error> {
    match expected.filter(|expected| !expected.is_same(received)) {
        Some(expected) => Err(Error::InvalidId { expected: expected.clone(), received: received.clone() }),
        None => Ok(()),
    }
}

/// What the responder chose of the proposals of message 1.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    proposal: IkeProposal,
    life: StatedLife,
    /// The body of the SA payload of message 2.
    answer: Vec<u8>,
}

impl Choice {
    /// Chooses of the body of the SA payload of message 1.
    pub(super) fn of(config: &Config, sa: &[u8]) -> Result<Self, Error> {
        let (proposal, life, answer) = proposal::choose_phase1(&config.proposals, sa)?
            .ok_or(Error::NoProposalChosen { phase: 1, notification: None })?;
        Ok(Self { proposal, life, answer })
    }

    /// The length of the public values of both ends.
    pub(super) fn public_value_size(&self) -> usize {
        dh::public_value_size(self.proposal.group)
    }

    /// Message 2, which is never longer than message 1 with its `request_length`: anybody may have sent that one in the name of
    /// somebody else. What does not fit are Vendor IDs, the least important first.
    pub(super) fn message_2(&self, cookies: Cookies, abilities: Abilities, request_length: usize) -> Vec<u8> {
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &self.answer);
        for vendor_id in abilities.vendor_ids() {
            let mut longer = chain.clone();
            longer.push(PayloadType::VID, &vendor_id);
            if HEADER_LENGTH + longer.octets().len() > request_length {
                break;
            }
            chain = longer;
        }
        Header::new(cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain)
    }
}

/// What messages 1 and 2 agreed on.
#[derive(Clone, Copy)]
struct Agreed {
    proposal: IkeProposal,
    life: StatedLife,
    abilities: Abilities,
}

/// What messages 3 and 4 agreed on.
struct Exchanged {
    /// g^xy.
    secret: Zeroizing<Vec<u8>>,
    nonce_i: Vec<u8>,
    nonce_r: Vec<u8>,
    public_i: Vec<u8>,
    public_r: Vec<u8>,
    nat: Nat,
}

/// What a message with an identity and its proof leads to.
struct Proved {
    keys: Keys,
    /// The last block of the message.
    iv: Vec<u8>,
    peer_id: Identity,
    authentication: Authentication,
    initial_contact: bool,
}

/// What this end waits for.
enum State {
    /// Initiator: for message 2.
    Sa,
    /// Initiator: for message 4.
    Ke { agreed: Agreed, pair: Box<KeyPair>, nonce: Vec<u8> },
    /// Initiator: for message 6.
    Id {
        agreed: Agreed,
        exchanged: Box<Exchanged>,
        keys: Box<Keys>,
        iv: Vec<u8>,
        by: Authentication,
        remote_id: Option<Identity>,
    },
    /// Responder: for message 3.
    InitiatorKe { agreed: Agreed },
    /// Responder: for message 5. Whose key it is written with shows when it is there.
    InitiatorId { agreed: Agreed, exchanged: Box<Exchanged> },
}

/// One Main Mode that is not complete.
pub(super) struct MainMode {
    pub(super) id: u32,
    pub(super) cookies: Cookies,
    pub(super) role: Role,
    pub(super) begun: Instant,
    /// An SA with the peer exists that this one is to replace.
    pub(super) rekey: bool,
    /// The port of the last message.
    pub(super) port: Port,
    /// The body of the SA payload of message 1: SAi_b.
    sa: Vec<u8>,
    state: State,
    /// The initiator's last message.
    pub(super) retransmission: Option<Retransmission>,
    /// The responder's last answer, with what it answers.
    pub(super) answered: Option<Answered>,
    /// Why it will probably fail: nothing of this was proved.
    pub(super) hint: Option<Error>,
    initial_contact: bool,
    /// Initiator: what the peer proved itself by before.
    before: Option<Authentication>,
}

/// A complete Main Mode.
pub(super) struct Established {
    pub(super) keys: Keys,
    /// The last CBC block of phase 1, from which the IVs of phase 2 are made.
    pub(super) last_block: Vec<u8>,
    pub(super) proposal: IkeProposal,
    pub(super) lifetime: Duration,
    pub(super) abilities: Abilities,
    pub(super) nat: Nat,
    pub(super) peer_id: Identity,
    pub(super) authentication: Authentication,
    pub(super) initial_contact: bool,
    /// Message 5 and its answer, message 6, of the responder.
    pub(super) answered: Option<Answered>,
}

/// What a message leads to.
pub(super) enum Step {
    Send(Vec<u8>),
    Established(Box<Established>),
    /// Initiator: the peer has proved to be somebody else. Its ISAKMP SA is complete, so it is told that ours is gone.
    Stranger {
        error: Error,
        farewell: Vec<u8>,
    },
}

/// A Message ID: never zero, which is that of phase 1.
pub(super) fn message_id(rng: &mut StdRng) -> u32 {
    rng.next_u32().max(1)
}

impl MainMode {
    /// Begins as initiator; returns message 1 as well.
    pub(super) fn initiate(
        context: &mut Context<'_>,
        now: Instant,
        id: u32,
        port: Port,
        before: Option<Authentication>,
        [rekey, initial_contact]: [bool; 2],
    ) -> (Self, Vec<u8>) {
        let cookies = Cookies { initiator: context.cookie(), responder: [0; 8] };
        let sa = proposal::offer_phase1(&context.config.proposals, context.config.lifetime);
        let mut chain = Chain::new();
        chain.push(PayloadType::SA, &sa);
        Abilities::announce(&mut chain);
        let message = Header::new(cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain);
        let retransmission = Some(Retransmission::new(now, port, message.clone(), context.rng));
        let begun = Self {
            id,
            cookies,
            role: Role::Initiator,
            begun: now,
            rekey,
            port,
            sa,
            state: State::Sa,
            retransmission,
            answered: None,
            hint: None,
            initial_contact,
            before,
        };
        (begun, message)
    }

    /// Begins as responder with message 1; returns message 2 as well.
    pub(super) fn respond(
        context: &mut Context<'_>,
        now: Instant,
        id: u32,
        port: Port,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<(Self, Vec<u8>), Error> {
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let sa = payloads.single(PayloadType::SA, "SA payload")?;
        let choice = Choice::of(context.config, sa)?;
        let abilities = Abilities::of(&payloads).ok_or(Error::NoNatTraversal)?;
        let cookies = Cookies { initiator: header.cookies.initiator, responder: context.cookie() };
        let response = choice.message_2(cookies, abilities, message.len());
        let mut begun = Self::admit(now, id, port, cookies, sa, &choice, abilities);
        begun.answered = Some(Answered::new(message, response.clone()));
        Ok((begun, response))
    }

    /// Begins as responder that has sent message 2 and waits for message 3; `sa` is the body of the SA payload of message 1.
    pub(super) fn admit(
        now: Instant,
        id: u32,
        port: Port,
        cookies: Cookies,
        sa: &[u8],
        choice: &Choice,
        abilities: Abilities,
    ) -> Self {
        let agreed = Agreed { proposal: choice.proposal, life: choice.life, abilities };
        Self {
            id,
            cookies,
            role: Role::Responder,
            begun: now,
            rekey: false,
            port,
            sa: sa.to_vec(),
            state: State::InitiatorKe { agreed },
            retransmission: None,
            answered: None,
            hint: None,
            initial_contact: false,
            before: None,
        }
    }

    /// What the Vendor IDs of the peer say, as soon as they are known.
    pub(super) fn abilities(&self) -> Option<Abilities> {
        match &self.state {
            State::Sa => None,
            State::Ke { agreed, .. }
            | State::Id { agreed, .. }
            | State::InitiatorKe { agreed }
            | State::InitiatorId { agreed, .. } => Some(agreed.abilities),
        }
    }

    /// Whether a message with this header belongs here.
    pub(super) fn is_for(&self, header: &Header) -> bool {
        match self.state {
            State::Sa => {
                // Equal cookies are those of our own message, sent back by somebody who has no other.
                let responder = header.cookies.responder;
                header.cookies.initiator == self.cookies.initiator
                    && responder != [0; 8]
                    && responder != self.cookies.initiator
            }
            State::Ke { .. } | State::Id { .. } | State::InitiatorKe { .. } | State::InitiatorId { .. } => {
                header.cookies == self.cookies
            }
        }
    }

    /// Whether a message is not to be looked at: an old one, from before the float to port 4500 (RFC 3947 section 4), or our own.
    pub(super) fn disregards(&self, port: Port, message: &[u8]) -> bool {
        let stale = self.port == Port::NatT && port == Port::Ike;
        stale || self.retransmission.as_ref().is_some_and(|own| own.message() == message)
    }

    /// The number of the message that this end waits for.
    fn expected(&self) -> u8 {
        match self.state {
            State::Sa => 2,
            State::InitiatorKe { .. } => 3,
            State::Ke { .. } => 4,
            State::InitiatorId { .. } => 5,
            State::Id { .. } => 6,
        }
    }

    /// Whether both ends have keys, so that a peer that does not understand has another pre-shared key.
    pub(super) fn has_keys(&self) -> bool {
        matches!(self.state, State::Id { .. } | State::InitiatorId { .. })
    }

    /// Why the exchange failed when nobody answers any more.
    pub(super) fn timeout(&self) -> Error {
        if let Some(hint) = &self.hint {
            return hint.clone();
        }
        match self.state {
            // A peer with another pre-shared key cannot decrypt message 5, and most of them drop it without a word.
            State::Id { .. } => Error::AuthenticationFailed { notification: None },
            State::Sa | State::Ke { .. } | State::InitiatorKe { .. } | State::InitiatorId { .. } => Error::NoResponse {
                exchange: ExchangeType::IDENTITY_PROTECTION,
                message: self.expected().saturating_sub(1),
            },
        }
    }

    /// Takes the message that is expected.
    pub(super) fn handle(
        &mut self,
        context: &mut Context<'_>,
        now: Instant,
        port: Port,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let encrypted = matches!(self.state, State::Id { .. } | State::InitiatorId { .. });
        if header.is_encrypted() != encrypted {
            return Err(Error::Malformed(Malformed::Invalid("encryption flag of this message")));
        }
        let step = match &self.state {
            State::Sa => self.message_2(context, header, body)?,
            State::Ke { .. } => self.message_4(context, header, body)?,
            State::Id { .. } => self.message_6(context, header, body)?,
            State::InitiatorKe { .. } => self.message_3(context, port, header, body)?,
            State::InitiatorId { .. } => self.message_5(context, header, [body, message])?,
        };
        self.hint = None;
        match &step {
            Step::Send(reply) if self.role == Role::Initiator => {
                self.retransmission = Some(Retransmission::new(now, self.port, reply.clone(), context.rng));
            }
            Step::Send(reply) => {
                self.port = port;
                self.answered = Some(Answered::new(message, reply.clone()));
            }
            Step::Established(_) if self.role == Role::Responder => self.port = port,
            Step::Established(_) | Step::Stranger { .. } => self.retransmission = None,
        }
        Ok(step)
    }

    fn message_2(&mut self, context: &mut Context<'_>, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let answer = payloads.single(PayloadType::SA, "SA payload")?;
        let (proposal, life) = proposal::accept_phase1(&context.config.proposals, answer)
            .map_err(|reason| Error::NotOffered { phase: 1, reason })?;
        let abilities = Abilities::of(&payloads).ok_or(Error::NoNatTraversal)?;
        let agreed = Agreed { proposal, life, abilities };
        self.cookies.responder = header.cookies.responder;
        let pair = Box::new(KeyPair::generate(proposal.group, context.rng));
        let nonce = context.nonce();
        let remote = context.config.remote_end(self.port);
        let nat_d = nat::nat_d_bodies(proposal.hash, &self.cookies, remote, context.rng);
        let message = self.key_exchange(&agreed, pair.public_value(), &nonce, &nat_d);
        self.state = State::Ke { agreed, pair, nonce };
        Ok(Step::Send(message))
    }

    /// Message 3 or 4.
    fn key_exchange(&self, agreed: &Agreed, public: &[u8], nonce: &[u8], nat_d: &[Vec<u8>; 2]) -> Vec<u8> {
        let mut chain = Chain::new();
        chain.push(PayloadType::KE, public);
        chain.push(PayloadType::NONCE, nonce);
        for body in nat_d {
            chain.push(agreed.abilities.flavour.nat_d(), body);
        }
        Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0).write_plain(&chain)
    }

    fn verdict(&self, config: &Config, agreed: &Agreed, port: Port, payloads: &Payloads<'_>) -> Nat {
        let (local, remote) = (config.local_end(port), config.remote_end(port));
        nat::verdict(agreed.abilities.flavour, agreed.proposal.hash, &self.cookies, local, remote, payloads)
    }

    fn message_4(&mut self, context: &mut Context<'_>, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let State::Ke { agreed, pair, nonce } = &self.state else { return Err(Error::Undecryptable) };
        let agreed = *agreed;
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let public_r = payloads.single(PayloadType::KE, "KE payload")?.to_vec();
        let nonce_r = payloads.nonce()?;
        // Our own value, sent back, would give a secret that the peer does not need to know.
        if public_r == pair.public_value() {
            return Err(Error::InvalidKeyInformation("public value (it is ours)"));
        }
        let secret = pair.shared_secret(&public_r).map_err(|_| Error::InvalidKeyInformation("public value"))?;
        let public_i = pair.public_value().to_vec();
        let nat = self.verdict(context.config, &agreed, self.port, &payloads);
        let (nonce_i, nonce_r) = (nonce.clone(), nonce_r.to_vec());
        let exchanged = Box::new(Exchanged { secret, nonce_i, nonce_r, public_i, public_r, nat });
        let own = context.config.credentials.own(context.config.remote, self.before.as_ref())?;
        let keys = Box::new(self.keys(&agreed, &exchanged, own)?);
        let mut iv = keys.first_iv(&exchanged.public_i, &exchanged.public_r);
        let id = context.own_identity();
        let spi = self.cookies.spi();
        let mut chain = Chain::new();
        chain.push(PayloadType::ID, &id);
        chain.push(PayloadType::HASH, &self.hash(&keys, &exchanged, Role::Initiator, &id));
        if self.initial_contact {
            let notification =
                Notification { protocol: ProtocolId::ISAKMP, spi: &spi, kind: NotifyType::INITIAL_CONTACT, data: &[] };
            chain.push(PayloadType::N, &notification.body());
        }
        let header = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0);
        let message = keys.seal(header, &chain, &mut iv);
        // RFC 3947 section 4: "the initiator MUST change ports when sending the ID payload if there is NAT between the hosts",
        // and our NAT-D says that there is one.
        self.port = Port::NatT;
        self.state = State::Id { agreed, exchanged, keys, iv, by: own.into(), remote_id: own.key.remote_id.clone() };
        Ok(Step::Send(message))
    }

    fn message_6(&mut self, context: &mut Context<'_>, header: &Header, body: &[u8]) -> Result<Step, Error> {
        let State::Id { agreed, exchanged, keys, iv, by, remote_id } = &self.state else {
            return Err(Error::Undecryptable);
        };
        let (agreed, nat) = (*agreed, exchanged.nat);
        let (plain, last_block) = keys.open(iv, body)?;
        let proved = self.authenticate(context, keys, exchanged, Role::Responder, header, &plain);
        let peer_id = match proved.and_then(|(peer_id, _)| expect(remote_id.as_ref(), &peer_id).map(|()| peer_id)) {
            Err(error @ Error::InvalidId { .. }) => {
                let (spi, message_id) = (self.cookies.spi(), message_id(context.rng));
                let body = Delete::body(ProtocolId::ISAKMP, &spi);
                let farewell = keys.informational(self.cookies, &last_block, message_id, PayloadType::D, &body);
                return Ok(Step::Stranger { error, farewell });
            }
            other => other?,
        };
        let authentication = by.clone();
        let State::Id { keys, .. } = std::mem::replace(&mut self.state, State::Sa) else {
            return Err(Error::Undecryptable);
        };
        let proved = Proved { keys: *keys, iv: last_block, peer_id, authentication, initial_contact: false };
        Ok(Step::Established(Box::new(Self::established(context.config, agreed, nat, proved, None))))
    }

    fn message_3(
        &mut self,
        context: &mut Context<'_>,
        port: Port,
        header: &Header,
        body: &[u8],
    ) -> Result<Step, Error> {
        let State::InitiatorKe { agreed } = &self.state else { return Err(Error::Undecryptable) };
        let agreed = *agreed;
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let public_i = payloads.single(PayloadType::KE, "KE payload")?.to_vec();
        let nonce_i = payloads.nonce()?;
        let pair = KeyPair::generate(agreed.proposal.group, context.rng);
        let secret = pair.shared_secret(&public_i).map_err(|_| Error::InvalidKeyInformation("public value"))?;
        let nonce = context.nonce();
        let remote = context.config.remote_end(port);
        let nat_d = match nat::parroted(&agreed.abilities, agreed.proposal.hash, &payloads, context.rng) {
            Some(parroted) => parroted,
            None => nat::nat_d_bodies(agreed.proposal.hash, &self.cookies, remote, context.rng),
        };
        let message = self.key_exchange(&agreed, pair.public_value(), &nonce, &nat_d);
        let nat = self.verdict(context.config, &agreed, port, &payloads);
        let (nonce_i, nonce_r, public_r) = (nonce_i.to_vec(), nonce, pair.public_value().to_vec());
        let exchanged = Box::new(Exchanged { secret, nonce_i, nonce_r, public_i, public_r, nat });
        self.state = State::InitiatorId { agreed, exchanged };
        Ok(Step::Send(message))
    }

    fn message_5(
        &mut self,
        context: &mut Context<'_>,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<Step, Error> {
        let State::InitiatorId { agreed, exchanged } = &self.state else { return Err(Error::Undecryptable) };
        let agreed = *agreed;
        let mut proved = self.find_key(context, &agreed, exchanged, header, body)?;
        let id = context.own_identity();
        let mut chain = Chain::new();
        chain.push(PayloadType::ID, &id);
        chain.push(PayloadType::HASH, &self.hash(&proved.keys, exchanged, Role::Responder, &id));
        let header = Header::new(self.cookies, ExchangeType::IDENTITY_PROTECTION, 0);
        let response = proved.keys.seal(header, &chain, &mut proved.iv);
        let answered = Some(Answered::new(message, response));
        let nat = exchanged.nat;
        Ok(Step::Established(Box::new(Self::established(context.config, agreed, nat, proved, answered))))
    }

    /// The keys of phase 1 for a peer with this pre-shared key.
    fn keys(&self, agreed: &Agreed, exchanged: &Exchanged, candidate: Candidate<'_>) -> Result<Keys, Error> {
        let nonces = [&*exchanged.nonce_i, &*exchanged.nonce_r];
        let skeyid = key::pre_shared_skeyid(agreed.proposal.hash, &candidate.key.key, nonces);
        Keys::derive(&agreed.proposal, skeyid, &exchanged.secret, &self.cookies)
    }

    /// Responder: the pre-shared key that message 5 is written with. The identity would tell, but is under that very key
    /// (RFC 2409 section 5.4).
    fn find_key(
        &self,
        context: &Context<'_>,
        agreed: &Agreed,
        exchanged: &Exchanged,
        header: &Header,
        body: &[u8],
    ) -> Result<Proved, Error> {
        let candidates = context.config.credentials.candidates(context.config.remote);
        // Every key is tried, so that the time tells neither which one is right nor whether one is.
        let tried: Vec<_> = candidates
            .into_iter()
            .map(|candidate| self.try_key(context, agreed, exchanged, candidate, header, body))
            .collect();
        // Of the failures the one that got furthest is told.
        let rank = |tried: &Result<Proved, Error>| match tried {
            Ok(_) => 0,
            Err(Error::InvalidId { .. }) => 1,
            Err(Error::InvalidHash(_)) => 2,
            Err(_) => 3,
        };
        tried.into_iter().min_by_key(rank).unwrap_or(Err(Error::Undecryptable))
    }

    fn try_key(
        &self,
        context: &Context<'_>,
        agreed: &Agreed,
        exchanged: &Exchanged,
        candidate: Candidate<'_>,
        header: &Header,
        body: &[u8],
    ) -> Result<Proved, Error> {
        let keys = self.keys(agreed, exchanged, candidate)?;
        let first_iv = keys.first_iv(&exchanged.public_i, &exchanged.public_r);
        let (plain, iv) = keys.open(&first_iv, body)?;
        let (peer_id, initial_contact) =
            self.authenticate(context, &keys, exchanged, Role::Initiator, header, &plain)?;
        expect(candidate.key.remote_id.as_ref(), &peer_id)?;
        Ok(Proved { keys, iv, peer_id, authentication: candidate.into(), initial_contact })
    }

    fn established(
        config: &Config,
        agreed: Agreed,
        nat: Nat,
        proved: Proved,
        answered: Option<Answered>,
    ) -> Established {
        Established {
            keys: proved.keys,
            last_block: proved.iv,
            proposal: agreed.proposal,
            lifetime: agreed.life.seconds(config.lifetime),
            abilities: agreed.abilities,
            nat,
            peer_id: proved.peer_id,
            authentication: proved.authentication,
            initial_contact: proved.initial_contact,
            answered,
        }
    }

    /// HASH_I or HASH_R over the identification body `id` of that role.
    fn hash(&self, keys: &Keys, exchanged: &Exchanged, role: Role, id: &[u8]) -> Zeroizing<Vec<u8>> {
        let (public, cookies) = ([&exchanged.public_i, &exchanged.public_r], &self.cookies);
        let (public, cookies) = match role {
            Role::Initiator => ([&**public[0], &**public[1]], [&cookies.initiator[..], &cookies.responder[..]]),
            Role::Responder => ([&**public[1], &**public[0]], [&cookies.responder[..], &cookies.initiator[..]]),
        };
        keys.main_mode_hash(public, cookies, &self.sa, id)
    }

    /// Checks the hash and the identity of the peer; returns the identity, and whether it says INITIAL-CONTACT.
    fn authenticate(
        &self,
        context: &Context<'_>,
        keys: &Keys,
        exchanged: &Exchanged,
        role: Role,
        header: &Header,
        plain: &[u8],
    ) -> Result<(Identity, bool), Error> {
        let payloads = Keys::payloads(header.next_payload, plain)?;
        let (Some(id), Some(hash)) = (payloads.first(PayloadType::ID), payloads.first(PayloadType::HASH)) else {
            return Err(Error::Undecryptable);
        };
        if !hash::eq(hash, &self.hash(keys, exchanged, role, id)) {
            return Err(Error::InvalidHash(ExchangeType::IDENTITY_PROTECTION));
        }
        let initial_contact = payloads
            .all(PayloadType::N)
            .filter_map(|body| Notification::read(body).ok())
            .any(|notification| notification.kind == NotifyType::INITIAL_CONTACT);
        Ok((context.check_identity(id)?, initial_contact))
    }

    /// Initiator: whether an encrypted Informational message was written with the keys of this exchange; what it says in that case.
    pub(super) fn open_informational(&self, header: &Header, body: &[u8]) -> Option<NotifyType> {
        let State::Id { keys, iv, .. } = &self.state else { return None };
        let plain = keys.open_informational(iv, header, body).ok()?;
        let payloads = Payloads::read(header.next_payload, &plain).ok()?;
        payloads
            .first(PayloadType::N)
            .and_then(|body| Notification::read(body).ok())
            .map(|notification| notification.kind)
    }
}
