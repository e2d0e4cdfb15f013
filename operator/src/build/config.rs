//! The configuration of the tunnel process, as it stands in the ConfigMap.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use kube::ResourceExt;
use serde_json::json;
use towline_tunnel::config::{
    Admin, Config, Credentials, Dpd, Esp, Export, HealthCheck, Identity, Ike, L2tp, Log, Network, Peer, Ppp, ProbeKind,
    ReportTo, SecretFile, parse,
};

use super::pod::{ADMIN_PORT, RUN_FOLDER, SECRETS_FOLDER, Settings, TOKEN_FILE};
use super::port::ports;
use super::short_hash;
use crate::api::tunnel::{self, ProbeType, VpnTunnel, VpnTunnelSpec};

/// Key of the ConfigMap.
pub const CONFIG_KEY: &str = "config.json";
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

fn secret(name: &str, key: &str) -> SecretFile {
    SecretFile {
        path: PathBuf::from(format!("{SECRETS_FOLDER}/{name}/{key}")),
        source: Some(format!("key {key} of Secret {name}")),
    }
}

fn identity(id: &tunnel::Identity) -> Identity {
    Identity { kind: id.kind, value: id.value.clone() }
}

fn credentials(spec: &VpnTunnelSpec) -> Credentials {
    let (key, user) = (&spec.client.pre_shared_key, &spec.client.user);
    Credentials {
        pre_shared_key: secret(&key.name, &key.key),
        username: secret(&user.secret_name, &user.username_key),
        password: secret(&user.secret_name, &user.password_key),
        tunnel_secret: spec.l2tp.tunnel_secret.as_ref().map(|key| secret(&key.name, &key.key)),
    }
}

fn ike(ike: &tunnel::Ike) -> Result<Ike, InvalidSpec> {
    Ok(Ike {
        security: ike.security,
        proposals: fields("ike.proposals", &ike.proposals)?,
        lifetime_seconds: ike.lifetime_seconds,
        local_id: ike.local_id.as_ref().map(identity),
        remote_id: ike.remote_id.as_ref().map(identity),
        dpd: Dpd { interval_seconds: ike.dpd.interval_seconds, timeout_seconds: ike.dpd.timeout_seconds },
    })
}

fn esp(esp: &tunnel::Esp) -> Result<Esp, InvalidSpec> {
    Ok(Esp {
        proposals: fields("esp.proposals", &esp.proposals)?,
        lifetime_seconds: esp.lifetime_seconds,
        lifetime_bytes: esp.lifetime_bytes,
        lifetime_packets: esp.lifetime_packets,
    })
}

/// The configuration of `tunnel`; reports go to the operator whose authorities are `ca_bundle`.
///
/// # Errors
/// The first field that cannot be used.
pub fn config(tunnel: &VpnTunnel, settings: &Settings, ca_bundle: &str) -> Result<Config, InvalidSpec> {
    let spec = &tunnel.spec;
    let (namespace, name) = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    let mut config = Config {
        revision: String::new(),
        peers: spec.client.peers.iter().map(|peer| Peer { address: peer.address.clone() }).collect(),
        credentials: credentials(spec),
        ike: ike(&spec.ike)?,
        esp: esp(&spec.esp)?,
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
        exports: exports(&spec.exports)?,
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
    config.revision = revision(&config)?;
    Ok(config)
}

/// What tells `config` from others. The authority changes without the tunnel: it is no part of what the user asked for.
fn revision(config: &Config) -> Result<String, InvalidSpec> {
    let text = serde_json::to_string(config).map_err(|error| InvalidSpec(error.to_string()))?;
    // The process's own checks, before it meets the text.
    parse(&text).map_err(|error| InvalidSpec(format!("spec.{error}")))?;
    let authority = config.report.as_ref().map(|report| json!(report.ca_bundle).to_string()).unwrap_or_default();
    Ok(short_hash(&text.replace(&authority, "")))
}

fn exports(exports: &[tunnel::Export]) -> Result<Vec<Export>, InvalidSpec> {
    let export = |(export, relay): (&tunnel::Export, u16)| {
        Ok(Export {
            name: export.name.clone(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, relay)),
            host: field::<IpAddr>("exports[].host", &export.host)?,
            port: export.port,
            protocol: export.protocol,
        })
    };
    exports.iter().zip(ports(exports)?).map(export).collect()
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

    /// The path of every field of `value`.
    fn paths(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        let Some(fields) = value.as_object() else { return found.push(path.to_owned()) };
        for (name, value) in fields {
            paths(value, &format!("{path}.{name}"), found);
        }
    }

    #[test]
    fn a_tunnel_with_defaults_writes_no_field_that_an_older_process_would_refuse() {
        // Sidecars keep their image until their pod is made anew, and the process refuses fields that it does not know. A field
        // that is added later is left out of the file while it has its default value.
        let mut least = tunnel("Sidecar");
        least.spec.exports.clear();
        let mut found = Vec::new();
        paths(&json!(config(&least, &settings(), "PEM").unwrap()), "", &mut found);
        let first_release = [
            ".admin.listen",
            ".admin.socket",
            ".credentials.password.path",
            ".credentials.password.source",
            ".credentials.preSharedKey.path",
            ".credentials.preSharedKey.source",
            ".credentials.username.path",
            ".credentials.username.source",
            ".esp.lifetimeSeconds",
            ".healthCheck.failureThreshold",
            ".healthCheck.intervalSeconds",
            ".healthCheck.type",
            ".ike.dpd.intervalSeconds",
            ".ike.dpd.timeoutSeconds",
            ".ike.lifetimeSeconds",
            ".ike.security",
            ".l2tp.helloSeconds",
            ".l2tp.hostName",
            ".log.format",
            ".log.level",
            ".network.device",
            ".network.remoteCIDRs",
            ".peers",
            ".ppp.auth",
            ".ppp.echoFailures",
            ".ppp.echoSeconds",
            ".report.caBundle",
            ".report.tokenFile",
            ".report.url",
            ".revision",
        ];
        found.sort();
        assert_eq!(found, first_release);
    }
}
