//! The configuration of the tunnel process, as it stands in the ConfigMap.

pub mod server;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use towline_tunnel::config::server::{Certificate, Import, User};
use towline_tunnel::config::{
    Admin, Config, Credentials, Dpd, Esp, Export, HealthCheck, Identity, Ike, L2tp, Log, Network, Peer, Ppp, ProbeKind,
    ReportTo, SecretFile, XauthUser, parse,
};

use super::pod::{ADMIN_PORT, RUN_FOLDER, SECRETS_FOLDER, Settings, TOKEN_FILE};
use super::port::ports;
use super::short_hash;
use crate::api::tunnel::{self, Attachment, Mode, ProbeType, VpnTunnel, VpnTunnelSpec};

/// Key of the ConfigMap.
pub const CONFIG_KEY: &str = "config.json";

/// A specification that cannot be carried out: the field, its value and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub String);

/// What stands in the ConfigMap.
#[derive(Debug, Clone)]
pub struct Written {
    /// The text.
    pub text: String,
    /// What tells the configuration from the one before; the pod reports it.
    pub revision: String,
    /// The exports that the pod relays.
    pub exports: Vec<Export>,
    /// The exports that it cannot relay, by name, and why.
    pub homeless: Vec<(String, String)>,
}

/// The configuration of `tunnel`, which lets `users` in if it is a server; reports go to the operator whose authorities are
/// `ca_bundle`.
///
/// # Errors
/// The first field that cannot be used.
pub fn written(
    tunnel: &VpnTunnel,
    users: &[User],
    settings: &Settings,
    ca_bundle: &str,
) -> Result<Written, InvalidSpec> {
    match tunnel.spec.mode {
        Mode::Client => {
            let config = config(tunnel, settings, ca_bundle)?;
            let text = serde_json::to_string_pretty(&config).map_err(|error| InvalidSpec(error.to_string()))?;
            Ok(Written { text, revision: config.revision, exports: config.exports, homeless: Vec::new() })
        }
        Mode::Server => {
            let (config, homeless) = server::config(tunnel, users, settings, ca_bundle)?;
            // Without white space: its users are many.
            Ok(Written { text: compact(&config)?, revision: config.revision, exports: config.exports, homeless })
        }
    }
}

pub(super) fn field<T: FromStr>(path: &str, text: &str) -> Result<T, InvalidSpec>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| InvalidSpec(format!("spec.{path}: {text:?}: {error}")))
}

pub(super) fn fields<T: FromStr>(path: &str, texts: &[String]) -> Result<Vec<T>, InvalidSpec>
where
    T::Err: std::fmt::Display,
{
    texts.iter().enumerate().map(|(index, text)| field(&format!("{path}[{index}]"), text)).collect()
}

pub(super) fn secret(name: &str, key: &str) -> SecretFile {
    SecretFile {
        path: PathBuf::from(format!("{SECRETS_FOLDER}/{name}/{key}")),
        source: Some(format!("key {key} of Secret {name}")),
    }
}

fn identity(id: &tunnel::Identity) -> Identity {
    Identity { kind: id.kind, value: id.value.clone() }
}

fn certificate(own: &tunnel::Certificate) -> Certificate {
    Certificate {
        chain: secret(&own.secret_name, "tls.crt"),
        key: secret(&own.secret_name, "tls.key"),
        authorities: secret(&own.secret_name, "ca.crt"),
        revocations: own.revocations_key.as_ref().map(|key| secret(&own.secret_name, key)),
        remote_id: own.remote_id.as_ref().map(identity),
    }
}

fn credentials(spec: &VpnTunnelSpec, client: &tunnel::Client) -> Credentials {
    let user = &client.user;
    Credentials {
        pre_shared_key: client.pre_shared_key.as_ref().map(|key| secret(&key.name, &key.key)),
        certificate: client.certificate.as_ref().map(certificate),
        username: secret(&user.secret_name, &user.username_key),
        password: secret(&user.secret_name, &user.password_key),
        tunnel_secret: spec.l2tp.tunnel_secret.as_ref().map(|key| secret(&key.name, &key.key)),
        xauth: client.xauth.as_ref().map(|user| XauthUser {
            username: secret(&user.secret_name, &user.username_key),
            password: secret(&user.secret_name, &user.password_key),
        }),
    }
}

fn ike(spec: &VpnTunnelSpec) -> Result<Ike, InvalidSpec> {
    let ike = &spec.ike;
    Ok(Ike {
        security: ike.security,
        proposals: fields("ike.proposals", &ike.proposals)?,
        lifetime_seconds: ike.lifetime_seconds,
        local_id: ike.local_id.as_ref().map(identity),
        remote_id: ike.remote_id.as_ref().map(identity),
        // Sidecars that share an identity would throw each other out (RFC 3947 section 6).
        initial_contact: spec.attachment == Attachment::Gateway || ike.local_id.is_none(),
        exchange: ike.exchange,
        dpd: Dpd { interval_seconds: ike.dpd.interval_seconds, timeout_seconds: ike.dpd.timeout_seconds },
    })
}

fn esp(esp: &tunnel::Esp) -> Result<Esp, InvalidSpec> {
    Ok(Esp {
        proposals: fields("esp.proposals", &esp.proposals)?,
        encapsulation: esp.encapsulation,
        lifetime_seconds: esp.lifetime_seconds,
        lifetime_bytes: esp.lifetime_bytes,
        lifetime_packets: esp.lifetime_packets,
    })
}

fn l2tp(spec: &VpnTunnelSpec) -> L2tp {
    L2tp { host_name: spec.l2tp.host_name.clone(), hello_seconds: spec.l2tp.hello_seconds }
}

fn ppp(spec: &VpnTunnelSpec) -> Ppp {
    Ppp { auth: spec.ppp.auth.clone(), echo_seconds: spec.ppp.echo_seconds, echo_failures: spec.ppp.echo_failures }
}

fn imports(tunnel: &VpnTunnel) -> Vec<Import> {
    let namespace = tunnel.namespace().unwrap_or_default();
    let import = |import: &tunnel::Import| Import {
        name: import.name.clone(),
        listen: import.port.unwrap_or(import.service_port),
        host: format!("{}.{namespace}.svc", import.service_name),
        port: import.service_port,
        protocol: import.protocol,
    };
    tunnel.spec.imports.iter().map(import).collect()
}

fn admin() -> Admin {
    Admin {
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, ADMIN_PORT)),
        socket: PathBuf::from(RUN_FOLDER).join("control.sock"),
    }
}

fn report_to(tunnel: &VpnTunnel, settings: &Settings, ca_bundle: &str) -> ReportTo {
    let (namespace, name) = (tunnel.namespace().unwrap_or_default(), tunnel.name_any());
    ReportTo {
        url: format!("{}/v1/namespaces/{namespace}/tunnels/{name}/report", settings.report_url),
        ca_bundle: ca_bundle.to_owned(),
        token_file: PathBuf::from(TOKEN_FILE),
    }
}

fn log(spec: &VpnTunnelSpec) -> Log {
    Log { format: spec.log.format, level: spec.log.level }
}

/// The configuration of a client.
fn config(tunnel: &VpnTunnel, settings: &Settings, ca_bundle: &str) -> Result<Config, InvalidSpec> {
    let spec = &tunnel.spec;
    let missing = || InvalidSpec("spec.client is missing; mode Client needs it".to_owned());
    let client = spec.client.as_ref().ok_or_else(missing)?;
    let mut config = Config {
        revision: String::new(),
        peers: client.peers.iter().map(|peer| Peer { address: peer.address.clone() }).collect(),
        credentials: credentials(spec, client),
        ike: ike(spec)?,
        esp: esp(&spec.esp)?,
        l2tp: l2tp(spec),
        ppp: ppp(spec),
        network: Network {
            remote_cidrs: fields("network.remoteCIDRs", &spec.network.remote_cidrs)?,
            ipv6: spec.network.ipv6,
            mtu: spec.network.mtu,
            ..Network::default()
        },
        exports: exports(&spec.exports)?,
        imports: imports(tunnel),
        health_check: health_check(spec.health_check.as_ref())?,
        admin: admin(),
        report: Some(report_to(tunnel, settings, ca_bundle)),
        log: log(spec),
    };
    let text = compact(&config)?;
    // The process's own checks, before it meets the text.
    parse(&text).map_err(|error| InvalidSpec(format!("spec.{error}")))?;
    config.revision = revision(&text, ca_bundle);
    Ok(config)
}

fn compact(config: &impl Serialize) -> Result<String, InvalidSpec> {
    serde_json::to_string(config).map_err(|error| InvalidSpec(error.to_string()))
}

/// What tells the configuration in `text` from others. The authority changes without the tunnel: it is no part of what the user
/// asked for.
fn revision(text: &str, ca_bundle: &str) -> String {
    short_hash(&text.replace(&json!(ca_bundle).to_string(), ""))
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
    use towline_tunnel::config::{Exchange, IdentityKind};

    use super::*;
    use crate::build::low_ports;
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
    fn the_imports_of_a_client_reach_the_process_and_let_it_listen_at_low_ports() {
        let mut tunnel = tunnel("Gateway");
        assert_eq!(low_ports(&tunnel), None);
        tunnel.spec.imports =
            serde_json::from_value(json!([{"name": "orders", "serviceName": "orders", "servicePort": 80}])).unwrap();
        let imports = config(&tunnel, &settings(), "PEM").unwrap().imports;
        let [Import { listen: 80, host, port: 80, .. }] = imports.as_slice() else { panic!("{imports:?}") };
        assert_eq!(host, "orders.erp.svc");
        assert!(low_ports(&tunnel).is_some());
    }

    #[test]
    fn a_client_with_a_certificate_finds_its_files_and_has_no_pre_shared_key() {
        let mut tunnel = tunnel("Gateway");
        let client = tunnel.spec.client.as_mut().unwrap();
        client.pre_shared_key = None;
        client.certificate = serde_json::from_value(json!({
            "secretName": "oslo-tls", "revocationsKey": "ca.crl", "remoteId": {"type": "Fqdn", "value": "vpn.example.com"},
        }))
        .unwrap();
        let credentials = config(&tunnel, &settings(), "PEM").unwrap().credentials;
        assert_eq!(credentials.pre_shared_key, None);
        let certificate = credentials.certificate.unwrap();
        for (file, key) in [
            (&certificate.chain, "tls.crt"),
            (&certificate.key, "tls.key"),
            (&certificate.authorities, "ca.crt"),
            (certificate.revocations.as_ref().unwrap(), "ca.crl"),
        ] {
            assert_eq!(file.path, PathBuf::from(format!("/etc/towline/secrets/oslo-tls/{key}")));
        }
        assert_eq!(certificate.remote_id.unwrap().value, "vpn.example.com");
        let volumes = super::super::pod::tunnel_volumes(&tunnel, super::super::pod::Usage::Sidecar);
        let names = volumes.into_iter().filter_map(|volume| volume.secret?.secret_name);
        assert_eq!(names.collect::<Vec<_>>(), ["oslo-tls", "oslo-user"]);
    }

    #[test]
    fn the_user_of_xauth_reaches_the_process_with_the_secret_that_it_is_in() {
        let mut tunnel = tunnel("Gateway");
        assert_eq!(config(&tunnel, &settings(), "PEM").unwrap().credentials.xauth, None);
        let xauth = json!({"secretName": "oslo-xauth", "passwordKey": "token"});
        tunnel.spec.client.as_mut().unwrap().xauth = serde_json::from_value(xauth).unwrap();
        let user = config(&tunnel, &settings(), "PEM").unwrap().credentials.xauth.unwrap();
        assert_eq!(user.username.path, PathBuf::from("/etc/towline/secrets/oslo-xauth/username"));
        assert_eq!(user.password.path, PathBuf::from("/etc/towline/secrets/oslo-xauth/token"));
        assert_eq!(user.password.source.as_deref(), Some("key token of Secret oslo-xauth"));
        let volumes = super::super::pod::tunnel_volumes(&tunnel, super::super::pod::Usage::Sidecar);
        let names: Vec<_> = volumes.into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
        assert!(names.contains(&"oslo-xauth".to_owned()), "{names:?}");
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
    fn sidecars_that_share_an_identity_do_not_ask_the_gateway_to_forget_the_others() {
        let initial_contact = |attachment, local_id| {
            let mut tunnel = tunnel(attachment);
            tunnel.spec.exports.clear();
            tunnel.spec.ike.local_id = local_id;
            config(&tunnel, &settings(), "PEM").unwrap().ike.initial_contact
        };
        let name = || Some(tunnel::Identity { kind: IdentityKind::Fqdn, value: "erp.example.com".to_owned() });
        assert!(!initial_contact("Sidecar", name()));
        assert!(initial_contact("Sidecar", None) && initial_contact("Gateway", name()));
    }

    /// The path of every field of `value`.
    fn paths(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        let Some(fields) = value.as_object() else { return found.push(path.to_owned()) };
        for (name, value) in fields {
            paths(value, &format!("{path}.{name}"), found);
        }
    }

    #[test]
    fn networks_of_ipv6_reach_the_process_with_their_field() {
        let mut tunnel = tunnel("Gateway");
        tunnel.spec.network.remote_cidrs.push("fd20:4::/64".to_owned());
        let error = config(&tunnel, &settings(), "PEM").unwrap_err().to_string();
        assert!(error.starts_with("spec.network.remoteCIDRs[1]: fd20:4::/64 is IPv6; set network.ipv6"), "{error}");
        tunnel.spec.network.ipv6 = true;
        let network = config(&tunnel, &settings(), "PEM").unwrap().network;
        assert!(network.ipv6 && network.remote_cidrs.contains(&"fd20:4::/64".parse().unwrap()));
    }

    #[test]
    fn aggressive_mode_is_asked_for_by_its_field_alone() {
        let mut tunnel = tunnel("Gateway");
        assert_eq!(config(&tunnel, &settings(), "PEM").unwrap().ike.exchange, Exchange::Main);
        tunnel.spec.ike = serde_json::from_value(json!({"exchange": "Aggressive"})).unwrap();
        assert_eq!(config(&tunnel, &settings(), "PEM").unwrap().ike.exchange, Exchange::Aggressive);
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
            ".ike.initialContact",
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
