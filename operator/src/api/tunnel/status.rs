//! What the operator knows about a tunnel.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The most pods that status lists; the rest is only counted.
pub const MAX_STATUS_PODS: usize = 64;
/// The most addresses that status lists.
pub const MAX_ADDRESSES: usize = 64;

/// What is known about the tunnel.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VpnTunnelStatus {
    /// The generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state of each layer. The first that is False, read from the top, is the cause; its message says what to do. `WeakCrypto`
    /// at the end is the other way round: True means that what was agreed on is weak.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The gateway of `client.peers` that is in use or was tried last; the first of them before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_peer: Option<String>,
    /// Our address. Of a client: inside the tunnel. Of a server: those that people and sites dial, with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The addresses that people and sites dial. `NODE:500/4500` means any node, with these UDP ports for 500 and 4500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,
    /// How many sessions people and sites have. Who they are tells `towline-tunnel status` in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
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
    /// How ESP travels: Udp, or None, which is IP protocol 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encapsulation: Option<String>,
    /// PPP authentication protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppp_auth: Option<String>,
    /// Which end is behind a NAT: None, Local, Remote or Both; without NAT traversal nobody knows of one.
    pub nat: String,
    /// MTU of the tunnel in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What of it is weak by today's standard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<String>,
    /// By which way of dialling it came about: the proposals that were offered, and in what it was not the first way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<String>,
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
