//! Who is dead, and who is only hard to hear.

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason, State};

use crate::gateway::Lns;
use crate::network::Weather;
use crate::ppp::Manner;
use crate::world::{Setting, World};

#[test]
fn a_gateway_that_is_gone_is_dead_after_the_timeout_and_one_that_is_back_is_found() {
    let setting = Setting::default();
    let mut world = World::new(&setting);
    world.assert_ready();
    world.gateway = None;
    let gone = world.now;
    assert!(world.run(Duration::from_secs(30), |world| !world.client.report().is_ready()), "still ready");
    assert!(world.up, "the probe speaks before the verdict");
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Peer).0 == State::Down));
    assert_eq!(world.reason(Layer::Peer).1, Reason::DeadPeer);
    assert!(world.message(Layer::Peer).contains("for 30 s"), "{}", world.message(Layer::Peer));
    let after = world.now.duration_since(gone).as_secs_f64();
    assert!((25.0..=30.1).contains(&after), "dead after {after} s");
    world.revive(&setting);
    world.assert_ready();
}

#[test]
fn a_lossy_idle_link_is_not_dialled_again() {
    for seed in 0..5 {
        let weather = Weather { loss: 0.25, ..Weather::FAIR };
        // As idle as it gets: the probe asks a host that no application speaks to either.
        let config = &[("/healthCheck", r#"{"type": "Tcp", "host": "10.20.4.11", "port": 80}"#)];
        let mut world = World::new(&Setting { weather, seed, config, ..Setting::default() });
        assert!(world.run(Duration::from_secs(900), |world| world.up), "seed {seed}");
        let dials = world.client.counters().dials;
        world.run(Duration::from_secs(2_400), |_| false);
        assert_eq!(world.client.counters().dials, dials, "seed {seed}: {:?}", world.history);
    }
}

#[test]
fn a_ppp_that_is_gone_while_ike_answers_is_dialled_again_and_named() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    world.gateway_mut().ppp.manner = Manner::Silent;
    let gone = world.now;
    assert!(world.run(Duration::from_secs(120), |world| world.reason(Layer::Ppp).0 == State::Down));
    assert_eq!(world.reason(Layer::Ppp).1, Reason::DeadPeer);
    let after = world.now.duration_since(gone).as_secs_f64();
    assert!(after < 80.0, "dead after {after} s");
    assert_ne!(world.reason(Layer::Peer).0, State::Down);
}

#[test]
fn an_lns_that_is_gone_while_ike_answers_is_dialled_again_and_named() {
    let mut world = World::new(&Setting { config: &[("/l2tp", r#"{"helloSeconds": 5}"#)], ..Setting::default() });
    world.assert_ready();
    world.gateway_mut().lns = Lns::Silent;
    world.gateway_mut().ppp.manner = Manner::Silent;
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::L2tp).0 == State::Down));
    assert_eq!(world.reason(Layer::L2tp).1, Reason::L2tpTimeout);
}

#[test]
fn a_hello_without_an_answer_is_no_verdict_on_a_gateway_that_is_gone() {
    let config =
        &[("/l2tp", r#"{"helloSeconds": 5}"#), ("/ike/dpd", r#"{"intervalSeconds": 10, "timeoutSeconds": 120}"#)];
    let mut world = World::new(&Setting { config, ..Setting::default() });
    world.assert_ready();
    world.gateway = None;
    world.run(Duration::from_secs(100), |_| false);
    assert!(world.up, "{:?}", world.history);
    assert!(world.run(Duration::from_secs(21), |world| world.reason(Layer::Peer).0 == State::Down));
    assert_eq!(world.reason(Layer::Peer).1, Reason::DeadPeer);
}

#[test]
fn a_nat_is_reminded_only_where_nothing_else_is_sent() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    world.run(Duration::from_secs(600), |_| false);
    assert_eq!(world.gateway().seen.keepalives, 0);
}

#[test]
fn a_port_that_answers_with_somebody_elses_messages_is_no_peer() {
    let mut world = World::new(&Setting { weather: Weather { loss: 1.0, ..Weather::FAIR }, ..Setting::default() });
    let remote = "192.0.2.10:500".parse().expect("an address");
    // An Informational message with a cookie that is not ours.
    let mut message = [[0x5a; 8], [0; 8]].concat();
    message.extend([0, 0x10, 5, 0, 0, 0, 0, 1, 0, 0, 0, 28]);
    world.client.handle_datagram(world.now, towline_tunnel::buffer::Port::Ike, remote, &mut message);
    world.drain();
    assert_ne!(world.reason(Layer::Peer).0, State::Up);
}
