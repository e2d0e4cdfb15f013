//! The L2TP access concentrator that a device is (RFC 2661): one control connection with one call.

use crate::device;

const STOP_CCN: u16 = 4;

/// Where the control connection and the call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    /// SCCRQ is under way.
    Tunnel,
    /// SCCCN is, and its acknowledgement is awaited.
    Connected,
    /// ICRQ is.
    Call,
    Established,
    Closed,
}

/// What the server has sent.
pub(crate) enum Received {
    Nothing,
    /// A PPP frame.
    Frame(Vec<u8>),
    /// StopCCN or CDN with its result code.
    Ended(u16),
}

pub(crate) struct L2tp {
    habits: device::L2tp,
    pub(crate) state: State,
    ns: u16,
    nr: u16,
    tunnel: u16,
    session: u16,
    own_tunnel: u16,
    own_session: u16,
    pub(crate) out: Vec<Vec<u8>>,
    pub(crate) hellos: u32,
    /// What the server calls itself.
    pub(crate) host_name: Vec<u8>,
}

/// An AVP: its type and value.
type Avp = (u16, Vec<u8>);

impl L2tp {
    pub(crate) fn new(habits: device::L2tp) -> Self {
        Self {
            habits,
            state: State::Idle,
            ns: 0,
            nr: 0,
            tunnel: 0,
            session: 0,
            own_tunnel: 0x4711,
            own_session: 0x0815,
            out: Vec::new(),
            hellos: 0,
            host_name: Vec::new(),
        }
    }

    /// Sends SCCRQ.
    pub(crate) fn dial(&mut self) {
        let habits = self.habits.clone();
        let mut avps: Vec<Avp> = vec![(2, vec![1, 0]), (3, habits.framing.to_be_bytes().to_vec())];
        avps.extend(habits.bearer.map(|bearer| (4, bearer.to_be_bytes().to_vec())));
        avps.extend(habits.firmware.map(|firmware| (6, firmware.to_be_bytes().to_vec())));
        avps.push((7, habits.host_name.as_bytes().to_vec()));
        avps.extend(habits.vendor_name.map(|name| (8, name.as_bytes().to_vec())));
        avps.push((9, self.own_tunnel.to_be_bytes().to_vec()));
        avps.extend(habits.window.map(|window| (10, window.to_be_bytes().to_vec())));
        self.state = State::Tunnel;
        self.send(1, 0, &avps);
    }

    /// Ends the control connection with StopCCN.
    pub(crate) fn stop(&mut self) {
        let result = if self.habits.little_endian_results { 1_u16.to_le_bytes() } else { 1_u16.to_be_bytes() };
        self.state = State::Closed;
        self.send(STOP_CCN, 0, &[(9, self.own_tunnel.to_be_bytes().to_vec()), (1, result.to_vec())]);
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

    pub(crate) fn handle(&mut self, message: &[u8]) -> Result<Received, String> {
        let flags = u16::from_be_bytes([message[0], message[1]]);
        if flags & 0x8000 == 0 {
            return self.handle_data(flags, message);
        }
        if flags != 0xc802 {
            return Err(format!("a control message with the flags {flags:04x}"));
        }
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        if usize::from(word(2)) != message.len() || message.len() < 12 {
            return Err("a control message of another length".to_owned());
        }
        let (tunnel, ns, nr) = (word(4), word(8), word(10));
        if tunnel != self.own_tunnel {
            return Err(format!("a control message for tunnel {tunnel}"));
        }
        if self.habits.strict && nr != self.ns {
            // Dropped, as mtpd does.
            return Ok(Received::Nothing);
        }
        if message.len() == 12 {
            if self.state == State::Connected && nr == self.ns {
                self.call();
            }
            return Ok(Received::Nothing);
        }
        // The Message Type AVP is the first, and has 8 octets.
        if self.habits.ignores_hello && message.get(18..20) == Some(&[0, 6]) {
            self.hellos += 1;
            return Ok(Received::Nothing);
        }
        let ours = ns == self.nr;
        if ours {
            self.nr = self.nr.wrapping_add(1);
        }
        let received = if ours { self.control(&message[12..], nr)? } else { Received::Nothing };
        // What is answered acknowledges by itself.
        if !matches!(received, Received::Nothing) || self.out.is_empty() {
            self.acknowledge();
        }
        Ok(received)
    }

    fn control(&mut self, body: &[u8], nr: u16) -> Result<Received, String> {
        let avps = avps(body)?;
        let [(0, kind), rest @ ..] = avps.as_slice() else { return Err("the first AVP is no Message Type".to_owned()) };
        let kind = u16::from_be_bytes(kind.as_slice().try_into().map_err(|_| "a Message Type of another length")?);
        if self.habits.strict && body[..2] != [0x80, 8] {
            return Err("the Message Type AVP is not mandatory, or not of 8 octets".to_owned());
        }
        let value = |kind: u16| rest.iter().find(|(of, _)| *of == kind).map(|(_, value)| value.as_slice());
        let number =
            |kind: u16| value(kind).and_then(|value| Some(u16::from_be_bytes(value.get(..2)?.try_into().ok()?)));
        match (kind, self.state) {
            (2, State::Tunnel) => {
                self.tunnel = number(9).filter(|id| *id != 0).ok_or("SCCRP without a tunnel ID")?;
                if value(2) != Some(&[1, 0]) || value(3).is_none_or(|framing| framing.len() != 4) {
                    return Err("SCCRP without a protocol version or framing capabilities".to_owned());
                }
                self.host_name = value(7).filter(|name| !name.is_empty()).ok_or("SCCRP without a host name")?.to_vec();
                self.state = State::Connected;
                self.send(3, 0, &[]);
                if !self.habits.strict {
                    self.call();
                }
                Ok(Received::Nothing)
            }
            (11, State::Call) => {
                self.session = number(14).filter(|id| *id != 0).ok_or("ICRP without a session ID")?;
                self.state = State::Established;
                self.send(12, self.session, &[(24, 1_000_000_u32.to_be_bytes().to_vec()), (19, vec![0, 0, 0, 1])]);
                Ok(Received::Nothing)
            }
            (6, _) => {
                self.hellos += 1;
                if self.state == State::Connected && nr == self.ns {
                    self.call();
                }
                Ok(Received::Nothing)
            }
            (STOP_CCN | 14, _) => {
                self.state = State::Closed;
                Ok(Received::Ended(number(1).unwrap_or(0)))
            }
            (other, state) => Err(format!("message {other} in state {state:?}")),
        }
    }

    fn handle_data(&mut self, flags: u16, message: &[u8]) -> Result<Received, String> {
        if flags & 0x00ff != 2 || flags & 0x0200 != 0 {
            return Err(format!("data with the flags {flags:04x}"));
        }
        let mut at = if flags & 0x4000 != 0 { 4 } else { 2 };
        let ids = message.get(at..at + 4).ok_or("data without a header")?;
        if ids != [self.own_tunnel.to_be_bytes(), self.own_session.to_be_bytes()].concat() {
            return Err("data for another session".to_owned());
        }
        at += if flags & 0x0800 != 0 { 8 } else { 4 };
        Ok(Received::Frame(message[at..].to_vec()))
    }

    /// Sends ICRQ.
    fn call(&mut self) {
        self.state = State::Call;
        self.send(10, 0, &[(14, self.own_session.to_be_bytes().to_vec()), (15, vec![0, 0, 0, 1])]);
    }

    fn acknowledge(&mut self) {
        let header = [0xc802, 12, self.tunnel, 0, self.ns, self.nr];
        self.out.push(header.iter().flat_map(|word| word.to_be_bytes()).collect());
    }

    fn send(&mut self, kind: u16, session: u16, avps: &[Avp]) {
        let mut body = Vec::new();
        for (of, value) in [(0, kind.to_be_bytes().to_vec())].iter().chain(avps) {
            // Mandatory, but for what RFC 2661 says must not be.
            let mandatory = if matches!(of, 6 | 8) { 0 } else { 0x8000 };
            body.extend((mandatory | (6 + value.len() as u16)).to_be_bytes());
            body.extend([0, 0]);
            body.extend(of.to_be_bytes());
            body.extend(value);
        }
        let header = [0xc802, 12 + body.len() as u16, self.tunnel, session, self.ns, self.nr];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.ns = self.ns.wrapping_add(1);
        self.out.push([header, body].concat());
    }
}

/// AVPs of no vendor, none of them hidden.
pub(crate) fn avps(mut body: &[u8]) -> Result<Vec<Avp>, String> {
    let mut all = Vec::new();
    while let [a, b, c, d, e, f, ..] = *body {
        let word = u16::from_be_bytes([a, b]);
        let length = usize::from(word & 0x03ff);
        if word & 0x7c00 != 0 || (c, d) != (0, 0) || length < 6 {
            return Err(format!("an AVP that a plain client does not know: {word:04x}"));
        }
        let value = body.get(6..length).ok_or("an AVP that is cut off")?;
        all.push((u16::from_be_bytes([e, f]), value.to_vec()));
        body = &body[length..];
    }
    if body.is_empty() { Ok(all) } else { Err("octets after the last AVP".to_owned()) }
}
