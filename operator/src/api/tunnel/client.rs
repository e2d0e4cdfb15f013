//! The gateways of the remote site, and the Secrets with the credentials for them.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::secret::{Certificate, SECRET_KEY_MESSAGE, SECRET_KEY_RULE, SECRET_NAME_MESSAGE, SECRET_NAME_RULE};

// A DNS name as in RFC 1123 section 2.1: its last label is not a number, or it would be a mistyped address.
pub(super) const ADDRESS_RULE: &str = "isIP(self) || (self.matches('^([A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?[.])*\
[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?[.]?$') && !self.matches('(^|[.])[0-9]+[.]?$'))";
const CREDENTIALS_RULE: &str = "has(self.preSharedKey) != has(self.certificate)";

/// The gateway of the remote site and the credentials for it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(CREDENTIALS_RULE).message(
    "client needs either preSharedKey or certificate, as the gateway asks for; set one of them"))]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Gateways in order of preference; the next is tried when one fails.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub peers: Vec<Peer>,
    /// Secret of this namespace with the pre-shared key of IPsec. Either this or `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_shared_key: Option<PreSharedKey>,
    /// Secret of this namespace with a certificate for IPsec, and the authorities whose certificate the gateway may have. Either
    /// this or `preSharedKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Secret of this namespace with the user name and the password of PPP.
    pub user: User,
    /// Secret of this namespace with the user name and the password of XAUTH, which some gateways ask for in IPsec, before PPP. A
    /// gateway that does not ask is refused then. Needs `preSharedKey`, or a certificate with an RSA key. Whoever knows the
    /// pre-shared key can pose as the gateway and learns this password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xauth: Option<User>,
}

/// A gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// DNS name or IP address. A name is resolved anew before each attempt.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(ADDRESS_RULE).message(
        "client.peers[].address must be an IP address or a DNS name alone, such as vpn.oslo.example.com; without scheme or port"))]
    pub address: String,
}

/// A key of a Secret, `psk` unless it is named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PreSharedKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(
        "client.preSharedKey.name must be the name of a Secret: lower-case letters, digits, '-' and '.', such as oslo-vpn"))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "psk")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(
        "client.preSharedKey.key must be a key of the Secret: letters, digits, '-', '_' and '.', and not begin with '..'"))]
    pub key: String,
}

fn psk() -> String {
    "psk".to_owned()
}

/// A Secret with a user name and a password.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(SECRET_NAME_MESSAGE))]
    pub secret_name: String,
    /// Key of the user name.
    #[serde(default = "username")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub username_key: String,
    /// Key of the password.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub password_key: String,
}

fn username() -> String {
    "username".to_owned()
}

fn password() -> String {
    "password".to_owned()
}
