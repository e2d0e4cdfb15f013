//! How many sessions are weak, and what of them is.

use super::*;

fn client(town: &Town, ike: &[&str], esp: &str) -> config::Config {
    let text = serde_json::json!({
        "peers": [{"address": town.outside.server}],
        "credentials": {"preSharedKey": {"path": "psk"}, "username": {"path": "user"}, "password": {"path": "password"}},
        "ike": {"proposals": ike, "lifetimeSeconds": 600},
        "esp": {"proposals": [esp]},
    });
    config::parse(&text.to_string()).unwrap()
}

#[test]
fn weak_sessions_are_counted_as_they_come_and_go() {
    let mut town = Town::with(|config| config["esp"]["proposals"] = serde_json::json!(["aes128-sha256", "aes128-md5"]));
    let (alice, oslo) = (town.dial("alice", "alice's password"), town.dial("oslo", "oslo's password"));
    assert_eq!((town.server.report().sessions, &town.server.report().weak_sessions), (Some(2), &None));
    let weak = client(&town, &["aes128-sha1-ecp256"], "aes128-md5");
    town.clients[alice].tunnel.apply(town.now, &weak);
    town.run(Duration::from_secs(30));
    let report = town.server.report();
    let found = report.weak_sessions.as_ref().unwrap();
    assert_eq!((report.sessions, found.count), (Some(2), 1));
    assert_eq!(found.weakness, "md5 MUST NOT be used in ESP (RFC 8221)");
    town.clients[oslo].tunnel.apply(town.now, &weak);
    town.run(Duration::from_secs(30));
    assert_eq!(town.server.report().weak_sessions.as_ref().unwrap().count, 2);
    for number in [alice, oslo] {
        town.clients[number].tunnel.close(town.now);
    }
    town.run(Duration::from_secs(5));
    assert_eq!((town.server.report().sessions, &town.server.report().weak_sessions), (Some(0), &None));
}

#[test]
fn a_renewal_of_phase_1_with_other_algorithms_changes_what_is_said_of_a_session() {
    let only = |proposal: &'static str| {
        move |config: &mut serde_json::Value| config["ike"]["proposals"] = serde_json::json!([proposal])
    };
    let mut town = Town::with(only("aes128-sha1-modp1024"));
    let alice = town.dial("alice", "alice's password");
    let both = client(&town, &["aes128-sha256-ecp256", "aes128-sha1-modp1024"], "aes128-sha256");
    town.clients[alice].tunnel.apply(town.now, &both);
    town.run(Duration::from_secs(30));
    let report = town.server.report();
    assert_eq!((report.sessions, report.weak_sessions.as_ref().map(|weak| weak.count)), (Some(1), Some(1)));
    let since = town.server.sessions().next().unwrap().since;

    town.apply(only("aes128-sha256-ecp256"));
    assert_eq!(town.server.report().weak_sessions.as_ref().map(|weak| weak.count), Some(1), "nothing is renewed yet");
    town.run(Duration::from_secs(900));
    assert_eq!((town.server.report().sessions, &town.server.report().weak_sessions), (Some(1), &None));
    let session = town.server.sessions().next().unwrap();
    assert_eq!(
        (session.since, session.ike.to_string(), session.weakness),
        (since, "aes128-sha256-ecp256".to_owned(), None)
    );
}
