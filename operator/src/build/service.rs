//! The Services of a tunnel: one of each export, and that at which people and sites dial in to a server.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use towline_tunnel::config::Export;

use super::pod::{IKE_PORT, NAT_T_PORT, Port, listeners};
use super::{metadata, service_name};
use crate::api::label;
use crate::api::tunnel::{DialIn, ServiceType, TrafficPolicy, VpnTunnel};

/// The Service of an export.
pub(super) fn of_export(tunnel: &VpnTunnel, export: &Export) -> Service {
    let name = tunnel.name_any();
    let mut metadata = metadata(tunnel, service_name(&name, &export.name));
    metadata.labels.get_or_insert_default().insert(label::EXPORT.to_owned(), export.name.clone());
    let port = ServicePort {
        name: Some("export".to_owned()),
        port: export.port.into(),
        target_port: Some(IntOrString::Int(export.listen.port().into())),
        protocol: Some(export.protocol.to_string()),
        ..ServicePort::default()
    };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(label::gateway_selector(&name)),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service at which people and sites dial in; none of a client.
pub(super) fn dial_in(tunnel: &VpnTunnel) -> Option<Service> {
    let server = tunnel.spec.server.as_ref()?;
    let DialIn { kind, external_ips, load_balancer_class, annotations, external_traffic_policy, node_ports } =
        &server.service;
    let name = tunnel.name_any();
    let mut metadata = metadata(tunnel, name.clone());
    metadata.labels.get_or_insert_default().insert(label::DIAL_IN.to_owned(), "true".to_owned());
    metadata.annotations.clone_from(annotations);
    let node_ports = node_ports.unwrap_or_default();
    let port = |port: &Port| ServicePort {
        name: Some(port.name.to_owned()),
        port: port.number.into(),
        target_port: Some(IntOrString::String(port.name.to_owned())),
        protocol: Some("UDP".to_owned()),
        node_port: match port {
            Port { number: IKE_PORT, .. } => node_ports.ike.map(Into::into),
            Port { number: NAT_T_PORT, .. } => node_ports.nat_t.map(Into::into),
            _ => None,
        },
        ..ServicePort::default()
    };
    // Kubernetes refuses the field of a Service that nothing outside reaches.
    let is_external = *kind != ServiceType::ClusterIp || !external_ips.is_empty();
    let policy = match external_traffic_policy {
        TrafficPolicy::Local => "Local",
        TrafficPolicy::Cluster => "Cluster",
    };
    let spec = ServiceSpec {
        type_: Some(match kind {
            ServiceType::LoadBalancer => "LoadBalancer".to_owned(),
            ServiceType::NodePort => "NodePort".to_owned(),
            ServiceType::ClusterIp => "ClusterIP".to_owned(),
        }),
        selector: Some(label::gateway_selector(&name)),
        ports: Some(listeners(tunnel).iter().map(port).collect()),
        external_ips: (!external_ips.is_empty()).then(|| external_ips.clone()),
        load_balancer_class: load_balancer_class.clone(),
        external_traffic_policy: is_external.then(|| policy.to_owned()),
        // Of both families where the cluster has them.
        ip_family_policy: Some("PreferDualStack".to_owned()),
        ..ServiceSpec::default()
    };
    Some(Service { metadata, spec: Some(spec), ..Service::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tunnel::NodePorts;
    use crate::build::tests::{server, tunnel};

    fn spec(change: impl FnOnce(&mut DialIn)) -> ServiceSpec {
        let mut tunnel = server();
        let service = &mut tunnel.spec.server.as_mut().unwrap().service;
        *service = DialIn::default();
        change(service);
        dial_in(&tunnel).unwrap().spec.unwrap()
    }

    #[test]
    fn a_load_balancer_that_keeps_the_peers_addresses_is_what_a_server_has_unless_it_says_otherwise() {
        let spec = spec(|_| {});
        assert_eq!(spec.type_.as_deref(), Some("LoadBalancer"));
        assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
        assert!(spec.ports.unwrap().iter().all(|port| port.node_port.is_none()));
        assert!(spec.external_ips.is_none() && spec.load_balancer_class.is_none());
    }

    #[test]
    fn a_service_inside_the_cluster_has_a_traffic_policy_only_with_external_addresses() {
        let inside = spec(|service| service.kind = ServiceType::ClusterIp);
        assert_eq!((inside.type_.as_deref(), inside.external_traffic_policy), (Some("ClusterIP"), None));
        let outside = spec(|service| {
            service.kind = ServiceType::ClusterIp;
            service.external_ips = vec!["203.0.113.7".to_owned()];
        });
        assert_eq!(outside.external_traffic_policy.as_deref(), Some("Local"));
    }

    #[test]
    fn node_ports_are_those_that_are_asked_for() {
        let spec = spec(|service| {
            service.kind = ServiceType::NodePort;
            service.node_ports = Some(NodePorts { ike: None, nat_t: Some(30_450) });
        });
        assert_eq!(spec.type_.as_deref(), Some("NodePort"));
        let ports: Vec<_> = spec.ports.unwrap().iter().map(|port| (port.port, port.node_port)).collect();
        assert_eq!(ports, [(500, None), (4_500, Some(30_450)), (3_799, None)]);
    }

    #[test]
    fn the_port_of_radius_is_open_only_when_disconnect_requests_are_asked_for() {
        let mut quiet = server();
        quiet.spec.server.as_mut().unwrap().radius.as_mut().unwrap().disconnect = false;
        let ports = dial_in(&quiet).unwrap().spec.unwrap().ports.unwrap();
        assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [500, 4_500]);
        assert_eq!(listeners(&quiet).len(), 2);
    }

    #[test]
    fn nobody_dials_in_to_a_client() {
        assert_eq!(dial_in(&tunnel("Gateway")), None);
    }
}
