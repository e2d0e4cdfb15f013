//! `VpnTunnel`: one tunnel to one remote site.
//!
//! A value belongs here only if it reaches the pod. Bounds are those of `towline_tunnel::config`, so that what the API server
//! accepts the pod accepts too; rules between fields are CEL, with messages that name the field and the remedy.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towline_tunnel::config::{self, IdentityKind, LogFormat, LogLevel, PppAuth, Protocol};
use towline_tunnel::suite::Security;

use super::schema;

/// The longest name of a `VpnTunnel`: `towline-NAME` with the suffix of a pod is still a DNS label.
pub const MAX_NAME: usize = 38;
/// The longest name of a Service, `TUNNEL-EXPORT`.
pub const MAX_SERVICE_NAME: usize = 63;
/// The most pods that status lists; the rest is only counted.
pub const MAX_STATUS_PODS: usize = 64;

const NAME_RULE: &str = "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 38";
const SERVICE_NAME_RULE: &str =
    "!has(self.spec.exports) || self.spec.exports.all(e, size(self.metadata.name) + size(e.name) <= 62)";
const EXPORTS_RULE: &str = "!has(self.exports) || size(self.exports) == 0 || self.attachment == 'Gateway'";
const EXPORT_HOST_RULE: &str = "!has(self.exports) || self.exports.all(e, isIP(e.host) && has(self.network) && \
     has(self.network.remoteCIDRs) && self.network.remoteCIDRs.exists(c, isCIDR(c) && cidr(c).containsIP(e.host)))";
const PROBE_HOST_RULE: &str = "!has(self.healthCheck) || (isIP(self.healthCheck.host) && has(self.network) && \
     has(self.network.remoteCIDRs) && \
     self.network.remoteCIDRs.exists(c, isCIDR(c) && cidr(c).containsIP(self.healthCheck.host)))";
const SUSPEND_RULE: &str = "!(has(self.suspend) && self.suspend) || self.attachment == 'Gateway'";
const POD_RULE: &str = "!has(self.pod) || self.attachment == 'Gateway' || \
     !(has(self.pod.nodeSelector) || has(self.pod.tolerations))";
const CIDR_RULE: &str = "self.all(c, isCIDR(c) && cidr(c).ip().family() == 4 && cidr(c).prefixLength() > 0)";
const GROUP_RULE: &str = "!has(self.proposals) || self.proposals.all(p, \
     p.find('-(modp|ecp)[0-9]+$') == self.proposals[0].find('-(modp|ecp)[0-9]+$'))";
const PROBE_PORT_RULE: &str = "has(self.port) == (self.type == 'Tcp')";

/// A tunnel from this cluster to a remote site by L2TP over IPsec (IKEv1), with nothing installed on the nodes.
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
    doc = "A tunnel from this cluster to a remote site by L2TP over IPsec, with nothing installed on the nodes.",
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
    printcolumn(name = "Address", type_ = "string", json_path = ".status.assignedAddress"),
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
    validation = Rule::new(EXPORTS_RULE).message(
        "exports needs attachment Gateway; a sidecar's application reaches network.remoteCIDRs directly, remove exports"),
    validation = Rule::new(EXPORT_HOST_RULE).message(
        "each exports[].host must be an IPv4 address inside network.remoteCIDRs; add its network there"),
    validation = Rule::new(PROBE_HOST_RULE).message(
        "healthCheck.host must be an IPv4 address inside network.remoteCIDRs; add its network there"),
    validation = Rule::new(SUSPEND_RULE).message(
        "suspend needs attachment Gateway; to stop sidecars remove the label towline.dev/tunnel from their pods"),
    validation = Rule::new(POD_RULE).message(
        "pod.nodeSelector and pod.tolerations need attachment Gateway; a sidecar runs where its application's pod runs")
)]
#[serde(rename_all = "camelCase")]
pub struct VpnTunnelSpec {
    /// The role of this end. Client dials the gateway of the remote site.
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
    /// The gateway of the remote site and the credentials for it.
    pub client: Client,
    /// Phase 1: IKEv1 Main Mode.
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
    /// The networks behind the peer.
    #[serde(default)]
    pub network: Network,
    /// Hosts behind the peer that become Services of this namespace. Gateway only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub exports: Vec<Export>,
    /// What proves that traffic goes through. Unless it is set, the peer itself is asked by LCP echoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Settings of the pod that the tunnel runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
    /// Logs of the tunnel process.
    #[serde(default)]
    pub log: Log,
}

/// The role of this end.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dials the gateway of the remote site.
    Client,
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

/// The gateway of the remote site and the credentials for it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Gateways in order of preference; the next is tried when one fails.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub peers: Vec<Peer>,
    /// Secret of this namespace with the pre-shared key of IPsec.
    pub pre_shared_key: PreSharedKey,
    /// Secret of this namespace with the user name and the password of PPP.
    pub user: User,
}

/// A gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// DNS name or IP address. A name is resolved anew before each attempt.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9.])?$"))]
    pub address: String,
}

/// A key of a Secret, `psk` unless it is named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PreSharedKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "psk")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
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
    pub secret_name: String,
    /// Key of the user name.
    #[serde(default = "username")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub username_key: String,
    /// Key of the password.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub password_key: String,
}

fn username() -> String {
    "username".to_owned()
}

fn password() -> String {
    "password".to_owned()
}

/// A key of a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Phase 1: IKEv1 Main Mode.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ike {
    /// How old the algorithms may be where no proposals are named, in phase 2 too. Strong: AES with SHA-1 or better, MODP-2048
    /// and ECP groups. Compatible: MODP-1536 and, in phase 1, 3DES as well. Legacy: MODP-1024 and 3DES as well. What was agreed
    /// on stands in `status.negotiated`.
    #[serde(default)]
    #[schemars(schema_with = "schema::security")]
    pub security: Security,
    /// Proposals in order of preference instead of those of `security`, each CIPHER-HASH-GROUP, such as
    /// `aes256-sha256-modp2048`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ike_proposals")]
    pub proposals: Vec<String>,
    /// Lifetime of phase 1 in seconds.
    #[serde(default = "ike_lifetime")]
    #[schemars(range(min = 60, max = 86_400))]
    pub lifetime_seconds: u32,
    /// Our identity; our own address unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_id: Option<Identity>,
    /// The identity that the peer must have; any unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
    /// Dead peer detection (RFC 3706).
    #[serde(default)]
    pub dpd: Dpd,
}

fn ike_lifetime() -> u32 {
    config::Ike::default().lifetime_seconds
}

impl Default for Ike {
    fn default() -> Self {
        Self {
            security: Security::default(),
            proposals: Vec::new(),
            lifetime_seconds: ike_lifetime(),
            local_id: None,
            remote_id: None,
            dpd: Dpd::default(),
        }
    }
}

/// An identity of phase 1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.type != 'Address' || isIP(self.value)").message(
    "value of an identity of type Address must be an IP address; use type Fqdn, UserFqdn or KeyId for other text"))]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Address: an IP address. Fqdn: a domain name. UserFqdn: a user at a domain. KeyId: any text.
    #[serde(rename = "type")]
    #[schemars(schema_with = "schema::identity_kind")]
    pub kind: IdentityKind,
    /// Its text.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// Dead peer detection.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.timeoutSeconds >= 2 * self.intervalSeconds").message(
    "dpd.timeoutSeconds must be at least twice dpd.intervalSeconds, or one lost packet would end the tunnel"))]
#[serde(rename_all = "camelCase")]
pub struct Dpd {
    /// Seconds of silence after which the peer is asked whether it lives.
    #[serde(default = "dpd_interval")]
    #[schemars(range(min = 2, max = 3_600))]
    pub interval_seconds: u32,
    /// Seconds of silence after which the peer is taken for dead.
    #[serde(default = "dpd_timeout")]
    #[schemars(range(min = 4, max = 86_400))]
    pub timeout_seconds: u32,
}

fn dpd_interval() -> u32 {
    config::Dpd::default().interval_seconds
}

fn dpd_timeout() -> u32 {
    config::Dpd::default().timeout_seconds
}

impl Default for Dpd {
    fn default() -> Self {
        Self { interval_seconds: dpd_interval(), timeout_seconds: dpd_timeout() }
    }
}

/// Phase 2: ESP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(GROUP_RULE).message(
    "esp.proposals must all end with the same group, or all without one; a Quick Mode carries one key exchange"))]
#[serde(rename_all = "camelCase")]
pub struct Esp {
    /// Proposals in order of preference instead of those of `ike.security`, each CIPHER-HASH or an AES-GCM cipher alone, with
    /// -GROUP behind it for perfect forward secrecy, such as `aes256-sha256` or `aes256gcm16-modp2048`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::esp_proposals")]
    pub proposals: Vec<String>,
    /// Lifetime of a pair of security associations in seconds.
    #[serde(default = "esp_lifetime")]
    #[schemars(range(min = 20, max = 86_400))]
    pub lifetime_seconds: u32,
    /// Octets after which a pair is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576_u64, max = 4_398_046_510_080_u64))]
    pub lifetime_bytes: Option<u64>,
    /// Packets after which a pair is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000_u64, max = 4_294_967_295_u64))]
    pub lifetime_packets: Option<u64>,
}

fn esp_lifetime() -> u32 {
    config::Esp::default().lifetime_seconds
}

impl Default for Esp {
    fn default() -> Self {
        Self { proposals: Vec::new(), lifetime_seconds: esp_lifetime(), lifetime_bytes: None, lifetime_packets: None }
    }
}

/// L2TP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct L2tp {
    /// The host name that the peer is told; some gateways choose the account by it.
    #[serde(default = "host_name")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[!-~]+$"))]
    pub host_name: String,
    /// Seconds of silence after which a Hello is sent.
    #[serde(default = "hello_seconds")]
    #[schemars(range(min = 5, max = 3_600))]
    pub hello_seconds: u32,
    /// Secret of this namespace with the secret of L2TP tunnel authentication, for gateways that ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_secret: Option<SecretKey>,
}

fn host_name() -> String {
    config::L2tp::default().host_name
}

fn hello_seconds() -> u32 {
    config::L2tp::default().hello_seconds
}

impl Default for L2tp {
    fn default() -> Self {
        Self { host_name: host_name(), hello_seconds: hello_seconds(), tunnel_secret: None }
    }
}

/// PPP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ppp {
    /// Authentication protocols that the peer may ask for, the preferred first.
    #[serde(default = "ppp_auth")]
    #[schemars(schema_with = "schema::ppp_auth")]
    pub auth: Vec<PppAuth>,
    /// Seconds of silence after which an LCP Echo-Request is sent.
    #[serde(default = "echo_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub echo_seconds: u32,
    /// Echo-Requests without an answer after which the link is taken for dead.
    #[serde(default = "echo_failures")]
    #[schemars(range(min = 1, max = 20))]
    pub echo_failures: u32,
}

fn ppp_auth() -> Vec<PppAuth> {
    config::Ppp::default().auth
}

fn echo_seconds() -> u32 {
    config::Ppp::default().echo_seconds
}

fn echo_failures() -> u32 {
    config::Ppp::default().echo_failures
}

impl Default for Ppp {
    fn default() -> Self {
        Self { auth: ppp_auth(), echo_seconds: echo_seconds(), echo_failures: echo_failures() }
    }
}

/// The networks behind the peer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// IPv4 networks behind the peer, such as `10.20.0.0/16`. They are routed into the tunnel, and nowhere else while it is down.
    #[serde(rename = "remoteCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(CIDR_RULE).message(
        "network.remoteCIDRs must be IPv4 networks in CIDR form other than 0.0.0.0/0, such as 10.20.0.0/16"))]
    pub remote_cidrs: Vec<String>,
    /// An upper bound of the tunnel's MTU in octets; the path and the algorithms may make it smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 1_500))]
    pub mtu: Option<u16>,
}

/// A host behind the peer that becomes a Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Name; the Service is named TUNNEL-NAME.
    #[schemars(length(min = 1, max = 40), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// IPv4 address of the host, inside `network.remoteCIDRs`.
    #[schemars(length(min = 7, max = 15))]
    pub host: String,
    /// Port of the host and of the Service.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    #[schemars(schema_with = "schema::protocol")]
    pub protocol: Protocol,
}

/// Kinds of probe.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeType {
    /// A TCP connection.
    Tcp,
    /// An ICMP echo request.
    Icmp,
}

/// What proves that traffic goes through.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(PROBE_PORT_RULE).message(
    "healthCheck.port goes with type Tcp: set it for Tcp, remove it for Icmp"))]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Tcp: a connection to `port` of `host`. Icmp: an echo request to `host`.
    #[serde(rename = "type")]
    pub kind: ProbeType,
    /// IPv4 address of a host inside `network.remoteCIDRs`.
    #[schemars(length(min = 7, max = 15))]
    pub host: String,
    /// Port for type Tcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// Seconds between probes; a probe that takes longer has failed.
    #[serde(default = "probe_interval")]
    #[schemars(range(min = 1, max = 300))]
    pub interval_seconds: u32,
    /// Failures in a row after which the tunnel is not ready.
    #[serde(default = "probe_failures")]
    #[schemars(range(min = 1, max = 10))]
    pub failure_threshold: u32,
}

fn probe_interval() -> u32 {
    config::HealthCheck::default().interval_seconds
}

fn probe_failures() -> u32 {
    config::HealthCheck::default().failure_threshold
}

/// Settings of the pod that the tunnel runs in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// What the tunnel's container asks for and may use, instead of the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes that the pod may run on. Gateway only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints of nodes that the pod tolerates. Gateway only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Option<Vec<Toleration>>,
}

/// Resources of a container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default)]
    pub requests: Amounts,
    /// What it may use at most.
    #[serde(default)]
    pub limits: Amounts,
}

/// Amounts of resources.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Processor time, such as `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, such as `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// Logs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// How much is logged. Debug adds each message with addresses and user names, Trace each packet; secrets never.
    #[serde(default)]
    #[schemars(schema_with = "schema::log_level")]
    pub level: LogLevel,
    /// Text for people or JSON for machines.
    #[serde(default)]
    #[schemars(schema_with = "schema::log_format")]
    pub format: LogFormat,
}

/// What is known about the tunnel.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VpnTunnelStatus {
    /// The generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state of each layer. The first that is False, read from the top, is the cause; its message says what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The gateway of `client.peers` that is in use or was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_peer: Option<String>,
    /// Our address inside the tunnel. With several sidecars each has its own, under `pods`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_address: Option<String>,
    /// The peer's address inside the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// When the tunnel came up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established_at: Option<Time>,
    /// What both ends agreed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negotiated: Option<Negotiated>,
    /// The pods that the tunnel runs in; at most 64 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub pods: Vec<PodStatus>,
    /// The Services of the exports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub services: Vec<ServiceStatus>,
}

/// What both ends agreed on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Negotiated {
    /// Phase 1, CIPHER-HASH-GROUP.
    pub ike: String,
    /// Phase 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// PPP authentication protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppp_auth: Option<String>,
    /// Which end is behind a NAT: None, Local, Remote or Both.
    pub nat: String,
    /// MTU of the tunnel in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What of it is weak by today's standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<String>,
}

/// A pod that the tunnel runs in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Name of the pod.
    pub name: String,
    /// Whether traffic goes through its tunnel.
    pub ready: bool,
    /// Why.
    pub reason: String,
    /// Its address inside the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The Service of an export.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Name of the export.
    pub name: String,
    /// Name of the Service.
    pub service_name: String,
    /// Port of the Service.
    pub port: u16,
}
