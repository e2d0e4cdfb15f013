//! IKEv1: Main Mode with a pre-shared key and Quick Mode, in both roles, with NAT traversal, dead peer detection and renewal of
//! both phases. RFC 2407, 2408, 2409, 3706, 3947, 4109.
//!
//! ```text
//!              +-- main_mode ------- negotiates the ISAKMP SA ----+
//!   ISAKMP ----+-- quick_mode ------ negotiates pairs of ESP SAs -+--> sa <-- rekey: what follows what
//!   messages   +-- informational --- notifications, Delete -------+
//!                    message, payload, proposal, registry: the wire; key: what is computed; nat: RFC 3947
//! ```
//!
//! [`Ike`] speaks with one peer. It is the initiator after [`Ike::connect`] and answers in any case. After each call the owner
//! drains [`Ike::poll_transmit`] and [`Ike::poll_event`], and calls [`Ike::handle_timeout`] when [`Ike::poll_timeout`] is due.
//!
//! Left out: Aggressive Mode (it hands a hash of the pre-shared key to anyone), signatures, XAUTH, IKE fragmentation, and ESP
//! outside of UDP.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use crate::buffer::Port;
use crate::inet::{L2TP_PORT, PROTOCOL_UDP as UDP};
use crate::suite::{EspProposal, IkeProposal};
use crate::timer::Timers;

mod detection;
mod error;
mod informational;
mod key;
mod main_mode;
mod message;
mod nat;
mod payload;
mod proposal;
mod quick_mode;
pub mod registry;
mod rekey;
mod retransmission;
mod sa;
#[cfg(test)]
mod simulation;

pub use error::Error;
pub use nat::Nat;
pub use payload::Identity;
pub use rekey::MAX_PAIRS;

use main_mode::{Context, MainMode};
use message::Header;
use quick_mode::QuickMode;
use registry::{ExchangeType, ProtocolId};
use sa::{IsakmpSa, Pair};

/// How long ESP SAs may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// In time.
    pub seconds: Duration,
    /// In kilobytes of 1024 octets; counting them is up to the owner of the SA.
    pub kilobytes: Option<u32>,
}

/// Dead peer detection (RFC 3706).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dpd {
    /// The peer is asked after this time without any sign of life; zero leaves the verdict to the owner.
    pub interval: Duration,
    /// The peer is dead after this time without any sign of life; at least twice the interval.
    pub timeout: Duration,
}

/// What an [`Ike`] is to agree on with its peer, and where both are.
#[derive(Clone)]
pub struct Config {
    /// The proposals of phase 1, the preferred first. Ciphers that only ESP has are left out.
    pub proposals: Vec<IkeProposal>,
    /// The longest life of an ISAKMP SA.
    pub lifetime: Duration,
    /// The proposals of phase 2, the preferred first; all have the same group.
    pub esp_proposals: Vec<EspProposal>,
    /// The longest life of an ESP SA.
    pub esp_lifetime: Lifetime,
    /// The pre-shared key.
    pub pre_shared_key: Zeroizing<Vec<u8>>,
    /// Who this end is; its address if none is given.
    pub local_id: Option<Identity>,
    /// Who the peer has to be; anyone who knows the pre-shared key if none is given.
    pub remote_id: Option<Identity>,
    /// Dead peer detection.
    pub dpd: Dpd,
    /// The pause after which a NAT is reminded of the mapping; zero switches it off.
    pub keepalive: Duration,
    /// The address of this end, as it sees it.
    pub local: IpAddr,
    /// The address of the peer, as this end sees it.
    pub remote: IpAddr,
    /// The port of this end's socket that speaks to the peer's port 500.
    pub local_port_ike: u16,
    /// The port of this end's socket that speaks to the peer's port 4500.
    pub local_port_nat_t: u16,
    /// The port that the peer is at for [`Port::Ike`].
    pub remote_port_ike: u16,
    /// The port that the peer is at for [`Port::NatT`].
    pub remote_port_nat_t: u16,
    /// Where the first Main Mode begins; on port 4500 it needs no float (RFC 3947 section 4).
    pub begin_on: Port,
    /// Whether the first Main Mode says INITIAL-CONTACT, so that the peer drops what is left of an earlier connection.
    pub initial_contact: bool,
    /// Whether the keys of phase 1 are handed out in [`Event::Keys`].
    pub export_keys: bool,
}

impl Config {
    /// The usual values around what has to be known.
    pub fn new(local: IpAddr, remote: IpAddr, pre_shared_key: Zeroizing<Vec<u8>>) -> Self {
        let security = crate::suite::Security::default();
        Self {
            proposals: security.ike_proposals(),
            lifetime: Duration::from_secs(28_800),
            esp_proposals: security.esp_proposals(),
            esp_lifetime: Lifetime { seconds: Duration::from_secs(3600), kilobytes: None },
            pre_shared_key,
            local_id: None,
            remote_id: None,
            dpd: Dpd { interval: Duration::from_secs(10), timeout: Duration::from_secs(30) },
            keepalive: Duration::from_secs(20),
            local,
            remote,
            local_port_ike: 500,
            local_port_nat_t: 4500,
            remote_port_ike: 500,
            remote_port_nat_t: 4500,
            begin_on: Port::Ike,
            initial_contact: true,
            export_keys: false,
        }
    }

    fn local_end(&self, port: Port) -> nat::Endpoint {
        let port = match port {
            Port::Ike => self.local_port_ike,
            Port::NatT => self.local_port_nat_t,
        };
        nat::Endpoint { address: self.local, port }
    }

    fn remote_end(&self, port: Port) -> nat::Endpoint {
        let port = match port {
            Port::Ike => self.remote_port_ike,
            Port::NatT => self.remote_port_nat_t,
        };
        nat::Endpoint { address: self.remote, port }
    }
}

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
}

impl fmt::Debug for Sa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sa")
            .field("spi", &format_args!("{:08x}", self.spi))
            .field("proposal", &format_args!("{}", self.proposal))
            .field("lifetime", &self.lifetime)
            .field("pair", &format_args!("{:08x}", self.pair))
            .field("initiator", &self.initiator)
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
    /// Phase 1 is complete: the peer knows the pre-shared key.
    IsakmpEstablished {
        /// What was agreed on.
        proposal: IkeProposal,
        /// Who is behind a NAT.
        nat: Nat,
        /// Who the peer says it is.
        peer_id: Identity,
        /// How long the SA lives.
        lifetime: Duration,
        /// Whether it replaces another one.
        rekey: bool,
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
    QuickMode(u32),
    RenewIsakmp(u32),
    ExpireIsakmp(u32),
    RenewIpsec(u32),
    ExpireIpsec(u32),
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
    /// Pairs of ESP SAs in the order in which they were agreed on.
    pairs: Vec<Pair>,
    /// A Quick Mode that waits for an ISAKMP SA, with the pair that it is to replace.
    waiting: Option<Option<u32>>,
    /// The peer has been reached on port 4500.
    floated: bool,
    /// A Main Mode has been complete.
    contacted: bool,
    last_heard: Option<Instant>,
    /// A question of dead peer detection was asked since [`Self::last_heard`].
    asked: bool,
    last_sent: Option<Instant>,
    last_id: u32,
    retransmissions: u64,
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
            pairs: Vec::new(),
            waiting: None,
            floated: false,
            contacted: false,
            last_heard: None,
            asked: false,
            last_sent: None,
            last_id: 0,
            retransmissions: 0,
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
        let (header, body) = match Header::read(message) {
            Ok(read) => read,
            Err(error) => return self.notice(format!("a message is ignored: {error}")),
        };
        match header.exchange {
            ExchangeType::IDENTITY_PROTECTION => self.handle_main_mode(now, port, &header, [body, message]),
            ExchangeType::QUICK_MODE => self.handle_quick_mode(now, port, &header, [body, message]),
            ExchangeType::INFORMATIONAL => self.handle_informational(now, port, &header, body),
            other => self.notice(format!("a message of exchange {other} is ignored")),
        }
    }

    fn handle_main_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let found = self.negotiations.iter().position(|negotiation| negotiation.is_for(header));
        let Some(index) = found else {
            if header.cookies.responder == [0; 8] && !header.is_encrypted() {
                return self.answer_main_mode(now, port, header, parts);
            }
            // The peer has not seen our message 6.
            let sa = self.isakmp.iter().find(|sa| sa.cookies == header.cookies);
            let answered = sa.and_then(|sa| sa.answered.as_ref()).filter(|[request, _]| request == parts[1]);
            if let Some(answer) = answered.map(|[_, answer]| answer.clone()) {
                self.transmit(port, answer);
            }
            return;
        };
        let Some(negotiation) = self.negotiations.get_mut(index) else { return };
        if let Some(again) = negotiation.duplicate(parts[1]).map(<[u8]>::to_vec) {
            return self.transmit(port, again);
        }
        let (id, role, cookies) = (negotiation.id, negotiation.role, negotiation.cookies);
        let mut context = Context { config: &self.config, rng: &mut self.rng };
        match negotiation.handle(&mut context, now, port, header, parts) {
            Ok(main_mode::Step::Send(reply)) => {
                let port = negotiation.port;
                self.rearm_main_mode(index);
                self.transmit(port, reply);
            }
            Ok(main_mode::Step::Established(established)) => {
                let reply = established.answered.as_ref().map(|[_, reply]| reply.clone());
                if let Some(reply) = reply {
                    self.transmit(port, reply);
                }
                self.main_mode_established(now, id, *established);
            }
            // The identity is proved, so there is nothing to wait for.
            Err(error @ Error::InvalidId { .. }) => self.fail_main_mode(now, id, error),
            Err(Error::Malformed(error)) => self.notice(format!("a Main Mode message is ignored: {error}")),
            Err(error) if role == main_mode::Role::Initiator => {
                let error = match error {
                    Error::Undecryptable => Error::AuthenticationFailed { notification: None },
                    other => other,
                };
                self.suspect(now, id, error);
            }
            Err(error) => {
                if let Some(kind) = error.notification() {
                    self.inform_plain(cookies, port, kind);
                }
                self.notice(format!("a Main Mode message of the peer is refused: {error}"));
            }
        }
    }

    fn handle_quick_mode(&mut self, now: Instant, port: Port, header: &Header, parts: [&[u8]; 2]) {
        let Some(index) = self.isakmp.iter().position(|sa| sa.cookies == header.cookies) else { return };
        let Some(sa) = self.isakmp.get(index) else { return };
        if !header.is_encrypted() || header.message_id == 0 {
            return self.notice("an unprotected Quick Mode message is ignored".to_owned());
        }
        let known =
            |quick_mode: &&mut QuickMode| quick_mode.isakmp == sa.id && quick_mode.message_id == header.message_id;
        let Some(quick_mode) = self.quick_modes.iter_mut().find(known) else {
            if sa.has_seen(header.message_id) {
                return;
            }
            return self.answer_quick_mode(now, port, index, header, parts);
        };
        let (id, begun) = (quick_mode.id, quick_mode.begun);
        let context = Context { config: &self.config, rng: &mut self.rng };
        match quick_mode.handle(&context, sa, header, parts) {
            Ok(quick_mode::Step::Agreed { pair, confirmation }) => {
                self.quick_mode_done(now, id);
                self.heard(now);
                // Message 3 leaves before the first ESP packet, which shortens the time in which the peer drops it.
                self.transmit(port, confirmation);
                self.install(now, *pair, true, begun);
            }
            Ok(quick_mode::Step::Confirmed(outbound)) => {
                self.quick_mode_done(now, id);
                self.heard(now);
                self.install_outbound(now, *outbound);
            }
            Ok(quick_mode::Step::Again(message)) => self.transmit(port, message),
            Ok(quick_mode::Step::Nothing) => {}
            Err(error @ (Error::Undecryptable | Error::InvalidHash(_) | Error::Malformed(_))) => {
                self.notice(format!("a Quick Mode message is ignored: {error}"));
            }
            // Everything else is the peer's word: its hash was right.
            Err(error) => self.fail_quick_mode(now, id, error),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::MainMode(id) => self.main_mode_timer(now, id),
                Timer::Hint(id) => self.hint_timer(now, id),
                Timer::QuickMode(id) => self.quick_mode_timer(now, id),
                Timer::RenewIsakmp(id) => self.renew_isakmp(now, id),
                Timer::ExpireIsakmp(id) => self.expire_isakmp(now, id),
                Timer::RenewIpsec(spi) => self.renew_pair(now, spi),
                Timer::ExpireIpsec(spi) => self.expire_pair(spi),
                Timer::Recover => self.recover(now),
                Timer::Dpd => self.detect(now),
                Timer::Keepalive => self.keep_alive(now),
            }
        }
    }

    /// An ESP packet of this SA was authenticated: a sign of life, and the confirmation of a new pair.
    pub fn handle_esp_activity(&mut self, now: Instant, inbound_spi: u32) {
        self.heard(now);
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

    /// Renews phase 1 ahead of time.
    pub fn rekey_isakmp(&mut self, now: Instant) {
        if let Some(id) = self.current().map(|sa| sa.id) {
            self.renew_isakmp(now, id);
        }
    }

    /// Begins another Quick Mode with other proposals after [`Event::Failed`] of phase 2.
    pub fn retry_quick_mode(&mut self, now: Instant, esp_proposals: Vec<EspProposal>) {
        if !self.closed && !esp_proposals.is_empty() {
            self.config.esp_proposals = esp_proposals;
            self.begin_quick_mode(now, None);
        }
    }

    /// The next thing to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that has happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether phase 1 is complete.
    pub fn is_established(&self) -> bool {
        !self.isakmp.is_empty()
    }

    /// Whether nothing will happen any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What phase 1 agreed on.
    pub fn proposal(&self) -> Option<IkeProposal> {
        self.current().map(|sa| sa.proposal)
    }

    /// Who is behind a NAT.
    pub fn nat(&self) -> Option<Nat> {
        self.current().map(|sa| sa.nat)
    }

    /// Who the peer says it is.
    pub fn peer_id(&self) -> Option<&Identity> {
        self.current().map(|sa| &sa.peer_id)
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
        self.waiting = None;
        self.timers.clear();
        self.negotiations.clear();
        self.quick_modes.clear();
        self.pairs.clear();
        self.isakmp.clear();
    }

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

    /// A Message ID: never zero, which is that of phase 1.
    fn message_id(&mut self) -> u32 {
        self.rng.next_u32().max(1)
    }

    /// An SPI for this end to receive on; 0 to 255 are reserved (RFC 4303 section 2.1).
    fn spi(&mut self) -> u32 {
        loop {
            let spi = self.rng.next_u32();
            if spi > 255 && self.pairs.iter().all(|pair| pair.inbound != spi) {
                return spi;
            }
        }
    }
}
