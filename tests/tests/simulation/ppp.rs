//! The smallest PPP server: LCP that asks for PAP, PAP that accepts one user, IPCP that hands out one address.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const LCP: u16 = 0xc021;
const PAP: u16 = 0xc023;
const IPCP: u16 = 0x8021;
const IP: u16 = 0x0021;
const REQUEST: u8 = 1;
const ACK: u8 = 2;
const NAK: u8 = 3;
const REJECT: u8 = 4;
const TERMINATE: u8 = 5;
const TERMINATE_ACK: u8 = 6;
const ECHO: u8 = 9;
const ECHO_REPLY: u8 = 10;
const OPTION_AUTH_PAP: [u8; 4] = [3, 4, 0xc0, 0x23];
const OPTION_AUTH_EAP: [u8; 4] = [3, 4, 0xc2, 0x27];
const MRU: u8 = 1;
const RESTART: Duration = Duration::from_secs(3);

/// The client's address.
pub(crate) const CLIENT: [u8; 4] = [10, 20, 5, 10];
const SERVER: [u8; 4] = [10, 20, 5, 1];

/// What a server does with those who dial in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manner {
    #[default]
    Accepts,
    RefusesPassword,
    /// Lets anybody in.
    AsksNothing,
    /// Insists on EAP.
    WantsEap,
    Silent,
}

#[derive(Default)]
pub(crate) struct Server {
    pub(crate) manner: Manner,
    /// The MRU of the client's last Configure-Request.
    pub(crate) client_mru: Option<u16>,
    out: VecDeque<Vec<u8>>,
    started: bool,
    lcp_acked: bool,
    authenticated: bool,
    ipcp_acked: bool,
    restart: Option<Instant>,
}

impl Server {
    pub(crate) fn new(manner: Manner) -> Self {
        Self { manner, ..Self::default() }
    }

    pub(crate) fn start(&mut self, now: Instant) {
        self.started = true;
        self.restart = Some(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.restart.is_none_or(|at| at > now) {
            return;
        }
        self.restart = Some(now + RESTART);
        if self.manner == Manner::Silent {
            return;
        }
        if !self.lcp_acked {
            let auth = match self.manner {
                Manner::AsksNothing => &[][..],
                Manner::WantsEap => &OPTION_AUTH_EAP,
                Manner::Accepts | Manner::RefusesPassword | Manner::Silent => &OPTION_AUTH_PAP,
            };
            self.send(LCP, REQUEST, 1, auth);
        } else if self.authenticated && !self.ipcp_acked {
            self.send(IPCP, REQUEST, 2, &[&[3, 6][..], &SERVER].concat());
        } else if self.ipcp_acked {
            self.restart = None;
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.restart
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// Takes a frame; returns an IP packet.
    pub(crate) fn handle_frame<'a>(&mut self, now: Instant, frame: &'a [u8]) -> Option<&'a [u8]> {
        let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
        let (protocol, body) = frame.split_first_chunk::<2>()?;
        let protocol = u16::from_be_bytes(*protocol);
        if protocol == IP {
            return (self.authenticated && self.ipcp_acked).then_some(body);
        }
        let (&[code, id, high, low], rest) = body.split_first_chunk::<4>()?;
        let data = rest.get(..usize::from(u16::from_be_bytes([high, low])).checked_sub(4)?)?;
        if self.manner == Manner::Silent {
            return None;
        }
        match (protocol, code) {
            (LCP, REQUEST) => {
                if let [MRU, 4, high, low, ..] = *data {
                    self.client_mru = Some(u16::from_be_bytes([high, low]));
                }
                self.send(LCP, ACK, id, data);
            }
            (LCP, ACK) if !self.lcp_acked => {
                self.lcp_acked = true;
                self.authenticated = self.manner == Manner::AsksNothing;
                self.restart = Some(if self.authenticated { now } else { now + RESTART });
            }
            (LCP, ECHO) => self.send(LCP, ECHO_REPLY, id, &[0, 0, 0, 0]),
            (LCP, TERMINATE) => self.send(LCP, TERMINATE_ACK, id, &[]),
            (PAP, REQUEST) if self.manner == Manner::RefusesPassword => self.send(PAP, NAK, id, &[0]),
            (PAP, REQUEST) => {
                self.authenticated = true;
                self.restart = Some(now);
                self.send(PAP, ACK, id, &[0]);
            }
            (IPCP, REQUEST) => self.answer_ipcp(id, data),
            (IPCP, ACK) => self.ipcp_acked = true,
            _ => {}
        }
        None
    }

    fn answer_ipcp(&mut self, id: u8, options: &[u8]) {
        let mut rest = options;
        let (mut rejected, mut address) = (Vec::new(), None);
        while let [kind, length, ..] = *rest {
            let Some((option, next)) = rest.split_at_checked(usize::from(length).max(2)) else { break };
            if kind == 3 {
                address = Some(option);
            } else {
                rejected.extend(option);
            }
            rest = next;
        }
        let wanted = [&[3, 6][..], &CLIENT].concat();
        if !rejected.is_empty() {
            self.send(IPCP, REJECT, id, &rejected);
        } else if address == Some(&wanted) {
            self.send(IPCP, ACK, id, options);
        } else {
            self.send(IPCP, NAK, id, &wanted);
        }
    }

    fn send(&mut self, protocol: u16, code: u8, id: u8, data: &[u8]) {
        let length = u16::try_from(4 + data.len()).expect("a control packet is short");
        let mut frame = vec![0xff, 0x03];
        frame.extend(protocol.to_be_bytes());
        frame.extend([code, id]);
        frame.extend(length.to_be_bytes());
        frame.extend(data);
        self.out.push_back(frame);
    }
}
