//! The lives of SAs: what ends one, and what it costs.

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason, State};

use crate::network::Side;
use crate::world::{Setting, World};

/// The largest packet that 1 MiB and a thousand packets are counted with.
const LENGTH: u16 = 1_300;

#[test]
fn traffic_in_one_direction_renews_a_pair_whose_packets_or_octets_are_nearly_used_up() {
    for limit in [("/esp/lifetimePackets", "1000"), ("/esp/lifetimeBytes", "1048576")] {
        let config: &'static [_] = Box::leak(Box::new([limit]));
        let mut world = World::new(&Setting { config, ..Setting::default() });
        world.assert_ready();
        let received = world.received;
        world.flood(1_500, LENGTH);
        world.run(Duration::from_secs(1), |_| false);
        assert_eq!(world.received - received, 1_500, "{limit:?}");
        let rekeys = world.client.counters().phase2_rekeys;
        assert!((1..=2).contains(&rekeys), "{limit:?}: {rekeys} rekeys");
        assert_eq!(world.client.counters().dials, 1, "{limit:?}");
    }
}

#[test]
fn a_gateway_that_deletes_its_sas_costs_a_quick_mode_and_no_dial() {
    // Its pair lives a minute; the client's renewal is kept from it, so it deletes the pair.
    let mut world = World::new(&Setting { gateway_lives: (86_400, 60), ..Setting::default() });
    world.assert_ready();
    world.network.blocked = |datagram| datagram.to == Side::Gateway && datagram.is_isakmp();
    assert!(world.run(Duration::from_secs(70), |world| world.gateway().has_no_sa()), "the gateway deletes nothing");
    world.run(Duration::from_secs(1), |_| false);
    assert!(world.up);
    world.network.blocked = |_| false;
    assert!(world.exchange());
    assert_eq!(world.client.counters().dials, 1);
    assert_eq!(world.gateway().seen.phase1, 1);
}

#[test]
fn an_expiry_of_our_own_is_called_so() {
    let mut world = World::new(&Setting { lives: (28_800, 60), ..Setting::default() });
    world.assert_ready();
    world.network.blocked = |datagram| datagram.is_isakmp();
    let down = |world: &World| world.reason(Layer::Ipsec).0 == State::Down;
    assert!(world.run(Duration::from_secs(120), down), "{:#?}", world.client.report());
    assert_eq!(world.reason(Layer::Ipsec).1, Reason::QuickModeTimeout);
    assert!(world.message(Layer::Ipsec).contains("expired"), "{}", world.message(Layer::Ipsec));
    world.network.blocked = |_| false;
    assert!(world.run(Duration::from_secs(60), |world| world.up));
}

#[test]
fn a_gateway_that_insists_on_pfs_is_offered_it_on_the_same_isakmp_sa_and_first_the_next_time() {
    let setting =
        Setting { gateway_esp: &["aes128-sha256-ecp256"], config: &[("/esp/proposals", "[]")], ..Setting::default() };
    let mut world = World::new(&setting);
    world.assert_ready();
    assert_eq!(world.negotiated().esp, Some("aes128-sha256-ecp256".parse().expect("a proposal")));
    let seen = &world.gateway().seen;
    assert_eq!((seen.phase1, seen.refused, world.client.counters().dials), (1, 1, 1));

    world.revive(&setting);
    assert!(world.run(Duration::from_secs(60), |world| !world.up));
    world.assert_ready();
    assert_eq!(world.gateway().seen.refused, 0);
}

#[test]
fn the_mtu_and_the_mru_follow_from_the_path_and_the_suite() {
    // 1500 octets with AES-CBC and HMAC-SHA2-256-128 in UDP leave 1402 - 16 for an IP packet; notes of every implementation
    // agree on some 1400.
    for (config, mtu) in [(&[][..], None), (&[("/network/mtu", "1280")][..], Some(1280))] {
        let mut world = World::new(&Setting { config, ..Setting::default() });
        world.assert_ready();
        let found = world.mtus[0];
        assert_eq!(found, mtu.unwrap_or(found));
        assert!((1_280..=1_410).contains(&found), "{found}");
        assert_eq!(world.gateway().ppp.client_mru, Some(found));
        assert_eq!(world.negotiated().mtu, Some(found));
    }
}

#[test]
fn a_path_that_becomes_narrower_makes_the_link_narrower() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    let before = world.mtus[0];
    world.client.handle_path_mtu(world.now, 1_400);
    world.drain();
    assert_eq!(world.mtus.len(), 2);
    assert!(world.mtus[1] < before && world.mtus[1] >= before - 112, "{:?}", world.mtus);
    assert_eq!(world.negotiated().mtu, Some(world.mtus[1]));
    assert!(world.message(Layer::Ppp).contains(&world.mtus[1].to_string()));
}
