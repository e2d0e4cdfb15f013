//! Names of labels and annotations, and the values that Towline writes.

use std::collections::BTreeMap;

/// What the names of our labels and annotations begin with.
pub const PREFIX: &str = "towline.dev/";
/// Name of the tunnel that an object belongs to. On a pod of a user it asks for a sidecar of that tunnel.
pub const TUNNEL: &str = "towline.dev/tunnel";
/// What a pod does for its tunnel: [`ROLE_GATEWAY`] or [`ROLE_SIDECAR`].
pub const ROLE: &str = "towline.dev/role";
/// Role of a pod of the tunnel's own Deployment.
pub const ROLE_GATEWAY: &str = "gateway";
/// Role of a user's pod that carries the tunnel as a sidecar.
pub const ROLE_SIDECAR: &str = "sidecar";
/// Annotation of a tunnel's pods: a hash of what a pod cannot take on while it runs, its mounts and image among it.
pub const TEMPLATE: &str = "towline.dev/template";
/// Name of the export that a Service stands for.
pub const EXPORT: &str = "towline.dev/export";
/// Marks the Service at which people and sites dial in to a server.
pub const DIAL_IN: &str = "towline.dev/dial-in";

/// Who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Name of the application.
pub const NAME: &str = "app.kubernetes.io/name";
/// Which of several installations.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Part of the application.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// What the application belongs to.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Version of the application.
pub const VERSION: &str = "app.kubernetes.io/version";

/// Value of [`MANAGED_BY`]; also the field manager of server-side apply and the controller of events.
pub const OPERATOR: &str = "towline-operator";

/// Labels of every object that is made for `tunnel`.
pub fn of_tunnel(tunnel: &str) -> BTreeMap<String, String> {
    let mut labels = of_pod(tunnel);
    labels.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels
}

/// Labels of its pods: without the operator's version, or each release of the operator would restart every tunnel.
pub fn of_pod(tunnel: &str) -> BTreeMap<String, String> {
    [
        (TUNNEL, tunnel),
        (NAME, "towline-tunnel"),
        (INSTANCE, tunnel),
        (COMPONENT, "tunnel"),
        (PART_OF, "towline"),
        (MANAGED_BY, OPERATOR),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Labels that select the gateway pods of `tunnel`. They never change: a Deployment's selector is immutable.
pub fn gateway_selector(tunnel: &str) -> BTreeMap<String, String> {
    [(TUNNEL, tunnel), (ROLE, ROLE_GATEWAY)].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
