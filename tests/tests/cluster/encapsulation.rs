//! `esp.encapsulation: None`: a pod with `NET_RAW`, on a network that lets its own address out.

use std::time::Duration;

use serde_json::json;
use towline_tests::cluster::Cluster;
use towline_tests::process::run;
use towline_tests::release::{tunnel, wait_for_condition};
use towline_tests::site::tshark;

use super::evidence::{assert_no_page, wire};
use super::gateway::wait_for_page;
use super::world::{alta, json, pod_of, settle};

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
fn a_pod_with_net_raw_carries_esp_as_protocol_50_where_no_nat_is_and_is_told_of_one() {
    let alta = alta();
    let capabilities = || {
        let pod = json(&alta.cluster, &format!("get pod {} -o json", pod_of(&alta.cluster, alta.name).0));
        pod["spec"]["containers"][0]["securityContext"]["capabilities"].clone()
    };
    let encapsulation = || tunnel(&alta.cluster, alta.name).unwrap()["status"]["negotiated"]["encapsulation"].clone();
    let without_udp = alta.manifest.replace("  healthCheck", "  esp: {encapsulation: None}\n  healthCheck");
    alta.cluster.apply(&without_udp).unwrap();
    let is_refused = |(_, reason, _): &(String, String, String)| reason == "QuickModeRejected";
    let (_, _, message) =
        wait_for_condition(&alta.cluster, alta.name, "IpsecEstablished", Duration::from_secs(120), is_refused).unwrap();
    assert!(message.contains("NAT") && message.contains("esp.encapsulation"), "{message}");

    let untranslated = Untranslated::new(&alta.cluster, alta.address);
    let capture = wire(alta.gateway(), "protocol-50-of-a-pod");
    settle(&alta.cluster, alta.name);
    assert_eq!(capabilities(), json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}));
    assert_eq!(encapsulation(), "None");
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
    let capture = capture.stop().unwrap();
    for end in ["ip.src", "ip.dst"] {
        let seen = tshark(&capture, &["-Y", &format!("ip.proto == 50 && {end} == {}", alta.address)]).unwrap();
        assert!(!seen.is_empty(), "{end}");
    }
    assert_no_page(&capture);

    drop(untranslated);
    alta.apply();
    settle(&alta.cluster, alta.name);
    assert_eq!(capabilities(), json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}));
    assert_eq!(encapsulation(), "Udp");
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
}
