//! A gateway at work: IKEv1, ESP, L2TP and PPP put together. Nothing is sent twice, and what it would not go on with is a fault.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use towline_tunnel::buffer::Port;

use super::lns::{Lns, Received, State};
use super::ppp::Server;
use super::responder::Responder;
use super::{Gateway, Renewal};
use crate::esp::{Sa, read_udp, udp};
use crate::ike::Event;
use crate::ppp::IPV4;

/// The name and the password that it knows.
pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "wonderland";
/// What the client offers as the lifetime of an ESP SA, in seconds.
const OFFERED_LIFE: u32 = 3_600;

/// A pair of ESP SAs.
struct Pair {
    inbound: Sa,
    outbound: Sa,
    since: Instant,
    /// How many packets came under it.
    opened: u32,
}

pub(crate) struct HeadEnd {
    pub(crate) gateway: Gateway,
    own: Ipv4Addr,
    /// Where it sees the client on port 500 and on 4500.
    seen: [SocketAddr; 2],
    psk: &'static str,
    password: &'static str,
    /// ISAKMP SAs, the newest last.
    pub(crate) ike: Vec<Responder>,
    pairs: Vec<Pair>,
    pub(crate) lns: Lns,
    pub(crate) ppp: Server,
    pub(crate) out: Vec<(Port, Vec<u8>)>,
    /// What it stopped at.
    pub(crate) fault: Option<String>,
    /// How many Quick Modes there were, by either end, and how many of them this end began.
    pub(crate) agreed: [u32; 2],
    /// Notifications of the client.
    pub(crate) notified: Vec<u16>,
    pub(crate) isakmp_deleted: bool,
    /// StopCCN and CDN of the client with their result codes.
    pub(crate) told: Vec<(u16, u16)>,
    /// ESP packets that no SA opens.
    pub(crate) unopened: u32,
    /// How often the only pair of SAs that was left has expired.
    pub(crate) expired: u32,
    began: Instant,
    seconds: u64,
    renewed: u64,
}

impl HeadEnd {
    pub(crate) fn new(
        gateway: &Gateway,
        own: Ipv4Addr,
        seen: [SocketAddr; 2],
        (psk, password): (&'static str, &'static str),
        now: Instant,
    ) -> Self {
        Self {
            own,
            seen,
            psk,
            password,
            ike: Vec::new(),
            pairs: Vec::new(),
            lns: Lns::new(gateway.l2tp.clone()),
            ppp: Server::new(gateway.ppp.clone(), USER, password),
            gateway: gateway.clone(),
            out: Vec::new(),
            fault: None,
            agreed: [0; 2],
            notified: Vec::new(),
            isakmp_deleted: false,
            told: Vec::new(),
            unopened: 0,
            expired: 0,
            began: now,
            seconds: 0,
            renewed: 0,
        }
    }

    /// The same gateway as it is after a restart.
    pub(crate) fn anew(&self, now: Instant) -> Self {
        Self::new(&self.gateway, self.own, self.seen, (self.psk, self.password), now)
    }

    /// Whether the client has a link.
    pub(crate) fn is_up(&self) -> bool {
        self.lns.state == State::Established && self.ppp.is_open()
    }

    /// Whether nothing of the client is left.
    pub(crate) fn is_idle(&self) -> bool {
        self.lns.state == State::Closed && self.pairs.is_empty() && self.isakmp_deleted
    }

    /// How many packets came under the newest pair of SAs.
    pub(crate) fn opened(&self) -> u32 {
        self.pairs.last().map_or(0, |pair| pair.opened)
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, port: Port, datagram: &[u8]) {
        let result = match (port, datagram) {
            (Port::Ike, message) => self.handle_ike(now, port, message),
            (Port::NatT, [0xff]) => Ok(()),
            (Port::NatT, [0, 0, 0, 0, message @ ..]) => self.handle_ike(now, port, message),
            (Port::NatT, packet) => self.handle_esp(packet),
        };
        self.pump();
        if let Err(fault) = result {
            self.fault.get_or_insert(fault);
        }
    }

    fn handle_ike(&mut self, now: Instant, port: Port, message: &[u8]) -> Result<(), String> {
        let place = match self.ike.iter().position(|ike| ike.knows(message)) {
            Some(place) => place,
            // What follows something that this end knows nothing of is nobody's.
            None if message.get(8..16) != Some(&[0; 8]) => return Ok(()),
            None => {
                let rng = StdRng::seed_from_u64(500 + self.ike.len() as u64);
                self.ike.push(Responder::new(&self.gateway.ike, self.own, self.seen, self.psk, rng));
                self.ike.len() - 1
            }
        };
        let ike = &mut self.ike[place];
        let result = ike.handle_message(port, message);
        self.out.append(&mut ike.out);
        for event in std::mem::take(&mut ike.events) {
            match event {
                Event::Pair(inbound, outbound) => {
                    self.agreed[0] += 1;
                    self.renewed = self.seconds;
                    self.pairs.push(Pair { inbound, outbound, since: now, opened: 0 });
                }
                Event::Deleted(_) if self.gateway.ike.ignores_deletes => {}
                // Of the outbound SAs: those that the client does not take any more.
                Event::Deleted(spis) => self.pairs.retain(|pair| !spis.contains(&pair.outbound.spi)),
                Event::IsakmpDeleted => self.isakmp_deleted = place + 1 == self.ike.len(),
                Event::Notified(kind) => self.notified.push(kind),
            }
        }
        result
    }

    fn handle_esp(&mut self, packet: &[u8]) -> Result<(), String> {
        let spi = u32::from_be_bytes(packet.get(..4).and_then(|spi| spi.try_into().ok()).ok_or("a short packet")?);
        let opened = self.pairs.iter_mut().find(|pair| pair.inbound.spi == spi).and_then(|pair| {
            pair.opened += 1;
            pair.inbound.open(packet)
        });
        let Some(datagram) = opened else {
            self.unopened += 1;
            return Ok(());
        };
        let (ports, payload) = read_udp(&datagram).ok_or("a UDP datagram of another length")?;
        if ports != [1701, 1701] {
            return Err(format!("L2TP from port {} to port {}", ports[0], ports[1]));
        }
        if self.lns.state == State::Closed && payload.get(4..6) == Some(&[0, 0]) {
            // Whoever dials anew begins with tunnel 0.
            self.lns = Lns::new(self.gateway.l2tp.clone());
        }
        let before = self.lns.state;
        match self.lns.handle(payload)? {
            Received::Nothing => {}
            Received::Frame(frame) => self.ppp.handle(&frame)?,
            Received::Ended(message, code) => self.told.push((message, code)),
        }
        if self.lns.state == State::Established && before != State::Established {
            self.ppp = Server::new(self.gateway.ppp.clone(), USER, self.password);
            self.ppp.start();
        }
        self.answer_pings();
        Ok(())
    }

    /// The network behind it: echo requests are answered.
    fn answer_pings(&mut self) {
        let asked: Vec<Vec<u8>> =
            self.ppp.packets.iter().filter(|packet| packet[9] == 1 && packet[20] == 8).cloned().collect();
        self.ppp.packets.retain(|packet| !(packet[9] == 1 && packet[20] == 8));
        for mut packet in asked {
            let (from, to) = (packet[12..16].to_vec(), packet[16..20].to_vec());
            packet[12..16].copy_from_slice(&to);
            packet[16..20].copy_from_slice(&from);
            packet[20] = 0;
            self.ppp.send(IPV4, &packet);
        }
    }

    /// Sends an IP packet to the client.
    pub(crate) fn send_ip(&mut self, packet: &[u8]) {
        self.ppp.send(IPV4, packet);
        self.pump();
    }

    /// Whole seconds have passed: questions about life, renewals, and the end of SAs.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        while self.seconds < now.saturating_duration_since(self.began).as_secs() {
            self.seconds += 1;
            self.second(now);
        }
        self.pump();
    }

    fn second(&mut self, now: Instant) {
        let is_due = |every: Option<u64>| every.is_some_and(|every| self.seconds.is_multiple_of(every));
        let (hello, echo, dpd) =
            (is_due(self.gateway.l2tp.hello), is_due(self.gateway.ppp.echo), is_due(self.gateway.ike.dpd));
        if hello && self.is_up() {
            self.lns.hello();
        }
        if echo && self.is_up() {
            self.ppp.echo();
        }
        let renewal = match self.gateway.ike.renewal {
            Renewal::Own(after) => self.seconds - self.renewed == after,
            Renewal::Peers => false,
        };
        let limit = if self.gateway.ike.claims_life { self.gateway.ike.life.0 } else { OFFERED_LIFE };
        let limit = Duration::from_secs(u64::from(limit.min(OFFERED_LIFE)));
        let Some(ike) = self.ike.iter_mut().rfind(|ike| ike.is_established()) else { return };
        if dpd {
            ike.ask(self.seconds as u32);
        }
        if renewal {
            self.agreed[1] += 1;
            ike.begin();
        }
        let before = self.pairs.len();
        self.pairs.retain(|pair| {
            let lives = now.saturating_duration_since(pair.since) < limit;
            if !lives {
                ike.delete(pair.inbound.spi);
            }
            lives
        });
        self.expired += u32::from(before > 0 && self.pairs.is_empty());
        self.out.append(&mut ike.out);
    }

    /// Ends the control connection and nothing else.
    pub(crate) fn stop_l2tp(&mut self) {
        self.lns.stop();
        self.pump();
    }

    /// The administrator ends everything: the link, the call, the SAs.
    pub(crate) fn hang_up(&mut self) {
        self.ppp.terminate();
        self.pump();
        self.lns.stop();
        self.pump();
        if let Some(ike) = self.ike.last_mut() {
            self.pairs.iter().for_each(|pair| ike.delete(pair.inbound.spi));
            ike.delete_isakmp();
            self.out.append(&mut ike.out);
        }
        self.pairs.clear();
    }

    fn pump(&mut self) {
        for frame in std::mem::take(&mut self.ppp.out) {
            self.lns.out.push(self.lns.data(&frame));
        }
        let IpAddr::V4(client) = self.seen[1].ip() else { return };
        self.lns.out.extend(self.lns.late.take());
        let old = self.gateway.ike.prefers_old;
        let Some(pair) = (if old { self.pairs.first_mut() } else { self.pairs.last_mut() }) else { return };
        for message in std::mem::take(&mut self.lns.out) {
            self.out.push((Port::NatT, pair.outbound.seal(&udp([self.own, client], [1701, 1701], &message))));
        }
    }
}
