//! The whole stack on a simulated network with virtual time: hours of rekeys and every kind of bad weather in seconds.

mod encapsulation;
mod ending;
mod failure;
mod gateway;
mod ladder;
mod lifetime;
mod liveness;
mod network;
mod ppp;
mod weather;
mod world;

use std::time::Duration;

use network::Weather;
use world::{Setting, World};

#[test]
fn a_tunnel_comes_up_carries_packets_and_says_goodbye() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    for _ in 0..5 {
        world.ping();
    }
    assert!(world.run(Duration::from_secs(1), |world| world.pongs == 5), "{} of 5 came back", world.pongs);
    world.client.close(world.now);
    world.drain();
    assert!(world.run(Duration::from_secs(2), |world| world.closed));
    world.run(Duration::from_secs(1), |_| false);
    let seen = &world.gateway().seen;
    assert!(seen.cdn && seen.stop_ccn, "{seen:?}");
    assert!(world.gateway().is_idle());
}

#[test]
fn no_packet_is_lost_over_hours_of_rekeys_that_either_end_begins() {
    for (lives, gateway_lives) in [((300, 60), (86_400, 86_400)), ((86_400, 86_400), (300, 60)), ((300, 60), (300, 60))]
    {
        let mut world = World::new(&Setting { lives, gateway_lives, ..Setting::default() });
        world.assert_ready();
        let mut sent = 0;
        for _ in 0..4 * 7_200 {
            world.ping();
            sent += 1;
            world.run(Duration::from_millis(250), |_| false);
        }
        world.run(Duration::from_secs(1), |_| false);
        let seen = &world.gateway().seen;
        assert_eq!(world.pongs, sent, "{lives:?} {gateway_lives:?} {seen:?}");
        assert!(seen.phase1 > 20 && seen.phase2 > 100, "{lives:?} {gateway_lives:?} {seen:?}");
    }
}

#[test]
fn a_second_dial_from_fresh_ports_reaches_the_gateway() {
    let mut world = World::new(&Setting { weather: Weather { loss: 1.0, ..Weather::FAIR }, ..Setting::default() });
    assert!(world.run(Duration::from_secs(120), |world| world.client.counters().dials == 2));
    assert_ne!(world.client_port, 500);
    world.network.weather = Weather::FAIR;
    world.assert_ready();
}
