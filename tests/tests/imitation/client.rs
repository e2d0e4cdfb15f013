//! A device that dials: IKEv1, ESP, L2TP and PPP put together. Time does not exist for it, and nothing is sent twice.

use std::net::Ipv4Addr;

use rand::SeedableRng;
use rand::rngs::StdRng;
use towline_tunnel::buffer::Port;

use crate::device::{Device, Selector};
use crate::esp::{Sa, read_udp, udp};
use crate::ike::{Event, Ike};
use crate::l2tp::{L2tp, Received, State};
use crate::ppp::{IPV4, Ppp};

/// How it dials.
pub(crate) struct Dial<'a> {
    pub(crate) own: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) psk: &'a str,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    /// Where the first message goes.
    pub(crate) port: Port,
    pub(crate) seed: u64,
}

pub(crate) struct Client {
    pub(crate) device: Device,
    own: Ipv4Addr,
    server: Ipv4Addr,
    pub(crate) ike: Ike,
    /// ISAKMP SAs that were renewed.
    older: Vec<Ike>,
    psk: String,
    seed: u64,
    /// Pairs of SAs, inbound and outbound, the newest last.
    pub(crate) pairs: Vec<(Sa, Sa)>,
    pub(crate) l2tp: L2tp,
    pub(crate) ppp: Ppp,
    /// Datagrams for the server, each to its port.
    pub(crate) out: Vec<(Port, Vec<u8>)>,
    pub(crate) notified: Vec<u16>,
    pub(crate) deleted: Vec<u32>,
    pub(crate) isakmp_deleted: bool,
    /// The result code of StopCCN or CDN.
    pub(crate) ended: Option<u16>,
    /// ESP packets that no SA of this end opens.
    pub(crate) unopened: u32,
    /// How many packets came under each pair.
    pub(crate) opened: Vec<u32>,
}

impl Client {
    pub(crate) fn new(device: &Device, dial: &Dial<'_>) -> Self {
        let rng = StdRng::seed_from_u64(dial.seed);
        let mut client = Self {
            device: device.clone(),
            own: dial.own,
            server: dial.server,
            ike: Ike::new(device, dial.own, dial.server, dial.psk, dial.port, rng),
            older: Vec::new(),
            psk: dial.psk.to_owned(),
            seed: dial.seed,
            pairs: Vec::new(),
            l2tp: L2tp::new(device.l2tp.clone()),
            ppp: Ppp::new(device.ppp.clone(), dial.user, dial.password),
            out: Vec::new(),
            notified: Vec::new(),
            deleted: Vec::new(),
            isakmp_deleted: false,
            ended: None,
            unopened: 0,
            opened: Vec::new(),
        };
        client.pump();
        client
    }

    /// Takes a datagram that came to `port`. An error is what a real device would stop at.
    pub(crate) fn handle_datagram(&mut self, port: Port, datagram: &[u8]) -> Result<(), String> {
        let result = match (port, datagram) {
            (Port::Ike, message) => self.handle_ike(message),
            (Port::NatT, [0xff]) => Ok(()),
            (Port::NatT, [0, 0, 0, 0, message @ ..]) => self.handle_ike(message),
            (Port::NatT, packet) => self.handle_esp(packet),
        };
        self.pump();
        result.map_err(|fault| format!("{}: {fault}", self.device.name))
    }

    fn handle_ike(&mut self, message: &[u8]) -> Result<(), String> {
        // Old ones answer still. What the server begins by itself in phase 1 is nobody's, and is not answered.
        let mut all = self.older.iter_mut().chain([&mut self.ike]);
        let Some(ike) = all.find(|ike| ike.knows(message)) else { return Ok(()) };
        let before = ike.is_established();
        ike.handle_message(message)?;
        if ike.is_established() && !before {
            ike.quick_mode();
        }
        let (out, events) = (std::mem::take(&mut ike.out), std::mem::take(&mut ike.events));
        self.out.extend(out);
        for event in events {
            match event {
                Event::Pair(inbound, outbound) => {
                    self.pairs.push((inbound, outbound));
                    self.opened.push(0);
                    if self.l2tp.state == State::Idle {
                        self.l2tp.dial();
                    }
                }
                Event::Deleted(spis) => {
                    // Of the outbound SAs: those that the server does not take any more.
                    self.pairs.retain(|(_, outbound)| !spis.contains(&outbound.spi));
                    self.deleted.extend(spis);
                }
                Event::IsakmpDeleted => self.isakmp_deleted = true,
                Event::Notified(kind) => self.notified.push(kind),
            }
        }
        Ok(())
    }

    fn handle_esp(&mut self, packet: &[u8]) -> Result<(), String> {
        let spi = packet.get(..4).map(|spi| u32::from_be_bytes([spi[0], spi[1], spi[2], spi[3]]));
        let place = self.pairs.iter().position(|(inbound, _)| Some(inbound.spi) == spi);
        let opened = place.and_then(|place| self.pairs[place].0.open(packet));
        let Some(datagram) = opened else {
            self.unopened += 1;
            return Ok(());
        };
        if let Some(count) = place.and_then(|place| self.opened.get_mut(place)) {
            *count += 1;
        }
        let (ports, payload) = read_udp(&datagram).ok_or("a UDP datagram of another length")?;
        if ports != [1701, self.device.l2tp.port] {
            return Err(format!("L2TP from port {} to port {}", ports[0], ports[1]));
        }
        if payload.len() < 6 {
            return Err("an L2TP message without a header".to_owned());
        }
        let before = self.l2tp.state;
        match self.l2tp.handle(payload)? {
            Received::Nothing => {}
            Received::Frame(frame) => self.ppp.handle(&frame)?,
            Received::Ended(result) => self.ended = Some(result),
        }
        if self.l2tp.state == State::Established && before != State::Established {
            self.ppp.start();
        }
        Ok(())
    }

    /// Sends an IP packet through the link.
    pub(crate) fn send_ip(&mut self, packet: &[u8]) {
        self.ppp.send(IPV4, packet);
        self.pump();
    }

    /// Begins Quick Mode anew.
    pub(crate) fn rekey(&mut self) {
        self.ike.quick_mode();
        self.pump();
    }

    /// Begins phase 1 anew, on port 4500 (RFC 3947 section 4); Quick Mode follows.
    pub(crate) fn renew(&mut self) {
        self.seed += 1_000;
        let rng = StdRng::seed_from_u64(self.seed);
        let newer = Ike::new(&self.device, self.own, self.server, &self.psk, Port::NatT, rng);
        self.older.push(std::mem::replace(&mut self.ike, newer));
        self.pump();
    }

    /// Begins Quick Mode anew with other identities.
    pub(crate) fn rekey_with(&mut self, selector: Selector) {
        self.ike.quick_mode_with(selector);
        self.pump();
    }

    /// Hangs up: the L2TP tunnel first, then the SAs.
    pub(crate) fn hang_up(&mut self) {
        self.l2tp.stop();
        self.pump();
        let spis: Vec<u32> = self.pairs.iter().map(|(inbound, _)| inbound.spi).collect();
        for spi in spis {
            self.ike.delete(spi);
        }
        self.ike.delete_isakmp();
        self.pump();
    }

    fn pump(&mut self) {
        self.out.append(&mut self.ike.out);
        for frame in std::mem::take(&mut self.ppp.out) {
            self.l2tp.out.push(self.l2tp.data(&frame));
        }
        let (ends, ports) = ([self.own, self.server], [self.device.l2tp.port, 1701]);
        if let Some((_, outbound)) = self.pairs.last_mut() {
            for message in std::mem::take(&mut self.l2tp.out) {
                self.out.push((Port::NatT, outbound.seal(&udp(ends, ports, &message))));
            }
        }
    }
}
