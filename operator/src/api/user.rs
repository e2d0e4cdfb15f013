//! `VpnUser`: somebody, or a site, who may dial in to a `VpnTunnel` of mode Server.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]
#![allow(clippy::duplicated_attributes, reason = "each column has a name and a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema, ResourceExt};
use serde::{Deserialize, Serialize};

use super::tunnel::secret::{SECRET_KEY_MESSAGE, SECRET_KEY_RULE, SECRET_NAME_MESSAGE, SECRET_NAME_RULE};

const USERNAME_RULE: &str = "!self.matches('[[:cntrl:]]')";
const ADDRESS_RULE: &str = "isIP(self) && ip(self).family() == 4";
// A route for everything would take the server's own traffic as well.
const NETWORKS_RULE: &str = "self.all(c, isCIDR(c) && cidr(c).ip().family() == 4 && cidr(c).prefixLength() > 0)";
const DESTINATIONS_RULE: &str = "self.all(c, isCIDR(c))";

/// Somebody, or a site, who may dial in to a VpnTunnel of mode Server.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "VpnUser",
    plural = "vpnusers",
    singular = "vpnuser",
    shortname = "vu",
    category = "vpn",
    namespaced,
    status = "VpnUserStatus",
    doc = "Somebody, or a site, who may dial in to a VpnTunnel of mode Server.",
    derive = "PartialEq",
    selectable = ".spec.tunnelName",
    printcolumn(name = "User", type_ = "string", json_path = ".status.username"),
    printcolumn(name = "Tunnel", type_ = "string", json_path = ".spec.tunnelName"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.sessions"),
    printcolumn(name = "Result", type_ = "string", json_path = ".status.lastResult"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VpnUserSpec {
    /// Name of the VpnTunnel of this namespace, of mode Server, that the user dials in to. Cannot be changed.
    #[schemars(length(min = 1, max = 38))]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "tunnelName cannot be changed; delete the VpnUser and create it anew"))]
    pub tunnel_name: String,
    /// The name that the user dials in with, at most 253 octets; that of the VpnUser unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(USERNAME_RULE).message("username must not have control characters; remove them"))]
    pub username: Option<String>,
    /// Secret of this namespace with the password. Without one the user can only come with a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<PasswordSecret>,
    /// The IPv4 address that the user always gets; one of the server's pools unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new(ADDRESS_RULE).message("address must be an IPv4 address, such as 10.99.0.7"))]
    pub address: Option<String>,
    /// For a site: the IPv4 networks behind it, such as `10.20.0.0/16`. They are routed to its session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(NETWORKS_RULE).message(
        "networks must be IPv4 networks in CIDR form other than 0.0.0.0/0, such as 10.20.0.0/16"))]
    pub networks: Vec<String>,
    /// Networks that the user may send packets to; wherever the server forwards to if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(DESTINATIONS_RULE).message(
        "destinations must be networks in CIDR form, such as 10.96.0.0/12"))]
    pub destinations: Vec<String>,
    /// When the user may not come in any more, such as `2027-01-31T18:00:00Z`. Sessions end then as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// The user may not come in for now. Sessions end as soon as the server's pod has the change, within two minutes.
    #[serde(default)]
    pub suspend: bool,
}

/// A Secret with a password.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecret {
    /// Name of the Secret. A Secret that is new to the server is mounted into a new pod, which ends all sessions; a further key
    /// in a Secret that it has already does not. So keep the passwords of many users in one Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(SECRET_NAME_MESSAGE))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub key: String,
}

fn password() -> String {
    "password".to_owned()
}

/// What is known about the user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VpnUserStatus {
    /// The generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: whether the server lets the user in; its message says why not and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The name that the user dials in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// How many sessions the user has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// When the user tried to come in last; of attempts in quick succession that end alike only the first is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_time: Option<Time>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,
}

impl VpnUser {
    /// The name that the user dials in with.
    pub fn username(&self) -> String {
        self.spec.username.clone().unwrap_or_else(|| self.name_any())
    }
}
