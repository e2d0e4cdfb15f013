//! What lies behind the peer: its networks, the hosts that become Services, and what proves that they are reached.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towline_tunnel::config::{self, Protocol};

use crate::api::schema;

const CIDR_RULE: &str = "self.all(c, isCIDR(c) && cidr(c).prefixLength() > 0)";
const IPV6_RULE: &str = "(has(self.ipv6) && self.ipv6) || !has(self.remoteCIDRs) || \
     self.remoteCIDRs.all(c, !isCIDR(c) || cidr(c).ip().family() == 4)";
const EXPORT_NAME_RULE: &str = "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
const IMPORT_PORT_RULE: &str = "!((has(self.port) ? self.port : self.servicePort) in \
     (self.protocol == 'UDP' ? [500, 4500, 3799] : [9090]))";
const PROBE_PORT_RULE: &str = "has(self.port) == (self.type == 'Tcp')";

/// The networks behind the peer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new(IPV6_RULE).message(
    "network.remoteCIDRs of IPv6 need network.ipv6: set it to true, or remove them"))]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Networks behind the peer, such as `10.20.0.0/16`, and with `ipv6` such as `fd20:4::/64`. They are routed into the tunnel, and nowhere else while it is down.
    #[serde(rename = "remoteCIDRs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(CIDR_RULE).message(
        "network.remoteCIDRs must be networks in CIDR form other than 0.0.0.0/0 and ::/0, such as 10.20.0.0/16"))]
    pub remote_cidrs: Vec<String>,
    /// (Mode Client.) Whether IPv6 is spoken inside the tunnel as well (RFC 5072). The pod takes its address, and a default route if
    /// there is one, from the gateway's router advertisements. Exports and probes go by IPv4 all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
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
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new(EXPORT_NAME_RULE).message(
        "exports[].name must be lower-case letters, digits and '-', such as web; it becomes part of the Service's name"))]
    pub name: String,
    /// IPv4 address of the host. In mode Client it is inside `network.remoteCIDRs`; in mode Server it is that of a `VpnUser`, or
    /// inside its `networks`, or inside `server.pools`.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port of the host and of the Service.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    #[schemars(schema_with = "schema::protocol")]
    pub protocol: Protocol,
}

/// A Service of this namespace that the other side reaches at our own address inside the tunnel.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(IMPORT_PORT_RULE).message(
    "imports[].port must not be 9090/TCP, 500/UDP, 4500/UDP or 3799/UDP, which are the tunnel's own; choose another port"))]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Name, for messages and metrics.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new(EXPORT_NAME_RULE).message(
        "imports[].name must be lower-case letters, digits and '-', such as orders"))]
    pub name: String,
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new(EXPORT_NAME_RULE).message(
        "imports[].serviceName must be the name of a Service of this namespace alone, such as orders"))]
    pub service_name: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65_535))]
    pub service_port: u16,
    /// Port at our own address; that of the Service unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
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
    #[schemars(length(min = 1, max = 253))]
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
