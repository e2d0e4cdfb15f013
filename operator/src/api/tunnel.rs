//! `VpnTunnel`: one tunnel to one remote site, or the server that people and sites dial in to.
//!
//! A value belongs here only if it reaches the pod. Bounds are those of `towline_tunnel::config`, so that what the API server
//! accepts the pod accepts too; rules between fields are CEL, with messages that name the field and the remedy.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

mod client;
mod network;
mod pod;
mod protocol;
pub(super) mod secret;
mod server;
mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use client::{Client, Peer, PreSharedKey, User};
pub use network::{Export, HealthCheck, Import, Network, ProbeType};
pub use pod::{Amounts, Log, PodSettings, Resources};
pub use protocol::{Dpd, Esp, Identity, Ike, L2tp, Ppp};
pub use secret::{Certificate, SecretKey};
pub use server::{
    DialIn, Forwarding, Limits, NodePorts, Radius, RadiusServer, Server, ServerKey, ServiceType, TrafficPolicy,
};
pub use status::{MAX_ADDRESSES, MAX_STATUS_PODS, Negotiated, PodStatus, ServiceStatus, VpnTunnelStatus};

const NAME_RULE: &str = "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 38";
const SERVICE_NAME_RULE: &str =
    "!has(self.spec.exports) || self.spec.exports.all(e, size(self.metadata.name) + size(e.name) <= 62)";
const EXPORTS_RULE: &str = "!has(self.exports) || size(self.exports) == 0 || self.attachment == 'Gateway'";
// A network that is none has a message of its own.
const EXPORT_HOST_RULE: &str = "self.mode != 'Client' || !has(self.exports) || self.exports.all(e, \
     isIP(e.host) && ip(e.host).family() == 4 && has(self.network) && \
     has(self.network.remoteCIDRs) && \
     self.network.remoteCIDRs.exists(c, !isCIDR(c) || cidr(c).containsIP(e.host)))";
const SERVER_EXPORT_HOST_RULE: &str =
    "self.mode != 'Server' || !has(self.exports) || self.exports.all(e, isIP(e.host) && ip(e.host).family() == 4)";
const CLIENT_RULE: &str = "self.mode != 'Client' || (has(self.client) && !has(self.server))";
const SERVER_RULE: &str = "self.mode != 'Server' || (has(self.server) && !has(self.client))";
const EXCHANGE_RULE: &str = "self.ike.exchange == 'Main' || \
     (self.mode == 'Client' && has(self.client) && has(self.client.preSharedKey))";
const SERVER_ENCAPSULATION_RULE: &str = "self.mode != 'Server' || self.esp.encapsulation == 'Udp'";
const SERVER_ATTACHMENT_RULE: &str = "self.mode != 'Server' || self.attachment == 'Gateway'";
const IMPORTS_RULE: &str = "!has(self.imports) || size(self.imports) == 0 || self.attachment == 'Gateway'";
const IMPORT_PORTS_RULE: &str = "!has(self.imports) || self.imports.all(i, self.imports.exists_one(j, \
     i.protocol == j.protocol && \
     (has(i.port) ? i.port : i.servicePort) == (has(j.port) ? j.port : j.servicePort)))";
const REMOTE_CIDRS_RULE: &str = "self.mode != 'Server' || !has(self.network) || !has(self.network.remoteCIDRs) || \
     size(self.network.remoteCIDRs) == 0";
const SERVER_IPV6_RULE: &str =
    "self.mode != 'Server' || !has(self.network) || !has(self.network.ipv6) || !self.network.ipv6";
const HEALTH_CHECK_RULE: &str = "self.mode != 'Server' || !has(self.healthCheck)";
const PROBE_HOST_RULE: &str = "self.mode != 'Client' || !has(self.healthCheck) || ( \
     isIP(self.healthCheck.host) && ip(self.healthCheck.host).family() == 4 && has(self.network) && \
     has(self.network.remoteCIDRs) && \
     self.network.remoteCIDRs.exists(c, !isCIDR(c) || cidr(c).containsIP(self.healthCheck.host)))";
const SUSPEND_RULE: &str = "!(has(self.suspend) && self.suspend) || self.attachment == 'Gateway'";
const POD_RULE: &str = "!has(self.pod) || self.attachment == 'Gateway' || \
     !(has(self.pod.nodeSelector) || has(self.pod.tolerations))";
const SIDECAR_RULE: &str = "self.attachment != 'Sidecar' || \
     (has(self.network) && has(self.network.remoteCIDRs) && size(self.network.remoteCIDRs) > 0)";

/// A tunnel by L2TP over IPsec (IKEv1) from this cluster to a remote site, or the server that people and sites dial in to, with
/// nothing installed on the nodes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "towline.dev",
    version = "v1alpha1",
    kind = "VpnTunnel",
    plural = "vpntunnels",
    singular = "vpntunnel",
    shortname = "vt",
    shortname = "vpnt",
    category = "vpn",
    namespaced,
    status = "VpnTunnelStatus",
    doc = "A tunnel by L2TP over IPsec to a remote site, or the server that people and sites dial in to.",
    derive = "PartialEq",
    selectable = ".spec.mode",
    validation = Rule::new(NAME_RULE).message(
        "metadata.name must be a DNS label of at most 38 characters that starts with a letter; it becomes part of other names"),
    validation = Rule::new(SERVICE_NAME_RULE).message(
        "metadata.name and spec.exports[].name together may have at most 62 characters; the Service is named NAME-EXPORT"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Peer", type_ = "string", json_path = ".status.activePeer"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.sessions"),
    printcolumn(name = "Attachment", type_ = "string", json_path = ".spec.attachment", priority = 1),
    printcolumn(name = "IKE", type_ = "string", json_path = ".status.negotiated.ike", priority = 1),
    printcolumn(name = "ESP", type_ = "string", json_path = ".status.negotiated.esp", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new(CLIENT_RULE).message(
        "mode Client needs client, with the gateways to dial and the credentials, and takes no server"),
    validation = Rule::new(SERVER_RULE).message(
        "mode Server needs server, with the pools and the credentials, and takes no client"),
    validation = Rule::new(SERVER_ATTACHMENT_RULE).message(
        "mode Server needs attachment Gateway; a sidecar can only dial"),
    validation = Rule::new(EXCHANGE_RULE).message(
        "ike.exchange Aggressive goes with mode Client and client.preSharedKey alone; set ike.exchange to Main"),
    validation = Rule::new(SERVER_ENCAPSULATION_RULE).message(
        "esp.encapsulation goes with mode Client; a Service carries no ESP outside of UDP, remove esp.encapsulation"),
    validation = Rule::new(REMOTE_CIDRS_RULE).message(
        "network.remoteCIDRs goes with mode Client; in mode Server the networks of a site are those of its VpnUser"),
    validation = Rule::new(SERVER_IPV6_RULE).message(
        "network.ipv6 goes with mode Client; a server gives prefixes of server.ipv6Pool, set that instead"),
    validation = Rule::new(HEALTH_CHECK_RULE).message(
        "healthCheck goes with mode Client; a server is ready when it listens and forwards, remove healthCheck"),
    validation = Rule::new(SERVER_EXPORT_HOST_RULE).message(
        "in mode Server each exports[].host must be the IPv4 address of a host behind a VpnUser"),
    validation = Rule::new(IMPORTS_RULE).message(
        "imports needs attachment Gateway; the peer reaches a sidecar's application directly, remove imports"),
    validation = Rule::new(IMPORT_PORTS_RULE).message(
        "each of imports needs a port of its own; set imports[].port"),
    validation = Rule::new(EXPORTS_RULE).message(
        "exports needs attachment Gateway; a sidecar's application reaches network.remoteCIDRs directly, remove exports"),
    validation = Rule::new(EXPORT_HOST_RULE).message(
        "each exports[].host must be an IPv4 address inside network.remoteCIDRs; add its network there"),
    validation = Rule::new(PROBE_HOST_RULE).message(
        "healthCheck.host must be an IPv4 address inside network.remoteCIDRs; add its network there"),
    validation = Rule::new(SIDECAR_RULE).message(
        "attachment Sidecar needs network.remoteCIDRs: name the networks that the application reaches through the tunnel"),
    validation = Rule::new(SUSPEND_RULE).message(
        "suspend needs attachment Gateway; to stop sidecars remove the label towline.dev/tunnel from their pods"),
    validation = Rule::new(POD_RULE).message(
        "pod.nodeSelector and pod.tolerations need attachment Gateway; a sidecar runs where its application's pod runs")
)]
#[serde(rename_all = "camelCase")]
pub struct VpnTunnelSpec {
    /// The role of this end. Client: dials the gateway of the remote site. Server: people and sites dial in. Cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "mode cannot be changed; delete the VpnTunnel and create it anew"))]
    pub mode: Mode,
    /// Where the tunnel runs. Gateway: in a pod of its own, whose `exports` are Services. Sidecar: inside each pod of this
    /// namespace that carries the label `towline.dev/tunnel: NAME`. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message(
        "attachment cannot be changed; delete the VpnTunnel and create it anew"))]
    pub attachment: Attachment,
    /// How packets get in and out of the tunnel process. Tun: by a TUN device, which needs the capability NET_ADMIN in the
    /// pod's own network namespace.
    #[serde(default)]
    pub data_path: DataPath,
    /// Stops the tunnel and keeps its Services and settings.
    #[serde(default)]
    pub suspend: bool,
    /// The gateway of the remote site and the credentials for it. Mode Client only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// What people and sites who dial in get. They are `VpnUsers` of this namespace that name this tunnel, or known to a RADIUS
    /// server. Mode Server only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// Phase 1 of IKEv1.
    #[serde(default)]
    pub ike: Ike,
    /// Phase 2: ESP in transport mode.
    #[serde(default)]
    pub esp: Esp,
    /// L2TP.
    #[serde(default)]
    pub l2tp: L2tp,
    /// PPP.
    #[serde(default)]
    pub ppp: Ppp,
    /// The networks behind the peer, and the MTU.
    #[serde(default)]
    pub network: Network,
    /// Hosts behind the peer, or behind sites that dialled in, that become Services of this namespace. Gateway only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<Export>,
    /// Services of this namespace that the peer, or people and sites who dialled in, reach at our own address inside the tunnel.
    /// Gateway only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub imports: Vec<Import>,
    /// What proves that traffic goes through. Mode Client only. Unless it is set, the peer itself is asked by LCP echoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Settings of the pod that the tunnel runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
    /// Logs of the tunnel process. A change reaches it without a new dial and without a restart.
    #[serde(default)]
    pub log: Log,
}

/// The role of this end.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dials the gateway of the remote site.
    Client,
    /// Accepts people and sites who dial in.
    Server,
}

/// Where the tunnel runs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachment {
    /// In a pod of its own.
    #[default]
    Gateway,
    /// Inside each pod that asks for it.
    Sidecar,
}

/// How packets get in and out of the tunnel process.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPath {
    /// By a TUN device.
    #[default]
    Tun,
}
