//! What a server accepts: how peers prove themselves, the addresses that they get, where their packets go, and at which
//! addresses of the cluster they dial in.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towline_tunnel::config::server::{self, OnLimit, SourceNat};

use super::client::ADDRESS_RULE;
use super::protocol::Identity;
use super::secret::{
    Certificate, SECRET_KEY_MESSAGE, SECRET_KEY_RULE, SECRET_NAME_MESSAGE, SECRET_NAME_RULE, SecretKey,
};
use crate::api::schema;

const CREDENTIALS_RULE: &str = "(has(self.preSharedKeys) && size(self.preSharedKeys) > 0) || has(self.certificate)";
const POOLS_RULE: &str = "self.all(c, isCIDR(c) && cidr(c).ip().family() == 4 && \
     cidr(c).prefixLength() > 0 && cidr(c).prefixLength() <= 30)";
const IPV4_RULE: &str = "isIP(self) && ip(self).family() == 4";
const IPV4_LIST_RULE: &str = "self.all(a, isIP(a) && ip(a).family() == 4)";
const IPV4_NETWORKS_RULE: &str = "self.all(c, isCIDR(c) && cidr(c).ip().family() == 4)";
const IPV6_POOL_RULE: &str = "isCIDR(self) && cidr(self).ip().family() == 6 && cidr(self).prefixLength() <= 64";
const NETWORKS_RULE: &str = "self.all(c, isCIDR(c))";
const DOMAIN_RULE: &str = "self.matches('^([A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?[.])*\
[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?$')";
const CLASS_RULE: &str = "!has(self.loadBalancerClass) || self.type == 'LoadBalancer'";
const NODE_PORTS_RULE: &str = "!has(self.nodePorts) || self.type != 'ClusterIP'";
const EXTERNAL_IPS_RULE: &str = "self.all(a, isIP(a))";
const PRINTABLE_RULE: &str = "self.matches('^[!-~]+$')";

/// What a server accepts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new(CREDENTIALS_RULE).message(
    "server needs preSharedKeys or certificate; without either no peer could prove itself"))]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Pre-shared keys of IPsec. A peer may use each that its address and its identity fit; two without either are the old and
    /// the new key of a rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub pre_shared_keys: Vec<ServerKey>,
    /// The certificate of the server, and the authorities whose certificates peers may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// IPv4 networks that clients get their addresses from, such as `10.99.0.0/24`. No network of the cluster may overlap.
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(POOLS_RULE).message(
        "server.pools must be IPv4 networks in CIDR form with a prefix of 1 to 30 bits, such as 10.99.0.0/24"))]
    pub pools: Vec<String>,
    /// The server's own address inside every link: the first one of the first pool unless it is set. No client gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = Rule::new(IPV4_RULE).message("server.localAddress must be an IPv4 address, such as 10.99.0.1"))]
    pub local_address: Option<String>,
    /// IPv4 addresses of name servers that clients are told, at most 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2), inner(length(max = 15)))]
    #[x_kube(validation = Rule::new(IPV4_LIST_RULE).message(
        "server.dns must be IPv4 addresses, such as 10.96.0.10; add their network to server.forwarding.networks"))]
    pub dns: Vec<String>,
    /// The domain in which clients look for names without one, such as `erp.svc.cluster.local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(DOMAIN_RULE).message("server.domain must be a DNS name, such as erp.svc.cluster.local"))]
    pub domain: Option<String>,
    /// IPv4 networks that clients are told to send through the tunnel (split tunnelling, for clients that ask by DHCP). All of
    /// a client's traffic comes this way if none is named and the client is set so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(IPV4_NETWORKS_RULE).message(
        "server.routes must be IPv4 networks in CIDR form, such as 10.96.0.0/12"))]
    pub routes: Vec<String>,
    /// An IPv6 network of 64 bits or less that clients get their IPv6 addresses from; no IPv6 inside the tunnel unless it is
    /// set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = Rule::new(IPV6_POOL_RULE).message(
        "server.ipv6Pool must be an IPv6 network in CIDR form with a prefix of 64 bits or less, such as fd00:99::/56"))]
    pub ipv6_pool: Option<String>,
    /// Where clients' packets go.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// Bounds of what peers and users can take.
    #[serde(default)]
    pub limits: Limits,
    /// RADIUS servers that know further users. A name that a `VpnUser` has is not asked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<Radius>,
    /// The Service at which people and sites dial in. It has the name of the `VpnTunnel`, and the UDP ports 500 and 4500.
    #[serde(default)]
    pub service: DialIn,
}

/// A pre-shared key and whose it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServerKey {
    /// Name of the Secret. A Secret that is new to the server is mounted into a new pod, which ends all sessions; a further
    /// key in a Secret that it has already does not.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_NAME_RULE).message(SECRET_NAME_MESSAGE))]
    pub name: String,
    /// Key in the Secret.
    #[serde(default = "psk")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(SECRET_KEY_RULE).message(SECRET_KEY_MESSAGE))]
    pub key: String,
    /// Networks that peers with this key dial from, such as `198.51.100.7/32`; anywhere if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(NETWORKS_RULE).message("addresses must be networks in CIDR form, such as 198.51.100.7/32"))]
    pub addresses: Vec<String>,
    /// The identity that a peer with this key must have; any unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
}

fn psk() -> String {
    "psk".to_owned()
}

/// Where clients' packets go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Forwarding {
    /// Networks that clients reach through the server: those of the cluster's pods and Services, or others that its nodes
    /// reach. Only the server itself, other clients and sites if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new(NETWORKS_RULE).message(
        "server.forwarding.networks must be networks in CIDR form, such as 10.96.0.0/12"))]
    pub networks: Vec<String>,
    /// Masquerade: clients' packets go on with the address of the server's pod. None: with the clients' own addresses, and the
    /// network must route `server.pools` to the pod.
    #[serde(default)]
    #[schemars(schema_with = "schema::source_nat")]
    pub source_nat: SourceNat,
}

/// Bounds of what peers and users can take.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Sessions of the server.
    #[serde(default = "sessions")]
    #[schemars(range(min = 1, max = 65_535))]
    pub sessions: u32,
    /// Peers from one source address; everybody behind one NAT has the same.
    #[serde(default = "peers_per_source")]
    #[schemars(range(min = 1, max = 65_535))]
    pub peers_per_source: u32,
    /// Sessions of one user; any number with 0.
    #[serde(default = "sessions_per_user")]
    #[schemars(range(min = 0, max = 65_535))]
    pub sessions_per_user: u32,
    /// What happens when a user has as many. Replace: the oldest session ends, so that a phone that lost its network gets in
    /// again. Refuse: the newcomer is refused.
    #[serde(default)]
    #[schemars(schema_with = "schema::on_limit")]
    pub on_limit: OnLimit,
    /// Seconds without a packet of the client after which a session ends; never with 0.
    #[serde(default = "idle_seconds")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub idle_seconds: u32,
    /// Seconds after which a session ends; never with 0.
    #[serde(default = "total_seconds")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub total_seconds: u32,
}

fn sessions() -> u32 {
    server::Limits::default().sessions
}

fn peers_per_source() -> u32 {
    server::Limits::default().peers_per_source
}

fn sessions_per_user() -> u32 {
    server::Limits::default().sessions_per_user
}

fn idle_seconds() -> u32 {
    server::Limits::default().idle_seconds
}

fn total_seconds() -> u32 {
    server::Limits::default().total_seconds
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: sessions(),
            peers_per_source: peers_per_source(),
            sessions_per_user: sessions_per_user(),
            on_limit: OnLimit::default(),
            idle_seconds: idle_seconds(),
            total_seconds: total_seconds(),
        }
    }
}

/// RADIUS servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Radius {
    /// Servers in order of preference; the next is asked when one is silent.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub servers: Vec<RadiusServer>,
    /// Seconds without an answer after which a server is asked again.
    #[serde(default = "radius_timeout")]
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: u32,
    /// How often one server is asked before the next one is.
    #[serde(default = "radius_tries")]
    #[schemars(range(min = 1, max = 10))]
    pub tries: u32,
    /// Seconds between interim updates of accounting, unless the server asks for another time; none unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 86_400))]
    pub interim_seconds: Option<u32>,
    /// Takes Disconnect-Requests (RFC 5176) at UDP port 3799, of the pod and of the Service.
    #[serde(default)]
    pub disconnect: bool,
    /// NAS-Identifier: the name by which RADIUS servers know this server.
    #[serde(default = "nas_identifier")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(PRINTABLE_RULE).message(
        "server.radius.nasIdentifier must be printable ASCII characters without blanks, such as towline"))]
    pub nas_identifier: String,
}

fn radius_timeout() -> u32 {
    3
}

fn radius_tries() -> u32 {
    3
}

fn nas_identifier() -> String {
    "towline".to_owned()
}

/// One RADIUS server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RadiusServer {
    /// DNS name or IP address, such as `radius.erp.svc`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(ADDRESS_RULE).message(
        "address must be an IP address or a DNS name alone, such as radius.example.com; without scheme or port"))]
    pub address: String,
    /// UDP port of authentication.
    #[serde(default = "authentication_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// UDP port of accounting; no accounting with 0.
    #[serde(default = "accounting_port")]
    #[schemars(range(min = 0, max = 65_535))]
    pub accounting_port: u16,
    /// Secret of this namespace with the secret that both share.
    pub secret: SecretKey,
}

fn authentication_port() -> u16 {
    1812
}

fn accounting_port() -> u16 {
    1813
}

/// Kinds of Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// The cluster's load balancer gives it an address.
    #[default]
    LoadBalancer,
    /// At a port of every node.
    NodePort,
    /// Inside the cluster, and at `externalIPs`.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// Which nodes take packets from outside.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Only the pod's node.
    #[default]
    Local,
    /// All.
    Cluster,
}

/// The Service at which people and sites dial in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new(CLASS_RULE).message(
        "server.service.loadBalancerClass goes with type LoadBalancer; remove it, or change the type"),
    validation = Rule::new(NODE_PORTS_RULE).message(
        "server.service.nodePorts goes with type NodePort or LoadBalancer; remove it, or change the type")
)]
#[serde(rename_all = "camelCase")]
pub struct DialIn {
    /// LoadBalancer: at an address that the cluster's load balancer gives. NodePort: at a port of every node, for peers that
    /// can be told a port. ClusterIP: inside the cluster, and at `externalIPs`.
    #[serde(rename = "type", default)]
    pub kind: ServiceType,
    /// Addresses that are routed to nodes of the cluster and lead to the server.
    #[serde(rename = "externalIPs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 45)))]
    #[x_kube(validation = Rule::new(EXTERNAL_IPS_RULE).message(
        "server.service.externalIPs must be IP addresses, such as 203.0.113.7"))]
    pub external_ips: Vec<String>,
    /// Which of several load balancers of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Annotations of the Service: what the load balancer wants to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Local: only the pod's node takes packets from outside, and the server sees the peers' own addresses, which
    /// `limits.peersPerSource` and `preSharedKeys[].addresses` need. Cluster: every node does, and the server sees addresses of
    /// nodes.
    #[serde(default)]
    pub external_traffic_policy: TrafficPolicy,
    /// Which ports of the nodes, instead of those that Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<NodePorts>,
}

/// Ports of the nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodePorts {
    /// That leads to UDP port 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub ike: Option<u16>,
    /// That leads to UDP port 4500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub nat_t: Option<u16>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_as_the_process_has_it() {
        let key = json!({"name": "a", "key": "b"});
        let ours: Radius =
            serde_json::from_value(json!({"servers": [{"address": "r.example", "secret": key}]})).unwrap();
        let theirs: server::Radius =
            serde_json::from_value(json!({"servers": [{"address": "r.example", "secret": {"path": "/s"}}]})).unwrap();
        assert_eq!((ours.timeout_seconds, ours.tries), (theirs.timeout_seconds, theirs.tries));
        assert_eq!(ours.nas_identifier, theirs.nas_identifier);
        assert_eq!(ours.servers[0].port, theirs.servers[0].port);
        assert_eq!(ours.servers[0].accounting_port, theirs.servers[0].accounting_port);
        assert_eq!(serde_json::from_value::<Limits>(json!({})).unwrap(), Limits::default());
    }
}
