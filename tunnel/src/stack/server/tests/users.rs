//! Who may come in, how often, for how long, and to where.

use super::*;

#[test]
fn a_user_sends_only_to_where_it_may() {
    let mut town = Town::with(|json| json["users"][0]["destinations"] = serde_json::json!(["10.96.0.10/32"]));
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    town.send(alice, &packet(address, SERVICE, 100));
    town.send(alice, &packet(address, [10, 96, 0, 11].into(), 100));
    assert_eq!(town.device.len(), 1);
    assert_eq!(town.server.counters().dropped.get("destination"), Some(&1));
}

#[test]
fn a_wrong_password_and_a_wrong_key_are_refused_and_counted() {
    let mut town = Town::new();
    town.dial("alice", "a guess");
    town.dial("mallory", "a guess");
    town.run(Duration::from_secs(10));
    assert_eq!(town.sessions(), 0);
    assert_eq!(town.refused(), [Cause::UnknownUser, Cause::WrongPassword]);
    let report = &town.server.report().users;
    assert_eq!(report.len(), 1, "names that nobody has are not kept");
    assert_eq!(
        (report[0].name.as_str(), report[0].accepted, report[0].result.as_str()),
        ("alice", false, "wrong_password")
    );
    let phase1 = town.server.counters().phase1;
    town.dial_with("alice", "alice's password", b"another key");
    assert_eq!((town.sessions(), town.server.counters().phase1), (0, phase1));
}

#[test]
fn a_user_who_comes_again_replaces_the_session_or_is_refused() {
    for (on_limit, ended, refused) in
        [("Replace", vec![EndCause::Replaced], vec![]), ("Refuse", vec![], vec![Cause::TooManySessions])]
    {
        let mut town = Town::with(|json| json["limits"] = serde_json::json!({"onLimit": on_limit}));
        town.dial("bob", "bob's password");
        assert_eq!(town.address(0), Ipv4Addr::new(10, 99, 0, 77));
        // The first one does not hear of it: its network is gone.
        town.clients[0].ports = [1, 2];
        town.dial("bob", "bob's password");
        let causes: Vec<EndCause> = town.ended().into_iter().filter(|cause| *cause == EndCause::Replaced).collect();
        assert_eq!((causes, town.refused()), (ended, refused), "{on_limit}");
        if on_limit == "Replace" {
            assert_eq!(town.address(1), Ipv4Addr::new(10, 99, 0, 77));
        }
    }
}

#[test]
fn a_change_of_the_configuration_leaves_the_end_of_a_user_where_it_was() {
    let expires = |json: &mut serde_json::Value| json["users"][0]["expiresAt"] = 1_700_000_200_u64.into();
    let mut town = Town::with(expires);
    town.dial("alice", "alice's password");
    town.run(Duration::from_secs(120));
    town.apply(expires);
    town.run(Duration::from_secs(60));
    assert_eq!((town.sessions(), town.ended()), (1, vec![]));
    town.run(Duration::from_secs(15));
    assert!(town.ended().contains(&EndCause::Total));
    assert_eq!((town.sessions(), town.refused()), (0, vec![Cause::Expired]), "and nobody gets in again");
}

#[test]
fn sessions_that_are_idle_or_last_too_long_end() {
    for (limit, cause) in [("idleSeconds", EndCause::Idle), ("totalSeconds", EndCause::Total)] {
        let mut town = Town::with(|json| json["limits"] = serde_json::json!({limit: 40}));
        let alice = town.dial("alice", "alice's password");
        let address = town.address(alice);
        town.run(Duration::from_secs(20));
        town.send(alice, &packet(address, SERVICE, 100));
        town.run(Duration::from_secs(25));
        assert_eq!(town.ended().contains(&cause), cause == EndCause::Total, "{limit}");
        town.run(Duration::from_secs(16));
        assert!(town.ended().contains(&cause), "{limit}");
    }
}

#[test]
fn users_who_may_not_stay_go_when_the_configuration_says_so_and_others_stay() {
    let mut town = Town::new();
    town.dial("alice", "alice's password");
    town.dial("bob", "bob's password");
    town.apply(|json| json["users"][0]["suspended"] = true.into());
    assert_eq!((town.sessions(), town.ended()), (1, vec![EndCause::Revoked]));
    town.run(Duration::from_secs(120));
    assert!(town.refused().contains(&Cause::Suspended));
    let users: Vec<(String, bool)> =
        town.server.report().users.iter().map(|user| (user.name.clone(), user.accepted)).collect();
    assert_eq!(users, [("alice".to_owned(), false), ("bob".to_owned(), true)]);
}
