//! What a user may: how many sessions, which address, which destinations.

use serde_json::json;
use towline_tests::peer::{Guest, INNER, Lac, Lns};
use towline_tests::process::wait_until;
use towline_tests::server::User;
use towline_tests::site::{Inside, Side};

use super::world::{PATIENCE, SERVER, World, local};

fn second(world: &World) -> Guest {
    world.client_at(Side::Wan, "192.0.2.21", &Lac::new(SERVER, Lns::default()))
}

#[test]
fn the_second_session_of_a_user_replaces_the_first() {
    let mut world = World::with(&[User::of(&Lns::default())], |config| {
        config["limits"] = json!({"sessionsPerUser": 1, "onLimit": "Replace"});
    });
    let first = world.client(Side::Wan, Lns::default());
    world.connect(&first);
    let second = second(&world);
    world.connect(&second);
    wait_until("the end of the first session", PATIENCE, || !first.is_up()).unwrap();
    world.server.wait_sessions(1, PATIENCE).unwrap();
    assert!(second.pings(INNER));
}

#[test]
fn the_second_session_of_a_user_is_refused_where_the_policy_says_so() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["limits"] = json!({"sessionsPerUser": 1, "onLimit": "Refuse"});
    });
    let first = world.client(Side::Wan, Lns::default());
    world.connect(&first);
    let second = second(&world);
    second.dial().unwrap_err();
    assert_eq!(world.user("alice").result, "too_many_sessions");
    assert_eq!(world.server.report().unwrap().sessions, Some(1));
    assert!(first.pings(INNER));
}

#[test]
fn a_user_has_the_address_and_reaches_the_destinations_of_the_configuration_only() {
    let users = [
        User::with("alice", "wonderland", json!({"address": "10.20.5.77", "destinations": ["10.20.4.0/24"]})),
        User::new("bob", "builder"),
    ];
    let world = World::with(&users, |config| {
        config["forwarding"]["networks"] = json!(["10.20.4.0/24", "10.20.6.0/24"]);
    });
    let lac = |user: &str, password: &str| {
        let like = Lns { user: user.to_owned(), password: password.to_owned(), ..Lns::default() };
        let routes = ["10.20.4.0/24", "10.20.5.0/24", "10.20.6.0/24"].map(str::to_owned).into();
        Lac { routes, ..Lac::new(SERVER, like) }
    };
    let alice = world.client_at(Side::Wan, "192.0.2.20", &lac("alice", "wonderland"));
    assert_eq!(local(&world.connect(&alice)), "10.20.5.77");
    let bob = world.client_at(Side::Wan, "192.0.2.21", &lac("bob", "builder"));
    let other = local(&world.connect(&bob)).to_owned();
    assert_ne!(other, "10.20.5.77");
    assert!(alice.pings(INNER) && !alice.pings(Inside::OTHER));
    assert!(bob.pings(INNER) && bob.pings(Inside::OTHER));
    // Not even another client.
    assert!(!alice.pings(&other));
}

#[test]
fn a_suspended_user_is_put_out_at_once_and_comes_in_again_when_the_suspension_ends() {
    let mut world = World::new();
    let client = world.client(Side::Wan, Lns::default());
    world.connect(&client);
    world.server.change_users(&[User::with("alice", "wonderland", json!({"suspended": true}))]).unwrap();
    world.server.wait_sessions(0, PATIENCE).unwrap();
    wait_until("the end of the client's link", PATIENCE, || !client.is_up()).unwrap();
    world.server.change_users(&[User::of(&Lns::default())]).unwrap();
    client.hang_up().unwrap();
    world.connect(&client);
}
