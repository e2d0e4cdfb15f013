//! The configuration of a server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use towline_tunnel::config::server::{
    Addresses, Credentials, Forwarding, Limits, Listen, Network, PreSharedKey, Radius, RadiusServer, Server,
    ServerMode, User,
};
use towline_tunnel::config::{Export, parse_server};

use super::{
    InvalidSpec, admin, certificate, compact, esp, exports, field, fields, identity, ike, imports, l2tp, log, ppp,
    report_to, revision, secret,
};
use crate::api::tunnel::{self, VpnTunnel, VpnTunnelSpec};
use crate::build::pod::{DYNAUTH_PORT, Settings};

/// Fields that stand elsewhere in the specification than in the configuration, the longer ones first.
const PATHS: [(&str, &str); 8] = [
    ("credentials.tunnelSecret", "l2tp.tunnelSecret"),
    ("credentials.", "server."),
    ("credentials", "server"),
    ("addresses.local", "server.localAddress"),
    ("addresses.", "server."),
    ("forwarding.", "server.forwarding."),
    ("limits.", "server.limits."),
    ("radius.", "server.radius."),
];

/// The configuration of a server that lets `users` in, and the exports that it cannot relay, by name, with why.
pub(super) fn config(
    tunnel: &VpnTunnel,
    users: &[User],
    settings: &Settings,
    ca_bundle: &str,
) -> Result<(Server, Vec<(String, String)>), InvalidSpec> {
    let spec = &tunnel.spec;
    let missing = || InvalidSpec("spec.server is missing; mode Server needs it".to_owned());
    let server = spec.server.as_ref().ok_or_else(missing)?;
    let mut config = Server {
        mode: ServerMode::Server,
        revision: String::new(),
        listen: Listen::default(),
        credentials: credentials(spec, server)?,
        ike: ike(spec)?,
        esp: esp(&spec.esp)?,
        l2tp: l2tp(spec),
        ppp: ppp(spec),
        users: users.to_vec(),
        radius: server.radius.as_ref().map(radius),
        addresses: addresses(server)?,
        limits: limits(&server.limits),
        forwarding: Forwarding {
            networks: fields("server.forwarding.networks", &server.forwarding.networks)?,
            source_nat: server.forwarding.source_nat,
        },
        imports: imports(tunnel),
        exports: Vec::new(),
        network: Network { mtu: spec.network.mtu, ..Network::default() },
        admin: admin(),
        report: Some(report_to(tunnel, settings, ca_bundle)),
        log: log(spec),
    };
    let (at_home, homeless): (Vec<Export>, Vec<Export>) =
        exports(&spec.exports)?.into_iter().partition(|export| is_at_home(export.host, &config));
    config.exports = at_home;
    let text = compact(&config)?;
    // The process's own checks, before it meets the text.
    parse_server(&text).map_err(|error| {
        let problems = error.0.iter().map(|wrong| format!("{}: {}", place(&wrong.field, users), wrong.problem));
        InvalidSpec(problems.collect::<Vec<_>>().join("; "))
    })?;
    config.revision = revision(&text, ca_bundle);
    let why = |export: Export| {
        let text = format!(
            "host {} of export {} is behind no VpnUser of this server; add its network to spec.networks of the site's VpnUser",
            export.host, export.name
        );
        (export.name, text)
    };
    Ok((config, homeless.into_iter().map(why).collect()))
}

/// Where a field of the configuration stands in the specifications.
fn place(field: &str, users: &[User]) -> String {
    let user = field.strip_prefix("users[").and_then(|rest| rest.split_once("]."));
    let named = user.and_then(|(index, rest)| Some((users.get(index.parse::<usize>().ok()?)?, rest)));
    if let Some((user, rest)) = named {
        return format!("spec.{rest} of the VpnUser with the name {:?}", user.name);
    }
    format!("spec.{}", spec_path(field))
}

fn spec_path(field: &str) -> String {
    if let Some(import) = field.strip_prefix("imports") {
        let import = import.replace(".port", ".servicePort").replace(".host", ".serviceName");
        return format!("imports{}", import.replace(".listen", ".port"));
    }
    let moved = PATHS.iter().find_map(|(from, to)| Some(format!("{to}{}", field.strip_prefix(from)?)));
    moved.unwrap_or_else(|| field.to_owned())
}

/// The server's own address inside every link.
pub(in crate::build) fn local_address(server: &tunnel::Server) -> Result<Ipv4Addr, InvalidSpec> {
    if let Some(address) = &server.local_address {
        return field("server.localAddress", address);
    }
    let first =
        server.pools.first().ok_or_else(|| InvalidSpec("spec.server.pools: at least one is needed".to_owned()))?;
    let pool: ipnet::Ipv4Net = field("server.pools[0]", first)?;
    pool.hosts().next().ok_or_else(|| InvalidSpec(format!("spec.server.pools[0]: {pool} has no address")))
}

fn credentials(spec: &VpnTunnelSpec, server: &tunnel::Server) -> Result<Credentials, InvalidSpec> {
    let key = |(index, key): (usize, &tunnel::ServerKey)| {
        Ok(PreSharedKey {
            file: secret(&key.name, &key.key),
            addresses: fields(&format!("server.preSharedKeys[{index}].addresses"), &key.addresses)?,
            remote_id: key.remote_id.as_ref().map(identity),
        })
    };
    Ok(Credentials {
        pre_shared_keys: server.pre_shared_keys.iter().enumerate().map(key).collect::<Result<_, _>>()?,
        certificate: server.certificate.as_ref().map(certificate),
        tunnel_secret: spec.l2tp.tunnel_secret.as_ref().map(|key| secret(&key.name, &key.key)),
    })
}

fn addresses(server: &tunnel::Server) -> Result<Addresses, InvalidSpec> {
    Ok(Addresses {
        local: local_address(server)?,
        pools: fields("server.pools", &server.pools)?,
        ipv6_pool: server.ipv6_pool.as_deref().map(|pool| field("server.ipv6Pool", pool)).transpose()?,
        dns: fields("server.dns", &server.dns)?,
        domain: server.domain.clone(),
        routes: fields("server.routes", &server.routes)?,
    })
}

fn limits(limits: &tunnel::Limits) -> Limits {
    Limits {
        sessions: limits.sessions,
        peers_per_source: limits.peers_per_source,
        sessions_per_user: limits.sessions_per_user,
        on_limit: limits.on_limit,
        idle_seconds: limits.idle_seconds,
        total_seconds: limits.total_seconds,
    }
}

fn radius(radius: &tunnel::Radius) -> Radius {
    let server = |server: &tunnel::RadiusServer| RadiusServer {
        address: server.address.clone(),
        port: server.port,
        accounting_port: server.accounting_port,
        secret: secret(&server.secret.name, &server.secret.key),
    };
    Radius {
        servers: radius.servers.iter().map(server).collect(),
        timeout_seconds: radius.timeout_seconds,
        tries: radius.tries,
        interim_seconds: radius.interim_seconds,
        disconnect: radius.disconnect.then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, DYNAUTH_PORT))),
        nas_identifier: radius.nas_identifier.clone(),
    }
}

/// Whether somebody who may dial in has `host`, or has it behind; whom a RADIUS server knows is not known here.
fn is_at_home(host: IpAddr, config: &Server) -> bool {
    let IpAddr::V4(host) = host else { return false };
    let has = |user: &User| user.address == Some(host) || user.networks.iter().any(|network| network.contains(&host));
    config.radius.is_some()
        || config.addresses.pools.iter().any(|pool| pool.contains(&host))
        || config.users.iter().any(has)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::build::pod::tests::settings;
    use crate::build::tests::server;

    fn users() -> Vec<User> {
        let user = |value| serde_json::from_value(value).unwrap();
        vec![user(json!({"name": "oslo", "password": {"path": "/s/oslo"}, "networks": ["10.20.0.0/16"]}))]
    }

    fn built(tunnel: &VpnTunnel) -> Result<(Server, Vec<(String, String)>), InvalidSpec> {
        config(tunnel, &users(), &settings(), "PEM")
    }

    fn problem(change: impl FnOnce(&mut VpnTunnel)) -> String {
        let mut tunnel = server();
        change(&mut tunnel);
        built(&tunnel).unwrap_err().0
    }

    fn of(tunnel: &mut VpnTunnel) -> &mut tunnel::Server {
        tunnel.spec.server.as_mut().unwrap()
    }

    #[test]
    fn every_field_of_the_specification_reaches_the_process() {
        let (config, homeless) = built(&server()).unwrap();
        assert_eq!(homeless, []);
        let mut value = json!(config);
        value.as_object_mut().unwrap().remove("revision");
        insta::assert_snapshot!("server-config", serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn the_process_accepts_what_is_written_and_tells_it_by_its_revision() {
        let (config, _) = built(&server()).unwrap();
        assert_eq!(parse_server(&serde_json::to_string(&config).unwrap()).unwrap(), config);
        let mut changed = server();
        of(&mut changed).limits.sessions = 11;
        assert_ne!(built(&changed).unwrap().0.revision, config.revision);
        let renewed = super::config(&server(), &users(), &settings(), "OTHER").unwrap().0;
        assert_eq!(renewed.revision, config.revision);
    }

    #[test]
    fn the_servers_own_address_is_the_first_of_the_first_pool_unless_it_is_set() {
        assert_eq!(built(&server()).unwrap().0.addresses.local, Ipv4Addr::new(10, 99, 0, 1));
        let mut set = server();
        of(&mut set).local_address = Some("10.99.0.254".to_owned());
        assert_eq!(built(&set).unwrap().0.addresses.local, Ipv4Addr::new(10, 99, 0, 254));
        let mut odd = server();
        of(&mut odd).pools = vec!["10.99.0.77/26".to_owned()];
        assert_eq!(built(&odd).unwrap().0.addresses.local, Ipv4Addr::new(10, 99, 0, 65));
    }

    #[test]
    fn what_the_schema_lets_through_is_named_by_its_place_in_the_specification() {
        for (change, begin) in [
            (
                (|tunnel| of(tunnel).pools = vec!["10.0.0.0/8".to_owned(), "10.1.0.0/16".to_owned()])
                    as fn(&mut VpnTunnel),
                "spec.server.pools[1]: 10.1.0.0/16 overlaps",
            ),
            (|tunnel| of(tunnel).pools = vec!["10.1.0".to_owned()], "spec.server.pools[0]: \"10.1.0\""),
            (|tunnel| of(tunnel).local_address = Some("127.0.0.1".to_owned()), "spec.server.localAddress: "),
            (|tunnel| of(tunnel).limits.sessions = 0, "spec.server.limits.sessions: "),
            (|tunnel| of(tunnel).radius.as_mut().unwrap().tries = 0, "spec.server.radius.tries: "),
            (|tunnel| tunnel.spec.imports[1].service_port = 0, "spec.imports[1].servicePort: "),
            (|tunnel| tunnel.spec.imports[1].port = Some(0), "spec.imports[1].port: "),
            (
                |tunnel| {
                    of(tunnel).pre_shared_keys.clear();
                    of(tunnel).certificate = None;
                },
                "spec.server: neither preSharedKeys nor certificate",
            ),
            (|tunnel| tunnel.spec.server = None, "spec.server is missing"),
        ] {
            let problem = problem(change);
            assert!(problem.starts_with(begin), "{problem} does not begin with {begin}");
        }
    }

    #[test]
    fn a_user_that_the_process_would_refuse_is_named() {
        let twice = [users(), users()].concat();
        let InvalidSpec(problem) = config(&server(), &twice, &settings(), "PEM").unwrap_err();
        assert!(problem.starts_with("spec.name of the VpnUser with the name \"oslo\": "), "{problem}");
    }

    #[test]
    fn an_export_of_a_host_behind_nobody_is_left_out_and_the_rest_is_carried_out() {
        let mut tunnel = server();
        of(&mut tunnel).radius = None;
        let hosts = |tunnel: &VpnTunnel, users: &[User]| -> (Vec<IpAddr>, Vec<String>) {
            let (config, homeless) = config(tunnel, users, &settings(), "PEM").unwrap();
            (
                config.exports.iter().map(|export| export.host).collect(),
                homeless.into_iter().map(|(name, _)| name).collect(),
            )
        };
        let web: IpAddr = [10, 20, 4, 11].into();
        assert_eq!(hosts(&tunnel, &users()), (vec![web], Vec::new()));
        assert_eq!(hosts(&tunnel, &[]), (Vec::new(), vec!["web".to_owned()]));
        let named = User { address: Some(Ipv4Addr::new(10, 20, 4, 11)), networks: Vec::new(), ..users().remove(0) };
        assert_eq!(hosts(&tunnel, &[named]), (vec![web], Vec::new()));
        tunnel.spec.exports[0].host = "10.98.0.7".to_owned();
        assert_eq!(hosts(&tunnel, &[]).1, [""; 0]);
        assert_eq!(hosts(&server(), &[]).0, [web]);
    }

    #[test]
    fn what_is_left_out_is_what_the_process_has() {
        let mut least = server();
        least.spec = serde_json::from_value(json!({
            "mode": "Server", "server": {"preSharedKeys": [{"name": "a"}], "pools": ["10.99.0.0/24"]},
        }))
        .unwrap();
        let value = json!(built(&least).unwrap().0);
        let smallest = json!({
            "mode": "Server",
            "credentials": {"preSharedKeys": [{"file": {"path": "/etc/towline/secrets/a/psk"}}]},
            "addresses": {"local": "10.99.0.1", "pools": ["10.99.0.0/24"]},
        });
        let defaults = json!(parse_server(&smallest.to_string()).unwrap());
        let fields = ["ike", "esp", "l2tp", "ppp", "addresses", "limits", "forwarding", "network", "log", "listen"];
        for field in fields {
            assert_eq!(value[field], defaults[field], "{field}");
        }
        assert_eq!(value["radius"], Value::Null);
    }
}
