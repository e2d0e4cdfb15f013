//! PPP (RFC 1661) in the role of the client that dials in: LCP, then PAP or CHAP as the peer asks, then IPCP.
//!
//! ```text
//!   frame ── packet       protocols, control packets, options        RFC 1661 sections 2, 5, 6
//!            └ negotiation  one control protocol                     section 4.6
//!                ├ automaton  states and events                      section 4.1
//!                ├ lcp        the link                               RFC 1661 section 6, 1570, 1662, 1990
//!                └ ipcp       addresses and name servers             RFC 1332, 1877
//!            ├ pap, chap    proof of who we are                      RFC 1334, 1994
//!            └ mschapv2     and of who the peer is                   RFC 2759
//! ```
//!
//! Compression and encryption of PPP (CCP, MPPE), Van Jacobson headers, multilink, link quality and callback are refused, by
//! Configure-Reject or Protocol-Reject: IPsec encrypts, and the rest has no use inside of a tunnel.

pub mod automaton;
pub mod error;
pub mod mschapv2;
pub mod packet;

mod chap;
mod ipcp;
mod lcp;
mod negotiation;
mod pap;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zeroize::Zeroizing;

pub use error::{Error, Phase};

use crate::config::PppAuth;
use chap::{Algorithm, Chap, Outcome};
use ipcp::Ipcp;
use lcp::Lcp;
use negotiation::{ControlProtocol, RESTART, Signal};
use packet::{Code, HEADER, Packet, Protocol};

/// The octets in front of an IP packet.
pub const IP_HEADER: usize = HEADER;
/// Authenticate-Requests and Responses without an answer before the peer is given up (RFC 1334 section 2.2.1 leaves it open).
const MAX_AUTHENTICATE: u32 = 10;
/// How long a peer that wants CHAP may take for its Challenge.
const CHALLENGE_WAIT: Duration = Duration::from_secs(30);
/// An Echo-Reply that takes longer is lost.
const ECHO_WAIT: Duration = Duration::from_secs(3);
/// Events that wait for the owner, who takes them after each call; no call causes more than a few.
const MAX_EVENTS: usize = 16;
/// The longest piece of a packet that is sent back in a Protocol-Reject or an Echo-Reply.
const MAX_ECHOED: usize = 1024;

/// What one link is to be.
pub struct Config {
    /// Our name.
    pub username: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// The protocols that may be used; the first is proposed when the peer asks for another.
    pub auth: Vec<PppAuth>,
    /// Our MRU in octets: the largest packet that the peer may send.
    pub mru: u16,
    /// The time without any packet after which an Echo-Request is sent.
    pub echo_interval: Duration,
    /// Echo-Requests without an answer that are too many. What follows from it is the owner's decision.
    pub echo_failures: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            username: String::new(),
            password: Zeroizing::default(),
            auth: vec![PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap],
            // What fits into ESP, UDP and L2TP on an Ethernet with some to spare.
            mru: 1400,
            echo_interval: Duration::from_secs(20),
            echo_failures: 3,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// LCP is open.
    LcpOpened,
    /// The peer accepted our name and password and, with MS-CHAPv2, proved that it knows the password.
    Authenticated {
        /// By which protocol.
        method: PppAuth,
    },
    /// IPCP is open: packets may be sent.
    IpcpOpened {
        /// Our address.
        address: Ipv4Addr,
        /// The peer's, if it names one.
        peer: Option<Ipv4Addr>,
        /// Name servers that it names.
        dns: Vec<Ipv4Addr>,
    },
    /// An Echo-Request was answered.
    EchoReply {
        /// How long it took.
        round_trip: Duration,
    },
    /// An Echo-Request was not answered.
    EchoLost {
        /// How many in a row.
        count: u32,
    },
    /// The peer ended a link that was up.
    Down {
        /// What it said.
        text: String,
    },
    /// There is no link, and there will be none.
    Failed(Error),
}

/// Packets cannot be sent: IPCP is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("IPCP is not open")]
pub struct NotOpened;

/// The phases (RFC 1661 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Dead,
    Establish,
    Authenticate,
    Network,
    /// Failed, or ended by the peer.
    Terminated,
}

enum Authentication {
    None,
    Pap { id: u8 },
    Chap(Box<Chap>),
}

struct Echo {
    next: Option<Instant>,
    pending: Option<(u8, Instant)>,
    lost: u32,
    id: u8,
}

/// One PPP link.
pub struct Ppp {
    config: Config,
    rng: StdRng,
    state: State,
    lcp: ControlProtocol<Lcp>,
    ipcp: ControlProtocol<Ipcp>,
    authentication: Authentication,
    /// When the next Authenticate-Request or Response is due, and how many may follow it.
    retry: Option<(Instant, u32)>,
    echo: Echo,
    events: VecDeque<Event>,
}

impl Ppp {
    /// A link that is dead until [`Ppp::open`].
    pub fn new(config: Config, mut rng: StdRng) -> Self {
        let lcp = Lcp::new(config.auth.clone(), config.mru, split(&mut rng));
        Self {
            config,
            rng,
            state: State::Dead,
            lcp: ControlProtocol::new(lcp),
            ipcp: ControlProtocol::new(Ipcp::new()),
            authentication: Authentication::None,
            retry: None,
            echo: Echo { next: None, pending: None, lost: 0, id: 0 },
            events: VecDeque::new(),
        }
    }

    /// The session below is up: LCP begins.
    pub fn open(&mut self, now: Instant) {
        if self.state == State::Dead {
            self.state = State::Establish;
            self.lcp.open(now);
        }
    }

    /// Takes a frame; returns the IP packet in it, if the link is open for one.
    pub fn handle_frame<'a>(&mut self, now: Instant, frame: &'a [u8]) -> Option<&'a [u8]> {
        let Ok((protocol, information)) = packet::split(frame) else { return None };
        if protocol == Protocol::IP {
            return self.carries_packets().then_some(information);
        }
        if matches!(self.state, State::Dead | State::Terminated) {
            return None;
        }
        self.handle_control(now, protocol, information);
        self.settle(now);
        None
    }

    fn handle_control(&mut self, now: Instant, protocol: Protocol, information: &[u8]) {
        let packet = Packet::parse(information);
        match (protocol, packet) {
            (Protocol::LCP, Ok(packet)) => self.handle_lcp(now, &packet),
            // RFC 1661 section 3.5: until it is their turn, packets of other protocols are silently discarded.
            (Protocol::PAP | Protocol::CHAP, Ok(packet)) if self.lcp.is_opened() => {
                self.handle_authentication(now, protocol, &packet);
            }
            (Protocol::IPCP, Ok(packet)) if self.state == State::Network => self.ipcp.handle(now, &packet),
            (Protocol::LCP | Protocol::PAP | Protocol::CHAP | Protocol::IPCP, _) => {}
            // A Protocol-Reject may only be sent while LCP is open (section 5.7).
            (_, _) if self.lcp.is_opened() && self.state == State::Network => {
                self.reject_protocol(protocol, information)
            }
            (_, _) => {}
        }
    }

    fn reject_protocol(&mut self, protocol: Protocol, information: &[u8]) {
        let rejected = information.get(..MAX_ECHOED).unwrap_or(information);
        let data = [&protocol.0.to_be_bytes()[..], rejected].concat();
        let id = self.lcp.next_id();
        self.lcp.send(Packet { code: Code::PROTOCOL_REJECT.0, id, data: &data }.frame(Protocol::LCP));
    }

    fn handle_lcp(&mut self, now: Instant, packet: &Packet<'_>) {
        match Code(packet.code) {
            Code::PROTOCOL_REJECT => self.handle_protocol_reject(now, packet.data),
            Code::ECHO_REQUEST => self.handle_echo_request(packet),
            Code::ECHO_REPLY => self.handle_echo_reply(now, packet),
            // They ask for nothing (RFC 1661 section 5.9, RFC 1570 section 2).
            Code::DISCARD_REQUEST | Code::IDENTIFICATION | Code::TIME_REMAINING => {}
            _ => self.lcp.handle(now, packet),
        }
    }

    fn handle_protocol_reject(&mut self, now: Instant, data: &[u8]) {
        let Some(&[high, low]) = data.first_chunk::<2>() else { return };
        match Protocol(u16::from_be_bytes([high, low])) {
            Protocol::LCP => self.lcp.handle_reject(now, false),
            Protocol::IPCP => self.ipcp.handle_reject(now, false),
            Protocol::PAP | Protocol::CHAP if self.state == State::Authenticate => {
                let problem = "the gateway asked for an authentication protocol and rejects it";
                self.fail(Error::NegotiationFailed { phase: Phase::Authentication, problem });
            }
            _ => self.lcp.handle_reject(now, true),
        }
    }

    fn handle_echo_request(&mut self, packet: &Packet<'_>) {
        let Some((magic, rest)) = packet.data.split_first_chunk::<4>() else { return };
        let ours = self.lcp.options.magic();
        // Our own number coming back means a loop (section 5.8).
        if !self.lcp.is_opened() || (ours != 0 && u32::from_be_bytes(*magic) == ours) {
            return;
        }
        let data = [&ours.to_be_bytes()[..], rest.get(..MAX_ECHOED).unwrap_or(rest)].concat();
        self.lcp.send(Packet { code: Code::ECHO_REPLY.0, id: packet.id, data: &data }.frame(Protocol::LCP));
    }

    fn handle_echo_reply(&mut self, now: Instant, packet: &Packet<'_>) {
        if let Some((id, sent)) = self.echo.pending
            && id == packet.id
        {
            (self.echo.pending, self.echo.lost) = (None, 0);
            self.echo.next = Some(now + self.config.echo_interval);
            self.emit(Event::EchoReply { round_trip: now.saturating_duration_since(sent) });
        }
    }

    fn handle_authentication(&mut self, now: Instant, protocol: Protocol, packet: &Packet<'_>) {
        let method = self.lcp.options.authentication();
        let refused = |method, code, message| Error::AuthenticationFailed { method, code, message };
        match (&mut self.authentication, protocol, method) {
            (Authentication::Pap { id }, Protocol::PAP, Some(method)) => match pap::decision(packet, *id) {
                Some(Ok(())) => self.authenticated(now, method),
                Some(Err(message)) => self.fail(refused(method, None, message)),
                None => {}
            },
            (Authentication::Chap(chap), Protocol::CHAP, Some(method)) => match chap.handle(packet) {
                Outcome::Ignored => {}
                Outcome::Response(frame) => {
                    self.lcp.send(frame);
                    if self.state == State::Authenticate {
                        self.retry = Some((now + RESTART, MAX_AUTHENTICATE));
                    }
                }
                Outcome::Accepted => self.authenticated(now, method),
                Outcome::NotVerified => self.fail(Error::AuthenticatorNotVerified),
                Outcome::Refused { code, message } => self.fail(refused(method, code, message)),
            },
            // Not what was agreed on.
            (Authentication::None | Authentication::Pap { .. } | Authentication::Chap(_), _, _) => {}
        }
    }

    fn authenticated(&mut self, now: Instant, method: PppAuth) {
        if self.state == State::Authenticate {
            self.emit(Event::Authenticated { method });
            self.enter_network(now);
        }
    }

    fn enter_network(&mut self, now: Instant) {
        self.retry = None;
        self.state = State::Network;
        self.echo.next = Some(now + self.config.echo_interval);
        self.ipcp.open(now);
    }

    /// Carries what the control protocols signal to their neighbours.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(signal) = self.lcp.poll_signal() {
                self.handle_lcp_signal(now, signal);
            } else if let Some(signal) = self.ipcp.poll_signal() {
                self.handle_ipcp_signal(signal);
            } else {
                return;
            }
        }
    }

    fn handle_lcp_signal(&mut self, now: Instant, signal: Signal) {
        match signal {
            Signal::Up => {
                self.emit(Event::LcpOpened);
                self.authenticate(now);
            }
            Signal::Down if self.state == State::Terminated => {}
            Signal::Down => {
                self.state = State::Establish;
                self.authentication = Authentication::None;
                (self.retry, self.echo.next, self.echo.pending) = (None, None, None);
                self.ipcp.lower_down(now);
            }
            other => self.end(Phase::Establishment, other),
        }
    }

    fn authenticate(&mut self, now: Instant) {
        self.state = State::Authenticate;
        let algorithm = match self.lcp.options.authentication() {
            None => return self.enter_network(now),
            Some(PppAuth::Pap) => {
                let id = self.lcp.next_id();
                self.authentication = Authentication::Pap { id };
                self.lcp.send(pap::request(id, &self.config.username, &self.config.password));
                self.retry = Some((now + RESTART, MAX_AUTHENTICATE));
                return;
            }
            Some(PppAuth::Chap) => Algorithm::Md5,
            Some(PppAuth::MsChapV2) => Algorithm::MsChapV2,
        };
        let (username, password) = (self.config.username.clone(), self.config.password.clone());
        self.authentication =
            Authentication::Chap(Box::new(Chap::new(algorithm, username, password, split(&mut self.rng))));
        self.retry = Some((now + CHALLENGE_WAIT, 0));
    }

    fn handle_ipcp_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Up => {
                let ipcp = &self.ipcp.options;
                match ipcp.address() {
                    Some(address) => self.emit(Event::IpcpOpened { address, peer: ipcp.peer(), dns: ipcp.dns() }),
                    None => {
                        let problem = "the gateway gives no address";
                        self.fail(Error::NegotiationFailed { phase: Phase::Network, problem });
                    }
                }
            }
            // It is negotiated anew; nothing is sent until it is open again.
            Signal::Down => {}
            other => self.end(Phase::Network, other),
        }
    }

    fn end(&mut self, phase: Phase, signal: Signal) {
        // A peer that ends LCP tells by it that what was under way failed.
        let phase = if self.state == State::Authenticate { Phase::Authentication } else { phase };
        let failed = |problem| Error::NegotiationFailed { phase, problem };
        // However it ends: that there is no agreement on authentication is the cause.
        if phase == Phase::Establishment
            && self.state == State::Establish
            && let Some(wanted) = self.lcp.options.refused_authentication().map(str::to_owned)
        {
            return self.fail(Error::NoAcceptableAuthentication { wanted });
        }
        match signal {
            Signal::Up | Signal::Down => {}
            Signal::Terminated(message) if self.state == State::Network => {
                self.state = State::Terminated;
                self.emit(Event::Down { text: message });
            }
            Signal::Unanswered => self.fail(Error::NoResponse { phase }),
            Signal::Rejected => self.fail(failed("the gateway rejects the protocol")),
            Signal::NotConverging => self.fail(failed("the gateway never agrees")),
            Signal::Terminated(message) => self.fail(Error::PeerTerminated { phase, message }),
        }
    }

    /// When [`Ppp::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.retry.map(|(at, _)| at);
        [self.lcp.poll_timeout(), self.ipcp.poll_timeout(), retry, self.echo.next]
            .into_iter()
            .flatten()
            .filter(|_| self.state != State::Terminated)
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Terminated {
            return;
        }
        self.lcp.handle_timeout(now);
        self.ipcp.handle_timeout(now);
        if let Some((at, left)) = self.retry
            && at <= now
        {
            self.retry_authentication(now, left);
        }
        if self.echo.next.is_some_and(|at| at <= now) {
            self.echo(now);
        }
        self.settle(now);
    }

    fn retry_authentication(&mut self, now: Instant, left: u32) {
        let frame = match &self.authentication {
            Authentication::Pap { id } => Some(pap::request(*id, &self.config.username, &self.config.password)),
            Authentication::Chap(chap) => chap.response().map(<[u8]>::to_vec),
            Authentication::None => None,
        };
        match (frame, left.checked_sub(1)) {
            (Some(frame), Some(left)) => {
                self.lcp.send(frame);
                self.retry = Some((now + RESTART, left));
            }
            (_, _) => self.fail(Error::NoResponse { phase: Phase::Authentication }),
        }
    }

    /// Sends an Echo-Request now, unless one waits for its answer; one that waited too long is lost.
    pub fn echo(&mut self, now: Instant) {
        if !self.lcp.is_opened() {
            return;
        }
        if let Some((_, sent)) = self.echo.pending {
            if now < sent + ECHO_WAIT {
                self.echo.next = Some(sent + ECHO_WAIT);
                return;
            }
            self.echo.lost = self.echo.lost.saturating_add(1);
            self.emit(Event::EchoLost { count: self.echo.lost });
        }
        self.echo.id = self.echo.id.wrapping_add(1);
        self.echo.pending = Some((self.echo.id, now));
        self.echo.next = Some(now + self.config.echo_interval.min(ECHO_WAIT));
        let data = self.lcp.options.magic().to_be_bytes();
        self.lcp.send(Packet { code: Code::ECHO_REQUEST.0, id: self.echo.id, data: &data }.frame(Protocol::LCP));
    }

    /// A packet of the peer came over the link: it needs no echo for a while.
    pub fn handle_activity(&mut self, now: Instant) {
        self.echo.lost = 0;
        if self.echo.next.is_some() && self.echo.pending.is_none() {
            self.echo.next = Some(now + self.config.echo_interval);
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.lcp.poll_transmit().or_else(|| self.ipcp.poll_transmit())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends what stands in front of an IP packet, [`IP_HEADER`] octets.
    ///
    /// # Errors
    /// While IPCP is not open.
    pub fn write_ip_header(&self, out: &mut Vec<u8>) -> Result<(), NotOpened> {
        if !self.carries_packets() {
            return Err(NotOpened);
        }
        packet::write_header(out, Protocol::IP);
        Ok(())
    }

    /// The largest IP packet that the peer takes, in octets.
    pub fn mtu(&self) -> u16 {
        self.lcp.options.peer_mru()
    }

    /// Announces another MRU, in octets; before [`Ppp::open`].
    pub fn set_mru(&mut self, mru: u16) {
        self.lcp.options.set_mru(mru);
    }

    /// The number of lost echoes that is too many.
    pub fn echo_failures(&self) -> u32 {
        self.config.echo_failures
    }

    fn carries_packets(&self) -> bool {
        self.state == State::Network && self.ipcp.is_opened()
    }

    fn fail(&mut self, error: Error) {
        if self.state != State::Terminated {
            self.state = State::Terminated;
            self.emit(Event::Failed(error));
        }
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

fn split(rng: &mut StdRng) -> StdRng {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    StdRng::from_seed(seed)
}

#[cfg(test)]
mod tests;
