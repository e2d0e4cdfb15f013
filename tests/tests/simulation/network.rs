//! A network with virtual time: every datagram may be lost, sent twice, or held up so that others overtake it, as a seed decides.

use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use towline_tunnel::buffer::Port;

/// How bad the network is. Probabilities are between 0 and 1.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub loss: f64,
    pub duplication: f64,
    pub reordering: f64,
}

impl Weather {
    pub const FAIR: Self = Self { loss: 0.0, duplication: 0.0, reordering: 0.0 };
}

/// One direction's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Client,
    Gateway,
}

#[derive(Debug, PartialEq, Eq)]
struct Flight {
    at: Instant,
    number: u64,
    to: Side,
    port: Port,
    datagram: Vec<u8>,
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
pub struct Network {
    pub weather: Weather,
    rng: StdRng,
    flights: BinaryHeap<Flight>,
    count: u64,
}

impl Network {
    pub fn new(weather: Weather, seed: u64) -> Self {
        Self { weather, rng: StdRng::seed_from_u64(seed), flights: BinaryHeap::new(), count: 0 }
    }

    pub fn send(&mut self, now: Instant, to: Side, port: Port, datagram: &[u8]) {
        let copies = if self.rng.random_bool(self.weather.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.random_bool(self.weather.loss) {
                continue;
            }
            let delay = if self.rng.random_bool(self.weather.reordering) { 20..200 } else { 10..11 };
            let at = now + Duration::from_millis(self.rng.random_range(delay));
            self.count += 1;
            self.flights.push(Flight { at, number: self.count, to, port, datagram: datagram.to_vec() });
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.flights.peek().map(|flight| flight.at)
    }

    pub fn receive(&mut self, now: Instant) -> Option<(Side, Port, Vec<u8>)> {
        if self.next()? > now {
            return None;
        }
        self.flights.pop().map(|flight| (flight.to, flight.port, flight.datagram))
    }
}
