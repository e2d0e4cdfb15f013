//! ESP in UDP and as an IP protocol: which of them a gateway gets, and what fits.

use std::time::Duration;

use towline_tunnel::buffer::Port;
use towline_tunnel::ike::NatTraversal;
use towline_tunnel::report::{Encapsulation, Layer, Nat, Reason, State};

use crate::gateway::Lns;
use crate::world::{Setting, World};

const AUTO: &[(&str, &str)] = &[("/esp/encapsulation", "\"Auto\"")];
const NONE: &[(&str, &str)] = &[("/esp/encapsulation", "\"None\"")];

/// A gateway without NAT traversal, and a client that does not insist on it.
fn without_nat_traversal() -> Setting {
    Setting { config: AUTO, gateway_nat_traversal: NatTraversal::Off, ..Setting::default() }
}

#[test]
fn with_a_gateway_without_nat_traversal_packets_go_both_ways_as_protocol_50_over_hours_of_rekeys() {
    for gateway_lives in [(86_400, 86_400), (300, 60)] {
        let mut world = World::new(&Setting { lives: (600, 120), gateway_lives, ..without_nat_traversal() });
        world.assert_ready();
        let mut sent = 0;
        for _ in 0..2 * 7_200 {
            world.ping();
            sent += 1;
            world.run(Duration::from_millis(500), |_| false);
        }
        world.run(Duration::from_secs(1), |_| false);
        let seen = &world.gateway().seen;
        assert_eq!(world.pongs, sent, "{seen:?}");
        assert!(seen.phase1 > 10 && seen.phase2 > 50, "{seen:?}");
        assert!(seen.esp[0] == 0 && seen.esp[1] > sent && seen.keepalives == 0, "{seen:?}");
        let negotiated = world.negotiated();
        assert_eq!((negotiated.encapsulation, negotiated.nat), (Some(Encapsulation::None), Nat::None));
        assert!(world.message(Layer::Ipsec).contains("IP protocol 50"));
    }
}

#[test]
fn a_gateway_that_is_not_offered_nat_traversal_gets_protocol_50_and_one_that_is_gets_udp() {
    for (config, encapsulation, esp) in [(NONE, Encapsulation::None, 1), (AUTO, Encapsulation::Udp, 0)] {
        let gateway_nat_traversal = NatTraversal::Offered;
        let mut world = World::new(&Setting { config, gateway_nat_traversal, ..Setting::default() });
        world.assert_ready();
        assert!(world.exchange());
        assert_eq!(world.negotiated().encapsulation, Some(encapsulation));
        let seen = world.gateway().seen.esp;
        assert!(seen[esp] > 0 && seen[1 - esp] == 0, "{seen:?}");
    }
}

#[test]
fn a_path_that_swallows_port_4500_gets_protocol_50_where_that_is_allowed() {
    let gateway_nat_traversal = NatTraversal::Offered;
    let mut world = World::new(&Setting { config: AUTO, gateway_nat_traversal, ..Setting::default() });
    world.network.blocked = |datagram| datagram.carrier.port() == Some(Port::NatT);
    assert!(world.run(Duration::from_secs(60), |world| world.client.report().is_ready()));
    let negotiated = world.negotiated();
    assert_eq!(negotiated.encapsulation, Some(Encapsulation::None));
    let rung = negotiated.rung.clone().unwrap();
    assert!(rung.ends_with("ESP as IP protocol 50"), "{rung}");
    assert_eq!((world.client.counters().climbs["encapsulation"], world.client.counters().dials), (1, 2));
    assert!(world.exchange());
    let mut world = World::new(&Setting { gateway_nat_traversal, ..Setting::default() });
    world.network.blocked = |datagram| datagram.carrier.port() == Some(Port::NatT);
    assert!(world.run(Duration::from_secs(120), |world| world.reason(Layer::Ike).0 == State::Down), "UDP is wanted");
}

#[test]
fn a_gateway_without_nat_traversal_is_refused_where_udp_is_wanted_and_the_setting_is_named() {
    let mut world = World::new(&Setting { config: &[], ..without_nat_traversal() });
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Ike).0 == State::Down));
    assert_eq!(world.reason(Layer::Ike), (State::Down, Reason::NatTraversalUnsupported));
    assert!(world.message(Layer::Ike).contains("esp.encapsulation"), "{}", world.message(Layer::Ike));
}

#[test]
fn a_path_that_swallows_protocol_50_is_told_from_a_gateway_without_l2tp() {
    let mut world = World::new(&without_nat_traversal());
    world.network.blocked = |datagram| datagram.carrier.port().is_none();
    assert!(world.run(Duration::from_secs(120), |world| world.reason(Layer::L2tp).0 == State::Down));
    assert_eq!(world.reason(Layer::L2tp), (State::Down, Reason::L2tpTimeout));
    assert!(world.message(Layer::L2tp).contains("IP protocol 50"), "{}", world.message(Layer::L2tp));
    let mut world = World::new(&Setting::default());
    world.gateway_mut().lns = Lns::Silent;
    assert!(world.run(Duration::from_secs(120), |world| world.reason(Layer::L2tp).0 == State::Down));
    assert!(!world.message(Layer::L2tp).contains("protocol 50"), "{}", world.message(Layer::L2tp));
}

#[test]
fn without_udp_eight_octets_more_fit_and_the_mtu_changes_where_a_block_more_fits() {
    // The outer packets that take a block more, with AES-CBC and HMAC-SHA2-256: IP 20, ESP 8, IV 16, ICV 16, in UDP 8 more.
    for (setting, fixed) in [(without_nat_traversal(), 60), (Setting::default(), 68)] {
        let mut world = World::new(&setting);
        world.assert_ready();
        for blocks in [80, 86, 89] {
            // UDP 8, L2TP 8, PPP 4, trailer 2.
            let inner = |blocks: u16| blocks * 16 - 22;
            let outer = fixed + blocks * 16;
            for (path, mtu) in [(outer - 1, inner(blocks - 1)), (outer, inner(blocks)), (outer + 15, inner(blocks))] {
                world.client.handle_path_mtu(world.now, path);
                world.drain();
                assert_eq!(world.negotiated().mtu, Some(mtu.min(world.mtus[0])), "{fixed} {blocks} {path}");
            }
        }
    }
}
