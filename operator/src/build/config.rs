//! The configuration of the tunnel process, as it stands in the ConfigMap.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use kube::ResourceExt;
use sha2::{Digest, Sha256};
use towline_tunnel::config::{
    Admin, Config, Credentials, Dpd, Esp, Export, HealthCheck, Identity, Ike, L2tp, Log, Network, Peer, Ppp, ProbeKind,
    ReportTo, SecretFile, parse,
};

use super::pod::{ADMIN_PORT, RUN_FOLDER, SECRETS_FOLDER, Settings, TOKEN_FILE};
use crate::api::tunnel::{self, ProbeType, VpnTunnel};

/// Key of the ConfigMap.
pub const CONFIG_KEY: &str = "config.json";
/// The first port for exports whose own port cannot be listened at.
const FIRST_RELAY_PORT: u16 = 20_000;
/// Below this, ports need a capability.
const FIRST_FREE_PORT: u16 = 1_024;
/// Octets of the digest that tells configurations apart.
const REVISION_OCTETS: usize = 8;

/// A specification that cannot be carried out: the field, its value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub String);

fn field<T: FromStr>(path: &str, text: &str) -> Result<T, InvalidSpec>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| InvalidSpec(format!("spec.{path}: {text:?}: {error}")))
}

fn fields<T: FromStr>(path: &str, texts: &[String]) -> Result<Vec<T>, InvalidSpec>
where
    T::Err: std::fmt::Display,
{
    texts.iter().enumerate().map(|(index, text)| field(&format!("{path}[{index}]"), text)).collect()
}

/// Where the tunnel process listens for each export, in order: at the export's own port, or at another where that port is
/// privileged, taken by the process itself, or used twice.
pub fn relay_ports(exports: &[tunnel::Export]) -> Vec<u16> {
    let own = |index: usize, export: &tunnel::Export| {
        let is_taken = exports.iter().take(index).any(|other| other.port == export.port);
        export.port >= FIRST_FREE_PORT
            && !(FIRST_RELAY_PORT..FIRST_RELAY_PORT + 64).contains(&export.port)
            && export.port != ADMIN_PORT
            && !is_taken
    };
    (FIRST_RELAY_PORT..)
        .zip(exports.iter().enumerate())
        .map(|(spare, (index, export))| if own(index, export) { export.port } else { spare })
        .collect()
}

fn secret(name: &str, key: &str) -> SecretFile {
    SecretFile {
        path: PathBuf::from(format!("{SECRETS_FOLDER}/{name}/{key}")),
        source: Some(format!("key {key} of Secret {name}")),
    }
}

fn identity(id: &tunnel::Identity) -> Identity {
    Identity { kind: id.kind, value: id.value.clone() }
}

/// The configuration of `tunnel`; reports go to the operator whose authorities are `ca_bundle`.
///
/// # Errors
/// The first field that cannot be used.
pub fn config(tunnel: &VpnTunnel, settings: &Settings, ca_bundle: &str) -> Result<Config, InvalidSpec> {
    let spec = &tunnel.spec;
    let (namespace, name) = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    let exports: Result<Vec<_>, _> = spec.exports.iter().zip(relay_ports(&spec.exports)).map(export).collect();
    let mut config = Config {
        revision: String::new(),
        peers: spec.client.peers.iter().map(|peer| Peer { address: peer.address.clone() }).collect(),
        credentials: Credentials {
            pre_shared_key: secret(&spec.client.pre_shared_key.name, &spec.client.pre_shared_key.key),
            username: secret(&spec.client.user.secret_name, &spec.client.user.username_key),
            password: secret(&spec.client.user.secret_name, &spec.client.user.password_key),
            tunnel_secret: spec.l2tp.tunnel_secret.as_ref().map(|key| secret(&key.name, &key.key)),
        },
        ike: Ike {
            security: spec.ike.security,
            proposals: fields("ike.proposals", &spec.ike.proposals)?,
            lifetime_seconds: spec.ike.lifetime_seconds,
            local_id: spec.ike.local_id.as_ref().map(identity),
            remote_id: spec.ike.remote_id.as_ref().map(identity),
            initial_contact: true,
            dpd: Dpd { interval_seconds: spec.ike.dpd.interval_seconds, timeout_seconds: spec.ike.dpd.timeout_seconds },
        },
        esp: Esp {
            proposals: fields("esp.proposals", &spec.esp.proposals)?,
            lifetime_seconds: spec.esp.lifetime_seconds,
            lifetime_bytes: spec.esp.lifetime_bytes,
            lifetime_packets: spec.esp.lifetime_packets,
        },
        l2tp: L2tp { host_name: spec.l2tp.host_name.clone(), hello_seconds: spec.l2tp.hello_seconds },
        ppp: Ppp {
            auth: spec.ppp.auth.clone(),
            echo_seconds: spec.ppp.echo_seconds,
            echo_failures: spec.ppp.echo_failures,
        },
        network: Network {
            remote_cidrs: fields("network.remoteCIDRs", &spec.network.remote_cidrs)?,
            mtu: spec.network.mtu,
            ..Network::default()
        },
        exports: exports?,
        health_check: health_check(spec.health_check.as_ref())?,
        admin: Admin {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, ADMIN_PORT)),
            socket: PathBuf::from(RUN_FOLDER).join("control.sock"),
        },
        report: Some(ReportTo {
            url: format!("{}/v1/namespaces/{namespace}/tunnels/{name}/report", settings.report_url),
            ca_bundle: ca_bundle.to_owned(),
            token_file: PathBuf::from(TOKEN_FILE),
        }),
        log: Log { format: spec.log.format, level: spec.log.level },
    };
    let text = serde_json::to_string(&config).map_err(|error| InvalidSpec(error.to_string()))?;
    // The process's own checks, before it meets the text.
    parse(&text).map_err(|error| InvalidSpec(error.to_string()))?;
    // The authority changes without the tunnel: it is no part of what the user asked for.
    let asked = text.replace(&serde_json::to_string(ca_bundle).unwrap_or_default(), "");
    config.revision = Sha256::digest(asked).iter().take(REVISION_OCTETS).map(|octet| format!("{octet:02x}")).collect();
    Ok(config)
}

fn export((export, relay): (&tunnel::Export, u16)) -> Result<Export, InvalidSpec> {
    Ok(Export {
        name: export.name.clone(),
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, relay)),
        host: field::<IpAddr>("exports[].host", &export.host)?,
        port: export.port,
        protocol: export.protocol,
    })
}

fn health_check(check: Option<&tunnel::HealthCheck>) -> Result<HealthCheck, InvalidSpec> {
    let Some(check) = check else { return Ok(HealthCheck::default()) };
    Ok(HealthCheck {
        kind: match check.kind {
            ProbeType::Tcp => ProbeKind::Tcp,
            ProbeType::Icmp => ProbeKind::Icmp,
        },
        host: Some(field::<IpAddr>("healthCheck.host", &check.host)?),
        port: check.port,
        interval_seconds: check.interval_seconds,
        failure_threshold: check.failure_threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::pod::tests::settings;
    use crate::build::tests::tunnel;

    #[test]
    fn the_process_accepts_what_is_written_and_no_secret_is_in_it() {
        let config = config(&tunnel("Gateway"), &settings(), "PEM").unwrap();
        assert_eq!(parse(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(config.credentials.password.source.as_deref(), Some("key password of Secret oslo-user"));
        assert_eq!(
            config.report.unwrap().url,
            "https://towline-reports.towline-system.svc/v1/namespaces/erp/tunnels/oslo/report"
        );
    }

    #[test]
    fn a_new_authority_is_no_new_revision() {
        let revision = |bundle| config(&tunnel("Gateway"), &settings(), bundle).unwrap().revision;
        assert_eq!(revision("PEM"), revision("OTHER\nPEM"));
    }

    #[test]
    fn what_the_schema_lets_through_and_the_process_does_not_is_named() {
        let mut wrong = tunnel("Gateway");
        wrong.spec.network.remote_cidrs = vec!["10.20.0.0".to_owned()];
        let error = config(&wrong, &settings(), "PEM").unwrap_err().to_string();
        assert!(error.starts_with("spec.network.remoteCIDRs[0]: \"10.20.0.0\""), "{error}");
    }

    #[test]
    fn privileged_taken_and_double_ports_are_relayed_at_others() {
        let export = |port| tunnel::Export {
            name: "e".to_owned(),
            host: "10.20.0.1".to_owned(),
            port,
            protocol: towline_tunnel::config::Protocol::Tcp,
        };
        let exports: Vec<_> = [80, 5432, 9090, 5432, 20_001].map(export).into();
        assert_eq!(relay_ports(&exports), [20_000, 5432, 20_002, 20_003, 20_004]);
    }
}
