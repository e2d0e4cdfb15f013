//! IKEv1: Main Mode with a pre-shared key or signatures and Quick Mode, in both roles, with NAT traversal, dead peer
//! detection and renewal of both phases; XAUTH as the end that is asked. RFC 2407, 2408, 2409, 3706, 3947, 4109, 4754, 4945,
//! draft-beaulieu-ike-xauth-02, draft-dukes-ike-mode-cfg-02.
//!
//! ```text
//!              +-- main_mode -------- negotiates the ISAKMP SA ----> phase1: what follows what
//!              +-- transaction ------ asks who our user is: xauth
//!   ISAKMP ----+-- quick_mode ------- negotiates a pair of ESP SAs -> phase2, pairs: the same
//!   messages   +-- informational ---- notifications, Delete; detection: RFC 3706
//!                message, payload, proposal, registry: the wire; key: what is computed; nat: RFC 3947
//! ```
//!
//! [`Ike`] speaks with one peer. It is the initiator after [`Ike::connect`] and answers in any case. After each call the owner
//! drains [`Ike::poll_transmit`] and [`Ike::poll_event`], and calls [`Ike::handle_timeout`] when [`Ike::poll_timeout`] is due.
//!
//! A server has one [`Responder`] in front of the relations with its peers: it makes an [`Ike`] of a peer's message 3.
//!
//! Left out: Aggressive Mode as responder (it hands a hash of the pre-shared key to anyone), XAUTH as the end that asks, and ESP
//! outside of UDP.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use zeroize::Zeroizing;

use crate::buffer::Port;
use crate::suite::{EspProposal, IkeProposal};
use crate::timer::Timers;

//= out: rfc2407 4.2.1 "Conversely, if the initiator supports either SIT_SECRECY or SIT_INTEGRITY, the Labeled Domain Identifier MUST be included in the situation payload." neither is supported
//= out: rfc2407 4.4.3.1 "All implementations within the IPSEC DOI MUST support AH_MD5 along with the Auth(HMAC-MD5) attribute." AH does not pass a NAT, and RFC 8221 no longer asks for it
//= out: rfc2407 4.4.4.2 "All implementations within the IPSEC DOI MUST support ESP_DES along with the Auth(HMAC-MD5) attribute." DES is broken: RFC 8221 says MUST NOT
//= out: rfc2407 4.4.4.11 "All implementations within the IPSEC DOI MUST support ESP_NULL." a tunnel over the Internet without confidentiality is not offered
//= out: rfc2407 4.6.2 "If an implementation receives any other values, this MUST be treated as an error and the security association setup MUST be aborted." peers send 4500 and other ports; what is proved is the identity
//= out: rfc2408 3.1 "If set(1), the entity which did not set the Commit Bit MUST wait for an Informational Exchange containing a Notify payload (with the CONNECTED Notify Message) from the entity which set the Commit Bit." peers set it and send no such message; the first ESP packet says the same
//= out: rfc2408 3.9 "The Certificate payload MUST be accepted at any point during an exchange." it is read where RFC 4945 puts it: in messages 5 and 6 of Main Mode
//= out: rfc2408 5.1 "If the ISAKMP message length and the value in the Payload Length field of the ISAKMP Header are not the same, then the ISAKMP message MUST be rejected." some clients append zeros; what is missing is refused
//= out: rfc2409 4 "IKE implementations MUST support the following attribute values:" DES and group 1 are broken: RFC 8247 says MUST NOT; MD5, SHA and pre-shared keys are supported
//= out: rfc2409 5 "Aggressive Mode SHOULD be implemented." as initiator only, and on demand: it hands a hash of the pre-shared key to anyone
//= out: rfc2409 5.2 "If the authentication method is public key encryption, the nonce and identity payloads MUST be encrypted with the public key of the other party." no client in the field offers it
//= out: rfc2409 5.6 "New Group Mode MUST NOT be used prior to establishment of an ISAKMP SA." New Group Mode is not spoken at all
//= out: rfc2409 6.1 "Oakley implementations MUST support a MODP group with the following prime and generator." 768 bits are broken: RFC 8247 says MUST NOT
mod attribute;
mod authentication;
mod certificate;
mod config;
mod detection;
mod error;
mod fragmentation;
mod informational;
mod key;
mod main_mode;
mod message;
mod nat;
mod pairs;
mod payload;
mod phase1;
mod phase2;
mod proposal;
mod quick_mode;
pub mod registry;
mod relation;
mod responder;
mod retransmission;
mod sa;
mod selector;
#[cfg(test)]
mod simulation;
mod transaction;
mod vendor;
mod xauth;

pub use authentication::{Authentication, Credentials, PreSharedKey};
pub use certificate::{Certificate, Clock, File as CertificateFile, Pem, Problem as CertificateProblem, Unusable};
pub use config::{Config, Dpd, Lifetime};
pub use error::Error;
pub use nat::{Nat, NatPayloads, NatTraversal};
pub use pairs::MAX_PAIRS;
pub use payload::Identity;
pub use relation::{SpiSpace, cookies};
pub use responder::{Answer, Reason, Responder, ResponderConfig, ResponderStatistics};
pub use xauth::User as XauthUser;

use fragmentation::Reassembly;
use main_mode::MainMode;
use message::Header;
use phase1::Complaints;
use quick_mode::QuickMode;
use registry::{ExchangeType, PayloadType, ProtocolId};
use sa::{Backoff, IsakmpSa, Pair};
use transaction::Transaction;

/// What has to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// An ISAKMP message; on [`Port::NatT`] the non-ESP marker goes in front of it.
    Message {
        /// The socket.
        port: Port,
        /// The message, without the marker.
        message: Vec<u8>,
    },
    /// A NAT keepalive: the single octet 0xFF on [`Port::NatT`] (RFC 3948 section 2.3).
    Keepalive,
}

/// One ESP SA.
#[derive(Clone, PartialEq, Eq)]
pub struct Sa {
    /// The SPI of this direction.
    pub spi: u32,
    /// The algorithms.
    pub proposal: EspProposal,
    /// The key of the cipher, with the 4 octets of salt behind it for AES-GCM (RFC 4106 section 8.1).
    pub encryption_key: Zeroizing<Vec<u8>>,
    /// The key of the integrity algorithm; empty for AES-GCM.
    pub integrity_key: Zeroizing<Vec<u8>>,
    /// How long the SA may be used.
    pub lifetime: Lifetime,
    /// The SPI of the other direction.
    pub pair: u32,
    /// Whether this end began the Quick Mode, and so leads its renewal.
    pub initiator: bool,
    /// Whether its packets travel in UDP (RFC 3948), else as IP protocol 50.
    pub encapsulated: bool,
}

impl fmt::Debug for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sa")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("proposal", &format_args!("{}", self.proposal))
            .field("lifetime", &self.lifetime)
            .field("pair", &format_args!("{:08x}", self.pair))
            .field("initiator", &self.initiator)
            .field("encapsulated", &self.encapsulated)
            .finish_non_exhaustive()
    }
}

/// What decrypts a capture of phase 1 and of all that it protects.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The initiator's cookie.
    pub initiator_cookie: [u8; 8],
    /// The key of the cipher.
    pub encryption_key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Phase 1 is complete: the peer has proved who it is, and has let our user in where XAUTH was agreed on.
    IsakmpEstablished {
        /// What was agreed on.
        proposal: IkeProposal,
        /// Who is behind a NAT.
        nat: Nat,
        /// Whether ESP goes in UDP: both ends support NAT traversal.
        encapsulated: bool,
        /// Who the peer says it is.
        peer_id: Identity,
        /// What it has proved itself by.
        authentication: Authentication,
        /// How long the SA lives.
        lifetime: Duration,
        /// Whether it replaces another one.
        rekey: bool,
        /// The peer says that it has no other SA with this end (INITIAL-CONTACT, RFC 2407 section 4.6.3.3). That is a hint, which
        /// deletes nothing here: behind a NAT several peers may have one identity.
        initial_contact: bool,
    },
    /// The peer says INITIAL-CONTACT after phase 1 is complete.
    InitialContact,
    /// A cookie that this end chose, by which the peer's messages are known, is in use or no longer in use.
    OwnCookie {
        /// The cookie: the initiator's or the responder's, as this end's role is.
        cookie: [u8; 8],
        /// It is in use.
        alive: bool,
    },
    /// Receive on this SA as well.
    InstallInbound(Sa),
    /// Send on this SA from now on.
    InstallOutbound(Sa),
    /// Forget this pair; if it was the one to send on, the last installed of those that remain takes its place.
    RemoveSa {
        /// Its SPI towards this end.
        inbound_spi: u32,
        /// Its SPI towards the peer.
        outbound_spi: u32,
    },
    /// The peer says that a pair may carry less than was agreed (RESPONDER-LIFETIME, RFC 2407 section 4.6.3.1).
    Lifetime {
        /// The SPI of the pair towards this end.
        inbound_spi: u32,
        /// How much each of its SAs may carry, in kilobytes of 1024 octets.
        kilobytes: u32,
    },
    /// A renewal failed; what exists goes on, and the renewal is tried again.
    RekeyFailed(Error),
    /// The peer hung up: it deleted the ISAKMP SA when no ESP SA was left. This is the end.
    PeerDeletedIsakmp,
    /// The peer answers no R-U-THERE any more. This is the end.
    DeadPeer,
    /// Something did not come about, or has gone for good. In phase 1 this is the end; in phase 2 the ISAKMP SA stays, and
    /// [`Ike::retry_quick_mode`] may try something else.
    Failed(Error),
    /// The keys of a new ISAKMP SA, if the configuration asks for them.
    Keys(Keys),
    /// Something for the log that changes nothing.
    Notice(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    MainMode(u32),
    Hint(u32),
    Xauth(u32),
    QuickMode(u32),
    RenewIsakmp(u32),
    ExpireIsakmp(u32),
    RenewIpsec(u32),
    ExpireIpsec(u32),
    Abandoned,
    Recover,
    Dpd,
    Keepalive,
}

/// The IKEv1 relation with one peer.
pub struct Ike {
    config: Config,
    rng: StdRng,
    /// [`Self::connect`] was called: what the peer takes away is begun anew.
    wanted: bool,
    closed: bool,
    /// Main Modes that are not complete.
    negotiations: Vec<MainMode>,
    /// ISAKMP SAs in the order in which they were established.
    isakmp: Vec<IsakmpSa>,
    quick_modes: Vec<QuickMode>,
    /// Configuration exchanges that were answered, the oldest first.
    transactions: Vec<Transaction>,
    /// Pairs of ESP SAs in the order in which they were agreed on.
    pairs: Vec<Pair>,
    /// Quick Modes that wait for an ISAKMP SA: the pair that each is to replace. At most one per pair, and one for a first pair.
    waiting: BTreeSet<Option<u32>>,
    /// The peer has been reached on port 4500.
    floated: bool,
    /// A Main Mode has been complete.
    contacted: bool,
    last_heard: Option<Instant>,
    /// A question of dead peer detection was asked since [`Self::last_heard`].
    asked: bool,
    last_sent: Option<Instant>,
    /// The pause before what the peer took away is begun anew.
    backoff: Backoff,
    /// Unprotected notifications of the last minute.
    complaints: Complaints,
    last_id: u32,
    retransmissions: u64,
    /// Messages that came in part, one for each pair of cookies at most.
    reassemblies: Vec<Reassembly>,
    /// The SA payload that a [`Responder`] admitted this relation with.
    offer: Option<responder::Digest>,
    timers: Timers<Timer>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Ike {
    /// A relation that answers, and begins nothing before [`Self::connect`].
    pub fn new(config: Config, rng: StdRng) -> Self {
        Self {
            config,
            rng,
            wanted: false,
            closed: false,
            negotiations: Vec::new(),
            isakmp: Vec::new(),
            quick_modes: Vec::new(),
            transactions: Vec::new(),
            pairs: Vec::new(),
            waiting: BTreeSet::new(),
            floated: false,
            contacted: false,
            last_heard: None,
            asked: false,
            last_sent: None,
            backoff: Backoff::default(),
            complaints: Complaints::default(),
            last_id: 0,
            retransmissions: 0,
            reassemblies: Vec::new(),
            offer: None,
            timers: Timers::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Begins as initiator: Main Mode, then Quick Mode.
    pub fn connect(&mut self, now: Instant) {
        if self.closed || self.wanted {
            return;
        }
        if self.config.proposals.iter().all(|proposal| proposal.cipher.is_aead())
            || self.config.esp_proposals.is_empty()
        {
            return self.fail(Error::Config("it offers no proposal"));
        }
        self.wanted = true;
        self.begin_quick_mode(now, None);
    }

    //= rfc3193 3.1 "Once the L2TP tunnel is deleted by either peer, any phase 1 and phase 2 SA's which still exist as a result of the L2TP tunnel between the peers SHOULD be deleted."
    //= test: the_server_ends_with_every_goodbye, closing_deletes_everything_at_the_other_end_even_over_a_bad_link
    //= rfc3193 3.1 "Phase 1 and phase 2 delete messages SHOULD be sent when this occurs."
    //= test: closing_deletes_everything_at_the_other_end_even_over_a_bad_link, unprotected_messages_change_nothing
    /// Ends: tells the peer that every ESP SA is gone, and then every ISAKMP SA.
    pub fn close(&mut self, _now: Instant) {
        if let Some(isakmp) = self.current().map(|sa| sa.id) {
            let pairs: Vec<u32> = self.pairs.iter().map(|pair| pair.inbound).collect();
            for spi in pairs {
                self.inform_delete(isakmp, ProtocolId::ESP, &spi.to_be_bytes());
            }
        }
        let all: Vec<_> = self.isakmp.iter().map(|sa| (sa.id, sa.cookies.spi())).collect();
        for (id, spi) in all {
            self.inform_delete(id, ProtocolId::ISAKMP, &spi);
        }
        self.shut();
    }

    /// Takes an ISAKMP message, without the non-ESP marker.
    pub fn handle_message(&mut self, now: Instant, port: Port, message: &[u8]) {
        if self.closed {
            return;
        }
        match Header::read(message) {
            Ok((header, body)) if header.next_payload == PayloadType::FRAGMENT => {
                if let Some(whole) = self.handle_fragment(now, &header, body) {
                    self.handle_whole(now, port, &whole);
                }
            }
            Ok(_) | Err(_) => self.handle_whole(now, port, message),
        }
        self.renew_worn_isakmp(now);
    }

    //= rfc2408 2.4 "This is only applicable for a phase 2 exchange and the value MUST be 0 for a phase 1 exchange because the combined cookies identify the ISAKMP SA."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, a_header_that_does_not_fit_its_exchange_is_not_looked_at
    //= rfc2408 3.1 "During Phase 1 negotiations, the value MUST be set to 0."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, a_header_that_does_not_fit_its_exchange_is_not_looked_at
    //= rfc2409 4 ""Main Mode" and "Aggressive Mode" MUST ONLY be used in phase 1."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, only_quick_mode_is_answered_once_phase_1_is_complete
    //= rfc2409 4 ""Quick Mode" MUST ONLY be used in phase 2."
    //= test: what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption, quick_mode_is_not_answered_before_phase_1_is_complete
    fn handle_whole(&mut self, now: Instant, port: Port, message: &[u8]) {
        let (header, body) = match Header::read(message) {
            Ok(read) => read,
            Err(error) => return self.notice(format!("a message is ignored: {error}")),
        };
        match header.exchange {
            ExchangeType::IDENTITY_PROTECTION | ExchangeType::AGGRESSIVE if header.message_id != 0 => {
                self.notice("a message of phase 1 with a Message ID is ignored".to_owned());
            }
            ExchangeType::IDENTITY_PROTECTION | ExchangeType::AGGRESSIVE => {
                self.handle_main_mode(now, port, &header, [body, message])
            }
            ExchangeType::QUICK_MODE => self.handle_quick_mode(now, port, &header, [body, message]),
            ExchangeType::INFORMATIONAL => self.handle_informational(now, port, &header, body),
            ExchangeType::TRANSACTION => self.handle_transaction(now, port, &header, [body, message]),
            other => self.notice(format!("a message of exchange {other} is ignored")),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::MainMode(id) => self.main_mode_timer(now, id),
                Timer::Hint(id) => self.hint_timer(now, id),
                Timer::Xauth(id) => self.xauth_timer(now, id),
                Timer::QuickMode(id) => self.quick_mode_timer(now, id),
                Timer::RenewIsakmp(id) => self.renew_isakmp(now, id),
                Timer::ExpireIsakmp(id) => self.expire_isakmp(now, id),
                Timer::RenewIpsec(spi) => self.renew_pair(now, spi),
                Timer::ExpireIpsec(spi) => self.expire_pair(now, spi),
                Timer::Abandoned => self.close(now),
                Timer::Recover => self.recover(now),
                Timer::Dpd => self.detect(now),
                Timer::Keepalive => self.keep_alive(now),
            }
        }
    }

    /// An ESP packet of this SA was authenticated: a sign of life, and the confirmation of a new pair.
    pub fn handle_esp_activity(&mut self, now: Instant, inbound_spi: u32) {
        self.heard(now);
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.inbound == inbound_spi) {
            pair.used = Some(now);
        }
        let waits = |quick_mode: &&mut QuickMode| quick_mode.unconfirmed() == Some(inbound_spi);
        if let Some(quick_mode) = self.quick_modes.iter_mut().find(waits)
            && let Some(outbound) = quick_mode.confirm()
        {
            let id = quick_mode.id;
            self.quick_mode_done(now, id);
            self.install_outbound(now, *outbound);
        }
    }

    /// Something else was sent on [`Port::NatT`], so that no keepalive is needed for a while.
    pub fn handle_sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
    }

    /// Renews the pair that is sent on, because its volume is nearly used up.
    pub fn rekey_ipsec(&mut self, now: Instant) {
        if let Some(spi) =
            self.pairs.iter().rev().find(|pair| !pair.superseded && pair.confirmed).map(|pair| pair.inbound)
        {
            self.begin_quick_mode(now, Some(spi));
        }
    }

    /// Begins another Quick Mode with other proposals after [`Event::Failed`] of phase 2. The ISAKMP SA waits 30 s for it.
    pub fn retry_quick_mode(&mut self, now: Instant, esp_proposals: Vec<EspProposal>) {
        if !self.closed && !esp_proposals.is_empty() {
            self.timers.stop(Timer::Abandoned);
            self.config.esp_proposals = esp_proposals;
            self.begin_quick_mode(now, None);
        }
    }

    /// Takes on other credentials. What was proved stays; the next Main Mode proves itself with the new ones.
    pub fn set_credentials(&mut self, credentials: Arc<Credentials>) {
        self.config.credentials = credentials;
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.first_fragment(transmit)
    }

    /// The next thing that has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether phase 1 is complete, and XAUTH where it was agreed on.
    pub fn is_established(&self) -> bool {
        self.isakmp.iter().any(|sa| !sa.xauth.is_awaited())
    }

    /// What phase 1 agreed on.
    pub fn proposal(&self) -> Option<IkeProposal> {
        self.current().map(|sa| sa.proposal)
    }

    /// How many messages had to be sent again.
    pub fn retransmissions(&self) -> u64 {
        self.retransmissions
    }

    fn transmit(&mut self, port: Port, message: Vec<u8>) {
        self.transmits.push_back(Transmit::Message { port, message });
    }

    fn notice(&mut self, text: String) {
        self.events.push_back(Event::Notice(text));
    }

    /// Reports the failure of everything.
    fn fail(&mut self, error: Error) {
        self.events.push_back(Event::Failed(error));
        self.shut();
    }

    fn shut(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.timers.clear();
        let cookies: Vec<_> = self.own_cookies().collect();
        self.events.extend(cookies.into_iter().map(|cookie| Event::OwnCookie { cookie, alive: false }));
        self.negotiations.clear();
        self.quick_modes.clear();
        self.transactions.clear();
        self.pairs.clear();
        self.isakmp.clear();
    }

    //= rfc3948 4 "A peer SHOULD send a NAT-keepalive packet if a need for it is detected according to [RFC3947] and if no other packet to the peer has been sent in M seconds."
    //= test: keepalives_are_sent_only_when_nothing_else_is, traffic_is_proof_of_life_enough
    /// Sends a keepalive if nothing else went out on port 4500, and comes back when the next one may be due.
    fn keep_alive(&mut self, now: Instant) {
        let pause = self.config.keepalive;
        if pause.is_zero() || !self.floated {
            return;
        }
        let due = self.last_sent.map_or(now + pause, |sent| sent + pause);
        if due <= now {
            self.transmits.push_back(Transmit::Keepalive);
            self.last_sent = Some(now);
            self.timers.set(Timer::Keepalive, now + pause);
        } else {
            self.timers.set(Timer::Keepalive, due);
        }
        self.last_sent.get_or_insert(now);
    }

    fn fresh_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    //= rfc2409 5.7 "As noted the message ID in the ISAKMP header-- and used in the prf computation-- is unique to this exchange and MUST NOT be the same as the message ID of another phase 2 exchange which generated this informational exchange."
    //= test: phase_1_is_renewed_before_message_ids_can_no_longer_be_remembered, our_own_messages_that_are_sent_back_later_change_nothing
    /// A Message ID that nobody has used under the ISAKMP SA; it counts as used from here on, so that a message of ours is a
    /// replay when it comes back.
    fn message_id(&mut self, isakmp: u32) -> u32 {
        loop {
            let message_id = main_mode::message_id(&mut self.rng);
            match self.isakmp.iter_mut().find(|sa| sa.id == isakmp) {
                Some(sa) if sa.has_seen(message_id) => {}
                Some(sa) => {
                    sa.remember(message_id);
                    return message_id;
                }
                None => return message_id,
            }
        }
    }
}
