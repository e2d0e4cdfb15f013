//! References to Secrets of the tunnel's namespace.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::protocol::Identity;

pub(in crate::api) const SECRET_NAME_RULE: &str =
    "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$') && !self.matches('[.][.]|[.]-|-[.]')";
// The names of files that a Secret volume can have.
pub(in crate::api) const SECRET_KEY_RULE: &str =
    "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')";
pub(in crate::api) const SECRET_NAME_MESSAGE: &str =
    "must be the name of a Secret: lower-case letters, digits, '-' and '.', such as oslo-vpn";
pub(in crate::api) const SECRET_KEY_MESSAGE: &str =
    "must be a key of the Secret: letters, digits, '-', '_' and '.', and not begin with '..'";

/// A key of a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(SECRET_NAME_MESSAGE))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub key: String,
}

/// A Secret of type `kubernetes.io/tls`, as cert-manager writes it: `tls.crt`, `tls.key` and `ca.crt`. A renewed certificate is
/// taken on without a restart.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(SECRET_NAME_MESSAGE))]
    pub secret_name: String,
    /// Key of the Secret with revocation lists of the authorities in PEM, such as `ca.crl`; nothing is revoked unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub revocations_key: Option<String>,
    /// The subject alternative name that the peer's certificate must have. Unless it is set, a server takes any, and a client
    /// that by which it dials the gateway, or `ike.remoteId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
}
