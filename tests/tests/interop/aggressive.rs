//! A gateway that knows Aggressive Mode and no other: strongSwan against its own advice.

use std::time::Duration;

use serde_json::{Value, json};
use towline_tests::peer::Lns;
use towline_tests::process::wait_until;
use towline_tests::site::Side;
use towline_tests::tunnel::{Pings, Tunnel, config};
use towline_tunnel::report::{Layer, Reason};

use super::world::{GATEWAY, World, assert_failed};

/// It knows us by a name, which Main Mode with a pre-shared key could not tell it in time.
fn gateway() -> Lns {
    Lns { aggressive: true, remote_id: Some("fqdn:branch.example.com".to_owned()), ..Lns::default() }
}

fn aggressively(config: &mut Value) {
    config["ike"]["exchange"] = json!("Aggressive");
    config["ike"]["localId"] = json!({"type": "Fqdn", "value": "branch.example.com"});
}

#[test]
fn it_is_dialled_and_renewed_by_a_name_and_the_weakness_is_said() {
    let world = World::new(gateway(), Side::Lan);
    let (tunnel, report) = world.connect(|config| {
        aggressively(config);
        config["ike"]["lifetimeSeconds"] = json!(60);
    });
    let weakness = report.negotiated.unwrap().weakness.unwrap();
    assert!(weakness.contains("Aggressive Mode") && weakness.contains("hash of the pre-shared key"), "{weakness}");
    let pings = Pings::start(&world.host, tunnel.folder()).unwrap();
    let begun = || world.gateway.log("charon").matches("parsed AGGRESSIVE request 0 [ SA KE No ID").count();
    wait_until("a renewal of phase 1", Duration::from_secs(90), || begun() >= 2)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    pings.finish().unwrap();
    assert!(!world.gateway.log("charon").contains("parsed ID_PROT request"), "{}", world.logs());
}

#[test]
fn a_wrong_key_is_found_out_by_this_end_and_after_main_mode_the_field_is_named() {
    let world = World::new(gateway(), Side::Wan);
    let mut config = config(GATEWAY);
    aggressively(&mut config);
    let mut by_main_mode = config.clone();
    by_main_mode["ike"]["exchange"] = json!("Main");
    let mut tunnel = Tunnel::start(&world.host, by_main_mode, &world.lns).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_failed(&failed, Reason::AuthenticationFailed, &["ike.exchange to the mode that it knows"]);
    tunnel.stop().unwrap();

    let wrong = Lns { psk: "another-preshared-key".to_owned(), ..gateway() };
    let mut tunnel = Tunnel::start(&world.host, config, &wrong).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_failed(&failed, Reason::AuthenticationFailed, &["Aggressive Mode", "pre-shared key"]);
}

#[test]
fn it_asks_for_a_user_by_xauth() {
    let lns = Lns { xauth: Some(("carol".to_owned(), "cheshire".to_owned())), ..gateway() };
    let world = World::new(lns, Side::Lan);
    let (_tunnel, _) = world.connect(aggressively);
    assert!(world.gateway.log("charon").contains("XAuth authentication of 'carol' successful"), "{}", world.logs());
}
