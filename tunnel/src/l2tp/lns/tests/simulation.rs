//! Our own LAC against our LNS, over a network that loses, repeats and reorders.

use std::collections::BTreeMap;

use rand::RngExt;

use super::*;
use crate::l2tp::config::{Config, Event};
use crate::l2tp::lac::Lac;

/// LACs, an LNS and what is on its way between them.
struct Network {
    now: Instant,
    lacs: Vec<Lac>,
    lns: Lns,
    rng: StdRng,
    trouble: f64,
    sent: u64,
    /// What is on its way to a LAC, or to the LNS.
    wire: BTreeMap<(Instant, u64), (Option<usize>, Vec<u8>)>,
    of_lacs: Vec<Vec<Event>>,
    of_lns: Vec<LnsEvent>,
    frames: Vec<(Call, Vec<u8>)>,
    /// Which LAC each tunnel of the peers is of, by the ID in its SCCRQ.
    tunnels: BTreeMap<TunnelId, usize>,
}

impl Network {
    fn new(lacs: usize, secret: Option<&[u8]>, seed: u64, trouble: f64) -> Self {
        let secret = secret.map(|secret| Zeroizing::new(secret.to_vec()));
        let lac = |number| Config { secret: secret.clone(), ..Config::new(format!("lac{number}")) };
        let rng = |number: usize| StdRng::seed_from_u64(seed * 10 + number as u64);
        Self {
            now: Instant::now(),
            lacs: (0..lacs).map(|number| Lac::new(lac(number), rng(number))).collect(),
            lns: Lns::new(LnsConfig { secret: secret.clone(), ..config() }, rng(9)),
            rng: StdRng::seed_from_u64(!seed),
            trouble,
            sent: 0,
            wire: BTreeMap::new(),
            of_lacs: vec![Vec::new(); lacs],
            of_lns: Vec::new(),
            frames: Vec::new(),
            tunnels: BTreeMap::new(),
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let arrival = self.wire.keys().next().map(|&(at, _)| at);
            let due = self.lacs.iter().filter_map(Lac::poll_timeout).chain(self.lns.poll_timeout()).chain(arrival);
            let Some(next) = due.min().filter(|&at| at <= end) else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (to, datagram)) = self.wire.pop_first().unwrap();
                match to {
                    Some(lac) => assert_eq!(self.lacs[lac].handle_message(self.now, &datagram), None),
                    None => {
                        let frame = self.lns.handle_message(self.now, &datagram);
                        self.frames.extend(frame.map(|(call, frame)| (call, frame.to_vec())));
                    }
                }
                continue;
            }
            self.lns.handle_timeout(self.now);
            self.lacs.iter_mut().for_each(|lac| lac.handle_timeout(self.now));
        }
        self.now = end;
    }

    fn drain(&mut self) {
        for (number, lac) in self.lacs.iter_mut().enumerate() {
            self.of_lacs[number].extend(std::iter::from_fn(|| lac.poll_event()));
        }
        self.of_lns.extend(std::iter::from_fn(|| self.lns.poll_event()));
        for number in 0..self.lacs.len() {
            while let Some(datagram) = self.lacs[number].poll_transmit() {
                if let Ok(Packet::Control(header, body)) = Packet::read(&datagram)
                    && header.tunnel_id == TunnelId(0)
                    && let Ok(message) = Message::read(body, None)
                {
                    self.tunnels.insert(TunnelId(message.u16(Attribute::ASSIGNED_TUNNEL_ID).unwrap()), number);
                }
                self.deliver(None, datagram);
            }
        }
        while let Some(datagram) = self.lns.poll_transmit() {
            let Packet::Control(header, _) = Packet::read(&datagram).unwrap() else { panic!("data") };
            self.deliver(Some(self.tunnels[&header.tunnel_id]), datagram);
        }
    }

    fn deliver(&mut self, to: Option<usize>, datagram: Vec<u8>) {
        for copy in [true, self.rng.random_bool(self.trouble)] {
            if copy && !self.rng.random_bool(self.trouble) {
                let jitter = if self.trouble > 0.0 { self.rng.random_range(0..200) } else { 0 };
                self.sent += 1;
                let at = self.now + Duration::from_millis(10 + jitter);
                self.wire.insert((at, self.sent), (to, datagram.clone()));
            }
        }
    }
}

#[test]
fn calls_come_up_carry_data_and_end_on_both_sides_whatever_the_network_does() {
    let mut established = 0;
    for seed in 0..200 {
        let trouble = [0.0, 0.1, 0.2, 0.3][usize::try_from(seed % 4).unwrap()];
        let secret = (seed % 3 == 0).then_some(&b"secret"[..]);
        let mut network = Network::new(2, secret, seed, trouble);
        for lac in &mut network.lacs {
            lac.connect(network.now);
        }
        network.run(50 * SECOND);
        let opened: Vec<_> = network
            .of_lns
            .iter()
            .filter_map(|event| match event {
                LnsEvent::CallOpened { call, .. } => Some(*call),
                _ => None,
            })
            .collect();
        for (number, events) in network.of_lacs.iter().enumerate() {
            let up = events.contains(&Event::SessionEstablished);
            let lost = events.iter().any(|event| matches!(event, Event::Failed(Error::NoResponse { .. })));
            assert!(up || lost, "seed {seed}, LAC {number}: {events:?}");
        }
        if !network.lacs.iter().all(Lac::is_established) || opened.len() != 2 {
            assert!(trouble > 0.1, "seed {seed}: {:?} {:?}", network.of_lacs, network.of_lns);
            continue;
        }
        established += 1;
        network.trouble = 0.0;
        for number in 0..2_u8 {
            let mut message = Vec::new();
            network.lacs[usize::from(number)].write_data_header(&mut message, 1).unwrap();
            message.push(number);
            network.deliver(None, message);
        }
        network.run(SECOND);
        let calls: std::collections::BTreeSet<_> = network.frames.iter().map(|(call, _)| *call).collect();
        assert_eq!(calls, opened.iter().copied().collect(), "seed {seed}");
        // One end by each side.
        network.trouble = trouble;
        network.lacs[0].close(network.now, CloseReason::Administrative);
        network.run(40 * SECOND);
        network.lns.close(network.now, CloseReason::Administrative);
        network.run(300 * SECOND);
        assert!(network.lns.is_idle(), "seed {seed}");
        assert_eq!(network.lns.poll_timeout(), None, "seed {seed}");
        let closed = |event: &&LnsEvent| matches!(event, LnsEvent::CallClosed { .. });
        assert_eq!(network.of_lns.iter().filter(closed).count(), 2, "seed {seed}: {:?}", network.of_lns);
        assert!(network.of_lacs[0].contains(&Event::Closed), "seed {seed}");
    }
    assert!(established >= 150, "{established} of 200");
}
