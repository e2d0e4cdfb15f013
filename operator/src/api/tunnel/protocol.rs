//! The protocols: IKEv1 (RFC 2409), ESP (RFC 4303), L2TP (RFC 2661) and PPP (RFC 1661).

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use towline_tunnel::config::{self, Encapsulation, Exchange, IdentityKind, PppAuth};
use towline_tunnel::suite::Security;

use super::secret::SecretKey;
use crate::api::schema;

const GROUP_RULE: &str = "!has(self.proposals) || self.proposals.all(p, \
     p.find('-(modp|ecp)[0-9]+$') == self.proposals[0].find('-(modp|ecp)[0-9]+$'))";
const HOST_NAME_RULE: &str = "self.matches('^[!-~]+$')";

/// Phase 1 of IKEv1.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new(format!("self.exchange == 'Main' || {GROUP_RULE}")).message(
    "ike.proposals must all end with the same group where ike.exchange is Aggressive, whose first message carries one key exchange"))]
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
    /// How phase 1 begins. Aggressive is for gateways that know no other; it needs mode Client and `client.preSharedKey`, and shows
    /// our identity and a hash on which whoever hears it can try keys, as condition `WeakCrypto` says.
    #[serde(default)]
    #[schemars(schema_with = "schema::exchange")]
    pub exchange: Exchange,
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
            exchange: Exchange::default(),
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
    /// How ESP travels. Udp: in UDP, which NATs and cloud gateways let pass; a gateway without NAT traversal is refused.
    /// Auto: in UDP if the gateway supports NAT traversal and answers at port 4500, else as IP protocol 50. None: as IP
    /// protocol 50; NAT traversal is not offered. Auto and None give the pod the capability NET_RAW as well; without UDP no
    /// NAT may be on the way. Mode Client only.
    #[serde(default)]
    #[schemars(schema_with = "schema::encapsulation")]
    pub encapsulation: Encapsulation,
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
        Self {
            proposals: Vec::new(),
            encapsulation: Encapsulation::default(),
            lifetime_seconds: esp_lifetime(),
            lifetime_bytes: None,
            lifetime_packets: None,
        }
    }
}

/// L2TP.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct L2tp {
    /// The host name that the peer is told; some gateways choose the account by it.
    #[serde(default = "host_name")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new(HOST_NAME_RULE).message(
        "l2tp.hostName must be printable ASCII characters without blanks, such as towline"))]
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
    /// Authentication protocols in order of preference: those that the peer may ask a client for, or that a server asks for.
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
