//! A network with virtual time: every datagram may be lost, sent twice, or held up so that others overtake it, as a seed decides.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use towline_tunnel::buffer::{Carrier, Port};

/// How bad the network is. Probabilities are between 0 and 1, each for one datagram in one direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    pub(crate) reordering: f64,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { loss: 0.0, duplication: 0.0, reordering: 0.0 };

    /// The weather of a seed: whole percents from 0 to `worst`, each evil by itself; every fourth seed has one of them at its
    /// worst.
    pub(crate) fn of(seed: u64, worst: u32) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut evils = [0; 3].map(|_: u32| rng.random_range(0..=worst));
        if seed.is_multiple_of(4)
            && let Some(evil) = evils.get_mut(usize::try_from(seed / 4 % 3).expect("below three"))
        {
            *evil = worst;
        }
        let [loss, duplication, reordering] = evils.map(|percent| f64::from(percent) / 100.0);
        Self { loss, duplication, reordering }
    }
}

/// One direction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Gateway,
}

/// A datagram on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) to: Side,
    /// What carries it: UDP of one of the gateway's ports, or IP.
    pub(crate) carrier: Carrier,
    /// The client's own port; of no account without UDP.
    pub(crate) client_port: u16,
    pub(crate) octets: Vec<u8>,
}

impl Datagram {
    pub(crate) fn is_isakmp(&self) -> bool {
        let port = self.carrier.port();
        port == Some(Port::Ike) || (port == Some(Port::NatT) && self.octets.starts_with(&[0; 4]))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Flight {
    at: Instant,
    number: u64,
    datagram: Datagram,
}

impl Ord for Flight {
    // The heap gives the greatest first: turn round.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The network between the two ends.
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// What never arrives.
    pub(crate) blocked: fn(&Datagram) -> bool,
    rng: StdRng,
    flights: BinaryHeap<Flight>,
    count: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { weather, blocked: |_| false, rng, flights: BinaryHeap::new(), count: 0 }
    }

    pub(crate) fn send(&mut self, now: Instant, datagram: &Datagram) {
        if self.rng.random_bool(self.weather.loss) || (self.blocked)(datagram) {
            return;
        }
        let copies = if self.rng.random_bool(self.weather.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.rng.random_bool(self.weather.reordering) { 20..200 } else { 10..11 };
            let at = now + Duration::from_millis(self.rng.random_range(delay));
            self.count += 1;
            self.flights.push(Flight { at, number: self.count, datagram: datagram.clone() });
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.flights.peek().map(|flight| flight.at)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next()? > now {
            return None;
        }
        self.flights.pop().map(|flight| flight.datagram)
    }
}
