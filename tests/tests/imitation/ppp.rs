//! The PPP peer that a device is: LCP, PAP, CHAP, MS-CHAPv2, IPCP, and what it tries besides.

use towline_tunnel::crypto::cbc::des_encrypt_block;
use towline_tunnel::crypto::hash::{digest, md4};
use towline_tunnel::suite::Hash;

use crate::device::{self, Auth};

pub(crate) const LCP: u16 = 0xc021;
pub(crate) const PAP: u16 = 0xc023;
pub(crate) const CHAP: u16 = 0xc223;
pub(crate) const IPCP: u16 = 0x8021;
pub(crate) const IPV4: u16 = 0x0021;

/// Where a protocol with Configure packets is.
#[derive(Debug, Default, Clone)]
struct Negotiation {
    id: u8,
    /// What this end asks for: each option whole.
    options: Vec<Vec<u8>>,
    acknowledged: bool,
    acknowledges: bool,
}

impl Negotiation {
    fn is_open(&self) -> bool {
        self.acknowledged && self.acknowledges
    }
}

pub(crate) struct Ppp {
    habits: device::Ppp,
    user: String,
    password: String,
    lcp: Negotiation,
    ipcp: Negotiation,
    agreed: Option<Auth>,
    response: Vec<u8>,
    pub(crate) authenticated: bool,
    /// What the server says to a failure.
    pub(crate) failure: Option<String>,
    pub(crate) out: Vec<Vec<u8>>,
    pub(crate) packets: Vec<Vec<u8>>,
    /// Protocols that the server has rejected.
    pub(crate) rejected: Vec<u16>,
    pub(crate) echoes: u32,
    pub(crate) terminated: bool,
    /// Expected `S=` of MS-CHAPv2.
    expected: String,
}

impl Ppp {
    pub(crate) fn new(habits: device::Ppp, user: &str, password: &str) -> Self {
        Self {
            lcp: Negotiation { options: habits.lcp.clone(), ..Negotiation::default() },
            ipcp: Negotiation { options: habits.ipcp.clone(), ..Negotiation::default() },
            habits,
            user: user.to_owned(),
            password: password.to_owned(),
            agreed: None,
            response: Vec::new(),
            authenticated: false,
            failure: None,
            out: Vec::new(),
            packets: Vec::new(),
            rejected: Vec::new(),
            echoes: 0,
            terminated: false,
            expected: String::new(),
        }
    }

    /// Begins LCP.
    pub(crate) fn start(&mut self) {
        self.request(LCP);
    }

    /// Whether IPCP is open.
    pub(crate) fn is_open(&self) -> bool {
        self.ipcp.is_open()
    }

    /// What IPCP agreed on: the value of an option.
    pub(crate) fn value(&self, kind: u8) -> Option<[u8; 4]> {
        self.ipcp.options.iter().find(|option| option[0] == kind).and_then(|option| option[2..].try_into().ok())
    }

    /// Sends a packet of a protocol.
    pub(crate) fn send(&mut self, protocol: u16, packet: &[u8]) {
        let head: &[u8] = if self.habits.address_and_control { &[0xff, 0x03] } else { &[] };
        self.out.push([head, &protocol.to_be_bytes(), packet].concat());
    }

    pub(crate) fn handle(&mut self, frame: &[u8]) -> Result<(), String> {
        let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
        let (protocol, packet) = match *frame {
            // Compressed to one octet (RFC 1661 section 6.5).
            [low, ref packet @ ..] if low & 1 == 1 => (u16::from(low), packet),
            [high, low, ref packet @ ..] => (u16::from_be_bytes([high, low]), packet),
            _ => return Err("a frame without a protocol".to_owned()),
        };
        if protocol == IPV4 {
            self.packets.push(packet.to_vec());
            return Ok(());
        }
        let [code, id, high, low, ref rest @ ..] = *packet else { return Err("a packet without a header".to_owned()) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(..length.wrapping_sub(4)).ok_or("a packet that is cut off")?.to_vec();
        match protocol {
            LCP => self.handle_lcp(code, id, &body),
            PAP | CHAP => self.handle_auth(protocol, code, id, &body),
            IPCP => self.configure(IPCP, code, id, &body),
            other => {
                let id = self.lcp.id.wrapping_add(100);
                let body = [&other.to_be_bytes(), packet].concat();
                self.control(LCP, 8, id, &body);
                Ok(())
            }
        }
    }

    fn handle_lcp(&mut self, code: u8, id: u8, body: &[u8]) -> Result<(), String> {
        match code {
            1..=4 => {
                self.configure(LCP, code, id, body)?;
                if self.lcp.is_open() && self.habits.early_echo {
                    self.habits.early_echo = false;
                    self.control(LCP, 9, 1, &self.magic());
                }
                Ok(())
            }
            5 => {
                self.terminated = true;
                self.control(LCP, 6, id, &[]);
                Ok(())
            }
            6 => Ok(()),
            8 => {
                let protocol = body.get(..2).ok_or("Protocol-Reject without a protocol")?;
                self.rejected.push(u16::from_be_bytes([protocol[0], protocol[1]]));
                Ok(())
            }
            9 => {
                self.control(LCP, 10, id, &self.magic());
                Ok(())
            }
            10 => {
                self.echoes += 1;
                Ok(())
            }
            other => Err(format!("LCP code {other}")),
        }
    }

    /// The magic number of this end; zero without one.
    fn magic(&self) -> Vec<u8> {
        self.lcp.options.iter().find(|option| option[0] == 5).map_or_else(|| vec![0; 4], |option| option[2..].to_vec())
    }

    /// Configure-Request, -Ack, -Nak and -Reject of LCP and IPCP.
    fn configure(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) -> Result<(), String> {
        let options = options(body)?;
        let own = if protocol == LCP { &mut self.lcp } else { &mut self.ipcp };
        match code {
            1 => return self.answer(protocol, id, &options),
            2 if id == own.id => {
                if options != own.options {
                    return Err(format!("an acknowledgement of something else: {options:?}"));
                }
                own.acknowledged = true;
            }
            3 if id == own.id => {
                for option in options {
                    match own.options.iter_mut().find(|old| old[0] == option[0]) {
                        Some(old) => *old = option,
                        // RFC 1332 section 3.3: appended for a peer that did not ask.
                        None if protocol == IPCP && option[0] == 3 => own.options.insert(0, option),
                        None => return Err(format!("a Nak of an option that was not sent: {option:?}")),
                    }
                }
                self.request(protocol);
            }
            4 if id == own.id => {
                if options.iter().any(|option| !own.options.contains(option)) {
                    return Err(format!("a Reject of an option that was not sent so: {options:?}"));
                }
                own.options.retain(|option| !options.contains(option));
                self.request(protocol);
            }
            _ => {}
        }
        self.advance(protocol);
        Ok(())
    }

    /// Answers the server's Configure-Request.
    fn answer(&mut self, protocol: u16, id: u8, options: &[Vec<u8>]) -> Result<(), String> {
        let known = |option: &Vec<u8>| match protocol {
            LCP => matches!(option[0], 1 | 2 | 3 | 5 | 7 | 8),
            _ => option[0] == 3,
        };
        let unknown: Vec<u8> = options.iter().filter(|option| !known(option)).flatten().copied().collect();
        if !unknown.is_empty() {
            self.control(protocol, 4, id, &unknown);
            return Ok(());
        }
        if let Some(auth) = options.iter().find(|option| protocol == LCP && option[0] == 3) {
            let demanded = match auth[2..] {
                [0xc0, 0x23] => Some(Auth::Pap),
                [0xc2, 0x23, 5] => Some(Auth::ChapMd5),
                [0xc2, 0x23, 0x81] => Some(Auth::MsChapV2),
                _ => None,
            };
            match demanded.filter(|auth| self.habits.auth.contains(auth)) {
                Some(auth) => self.agreed = Some(auth),
                None => {
                    let wanted = match self.habits.auth.first().ok_or("the device takes part in nothing")? {
                        Auth::Pap => vec![3, 4, 0xc0, 0x23],
                        Auth::ChapMd5 => vec![3, 5, 0xc2, 0x23, 5],
                        Auth::MsChapV2 => vec![3, 5, 0xc2, 0x23, 0x81],
                    };
                    self.control(protocol, 3, id, &wanted);
                    return Ok(());
                }
            }
        }
        self.control(protocol, 2, id, &options.concat());
        let own = if protocol == LCP { &mut self.lcp } else { &mut self.ipcp };
        own.acknowledges = true;
        self.advance(protocol);
        Ok(())
    }

    fn advance(&mut self, protocol: u16) {
        if protocol == LCP && self.lcp.is_open() && self.agreed == Some(Auth::Pap) && !self.authenticated {
            let (user, password) = (self.user.clone().into_bytes(), self.password.clone().into_bytes());
            let body = [&[user.len() as u8], user.as_slice(), &[password.len() as u8], &password].concat();
            self.control(PAP, 1, 1, &body);
        }
    }

    fn handle_auth(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) -> Result<(), String> {
        match (protocol, code) {
            (PAP, 2) => self.succeed(),
            (CHAP, 3) => {
                let said = String::from_utf8_lossy(body).into_owned();
                if self.agreed == Some(Auth::MsChapV2) && !said.starts_with(&self.expected) {
                    return Err(format!("the server does not know the password: {said}"));
                }
                self.succeed();
            }
            (PAP, 3) | (CHAP, 4) => self.failure = Some(String::from_utf8_lossy(body).into_owned()),
            (CHAP, 1) => {
                let (size, rest) = body.split_first().ok_or("a Challenge without a value")?;
                let (challenge, _) = rest.split_at_checked(usize::from(*size)).ok_or("a Challenge that is cut off")?;
                let value = match self.agreed {
                    Some(Auth::ChapMd5) => digest(Hash::Md5, &[&[id], self.password.as_bytes(), challenge]),
                    Some(Auth::MsChapV2) => self.ms_chap_v2(challenge)?,
                    _ => return Err("a Challenge that was not agreed on".to_owned()),
                };
                let name = self.user.clone();
                self.response = [&[value.len() as u8], value.as_slice(), name.as_bytes()].concat();
                let response = self.response.clone();
                self.control(CHAP, 2, id, &response);
            }
            (_, code) => return Err(format!("authentication code {code}")),
        }
        Ok(())
    }

    /// The value of a Response (RFC 2759 section 4).
    fn ms_chap_v2(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        let challenge: [u8; 16] = challenge.try_into().map_err(|_| "a Challenge of another size")?;
        let peer = [0x5a; 16];
        let (response, expected) = ms_chap_v2(&challenge, &peer, &self.user, &self.password);
        self.expected = expected;
        Ok([peer.as_slice(), &[0; 8], &response, &[0]].concat())
    }

    fn succeed(&mut self) {
        if std::mem::replace(&mut self.authenticated, true) {
            return;
        }
        self.request(IPCP);
        for (protocol, packet) in self.habits.others.clone() {
            self.send(protocol, &packet);
        }
    }

    fn request(&mut self, protocol: u16) {
        let own = if protocol == LCP { &mut self.lcp } else { &mut self.ipcp };
        own.id = own.id.wrapping_add(1);
        let (id, body) = (own.id, own.options.concat());
        self.control(protocol, 1, id, &body);
    }

    fn control(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) {
        let [high, low] = (4 + body.len() as u16).to_be_bytes();
        self.send(protocol, &[&[code, id, high, low], body].concat());
    }
}

/// Each option whole.
pub(crate) fn options(mut body: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    while let [_, length, ..] = *body {
        let option = body.get(..usize::from(length.max(2))).ok_or("an option that is cut off")?;
        all.push(option.to_vec());
        body = &body[option.len()..];
    }
    if body.is_empty() { Ok(all) } else { Err("half an option".to_owned()) }
}

/// The NT-Response and what the server has to answer (RFC 2759 section 8).
pub(crate) fn ms_chap_v2(challenge: &[u8; 16], peer: &[u8; 16], user: &str, password: &str) -> ([u8; 24], String) {
    let unicode: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hash = *md4(&unicode);
    let digested = digest(Hash::Sha1, &[peer, challenge, user.as_bytes()]);
    let block: [u8; 8] = digested[..8].try_into().unwrap();
    let mut padded = [0; 21];
    padded[..16].copy_from_slice(&hash);
    let mut response = [0; 24];
    for (key, out) in padded.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
        out.copy_from_slice(&des_encrypt_block(key.try_into().unwrap(), block));
    }
    let first = b"Magic server to client signing constant";
    let second = b"Pad to make it do more than one iteration";
    let inner = digest(Hash::Sha1, &[&*md4(&hash), &response, first]);
    let outer = digest(Hash::Sha1, &[&inner, &block, second]);
    let hexadecimal: String = outer.iter().map(|octet| format!("{octet:02X}")).collect();
    (response, format!("S={hexadecimal}"))
}
