//! A change of the specification reaches the running tunnel, and can be seen to.

use std::time::Duration;

use towline_tests::cluster::Cluster;
use towline_tests::peer::INNER;
use towline_tests::process::wait_until;
use towline_tests::release::{condition, describe, tunnel, wait_for_condition};

use super::evidence::Marks;
use super::gateway::wait_for_page;
use super::world::{APP, Tunnel, alta, kubectl, settle};

const ROLL_OUT: Duration = Duration::from_secs(120);

fn wait_for_esp(alta: &Tunnel, wanted: &str) {
    let mut last = serde_json::Value::Null;
    wait_until(&format!("ESP with {wanted}"), ROLL_OUT, || {
        let tunnel = tunnel(&alta.cluster, "alta").unwrap();
        last = tunnel["status"]["negotiated"]["esp"].clone();
        last == wanted && condition(&tunnel, "Ready").0 == "True"
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", describe(&alta.cluster)));
}

#[test]
fn other_proposals_are_agreed_on_with_the_gateway() {
    let alta = alta();
    wait_for_esp(&alta, "aes256-sha256");
    let pod = alta.pod();
    alta.change("  exports:", "  esp: {proposals: [aes256gcm16]}\n  exports:");
    wait_for_esp(&alta, "aes256gcm16");
    wait_for_page(&alta.cluster, "http://alta-web/");
    alta.apply();
    wait_for_esp(&alta, "aes256-sha256");
    assert_eq!(alta.pod(), pod);
}

/// The answer of the name server behind the gateway.
fn look_up(cluster: &Cluster, server: &str) -> String {
    let lookup = ["exec", APP, "--", "nslookup", "-type=a", "inside.example", server];
    cluster.kubectl(&lookup).unwrap_or_else(|error| format!("{error:#}"))
}

#[test]
fn an_export_over_udp_is_served_as_soon_as_it_is_added_and_gone_when_it_is_removed() {
    let alta = alta();
    let names = "dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --user=root --bind-interfaces --pid-file=/run/dnsmasq.pid";
    let serve =
        format!("[ -e /run/dnsmasq.pid ] || {names} --listen-address={INNER} --address=/inside.example/10.20.4.77");
    alta.gateway().exec(&serve).unwrap();
    let before = alta.identity();
    let web = format!("{{name: web, host: {INNER}, port: 80}}");
    alta.change(&web, &format!("{{name: dns, host: {INNER}, port: 53, protocol: UDP}}, {web}"));
    let mut last = String::new();
    wait_until("an answer over UDP", Duration::from_secs(30), || {
        last = look_up(&alta.cluster, "alta-dns");
        last.contains("10.20.4.77")
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", describe(&alta.cluster)));
    wait_for_page(&alta.cluster, "http://alta-web/");

    alta.apply();
    wait_until("the end of the Service", Duration::from_secs(30), || {
        kubectl(&alta.cluster, "get service alta-dns --ignore-not-found -o name").trim().is_empty()
    })
    .unwrap();
    settle(&alta.cluster, "alta");
    wait_for_page(&alta.cluster, "http://alta-web/");
    // Exports change under the running tunnel.
    assert_eq!(alta.identity(), before);
}

#[test]
fn a_suspended_tunnel_says_goodbye_and_keeps_its_service_until_it_goes_on() {
    let alta = alta();
    let service = kubectl(&alta.cluster, "get service alta-web -o=jsonpath={.spec.clusterIP}");
    let marks = Marks::of(alta.gateway());
    alta.cluster.apply(&format!("{}  suspend: true\n", alta.manifest)).unwrap();
    marks.wait_for_goodbye();
    let (status, _, message) =
        wait_for_condition(&alta.cluster, "alta", "Ready", ROLL_OUT, |(_, reason, _)| reason == "Suspended").unwrap();
    assert_eq!(status, "False");
    assert!(message.contains("spec.suspend"), "{message}");
    wait_until("the end of the pod", ROLL_OUT, || {
        kubectl(&alta.cluster, "get pods -l towline.dev/tunnel=alta -o name").trim().is_empty()
    })
    .unwrap();
    alta.apply();
    settle(&alta.cluster, "alta");
    wait_for_page(&alta.cluster, "http://alta-web/");
    assert_eq!(kubectl(&alta.cluster, "get service alta-web -o=jsonpath={.spec.clusterIP}"), service);
}
