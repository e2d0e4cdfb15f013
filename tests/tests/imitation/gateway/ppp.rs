//! The PPP server that a gateway is: LCP, the proof of the client, IPCP, and what it tries besides.

use towline_tunnel::crypto::hash::digest;
use towline_tunnel::suite::Hash;

use super::Ppp;
use crate::device::Auth;
use crate::ppp::{CHAP, IPCP, IPV4, LCP, PAP, ms_chap_v2, options};

const REQUEST: u8 = 1;
const ACK: u8 = 2;
const NAK: u8 = 3;
const REJECT: u8 = 4;
const TERMINATE: u8 = 5;
const PROTOCOL_REJECT: u8 = 8;
const ECHO: u8 = 9;
const ECHO_REPLY: u8 = 10;

const ADDRESS: u8 = 3;
const AUTHENTICATION: u8 = 3;
const MAGIC: u8 = 5;
const DNS: [u8; 2] = [129, 131];
/// Of its Challenge.
const RANDOM: [u8; 16] = [0x77; 16];

/// The client's address.
pub(crate) const CLIENT: [u8; 4] = [10, 20, 5, 100];

/// Where a protocol with Configure packets is.
#[derive(Debug, Default)]
struct Negotiation {
    id: u8,
    /// What this end asks for: each option whole.
    options: Vec<Vec<u8>>,
    requested: bool,
    acknowledged: bool,
    acknowledges: bool,
}

impl Negotiation {
    fn is_open(&self) -> bool {
        self.acknowledged && self.acknowledges
    }
}

pub(crate) struct Server {
    habits: Ppp,
    user: &'static str,
    password: String,
    lcp: Negotiation,
    ipcp: Negotiation,
    /// What the client has not refused: the first is demanded.
    auth: Vec<Auth>,
    pub(crate) authenticated: bool,
    pub(crate) out: Vec<Vec<u8>>,
    /// IP packets of the client.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Protocols that the client has rejected.
    pub(crate) rejected: Vec<u16>,
    /// Options of the client that were rejected here.
    pub(crate) refused: Vec<u8>,
    /// Echo-Requests that were sent, and those that were answered.
    pub(crate) echoes: [u32; 2],
    pub(crate) terminated: bool,
}

impl Server {
    pub(crate) fn new(habits: Ppp, user: &'static str, password: &str) -> Self {
        Self {
            user,
            password: password.to_owned(),
            lcp: Negotiation::default(),
            ipcp: Negotiation { options: habits.ipcp.clone(), ..Negotiation::default() },
            auth: habits.auth.clone(),
            habits,
            authenticated: false,
            out: Vec::new(),
            packets: Vec::new(),
            rejected: Vec::new(),
            refused: Vec::new(),
            echoes: [0; 2],
            terminated: false,
        }
    }

    /// The call is there.
    pub(crate) fn start(&mut self) {
        if !self.habits.waits {
            self.request(LCP);
        }
    }

    /// Whether IPCP is open.
    pub(crate) fn is_open(&self) -> bool {
        self.ipcp.is_open()
    }

    /// Asks for an echo.
    pub(crate) fn echo(&mut self) {
        self.echoes[0] += 1;
        self.control(LCP, ECHO, self.echoes[0] as u8, &self.magic());
    }

    /// Ends the link.
    pub(crate) fn terminate(&mut self) {
        self.control(LCP, TERMINATE, 0x70, &[]);
    }

    /// Sends a packet of a protocol.
    pub(crate) fn send(&mut self, protocol: u16, packet: &[u8]) {
        let head: &[u8] = if self.habits.address_and_control { &[0xff, 0x03] } else { &[] };
        self.out.push([head, &protocol.to_be_bytes(), packet].concat());
    }

    pub(crate) fn handle(&mut self, frame: &[u8]) -> Result<(), String> {
        // This end asked for no compressed fields.
        let [0xff, 0x03, high, low, ref packet @ ..] = *frame else {
            return Err("a frame without address and control".to_owned());
        };
        let protocol = u16::from_be_bytes([high, low]);
        if protocol == IPV4 {
            self.packets.push(packet.to_vec());
            return Ok(());
        }
        let [code, id, high, low, ref rest @ ..] = *packet else { return Err("a packet without a header".to_owned()) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(..length.wrapping_sub(4)).ok_or("a packet that is cut off")?.to_vec();
        match (protocol, code) {
            (LCP, REQUEST..=REJECT) | (IPCP, REQUEST..=REJECT) => self.configure(protocol, code, id, &body),
            (LCP, TERMINATE) => {
                self.terminated = true;
                self.control(LCP, 6, id, &[]);
                Ok(())
            }
            (LCP, PROTOCOL_REJECT) => {
                self.rejected.push(u16::from_be_bytes([body[0], body[1]]));
                Ok(())
            }
            (LCP, ECHO) => {
                self.control(LCP, ECHO_REPLY, id, &self.magic());
                Ok(())
            }
            (LCP, ECHO_REPLY) => {
                self.echoes[1] += 1;
                Ok(())
            }
            (LCP, 6) => Ok(()),
            (PAP, REQUEST) => self.judge_pap(id, &body),
            (CHAP, 2) => self.judge_chap(id, &body),
            (protocol, code) => Err(format!("code {code} of protocol {protocol:04x}")),
        }
    }

    /// The magic number of this end; zero without one.
    fn magic(&self) -> Vec<u8> {
        self.lcp
            .options
            .iter()
            .find(|option| option[0] == MAGIC)
            .map_or_else(|| vec![0; 4], |option| option[2..].to_vec())
    }

    fn of(&mut self, protocol: u16) -> &mut Negotiation {
        if protocol == LCP { &mut self.lcp } else { &mut self.ipcp }
    }

    fn configure(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) -> Result<(), String> {
        let options = options(body)?;
        if protocol == IPCP && !self.authenticated {
            return Err("IPCP before the proof".to_owned());
        }
        if code == REQUEST {
            return self.answer(protocol, id, &options);
        }
        let own = self.of(protocol);
        if id != own.id {
            return Err(format!("an answer to {id} in place of {}", own.id));
        }
        match code {
            ACK if options == own.options => own.acknowledged = true,
            ACK => return Err(format!("an acknowledgement of something else: {options:?}")),
            // A client that takes part in something else says so for each; npppd ends the link when nothing is left.
            NAK if protocol == LCP && options.iter().all(|option| option[0] == AUTHENTICATION) => {
                self.auth.remove(0);
                if self.auth.is_empty() {
                    self.terminate();
                    return Ok(());
                }
                self.request(protocol);
            }
            // npppd gives up, and says "Peer refused(ConfNak) our ip".
            NAK => return Err(format!("a Nak of what is not to be changed: {options:?}")),
            _ => {
                own.options.retain(|option| !options.contains(option));
                self.habits.lcp.retain(|option| protocol != LCP || !options.contains(option));
                self.request(protocol);
            }
        }
        self.advance(protocol);
        Ok(())
    }

    /// Answers the client's Configure-Request: what is rejected goes first.
    fn answer(&mut self, protocol: u16, id: u8, options: &[Vec<u8>]) -> Result<(), String> {
        let rejected: Vec<Vec<u8>> =
            options.iter().filter(|option| !self.knows(protocol, option[0])).cloned().collect();
        if !rejected.is_empty() {
            self.refused.extend(rejected.iter().map(|option| option[0]));
            self.control(protocol, REJECT, id, &rejected.concat());
        } else if let Some(nak) = self.corrections(protocol, options) {
            self.control(protocol, NAK, id, &nak);
        } else {
            self.control(protocol, ACK, id, &options.concat());
            self.of(protocol).acknowledges = true;
        }
        if !self.of(protocol).requested {
            self.request(protocol);
        }
        self.advance(protocol);
        Ok(())
    }

    /// Whether an option of the client is taken at all.
    fn knows(&self, protocol: u16, kind: u8) -> bool {
        match protocol {
            LCP => matches!(kind, 1 | 2 | 5 | 7 | 8) && !self.habits.rejects.contains(&kind),
            _ => kind == ADDRESS || DNS.iter().take(self.habits.dns.len()).any(|known| *known == kind),
        }
    }

    /// What IPCP of the client has to ask for in place of what it does.
    fn corrections(&self, protocol: u16, options: &[Vec<u8>]) -> Option<Vec<u8>> {
        let right = |option: &Vec<u8>| match option[0] {
            ADDRESS => [&[ADDRESS, 6], CLIENT.as_slice()].concat(),
            kind => [&[kind, 6], self.habits.dns[usize::from(kind == DNS[1])].as_slice()].concat(),
        };
        if protocol != IPCP {
            return None;
        }
        let wrong: Vec<u8> = options.iter().filter(|option| **option != right(option)).flat_map(right).collect();
        (!wrong.is_empty()).then_some(wrong)
    }

    fn advance(&mut self, protocol: u16) {
        if protocol != LCP || !self.lcp.is_open() || self.authenticated {
            return;
        }
        let size = match self.auth[0] {
            Auth::Pap => return,
            Auth::ChapMd5 | Auth::MsChapV2 => RANDOM.len() as u8,
        };
        let body = [&[size], RANDOM.as_slice(), self.habits.name.as_bytes()].concat();
        self.control(CHAP, 1, 1, &body);
    }

    fn judge_pap(&mut self, id: u8, body: &[u8]) -> Result<(), String> {
        let expected =
            [&[self.user.len() as u8], self.user.as_bytes(), &[self.password.len() as u8], self.password.as_bytes()];
        let right = self.auth.first() == Some(&Auth::Pap) && body == expected.concat();
        self.control(PAP, if right { ACK } else { NAK }, id, &[0]);
        self.judged(right)
    }

    fn judge_chap(&mut self, id: u8, body: &[u8]) -> Result<(), String> {
        let (size, rest) = body.split_first().ok_or("a Response without a value")?;
        let (value, name) = rest.split_at_checked(usize::from(*size)).ok_or("a Response that is cut off")?;
        let (right, said) = match self.auth[0] {
            Auth::ChapMd5 => {
                let expected = digest(Hash::Md5, &[&[id], self.password.as_bytes(), &RANDOM]);
                (expected == value, self.habits.greeting.to_owned())
            }
            _ => {
                let peer = value.get(..16).and_then(|peer| peer.try_into().ok()).ok_or("a Response of another size")?;
                let (response, proof) = ms_chap_v2(&RANDOM, peer, self.user, &self.password);
                (value.get(24..48) == Some(&response), format!("{proof}{}", self.habits.greeting))
            }
        };
        let right = right && name == self.user.as_bytes();
        let words = if right { said } else { "E=691 R=0 C=00000000000000000000000000000000 V=3 M=denied".to_owned() };
        self.control(CHAP, if right { 3 } else { 4 }, id, words.as_bytes());
        self.judged(right)
    }

    fn judged(&mut self, right: bool) -> Result<(), String> {
        if !right {
            return Ok(());
        }
        self.authenticated = true;
        self.request(IPCP);
        for (protocol, packet) in self.habits.others.clone() {
            self.send(protocol, &packet);
        }
        Ok(())
    }

    fn request(&mut self, protocol: u16) {
        if protocol == LCP {
            let auth: Vec<u8> = match self.auth[0] {
                Auth::Pap => vec![AUTHENTICATION, 4, 0xc0, 0x23],
                Auth::ChapMd5 => vec![AUTHENTICATION, 5, 0xc2, 0x23, 5],
                Auth::MsChapV2 => vec![AUTHENTICATION, 5, 0xc2, 0x23, 0x81],
            };
            let options = self.habits.lcp.iter();
            self.lcp.options =
                options.map(|option| if option[0] == AUTHENTICATION { auth.clone() } else { option.clone() }).collect();
        }
        let own = self.of(protocol);
        own.id = own.id.wrapping_add(1);
        own.requested = true;
        let (id, body) = (own.id, own.options.concat());
        self.control(protocol, REQUEST, id, &body);
    }

    fn control(&mut self, protocol: u16, code: u8, id: u8, body: &[u8]) {
        let [high, low] = (4 + body.len() as u16).to_be_bytes();
        self.send(protocol, &[&[code, id, high, low], body].concat());
    }
}
