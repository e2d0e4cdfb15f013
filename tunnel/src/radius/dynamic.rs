//! Requests of servers (RFC 5176): a Disconnect-Request ends sessions, a CoA-Request is refused.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use zeroize::Zeroizing;

use super::attribute::{Attribute, Code, ErrorCause, TerminateCause};
use super::exchange::{Datagram, Dropped};
use super::packet::{AUTHENTICATOR, Builder, Integrity, Packet, number};
use super::{SessionIds, SessionInfo};

/// How far the clock of a server may be away, and how long an answer is kept (section 6.3), in seconds.
const WINDOW: u64 = 300;
/// The most requests that are remembered; those that come beyond are dropped.
pub const MAX_REMEMBERED: usize = 1_024;

/// Attributes that a Disconnect-Request may have; each once, but for Proxy-State (section 3.6).
const UNDERSTOOD: [Attribute; 14] = [
    Attribute::USER_NAME,
    Attribute::NAS_IP_ADDRESS,
    Attribute::NAS_IPV6_ADDRESS,
    Attribute::NAS_IDENTIFIER,
    Attribute::NAS_PORT,
    Attribute::FRAMED_IP_ADDRESS,
    Attribute::CALLED_STATION_ID,
    Attribute::CALLING_STATION_ID,
    Attribute::ACCT_SESSION_ID,
    Attribute::ACCT_TERMINATE_CAUSE,
    Attribute::EVENT_TIMESTAMP,
    Attribute::MESSAGE_AUTHENTICATOR,
    Attribute::PROXY_STATE,
    // The text for the user has no place in PPP.
    Attribute::REPLY_MESSAGE,
];

/// Sessions are to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// For [`super::Client::disconnected`].
    pub token: u64,
    /// Which ones.
    pub selector: Selector,
    /// What accounting says about their end.
    pub cause: TerminateCause,
}

/// Which sessions are meant: those that everything given fits, and at least one thing is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Acct-Session-Id: the owner's key of the session.
    pub key: Option<u64>,
    /// User-Name.
    pub name: Option<Vec<u8>>,
    /// Framed-IP-Address.
    pub address: Option<Ipv4Addr>,
    /// NAS-Port.
    pub port: Option<u32>,
    /// Calling-Station-Id.
    pub peer: Option<Vec<u8>>,
    /// Called-Station-Id.
    pub local: Option<Vec<u8>>,
}

/// A session as servers know it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The owner's key.
    pub key: u64,
    /// The name of the user.
    pub name: &'a str,
    /// The inner address of the peer.
    pub address: Ipv4Addr,
    /// The rest.
    pub info: &'a SessionInfo,
}

impl Selector {
    /// Whether a session is meant.
    pub fn matches(&self, session: &Known<'_>) -> bool {
        let text = |wanted: &Option<Vec<u8>>, said: IpAddr| {
            wanted.as_deref().is_none_or(|wanted| wanted == said.to_canonical().to_string().as_bytes())
        };
        *self != Self::default()
            && self.key.is_none_or(|key| key == session.key)
            && self.name.as_deref().is_none_or(|name| name == session.name.as_bytes())
            && self.address.is_none_or(|address| address == session.address)
            && self.port.is_none_or(|port| port == session.info.port)
            && text(&self.peer, session.info.peer)
            && text(&self.local, session.info.local)
    }
}

/// A request that is like no other: a repetition of it gets the same answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    // Without the port, so that a copy from another one is no new request.
    from: IpAddr,
    id: u8,
    authenticator: [u8; AUTHENTICATOR],
}

struct Remembered {
    until: u64,
    answer: Option<Vec<u8>>,
}

/// A request that the owner has to answer.
struct Open {
    identity: Identity,
    request: Answerable,
}

/// What an answer takes from its request.
struct Answerable {
    from: SocketAddr,
    code: Code,
    identity: Identity,
    /// Proxy-State and State in their order (sections 3.1 and 3.3).
    echoed: Vec<(Attribute, Vec<u8>)>,
    secret: Zeroizing<Vec<u8>>,
}

/// The end of RFC 5176 that is asked.
#[derive(Default)]
pub(super) struct Dynamic {
    remembered: BTreeMap<Identity, Remembered>,
    open: BTreeMap<u64, Open>,
    next: u64,
    answers: VecDeque<Datagram>,
    disconnected: u64,
    refused: u64,
}

impl Dynamic {
    /// Takes a datagram of somebody who has one of these secrets.
    pub(super) fn handle_request<'s>(
        &mut self,
        unix: u64,
        from: SocketAddr,
        datagram: &[u8],
        secrets: impl Iterator<Item = &'s [u8]>,
        ids: &SessionIds,
        nas_identifier: &str,
    ) -> Result<Option<Disconnect>, Dropped> {
        let packet = Packet::parse(datagram).map_err(|_| Dropped::Malformed)?;
        let secret = authenticate(&packet, secrets)?;
        if ![Code::DISCONNECT_REQUEST, Code::COA_REQUEST].contains(&packet.code) {
            return Err(Dropped::Unexpected);
        }
        let at = packet.first(Attribute::EVENT_TIMESTAMP).and_then(number).map(u64::from);
        if at.is_some_and(|at| at.abs_diff(unix) > WINDOW) {
            return Err(Dropped::Stale);
        }
        let identity = Identity { from: from.ip().to_canonical(), id: packet.id, authenticator: packet.authenticator };
        self.remembered.retain(|_, remembered| remembered.until > unix);
        self.open.retain(|_, open| self.remembered.contains_key(&open.identity));
        if let Some(remembered) = self.remembered.get(&identity) {
            let again = remembered.answer.iter().map(|octets| Datagram { to: from, octets: octets.clone() });
            self.answers.extend(again);
            return Ok(None);
        }
        if self.remembered.len() >= MAX_REMEMBERED {
            return Err(Dropped::Full);
        }
        // A copy is taken as long as its Event-Timestamp is.
        let until = at.unwrap_or(unix).max(unix).saturating_add(WINDOW).saturating_add(1);
        self.remembered.insert(identity, Remembered { until, answer: None });
        let request = Answerable::new(&packet, from, identity, secret);
        match judge(&packet, ids, nas_identifier) {
            Err(cause) => {
                self.answer(&request, Err(cause));
                Ok(None)
            }
            Ok((selector, cause)) => {
                let token = self.next;
                self.next = self.next.wrapping_add(1);
                self.open.insert(token, Open { identity, request });
                Ok(Some(Disconnect { token, selector, cause }))
            }
        }
    }

    pub(super) fn disconnected(&mut self, token: u64, found: bool) {
        if let Some(open) = self.open.remove(&token) {
            self.answer(&open.request, if found { Ok(()) } else { Err(ErrorCause::SESSION_CONTEXT_NOT_FOUND) });
        }
    }

    pub(super) fn poll_answer(&mut self) -> Option<Datagram> {
        self.answers.pop_front()
    }

    /// How many requests were fulfilled and refused.
    pub(super) fn statistics(&self) -> (u64, u64) {
        (self.disconnected, self.refused)
    }

    fn answer(&mut self, request: &Answerable, result: Result<(), ErrorCause>) {
        let counter = if result.is_ok() { &mut self.disconnected } else { &mut self.refused };
        *counter = counter.saturating_add(1);
        let code = match result {
            Ok(()) => Code::DISCONNECT_ACK,
            Err(_) if request.code == Code::COA_REQUEST => Code::COA_NAK,
            Err(_) => Code::DISCONNECT_NAK,
        };
        let mut builder = Builder::signed(code, request.identity.id);
        if let Err(cause) = result {
            builder.push_number(Attribute::ERROR_CAUSE, cause.0);
        }
        for (attribute, value) in &request.echoed {
            builder.push(*attribute, value);
        }
        // What it repeats came in one packet of which more is left out than is added, unless that was full to the brim.
        let Ok(octets) = builder.finish(request.identity.authenticator, &request.secret) else { return };
        if let Some(remembered) = self.remembered.get_mut(&request.identity) {
            remembered.answer = Some(octets.clone());
        }
        self.answers.push_back(Datagram { to: request.from, octets });
    }
}

impl Answerable {
    fn new(packet: &Packet<'_>, from: SocketAddr, identity: Identity, secret: Zeroizing<Vec<u8>>) -> Self {
        let is_echoed = |attribute: Attribute| match packet.code {
            Code::COA_REQUEST => [Attribute::PROXY_STATE, Attribute::STATE].contains(&attribute),
            _ => attribute == Attribute::PROXY_STATE,
        };
        let echoed = packet.attributes().filter(|(attribute, _)| is_echoed(*attribute));
        let echoed = echoed.map(|(attribute, value)| (attribute, value.to_vec())).collect();
        Self { from, code: packet.code, identity, echoed, secret }
    }
}

/// The secret of the one who has written a request.
fn authenticate<'s>(
    packet: &Packet<'_>,
    secrets: impl Iterator<Item = &'s [u8]>,
) -> Result<Zeroizing<Vec<u8>>, Dropped> {
    const NO_SEED: [u8; AUTHENTICATOR] = [0; AUTHENTICATOR];
    let mut secrets = secrets.peekable();
    if secrets.peek().is_none() {
        return Err(Dropped::Unexpected);
    }
    let secret = secrets.find(|secret| packet.is_from(&NO_SEED, secret)).ok_or(Dropped::WrongAuthenticator)?;
    match packet.integrity(&NO_SEED, secret) {
        Integrity::Refuted => Err(Dropped::WrongMessageAuthenticator),
        Integrity::Absent | Integrity::Proved => Ok(Zeroizing::new(secret.to_vec())),
    }
}

/// Which sessions a request means.
fn judge(
    packet: &Packet<'_>,
    ids: &SessionIds,
    nas_identifier: &str,
) -> Result<(Selector, TerminateCause), ErrorCause> {
    if packet.code == Code::COA_REQUEST {
        // Sections 2.2 and 3.5: no authorization can be changed, and no Service-Type is supported.
        let asks_service = packet.first(Attribute::SERVICE_TYPE).is_some();
        return Err(if asks_service { ErrorCause::UNSUPPORTED_SERVICE } else { ErrorCause::UNSUPPORTED_EXTENSION });
    }
    if packet.attributes().any(|(attribute, _)| !UNDERSTOOD.contains(&attribute)) {
        return Err(ErrorCause::UNSUPPORTED_ATTRIBUTE);
    }
    let repeats = [Attribute::PROXY_STATE, Attribute::REPLY_MESSAGE];
    let single = UNDERSTOOD.iter().filter(|attribute| !repeats.contains(attribute));
    if single.into_iter().any(|attribute| packet.all(*attribute).count() > 1) {
        return Err(ErrorCause::INVALID_REQUEST);
    }
    // The addresses of this end are not compared: it names itself by NAS-Identifier alone, and whatever address a server has
    // seen may be that of a NAT.
    if packet.first(Attribute::NAS_IDENTIFIER).is_some_and(|said| said != nas_identifier.as_bytes()) {
        return Err(ErrorCause::NAS_IDENTIFICATION_MISMATCH);
    }
    let number = |attribute| packet.number(attribute).map_err(|_| ErrorCause::INVALID_REQUEST);
    let text = |attribute| packet.first(attribute).map(<[u8]>::to_vec);
    let id = packet.first(Attribute::ACCT_SESSION_ID);
    let selector = Selector {
        key: id.map(|id| ids.key(id).ok_or(ErrorCause::SESSION_CONTEXT_NOT_FOUND)).transpose()?,
        name: text(Attribute::USER_NAME),
        address: number(Attribute::FRAMED_IP_ADDRESS)?.map(Ipv4Addr::from_bits),
        port: number(Attribute::NAS_PORT)?,
        peer: text(Attribute::CALLING_STATION_ID),
        local: text(Attribute::CALLED_STATION_ID),
    };
    let at = number(Attribute::EVENT_TIMESTAMP)?;
    // Section 6.3: without a time a copy can come later, and must not end another session than was meant.
    if selector == Selector::default() || (selector.key.is_none() && at.is_none()) {
        return Err(ErrorCause::MISSING_ATTRIBUTE);
    }
    let cause = number(Attribute::ACCT_TERMINATE_CAUSE)?.map_or(TerminateCause::ADMIN_RESET, TerminateCause);
    Ok((selector, cause))
}

#[cfg(test)]
mod tests;
