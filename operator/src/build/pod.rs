//! The container of the tunnel process: the same in a gateway pod and as a native sidecar.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction,
    HostPathVolumeSource, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::json;

use super::{object_name, short_hash};
use crate::api::tunnel::{Amounts, Mode, Resources, VpnTunnel};
use crate::endpoint::AUDIENCE;

/// Name of the container.
pub const CONTAINER: &str = "towline";
/// Port of health and metrics in the pod.
pub const ADMIN_PORT: u16 = 9_090;
/// UDP port of ISAKMP (RFC 2408 section 2.5.1).
pub const IKE_PORT: u16 = 500;
/// UDP port of ISAKMP and ESP behind a NAT (RFC 3947 section 4).
pub const NAT_T_PORT: u16 = 4_500;
/// UDP port of Disconnect-Requests (RFC 5176 section 2.3).
pub const DYNAUTH_PORT: u16 = 3_799;
/// Folder of the control socket.
pub const RUN_FOLDER: &str = "/run/towline";
/// Folder with a folder for each Secret.
pub const SECRETS_FOLDER: &str = "/etc/towline/secrets";
/// The token that reports are sent with.
pub const TOKEN_FILE: &str = "/var/run/secrets/towline.dev/token";

/// The volume without anything in it that keeps the application's API token away.
const NO_TOKEN: &str = "towline-no-token";
const CONFIG_FOLDER: &str = "/etc/towline/config";
const TUN_DEVICE: &str = "/dev/net/tun";
const ARGUMENTS: [&str; 4] = ["run", "--config", "/etc/towline/config/config.json", "--leave-routes"];
/// How long a token is valid; the kubelet renews it after four fifths of that.
const TOKEN_SECONDS: i64 = 3_600;
/// Where the API server's ServiceAccount plugin mounts the pod's token into each container that has nothing there.
const API_TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds between two looks at whether a sidecar's tunnel is up. Each that finds it down is an event of the pod, and the
/// kubelet drops a pod's events after a few dozen.
const START_INTERVAL: i32 = 3;
/// How long a sidecar may take until its tunnel is up for the first time, in seconds: the application waits, and a restart of
/// the container would not bring the gateway back.
const START_LIMIT: i32 = 7 * 86_400;

/// What the operator was started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Image of the tunnel process.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// Names of Secrets with registry credentials for gateway pods. A sidecar's image is pulled with those of its pod.
    pub pull_secrets: Vec<String>,
    /// Where reports go, without a path.
    pub report_url: String,
}

/// Where the container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage<'a> {
    /// In a pod of its own.
    Gateway {
        /// Names of the Secrets of users, which the specification of the tunnel does not name.
        secrets: &'a BTreeSet<String>,
    },
    /// In the pod of an application, in front of its containers.
    Sidecar,
}

/// A UDP port of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its name in the pod and in the Service.
    pub name: &'static str,
    /// Its number in both.
    pub number: u16,
}

/// The UDP ports at which a server listens; a client listens at none.
pub fn listeners(tunnel: &VpnTunnel) -> Vec<Port> {
    let Some(server) = &tunnel.spec.server else { return Vec::new() };
    let mut ports = vec![Port { name: "ike", number: IKE_PORT }, Port { name: "nat-t", number: NAT_T_PORT }];
    if server.radius.as_ref().is_some_and(|radius| radius.disconnect) {
        ports.push(Port { name: "radius-dynauth", number: DYNAUTH_PORT });
    }
    ports
}

/// The Secrets that the pod mounts, each once and whole: a further key of one needs no other pod.
fn secrets(tunnel: &VpnTunnel, usage: Usage<'_>) -> BTreeSet<String> {
    let mut names = match usage {
        Usage::Gateway { secrets } => secrets.clone(),
        Usage::Sidecar => BTreeSet::new(),
    };
    if let Some(client) = &tunnel.spec.client {
        names.insert(client.user.secret_name.clone());
        names.extend(client.xauth.as_ref().map(|user| user.secret_name.clone()));
        names.extend(client.pre_shared_key.as_ref().map(|key| key.name.clone()));
        names.extend(client.certificate.as_ref().map(|certificate| certificate.secret_name.clone()));
    }
    if let Some(server) = &tunnel.spec.server {
        names.extend(server.pre_shared_keys.iter().map(|key| key.name.clone()));
        names.extend(server.certificate.as_ref().map(|certificate| certificate.secret_name.clone()));
        let radius = server.radius.iter().flat_map(|radius| &radius.servers);
        names.extend(radius.map(|server| server.secret.name.clone()));
    }
    names.extend(tunnel.spec.l2tp.tunnel_secret.as_ref().map(|key| key.name.clone()));
    names
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: Some(true), ..VolumeMount::default() }
}

/// The container.
pub fn tunnel_container(tunnel: &VpnTunnel, settings: &Settings, usage: Usage<'_>) -> Container {
    let mut mounts = vec![
        mount("towline-config", CONFIG_FOLDER),
        mount("towline-token", "/var/run/secrets/towline.dev"),
        VolumeMount { read_only: None, ..mount("towline-run", RUN_FOLDER) },
        VolumeMount { read_only: None, ..mount("towline-tun", TUN_DEVICE) },
    ];
    mounts.extend(
        secrets(tunnel, usage)
            .iter()
            .enumerate()
            .map(|(index, secret)| mount(&format!("towline-secret-{index}"), &format!("{SECRETS_FOLDER}/{secret}"))),
    );
    let is_sidecar = usage == Usage::Sidecar;
    if is_sidecar {
        mounts.push(mount(NO_TOKEN, API_TOKEN_FOLDER));
    }
    Container {
        name: CONTAINER.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.pull_policy.clone()),
        // The routes to nowhere stay while the container is restarted: the pod's network namespace outlives it.
        args: Some(ARGUMENTS.map(str::to_owned).into()),
        restart_policy: is_sidecar.then(|| "Always".to_owned()),
        ports: Some(ports(tunnel)),
        // A sidecar is started when its tunnel is up: that is what the application's containers wait for.
        startup_probe: is_sidecar.then(|| Probe {
            failure_threshold: Some(START_LIMIT / START_INTERVAL),
            ..probe("/startupz", START_INTERVAL)
        }),
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..probe("/livez", 10) }),
        // A sidecar has none: an application that can do without its remote network for a while stays in service.
        readiness_probe: (!is_sidecar).then(|| Probe { failure_threshold: Some(1), ..probe(in_service(tunnel), 2) }),
        resources: Some(resources(tunnel)),
        security_context: Some(security_context(tunnel)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// What tells whether Services lead to a gateway pod.
fn in_service(tunnel: &VpnTunnel) -> &'static str {
    match tunnel.spec.mode {
        Mode::Client => "/readyz",
        // As long as it listens: a silent RADIUS server must not cut off those who are in.
        Mode::Server => "/startupz",
    }
}

fn ports(tunnel: &VpnTunnel) -> Vec<ContainerPort> {
    let admin = ContainerPort {
        name: Some("towline".to_owned()),
        container_port: ADMIN_PORT.into(),
        ..ContainerPort::default()
    };
    let listener = |port: Port| ContainerPort {
        name: Some(port.name.to_owned()),
        container_port: port.number.into(),
        protocol: Some("UDP".to_owned()),
        ..ContainerPort::default()
    };
    std::iter::once(admin).chain(listeners(tunnel).into_iter().map(listener)).collect()
}

fn security_context(tunnel: &VpnTunnel) -> SecurityContext {
    // The second one for ESP without UDP alone.
    let raw = tunnel.spec.mode == Mode::Client && tunnel.spec.esp.encapsulation.needs_raw_socket();
    let capabilities = ["NET_ADMIN"].into_iter().chain(raw.then_some("NET_RAW"));
    SecurityContext {
        // The capability is of no use to another user without a file capability, and an image from scratch has none.
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            add: Some(capabilities.map(str::to_owned).collect()),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    }
}

fn probe(path: &str, period: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ADMIN_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn resources(tunnel: &VpnTunnel) -> ResourceRequirements {
    let quantities = |amounts: &Amounts| {
        let cpu = amounts.cpu.clone().map(|cpu| ("cpu".to_owned(), cpu));
        let memory = amounts.memory.clone().map(|memory| ("memory".to_owned(), memory));
        let all: BTreeMap<String, Quantity> = cpu.into_iter().chain(memory).collect();
        (!all.is_empty()).then_some(all)
    };
    let asked = tunnel.spec.pod.as_ref().and_then(|pod| pod.resources.clone());
    // A server holds the sessions of many.
    let (cpu, request, limit) = match tunnel.spec.mode {
        Mode::Client => ("10m", "24Mi", "128Mi"),
        Mode::Server => ("50m", "64Mi", "512Mi"),
    };
    let asked = asked.unwrap_or_else(|| Resources {
        requests: Amounts { cpu: Some(Quantity(cpu.to_owned())), memory: Some(Quantity(request.to_owned())) },
        // No limit of processor time: it would show as lost packets.
        limits: Amounts { cpu: None, memory: Some(Quantity(limit.to_owned())) },
    });
    ResourceRequirements {
        requests: quantities(&asked.requests),
        limits: quantities(&asked.limits),
        ..ResourceRequirements::default()
    }
}

fn named(name: &str) -> Volume {
    Volume { name: name.to_owned(), ..Volume::default() }
}

/// What tells a sidecar from those that were made of other settings: mounts, image, resources and the like do not change in a
/// pod that is there.
pub fn sidecar_template(tunnel: &VpnTunnel, settings: &Settings) -> String {
    let container = tunnel_container(tunnel, settings, Usage::Sidecar);
    short_hash(&json!([container, tunnel_volumes(tunnel, Usage::Sidecar)]).to_string())
}

fn token() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: "token".to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    Volume {
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
            ..ProjectedVolumeSource::default()
        }),
        ..named("towline-token")
    }
}

/// The volumes that the container mounts.
pub fn tunnel_volumes(tunnel: &VpnTunnel, usage: Usage<'_>) -> Vec<Volume> {
    let mut volumes = vec![
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: object_name(&tunnel.name_any()),
                ..ConfigMapVolumeSource::default()
            }),
            ..named("towline-config")
        },
        token(),
        Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity("1Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..named("towline-run")
        },
        Volume {
            host_path: Some(HostPathVolumeSource { path: TUN_DEVICE.to_owned(), type_: Some("CharDevice".to_owned()) }),
            ..named("towline-tun")
        },
    ];
    volumes.extend(secrets(tunnel, usage).into_iter().enumerate().map(|(index, secret)| Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o400),
            // Without it the process reports what is missing, which says more than a pod that does not start.
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..named(&format!("towline-secret-{index}"))
    }));
    if usage == Usage::Sidecar {
        volumes.push(Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..named(NO_TOKEN) });
    }
    volumes
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::Value;
    use towline_tunnel::config::Encapsulation;

    use super::*;
    use crate::api::tunnel::PodSettings;
    use crate::api::user::VpnUser;
    use crate::build::objects;
    use crate::build::tests::{server, tunnel};
    use crate::build::users::roll;
    use crate::build::users::tests::user;

    /// Of a tunnel without users.
    const GATEWAY: Usage<'_> = Usage::Gateway { secrets: &BTreeSet::new() };

    pub(crate) fn settings() -> Settings {
        Settings {
            image: "example.com/towline-tunnel:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: vec!["registry".to_owned()],
            report_url: "https://towline-reports.towline-system.svc".to_owned(),
        }
    }

    #[test]
    fn a_sidecar_starts_with_its_tunnel_a_gateway_is_ready_with_it_and_a_server_as_long_as_it_listens() {
        let sidecar = tunnel_container(&tunnel("Sidecar"), &settings(), Usage::Sidecar);
        assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"));
        assert_eq!(sidecar.startup_probe.unwrap().http_get.unwrap().path.as_deref(), Some("/startupz"));
        assert!(sidecar.readiness_probe.is_none());
        let gateway = tunnel_container(&tunnel("Gateway"), &settings(), GATEWAY);
        assert_eq!(gateway.readiness_probe.unwrap().http_get.unwrap().path.as_deref(), Some("/readyz"));
        assert!(gateway.startup_probe.is_none() && gateway.restart_policy.is_none());
        let server = tunnel_container(&server(), &settings(), GATEWAY);
        assert_eq!(server.readiness_probe.unwrap().http_get.unwrap().path.as_deref(), Some("/startupz"));
    }

    #[test]
    fn the_second_capability_is_only_for_clients_whose_esp_may_travel_without_udp() {
        let added = |mut tunnel: VpnTunnel, encapsulation| {
            tunnel.spec.esp.encapsulation = encapsulation;
            let container = tunnel_container(&tunnel, &settings(), GATEWAY);
            let capabilities = container.security_context.and_then(|context| context.capabilities).unwrap();
            assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
            capabilities.add.unwrap()
        };
        for attachment in ["Gateway", "Sidecar"] {
            assert_eq!(added(tunnel(attachment), Encapsulation::Udp), ["NET_ADMIN"]);
            assert_eq!(added(tunnel(attachment), Encapsulation::Auto), ["NET_ADMIN", "NET_RAW"]);
            assert_eq!(added(tunnel(attachment), Encapsulation::None), ["NET_ADMIN", "NET_RAW"]);
        }
        assert_eq!(added(server(), Encapsulation::Auto), ["NET_ADMIN"]);
    }

    #[test]
    fn every_mount_has_its_volume_and_every_secret_is_optional() {
        let tunnel = tunnel("Gateway");
        for usage in [GATEWAY, Usage::Sidecar] {
            let volumes = tunnel_volumes(&tunnel, usage);
            let mounts = tunnel_container(&tunnel, &settings(), usage).volume_mounts.unwrap();
            assert_eq!(mounts.len(), volumes.len());
            assert!(mounts.iter().all(|mount| volumes.iter().any(|volume| volume.name == mount.name)));
            let secrets: Vec<_> = volumes.into_iter().filter_map(|volume| volume.secret).collect();
            assert_eq!(secrets.len(), 2);
            assert!(secrets.iter().all(|secret| secret.optional == Some(true)));
        }
    }

    #[test]
    fn a_further_key_or_user_of_a_mounted_secret_needs_no_other_pod_and_a_new_secret_does() {
        let template = |change: fn(&mut VpnTunnel), users: &[(&str, u32, Value)]| {
            let mut tunnel = server();
            change(&mut tunnel);
            let users: Vec<VpnUser> = users.iter().map(|(name, second, spec)| user(name, *second, spec)).collect();
            let objects = objects(&tunnel, &roll(&tunnel, &users), &settings(), "PEM").unwrap();
            (objects.template, objects.revision)
        };
        let alice = ("alice", 1, json!({}));
        let (before, revision) = template(|_| {}, std::slice::from_ref(&alice));
        let (after, other) = template(|_| {}, &[alice.clone(), ("bob", 2, json!({}))]);
        assert_eq!(after, before);
        assert_ne!(other, revision);
        let further = |tunnel: &mut VpnTunnel| {
            tunnel.spec.server.as_mut().unwrap().pre_shared_keys[0].key = "new".to_owned();
        };
        assert_eq!(template(further, std::slice::from_ref(&alice)).0, before);
        let carol = ("carol", 3, json!({"passwordSecret": {"name": "others"}}));
        assert_ne!(template(|_| {}, &[alice, carol]).0, before);
    }

    #[test]
    fn every_secret_of_a_server_and_of_its_users_is_mounted_whole_and_once() {
        let users = BTreeSet::from(["people".to_owned(), "road-psk".to_owned()]);
        let volumes = tunnel_volumes(&server(), Usage::Gateway { secrets: &users });
        let secrets = volumes.into_iter().filter_map(|volume| volume.secret);
        let whole = |secret: SecretVolumeSource| {
            assert!(secret.items.is_none() && secret.optional == Some(true), "{secret:?}");
            secret.secret_name.unwrap()
        };
        let names: Vec<String> = secrets.map(whole).collect();
        assert_eq!(names, ["people", "road-l2tp", "road-psk", "road-radius", "road-tls"]);
    }

    #[test]
    fn nothing_is_where_the_api_server_would_mount_the_applications_token_into_a_sidecar() {
        let tunnel = tunnel("Sidecar");
        let mounts = tunnel_container(&tunnel, &settings(), Usage::Sidecar).volume_mounts.unwrap();
        let mount = mounts.iter().find(|mount| mount.mount_path == API_TOKEN_FOLDER).unwrap();
        assert_eq!(mount.read_only, Some(true));
        let volumes = tunnel_volumes(&tunnel, Usage::Sidecar);
        let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
        assert_eq!(*volume, Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..named(&mount.name) });
    }

    #[test]
    fn the_template_changes_with_what_a_pod_cannot_change_and_with_nothing_else() {
        let before = sidecar_template(&tunnel("Sidecar"), &settings());
        let with = |change: fn(&mut VpnTunnel, &mut Settings)| {
            let (mut tunnel, mut settings) = (tunnel("Sidecar"), settings());
            change(&mut tunnel, &mut settings);
            sidecar_template(&tunnel, &settings)
        };
        assert_eq!(with(|tunnel, _| tunnel.spec.esp.lifetime_seconds = 600), before);
        assert_eq!(with(|_, settings| settings.pull_secrets.clear()), before);
        assert_ne!(
            with(|tunnel, _| tunnel.spec.client.as_mut().unwrap().user.secret_name = "other".to_owned()),
            before
        );
        assert_ne!(
            with(|tunnel, _| tunnel.spec.pod =
                Some(PodSettings { resources: Some(Resources::default()), ..PodSettings::default() })),
            before
        );
        assert_ne!(with(|tunnel, _| tunnel.spec.esp.encapsulation = Encapsulation::Auto), before);
        assert_ne!(with(|_, settings| settings.image = "other".to_owned()), before);
    }
}
