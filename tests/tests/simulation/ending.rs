//! The end of a tunnel, and of its link alone.

use std::time::Duration;

use towline_tunnel::report::{Layer, Reason, State};

use crate::world::{Setting, World};

#[test]
fn the_gateway_is_told_why_the_tunnel_ends() {
    let told = |end: fn(&mut World)| {
        let mut world = World::new(&Setting::default());
        world.assert_ready();
        end(&mut world);
        world.drain();
        world.run(Duration::from_secs(1), |_| false);
        let seen = world.gateway().seen.clone();
        assert!(seen.terminated, "by LCP first");
        assert_eq!(seen.told.len(), 2, "CDN and StopCCN");
        seen.told
            .into_iter()
            .map(|outcome| (outcome.result, outcome.error.map(|code| code.0), outcome.text))
            .collect::<Vec<_>>()
    };
    let plain = |result| (result, None, String::new());
    assert_eq!(told(|world| world.client.close(world.now)), [plain(3), plain(6)]);
    assert_eq!(
        told(|world| world.client.apply(world.now, &Setting { lives: (600, 100), ..Setting::default() }.config())),
        [plain(3), plain(1)]
    );
    let failed = (2, Some(6), "The device is gone.".to_owned());
    let fail: fn(&mut World) = |world| {
        world.client.handle_device_failure(world.now, "The device is gone.".to_owned());
    };
    assert_eq!(told(fail), [failed.clone(), failed]);
}

#[test]
fn no_dial_begins_before_the_gateway_has_heard_the_goodbyes() {
    let end: [fn(&mut World); 2] = [
        |world| world.client.apply(world.now, &Setting { lives: (600, 100), ..Setting::default() }.config()),
        |world| world.client.handle_device_failure(world.now, "The device is gone.".to_owned()),
    ];
    for end in end {
        let mut world = World::new(&Setting::default());
        world.assert_ready();
        let (dials, told) = (world.client.counters().dials, world.gateway().seen.told.len());
        // The first of them are lost.
        world.network.blocked = |_| true;
        end(&mut world);
        world.drain();
        world.run(Duration::from_millis(350), |_| false);
        assert_eq!(world.client.counters().dials, dials, "dialled before the goodbyes");
        world.network.blocked = |_| false;
        assert!(world.run(Duration::from_secs(60), |world| world.client.counters().dials > dials));
        assert_eq!(world.gateway().seen.told.len(), told + 2, "CDN and StopCCN");
        world.assert_ready();
    }
}

#[test]
fn a_gateway_that_negotiates_ppp_anew_takes_the_link_down_until_it_is_up_again() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    let now = world.now;
    world.gateway_mut().renegotiate(now);
    assert!(world.run(Duration::from_secs(1), |world| !world.up), "still up");
    assert_eq!(world.reason(Layer::Ppp), (State::Pending, Reason::Negotiating));
    assert!(!world.client.report().is_ready());
    assert_eq!(world.client.report().assigned_address, None);
    assert!(world.client.report().negotiated.as_ref().is_some_and(|all| all.esp.is_some() && all.ppp_auth.is_none()));
    world.assert_ready();
    world.ping();
    assert!(world.run(Duration::from_secs(1), |world| world.pongs == 1));
    assert_eq!(world.gateway().seen.phase2, 1, "the keys stay");
}
