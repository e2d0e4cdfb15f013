//! `esp.encapsulation: None`: a pod with `NET_RAW`, on a network that lets its own address out.

use serde_json::json;
use towline_tests::cluster::Cluster;
use towline_tests::process::run;
use towline_tests::release::tunnel;
use towline_tests::site::tshark;

use super::evidence::{assert_no_page, wire};
use super::gateway::wait_for_page;
use super::world::{alta, json, pod_of};

/// The pods' packets to `gateway` leave the node with the pods' addresses while this lives.
struct Untranslated<'a>(&'a Cluster);

impl<'a> Untranslated<'a> {
    fn new(cluster: &'a Cluster, gateway: &str) -> Self {
        // What conntrack does not see is not masqueraded.
        let rules = format!(
            "table ip untranslated {{ chain out {{ type filter hook prerouting priority raw; ip daddr {gateway} notrack; }}; }}"
        );
        run(cluster.exec("nft").unwrap().arg(rules)).unwrap();
        Self(cluster)
    }
}

impl Drop for Untranslated<'_> {
    fn drop(&mut self) {
        let removed = self.0.exec("nft").and_then(|mut nft| run(nft.args(["delete", "table", "ip", "untranslated"])));
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_pod_with_net_raw_carries_esp_as_protocol_50_and_loses_the_capability_with_the_field() {
    let alta = alta();
    let capabilities = || {
        let pod = json(&alta.cluster, &format!("get pod {} -o json", pod_of(&alta.cluster, alta.name).0));
        pod["spec"]["containers"][0]["securityContext"]["capabilities"].clone()
    };
    let untranslated = Untranslated::new(&alta.cluster, alta.address);
    let capture = wire(alta.gateway(), "protocol-50-of-a-pod");
    alta.change("  healthCheck", "  esp: {encapsulation: None}\n  healthCheck");
    assert_eq!(capabilities(), json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}));
    let status = tunnel(&alta.cluster, alta.name).unwrap();
    assert_eq!(status["status"]["negotiated"]["encapsulation"], "None", "{status:#}");
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
    let capture = capture.stop().unwrap();
    for end in ["ip.src", "ip.dst"] {
        let seen = tshark(&capture, &["-Y", &format!("ip.proto == 50 && {end} == {}", alta.address)]).unwrap();
        assert!(!seen.is_empty(), "{end}");
    }
    assert_no_page(&capture);

    drop(untranslated);
    alta.change("  healthCheck", "  healthCheck");
    assert_eq!(capabilities(), json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    let status = tunnel(&alta.cluster, alta.name).unwrap();
    assert_eq!(status["status"]["negotiated"]["encapsulation"], "Udp", "{status:#}");
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
}
