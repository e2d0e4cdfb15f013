//! Who is refused, for which reason, and what the log says of it.

use serde_json::json;
use towline_tests::peer::{Guest, Lns, PppAuth};
use towline_tests::server::User;
use towline_tests::site::Side;
use towline_tests::tunnel::wait_for_text;

use super::world::{PATIENCE, World};

/// The longest line of a log that a peer can cause.
const LONGEST_LINE: usize = 1_000;

/// Dials in vain; what the server has logged since.
fn refused(world: &World, like: &Lns) -> String {
    let before = world.server.log().unwrap().len();
    let client: Guest = world.client(Side::Wan, like.clone());
    client.dial().unwrap_err();
    assert!(!client.is_up());
    client.kill();
    let log = world.server.log().unwrap()[before..].to_owned();
    assert_eq!(world.server.report().unwrap().sessions, Some(0), "{log}");
    for secret in [&like.psk, &like.password] {
        assert!(!log.contains(secret.as_str()), "a secret is in the log: {log}");
    }
    assert!(log.lines().all(|line| line.len() < LONGEST_LINE), "{log}");
    log
}

/// At the level of a production server a refusal is one line.
fn assert_one_line(log: &str, words: &str) {
    let lines: Vec<_> = log.lines().filter(|line| line.contains(words)).collect();
    assert_eq!(lines.len(), 1, "{words:?} in {log}");
}

#[test]
fn a_wrong_pre_shared_key_is_refused() {
    let world = World::with(&[User::of(&Lns::default())], |config| config["log"]["level"] = json!("Info"));
    let log = refused(&world, &Lns { psk: "not-the-preshared-key".to_owned(), ..Lns::default() });
    assert!(!log.contains(&Lns::default().psk));
    // What is left of it goes, and is told.
    wait_for_text("has not proved itself", PATIENCE, || world.server.log().unwrap()).unwrap();
    assert_one_line(&world.server.log().unwrap(), "has not proved itself");
}

#[test]
fn a_wrong_password_an_unknown_user_and_a_suspended_one_are_refused_and_told_apart_in_the_status_alone() {
    let users = [
        User::of(&Lns::default()),
        User::with("bob", "builder", json!({"suspended": true})),
        User::with("carol", "christmas", json!({"expiresAt": 1_000_000_000})),
    ];
    let world = World::with(&users, |config| config["log"]["level"] = json!("Info"));
    let as_user = |user: &str, password: &str, auth: PppAuth| Lns {
        user: user.to_owned(),
        password: password.to_owned(),
        auth,
        ..Lns::default()
    };
    for (user, password, auth, cause) in [
        ("alice", "looking-glass", PppAuth::MsChapV2, "wrong_password"),
        ("alice", "looking-glass", PppAuth::Chap, "wrong_password"),
        ("alice", "looking-glass", PppAuth::Pap, "wrong_password"),
        ("bob", "builder", PppAuth::MsChapV2, "suspended"),
        ("carol", "christmas", PppAuth::MsChapV2, "expired"),
    ] {
        let log = refused(&world, &as_user(user, password, auth));
        assert_eq!((world.user(user).result.as_str(), world.user(user).accepted), (cause, false), "{auth:?}");
        assert_one_line(&log, cause);
    }
    let log = refused(&world, &as_user("mallory", "whatever", PppAuth::MsChapV2));
    assert_one_line(&log, "unknown_user");
}

#[test]
fn l2tp_outside_of_ipsec_is_not_even_heard() {
    let world = World::new();
    let client = world.client(Side::Wan, Lns::default());
    client.exec("ip xfrm policy flush").unwrap();
    client.exec("echo 'c lns' > /run/xl2tpd/l2tp-control").unwrap();
    let tried = || client.log("l2tp").contains("Maximum retries exceeded");
    towline_tests::process::wait_until("the client's despair", std::time::Duration::from_secs(90), tried).unwrap();
    assert_eq!(world.server.report().unwrap().sessions, Some(0));
}

#[test]
fn a_proposal_that_is_not_allowed_is_refused_with_a_notification() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["ike"]["proposals"] = json!(["aes256-sha256-modp2048"]);
    });
    let client = world.client(Side::Wan, Lns { ike: "3des-sha1-modp1024".to_owned(), ..Lns::default() });
    client.dial_ipsec().unwrap_err();
    assert!(client.log("charon").contains("NO_PROP"), "{}", world.logs(&client));
}
