//! Specifications that cannot work are refused at `kubectl apply`, with the field and the remedy; what the documents show is
//! accepted.

use towline_tests::cluster::Cluster;
use towline_tests::peer::INNER;
use towline_tests::process::run;
use towline_tests::release::{NAMESPACE, app, gateway_tunnel, sidecar_tunnel};
use towline_tests::tool;

use super::world::{Cleanup, cluster, dale, wait_for_operator};

fn gateway() -> String {
    gateway_tunnel("good", "192.0.2.99", "some-vpn")
}

fn sidecar() -> String {
    sidecar_tunnel("good", "192.0.2.99", "some-vpn")
}

/// A specification with `old` replaced.
fn with(manifest: &str, old: &str, new: &str) -> String {
    assert!(manifest.contains(old), "{old} is not in {manifest}");
    manifest.replace(old, new)
}

/// What the API server says to a specification that it refuses has each of `words` in it.
fn assert_refused(cluster: &Cluster, manifest: &str, words: &[&str]) {
    let refused = match cluster.apply(manifest) {
        Ok(_) => panic!("accepted, but should say {words:?}:\n{manifest}"),
        Err(refused) => format!("{refused:#}"),
    };
    for word in words {
        assert!(refused.contains(word), "{word:?} is not in: {refused}");
    }
}

#[test]
fn fields_that_cannot_work_together_are_refused_with_field_and_remedy() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let long = "n".repeat(39);
    let export = format!("exports: [{{name: web, host: {INNER}, port: 80}}]");
    let export_outside = "exports: [{name: web, host: 10.99.0.1, port: 80}]";
    let probe = format!("healthCheck: {{type: Tcp, host: {INNER}, port: 80, intervalSeconds: 2}}");
    let added = |more: &str| format!("{}  {more}\n", gateway());
    let cases = [
        (with(&gateway(), "name: good}", "name: 9good}"), "metadata.name", "starts with a letter"),
        (with(&gateway(), "name: good}", &format!("name: {long}}}")), "metadata.name", "at most 38 characters"),
        (
            with(
                &with(&gateway(), "name: good}", &format!("name: {}}}", "n".repeat(38))),
                "name: web",
                &format!("name: {}", "e".repeat(25)),
            ),
            "spec.exports[].name",
            "at most 62 characters",
        ),
        (format!("{}  {export}\n", sidecar()), "exports needs attachment Gateway", "remove exports"),
        (with(&gateway(), &export, export_outside), "exports[].host", "add its network there"),
        (
            with(&gateway(), &probe, "healthCheck: {type: Icmp, host: 10.99.0.1}"),
            "healthCheck.host",
            "add its network there",
        ),
        (format!("{}  suspend: true\n", sidecar()), "suspend needs attachment Gateway", "remove the label"),
        (format!("{}  pod: {{nodeSelector: {{a: b}}}}\n", sidecar()), "pod.nodeSelector", "need attachment Gateway"),
        (added("ike: {localId: {type: Address, value: here}}"), "type Address must be an IP address", "use type Fqdn"),
        (added("ike: {dpd: {intervalSeconds: 10, timeoutSeconds: 10}}"), "dpd.timeoutSeconds", "at least twice"),
        (added("esp: {proposals: [aes256-sha256-modp2048, aes256-sha256]}"), "esp.proposals", "the same group"),
        (
            with(&gateway(), "remoteCIDRs: [10.20.4.0/24]", "remoteCIDRs: [10.20.4.0]"),
            "network.remoteCIDRs",
            "such as 10.20.0.0/16",
        ),
        (
            with(&gateway(), "remoteCIDRs: [10.20.4.0/24]", "remoteCIDRs: [0.0.0.0/0]"),
            "network.remoteCIDRs",
            "such as 10.20.0.0/16",
        ),
        (with(&gateway(), "type: Tcp", "type: Icmp"), "healthCheck.port", "remove it for Icmp"),
        (with(&gateway(), "port: 80, intervalSeconds", "intervalSeconds"), "healthCheck.port", "set it for Tcp"),
        (
            with(&sidecar(), "remoteCIDRs: [10.20.4.0/24]", "remoteCIDRs: []"),
            "network.remoteCIDRs",
            "name the networks",
        ),
        (
            with(&gateway(), "address: 192.0.2.99", "address: 'http://a.example'"),
            "client.peers[].address",
            "without scheme",
        ),
        (
            with(&gateway(), "name: some-vpn, key", "name: Some_VPN, key"),
            "client.preSharedKey.name",
            "such as oslo-vpn",
        ),
        (with(&gateway(), "key: psk", "key: ../psk"), "client.preSharedKey.key", "a key of the Secret"),
        (with(&gateway(), "secretName: some-vpn", "secretName: -vpn"), "client.user.secretName", "such as oslo-vpn"),
        (with(&gateway(), "name: web", "name: Web"), "exports[].name", "such as web"),
        (added("esp: {proposals: [rot13]}"), "esp.proposals", "such as aes256-sha256"),
        (added("ike: {proposals: [aes256-sha256]}"), "ike.proposals", "such as aes256-sha256-modp2048"),
        (added("l2tp: {hostName: 'a b'}"), "l2tp.hostName", "without blanks"),
        (added("l2tp: {tunnelSecret: {name: a_b, key: c}}"), "l2tp.tunnelSecret.name", "such as oslo-vpn"),
        (added("pod: {resources: {requests: {cpu: abc}}}"), "pod.resources: cpu", "such as 100m"),
        (
            added("pod: {resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}"),
            "pod.resources.requests",
            "raise the limit",
        ),
    ];
    for (manifest, field, remedy) in &cases {
        assert_refused(&cluster, manifest, &[field, remedy]);
    }
    cluster.apply(&gateway()).unwrap();
    let moved = format!("{}  exports: []\n", sidecar());
    assert_refused(&cluster, &moved, &["attachment cannot be changed", "delete the VpnTunnel and create it anew"]);
}

#[test]
fn values_that_no_field_takes_are_refused_with_the_field() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let cases = [
        (with(&gateway(), "mode: Client", "mode: Server"), ["spec.mode", "\"Client\""]),
        (with(&gateway(), "peers: [{address: 192.0.2.99}]", "peers: []"), ["spec.client.peers", "at least 1"]),
        (format!("{}  ike: {{security: Weak}}\n", gateway()), ["spec.ike.security", "\"Strong\""]),
        (format!("{}  unknown: {{field: 1}}\n", gateway()), ["unknown field", "spec.unknown"]),
        (with(&gateway(), "port: 80}]", "port: 0}]"), ["spec.exports[0].port", "greater than or equal to 1"]),
    ];
    for (manifest, words) in &cases {
        assert_refused(&cluster, manifest, words);
    }
}

#[test]
fn a_pod_that_cannot_have_its_sidecar_is_refused_with_the_remedy() {
    let dale = dale();
    let cluster = &dale.cluster;
    let _cleanup = Cleanup(cluster, &["pod/lost"]);
    wait_for_operator(cluster);
    let lost = app("lost", Some("absent"));
    assert_refused(cluster, &lost, &["a VpnTunnel that namespace default does not have", "create it first"]);
    let host = with(&app("lost", Some("dale")), "spec:\n", "spec:\n  hostNetwork: true\n");
    assert_refused(cluster, &host, &["hostNetwork", "set hostNetwork to false"]);
}

/// Runs the lines of a document that apply a tunnel, as somebody would who copies them, without writing anything.
fn try_example(cluster: &Cluster, document: &str, name: &str) {
    let begin = document.find("kubectl apply -f - <<").unwrap_or_else(|| panic!("{name} applies nothing"));
    let (script, _) = document[begin..].split_once("\nEND").unwrap_or_else(|| {
        panic!("the lines of {name} have no END at the begin of a line, so a shell reads on for ever:\n{document}")
    });
    let script = format!("{script}\nEND\n").replacen("kubectl apply", "kubectl apply --dry-run=server", 1);
    let said =
        run(cluster.exec("sh").unwrap().args(["-ec", &script])).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert!(said.starts_with("vpntunnel.towline.dev/") && said.contains("server dry run"), "{name}: {said}");
}

#[test]
fn the_examples_of_the_readme_and_of_helm_are_accepted_as_they_stand() {
    let cluster = cluster();
    let readme = std::fs::read_to_string(tool::workspace().join("README.md")).unwrap();
    try_example(&cluster, &readme, "README.md");
    let notes = cluster.helm(&["get", "notes", "towline", "--namespace", NAMESPACE]).unwrap();
    try_example(&cluster, &notes, "NOTES.txt");
}
