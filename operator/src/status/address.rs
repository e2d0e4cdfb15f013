//! At which addresses a Service is reached. Pure.

use k8s_openapi::api::core::v1::Service;

use crate::build::pod::{IKE_PORT, NAT_T_PORT};

/// The addresses of `service`: those of the load balancer and `externalIPs`; the node ports of one that has neither; the address
/// inside the cluster of one that nothing outside reaches. None while a load balancer has not given one yet.
pub fn of(service: &Service) -> Vec<String> {
    let spec = service.spec.clone().unwrap_or_default();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let given = ingress.filter_map(|ingress| ingress.ip.clone().or_else(|| ingress.hostname.clone()));
    let external: Vec<String> = given.chain(spec.external_ips.unwrap_or_default()).collect();
    if !external.is_empty() {
        return external;
    }
    match spec.type_.as_deref() {
        Some("LoadBalancer") => Vec::new(),
        Some("NodePort") => {
            let ports = spec.ports.unwrap_or_default();
            let node_port = |number: u16| ports.iter().find(|port| port.port == i32::from(number))?.node_port;
            let both = node_port(IKE_PORT).zip(node_port(NAT_T_PORT));
            both.map(|(ike, nat_t)| format!("NODE:{ike}/{nat_t}")).into_iter().collect()
        }
        _ => spec.cluster_ip.into_iter().filter(|address| !address.is_empty() && address != "None").collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn addresses(spec: &Value, ingress: &Value) -> Vec<String> {
        let service = json!({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
        of(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn a_load_balancer_gives_the_addresses_and_nothing_is_told_before() {
        let spec =
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{"port": 500, "nodePort": 30_500}]});
        assert_eq!(addresses(&spec, &json!([])), [""; 0]);
        let ingress = json!([{"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}]);
        assert_eq!(addresses(&spec, &ingress), ["203.0.113.7", "lb.example.com"]);
    }

    #[test]
    fn external_addresses_go_before_node_ports_and_those_before_the_clusters_own() {
        let ports = json!([{"port": 500, "nodePort": 30_500}, {"port": 4_500, "nodePort": 30_450}, {"port": 3_799}]);
        let spec = |kind: &str, external: Value| json!({"type": kind, "clusterIP": "10.96.0.9", "externalIPs": external, "ports": ports});
        assert_eq!(addresses(&spec("ClusterIP", json!(["198.51.100.7"])), &json!([])), ["198.51.100.7"]);
        assert_eq!(addresses(&spec("NodePort", json!([])), &json!([])), ["NODE:30500/30450"]);
        assert_eq!(addresses(&spec("ClusterIP", json!([])), &json!([])), ["10.96.0.9"]);
    }
}
