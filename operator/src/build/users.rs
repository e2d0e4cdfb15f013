//! From the `VpnUsers` that name a tunnel to the users of its configuration. Pure.
//!
//! A user that cannot be let in is left out, and its own status says why: one mistaken `VpnUser` must neither shut the others
//! out nor keep a change of theirs from the pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

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
/// What each line of a user is indented by where it stands in the ConfigMap.
const INDENT: usize = 4;

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
        let message = format!("VpnUser {other} has the name {:?} on VpnTunnel {name}; set another spec.username.", entry.name);
        return Err(Verdict::no(Reason::Conflict, message));
    }
    if let Some(address) = entry.address {
        if local_address(server).is_ok_and(|local| local == address) {
            let message = format!("{address} is the address of VpnTunnel {name} itself; set another spec.address.");
            return Err(Verdict::no(Reason::Conflict, message));
        }
        if let Some(other) = taken.addresses.get(&address) {
            let message = format!("VpnUser {other} has the address {address} on VpnTunnel {name}; set another spec.address.");
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
    let destinations = fields("destinations", &spec.destinations)?;
    Ok(User {
        name,
        password: spec.password_secret.as_ref().map(|password| secret(&password.name, &password.key)),
        address: spec.address.as_deref().map(|address| field("address", address)).transpose()?,
        networks: fields("networks", &spec.networks)?,
        destinations: (!destinations.is_empty()).then_some(destinations),
        // Whoever expired before the epoch has expired.
        expires_at: spec.expires_at.as_ref().map(|time| u64::try_from(time.0.as_second()).unwrap_or_default()),
        suspended: spec.suspend,
    })
}

/// What the user takes in the ConfigMap.
fn octets(user: &User) -> usize {
    // A user of the configuration is always JSON.
    let text = serde_json::to_string_pretty(user).unwrap_or_default();
    text.len().saturating_add(text.lines().count().saturating_mul(INDENT)).saturating_add(",\n".len())
}
