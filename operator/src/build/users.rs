//! From the `VpnUsers` that name a tunnel to the users of its configuration. Pure.
//!
//! A user that cannot be let in is left out, and its own status says why: one mistaken `VpnUser` must neither shut the others
//! out nor keep a change of theirs from the pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use jiff::Timestamp;
use kube::ResourceExt;
use towline_tunnel::config::server::{MAX_NAME, MAX_USERS, User};
use towline_tunnel::report::Reason;

use super::config::server::local_address;
use super::config::{InvalidSpec, field, fields, secret};
use crate::api::condition::Verdict;
use crate::api::tunnel::{Mode, VpnTunnel};
use crate::api::user::VpnUser;

/// Secrets with passwords that one pod mounts: each is a volume.
pub const MAX_SECRETS: usize = 64;
/// Octets that the users take in the ConfigMap, which takes 1 MiB: the rest of the specification has room beside them.
const MAX_OCTETS: usize = 768 << 10;

/// The users of a tunnel.
#[derive(Debug, Clone, Default)]
pub struct Roll {
    /// Those who are let in, by name.
    pub users: Vec<User>,
    /// The Secrets with their passwords.
    pub secrets: BTreeSet<String>,
    /// What the condition Accepted of each `VpnUser` says, by the name of its object.
    pub verdicts: BTreeMap<String, Verdict>,
}

/// Whoever has a name or an address, by it.
#[derive(Default)]
struct Taken {
    names: BTreeMap<String, String>,
    addresses: BTreeMap<Ipv4Addr, String>,
    octets: usize,
}

/// The roll of `tunnel`, of the `users` that name it.
pub fn roll<'a>(tunnel: &VpnTunnel, users: impl IntoIterator<Item = &'a VpnUser>) -> Roll {
    let mut users: Vec<&VpnUser> = users.into_iter().collect();
    // The older one has the name and the address.
    users.sort_by_key(|user| (user.metadata.creation_timestamp.as_ref().map(|time| time.0), user.name_any()));
    let (mut roll, mut taken) = (Roll::default(), Taken::default());
    for user in users {
        let verdict = match accept(tunnel, user, &mut roll, &mut taken) {
            Ok(()) => Verdict::yes(Reason::Valid, format!("VpnTunnel {} lets the user in.", tunnel.name_any())),
            Err(verdict) => verdict,
        };
        roll.verdicts.insert(user.name_any(), verdict);
    }
    roll.users.sort_by(|one, other| one.name.cmp(&other.name));
    roll
}

/// What the condition Accepted of a user says whose tunnel does not exist.
pub fn without_tunnel(user: &VpnUser) -> Verdict {
    let tunnel = &user.spec.tunnel_name;
    let namespace = user.namespace().unwrap_or_default();
    let message = format!("Namespace {namespace} has no VpnTunnel {tunnel}; create it, or delete the VpnUser.");
    Verdict::no(Reason::TunnelNotFound, message)
}

fn invalid(message: String) -> Verdict {
    Verdict::no(Reason::InvalidSpec, message)
}

fn accept(tunnel: &VpnTunnel, user: &VpnUser, roll: &mut Roll, taken: &mut Taken) -> Result<(), Verdict> {
    let name = tunnel.name_any();
    let (Mode::Server, Some(server)) = (tunnel.spec.mode, &tunnel.spec.server) else {
        let message = format!("VpnTunnel {name} is of mode Client, to which nobody dials in; name one of mode Server.");
        return Err(invalid(message));
    };
    let entry = entry(user).map_err(|InvalidSpec(problem)| invalid(format!("{problem}.")))?;
    if entry.password.is_none() && server.certificate.is_none() {
        let message = format!(
            "The user has no spec.passwordSecret, and VpnTunnel {name} no spec.server.certificate to let it in with a certificate; set one of them."
        );
        return Err(invalid(message));
    }
    if let Some(other) = taken.names.get(&entry.name) {
        let message =
            format!("VpnUser {other} has the name {:?} on VpnTunnel {name}; set another spec.username.", entry.name);
        return Err(Verdict::no(Reason::Conflict, message));
    }
    if let Some(address) = entry.address {
        if local_address(server).is_ok_and(|local| local == address) {
            let message = format!("{address} is the address of VpnTunnel {name} itself; set another spec.address.");
            return Err(Verdict::no(Reason::Conflict, message));
        }
        if let Some(other) = taken.addresses.get(&address) {
            let message =
                format!("VpnUser {other} has the address {address} on VpnTunnel {name}; set another spec.address.");
            return Err(Verdict::no(Reason::Conflict, message));
        }
    }
    let octets = taken.octets.saturating_add(octets(&entry));
    if roll.users.len() >= MAX_USERS || octets > MAX_OCTETS {
        let message = format!(
            "VpnTunnel {name} has {} users, and its configuration takes no more; put further users into a RADIUS server.",
            roll.users.len()
        );
        return Err(invalid(message));
    }
    if let Some(secret) = &user.spec.password_secret
        && !roll.secrets.contains(&secret.name)
    {
        if roll.secrets.len() >= MAX_SECRETS {
            let message = format!(
                "The users of VpnTunnel {name} name {MAX_SECRETS} Secrets, and its pod takes no more; put the password into one of these."
            );
            return Err(invalid(message));
        }
        roll.secrets.insert(secret.name.clone());
    }
    taken.octets = octets;
    taken.names.insert(entry.name.clone(), user.name_any());
    taken.addresses.extend(entry.address.map(|address| (address, user.name_any())));
    roll.users.push(entry);
    Ok(())
}

/// The user as the configuration has it.
fn entry(user: &VpnUser) -> Result<User, InvalidSpec> {
    let spec = &user.spec;
    let name = user.username();
    if name.len() > MAX_NAME {
        return Err(InvalidSpec(format!("spec.username has {} octets; it may have {MAX_NAME}", name.len())));
    }
    let expires_at: Option<Timestamp> = spec.expires_at.as_deref().map(|time| field("expiresAt", time)).transpose()?;
    let destinations = fields("destinations", &spec.destinations)?;
    Ok(User {
        name,
        password: spec.password_secret.as_ref().map(|password| secret(&password.name, &password.key)),
        address: spec.address.as_deref().map(|address| field("address", address)).transpose()?,
        networks: fields("networks", &spec.networks)?,
        destinations: (!destinations.is_empty()).then_some(destinations),
        // Whoever expired before the epoch has expired.
        expires_at: expires_at.map(|time| u64::try_from(time.as_second()).unwrap_or_default()),
        suspended: spec.suspend,
    })
}

/// What the user takes in the ConfigMap.
fn octets(user: &User) -> usize {
    // A user of the configuration is always JSON.
    serde_json::to_string(user).unwrap_or_default().len().saturating_add(",".len())
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::condition::Truth;
    use crate::build::tests::{server, tunnel};

    /// A user of the tunnel `road` that was made at `second` and has more than the least as `spec` says.
    pub(crate) fn user(name: &str, second: u32, spec: &Value) -> VpnUser {
        let mut all = json!({"tunnelName": "road", "passwordSecret": {"name": "people", "key": name}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "VpnUser",
            "metadata": {
                "name": name, "namespace": "erp", "uid": format!("uid-{name}"), "generation": 1, "resourceVersion": "7",
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": all,
        }))
        .unwrap()
    }

    fn names(roll: &Roll) -> Vec<&str> {
        roll.users.iter().map(|user| user.name.as_str()).collect()
    }

    /// Reason and message of a user that is not let in.
    fn refusal(roll: &Roll, name: &str) -> (Reason, String) {
        let verdict = &roll.verdicts[name];
        assert_eq!(verdict.truth, Truth::False, "{verdict:?}");
        (verdict.reason, verdict.message.clone())
    }

    #[test]
    fn every_field_of_a_user_reaches_the_process() {
        let alice = user(
            "alice",
            1,
            &json!({
                "username": "Alice", "address": "10.99.0.7", "networks": ["10.20.0.0/16"], "destinations": ["10.96.0.0/12"],
                "expiresAt": "2027-01-01T00:00:00Z", "suspend": true,
            }),
        );
        let roll = roll(&server(), [&alice]);
        let expected = json!([{
            "name": "Alice", "address": "10.99.0.7", "networks": ["10.20.0.0/16"], "destinations": ["10.96.0.0/12"],
            "password": {"path": "/etc/towline/secrets/people/alice", "source": "key alice of Secret people"},
            "expiresAt": 1_798_761_600, "suspended": true,
        }]);
        assert_eq!(json!(roll.users), expected);
        assert_eq!((roll.verdicts["alice"].truth, roll.verdicts["alice"].reason), (Truth::True, Reason::Valid));
    }

    #[test]
    fn a_user_is_named_like_its_object_and_may_go_anywhere_unless_it_says_otherwise() {
        let roll = roll(&server(), [&user("alice", 1, &json!({"destinations": []}))]);
        assert_eq!((names(&roll), &roll.users[0].destinations), (vec!["alice"], &None));
    }

    #[test]
    fn the_older_one_has_the_name_and_the_address_and_the_other_is_told_whose_they_are() {
        let old = user("zoe", 1, &json!({"username": "z", "address": "10.99.0.7"}));
        let name = user("amy", 2, &json!({"username": "z"}));
        let address = user("bob", 3, &json!({"address": "10.99.0.7"}));
        for users in [[&old, &name, &address], [&address, &name, &old]] {
            let roll = roll(&server(), users);
            assert_eq!(names(&roll), ["z"]);
            let (reason, message) = refusal(&roll, "amy");
            assert!(reason == Reason::Conflict && message.starts_with("VpnUser zoe has the name \"z\""), "{message}");
            let (reason, message) = refusal(&roll, "bob");
            assert!(
                reason == Reason::Conflict && message.starts_with("VpnUser zoe has the address 10.99.0.7"),
                "{message}"
            );
        }
    }

    #[test]
    fn nobody_gets_the_servers_own_address() {
        let roll = roll(&server(), [&user("alice", 1, &json!({"address": "10.99.0.1"}))]);
        let (reason, message) = refusal(&roll, "alice");
        assert!(reason == Reason::Conflict && message.contains("VpnTunnel road itself"), "{message}");
        assert_eq!(names(&roll), [""; 0]);
    }

    #[test]
    fn nobody_dials_in_to_a_client_or_to_a_tunnel_that_is_not_there() {
        let alice = user("alice", 1, &json!({}));
        let roll = roll(&tunnel("Gateway"), [&alice]);
        assert!(refusal(&roll, "alice").1.contains("VpnTunnel oslo is of mode Client"));
        assert!(roll.users.is_empty() && roll.secrets.is_empty());
        let orphan = without_tunnel(&alice);
        assert_eq!(orphan.reason, Reason::TunnelNotFound);
        assert!(orphan.message.starts_with("Namespace erp has no VpnTunnel road;"), "{}", orphan.message);
    }

    #[test]
    fn a_user_without_a_password_needs_a_server_with_a_certificate() {
        let alice = user("alice", 1, &json!({"passwordSecret": null}));
        assert_eq!(names(&roll(&server(), [&alice])), ["alice"]);
        let mut without = server();
        without.spec.server.as_mut().unwrap().certificate = None;
        assert!(refusal(&roll(&without, [&alice]), "alice").1.contains("spec.passwordSecret"));
    }

    #[test]
    fn a_mistaken_user_is_named_and_keeps_nobody_else_out() {
        let wrong = user("alice", 1, &json!({"networks": ["10.20.0.0"]}));
        let long = user("carol", 2, &json!({"username": "ü".repeat(127)}));
        let late = user("dave", 2, &json!({"expiresAt": "2027-01-01T00:00:00+99:00"}));
        let roll = roll(&server(), [&wrong, &long, &late, &user("bob", 3, &json!({}))]);
        assert!(refusal(&roll, "dave").1.starts_with("spec.expiresAt: \"2027-01-01T00:00:00+99:00\""));
        assert_eq!(names(&roll), ["bob"]);
        assert!(refusal(&roll, "alice").1.starts_with("spec.networks[0]: \"10.20.0.0\""));
        assert!(refusal(&roll, "carol").1.starts_with("spec.username has 254 octets"));
    }

    #[test]
    fn the_users_fit_into_a_config_map_and_those_beyond_are_told_where_to_go() {
        let networks: Vec<String> = (0..64).map(|index| format!("10.{index}.0.0/16")).collect();
        let users: Vec<VpnUser> =
            (0..1_000).map(|index| user(&format!("u{index:04}"), 1, &json!({"networks": networks}))).collect();
        let roll = roll(&server(), &users);
        assert!((500..1_000).contains(&roll.users.len()), "{}", roll.users.len());
        assert!(refusal(&roll, "u0999").1.contains("RADIUS"));
        let objects = super::super::objects(&server(), &roll, &super::super::pod::tests::settings(), "PEM").unwrap();
        let text = &objects.config_map.data.unwrap()["config.json"];
        assert!((MAX_OCTETS - 4_096..MAX_OCTETS + 4_096).contains(&text.len()), "{}", text.len());
    }

    #[test]
    fn no_more_users_than_the_process_takes_are_let_in() {
        let users: Vec<VpnUser> =
            (0..=MAX_USERS).map(|index| user(&format!("u{index:04}"), 1, &json!({"passwordSecret": null}))).collect();
        let roll = roll(&server(), &users);
        assert_eq!(roll.users.len(), MAX_USERS);
        assert!(refusal(&roll, "u4096").1.contains("has 4096 users"));
    }

    #[test]
    fn a_pod_mounts_so_many_secrets_and_a_user_of_one_more_is_told_to_share_one() {
        let mut users: Vec<VpnUser> = (0..=MAX_SECRETS)
            .map(|index| {
                user(&format!("u{index:02}"), 1, &json!({"passwordSecret": {"name": format!("s{index}"), "key": "p"}}))
            })
            .collect();
        users.push(user("u99", 2, &json!({"passwordSecret": {"name": "s0", "key": "q"}})));
        let roll = roll(&server(), &users);
        assert_eq!((roll.secrets.len(), roll.users.len()), (MAX_SECRETS, MAX_SECRETS + 1));
        assert!(refusal(&roll, "u64").1.contains("put the password into one of these"));
        assert!(names(&roll).contains(&"u99"));
    }
}
