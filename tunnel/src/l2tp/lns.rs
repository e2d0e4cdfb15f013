//! The LNS: every control connection of one IPsec peer, and the calls that they carry (RFC 2661 sections 5 to 7).

mod tunnel;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use self::tunnel::Tunnel;
use super::config::{NotEstablished, Peer};
use super::ending::{CloseReason, Ending, MAX_REFUSALS, refuse_tunnel};
use super::error::Error;
use super::introduction::Introduction;
use super::message::{ControlHeader, DATA_HEADER, Message, MessageError, MessageType, Packet, SessionId, TunnelId};
use super::outcome::{ErrorCode, Outcome, StopCcnResult};

/// The bound of [`LnsConfig::max_tunnels`]: each of them is looked at for each message.
const MAX_TUNNELS: usize = 64;

/// The bound of [`LnsConfig::max_calls`]: half of the Session IDs that there are, so that a random one is likely to be free.
const MAX_CALLS: usize = 0x8000;

/// What an LNS is told.
#[derive(Clone)]
pub struct LnsConfig {
    /// The secret of tunnel authentication and of hidden AVPs. With one, every peer has to prove that it has it too; values
    /// are hidden from a peer that hides its own.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// The name that the peers know it by.
    pub host_name: String,
    /// How long nothing must have come from the peer before a Hello is sent; zero for never.
    pub hello: Duration,
    /// The most control connections at a time; the oldest without a call makes room for a new one.
    pub max_tunnels: usize,
    /// The most calls at a time, of all control connections.
    pub max_calls: usize,
}

/// One call, by the names that this end has given to its tunnel and its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// The session, which has its name within the tunnel.
    pub session: SessionId,
}

/// What the LNS has to tell. The owner takes all there is after each input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LnsEvent {
    /// A control connection is established.
    TunnelOpened {
        /// The control connection.
        tunnel: TunnelId,
        /// What the other end says about itself.
        peer: Peer,
    },
    /// A call is established: data goes both ways.
    CallOpened {
        /// The call.
        call: Call,
        /// The Call Serial Number, which the log of the other end knows the call by.
        serial_number: u32,
        /// The Bearer Type, if the other end says one.
        bearer_type: Option<u32>,
        /// The Calling Number, if there is one: printable and bounded.
        calling_number: Option<String>,
        /// The Called Number, if there is one: printable and bounded.
        called_number: Option<String>,
    },
    /// A call that was established is over.
    CallClosed {
        /// The call.
        call: Call,
        /// Why, unless this end has closed it.
        error: Option<Error>,
    },
    /// The peer does not acknowledge a Hello, and something else of it was heard since: it sleeps (Android), or never does
    /// (OS X), or has forgotten this control connection. It stays until its owner closes it or the peer is silent.
    HelloLost {
        /// The control connection.
        tunnel: TunnelId,
    },
    /// A control connection is over, after all of its calls; one that was never established too.
    TunnelClosed {
        /// The control connection.
        tunnel: TunnelId,
        /// Why, unless this end has closed it.
        error: Option<Error>,
    },
}

/// What all control connections share.
struct Shared {
    config: Arc<LnsConfig>,
    rng: StdRng,
    /// When the peer was last heard, on any control connection or by the owner.
    last_received: Option<Instant>,
    /// How many calls there are, of all control connections.
    calls: usize,
    events: VecDeque<LnsEvent>,
}

impl Shared {
    fn secret(&self) -> Option<&[u8]> {
        self.config.secret.as_ref().map(|secret| secret.as_slice())
    }
}

/// The LNS end of all control connections of one peer.
pub struct Lns {
    shared: Shared,
    /// The oldest first.
    tunnels: Vec<Tunnel>,
    refusals: VecDeque<Vec<u8>>,
    /// Why no more control connections are accepted.
    closed: Option<CloseReason>,
}

impl Lns {
    /// An LNS that nobody has called yet.
    pub fn new(config: impl Into<Arc<LnsConfig>>, rng: StdRng) -> Self {
        let shared = Shared { config: config.into(), rng, last_received: None, calls: 0, events: VecDeque::new() };
        Self { shared, tunnels: Vec::new(), refusals: VecDeque::new(), closed: None }
    }

    /// Takes a UDP payload. Control messages are used up; of a data message of an established call the PPP frame is returned.
    pub fn handle_message<'a>(&mut self, now: Instant, message: &'a [u8]) -> Option<(Call, &'a [u8])> {
        match Packet::read(message) {
            Ok(Packet::Data(header, frame)) => {
                let tunnel = self.tunnels.iter_mut().find(|tunnel| tunnel.id() == header.tunnel_id)?;
                let fresh = tunnel.accept_data(header.session_id, header.ns)?;
                self.shared.last_received = Some(now);
                let call = Call { tunnel: header.tunnel_id, session: header.session_id };
                fresh.then_some((call, frame))
            }
            Ok(Packet::Control(header, body)) => {
                self.handle_control(now, &header, body);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "L2TP message discarded");
                None
            }
        }
    }

    /// Takes notice that the peer is alive: a Hello is not due.
    pub fn handle_activity(&mut self, now: Instant) {
        self.shared.last_received = Some(now);
    }

    /// Sends a Hello on every control connection that does not wait for an acknowledgment already.
    pub fn probe(&mut self, now: Instant) {
        for tunnel in &mut self.tunnels {
            tunnel.probe(now);
        }
    }

    /// Does what time demands.
    pub fn handle_timeout(&mut self, now: Instant) {
        for tunnel in &mut self.tunnels {
            tunnel.handle_timeout(now, &mut self.shared);
        }
        self.tunnels.retain(|tunnel| !tunnel.is_gone());
    }

    /// When [`Lns::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tunnels.iter().filter_map(Tunnel::poll_timeout).min()
    }

    /// The next control message to be sent, as a UDP payload.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let next = self.tunnels.iter_mut().find_map(Tunnel::poll_transmit);
        next.or_else(|| self.refusals.pop_front())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LnsEvent> {
        let next = self.shared.events.pop_front();
        if next.is_none() {
            self.shared.events.shrink_to_fit();
        }
        next
    }

    /// Appends the header of a data message of `call`; the caller appends the PPP frame, of `ppp_length` octets.
    pub fn write_data_header(
        &mut self,
        call: Call,
        out: &mut Vec<u8>,
        ppp_length: usize,
    ) -> Result<(), NotEstablished> {
        let tunnel = self.tunnels.iter_mut().find(|tunnel| tunnel.id() == call.tunnel).ok_or(NotEstablished)?;
        tunnel.write_data_header(call.session, out, ppp_length)
    }

    /// The length of the header that [`Lns::write_data_header`] writes.
    pub fn data_overhead(&self, call: Call) -> usize {
        let tunnel = self.tunnels.iter().find(|tunnel| tunnel.id() == call.tunnel);
        tunnel.map_or(DATA_HEADER, |tunnel| tunnel.data_overhead(call.session))
    }

    /// Ends one call. Its control connection stays for a while without a call.
    pub fn close_call(&mut self, now: Instant, call: Call, reason: CloseReason) {
        if let Some(tunnel) = self.tunnels.iter_mut().find(|tunnel| tunnel.id() == call.tunnel) {
            tunnel.close_call(now, &mut self.shared, call.session, reason);
        }
    }

    /// Ends every call and every control connection; others are refused from here on.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        for tunnel in &mut self.tunnels {
            tunnel.close(now, &mut self.shared, &reason);
        }
        self.closed = Some(reason);
    }

    /// Whether there is no control connection, and each that there was has told the peer its end as far as that can be known.
    /// An owner that keeps the LNS until [`Lns::poll_timeout`] is `None` answers the retransmissions of the peer for a full
    /// cycle, as section 5.7 asks.
    pub fn is_idle(&self) -> bool {
        self.tunnels.iter().all(Tunnel::is_over)
    }

    fn handle_control(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        if header.tunnel_id == TunnelId::default() {
            self.handle_outside_tunnel(now, header, body);
        } else if let Some(tunnel) = self.tunnels.iter_mut().find(|tunnel| tunnel.id() == header.tunnel_id) {
            tunnel.handle_control(now, &mut self.shared, header, body);
        } else {
            tracing::debug!(tunnel = header.tunnel_id.0, "control message of another tunnel discarded");
        }
    }

    /// A message of a peer that does not know our Tunnel ID: an SCCRQ, or the StopCCN of one that gives up before the SCCRP.
    fn handle_outside_tunnel(&mut self, now: Instant, header: &ControlHeader, body: &[u8]) {
        let message = match Message::read(body, self.shared.secret()) {
            Ok(message) => message,
            Err(error) => {
                if let MessageError::Avp { message: MessageType::SCCRQ, .. } = error
                    && let Ok(message) = Message::read_for_refusal(body, self.shared.secret())
                {
                    self.refuse(&message, &Ending::Failed(error.into()).stop_ccn());
                } else {
                    tracing::debug!(%error, "control message outside of a tunnel discarded");
                }
                return;
            }
        };
        let known = Introduction::tunnel_id(&message).ok();
        let known = known.and_then(|peer| self.tunnels.iter().position(|tunnel| tunnel.is_of(peer)));
        match (message.message_type, known) {
            // "The message sequence number, Ns, begins at 0": nothing could follow on any other.
            (MessageType::SCCRQ, Some(known)) if header.ns == 0 => {
                self.on_known_sccrq(now, known, header, body, &message)
            }
            (MessageType::SCCRQ, None) if header.ns == 0 => self.on_sccrq(now, header, body, &message),
            (MessageType::STOPCCN, Some(known)) => {
                if let Some(tunnel) = self.tunnels.get_mut(known) {
                    tunnel.handle_control(now, &mut self.shared, header, body);
                }
            }
            (message_type, _) => tracing::debug!(%message_type, "control message outside of a tunnel discarded"),
        }
    }

    /// An SCCRQ with the Assigned Tunnel ID of a tunnel that there is: the one that has made it once more, or that of a peer
    /// which has forgotten it.
    fn on_known_sccrq(&mut self, now: Instant, known: usize, header: &ControlHeader, body: &[u8], message: &Message) {
        if let Some(tunnel) = self.tunnels.get_mut(known).filter(|tunnel| tunnel.is_made_by(fingerprint(body))) {
            tunnel.handle_sccrq_again(now, &mut self.shared, header, body);
            return;
        }
        // A StopCCN for the old one would end the new one at the peer.
        self.tunnels.remove(known).forget(&mut self.shared);
        self.on_sccrq(now, header, body, message);
    }

    fn on_sccrq(&mut self, now: Instant, header: &ControlHeader, body: &[u8], message: &Message) {
        if let Some(reason) = &self.closed {
            self.refuse(message, &Ending::Local(reason.clone()).stop_ccn());
            return;
        }
        if !self.make_room(now) {
            let error = Some(ErrorCode::INSUFFICIENT_RESOURCES);
            self.refuse(message, &Outcome { result: StopCcnResult::GENERAL_ERROR.0, error, text: String::new() });
            return;
        }
        let id = self.unused_tunnel_id();
        match Tunnel::accept(&mut self.shared, id, fingerprint(body), message) {
            Ok(mut tunnel) => {
                tunnel.start(now, &mut self.shared, header, body, message);
                // Most peers have one, and there are many peers.
                self.tunnels.reserve_exact(1);
                self.tunnels.push(tunnel);
            }
            Err(error) => {
                tracing::info!(%error, "control connection refused");
                self.refuse(message, &Ending::Failed(error).stop_ccn());
            }
        }
    }

    /// Whether there is room for another control connection. One that is over gives way first, then one without a call.
    fn make_room(&mut self, now: Instant) -> bool {
        let most = self.shared.config.max_tunnels.min(MAX_TUNNELS);
        if self.tunnels.len() < most {
            return true;
        }
        let over = self.tunnels.iter().position(Tunnel::is_over);
        let Some(index) = over.or_else(|| self.tunnels.iter().position(Tunnel::is_unused)) else { return false };
        let mut tunnel = self.tunnels.remove(index);
        tunnel.close(now, &mut self.shared, &CloseReason::Administrative);
        while let Some(goodbye) = tunnel.poll_transmit() {
            self.push_refusal(goodbye);
        }
        self.tunnels.len() < most
    }

    /// Not to be guessed: whoever could would inject data into a tunnel without IPsec (section 9.2).
    fn unused_tunnel_id(&mut self) -> TunnelId {
        loop {
            let id = TunnelId(self.shared.rng.random_range(1..=u16::MAX));
            if self.tunnels.iter().all(|tunnel| tunnel.id() != id) {
                return id;
            }
        }
    }

    /// Refuses an SCCRQ and keeps nothing about it. Without an Assigned Tunnel ID the refusal goes to Tunnel ID 0.
    fn refuse(&mut self, sccrq: &Message, outcome: &Outcome) {
        let peer = Introduction::tunnel_id(sccrq).unwrap_or_default();
        let ours = self.unused_tunnel_id();
        self.push_refusal(refuse_tunnel(peer, ours, outcome));
    }

    fn push_refusal(&mut self, refusal: Vec<u8>) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push_back(refusal);
        }
    }
}

/// What an SCCRQ is recognized by when it comes once more. Nobody but the peer itself could gain from another with the same.
fn fingerprint(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
