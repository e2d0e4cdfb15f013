//! Users of a RADIUS server: FreeRADIUS decides who comes in, with which address, hears when sessions begin and end, and ends one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use towline_tests::netns::Namespace;
use towline_tests::peer::{FreeRadius, Lns, PppAuth};
use towline_tests::process::wait_until;
use towline_tests::site::Side;
use towline_tests::tool;

use super::world::{PATIENCE, SERVER, World, local};

const RADIUS: &str = "192.0.2.30";
const SECRET: &str = "a secret of both ends";
const USERS: &str = r#"
"alice" Cleartext-Password := "wonderland"
	Framed-IP-Address = 10.20.5.77,
	Class = 0x676f6c64

"bob" Cleartext-Password := "builder"
"#;

/// A server whose only users are those of FreeRADIUS, by `auth`.
fn world(auth: &str) -> (World, Namespace, FreeRadius) {
    let folder = tool::target().join("peers");
    std::fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("radius-secret");
    std::fs::write(&secret, SECRET).unwrap();
    let world = World::with(&[], |config| {
        config["ppp"] = json!({"auth": [auth]});
        config["radius"] = json!({
            "servers": [{"address": RADIUS, "secret": {"path": secret}}],
            "disconnect": "0.0.0.0:3799",
            "interimSeconds": 60,
        });
    });
    let host = world.site.host("radius", Side::Wan, RADIUS).unwrap();
    let radius = FreeRadius::start(&host, SECRET, USERS, true).unwrap();
    (world, host, radius)
}

fn wait_for_record(radius: &FreeRadius, kind: &str) -> String {
    let is_there = |record: &String| record.contains(&format!("Acct-Status-Type = {kind}"));
    wait_until(&format!("a record {kind}"), PATIENCE, || radius.accounting().unwrap().iter().any(is_there)).unwrap();
    radius.accounting().unwrap().into_iter().find(is_there).unwrap()
}

#[test]
fn freeradius_lets_a_client_in_with_its_address_hears_of_the_session_and_ends_it() {
    let (mut world, host, radius) = world("MsChapV2");
    let client = world.client(Side::Wan, Lns::default());
    let link = world.connect(&client);
    assert_eq!(local(&link), "10.20.5.77");
    let other = Lns { user: "bob".to_owned(), password: "builder".to_owned(), ..Lns::default() };
    let other = world.client_at(Side::Wan, "192.0.2.21", &towline_tests::peer::Lac::new(SERVER, other));
    world.connect(&other);
    let start = wait_for_record(&radius, "Start");
    for line in ["User-Name = \"alice\"", "Framed-IP-Address = 10.20.5.77", "Class = 0x676f6c64", "NAS-Identifier"] {
        assert!(start.contains(line), "{line} is not in\n{start}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let wanted = format!("User-Name = \"alice\"\nFramed-IP-Address = 10.20.5.77\nEvent-Timestamp = {now}\n");
    let said = radius.disconnect(&host, &format!("{SERVER}:3799"), &wanted).unwrap();
    assert!(said.contains("Received Disconnect-ACK"), "{said}");
    world.server.wait_sessions(1, PATIENCE).unwrap();
    let stop = wait_for_record(&radius, "Stop");
    for line in ["User-Name = \"alice\"", "Acct-Terminate-Cause = Admin-Reset", "Class = 0x676f6c64"] {
        assert!(stop.contains(line), "{line} is not in\n{stop}");
    }
    assert!(other.pings("10.20.5.1"), "the other session is not touched");
}

#[test]
fn freeradius_refuses_a_wrong_password_and_the_log_has_one_line_without_it() {
    let (world, _host, radius) = world("Pap");
    let like = Lns { password: "a guess".to_owned(), auth: PppAuth::Pap, ..Lns::default() };
    let client = world.client(Side::Wan, like);
    client.dial().unwrap_err();
    let log = world.server.log().unwrap();
    let refused = log.lines().filter(|line| line.contains("a user is refused") && line.contains("radius_reject"));
    assert_eq!(refused.count(), 1, "{log}");
    assert!(!log.contains("a guess") && !log.contains(SECRET), "{log}");
    assert_eq!(world.server.report().unwrap().sessions, Some(0));
    assert!(radius.accounting().unwrap().iter().all(|record| !record.contains("Acct-Status-Type = Start")));
}

#[test]
fn a_conversation_of_eap_goes_through_the_server_to_freeradius_and_lets_the_client_in() {
    let (mut world, _host, radius) = world("Eap");
    let client = world.client(Side::Wan, Lns { auth: PppAuth::Eap, ..Lns::default() });
    let link = world.connect(&client);
    assert_eq!(local(&link), "10.20.5.77");
    assert!(radius.log().unwrap().contains("Access-Challenge"), "{}", radius.log().unwrap());
    client.hang_up().unwrap();
    world.server.wait_sessions(0, Duration::from_secs(60)).unwrap();
}
