//! The L2TP network server that a gateway is (RFC 2661): one control connection with one call.

use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::Hash;

use super::{Avp, L2tp};
use crate::l2tp::avps;

const SCCRQ: u16 = 1;
const SCCRP: u16 = 2;
const SCCCN: u16 = 3;
const STOP_CCN: u16 = 4;
const HELLO: u16 = 6;
const ICRQ: u16 = 10;
const ICRP: u16 = 11;
const ICCN: u16 = 12;
const CDN: u16 = 14;

const RESULT_CODE: u16 = 1;
const PROTOCOL_VERSION: u16 = 2;
const FRAMING_CAPABILITIES: u16 = 3;
const HOST_NAME: u16 = 7;
const ASSIGNED_TUNNEL_ID: u16 = 9;
const CHALLENGE: u16 = 11;
const CHALLENGE_RESPONSE: u16 = 13;
const ASSIGNED_SESSION_ID: u16 = 14;
const CALL_SERIAL_NUMBER: u16 = 15;
const FRAMING_TYPE: u16 = 19;
const CONNECT_SPEED: u16 = 24;
const RANDOM_VECTOR: u16 = 36;

const OWN_TUNNEL: u16 = 0x2a31;
const OWN_SESSION: u16 = 0x0c44;
/// The value of its Challenge and of its Random Vector.
const RANDOM: [u8; 16] = [0x3c; 16];

/// Where the control connection and the call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// SCCRP is under way.
    Answered,
    Connected,
    /// ICRP is.
    Called,
    Established,
    Closed,
}

/// What the client has sent.
pub(crate) enum Received {
    Nothing,
    /// A PPP frame.
    Frame(Vec<u8>),
    /// StopCCN or CDN, which is its number, with its result code.
    Ended(u16, u16),
}

pub(crate) struct Lns {
    habits: L2tp,
    pub(crate) state: State,
    ns: u16,
    nr: u16,
    tunnel: u16,
    session: u16,
    /// The client's Challenge.
    challenge: Option<Vec<u8>>,
    pub(crate) out: Vec<Vec<u8>>,
    /// An acknowledgement that goes behind the first frame.
    pub(crate) late: Option<Vec<u8>>,
    /// The highest number that the client has acknowledged, and how many of its own Hellos are.
    acknowledged: u16,
    pub(crate) hellos: u32,
    /// Hellos of the client.
    pub(crate) asked: u32,
}

impl Lns {
    pub(crate) fn new(habits: L2tp) -> Self {
        Self {
            habits,
            state: State::Idle,
            ns: 0,
            nr: 0,
            tunnel: 0,
            session: 0,
            challenge: None,
            out: Vec::new(),
            late: None,
            acknowledged: 0,
            hellos: 0,
            asked: 0,
        }
    }

    /// Whether all that this end has sent is acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.ns
    }

    /// A PPP frame as a data message.
    pub(crate) fn data(&self, frame: &[u8]) -> Vec<u8> {
        let (tunnel, session) = (self.tunnel.to_be_bytes(), self.session.to_be_bytes());
        if self.habits.length_in_data {
            let length = (8 + frame.len() as u16).to_be_bytes();
            return [&[0x40, 0x02], &length, &tunnel, &session, frame].concat();
        }
        [&[0x00, 0x02], &tunnel, &session, frame].concat()
    }

    /// Sends a Hello.
    pub(crate) fn hello(&mut self) {
        self.hellos += 1;
        self.send(HELLO, 0, &[]);
    }

    /// Ends the call and the control connection.
    pub(crate) fn stop(&mut self) {
        if let Some((code, rest)) = self.habits.cdn.clone() {
            let session = (true, 0, ASSIGNED_SESSION_ID, OWN_SESSION.to_be_bytes().to_vec());
            let result = (true, 0, RESULT_CODE, code.to_be_bytes().to_vec());
            self.send(CDN, self.session, &[vec![result, session], rest].concat());
        }
        let tunnel = (true, 0, ASSIGNED_TUNNEL_ID, OWN_TUNNEL.to_be_bytes().to_vec());
        // The result code alone: a general request to clear the control connection.
        self.send(STOP_CCN, 0, &[tunnel, (true, 0, RESULT_CODE, vec![0, 1])]);
        self.state = State::Closed;
    }

    pub(crate) fn handle(&mut self, message: &[u8]) -> Result<Received, String> {
        let [a, b, ..] = *message else { return Err("an L2TP message without a header".to_owned()) };
        let flags = u16::from_be_bytes([a, b]);
        if flags & 0x8000 == 0 {
            return self.handle_data(flags, message);
        }
        if flags != 0xc802 || message.len() < 12 {
            return Err(format!("a control message with the flags {flags:04x}"));
        }
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        if usize::from(word(2)) != message.len() {
            return Err("a control message of another length".to_owned());
        }
        let (tunnel, session, ns, nr) = (word(4), word(6), word(8), word(10));
        let own = if self.state == State::Idle { 0 } else { OWN_TUNNEL };
        if tunnel != own {
            return Err(format!("a control message for tunnel {tunnel} in place of {own}"));
        }
        self.acknowledged = nr;
        if message.len() == 12 {
            return Ok(Received::Nothing);
        }
        if ns != self.nr {
            return Err(format!("message {ns} in place of {}", self.nr));
        }
        self.nr = self.nr.wrapping_add(1);
        self.control(&message[12..], session)
    }

    fn control(&mut self, body: &[u8], session: u16) -> Result<Received, String> {
        let avps = avps(&reveal(body, self.habits.secret.filter(|_| self.habits.hides))?)?;
        if body[..2] != [0x80, 8] {
            return Err("the Message Type AVP is not mandatory, or not of 8 octets".to_owned());
        }
        let [(0, kind), rest @ ..] = avps.as_slice() else { return Err("the first AVP is no Message Type".to_owned()) };
        let kind = u16::from_be_bytes([kind[0], kind[1]]);
        let value = |wanted: u16, octets: usize| {
            let found = rest.iter().find(|(of, _)| *of == wanted).map(|(_, value)| value.as_slice());
            found
                .filter(|value| value.len() == octets)
                .ok_or_else(|| format!("message {kind} without AVP {wanted} of {octets}"))
        };
        let number = |wanted: u16| value(wanted, 2).map(|value| u16::from_be_bytes([value[0], value[1]]));
        match (kind, self.state) {
            (SCCRQ, State::Idle) => {
                value(FRAMING_CAPABILITIES, 4)?;
                let host_name = rest.iter().find(|(of, _)| *of == HOST_NAME).is_some_and(|(_, name)| !name.is_empty());
                if value(PROTOCOL_VERSION, 2)? != [1, 0] || !host_name {
                    return Err("SCCRQ of another version, or without a host name".to_owned());
                }
                self.tunnel = number(ASSIGNED_TUNNEL_ID)?;
                self.challenge = rest.iter().find(|(of, _)| *of == CHALLENGE).map(|(_, value)| value.clone());
                self.state = State::Answered;
                self.reply(SCCRP, 0, &self.introduction());
            }
            (SCCCN, State::Answered) => {
                if let Some(secret) = self.habits.secret
                    && value(CHALLENGE_RESPONSE, 16)? != proof(SCCCN, secret, &RANDOM)
                {
                    return Err("the Challenge Response of SCCCN is wrong".to_owned());
                }
                self.state = State::Connected;
                self.acknowledge();
            }
            (ICRQ, State::Connected) => {
                value(CALL_SERIAL_NUMBER, 4)?;
                self.session = number(ASSIGNED_SESSION_ID)?;
                self.state = State::Called;
                let assigned = OWN_SESSION.to_be_bytes();
                let mut reply = vec![(true, 0, ASSIGNED_SESSION_ID, assigned.to_vec())];
                if let Some(secret) = self.habits.secret.filter(|_| self.habits.hides) {
                    let hidden = hide(ASSIGNED_SESSION_ID, &assigned, secret);
                    reply = vec![
                        (true, 0, RANDOM_VECTOR, RANDOM.to_vec()),
                        (true, 0, HIDDEN | ASSIGNED_SESSION_ID, hidden),
                    ];
                }
                reply.extend(self.habits.icrp.clone());
                self.reply(ICRP, self.session, &reply);
            }
            (ICCN, State::Called) if session == OWN_SESSION => {
                value(CONNECT_SPEED, 4)?;
                value(FRAMING_TYPE, 4)?;
                self.state = State::Established;
                self.acknowledge();
                if self.habits.begins_early {
                    self.late = self.out.pop();
                }
            }
            (HELLO, _) => {
                self.asked += 1;
                self.acknowledge();
            }
            (CDN | STOP_CCN, _) => {
                self.state = State::Closed;
                self.acknowledge();
                let code = rest.iter().find(|(of, _)| *of == RESULT_CODE).and_then(|(_, value)| value.get(..2));
                return Ok(Received::Ended(kind, code.map_or(0, |code| u16::from_be_bytes([code[0], code[1]]))));
            }
            (other, state) => return Err(format!("message {other} for session {session} in state {state:?}")),
        }
        Ok(Received::Nothing)
    }

    /// The AVPs of SCCRP.
    fn introduction(&self) -> Vec<Avp> {
        let mut avps = self.habits.sccrp.clone();
        for avp in &mut avps {
            if avp.2 == ASSIGNED_TUNNEL_ID {
                avp.3 = OWN_TUNNEL.to_be_bytes().to_vec();
            }
        }
        if let Some(secret) = self.habits.secret {
            avps.push((true, 0, CHALLENGE, RANDOM.to_vec()));
            let challenge = self.challenge.as_deref();
            avps.extend(challenge.map(|theirs| (true, 0, CHALLENGE_RESPONSE, proof(SCCRP, secret, theirs))));
        }
        avps
    }

    fn handle_data(&mut self, flags: u16, message: &[u8]) -> Result<Received, String> {
        // Neither sequence numbers nor an offset: this end asked for none.
        if flags & !0x4000 != 2 {
            return Err(format!("data with the flags {flags:04x}"));
        }
        let at = if flags & 0x4000 != 0 { 4 } else { 2 };
        let ids = message.get(at..at + 4).ok_or("data without a header")?;
        if ids != [OWN_TUNNEL.to_be_bytes(), OWN_SESSION.to_be_bytes()].concat() {
            return Err("data for another session".to_owned());
        }
        Ok(Received::Frame(message[at + 4..].to_vec()))
    }

    /// An answer, and before it an acknowledgement where the gateway sends one in any case.
    fn reply(&mut self, kind: u16, session: u16, avps: &[Avp]) {
        if self.habits.acknowledges_first {
            self.acknowledge();
        }
        self.send(kind, session, avps);
    }

    fn acknowledge(&mut self) {
        let header = [0xc802, 12, self.tunnel, 0, self.ns, self.nr];
        self.out.push(header.iter().flat_map(|word| word.to_be_bytes()).collect());
    }

    fn send(&mut self, kind: u16, session: u16, avps: &[Avp]) {
        let mut body = Vec::new();
        for (mandatory, vendor, of, value) in [(true, 0, 0, kind.to_be_bytes().to_vec())].iter().chain(avps) {
            let bits = if *mandatory { 0x8000 } else { 0 } | if of & HIDDEN == 0 { 0 } else { 0x4000 };
            body.extend((bits | (6 + value.len() as u16)).to_be_bytes());
            body.extend(vendor.to_be_bytes());
            body.extend((of & !HIDDEN).to_be_bytes());
            body.extend(value);
        }
        let header = [0xc802, 12 + body.len() as u16, self.tunnel, session, self.ns, self.nr];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.ns = self.ns.wrapping_add(1);
        self.out.push([header, body].concat());
    }
}

/// Marks an AVP whose value is hidden; no type is that high.
const HIDDEN: u16 = 0x8000;

/// The Challenge Response in a message of a type (RFC 2661 section 4.4.3).
fn proof(kind: u16, secret: &str, challenge: &[u8]) -> Vec<u8> {
    digest(Hash::Md5, &[&[kind as u8], secret.as_bytes(), challenge])
}

/// The AVPs with those that are hidden in plain, where there is a secret; what else is wrong with them is left as it is.
fn reveal(mut body: &[u8], secret: Option<&str>) -> Result<Vec<u8>, String> {
    let (mut plain, mut random) = (Vec::new(), Vec::new());
    while let ([a, b, c, d, e, f, ..], Some(secret)) = (body, secret) {
        let (word, attribute) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*e, *f]));
        let length = usize::from(word & 0x03ff);
        let value = body.get(6..length).ok_or("an AVP that is cut off")?;
        if attribute == RANDOM_VECTOR {
            random = value.to_vec();
        }
        let opened = if word & 0x4000 == 0 { value.to_vec() } else { open(attribute, value, secret, &random)? };
        plain.extend((word & 0xbc00 | (6 + opened.len() as u16)).to_be_bytes());
        plain.extend([*c, *d, *e, *f]);
        plain.extend(opened);
        body = &body[length..];
    }
    plain.extend(body);
    Ok(plain)
}

/// Opens a hidden value (RFC 2661 section 4.3): each block is under the digest of the one before.
fn open(attribute: u16, hidden: &[u8], secret: &str, random: &[u8]) -> Result<Vec<u8>, String> {
    let mut key = digest(Hash::Md5, &[&attribute.to_be_bytes(), secret.as_bytes(), random]);
    let mut plain = Vec::new();
    for block in hidden.chunks(16) {
        plain.extend(block.iter().zip(&key).map(|(octet, key)| octet ^ key));
        key = digest(Hash::Md5, &[secret.as_bytes(), block]);
    }
    let length = usize::from(u16::from_be_bytes([plain[0], plain[1]]));
    plain.get(2..2 + length).map(<[u8]>::to_vec).ok_or_else(|| "a hidden AVP of another length".to_owned())
}

/// Hides a value of an attribute under the Random Vector (RFC 2661 section 4.3), padded to three blocks.
fn hide(attribute: u16, value: &[u8], secret: &str) -> Vec<u8> {
    let mut plain = [&(value.len() as u16).to_be_bytes(), value].concat();
    plain.resize(48, 0x5e);
    let mut key = digest(Hash::Md5, &[&attribute.to_be_bytes(), secret.as_bytes(), &RANDOM]);
    let mut hidden = Vec::new();
    for block in plain.chunks(16) {
        let sealed: Vec<u8> = block.iter().zip(&key).map(|(octet, key)| octet ^ key).collect();
        key = digest(Hash::Md5, &[secret.as_bytes(), &sealed]);
        hidden.extend(sealed);
    }
    hidden
}
