//! Main Mode with a pre-shared key or signatures (RFC 2409 sections 5.1 and 5.4), with the float to port 4500 (RFC 3947 section
//! 4).
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
//! With signatures 4 ends with CERTREQ, 5 is IDii [, CERT …], CERTREQ …, SIG_I and 6 IDir [, CERT …], SIG_R ([`proof`]).
//!
//! A message that does not fit leaves the exchange as it was: until message 6 anyone on the path could have written it.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::Config;
use super::authentication::{Authentication, Method};
use super::certificate;
use super::error::Error;
use super::key::Keys;
use super::message::{Chain, Cookies, HEADER_LENGTH, Header, Payloads};
use super::nat::{self, Endpoint, Nat, NatPayloads};
use super::payload::{Delete, Identity, Notification};
use super::proposal::{self, ChosenIke, StatedLife};
use super::registry::{AuthenticationMethod, ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::retransmission::{Answered, Retransmission};
use super::vendor::Abilities;
use crate::buffer::Port;
use crate::crypto::dh::{self, KeyPair};
use crate::suite::{Hash, IkeProposal};
use crate::wire::Malformed;
use aggressive::{Begun, of_one_group};
use proof::{Exchanged, Known, Opened, Proved};

mod aggressive;
mod initiator;
mod proof;
mod responder;

//= out: rfc2409 3.1 "Keywords "MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT" and "MAY" that appear in this document are to be interpreted as described in [Bra97]." says what the words mean
//= out: rfc2409 4 ""New Group Mode" MUST ONLY be used after phase 1." New Group Mode is not spoken at all
//= out: rfc2409 4 "The IKE modes described here MUST be implemented whenever the IETF IPsec DOI [Pip97] is implemented." Main Mode and Quick Mode are; Aggressive Mode as initiator only, because it hands a hash of the pre-shared key to anyone; New Group Mode, which no peer in the field speaks, is not
//= out: rfc2409 5.1 "DSS signatures MUST be encoded as r followed by s." DSS is not offered: RSA and ECDSA (RFC 4754) are
//= out: rfc2409 5.2 "RSA encryption MUST be encoded in PKCS #1 format." authentication with public key encryption is not spoken: no client in the field offers it
//= out: rfc2409 5.3 "If the HASH payload is sent it MUST be the first payload of the second message exchange and MUST be followed by the encrypted nonce." authentication with public key encryption is not spoken: no client in the field offers it
//= out: rfc2409 5.3 "If the HASH payload is not sent, the first payload of the second message exchange MUST be the encrypted nonce." authentication with public key encryption is not spoken: no client in the field offers it
//= out: rfc2409 5.3 "Note that Ne_i, Ne_r, Ke_i, and Ke_r are all ephemeral and MUST be discarded after use." authentication with public key encryption is not spoken: no client in the field offers it
//= out: rfc2409 5.3 "All payloads-- in whatever order-- following the encrypted nonce MUST be encrypted with Ke_i or Ke_r depending on the direction." authentication with public key encryption is not spoken: no client in the field offers it
//= out: rfc2409 5.6 "The description of a new group MUST only follow phase 1 negotiation." New Group Mode is not spoken at all
//= out: rfc2409 5.6 "Group descriptions for private Groups MUST be greater than or equal to 2^15." New Group Mode is not spoken at all
//= out: rfc2409 5.6 "If the group is not acceptable, the responder MUST reply with a Notify payload with the message type set to ATTRIBUTES-NOT-SUPPORTED (13)." New Group Mode is not spoken at all: such a message is ignored
//= out: rfc2409 10 "If PFS of both keying material and identities is desired, an ISAKMP peer MUST establish only one non-ISAKMP security association (e.g." PFS of identities is not offered: an ISAKMP SA protects the renewals of its ESP SAs

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
    //= rfc2408 5.13 "When creating a Nonce Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: cookies_and_nonces_are_never_the_same_twice, nonces_have_8_to_256_octets
    pub(super) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LENGTH];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    fn cookie(&mut self) -> [u8; 8] {
        // A cookie of zeros says "not known yet" (RFC 2408 section 2.5.3).
        self.rng.next_u64().max(1).to_be_bytes()
    }
}

/// What the responder chose of the proposals of message 1.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    chosen: ChosenIke,
    /// The body of the SA payload of message 2.
    answer: Vec<u8>,
}

impl Choice {
    /// Chooses of the body of the SA payload of message 1.
    pub(super) fn of(config: &Config, sa: &[u8]) -> Result<Self, Error> {
        let (chosen, answer) = proposal::choose_phase1(&config.proposals, &config.credentials.acceptable(), sa)?
            .ok_or(Error::NoProposalChosen { phase: 1, notification: None })?;
        Ok(Self { chosen, answer })
    }

    //= rfc2409 5 "The Diffie-Hellman public value passed in a KE payload, in either a phase 1 or phase 2 exchange, MUST be the length of the negotiated Diffie-Hellman group enforced, if necessary, by pre-pending the value with zeros."
    //= test: every_group_establishes_in_both_phases, nobody_is_admitted_without_a_public_value_of_the_right_length_and_a_nonce
    /// The length of the public values of both ends.
    pub(super) fn public_value_size(&self) -> usize {
        dh::public_value_size(self.chosen.proposal.group)
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
    method: Method,
    xauth: Option<Role>,
    life: StatedLife,
    abilities: Abilities,
}

impl Agreed {
    fn new(ChosenIke { proposal, method, xauth, life }: ChosenIke, abilities: Abilities) -> Self {
        Self { proposal, method, xauth, life, abilities }
    }
}

/// What this end waits for.
enum State {
    /// Initiator: for message 2.
    Sa,
    /// Initiator of Aggressive Mode: for message 2.
    Aggressive(Begun),
    /// Initiator: for message 4.
    Ke { agreed: Agreed, pair: Box<KeyPair>, nonce: Vec<u8> },
    /// Initiator: for message 6.
    Id { exchanged: Box<Exchanged>, keys: Box<Keys>, iv: Vec<u8>, key: Option<Known> },
    /// Responder: for message 3.
    InitiatorKe { agreed: Agreed },
    /// Responder: for message 5. Whose key it is written with shows when it is there.
    InitiatorId { exchanged: Box<Exchanged> },
}

/// One Main Mode that is not complete.
pub(super) struct MainMode {
    pub(super) id: u32,
    pub(super) cookies: Cookies,
    pub(super) role: Role,
    /// Main Mode or Aggressive Mode.
    pub(super) exchange: ExchangeType,
    pub(super) begun: Instant,
    /// An SA with the peer exists that this one is to replace.
    pub(super) rekey: bool,
    /// The port of the last message.
    pub(super) port: Port,
    /// The body of the SA payload of message 1: SAi_b.
    pub(super) sa: Vec<u8>,
    /// The offered and then the chosen one.
    method: Method,
    /// Initiator: the number that was offered.
    pub(super) offered: AuthenticationMethod,
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
    /// Initiator: our end as the peer knows it, if it was the peer that dialled.
    pub(super) dialled: Option<Endpoint>,
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
    /// Who has to authenticate itself by XAUTH.
    pub(super) xauth: Option<Role>,
    pub(super) initial_contact: bool,
    /// Message 5 and its answer, message 6, of the responder.
    pub(super) answered: Option<Answered>,
}

impl Established {
    fn new(config: &Config, agreed: Agreed, nat: Nat, keys: Keys, last_block: Vec<u8>, peer: Proved) -> Self {
        Self {
            keys,
            last_block,
            proposal: agreed.proposal,
            lifetime: agreed.life.seconds(config.lifetime),
            abilities: agreed.abilities,
            nat,
            peer_id: peer.id,
            authentication: peer.authentication,
            xauth: agreed.xauth,
            initial_contact: peer.initial_contact,
            answered: None,
        }
    }
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

/// The body of an INITIAL-CONTACT notification (RFC 2407 section 4.6.3.3).
fn initial_contact(cookies: &Cookies) -> Vec<u8> {
    let spi = cookies.spi();
    Notification { protocol: ProtocolId::ISAKMP, spi: &spi, kind: NotifyType::INITIAL_CONTACT, data: &[] }.body()
}

/// A Message ID: never zero, which is that of phase 1.
pub(super) fn message_id(rng: &mut StdRng) -> u32 {
    rng.next_u32().max(1)
}

impl MainMode {
    /// Begins as responder with message 1; returns message 2 as well.
    pub(super) fn respond(
        context: &mut Context<'_>,
        now: Instant,
        id: u32,
        port: Port,
        header: &Header,
        [body, message]: [&[u8]; 2],
    ) -> Result<(Self, Vec<u8>), Error> {
        //= rfc2409 5 "Main Mode MUST be implemented;"
        //= test: every_cipher_and_hash_of_phase_1_establishes, what_is_no_main_mode_is_not_answered
        let payloads = Payloads::read_plain(header.next_payload, body)?;
        let sa = payloads.sa()?;
        let choice = Choice::of(context.config, sa)?;
        let abilities = Abilities::of(&payloads, context.config.nat_traversal, NatPayloads::Any)?;
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
        let agreed = Agreed::new(choice.chosen, abilities);
        Self {
            id,
            cookies,
            role: Role::Responder,
            exchange: ExchangeType::IDENTITY_PROTECTION,
            begun: now,
            rekey: false,
            port,
            sa: sa.to_vec(),
            method: agreed.method,
            offered: agreed.method.into(),
            state: State::InitiatorKe { agreed },
            retransmission: None,
            answered: None,
            hint: None,
            initial_contact: false,
            before: None,
            dialled: None,
        }
    }

    /// What the Vendor IDs of the peer say, as soon as they are known.
    pub(super) fn abilities(&self) -> Option<Abilities> {
        match &self.state {
            State::Sa | State::Aggressive(_) => None,
            State::Ke { agreed, .. } | State::InitiatorKe { agreed } => Some(agreed.abilities),
            State::Id { exchanged, .. } | State::InitiatorId { exchanged } => Some(exchanged.agreed.abilities),
        }
    }

    /// Whether a message with this header belongs here.
    pub(super) fn is_for(&self, header: &Header) -> bool {
        //= rfc2409 4 "In other words, the cookies MUST NOT swap places when the direction of the ISAKMP SA changes."
        //= test: phase_2_is_renewed_for_hours_by_either_side_without_losing_a_packet, an_answer_with_our_own_cookie_is_none
        match self.state {
            State::Sa | State::Aggressive(_) => {
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
            State::Sa | State::Aggressive(_) => 2,
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

    /// What an error means with the method that both ends prove themselves by.
    pub(super) fn blame(&self, error: Error) -> Error {
        if self.method == Method::PreSharedKey { error } else { error.with_signatures() }
    }

    /// Why the exchange failed when nobody answers any more.
    pub(super) fn timeout(&self) -> Error {
        if let Some(hint) = &self.hint {
            return hint.clone();
        }
        match self.state {
            // A peer with another pre-shared key cannot decrypt message 5, and most of them drop it without a word.
            State::Id { .. } => self.blame(Error::AuthenticationFailed { notification: None }),
            State::Sa
            | State::Aggressive(_)
            | State::Ke { .. }
            | State::InitiatorKe { .. }
            | State::InitiatorId { .. } => {
                Error::NoResponse { exchange: self.exchange, message: self.expected().saturating_sub(1) }
            }
        }
    }

    //= rfc2409 5 "Receipt of a Certificate Request payload MUST NOT extend the number of messages transmitted or expected."
    //= test: certificates_and_the_requests_for_them_add_no_message, a_request_for_a_certificate_that_is_not_there_adds_no_message
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
            State::Aggressive(_) => self.aggressive_message_2(context, now, header, [body, message])?,
            State::Ke { .. } => self.message_4(context, header, body)?,
            State::Id { .. } => self.message_6(context, now, header, body)?,
            State::InitiatorKe { .. } => self.message_3(context, port, header, body)?,
            State::InitiatorId { .. } => self.message_5(context, now, header, [body, message])?,
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

    //= rfc2408 5.7 "When creating a Key Exchange Payload, the transmitting entity (initiator or responder) MUST do the following:"
    //= test: every_group_establishes_in_both_phases, short_values_keep_their_width
    //= rfc2408 5.7 "When a Key Exchange payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: every_group_establishes_in_both_phases, nobody_is_admitted_without_a_public_value_of_the_right_length_and_a_nonce, an_answer_with_our_own_public_value_is_refused
    /// Message 3, and 4 but for CERTREQ.
    fn key_exchange(agreed: &Agreed, public: &[u8], nonce: &[u8], nat_d: &[Vec<u8>; 2]) -> Chain {
        let mut chain = Chain::new();
        chain.push(PayloadType::KE, public);
        chain.push(PayloadType::NONCE, nonce);
        agreed.abilities.write_nat_d(nat_d, &mut chain);
        chain
    }

    /// Moves on to port 4500, unless one of the ends does not traverse NATs.
    fn float(&mut self, abilities: Abilities) {
        if abilities.flavour.is_some() {
            self.port = Port::NatT;
        }
    }

    fn verdict(config: &Config, agreed: &Agreed, cookies: &Cookies, port: Port, payloads: &Payloads<'_>) -> Nat {
        let (local, remote) = (config.local_end(port), config.remote_end(port));
        // Without NAT-D nobody can tell.
        let Some(flavour) = agreed.abilities.flavour else { return Nat::default() };
        nat::verdict(flavour, agreed.proposal.hash, cookies, local, remote, payloads)
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
