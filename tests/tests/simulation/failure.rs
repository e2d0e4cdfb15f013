//! What a person reads when something is wrong.

use std::time::{Duration, Instant};

use towline_tunnel::report::{Layer, Reason, State};
use towline_tunnel::stack::{Event, Tunnel};
use zeroize::Zeroizing;

use crate::gateway::Lns;
use crate::network::Weather;
use crate::ppp::Manner;
use crate::world::{Setting, World};

/// Waits until `layer` is down and returns why.
fn why(mut world: World, layer: Layer) -> Reason {
    let down = |world: &World| world.reason(layer).0 == State::Down;
    assert!(world.run(Duration::from_secs(120), down), "{:#?}", world.client.report());
    assert_eq!(world.client.report().cause().map(|cause| cause.layer), Some(layer));
    world.reason(layer).1
}

fn at_lns(lns: Lns) -> World {
    let mut world = World::new(&Setting::default());
    world.gateway_mut().lns = lns;
    world
}

fn at_ppp(manner: Manner) -> World {
    let mut world = World::new(&Setting::default());
    world.gateway_mut().ppp.manner = manner;
    world
}

#[test]
fn each_failure_has_its_own_reason() {
    let with = |setting: Setting| World::new(&setting);
    let deaf = with(Setting { weather: Weather { loss: 1.0, ..Weather::FAIR }, ..Setting::default() });
    assert_eq!(why(deaf, Layer::Peer), Reason::PeerSilent);
    let wrong_psk = with(Setting { gateway_psk: "another", ..Setting::default() });
    assert_eq!(why(wrong_psk, Layer::Ike), Reason::AuthenticationFailed);
    let no_proposal = with(Setting { gateway_proposals: &["3des-sha1-modp1024"], ..Setting::default() });
    assert_eq!(why(no_proposal, Layer::Ike), Reason::NoProposalChosen);
    let no_esp_proposal = with(Setting { gateway_esp: &["3des-sha1"], ..Setting::default() });
    assert_eq!(why(no_esp_proposal, Layer::Ipsec), Reason::QuickModeRejected);
    assert_eq!(why(at_lns(Lns::Silent), Layer::L2tp), Reason::L2tpTimeout);
    assert_eq!(why(at_lns(Lns::RefusesTunnel), Layer::L2tp), Reason::L2tpRefused);
    assert_eq!(why(at_lns(Lns::RefusesCall), Layer::L2tp), Reason::L2tpRefused);
    assert_eq!(why(at_ppp(Manner::RefusesPassword), Layer::Ppp), Reason::PppAuthenticationFailed);
    assert_eq!(why(at_ppp(Manner::WantsEap), Layer::Ppp), Reason::PppNegotiationFailed);
    assert_eq!(why(at_ppp(Manner::Silent), Layer::Ppp), Reason::PppTimeout);
}

#[test]
fn attempts_that_fail_alike_change_each_layer_once() {
    let mut world = at_lns(Lns::RefusesCall);
    assert!(world.run(Duration::from_secs(600), |world| world.client.counters().dials == 8));
    let changes = |layer: Layer| {
        world.history.iter().filter(move |(of, ..)| *of == layer).map(|(_, state, reason)| (state, reason))
    };
    for layer in [Layer::Peer, Layer::Ike, Layer::Ipsec] {
        let backed_off = changes(layer).filter(|(_, reason)| **reason == Reason::BackingOff).count();
        let up = changes(layer).filter(|(state, _)| **state == State::Up).count();
        assert_eq!((up, backed_off), (1, 1), "{layer:?}: {:?}", world.history);
    }
    assert_eq!(changes(Layer::L2tp).filter(|(state, _)| **state == State::Down).count(), 1);

    world.gateway_mut().lns = Lns::Accepts;
    world.assert_ready();
    for layer in Layer::CLIENT {
        assert_eq!(world.reason(layer).0, State::Up, "{layer:?}");
    }
}

#[test]
fn a_refused_password_says_when_it_is_tried_again_and_a_new_one_is_tried_at_once() {
    let mut world = at_ppp(Manner::RefusesPassword);
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Ppp).0 == State::Down));
    let message = world.message(Layer::Ppp).to_owned();
    assert!(message.contains("tried again in") && message.contains("when the Secret changes"), "{message}");
    world.run(Duration::from_secs(20), |_| false);
    assert_eq!(world.client.counters().dials, 1);
    world.gateway_mut().ppp.manner = Manner::Accepts;
    world.client.credentials_changed(world.now);
    world.drain();
    assert!(world.run(Duration::from_secs(10), |world| world.client.report().is_ready()));
}

#[test]
fn a_changed_health_check_is_pending_until_its_first_result() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    let mut config = Setting::default().config();
    config.revision = "2".to_owned();
    world.client.apply(world.now, &config);
    assert_eq!(world.reason(Layer::Probe).0, State::Up);
    config.health_check.interval_seconds = 7;
    world.client.apply(world.now, &config);
    assert_eq!(world.reason(Layer::Probe), (State::Pending, Reason::Negotiating));
    world.drain();
    world.assert_ready();
    assert_eq!(world.client.counters().dials, 1);
}

#[test]
fn a_device_that_fails_after_the_end_begins_nothing() {
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    world.client.close(world.now);
    world.client.handle_device_failure(world.now, "no such device".to_owned());
    world.drain();
    assert!(world.run(Duration::from_secs(2), |world| world.closed));
    world.client.handle_device_failure(world.now, "no such device".to_owned());
    world.drain();
    world.run(Duration::from_secs(120), |_| false);
    assert_eq!(world.client.counters().dials, 1);
    assert_eq!(world.reason(Layer::Ppp).1, Reason::Stopping);
}

#[test]
fn a_gateway_that_asks_for_no_password_is_a_weakness() {
    let mut world = at_ppp(Manner::AsksNothing);
    world.assert_ready();
    assert_eq!(world.negotiated().ppp_auth, None);
    let weakness = world.negotiated().weakness.as_deref();
    assert_eq!(weakness, Some("the gateway asked for no PPP authentication"));
    let mut world = World::new(&Setting::default());
    world.assert_ready();
    assert_eq!(world.negotiated().weakness, None);
}

#[test]
fn a_secret_that_changes_during_a_dial_begins_another() {
    let mut client = Tunnel::new(&Setting::default().config(), Zeroizing::new([7; 32]));
    client.start();
    let dials = |client: &mut Tunnel| {
        std::iter::from_fn(|| client.poll_event()).filter(|event| matches!(event, Event::Dial { .. })).count()
    };
    assert_eq!(dials(&mut client), 1);
    client.credentials_changed(Instant::now());
    assert_eq!(dials(&mut client), 1);
}
