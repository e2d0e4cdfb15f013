//! The configuration of one tunnel process: the JSON file that the operator writes and a person may write by hand.
//!
//! Unknown fields are refused. [`parse`] names the path of each field that is wrong, its value and the remedy. Nothing in the
//! file is secret: credentials are paths of files.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::suite::{EspProposal, IkeProposal, Security};

/// The most peers of one tunnel.
pub const MAX_PEERS: usize = 8;
/// The most remote networks of one tunnel.
pub const MAX_REMOTE_CIDRS: usize = 64;
/// The most exports of one tunnel.
pub const MAX_EXPORTS: usize = 64;
/// The most proposals of one offer: more make first messages that some gateways drop.
pub const MAX_PROPOSALS: usize = 16;

/// One tunnel in the role of the client: the L2TP access concentrator (LAC) and IKE initiator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Whatever tells this configuration from the one before; comes back in every report.
    #[serde(default)]
    pub revision: String,
    /// Gateways in order of preference, 1 to 8.
    pub peers: Vec<Peer>,
    /// Files with the secrets.
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
    /// Networks behind the peer, and the device.
    #[serde(default)]
    pub network: Network,
    /// Ports of this process that are relayed to hosts behind the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<Export>,
    /// What proves that traffic goes through.
    #[serde(default)]
    pub health_check: HealthCheck,
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

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peer {
    /// DNS name or IP address. A name is resolved anew before each attempt.
    pub address: String,
}

/// A file that holds one secret, and what to call it when it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretFile {
    /// Path. One line feed at the end of the file is not part of the secret.
    pub path: PathBuf,
    /// Where it comes from, for messages, such as `key psk of Secret oslo-vpn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The files with the secrets. They are read before each attempt and when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Credentials {
    /// Pre-shared key of phase 1.
    pub pre_shared_key: SecretFile,
    /// PPP user name.
    pub username: SecretFile,
    /// PPP password.
    pub password: SecretFile,
    /// Secret of L2TP tunnel authentication (RFC 2661 section 5.1.1), when the gateway asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_secret: Option<SecretFile>,
}

/// An identity of phase 1 (RFC 2407 section 4.6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Identity {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: IdentityKind,
    /// Its text.
    pub value: String,
}

/// Kinds of identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdentityKind {
    /// An IPv4 or IPv6 address.
    Address,
    /// A domain name.
    Fqdn,
    /// A user at a domain, such as `user@example.com`.
    UserFqdn,
    /// Opaque octets, written as text.
    KeyId,
}

/// Phase 1 (RFC 2409 section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Ike {
    /// How old the algorithms may be, where no proposals are named; holds for ESP too.
    pub security: Security,
    /// Proposals in order of preference instead of those of `security`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<IkeProposal>,
    /// Lifetime of the ISAKMP SA in seconds, 60 to 86400.
    pub lifetime_seconds: u32,
    /// Our identity; our own address unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_id: Option<Identity>,
    /// The identity that the peer must have; any unless named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<Identity>,
    /// Whether the first contact tells the peer to forget what it has of an earlier connection with the same identity
    /// (INITIAL-CONTACT, RFC 2407 section 4.6.3.3). Must be false where several tunnels with one identity are up at a time.
    pub initial_contact: bool,
    /// Dead peer detection (RFC 3706).
    pub dpd: Dpd,
}

impl Default for Ike {
    fn default() -> Self {
        Self {
            security: Security::default(),
            proposals: Vec::new(),
            lifetime_seconds: 28_800,
            local_id: None,
            remote_id: None,
            initial_contact: true,
            dpd: Dpd::default(),
        }
    }
}

/// Dead peer detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Dpd {
    /// Seconds without any authenticated packet after which the peer is asked, 2 to 3600.
    pub interval_seconds: u32,
    /// Seconds without any after which the peer is dead; at least twice the interval.
    pub timeout_seconds: u32,
}

impl Default for Dpd {
    fn default() -> Self {
        Self { interval_seconds: 10, timeout_seconds: 30 }
    }
}

/// ESP (RFC 4303).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Esp {
    /// Proposals in order of preference instead of those of `ike.security`. All or none name a group, and the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<EspProposal>,
    /// Lifetime of a pair of SAs in seconds, 20 to 86400.
    pub lifetime_seconds: u32,
    /// Octets after which a pair is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_bytes: Option<u64>,
    /// Packets after which a pair is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_packets: Option<u64>,
}

impl Default for Esp {
    fn default() -> Self {
        Self { proposals: Vec::new(), lifetime_seconds: 3_600, lifetime_bytes: None, lifetime_packets: None }
    }
}

/// L2TP (RFC 2661).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct L2tp {
    /// The Host Name AVP, 1 to 64 characters.
    pub host_name: String,
    /// Seconds without any message from the peer after which a Hello is sent, 5 to 3600.
    pub hello_seconds: u32,
}

impl Default for L2tp {
    fn default() -> Self {
        Self { host_name: "towline".to_owned(), hello_seconds: 60 }
    }
}

/// PPP authentication protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PppAuth {
    /// MS-CHAPv2 (RFC 2759): both ends prove that they know the password.
    MsChapV2,
    /// CHAP with MD5 (RFC 1994).
    Chap,
    /// PAP (RFC 1334): the password itself, inside IPsec.
    Pap,
}

impl fmt::Display for PppAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MsChapV2 => "MS-CHAPv2",
            Self::Chap => "CHAP",
            Self::Pap => "PAP",
        })
    }
}

/// PPP (RFC 1661).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Ppp {
    /// The authentication protocols that the peer may ask for; the first is proposed when it asks for another.
    pub auth: Vec<PppAuth>,
    /// Seconds without any packet from the peer after which an LCP Echo-Request is sent, 1 to 3600.
    pub echo_seconds: u32,
    /// Echo-Requests without an answer after which the link is suspected to be dead, 1 to 20.
    pub echo_failures: u32,
}

impl Default for Ppp {
    fn default() -> Self {
        Self { auth: vec![PppAuth::MsChapV2, PppAuth::Chap, PppAuth::Pap], echo_seconds: 20, echo_failures: 3 }
    }
}

/// Networks and the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Network {
    /// Networks behind the peer: routed into the tunnel, and nowhere else while it is down.
    #[serde(rename = "remoteCIDRs")]
    pub remote_cidrs: Vec<IpNet>,
    /// An upper bound of the device's MTU in octets, 576 to 1500; the path and the algorithms may make it smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Name of the TUN device, 1 to 15 characters.
    pub device: String,
}

impl Default for Network {
    fn default() -> Self {
        Self { remote_cidrs: Vec::new(), mtu: None, device: "towline0".to_owned() }
    }
}

/// Transport protocols that are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A port of this process whose connections are relayed to a host behind the peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Export {
    /// Name, for messages and metrics.
    pub name: String,
    /// Where this process listens.
    pub listen: SocketAddr,
    /// Address of the host behind the peer.
    pub host: IpAddr,
    /// Port of the host behind the peer.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Kinds of probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ProbeKind {
    /// An LCP Echo-Request: proves the tunnel up to the gateway, and nothing behind it.
    #[default]
    Lcp,
    /// An ICMP echo request to a host behind the gateway.
    Icmp,
    /// A TCP connection to a host behind the gateway.
    Tcp,
}

/// What proves that traffic goes through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct HealthCheck {
    /// The kind of probe.
    #[serde(rename = "type")]
    pub kind: ProbeKind,
    /// The host that is asked; not for `Lcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The port that is asked; for `Tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Seconds between probes, 1 to 300; a probe that takes longer has failed.
    pub interval_seconds: u32,
    /// Failures in a row after which the tunnel is not ready, 1 to 10.
    pub failure_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { kind: ProbeKind::Lcp, host: None, port: None, interval_seconds: 5, failure_threshold: 3 }
    }
}

/// What the process serves to its own pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Admin {
    /// Where `/livez`, `/readyz`, `/startupz` and `/metrics` are served.
    pub listen: SocketAddr,
    /// Unix socket of `towline-tunnel status`.
    pub socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)), socket: PathBuf::from("/run/towline/control.sock") }
    }
}

/// The operator's endpoint for reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReportTo {
    /// An `https` URL.
    pub url: String,
    /// Certificates of the authorities that the endpoint's certificate may come from, in PEM.
    pub ca_bundle: String,
    /// File with the token that proves which pod reports; read anew for each report.
    pub token_file: PathBuf,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LogLevel {
    /// What somebody must look at.
    Warn,
    /// Changes of state as well.
    #[default]
    Info,
    /// Each message, with addresses and user names.
    Debug,
    /// Each packet.
    Trace,
}

/// Logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// Path of the field, such as `ike.lifetimeSeconds`.
    pub field: String,
    /// The value, what is wrong with it, and the remedy.
    pub problem: String,
}

/// A configuration that cannot be used: every field that is wrong, or the first one that cannot even be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig(pub Vec<InvalidField>);

impl std::error::Error for InvalidConfig {}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            field.fmt(f)?;
        }
        Ok(())
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// Every field that is wrong, by its path.
pub fn parse(json: &str) -> Result<Config, InvalidConfig> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let unreadable = |field: String, problem: String| InvalidConfig(vec![InvalidField { field, problem }]);
    let config: Config = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| unreadable(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| unreadable(".".to_owned(), error.to_string()))?;
    config.check().map(|()| config)
}

impl Config {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// Every field that is wrong, by its path.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let mut check = Check(Vec::new());
        check.count("peers", self.peers.len(), 1, MAX_PEERS);
        for (index, peer) in self.peers.iter().enumerate() {
            if !is_host(&peer.address) {
                check.wrong(
                    format!("peers[{index}].address"),
                    format!("{:?} is neither a DNS name nor an IP address", peer.address),
                );
            }
        }
        self.check_protocols(&mut check);
        self.check_network(&mut check);
        if let Some(report) = &self.report
            && !report.url.starts_with("https://")
        {
            check.wrong("report.url", format!("{:?} is not an https URL; reports carry a token", report.url));
        }
        if check.0.is_empty() { Ok(()) } else { Err(InvalidConfig(check.0)) }
    }

    fn check_protocols(&self, check: &mut Check) {
        check.range("ike.lifetimeSeconds", self.ike.lifetime_seconds.into(), 60, 86_400);
        check.count("ike.proposals", self.ike.proposals.len(), 0, MAX_PROPOSALS);
        let dpd = self.ike.dpd;
        check.range("ike.dpd.intervalSeconds", dpd.interval_seconds.into(), 2, 3_600);
        if u64::from(dpd.timeout_seconds) < 2 * u64::from(dpd.interval_seconds) {
            check.wrong(
                "ike.dpd.timeoutSeconds",
                format!("{} must be at least twice ike.dpd.intervalSeconds", dpd.timeout_seconds),
            );
        }
        for (field, id) in [("ike.localId", &self.ike.local_id), ("ike.remoteId", &self.ike.remote_id)] {
            let Some(id) = id else { continue };
            if id.value.is_empty() || id.value.len() > 253 {
                check.wrong(format!("{field}.value"), "must have 1 to 253 characters".to_owned());
            }
            if id.kind == IdentityKind::Address && id.value.parse::<IpAddr>().is_err() {
                check.wrong(format!("{field}.value"), format!("{:?} is not an IP address; use another type", id.value));
            }
        }
        check.count("esp.proposals", self.esp.proposals.len(), 0, MAX_PROPOSALS);
        if self.esp.proposals.iter().map(|proposal| proposal.group).collect::<BTreeSet<_>>().len() > 1 {
            check.wrong(
                "esp.proposals",
                "all must name the same group, or none; a Quick Mode carries one key exchange".to_owned(),
            );
        }
        check.range("esp.lifetimeSeconds", self.esp.lifetime_seconds.into(), 20, 86_400);
        if let Some(bytes) = self.esp.lifetime_bytes {
            check.range("esp.lifetimeBytes", bytes, 1 << 20, u64::from(u32::MAX) << 10);
        }
        if let Some(packets) = self.esp.lifetime_packets {
            check.range("esp.lifetimePackets", packets, 1_000, u32::MAX.into());
        }
        check.count("l2tp.hostName", self.l2tp.host_name.len(), 1, 64);
        check.range("l2tp.helloSeconds", self.l2tp.hello_seconds.into(), 5, 3_600);
        check.count("ppp.auth", self.ppp.auth.len(), 1, 3);
        check.range("ppp.echoSeconds", self.ppp.echo_seconds.into(), 1, 3_600);
        check.range("ppp.echoFailures", self.ppp.echo_failures.into(), 1, 20);
    }

    fn check_network(&self, check: &mut Check) {
        check.count("network.remoteCIDRs", self.network.remote_cidrs.len(), 0, MAX_REMOTE_CIDRS);
        for (index, cidr) in self.network.remote_cidrs.iter().enumerate() {
            let field = format!("network.remoteCIDRs[{index}]");
            if cidr.addr().is_ipv6() {
                check.wrong(field, format!("{cidr} is IPv6; IPCP carries IPv4 only"));
            } else if cidr.prefix_len() == 0 {
                check.wrong(field, format!("{cidr} would take every packet; name the networks behind the peer"));
            }
        }
        if let Some(mtu) = self.network.mtu {
            check.range("network.mtu", mtu.into(), 576, 1_500);
        }
        let device = &self.network.device;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if device.is_empty() || device.len() > 15 || !device.chars().all(allowed) {
            check.wrong("network.device", format!("{device:?} must be 1 to 15 letters, digits, '-', '_' or '.'"));
        }
        check.count("exports", self.exports.len(), 0, MAX_EXPORTS);
        let mut listeners = BTreeSet::new();
        for (index, export) in self.exports.iter().enumerate() {
            if !listeners.insert((export.protocol, export.listen)) {
                check.wrong(
                    format!("exports[{index}].listen"),
                    format!("{} {} is used twice", export.protocol, export.listen),
                );
            }
            if export.port == 0 || export.listen.port() == 0 {
                check.wrong(format!("exports[{index}]"), "ports must not be 0".to_owned());
            }
            if !self.is_remote(export.host) {
                check.wrong(format!("exports[{index}].host"), outside(export.host));
            }
        }
        let health = &self.health_check;
        check.range("healthCheck.intervalSeconds", health.interval_seconds.into(), 1, 300);
        check.range("healthCheck.failureThreshold", health.failure_threshold.into(), 1, 10);
        match (health.kind, health.host, health.port) {
            (ProbeKind::Lcp, None, None) | (ProbeKind::Icmp, Some(_), None) | (ProbeKind::Tcp, Some(_), Some(_)) => {}
            (ProbeKind::Lcp, ..) => check.wrong("healthCheck", "type Lcp has neither host nor port".to_owned()),
            (ProbeKind::Icmp, ..) => check.wrong("healthCheck", "type Icmp needs host and has no port".to_owned()),
            (ProbeKind::Tcp, ..) => check.wrong("healthCheck", "type Tcp needs host and port".to_owned()),
        }
        if let Some(host) = health.host.filter(|host| !self.is_remote(*host)) {
            check.wrong("healthCheck.host", outside(host));
        }
    }

    fn is_remote(&self, host: IpAddr) -> bool {
        self.network.remote_cidrs.iter().any(|cidr| cidr.contains(&host))
    }

    /// The phase 1 proposals that are offered.
    pub fn ike_proposals(&self) -> Vec<IkeProposal> {
        if self.ike.proposals.is_empty() { self.ike.security.ike_proposals() } else { self.ike.proposals.clone() }
    }

    /// The ESP proposals that are offered.
    pub fn esp_proposals(&self) -> Vec<EspProposal> {
        if self.esp.proposals.is_empty() { self.ike.security.esp_proposals() } else { self.esp.proposals.clone() }
    }

    /// Whether a running tunnel can take on `new` without being dialled again: only what lies outside the protocols differs.
    pub fn is_live_change(&self, new: &Self) -> bool {
        (
            &self.peers,
            &self.credentials,
            &self.ike,
            &self.esp,
            &self.l2tp,
            &self.ppp,
            &self.network.device,
            self.network.mtu,
        ) == (
            &new.peers,
            &new.credentials,
            &new.ike,
            &new.esp,
            &new.l2tp,
            &new.ppp,
            &new.network.device,
            new.network.mtu,
        )
    }
}

impl HealthCheck {
    /// The time between two probes.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }
}

fn outside(host: IpAddr) -> String {
    format!("{host} is in none of network.remoteCIDRs; add its network there, or it would not go through the tunnel")
}

/// Whether `text` is an IP address or a DNS name (RFC 1123 section 2.1).
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.parse::<IpAddr>().is_ok()
        || (name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(is_number))
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|octet| octet.is_ascii_digit())
}

struct Check(Vec<InvalidField>);

impl Check {
    fn wrong(&mut self, field: impl Into<String>, problem: String) {
        self.0.push(InvalidField { field: field.into(), problem });
    }

    fn range(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.wrong(field, format!("{value} must be between {least} and {most}"));
        }
    }

    fn count(&mut self, field: &str, count: usize, least: usize, most: usize) {
        if !(least..=most).contains(&count) {
            self.wrong(field, format!("has {count}, must have {least} to {most}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"{
        "peers": [{"address": "vpn.oslo.example.com"}],
        "credentials": {"preSharedKey": {"path": "/s/psk"}, "username": {"path": "/s/username"}, "password": {"path": "/s/password"}}
    }"#;

    fn changed(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = parse(SMALLEST).unwrap();
        change(&mut config);
        config.check().map_or_else(|error| error.0.into_iter().map(|field| field.field).collect(), |()| Vec::new())
    }

    #[test]
    fn the_smallest_configuration_has_working_defaults() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.ike_proposals().len(), 9);
        assert_eq!(config.health_check.kind, ProbeKind::Lcp);
        assert!(config.ike.initial_contact);
        assert_eq!(parse(&serde_json::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn an_error_names_the_path_of_the_field() {
        let error = |json: &str| parse(json).unwrap_err().0.remove(0);
        let unknown = error(&SMALLEST.replace("\"peers\"", "\"pears\": 1, \"peers\""));
        assert!(unknown.problem.contains("`pears`") && unknown.problem.contains("`peers`"), "{unknown}");
        let nested = error(&SMALLEST.replacen('{', r#"{"ike": {"proposals": ["aes256-sha3-modp2048"]},"#, 1));
        assert_eq!(nested.field, "ike.proposals[0]");
        assert!(nested.problem.contains("sha3"), "{nested}");
    }

    #[test]
    fn each_bound_is_kept_and_named() {
        assert_eq!(changed(|c| c.peers.clear()), ["peers"]);
        assert_eq!(changed(|c| c.peers[0].address = "not a name".to_owned()), ["peers[0].address"]);
        assert_eq!(changed(|c| c.peers[0].address = "10.1.1".to_owned()), ["peers[0].address"]);
        assert_eq!(changed(|c| c.ike.lifetime_seconds = 59), ["ike.lifetimeSeconds"]);
        assert_eq!(changed(|c| c.ike.dpd.timeout_seconds = 19), ["ike.dpd.timeoutSeconds"]);
        assert_eq!(
            changed(|c| c.ike.local_id = Some(Identity { kind: IdentityKind::Address, value: "x".to_owned() })),
            ["ike.localId.value"]
        );
        assert_eq!(
            changed(|c| c.esp.proposals = vec!["aes256-sha1".parse().unwrap(), "aes256-sha1-modp2048".parse().unwrap()]),
            ["esp.proposals"]
        );
        assert_eq!(
            changed(|c| c.network.remote_cidrs = vec!["0.0.0.0/0".parse().unwrap()]),
            ["network.remoteCIDRs[0]"]
        );
        assert_eq!(changed(|c| c.network.device = "a b".to_owned()), ["network.device"]);
        assert_eq!(changed(|c| c.health_check.kind = ProbeKind::Tcp), ["healthCheck"]);
    }

    #[test]
    fn what_is_probed_or_exported_must_lie_behind_the_peer() {
        let export = Export {
            name: "db".to_owned(),
            listen: ([0, 0, 0, 0], 5432).into(),
            host: [10, 20, 4, 11].into(),
            port: 5432,
            protocol: Protocol::Tcp,
        };
        assert_eq!(changed(|c| c.exports = vec![export.clone()]), ["exports[0].host"]);
        assert_eq!(
            changed(|c| {
                c.network.remote_cidrs = vec!["10.20.0.0/16".parse().unwrap()];
                c.exports = vec![export.clone(), export.clone()];
            }),
            ["exports[1].listen"]
        );
    }

    #[test]
    fn only_what_lies_outside_the_protocols_changes_live() {
        let config = parse(SMALLEST).unwrap();
        let mut new = config.clone();
        new.health_check.interval_seconds = 9;
        new.network.remote_cidrs = vec!["10.20.0.0/16".parse().unwrap()];
        assert!(config.is_live_change(&new));
        new.esp.lifetime_seconds = 600;
        assert!(!config.is_live_change(&new));
    }
}
