//! The configuration of one tunnel process: the JSON file that the operator writes and a person may write by hand.
//!
//! Unknown fields are refused. [`parse`] names the path of each field that is wrong, its value and the remedy. Nothing in the
//! file is secret: credentials are paths of files.
//!
//! A running process takes on a changed file. [`Config::is_live_change`] tells what leaves the tunnel up; `admin` alone is read
//! at the start only.

mod check;
mod protocol;
pub mod server;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use protocol::{Dpd, Encapsulation, Esp, Exchange, Ike, L2tp, Ppp, PppAuth};

use server::Certificate;

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
    /// Hosts on this side that the peer, and who is behind it, reach at our address inside the tunnel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<server::Import>,
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
    /// Pre-shared key of phase 1; either this or `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_shared_key: Option<SecretFile>,
    /// Our certificate, and what the gateway's is judged by. Unless `remoteId` or `ike.remoteId` names another, the gateway's must
    /// have the DNS name or address by which it is dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// PPP user name.
    pub username: SecretFile,
    /// PPP password.
    pub password: SecretFile,
    /// Secret of L2TP tunnel authentication (RFC 2661 section 5.1.1), when the gateway asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_secret: Option<SecretFile>,
    /// The user whom the gateway asks for after phase 1 (XAUTH, draft-beaulieu-ike-xauth-02). A gateway that asks for none is not
    /// connected to where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xauth: Option<XauthUser>,
}

/// A user of XAUTH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct XauthUser {
    /// User name.
    pub username: SecretFile,
    /// Password.
    pub password: SecretFile,
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

/// Networks and the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Network {
    /// Networks behind the peer: routed into the tunnel, and nowhere else while it is down. With none the device has its
    /// address and nothing is routed.
    #[serde(rename = "remoteCIDRs")]
    pub remote_cidrs: Vec<IpNet>,
    /// Whether IPv6 is spoken inside the tunnel as well (RFC 5072): packets of both versions pass, and the host takes its address
    /// and routes from what the peer advertises. A peer that does not speak it is no failure.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// An upper bound of the device's MTU in octets, 576 to 1500; the path and the algorithms may make it smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Name of the TUN device, 1 to 15 characters.
    pub device: String,
}

impl Default for Network {
    fn default() -> Self {
        Self { remote_cidrs: Vec::new(), ipv6: false, mtu: None, device: "towline0".to_owned() }
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

/// What a process is to be: a client or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// Dials a gateway.
    Client(Box<Config>),
    /// Accepts people and sites.
    Server(Box<server::Server>),
}

/// Reads and checks a configuration of either role: that of a server says `"mode": "Server"`.
///
/// # Errors
/// Every field that is wrong, by its path.
pub fn parse_any(json: &str) -> Result<Configuration, InvalidConfig> {
    #[derive(Deserialize)]
    struct Role {
        #[serde(default)]
        mode: Option<String>,
    }
    match serde_json::from_str(json) {
        Ok(Role { mode: Some(_) }) => parse_server(json).map(|server| Configuration::Server(Box::new(server))),
        _ => parse(json).map(|config| Configuration::Client(Box::new(config))),
    }
}

/// Reads and checks the configuration of a client.
///
/// # Errors
/// Every field that is wrong, by its path.
pub fn parse(json: &str) -> Result<Config, InvalidConfig> {
    let config: Config = read(json)?;
    config.check().map(|()| config)
}

/// Reads and checks the configuration of a server.
///
/// # Errors
/// Every field that is wrong, by its path.
pub fn parse_server(json: &str) -> Result<server::Server, InvalidConfig> {
    let server: server::Server = read(json)?;
    server.check().map(|()| server)
}

fn read<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, InvalidConfig> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let unreadable = |field: String, problem: String| InvalidConfig(vec![InvalidField { field, problem }]);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| unreadable(error.path().to_string(), error.inner().to_string()))?;
    deserializer.end().map_err(|error| unreadable(".".to_owned(), error.to_string()))?;
    Ok(value)
}

impl Config {
    /// Whether a running tunnel to the peer of number `peer` can take on `new` without being dialled again.
    ///
    /// What the protocols agreed on, or began with, cannot change: `ike`, `esp`, `l2tp`, `ppp`, `network.device`,
    /// `network.mtu`, `network.ipv6`, the paths of `credentials`, and the peers up to the one in use. All else is taken on live:
    /// `network.remoteCIDRs`, `exports`, `healthCheck`, `report`, `log`, further peers, and what the secrets are called.
    pub fn is_live_change(&self, new: &Self, peer: usize) -> bool {
        let negotiated = |config: &Self| {
            let Self { ike, esp, l2tp, ppp, network, credentials, .. } = config;
            let Network { device, mtu, ipv6, .. } = network;
            let files: Vec<PathBuf> = credentials.files().map(|file| file.path.clone()).collect();
            let peers: Vec<Peer> = config.peers.iter().take(peer.saturating_add(1)).cloned().collect();
            (ike.clone(), esp.clone(), l2tp.clone(), ppp.clone(), device.clone(), *mtu, *ipv6, files, peers)
        };
        negotiated(self) == negotiated(new)
    }
}

impl Credentials {
    /// Every file that has to be there.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        let proof = self.pre_shared_key.iter().chain(self.certificate.iter().flat_map(Certificate::files));
        let xauth = self.xauth.iter().flat_map(|user| [&user.username, &user.password]);
        proof.chain([&self.username, &self.password]).chain(&self.tunnel_secret).chain(xauth)
    }
}

impl HealthCheck {
    /// The time between two probes.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Security;

    pub(super) const SMALLEST: &str = r#"{
        "peers": [{"address": "vpn.oslo.example.com"}],
        "credentials": {"preSharedKey": {"path": "/s/psk"}, "username": {"path": "/s/username"}, "password": {"path": "/s/password"}}
    }"#;

    #[test]
    fn the_smallest_configuration_has_working_defaults() {
        let config = parse(SMALLEST).unwrap();
        assert_eq!(config.ike.security, Security::Compatible);
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
    fn only_what_lies_outside_the_protocols_changes_live() {
        let config = parse(SMALLEST).unwrap();
        let live = |change: fn(&mut Config)| {
            let (mut old, mut new) = (config.clone(), config.clone());
            let peer = |name: &str| Peer { address: name.to_owned() };
            old.peers = ["a.example", "b.example", "c.example"].map(peer).to_vec();
            new.peers.clone_from(&old.peers);
            change(&mut new);
            old.is_live_change(&new, 1)
        };
        assert!(live(|new| new.health_check.interval_seconds = 9));
        assert!(live(|new| new.network.remote_cidrs = vec!["10.20.0.0/16".parse().unwrap()]));
        assert!(live(|new| new.credentials.username.source = Some("key user of Secret oslo".to_owned())));
        assert!(live(|new| new.log.level = LogLevel::Debug));
        assert!(live(|new| new.admin.listen.set_port(7)));
        assert!(live(|new| new.peers.truncate(2)));
        assert!(!live(|new| new.peers.truncate(1)));
        assert!(!live(|new| new.peers.swap(0, 1)));
        assert!(!live(|new| new.credentials.username.path = "/elsewhere".into()));
        assert!(!live(|new| new.credentials.tunnel_secret = Some(new.credentials.password.clone())));
        assert!(!live(|new| {
            let Credentials { username, password, .. } = new.credentials.clone();
            new.credentials.xauth = Some(XauthUser { username, password });
        }));
        assert!(!live(|new| new.network.mtu = Some(1300)));
        assert!(!live(|new| new.esp.lifetime_seconds = 600));
    }
}
