//! Security associations that end and begin while packets flow, and sessions that end in order.

use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{Exchanges, Guest, INNER, Lns};
use towline_tests::process::wait_until;
use towline_tests::server::User;
use towline_tests::site::Side;

use super::world::{PATIENCE, World};

/// Waits for so many exchanges while every ping is answered.
fn assert_no_loss(world: &World, client: &Guest, what: &str, done: impl Fn(Exchanges) -> bool) {
    let pings = client.start_pings(INNER).unwrap();
    wait_until(what, Duration::from_secs(300), || done(client.exchanges()))
        .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", client.exchanges(), world.logs(client)));
    let number = pings.finish().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs(client)));
    println!("{what}: {number} pings");
    assert_eq!(world.server.report().unwrap().sessions, Some(1));
}

#[test]
fn ten_rekeys_of_phase_2_and_three_of_phase_1_that_the_client_begins_lose_no_packet() {
    let world = World::new();
    let client = world.client(Side::Lan, Lns { esp_life: 20, ike_life: 60, rekey: true, ..Lns::default() });
    world.connect(&client);
    // The log of a client counts from its own end: what it generates is its own.
    assert_no_loss(&world, &client, "rekeys of the client", |seen| {
        seen.esp_established >= 11 && seen.isakmp_established >= 4
    });
}

#[test]
fn ten_rekeys_of_phase_2_and_three_of_phase_1_that_the_server_begins_lose_no_packet() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["ike"]["lifetimeSeconds"] = json!(60);
        config["esp"]["lifetimeSeconds"] = json!(20);
    });
    let client = world.client(Side::Lan, Lns::default());
    world.connect(&client);
    assert_no_loss(&world, &client, "rekeys of the server", |seen| {
        seen.esp_established >= 11 && seen.isakmp_established >= 4
    });
    // Those that "the client began" in a gateway's log are those of the peer of this end.
    let seen = client.exchanges();
    assert!(seen.quick_mode_of_client >= 10 && seen.main_mode_of_client >= 3, "{seen:?}");
}

#[test]
fn a_session_ends_after_the_idle_time_and_not_while_packets_flow() {
    let mut world = World::with(&[User::of(&Lns::default())], |config| config["limits"] = json!({"idleSeconds": 10}));
    let client = world.client(Side::Wan, Lns::default());
    world.connect(&client);
    let pings = client.start_pings(INNER).unwrap();
    wait_until("pings for longer than the idle time", PATIENCE, || pings.answered() >= 75).unwrap();
    pings.finish().unwrap();
    assert_eq!(world.server.report().unwrap().sessions, Some(1));
    world.server.wait_sessions(0, PATIENCE).unwrap();
    wait_until("the end of the client's link", PATIENCE, || !client.is_up()).unwrap();
}

#[test]
fn a_server_that_ends_says_goodbye_to_its_clients() {
    let world = World::new();
    let client = world.client(Side::Wan, Lns::default());
    world.connect(&client);
    let (status, took, log) = world.server.stop().unwrap();
    assert!(status.success() && took < Duration::from_secs(3), "{status} after {took:?}\n{log}");
    wait_until("the end of the client's link", PATIENCE, || !client.is_up()).unwrap();
    let gone = || client.exec("swanctl --list-sas").is_ok_and(|sas| sas.trim().is_empty());
    wait_until("the end of the client's SAs", PATIENCE, gone).unwrap();
    // Nothing of the server is left on the host.
    let routes = world.host.ip(&["route", "show", "table", "all"]).unwrap();
    assert!(!routes.contains("towline0"), "{routes}");
}
