//! From a `VpnTunnel`, and the `VpnUsers` that dial in to it, to the objects that carry it out. Pure: the same give the same.

pub mod config;
pub mod pod;
mod port;
mod service;
pub mod users;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMap, LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, Service,
    ServiceAccount, Sysctl, Toleration,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::api::label;
use crate::api::tunnel::{Attachment, VpnTunnel};
use config::{CONFIG_KEY, InvalidSpec};
use pod::{Settings, Usage, sidecar_template, tunnel_container, tunnel_volumes};
use users::Roll;

/// How long a gateway pod has to say goodbye: the process takes two seconds at most.
const TERMINATION_SECONDS: i64 = 10;
/// Old ReplicaSets that are kept: one to look at.
const HISTORY: i32 = 1;
/// After this many seconds without its node a gateway pod is made anew on another one.
const NODE_LOST_SECONDS: i64 = 30;
/// Taints of a node that is lost.
const NODE_LOST: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Octets of a digest that tell one configuration, or one pod, from another.
const HASH_OCTETS: usize = 8;

/// The first octets of the SHA-256 of `text`, in hexadecimal digits.
fn short_hash(text: &str) -> String {
    Sha256::digest(text).iter().take(HASH_OCTETS).map(|octet| format!("{octet:02x}")).collect()
}

/// Name of the objects of `tunnel`, save its Services.
pub fn object_name(tunnel: &str) -> String {
    format!("towline-{tunnel}")
}

/// Name of the Service of an export; that at which people and sites dial in to a server has the name of the tunnel.
pub fn service_name(tunnel: &str, export: &str) -> String {
    format!("{tunnel}-{export}")
}

/// Everything that a tunnel needs in its namespace.
#[derive(Debug, Clone)]
pub struct Objects {
    /// What tells the configuration from the one before; the pod reports it.
    pub revision: String,
    /// What the tunnel's pods carry in the annotation [`label::TEMPLATE`] unless they were made before something changed that
    /// a pod cannot take on while it runs.
    pub template: String,
    /// The configuration.
    pub config_map: ConfigMap,
    /// For `attachment: Gateway`: who the pod is, the pod, and its protection. Sidecars run in pods of others.
    pub gateway: Option<Gateway>,
    /// One of each export, and that of a server at which people and sites dial in.
    pub services: Vec<Service>,
    /// The exports that have none, by name, and why.
    pub homeless: Vec<(String, String)>,
}

/// The objects of `attachment: Gateway` alone.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The pod's identity; it has no rights.
    pub service_account: ServiceAccount,
    /// The pod.
    pub deployment: Deployment,
    /// One pod at a time may be evicted.
    pub disruption_budget: PodDisruptionBudget,
}

/// The objects of `tunnel`, which lets the users of `roll` in if it is a server.
///
/// # Errors
/// When the specification cannot be carried out: the field, its value and the remedy.
pub fn objects(tunnel: &VpnTunnel, roll: &Roll, settings: &Settings, ca_bundle: &str) -> Result<Objects, InvalidSpec> {
    let config = config::written(tunnel, &roll.users, settings, ca_bundle)?;
    let gateway = (tunnel.spec.attachment == Attachment::Gateway).then(|| template(tunnel, &roll.secrets, settings));
    let exports = config.exports.iter().map(|export| service::of_export(tunnel, export));
    Ok(Objects {
        revision: config.revision,
        template: gateway.as_ref().map_or_else(|| sidecar_template(tunnel, settings), |(hash, _)| hash.clone()),
        config_map: ConfigMap {
            metadata: metadata(tunnel, object_name(&tunnel.name_any())),
            data: Some(BTreeMap::from([(CONFIG_KEY.to_owned(), config.text)])),
            ..ConfigMap::default()
        },
        gateway: gateway.map(|(_, template)| self::gateway(tunnel, template)),
        services: service::dial_in(tunnel).into_iter().chain(exports).collect(),
        homeless: config.homeless,
    })
}

fn metadata(tunnel: &VpnTunnel, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: tunnel.namespace(),
        labels: Some(label::of_tunnel(&tunnel.name_any())),
        owner_references: tunnel.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn gateway(tunnel: &VpnTunnel, template: PodTemplateSpec) -> Gateway {
    let name = object_name(&tunnel.name_any());
    let selector =
        LabelSelector { match_labels: Some(label::gateway_selector(&tunnel.name_any())), ..LabelSelector::default() };
    Gateway {
        service_account: ServiceAccount {
            metadata: metadata(tunnel, name.clone()),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        deployment: Deployment {
            metadata: metadata(tunnel, name.clone()),
            spec: DeploymentSpec {
                replicas: Some(i32::from(!tunnel.spec.suspend)),
                selector: selector.clone(),
                // Two pods would fight for one account at the gateway.
                strategy: Some(DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    ..DeploymentStrategy::default()
                }),
                revision_history_limit: Some(HISTORY),
                template,
                ..DeploymentSpec::default()
            },
            ..Deployment::default()
        },
        disruption_budget: PodDisruptionBudget {
            metadata: metadata(tunnel, name),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(selector),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        },
    }
}

/// The pod, and the hash of it. It does not change with the configuration: the process follows its ConfigMap.
fn template(tunnel: &VpnTunnel, secrets: &BTreeSet<String>, settings: &Settings) -> (String, PodTemplateSpec) {
    let usage = Usage::Gateway { secrets };
    let name = tunnel.name_any();
    let pod = tunnel.spec.pod.clone().unwrap_or_default();
    let secrets = settings.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let spec = PodSpec {
        service_account_name: Some(object_name(&name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        image_pull_secrets: (!settings.pull_secrets.is_empty()).then(|| secrets.collect()),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        node_selector: pod.node_selector,
        tolerations: Some(tolerations(pod.tolerations.unwrap_or_default())),
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            sysctls: low_ports(tunnel),
            ..PodSecurityContext::default()
        }),
        containers: vec![tunnel_container(tunnel, settings, usage)],
        volumes: Some(tunnel_volumes(tunnel, usage)),
        ..PodSpec::default()
    };
    let hash = short_hash(&json!(spec).to_string());
    let mut labels = label::of_pod(&name);
    labels.extend(label::gateway_selector(&name));
    let metadata = ObjectMeta {
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(label::TEMPLATE.to_owned(), hash.clone())])),
        ..ObjectMeta::default()
    };
    (hash, PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) })
}

/// A server's ports, and those of imports, may be below 1024. Kubernetes counts this setting of the pod's own network among the
/// safe ones, and it spares the container a capability.
fn low_ports(tunnel: &VpnTunnel) -> Option<Vec<Sysctl>> {
    let everybody = Sysctl { name: "net.ipv4.ip_unprivileged_port_start".to_owned(), value: "0".to_owned() };
    let listens = tunnel.spec.server.is_some() || !tunnel.spec.imports.is_empty();
    listens.then(|| vec![everybody])
}

/// The user's tolerations, and a short one for each way of losing the node: with the API server's own a tunnel would be away
/// for five minutes.
fn tolerations(mut tolerations: Vec<Toleration>) -> Vec<Toleration> {
    for taint in NODE_LOST {
        let is_said = tolerations.iter().any(|toleration| {
            // Nothing said means all.
            toleration.key.as_deref().is_none_or(|key| key.is_empty() || key == taint)
                && matches!(toleration.effect.as_deref(), None | Some("" | "NoExecute"))
        });
        if !is_said {
            tolerations.push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(NODE_LOST_SECONDS),
                ..Toleration::default()
            });
        }
    }
    tolerations
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A tunnel with everything that a gateway can have.
    pub(crate) fn tunnel(attachment: &str) -> VpnTunnel {
        let exports = if attachment == "Gateway" {
            json!([{"name": "web", "host": "10.20.4.11", "port": 80}, {"name": "db", "host": "10.20.4.12", "port": 5432}])
        } else {
            json!([])
        };
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1",
            "kind": "VpnTunnel",
            "metadata": {"name": "oslo", "namespace": "erp", "uid": "u-1", "generation": 3},
            "spec": {
                "mode": "Client",
                "attachment": attachment,
                "client": {
                    "peers": [{"address": "vpn.oslo.example.com"}],
                    "preSharedKey": {"name": "oslo-vpn"},
                    "user": {"secretName": "oslo-user"},
                },
                "network": {"remoteCIDRs": ["10.20.0.0/16"]},
                "exports": exports,
            },
        }))
        .unwrap()
    }

    /// A server with everything that one can have.
    pub(crate) fn server() -> VpnTunnel {
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1",
            "kind": "VpnTunnel",
            "metadata": {"name": "road", "namespace": "erp", "uid": "u-2", "generation": 5},
            "spec": {
                "mode": "Server",
                "ike": {
                    "security": "Strong", "proposals": ["aes256-sha256-modp2048"], "lifetimeSeconds": 7200,
                    "localId": {"type": "Fqdn", "value": "vpn.example.com"},
                    "remoteId": {"type": "Fqdn", "value": "peer.example.com"},
                    "dpd": {"intervalSeconds": 7, "timeoutSeconds": 21},
                },
                "esp": {
                    "proposals": ["aes256-sha256"], "lifetimeSeconds": 1800, "lifetimeBytes": 2097152, "lifetimePackets": 2000,
                },
                "l2tp": {
                    "hostName": "road", "helloSeconds": 45, "tunnelSecret": {"name": "road-l2tp", "key": "secret"},
                },
                "ppp": {"auth": ["MsChapV2"], "echoSeconds": 15, "echoFailures": 4},
                "log": {"level": "Debug", "format": "Json"},
                "network": {"mtu": 1400},
                "server": {
                    "preSharedKeys": [
                        {"name": "road-psk"},
                        {
                            "name": "road-psk", "key": "site", "addresses": ["198.51.100.0/24"],
                            "remoteId": {"type": "Fqdn", "value": "site.example.com"},
                        },
                    ],
                    "certificate": {
                        "secretName": "road-tls", "revocationsKey": "ca.crl",
                        "remoteId": {"type": "Fqdn", "value": "people.example.com"},
                    },
                    "pools": ["10.99.0.0/24", "10.98.0.0/24"],
                    "dns": ["10.96.0.10"],
                    "domain": "erp.svc.cluster.local",
                    "routes": ["10.96.0.0/12"],
                    "ipv6Pool": "fd00:99::/56",
                    "forwarding": {"networks": ["10.96.0.0/12"], "sourceNat": "None"},
                    "limits": {
                        "sessions": 10, "peersPerSource": 5, "sessionsPerUser": 2, "onLimit": "Refuse",
                        "idleSeconds": 600, "totalSeconds": 7200,
                    },
                    "radius": {
                        "servers": [{
                            "address": "radius.erp.svc", "port": 11812, "accountingPort": 0,
                            "secret": {"name": "road-radius", "key": "shared"},
                        }],
                        "timeoutSeconds": 4, "tries": 2, "interimSeconds": 300, "disconnect": true, "nasIdentifier": "road",
                    },
                    "service": {
                        "type": "LoadBalancer", "externalIPs": ["203.0.113.7"], "loadBalancerClass": "example.com/lb",
                        "annotations": {"example.com/pool": "vpn"}, "externalTrafficPolicy": "Cluster",
                        "nodePorts": {"ike": 30500, "natT": 30450},
                    },
                },
                "exports": [{"name": "web", "host": "10.20.4.11", "port": 80}],
                "imports": [
                    {"name": "orders", "serviceName": "orders", "servicePort": 80},
                    {"name": "dns", "serviceName": "names", "servicePort": 53, "port": 5353, "protocol": "UDP"},
                ],
            },
        }))
        .unwrap()
    }

    pub(crate) fn built(tunnel: &VpnTunnel) -> Objects {
        objects(tunnel, &Roll::default(), &pod::tests::settings(), "PEM").unwrap()
    }

    #[test]
    fn every_object_belongs_to_the_tunnel_and_goes_with_it() {
        let objects = built(&tunnel("Gateway"));
        let gateway = objects.gateway.unwrap();
        let mut all = vec![
            objects.config_map.metadata,
            gateway.service_account.metadata,
            gateway.deployment.metadata,
            gateway.disruption_budget.metadata,
        ];
        all.extend(objects.services.into_iter().map(|service| service.metadata));
        assert_eq!(all.len(), 6);
        for metadata in all {
            let owner = &metadata.owner_references.unwrap()[0];
            assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("VpnTunnel", "u-1", Some(true)));
            assert_eq!(metadata.namespace.as_deref(), Some("erp"));
            assert_eq!(metadata.labels.unwrap()[label::TUNNEL], "oslo");
        }
    }

    #[test]
    fn services_lead_to_the_ports_that_the_pod_relays() {
        let objects = built(&tunnel("Gateway"));
        let config: towline_tunnel::config::Config =
            serde_json::from_str(&objects.config_map.data.unwrap()[CONFIG_KEY]).unwrap();
        for (service, export) in objects.services.iter().zip(&config.exports) {
            assert_eq!(service.name_any(), format!("oslo-{}", export.name));
            let port = &service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0];
            assert_eq!(port.port, i32::from(export.port));
            assert_eq!(port.target_port, Some(IntOrString::Int(export.listen.port().into())));
            assert!(export.listen.port() >= 1024);
        }
    }

    #[test]
    fn the_pod_changes_with_the_image_only_and_the_revision_with_the_specification_only() {
        let before = built(&tunnel("Gateway"));
        let mut changed = tunnel("Gateway");
        changed.spec.esp.lifetime_seconds = 600;
        let after = built(&changed);
        assert_eq!(before.gateway.as_ref().unwrap().deployment, after.gateway.unwrap().deployment);
        assert_ne!(before.revision, after.revision);
        changed.metadata.generation = Some(9);
        changed.spec.esp.lifetime_seconds = tunnel("Gateway").spec.esp.lifetime_seconds;
        assert_eq!(built(&changed).revision, before.revision);
    }

    /// As `kubectl get -o yaml` would show it.
    fn yaml<T: serde::Serialize>(object: &T) -> String {
        serde_saphyr::to_string(&json!(object)).unwrap()
    }

    /// Whatever a reviewer asks about the pod's rights stands here: a change of it is a change of this file.
    #[test]
    fn the_gateway_pod_is_as_reviewed() {
        let (_, template) = template(&tunnel("Gateway"), &BTreeSet::new(), &pod::tests::settings());
        insta::assert_snapshot!("gateway-pod", yaml(&template));
    }

    #[test]
    fn the_sidecar_and_its_volumes_are_as_reviewed() {
        let tunnel = tunnel("Sidecar");
        let container = tunnel_container(&tunnel, &pod::tests::settings(), Usage::Sidecar);
        let volumes = tunnel_volumes(&tunnel, Usage::Sidecar);
        insta::assert_snapshot!("sidecar", yaml(&json!({"initContainers": [container], "volumes": volumes})));
    }

    #[test]
    fn the_template_of_a_gateway_is_that_of_its_pods_and_changes_with_the_node_they_may_run_on() {
        let objects = built(&tunnel("Gateway"));
        let metadata = objects.gateway.unwrap().deployment.spec.template.metadata.unwrap();
        assert_eq!(metadata.annotations.unwrap()[label::TEMPLATE], objects.template);
        let mut moved = tunnel("Gateway");
        let pod = crate::api::tunnel::PodSettings {
            node_selector: Some(BTreeMap::from([("zone".to_owned(), "a".to_owned())])),
            ..Default::default()
        };
        moved.spec.pod = Some(pod);
        assert_ne!(built(&moved).template, objects.template);
    }

    #[test]
    fn a_release_of_the_operator_restarts_no_pod() {
        let (_, template) = template(&tunnel("Gateway"), &BTreeSet::new(), &pod::tests::settings());
        let labels = template.metadata.unwrap().labels.unwrap();
        assert!(!labels.contains_key(label::VERSION));
        assert!(label::gateway_selector("oslo").iter().all(|(name, value)| labels.get(name) == Some(value)));
    }

    #[test]
    fn a_lost_node_is_left_soon_unless_the_user_says_otherwise() {
        let asked = |key: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        };
        let seconds = |asked: Vec<Toleration>| -> Vec<Option<i64>> {
            tolerations(asked).into_iter().map(|toleration| toleration.toleration_seconds).collect()
        };
        assert_eq!(seconds(Vec::new()), [Some(30), Some(30)]);
        assert_eq!(seconds(vec![asked(Some("gpu"))]), [None, Some(30), Some(30)]);
        assert_eq!(seconds(vec![asked(Some("node.kubernetes.io/unreachable"))]), [None, Some(30)]);
        assert_eq!(seconds(vec![asked(None)]), [None]);
    }

    #[test]
    fn a_server_is_one_pod_with_its_ports_and_one_service_that_leads_to_them() {
        let objects = objects(&server(), &Roll::default(), &pod::tests::settings(), "PEM").unwrap();
        let deployment = objects.gateway.unwrap().deployment;
        assert_eq!(deployment.spec.strategy.unwrap().type_.as_deref(), Some("Recreate"));
        insta::assert_snapshot!("server-pod", yaml(&deployment.spec.template));
        insta::assert_snapshot!("server-service", yaml(&objects.services[0]));
        assert_eq!(objects.services.len(), 2);
    }

    #[test]
    fn a_suspended_tunnel_has_no_pod_and_a_sidecar_only_its_configuration() {
        let mut suspended = tunnel("Gateway");
        suspended.spec.suspend = true;
        assert_eq!(built(&suspended).gateway.unwrap().deployment.spec.replicas, Some(0));
        let sidecar = built(&tunnel("Sidecar"));
        assert!(sidecar.gateway.is_none() && sidecar.services.is_empty());
    }
}
