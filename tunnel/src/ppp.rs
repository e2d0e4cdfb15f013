//! PPP (RFC 1661), in the role of the client that dials in and in that of the server that is dialled: LCP, then PAP, CHAP or EAP,
//! then IPCP and IPV6CP.
//!
//! ```text
//!   frame ── packet       protocols, control packets, options        RFC 1661 sections 2, 5, 6
//!            └ negotiation  one control protocol                     section 4.6
//!                ├ automaton  states and events                      section 4.1
//!                ├ lcp        the link                               RFC 1661 section 6, 1570, 1662, 1990
//!                ├ ipcp       addresses and name servers             RFC 1332, 1877
//!                └ ipv6cp     interface identifiers                  RFC 5072
//!            ├ authentication  of the client, by both ends           section 3.5
//!            │   ├ pap              the password itself              RFC 1334
//!            │   ├ chap, challenge  proof of who the client is       RFC 1994
//!            │   ├ mschapv2         and of who the server is         RFC 2759
//!            │   └ eap              whatever else                    RFC 3748, 5216
//!            └ echo         whether it lives                         section 5.8
//! ```
//!
//! Who may come in is not decided here: a server asks its owner by [`Event::Authenticate`].
//!
//! Compression and encryption of PPP (CCP, MPPE), Van Jacobson headers, multilink, link quality and callback are refused, by
//! Configure-Reject or Protocol-Reject: IPsec encrypts, and the rest has no use inside of a tunnel.

pub mod automaton;
pub mod error;
pub mod mschapv2;
pub mod packet;

mod authentication;
mod challenge;
mod chap;
mod config;
mod eap;
mod echo;
mod event;
mod ipcp;
mod ipv6cp;
mod lcp;
mod negotiation;
mod pap;
mod receiving;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use config::{Assignment, Client, Config, Role, Server};
pub use eap::{Credentials, Eap, Method, TlsClient, TlsServer, Unusable};
pub use error::{Error, Phase};
pub use event::Event;
pub use negotiation::Counters;

use crate::aaa;
use authentication::{Authentication, Authenticator, Outcome, Peer};
use echo::Echo;
use ipcp::Ipcp;
use ipv6cp::Ipv6cp;
use lcp::Lcp;
use negotiation::{ControlProtocol, Negotiate as _, Signal};
use packet::{Code, DEFAULT_MRU, HEADER, Packet, Protocol};

/// The octets in front of an IP packet.
pub const IP_HEADER: usize = HEADER;
/// How long a link may take from the beginning, or from the moment that it is negotiated anew, until IPCP is open. Some peers
/// answer for ever and never agree; one that agrees needs a few seconds, or half a minute behind a slow RADIUS server.
const ESTABLISHMENT_LIMIT: Duration = Duration::from_secs(60);
/// Events that wait for the owner, who takes them after each call; no call causes more than a few.
const MAX_EVENTS: usize = 16;

/// The packet cannot be sent: the network control protocol of its version is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network control protocol is not open")]
pub struct NotOpened;

//= rfc1661 3.2 "The following semantics MUST be followed."
//= test: every_frame_in_every_phase_of_the_client_does_what_is_written_down, every_frame_in_every_phase_of_the_server_does_what_is_written_down
/// The phases (RFC 1661 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Dead,
    Establish,
    Authenticate,
    Network,
    /// We ask the peer to end the link.
    Terminate,
    /// Failed, or ended.
    Terminated,
}

/// One PPP link.
pub struct Ppp {
    config: Config,
    rng: StdRng,
    state: State,
    lcp: ControlProtocol<Lcp>,
    ipcp: ControlProtocol<Ipcp>,
    ipv6cp: Option<Box<ControlProtocol<Ipv6cp>>>,
    /// Whether IPV6CP is open and both ends have an identifier.
    ipv6_up: bool,
    authentication: Option<Authentication>,
    /// Whether the owner owes an answer to [`Event::Authenticate`], be it one that has no use any more.
    asked: bool,
    echo: Echo,
    /// When a link that is not up yet is given up.
    limit: Option<Instant>,
    events: VecDeque<Event>,
}

impl Ppp {
    /// A link that is dead until [`Ppp::open`].
    pub fn new(config: Config, mut rng: StdRng) -> Self {
        let lcp = Lcp::new(&config.role, config.mru, split(&mut rng));
        let ipv6cp = || Box::new(ControlProtocol::new(Ipv6cp::new(split(&mut rng)), config.counters));
        Self {
            ipv6cp: config.role.ipv6().then(ipv6cp),
            ipv6_up: false,
            rng,
            state: State::Dead,
            lcp: ControlProtocol::new(lcp, config.counters),
            ipcp: ControlProtocol::new(Ipcp::new(), config.counters),
            authentication: None,
            asked: false,
            echo: Echo::new(config.echo_interval),
            limit: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// The session below is up: LCP begins.
    pub fn open(&mut self, now: Instant) {
        if self.state == State::Dead {
            self.state = State::Establish;
            //= rfc1661 3.1 "In order to establish communications over a point-to-point link, each end of the PPP link MUST first send LCP packets to configure and test the data link."
            //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, nothing_passes_before_the_authentication
            //= rfc1332 1 "In order to establish communications over a point-to-point link, each end of the PPP link must first send LCP packets to configure and test the data link."
            //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, nothing_passes_before_the_authentication
            self.lcp.open(now);
            self.settle(now);
        }
    }

    /// Ends the link by an exchange of Terminate packets (RFC 1661 section 3.7); [`Event::Closed`] follows. An owner that does not
    /// want to wait for the Terminate-Ack may go at once.
    pub fn close(&mut self, now: Instant) {
        if self.state != State::Terminate {
            self.state = State::Terminate;
            self.echo.stop();
            self.authentication = None;
            self.lcp.close(now);
            self.settle(now);
        }
    }

    /// The user of the last [`Event::Authenticate`] may come in, and is assigned these addresses. Returns whether that counts: it
    /// does not for a link that has ended or has been negotiated anew since.
    pub fn accept(&mut self, now: Instant, grant: &aaa::Grant, assignment: Assignment) -> bool {
        let Some(authenticator) = self.authenticator_that_asked() else { return false };
        let outcome = authenticator.accept(now, grant);
        let counts = !matches!(outcome, Outcome::Ignored);
        if counts {
            self.ipcp.options.assign(assignment);
        }
        self.take(now, outcome);
        self.settle(now);
        counts
    }

    /// The user of the last [`Event::Authenticate`] may not come in. The peer hears so after a while that makes guesses slow;
    /// [`Event::Failed`] follows, and the owner closes the link.
    pub fn reject(&mut self, now: Instant, refusal: &aaa::Refusal) {
        let mut rng = split(&mut self.rng);
        if let Some(authenticator) = self.authenticator_that_asked() {
            authenticator.reject(now, refusal, &mut rng);
        }
    }

    /// The RADIUS server has another question, an EAP Request, for the user of the last [`Event::Authenticate`].
    pub fn challenge(&mut self, now: Instant, packet: &[u8]) {
        let mut rng = split(&mut self.rng);
        if let Some(authenticator) = self.authenticator_that_asked() {
            let outcome = authenticator.challenge(now, packet, &mut rng);
            self.take(now, outcome);
            self.settle(now);
        }
    }

    /// The owner answers [`Event::Authenticate`]: whoever still waits for it.
    fn authenticator_that_asked(&mut self) -> Option<&mut Authenticator> {
        self.asked = false;
        let authentication = self.authentication.as_mut().filter(|_| self.state == State::Authenticate)?;
        authentication.authenticator()
    }

    /// Takes a frame; returns the IP packet in it, if the link is open for one.
    pub fn handle_frame<'a>(&mut self, now: Instant, frame: &'a [u8]) -> Option<&'a [u8]> {
        let Ok((protocol, information)) = packet::split(frame) else { return None };
        //= rfc1661 3.6 "Any supported network-layer protocol packets received when the corresponding NCP is not in the Opened state MUST be silently discarded."
        //= test: a_client_with_pap_is_let_in_and_gets_its_address, nothing_passes_before_the_authentication
        //= rfc1332 2.1 "Before any IP packets may be communicated, PPP must reach the Network-Layer Protocol phase, and the IP Control Protocol must reach the Opened state."
        //= test: a_link_with_ms_chap_v2_comes_up_and_carries_packets, nothing_passes_before_the_authentication
        //= rfc5072 2 "the IPv6 Control Protocol MUST reach the Opened state."
        //= test: ipv6_packets_pass_once_both_identifiers_are_known, a_peer_without_ipv6_keeps_its_link_however_it_says_so
        if matches!(protocol, Protocol::IP | Protocol::IPV6) {
            return (self.carries(information) == Some(protocol)).then_some(information);
        }
        if matches!(self.state, State::Dead | State::Terminated) {
            return None;
        }
        self.handle_control(now, protocol, information);
        self.settle(now);
        None
    }

    fn take(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Ignored => {}
            Outcome::Send(frame) => self.lcp.send(frame),
            Outcome::Ask(request) => {
                self.asked = true;
                self.emit(Event::Authenticate(request));
            }
            Outcome::Accepted(frame) => {
                frame.into_iter().for_each(|frame| self.lcp.send(frame));
                if let Some(authentication) = self.authentication.as_ref().filter(|_| self.state == State::Authenticate)
                {
                    let method = authentication.method();
                    self.emit(Event::Authenticated { method });
                    self.enter_network(now);
                }
            }
            Outcome::Failed(error) => self.fail(error),
        }
    }

    //= rfc1661 3.5 "the Network-Layer Protocol phase MUST NOT occur until authentication has completed."
    //= test: a_client_with_pap_is_let_in_and_gets_its_address, nothing_passes_before_the_authentication
    //= rfc1661 3.1 "Then, PPP MUST send NCP packets to choose and configure one or more network-layer protocols."
    //= test: a_client_with_pap_is_let_in_and_gets_its_address, nothing_passes_before_the_authentication
    //= rfc1332 1 "After the link has been established and optional facilities have been negotiated as needed by the LCP, PPP must send NCP packets to choose and configure one or more network-layer protocols."
    //= test: a_client_with_pap_is_let_in_and_gets_its_address, nothing_passes_before_the_authentication
    //= rfc1661 3.6 "Once PPP has finished the previous phases, each network-layer protocol (such as IP, IPX, or AppleTalk) MUST be separately configured by the appropriate Network Control Protocol (NCP)."
    //= test: ipv6_packets_pass_once_both_identifiers_are_known, a_peer_without_ipv6_keeps_its_link_however_it_says_so
    fn enter_network(&mut self, now: Instant) {
        self.state = State::Network;
        self.echo.start(now);
        self.ipcp.open(now);
        self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.open(now));
    }

    /// Carries what the control protocols signal to their neighbours.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(signal) = self.lcp.poll_signal() {
                self.handle_lcp_signal(now, signal);
            } else if let Some(signal) = self.ipcp.poll_signal() {
                self.handle_ipcp_signal(signal);
            } else if let Some(signal) = self.ipv6cp.as_mut().and_then(|ipv6cp| ipv6cp.poll_signal()) {
                self.handle_ipv6cp_signal(now, signal);
            } else {
                break;
            }
        }
        match self.state {
            State::Establish | State::Authenticate | State::Network if !self.carries_packets() => {
                self.limit.get_or_insert(now + ESTABLISHMENT_LIMIT);
            }
            State::Terminate if !self.lcp.is_terminating() => {
                self.state = State::Terminated;
                self.emit(Event::Closed);
            }
            _ => self.limit = None,
        }
    }

    fn handle_lcp_signal(&mut self, now: Instant, signal: Signal) {
        match signal {
            // Whatever happens to a link that is being ended, it is ended.
            _ if matches!(self.state, State::Terminate | State::Terminated) => {}
            Signal::Up => {
                let mru = self.lcp.options.peer_mru();
                self.lcp.set_peer_mru(mru);
                self.ipcp.set_peer_mru(mru);
                self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.set_peer_mru(mru));
                self.emit(Event::LcpOpened);
                self.authenticate(now);
            }
            Signal::Down => {
                // A peer that negotiates anew does not thereby get another guess at once.
                if let Some(error) = self.refusal() {
                    return self.fail(error);
                }
                self.state = State::Establish;
                self.authentication = None;
                self.echo.stop();
                self.lcp.set_peer_mru(DEFAULT_MRU);
                self.ipcp.lower_down(now);
                self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.lower_down(now));
            }
            other => self.end(Phase::Establishment, other),
        }
    }

    fn authenticate(&mut self, now: Instant) {
        self.state = State::Authenticate;
        let (authentication, frame) = match (&self.config.role, self.lcp.options.authentication()) {
            (Role::Client(client), None) if client.auth.iter().copied().all(authentication::is_mutual) => {
                return self.fail(Error::AuthenticationSkipped);
            }
            (Role::Client(_), None) => return self.enter_network(now),
            // LCP of a server does not open without an agreement.
            (Role::Server(_), None) => return self.fail(Error::NoCommonAuthentication),
            (Role::Client(client), Some(method)) => {
                let (peer, frame) = Peer::new(now, method, client, &self.config, &mut self.rng);
                (Authentication::Peer(peer), frame)
            }
            (Role::Server(server), Some(method)) => {
                let (authenticator, frame) = Authenticator::new(now, method, server, &self.config, &mut self.rng);
                (Authentication::Authenticator(Box::new(authenticator)), frame)
            }
        };
        self.authentication = Some(authentication);
        frame.into_iter().for_each(|frame| self.lcp.send(frame));
    }

    /// Why the peer of a server was refused, if it was.
    fn refusal(&mut self) -> Option<Error> {
        self.authentication.as_mut()?.authenticator()?.refused().cloned()
    }

    fn handle_ipcp_signal(&mut self, signal: Signal) {
        match signal {
            _ if matches!(self.state, State::Terminate | State::Terminated) => {}
            Signal::Up => {
                let ipcp = &self.ipcp.options;
                match ipcp.address() {
                    Some(address) => self.emit(Event::IpcpOpened { address, peer: ipcp.peer(), dns: ipcp.dns() }),
                    None => {
                        let problem = "the peer gives no address".to_owned();
                        self.fail(Error::NegotiationFailed { phase: Phase::Network, problem });
                    }
                }
            }
            Signal::Down => self.emit(Event::IpcpDown),
            other => self.end(Phase::Network, other),
        }
    }

    fn handle_ipv6cp_signal(&mut self, now: Instant, signal: Signal) {
        let Some(ipv6cp) = &mut self.ipv6cp else { return };
        match signal {
            _ if matches!(self.state, State::Terminate | State::Terminated) => {}
            Signal::Up => match ipv6cp.options.identifiers() {
                Some((local_id, peer_id)) => {
                    self.ipv6_up = true;
                    self.emit(Event::Ipv6cpOpened { local_id, peer_id });
                }
                None => ipv6cp.close(now),
            },
            Signal::Down => {
                if std::mem::take(&mut self.ipv6_up) {
                    self.emit(Event::Ipv6cpDown);
                }
            }
            // The link lives on without IPv6.
            Signal::NotConverging => ipv6cp.close(now),
            Signal::Unanswered | Signal::Rejected | Signal::Terminated(_) => {}
        }
    }

    fn end(&mut self, phase: Phase, signal: Signal) {
        // A peer that ends LCP tells by it that what was under way failed.
        let phase = if self.state == State::Authenticate { Phase::Authentication } else { phase };
        let failed = |problem: &str| Error::NegotiationFailed { phase, problem: problem.to_owned() };
        // However it ends: that there is no agreement on authentication is the cause.
        if phase == Phase::Establishment
            && self.state == State::Establish
            && let Some(wanted) = self.lcp.options.refused_authentication().map(str::to_owned)
        {
            return self.fail(Error::NoAcceptableAuthentication { wanted });
        }
        if phase == Phase::Establishment && self.lcp.options.is_hopeless() {
            return self.fail(Error::NoCommonAuthentication);
        }
        if let Some(error) = self.refusal() {
            return self.fail(error);
        }
        match signal {
            Signal::Up | Signal::Down => {}
            //= out: rfc1661 3.7 "The receiver of a Terminate-Request SHOULD wait for the peer to disconnect, and MUST NOT disconnect until at least one Restart time has passed after sending a Terminate-Ack." the owner goes at once behind the Terminate-Ack, by a CDN that the peer acknowledges: a lost Ack cuts nobody off, and the time would hold up the address of the user or the next dial
            Signal::Terminated(message) if self.state == State::Network => {
                self.state = State::Terminated;
                self.emit(Event::Down { text: message });
            }
            Signal::Unanswered => self.fail(Error::NoResponse { phase }),
            Signal::Rejected => self.fail(failed("the peer rejects the protocol")),
            Signal::NotConverging => self.fail(failed("the peer never agrees")),
            Signal::Terminated(message) => self.fail(Error::PeerTerminated { phase, message }),
        }
    }

    /// The link took too long.
    fn give_up(&mut self) {
        let (phase, insists_on) = match self.state {
            State::Authenticate => (Phase::Authentication, None),
            State::Network => (Phase::Network, self.ipcp.insists_on()),
            _ => (Phase::Establishment, self.lcp.insists_on()),
        };
        let refused = self.lcp.options.refused_authentication().filter(|_| phase == Phase::Establishment);
        if let Some(wanted) = refused.map(str::to_owned) {
            return self.fail(Error::NoAcceptableAuthentication { wanted });
        }
        let seconds = ESTABLISHMENT_LIMIT.as_secs();
        let problem = match insists_on {
            Some(options) => format!("after {seconds} s the peer still insists on {options}"),
            None => format!("the peer comes to no end within {seconds} s"),
        };
        self.fail(Error::NegotiationFailed { phase, problem });
    }

    /// When [`Ppp::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry = self.authentication.as_ref().and_then(Authentication::poll_timeout);
        let ipv6cp = self.ipv6cp.as_ref().and_then(|ipv6cp| ipv6cp.poll_timeout());
        [self.lcp.poll_timeout(), self.ipcp.poll_timeout(), ipv6cp, retry, self.echo.poll_timeout(), self.limit]
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
        self.ipv6cp.iter_mut().for_each(|ipv6cp| ipv6cp.handle_timeout(now));
        if let Some(authentication) = &mut self.authentication {
            let outcome = authentication.handle_timeout(now);
            self.take(now, outcome);
        }
        if self.echo.poll_timeout().is_some_and(|at| at <= now) {
            self.echo(now);
        }
        self.settle(now);
        if self.limit.is_some_and(|at| at <= now) {
            self.give_up();
        }
    }

    /// Sends an Echo-Request now, unless one waits for its answer; one that waited too long is lost.
    pub fn echo(&mut self, now: Instant) {
        if !self.lcp.is_opened() {
            return;
        }
        if self.lcp.is_rejected(Code::ECHO_REQUEST) {
            return self.echo.stop();
        }
        //= rfc1661 5.8 "packets MUST only be sent in the LCP Opened state."
        //= test: echoes_are_sent_when_nothing_comes_and_counted_when_they_are_lost, echoes_are_no_matter_before_the_link_is_open
        let Some(request) = self.echo.request(now) else { return };
        if let Some(count) = request.lost {
            self.emit(Event::EchoLost { count });
        }
        //= rfc1661 6.4 "an implementation MUST transmit these packets with the Magic-Number field set to its negotiated Magic-Number."
        //= test: echoes_are_sent_when_nothing_comes_and_counted_when_they_are_lost, our_request_follows_naks_and_rejects
        let data = self.lcp.options.magic().to_be_bytes();
        self.lcp.send_extended(&Packet { code: Code::ECHO_REQUEST.0, id: request.id, data: &data });
    }

    /// A packet of the peer came over the link: it needs no echo for a while.
    pub fn handle_activity(&mut self, now: Instant) {
        self.echo.handle_activity(now);
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.lcp
            .poll_transmit()
            .or_else(|| self.ipcp.poll_transmit())
            .or_else(|| self.ipv6cp.as_mut().and_then(|ipv6cp| ipv6cp.poll_transmit()))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends what stands in front of `packet`, [`IP_HEADER`] octets.
    ///
    /// # Errors
    /// While the network control protocol of the packet's version is not open.
    pub fn write_header(&self, out: &mut Vec<u8>, packet: &[u8]) -> Result<(), NotOpened> {
        let protocol = self.carries(packet).ok_or(NotOpened)?;
        packet::write_header(out, protocol);
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

    /// The protocol of `packet`, an IP packet, if the link carries it.
    fn carries(&self, packet: &[u8]) -> Option<Protocol> {
        let ipv6 = || self.state == State::Network && self.ipv6_up;
        match packet.first().map(|octet| octet >> 4) {
            Some(4) => self.carries_packets().then_some(Protocol::IP),
            Some(6) => ipv6().then_some(Protocol::IPV6),
            _ => None,
        }
    }

    /// Whether IPv4 packets may be sent: the link is up.
    fn carries_packets(&self) -> bool {
        self.state == State::Network && self.ipcp.is_opened()
    }

    fn fail(&mut self, error: Error) {
        if !matches!(self.state, State::Terminate | State::Terminated) {
            self.state = State::Terminated;
            self.limit = None;
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
