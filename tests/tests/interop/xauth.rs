//! A gateway that asks for a user after phase 1 (XAUTH): strongSwan with a pre-shared key and a second round of authentication.

use std::time::Duration;

use serde_json::json;
use towline_tests::peer::Lns;
use towline_tests::peer::pki::{Authority, Key, Validity};
use towline_tests::process::wait_until;
use towline_tests::site::Side;
use towline_tests::tunnel::{Pings, Tunnel, config, pings};
use towline_tunnel::report::{Layer, Reason};

use super::world::{GATEWAY, World, assert_failed};

fn asking() -> Lns {
    Lns { xauth: Some(("carol".to_owned(), "cheshire".to_owned())), ..Lns::default() }
}

#[test]
fn the_right_user_gets_in_and_a_wrong_password_is_told_and_put_right_without_a_restart() {
    let world = World::new(asking(), Side::Lan);
    let wrong = Lns { xauth: Some(("carol".to_owned(), "looking-glass".to_owned())), ..Lns::default() };
    let mut tunnel = Tunnel::start(&world.host, config(GATEWAY), &wrong).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_failed(&failed, Reason::XauthFailed, &["XAUTH", "password", "client.xauth"]);
    assert!(world.gateway.log("charon").contains("XAuth authentication of 'carol' failed"), "{}", world.logs());

    tunnel.change_secret("xauthPassword", "cheshire").unwrap();
    tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert!(pings(&world.host));
    assert!(world.gateway.log("charon").contains("XAuth authentication of 'carol' successful"), "{}", world.logs());
    let log = tunnel.log().unwrap();
    for secret in ["cheshire", "looking-glass", &world.lns.psk, &world.lns.password] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn the_user_is_asked_for_again_when_phase_1_is_renewed_and_no_packet_is_lost() {
    let world = World::new(asking(), Side::Wan);
    let (tunnel, _) = world.connect(|config| config["ike"]["lifetimeSeconds"] = json!(60));
    let pings = Pings::start(&world.host, tunnel.folder()).unwrap();
    let asked = || world.gateway.log("charon").matches("XAuth authentication of 'carol' successful").count();
    wait_until("a second question", Duration::from_secs(90), || asked() >= 2)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    pings.finish().unwrap();
}

#[test]
fn the_user_is_asked_for_after_certificates_too() {
    let authority = Authority::new("root", Key::Rsa).unwrap();
    let gateway = authority.issue("gateway", &format!("IP:{GATEWAY}"), Validity::Valid).unwrap();
    let own = authority.issue("client", "DNS:client.example.com", Validity::Valid).unwrap();
    let world = World::new(Lns { certificate: Some(gateway), ..asking() }, Side::Lan);
    let mut tunnel = Tunnel::start_certified(&world.host, config(GATEWAY), &world.lns, &own).unwrap();
    tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert!(pings(&world.host));
    assert!(world.gateway.log("charon").contains("XAuth authentication of 'carol' successful"), "{}", world.logs());
}

#[test]
fn a_gateway_that_asks_where_no_user_is_configured_and_one_that_does_not_ask_name_the_field() {
    let world = World::new(asking(), Side::Wan);
    let mut tunnel = Tunnel::start(&world.host, config(GATEWAY), &Lns::default()).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_failed(&failed, Reason::AuthenticationFailed, &["client.xauth"]);
    tunnel.stop().unwrap();
    drop(world);

    let world = World::new(Lns::default(), Side::Wan);
    let mut tunnel = Tunnel::start(&world.host, config(GATEWAY), &asking()).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_failed(&failed, Reason::AuthenticationFailed, &["client.xauth"]);
}
