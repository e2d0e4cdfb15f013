//! Clients that vanish and come back, and a server that does.

use serde_json::json;
use towline_tests::peer::{INNER, Lns};
use towline_tests::process::wait_until;
use towline_tests::server::{Key, Server, User};
use towline_tests::site::Side;

use super::world::{PATIENCE, World};

#[test]
fn a_client_that_vanishes_is_gone_when_it_does_not_answer() {
    let mut world = World::with(&[User::of(&Lns::default())], |config| {
        config["ike"]["dpd"] = json!({"intervalSeconds": 2, "timeoutSeconds": 6});
        config["ppp"] = json!({"echoSeconds": 2, "echoFailures": 2});
    });
    let client = world.client(Side::Lan, Lns::default());
    world.connect(&client);
    assert_eq!(world.server.report().unwrap().sessions, Some(1));
    client.kill();
    world.server.wait_sessions(0, PATIENCE).unwrap();
}

#[test]
fn a_client_that_dials_again_after_a_power_cut_is_served_at_once() {
    let mut world = World::new();
    for _ in 0..2 {
        let client = world.client(Side::Wan, Lns::default());
        world.connect(&client);
        client.kill();
    }
    let client = world.client(Side::Wan, Lns::default());
    world.connect(&client);
    // What is left of the others goes: one session a user.
    world.server.wait_sessions(1, PATIENCE).unwrap();
    assert!(client.pings(INNER));
}

#[test]
fn clients_of_a_server_that_was_killed_come_again() {
    let mut world = World::new();
    let client = world.client(Side::Lan, Lns { dpd: 2, ..Lns::default() });
    world.connect(&client);
    let config = world.server.config.clone();
    world.server.kill();
    world.server =
        Server::start(&world.host, config, &Key::PreShared(Lns::default().psk), &[User::of(&Lns::default())]).unwrap();
    world.server.wait_ready().unwrap();
    let gone = || client.exec("swanctl --list-sas").is_ok_and(|sas| sas.trim().is_empty());
    wait_until("the death of the old SAs", PATIENCE, gone).unwrap();
    client.exec("echo 'd lns' > /run/xl2tpd/l2tp-control").unwrap();
    wait_until("the end of the client's link", PATIENCE, || !client.is_up()).unwrap();
    // Nobody acknowledges the goodbye of its control connection, and until then it does not call again.
    let given_up = || client.log("l2tp").contains("Unable to deliver closing message");
    wait_until("the end of the client's control connection", PATIENCE, given_up).unwrap();
    world.connect(&client);
    world.server.wait_sessions(1, PATIENCE).unwrap();
}
