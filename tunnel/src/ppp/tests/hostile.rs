//! Whatever comes, in both roles.

use rand::RngExt as _;

use super::server::{assignment, established_with};
use super::*;
use crate::aaa::{Cause, Grant, Refusal};

const PROTOCOLS: [u16; 9] = [0xc021, 0xc023, 0xc223, 0xc227, 0x8021, 0x8057, 0x80fd, 0x21, 0x57];

/// Sixty frames without sense, and verdicts and time in between.
fn annoy(mut link: Link, rng: &mut StdRng) {
    for _ in 0..60 {
        let mut frame = PROTOCOLS[rng.random_range(0..PROTOCOLS.len())].to_be_bytes().to_vec();
        let length = rng.random_range(0..24);
        frame.extend([rng.random_range(0..14), rng.random_range(0..4), 0, length]);
        frame.extend((0..rng.random_range(0..24)).map(|_| rng.random_range(0..32)));
        link.ppp.handle_frame(link.now, &frame);
        match rng.random_range(0..12) {
            0 => {
                link.ppp.accept(link.now, &Grant::default(), assignment());
            }
            1 => link.ppp.reject(link.now, &Refusal::new(Cause::WrongPassword)),
            2 => link.ppp.challenge(link.now, &[1, rng.random_range(0..4), 0, 6, 4, 0]),
            _ => {}
        }
        link.now += Duration::from_millis(rng.random_range(0..4000));
        link.ppp.handle_timeout(link.now);
    }
    assert!(std::iter::from_fn(|| link.ppp.poll_transmit()).count() <= 24, "three queues of eight");
    assert!(std::iter::from_fn(|| link.event()).count() <= MAX_EVENTS);
}

#[test]
fn nothing_that_a_peer_sends_makes_it_panic_or_queue_without_bound() {
    let mut rng = StdRng::from_seed([9; 32]);
    for round in 0..300 {
        let auth = PppAuth::ALL[round % PppAuth::ALL.len()];
        let eap = if round % 8 < 4 { Eap::PassThrough } else { Eap::Local(vec![Method::MsChapV2]) };
        let server = Server { auth: vec![auth], eap, ipv6: true, ..Server::default() };
        annoy(established_with(server), &mut rng);
        annoy(Link::new(&[auth, PppAuth::MsChapV2]), &mut rng);
        annoy(Link::up(), &mut rng);
    }
}
