//! The configuration of a process in the role of the server: the L2TP network server (LNS) and IKE responder.
//!
//! The file says `"mode": "Server"`. Nothing in it is secret: credentials are paths of files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Admin, Esp, Export, Ike, L2tp, Log, Ppp, Protocol, ReportTo, SecretFile};
use crate::config::Identity;

/// The longest name of a user, in octets: what one attribute of RADIUS holds (RFC 2865 section 5).
pub const MAX_NAME: usize = 253;
/// The most pre-shared keys of one server.
pub const MAX_PRE_SHARED_KEYS: usize = 64;
/// The most users of one configuration; more belong into a RADIUS server.
pub const MAX_USERS: usize = 4_096;
/// The most address pools.
pub const MAX_POOLS: usize = 16;
/// The most networks that one list of the configuration names.
pub const MAX_NETWORKS: usize = 64;
/// The most RADIUS servers.
pub const MAX_RADIUS_SERVERS: usize = 4;
/// The most imports.
pub const MAX_IMPORTS: usize = 64;
/// The most sessions of one process.
pub const MAX_SESSIONS: u32 = 65_535;

/// The one value of `mode` in the file of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMode {
    /// Accepts people and sites.
    Server,
}

/// A process that accepts people and sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Server {
    /// The role.
    pub mode: ServerMode,
    /// Whatever tells this configuration from the one before; comes back in every report.
    #[serde(default)]
    pub revision: String,
    /// Where the process listens.
    #[serde(default)]
    pub listen: Listen,
    /// Files with the secrets of phase 1.
    pub credentials: Credentials,
    /// Phase 1.
    #[serde(default)]
    pub ike: Ike,
    /// ESP.
    #[serde(default)]
    pub esp: Esp,
    /// L2TP.
    #[serde(default)]
    pub l2tp: L2tp,
    /// PPP.
    #[serde(default)]
    pub ppp: Ppp,
    /// Those who may dial in, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// RADIUS servers that know further users; a user of `users` is not asked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<Radius>,
    /// Addresses and what clients are told.
    pub addresses: Addresses,
    /// Bounds of what peers and users can take.
    #[serde(default)]
    pub limits: Limits,
    /// Where clients' packets go.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// Hosts on this side that clients reach at the server's own address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<Import>,
    /// Ports of this process that are relayed to hosts behind sites that dialled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Export>,
    /// The device.
    #[serde(default)]
    pub network: Network,
    /// HTTP endpoints of the process and its control socket.
    #[serde(default)]
    pub admin: Admin,
    /// Where the state is reported to; none by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportTo>,
    /// Logs.
    #[serde(default)]
    pub log: Log,
}

/// The two UDP sockets (RFC 3947 section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Listen {
    /// For ISAKMP.
    pub ike: SocketAddr,
    /// For ISAKMP behind a NAT and for ESP.
    pub nat_t: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self { ike: SocketAddr::new(any, 500), nat_t: SocketAddr::new(any, 4500) }
    }
}

/// The files with the secrets of phase 1: at least a pre-shared key or a certificate. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Credentials {
    /// Pre-shared keys. A peer may use any that its address and identity fit; two without either are the old and the new one
    /// of a rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_shared_keys: Vec<PreSharedKey>,
    /// The certificate of this end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Secret of L2TP tunnel authentication (RFC 2661 section 5.1.1); peers that do not know it are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_secret: Option<SecretFile>,
}

/// A pre-shared key and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PreSharedKey {
    /// The file.
    pub file: SecretFile,
    /// Networks that peers with this key dial from; anywhere if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// The identity that a peer with this key must have; any unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
}

/// A certificate with its key, and the authorities whose certificates peers may have. The files are those of a Secret of
/// type `kubernetes.io/tls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Certificate {
    /// `tls.crt`: our certificate and those of intermediate authorities, in PEM.
    pub chain: SecretFile,
    /// `tls.key`: the private key, in PEM (PKCS#8, PKCS#1 or SEC1).
    pub key: SecretFile,
    /// `ca.crt`: the authorities, in PEM.
    pub authorities: SecretFile,
    /// Certificate revocation lists of those authorities, in PEM. A file that is not there revokes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocations: Option<SecretFile>,
    /// The subject alternative name that the peer's certificate must have; any unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
}

/// Somebody who may dial in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct User {
    /// The name, 1 to 253 octets; each once.
    pub name: String,
    /// The password. Without one the user can only come with a certificate (EAP-TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretFile>,
    /// A fixed address; one of a pool unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Networks behind the user, for a site: they are routed to its session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Ipv4Net>,
    /// Where the user may send packets to; anywhere that is forwarded if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<IpNet>>,
    /// When the user may not come in any more, in seconds since the Unix epoch. A session ends then as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The user may not come in for now. A session ends at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
}

/// RADIUS servers (RFC 2865, 2866, 2869, 5176).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Radius {
    /// The servers in order of preference, 1 to 4: the next is asked when one is silent.
    pub servers: Vec<RadiusServer>,
    /// Seconds without an answer after which a server is asked again, 1 to 30.
    #[serde(default = "radius_timeout")]
    pub timeout_seconds: u32,
    /// How often one server is asked before the next is, 1 to 10.
    #[serde(default = "radius_tries")]
    pub tries: u32,
    /// Seconds between interim updates of accounting, 60 to 86400 (RFC 2869 section 2.1); a server may ask for another time. No
    /// updates if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim_seconds: Option<u32>,
    /// Where Disconnect-Requests are taken (RFC 5176), such as `0.0.0.0:3799`; nowhere if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnect: Option<SocketAddr>,
    /// NAS-Identifier, 1 to 253 octets.
    #[serde(default = "nas_identifier")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RadiusServer {
    /// DNS name or IP address.
    pub address: String,
    /// UDP port of authentication.
    #[serde(default = "authentication_port")]
    pub port: u16,
    /// UDP port of accounting; no accounting with 0.
    #[serde(default = "accounting_port")]
    pub accounting_port: u16,
    /// The shared secret.
    pub secret: SecretFile,
}

fn authentication_port() -> u16 {
    1812
}

fn accounting_port() -> u16 {
    1813
}

/// Addresses and what clients are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Addresses {
    /// Our own address inside every link; no pool's address.
    pub local: Ipv4Addr,
    /// Pools of clients' addresses, 1 to 16. The network's own address and its broadcast address are not given out.
    pub pools: Vec<Ipv4Net>,
    /// A pool of IPv6 addresses; no IPv6 if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<Ipv6Net>,
    /// Name servers for clients, at most 2 (RFC 1877).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Ipv4Addr>,
    /// The domain that clients search names in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Networks that clients are told to send through the tunnel, and only those (RFC 3442); all traffic if none is named and
    /// the client is set so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Ipv4Net>,
}

/// What happens when a user comes in who has as many sessions as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OnLimit {
    /// The oldest session ends: a phone that lost its network gets in again.
    #[default]
    Replace,
    /// The newcomer is refused.
    Refuse,
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Limits {
    /// Sessions of the process, 1 to 65535.
    pub sessions: u32,
    /// Peers from one source address; a NAT is one address.
    pub peers_per_source: u32,
    /// Sessions of one user; any number with 0.
    pub sessions_per_user: u32,
    /// What happens beyond that.
    pub on_limit: OnLimit,
    /// A session ends after so many seconds without a packet of the client; never with 0.
    pub idle_seconds: u32,
    /// A session ends after so many seconds; never with 0.
    pub total_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1_000,
            peers_per_source: 250,
            sessions_per_user: 1,
            on_limit: OnLimit::default(),
            idle_seconds: 0,
            total_seconds: 0,
        }
    }
}

/// What address clients' packets go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SourceNat {
    /// That of this host: answers find back without anybody's help.
    #[default]
    Masquerade,
    /// Their own: the network must route the pools to this host.
    None,
}

/// Where clients' packets go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Forwarding {
    /// Networks that clients reach through this host; only the server itself, other clients and sites if none is named.
    pub networks: Vec<IpNet>,
    /// With which source address.
    pub source_nat: SourceNat,
}

/// A host on this side that clients reach at the server's own address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Import {
    /// Name, for messages and metrics.
    pub name: String,
    /// The port at `addresses.local`.
    pub listen: u16,
    /// DNS name or address of the host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// The device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Network {
    /// An upper bound of the MTU of clients' links in octets, 576 to 1500; the path and the algorithms may make it smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Name of the TUN device, 1 to 15 characters.
    pub device: String,
}

impl Default for Network {
    fn default() -> Self {
        Self { mtu: None, device: "towline0".to_owned() }
    }
}

impl Certificate {
    /// Every file that has to be there.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        [&self.chain, &self.key, &self.authorities].into_iter()
    }
}

impl Credentials {
    /// Every file that has to be there.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        let certificate = self.certificate.iter().flat_map(Certificate::files);
        self.pre_shared_keys.iter().map(|key| &key.file).chain(certificate).chain(&self.tunnel_secret)
    }
}
