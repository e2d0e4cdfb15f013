//! The responder before it knows its peer: message 1 of Main Mode is answered without keeping anything, and only a message 3 that
//! brings back the cookie of message 2 makes an [`Ike`] (RFC 2408 sections 2.5.3 and 5.3, RFC 2409 section 5.4).
//!
//! ```text
//!   message 1 -> SA payload kept once for all peers that send the same, cookie = number of it | abilities | MAC -> message 2
//!   message 3 -> MAC is right: the peer is where it says that it is -> Ike, which gets the same message 3
//! ```
//!
//! Nobody is sent more octets than came in its name, and nothing is sent twice unless asked for twice.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::error::Error;
use super::main_mode::Choice;
use super::message::{Chain, Cookies, Header, Payloads};
use super::nat::NatPayloads;
use super::payload::Notification;
use super::phase1::Complaints;
use super::registry::{ExchangeType, NotifyType, PayloadType, ProtocolId};
use super::vendor::Abilities;
use super::{Config, Ike};
use crate::buffer::Port;
use crate::rate::Rate;

mod cookie;
mod limit;
mod offers;

pub(in crate::ike) use offers::Digest;

use cookie::{Bound, Claim, Secret};
use limit::Limiter;
use offers::{MAX_OFFER, Offers};

/// How long a cookie is good for at least; at most twice as long. The patience of an initiator for message 4.
const PERIOD: Duration = Duration::from_secs(30);

/// Flags that a message without encryption may have: the Commit bit, which says nothing about an SA of phase 1.
const TOLERATED_FLAGS: u8 = 2;

/// What a [`Responder`] makes of a message.
// An admission is rare and followed by a Diffie-Hellman exchange, so that the size does not matter.
pub enum Answer {
    /// Nothing is said about it.
    Ignored(Reason),
    /// This is sent back where the message came from.
    Reply(Vec<u8>),
    /// A peer that is where it says that it is. The same message is now handed to [`Ike::handle_message`].
    Admitted(Box<Ike>),
}

macro_rules! reasons {
    ($($(#[$meta:meta])* $reason:ident = $label:literal,)*) => {
        /// Why nothing is said about a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[$meta])* $reason),* }

        impl Reason {
            /// All of them, in the order of [`ResponderStatistics::ignored`].
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// Its name in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Self::$reason => $label),* }
            }
        }
    };
}
reasons! {
    /// It is no ISAKMP message of version 1.0, or no well-formed message 1 or 3.
    Malformed = "malformed",
    /// Its cookie is not one of ours, or too old.
    UnknownCookie = "unknown_cookie",
    /// It begins an exchange that is not answered: Aggressive Mode for instance.
    Exchange = "exchange",
    /// Its SA payload is longer than all that are known.
    OfferTooLong = "offer_too_long",
    /// Its source sends too many first messages.
    FirstMessages = "first_messages",
    /// Its source asks for too many key exchanges.
    Admissions = "admissions",
    /// Too many peers are half-open.
    HalfOpen = "half_open",
    /// It has no proposal that is accepted, and too many have been told so.
    NoProposalChosen = "no_proposal_chosen",
}

/// What has been made of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponderStatistics {
    /// First messages that were answered with message 2.
    pub answered: u64,
    /// First messages that were answered with a refusal.
    pub refused: u64,
    /// Peers that were admitted.
    pub admitted: u64,
    ignored: [u64; Reason::ALL.len()],
}

impl ResponderStatistics {
    /// Messages about which nothing was said, by reason.
    pub fn ignored(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().copied().zip(self.ignored.iter().copied())
    }

    fn ignore(&mut self, reason: Reason) {
        let index = Reason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = index.and_then(|index| self.ignored.get_mut(index)) {
            *counter = counter.saturating_add(1);
        }
    }
}

/// What a [`Responder`] goes by.
#[derive(Clone)]
pub struct ResponderConfig {
    /// What each relation is made with. The addresses, and the ports of the socket that the peer speaks to, are taken from the
    /// datagram.
    pub ike: Config,
    /// How many first messages of one source are answered.
    pub first_messages: Rate,
    /// How many key exchanges one source may cause; a NAT is one source.
    pub admissions: Rate,
    /// The most peers that may be half-open at a time: those that were admitted and have no ISAKMP SA yet.
    pub max_half_open: usize,
}

impl ResponderConfig {
    /// The usual bounds.
    pub fn new(ike: Config) -> Self {
        Self {
            ike,
            first_messages: Rate { burst: 100, per_second: 20 },
            admissions: Rate { burst: 50, per_second: 10 },
            max_half_open: 1000,
        }
    }
}

/// All that comes before the first valid message 3, for all peers.
pub struct Responder {
    config: ResponderConfig,
    /// Counts the configurations: what was chosen under one stays chosen.
    configuration: u64,
    rng: StdRng,
    secret: Secret,
    offers: Offers,
    first_messages: Limiter,
    admissions: Limiter,
    complaints: Complaints,
    half_open: usize,
    /// When the first message came: periods count from here.
    begun: Option<Instant>,
    statistics: ResponderStatistics,
}

impl Responder {
    /// One for the process.
    pub fn new(config: ResponderConfig, mut rng: StdRng) -> Self {
        Self {
            config,
            configuration: 0,
            secret: Secret::new(&mut rng),
            offers: Offers::default(),
            first_messages: Limiter::new(&mut rng),
            admissions: Limiter::new(&mut rng),
            complaints: Complaints::default(),
            half_open: 0,
            begun: None,
            statistics: ResponderStatistics::default(),
            rng,
        }
    }

    /// Takes another configuration for those who come from here on.
    pub fn configure(&mut self, config: ResponderConfig) {
        self.config = config;
        self.configuration = self.configuration.wrapping_add(1);
    }

    /// Says how many of those that were admitted have no ISAKMP SA yet; [`ResponderConfig::max_half_open`] is the bound.
    pub fn set_half_open(&mut self, count: usize) {
        self.half_open = count;
    }

    /// Says that an admitted relation has its ISAKMP SA, so that peers of the same kind are answered under a flood as well.
    pub fn handle_established(&mut self, ike: &Ike) {
        if let Some(offer) = &ike.offer {
            self.offers.prove(offer);
        }
    }

    /// How many SA payloads are kept, and the most that may be.
    #[cfg(test)]
    pub(crate) fn kept_offers(&self) -> (usize, usize) {
        (self.offers.len(), offers::MAX_OFFERS)
    }

    /// What has been made of messages.
    pub fn statistics(&self) -> &ResponderStatistics {
        &self.statistics
    }

    /// Takes an ISAKMP message whose cookies no relation has, without the non-ESP marker; `local` and `remote` are the ends of its
    /// datagram.
    pub fn handle_message(
        &mut self,
        now: Instant,
        port: Port,
        local: SocketAddr,
        remote: SocketAddr,
        message: &[u8],
    ) -> Answer {
        let elapsed = now.saturating_duration_since(*self.begun.get_or_insert(now));
        // What a socket for both families has of IPv4 is that of IPv4 to the peer, whose NAT-D payloads cover it.
        let [local, remote] = [local, remote].map(|end| SocketAddr::new(end.ip().to_canonical(), end.port()));
        let arrival = Arrival { now, elapsed, port, local, remote };
        self.judge(&arrival, message).unwrap_or_else(|reason| {
            self.statistics.ignore(reason);
            Answer::Ignored(reason)
        })
    }

    fn judge(&mut self, arrival: &Arrival, message: &[u8]) -> Result<Answer, Reason> {
        let (header, body) = Header::read(message).map_err(|_| Reason::Malformed)?;
        let first = header.cookies.responder == [0; 8];
        if header.is_encrypted() {
            return Err(if first { Reason::Malformed } else { Reason::UnknownCookie });
        }
        if header.exchange != ExchangeType::IDENTITY_PROTECTION {
            return Err(if first { Reason::Exchange } else { Reason::UnknownCookie });
        }
        if header.flags & !TOLERATED_FLAGS != 0 || header.message_id != 0 {
            return Err(Reason::Malformed);
        }
        if first {
            self.message_1(arrival, &header, body, message.len())
        } else {
            self.message_3(arrival, &header, body)
        }
    }

    fn message_1(&mut self, arrival: &Arrival, header: &Header, body: &[u8], length: usize) -> Result<Answer, Reason> {
        if !self.first_messages.allow(arrival.elapsed, arrival.remote.ip(), self.config.first_messages) {
            return Err(Reason::FirstMessages);
        }
        let payloads = Payloads::read_plain(header.next_payload, body).map_err(|_| Reason::Malformed)?;
        let sa = payloads.sa().map_err(|_| Reason::Malformed)?;
        if sa.len() > MAX_OFFER {
            return Err(Reason::OfferTooLong);
        }
        let initiator = header.cookies.initiator;
        let digest = Offers::digest(self.configuration, sa);
        let abilities = Abilities::of(&payloads, self.config.ike.nat_traversal, NatPayloads::Any);
        let (Ok(abilities), Some(number)) = (abilities, self.number(digest, sa)?) else {
            return self.refuse(arrival.now, initiator, length);
        };
        let claim = Claim { number, abilities };
        let responder = self.secret.seal(claim, &arrival.bound(initiator, &digest), arrival.period());
        let cookies = Cookies { initiator, responder };
        let offer = self.offers.get(number).ok_or(Reason::NoProposalChosen)?;
        self.statistics.answered = self.statistics.answered.saturating_add(1);
        Ok(Answer::Reply(offer.choice.message_2(cookies, abilities, length)))
    }

    /// The number of an SA payload; none if nothing of it is accepted.
    fn number(&mut self, digest: Digest, sa: &[u8]) -> Result<Option<u16>, Reason> {
        if let Some(number) = self.offers.number(&digest) {
            return Ok(Some(number));
        }
        match Choice::of(&self.config.ike, sa) {
            Ok(choice) => Ok(Some(self.offers.keep(digest, sa, choice))),
            Err(Error::NoProposalChosen { .. }) => Ok(None),
            Err(_) => Err(Reason::Malformed),
        }
    }

    /// Says that nothing of message 1 is accepted, if not too many have been told so.
    fn refuse(&mut self, now: Instant, initiator: [u8; 8], length: usize) -> Result<Answer, Reason> {
        let cookies = Cookies { initiator, responder: [0; 8] };
        let kind = NotifyType::NO_PROPOSAL_CHOSEN;
        let notification = Notification { protocol: ProtocolId::ISAKMP, spi: &[], kind, data: &[] };
        let mut chain = Chain::new();
        chain.push(PayloadType::N, &notification.body());
        let message_id = self.rng.next_u32().max(1);
        let refusal = Header::new(cookies, ExchangeType::INFORMATIONAL, message_id).write_plain(&chain);
        if refusal.len() > length || !self.complaints.allow(now) {
            return Err(Reason::NoProposalChosen);
        }
        self.statistics.refused = self.statistics.refused.saturating_add(1);
        Ok(Answer::Reply(refusal))
    }

    fn message_3(&mut self, arrival: &Arrival, header: &Header, body: &[u8]) -> Result<Answer, Reason> {
        let Cookies { initiator, responder } = header.cookies;
        let Claim { number, abilities } = cookie::claim(responder).ok_or(Reason::UnknownCookie)?;
        let offer = self.offers.get(number).ok_or(Reason::UnknownCookie)?;
        if !self.secret.verifies(responder, &arrival.bound(initiator, &offer.digest), arrival.period()) {
            return Err(Reason::UnknownCookie);
        }
        let payloads = Payloads::read_plain(header.next_payload, body).map_err(|_| Reason::Malformed)?;
        let public = payloads.single(PayloadType::KE, "KE payload").map_err(|_| Reason::Malformed)?;
        if public.len() != offer.choice.public_value_size() || payloads.nonce().is_err() {
            return Err(Reason::Malformed);
        }
        if self.half_open >= self.config.max_half_open {
            return Err(Reason::HalfOpen);
        }
        if !self.admissions.allow(arrival.elapsed, arrival.remote.ip(), self.config.admissions) {
            return Err(Reason::Admissions);
        }
        let config = arrival.config(&self.config.ike);
        let rng = StdRng::from_rng(&mut self.rng);
        let mut ike = Ike::new(config, rng);
        ike.admit(arrival.now, arrival.port, header.cookies, &offer.sa, &offer.choice, abilities);
        ike.offer = Some(offer.digest);
        self.statistics.admitted = self.statistics.admitted.saturating_add(1);
        Ok(Answer::Admitted(Box::new(ike)))
    }
}

/// When and where a message came in.
struct Arrival {
    now: Instant,
    /// Since the first message of all.
    elapsed: Duration,
    port: Port,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Arrival {
    fn period(&self) -> u64 {
        self.elapsed.as_secs() / PERIOD.as_secs()
    }

    fn bound<'a>(&self, initiator: [u8; 8], digest: &'a Digest) -> Bound<'a> {
        Bound { initiator, remote: self.remote, port: self.port, digest }
    }

    fn config(&self, usual: &Config) -> Config {
        let mut config = Config { local: self.local.ip(), remote: self.remote.ip(), ..usual.clone() };
        let (local, remote) = match self.port {
            Port::Ike => (&mut config.local_port_ike, &mut config.remote_port_ike),
            Port::NatT => (&mut config.local_port_nat_t, &mut config.remote_port_nat_t),
        };
        (*local, *remote) = (self.local.port(), self.remote.port());
        config
    }
}
