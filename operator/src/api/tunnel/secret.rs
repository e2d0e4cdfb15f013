//! References to Secrets of the tunnel's namespace.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

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
