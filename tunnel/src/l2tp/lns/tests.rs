//! The LNS against LACs that do what a test says, and against our own.

mod calls;
mod clients;
mod ending;
mod establishment;
mod liveness;
mod simulation;

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::{Call, Lns, LnsConfig, LnsEvent};
use crate::l2tp::avp::Attribute;
use crate::l2tp::channel::{Channel, Retransmission};
use crate::l2tp::config::{NotEstablished, Peer};
use crate::l2tp::ending::CloseReason;
use crate::l2tp::error::{Authentication, Error};
use crate::l2tp::message::{Body, ControlHeader, DataHeader, Message, MessageType, Packet, SessionId, TunnelId};
use crate::l2tp::outcome::{CdnResult, ErrorCode, Outcome, StopCcnResult};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> LnsConfig {
    LnsConfig { secret: None, host_name: "lns".into(), hello: Duration::from_secs(60), max_tunnels: 4, max_calls: 4 }
}

fn with_secret(secret: &[u8]) -> LnsConfig {
    LnsConfig { secret: Some(Zeroizing::new(secret.to_vec())), ..config() }
}

/// A LAC that says what a test makes it say, over a control channel that works.
struct Caller {
    channel: Channel,
    /// Its name of the tunnel.
    id: TunnelId,
    secret: Option<Vec<u8>>,
    /// Whether it hears and says nothing.
    silent: bool,
    /// Every message that its channel delivered.
    received: Vec<(SessionId, Message)>,
    /// Every datagram that has come to it.
    datagrams: Vec<Vec<u8>>,
}

impl Caller {
    fn types(&self) -> Vec<MessageType> {
        self.received.iter().map(|(_, message)| message.message_type).collect()
    }

    fn last(&self) -> &Message {
        &self.received.last().unwrap().1
    }

    /// The Result Code, Error Code and text of the last message, which is a CDN or StopCCN.
    fn told(&self) -> Outcome {
        Outcome::read(self.last().value(Attribute::RESULT_CODE).unwrap(), |_| true).unwrap()
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        let Packet::Control(header, body) = Packet::read(datagram).unwrap() else { panic!("data") };
        self.datagrams.push(datagram.to_vec());
        self.channel.handle_message(now, &header, body);
        while let Some((session, body)) = self.channel.poll_message() {
            let message = Message::read(&body, self.secret.as_deref()).unwrap();
            if message.message_type == MessageType::SCCRP {
                self.channel.set_tunnel_id(TunnelId(message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap()));
            }
            self.received.push((session, message));
        }
    }
}

/// An LNS and those who call it.
struct Bench {
    now: Instant,
    lns: Lns,
    callers: Vec<Caller>,
    events: Vec<LnsEvent>,
}

impl Bench {
    fn new(config: LnsConfig) -> Self {
        let lns = Lns::new(config, StdRng::seed_from_u64(1));
        Self { now: Instant::now(), lns, callers: Vec::new(), events: Vec::new() }
    }

    /// An LNS with one call, whose tunnel and session the LAC calls 1 and 2.
    fn established(config: LnsConfig) -> (Self, Call) {
        let mut bench = Self::new(config);
        bench.tunnel(1);
        let call = bench.call(0, 2);
        bench.events.clear();
        (bench, call)
    }

    fn caller(&mut self, id: u16) -> usize {
        self.callers.push(Caller {
            channel: Channel::new(Retransmission::default(), 4),
            id: TunnelId(id),
            secret: None,
            silent: false,
            received: Vec::new(),
            datagrams: Vec::new(),
        });
        self.callers.len() - 1
    }

    /// Another control connection, up to its SCCCN.
    fn tunnel(&mut self, id: u16) -> usize {
        let caller = self.caller(id);
        self.say(caller, 0, sccrq(id));
        self.say(caller, 0, Body::new(MessageType::SCCCN));
        caller
    }

    /// Another call of a caller, which calls it `session`.
    fn call(&mut self, caller: usize, session: u16) -> Call {
        self.say(caller, 0, icrq(session));
        assert_eq!(self.callers[caller].last().message_type, MessageType::ICRP);
        let id = self.callers[caller].last().u16(Attribute::ASSIGNED_SESSION_ID).unwrap();
        self.say(caller, id, iccn());
        Call { tunnel: self.callers[caller].channel.tunnel_id(), session: SessionId(id) }
    }

    /// A caller says something, and everything that follows from it at once happens.
    fn say(&mut self, caller: usize, session: u16, body: Body) {
        self.callers[caller].channel.send(SessionId(session), body).unwrap();
        self.run(Duration::ZERO);
    }

    /// Everything that happens in the next `time`, without delay on the way.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let due =
                self.callers.iter().filter(|caller| !caller.silent).filter_map(|caller| caller.channel.poll_timeout());
            let Some(next) = due.chain(self.lns.poll_timeout()).min().filter(|&at| at <= end) else { break };
            self.now = self.now.max(next);
            self.lns.handle_timeout(self.now);
            for caller in &mut self.callers {
                caller.channel.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            for caller in &mut self.callers {
                caller.channel.flush(self.now);
                while let Some(datagram) = caller.channel.poll_transmit() {
                    quiet = false;
                    if !caller.silent {
                        assert_eq!(self.lns.handle_message(self.now, &datagram), None);
                    }
                }
            }
            while let Some(datagram) = self.lns.poll_transmit() {
                quiet = false;
                let Packet::Control(header, _) = Packet::read(&datagram).unwrap() else { panic!("data") };
                let callers = self.callers.iter_mut().rev();
                for caller in callers.filter(|caller| caller.id == header.tunnel_id && !caller.silent).take(1) {
                    caller.handle(self.now, &datagram);
                }
            }
            self.events.extend(std::iter::from_fn(|| self.lns.poll_event()));
            if quiet {
                break;
            }
        }
    }

    fn take_events(&mut self) -> Vec<LnsEvent> {
        std::mem::take(&mut self.events)
    }
}

fn sccrq(id: u16) -> Body {
    avps_of_sccrq(Body::new(MessageType::SCCRQ), id)
}

fn avps_of_sccrq(body: Body, id: u16) -> Body {
    body.u16(Attribute::PROTOCOL_VERSION, 0x0100)
        .bytes(Attribute::HOST_NAME, b"lac")
        .u32(Attribute::FRAMING_CAPABILITIES, 3)
        .u16(Attribute::ASSIGNED_TUNNEL_ID, id)
}

fn icrq(session: u16) -> Body {
    Body::new(MessageType::ICRQ).u16(Attribute::ASSIGNED_SESSION_ID, session).u32(Attribute::CALL_SERIAL_NUMBER, 7)
}

fn iccn() -> Body {
    Body::new(MessageType::ICCN).u32(Attribute::TX_CONNECT_SPEED, 1000).u32(Attribute::FRAMING_TYPE, 1)
}

/// A data message of a LAC.
fn data(call: Call, ns: Option<u16>, frame: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    DataHeader { tunnel_id: call.tunnel, session_id: call.session, ns }.encode(&mut out, frame.len());
    out.extend_from_slice(frame);
    out
}

#[test]
fn a_peer_at_rest_with_one_call_takes_a_kilobyte() {
    let (bench, _) = Bench::established(config());
    assert_eq!((bench.lns.tunnels.capacity(), bench.lns.shared.events.capacity()), (1, 0));
    let inline = size_of::<Lns>() + size_of::<super::Tunnel>();
    // What is on the heap besides is the list of calls, with one entry, and that of timers, with room for eleven.
    assert!(inline <= 832, "{inline}");
}
