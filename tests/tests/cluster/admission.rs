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

/// A server with nothing more than it needs.
const SERVER: &str = "apiVersion: towline.dev/v1alpha1
kind: VpnTunnel
metadata: {name: good}
spec:
  mode: Server
  server:
    preSharedKeys: [{name: road-psk}]
    pools: [10.99.0.0/24]
";

/// A user of it with everything that one can have.
const USER: &str = "apiVersion: towline.dev/v1alpha1
kind: VpnUser
metadata: {name: good}
spec:
  tunnelName: good
  username: alice@example.com
  passwordSecret: {name: road-users, key: alice}
  address: 10.99.0.7
  networks: [10.20.4.0/24]
  destinations: [10.96.0.0/12]
  expiresAt: '2030-01-31T18:00:00Z'
  suspend: true
";

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
        (
            with(&gateway(), "remoteCIDRs: [10.20.4.0/24]", "remoteCIDRs: [10.20.4.0/24, 'fd20:4::/64']"),
            "network.remoteCIDRs",
            "network.ipv6: set it to true",
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
        (
            with(&gateway(), "    user:", "    xauth: {secretName: -vpn}\n    user:"),
            "client.xauth.secretName",
            "such as oslo-vpn",
        ),
        (
            with(&gateway(), "    preSharedKey: {name: some-vpn, key: psk}\n", ""),
            "either preSharedKey or",
            "set one of them",
        ),
        (
            with(&gateway(), "    user:", "    certificate: {secretName: some-tls}\n    user:"),
            "either preSharedKey or certificate",
            "set one of them",
        ),
        (with(&gateway(), "name: web", "name: Web"), "exports[].name", "such as web"),
        (added("esp: {proposals: [rot13]}"), "esp.proposals", "such as aes256-sha256"),
        (added("ike: {proposals: [aes256-sha256]}"), "ike.proposals", "such as aes256-sha256-modp2048"),
        (
            added("ike: {exchange: Aggressive, proposals: [aes256-sha256-modp2048, aes256-sha256-ecp256]}"),
            "ike.proposals",
            "end with the same group",
        ),
        (
            with(
                &added("ike: {exchange: Aggressive}"),
                "preSharedKey: {name: some-vpn, key: psk}",
                "certificate: {secretName: some-tls}",
            ),
            "ike.exchange",
            "set ike.exchange to Main",
        ),
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
fn a_role_takes_its_own_fields_only_and_cannot_be_changed() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let client = gateway();
    let (begin, end) = (client.find("  client:").unwrap(), client.find("  network:").unwrap());
    let (part, without) = (&client[begin..end], [&client[..begin], &client[end..]].concat());
    let server = &SERVER[SERVER.find("  server:").unwrap()..];
    let server_with = |more: &str| format!("{SERVER}  {more}\n");
    let imports = "imports: [{name: a, serviceName: a, servicePort: 80}]";
    let cases = [
        (with(SERVER, server, ""), "mode Server needs server", "the pools and the credentials"),
        (format!("{SERVER}{part}"), "mode Server needs server", "takes no client"),
        (without, "mode Client needs client", "the gateways to dial"),
        (format!("{client}{server}"), "mode Client needs client", "takes no server"),
        (server_with("attachment: Sidecar"), "mode Server needs attachment Gateway", "a sidecar can only dial"),
        (server_with("network: {remoteCIDRs: [10.20.0.0/16]}"), "network.remoteCIDRs", "those of its VpnUser"),
        (server_with("esp: {encapsulation: Auto}"), "esp.encapsulation", "remove esp.encapsulation"),
        (server_with("network: {ipv6: true}"), "network.ipv6", "server.ipv6Pool"),
        (server_with("ike: {exchange: Aggressive}"), "ike.exchange", "set ike.exchange to Main"),
        (server_with("healthCheck: {type: Icmp, host: 10.20.4.10}"), "healthCheck", "remove healthCheck"),
        (server_with("exports: [{name: web, host: web, port: 80}]"), "exports[].host", "behind a VpnUser"),
        (format!("{}  {imports}\n", sidecar()), "imports needs attachment Gateway", "remove imports"),
    ];
    for (manifest, field, remedy) in &cases {
        assert_refused(&cluster, manifest, &[field, remedy]);
    }
    cluster.apply(SERVER).unwrap();
    assert_refused(&cluster, &client, &["mode cannot be changed", "delete the VpnTunnel and create it anew"]);
}

#[test]
fn fields_of_a_server_that_cannot_work_are_refused_with_field_and_remedy() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let pools = "pools: [10.99.0.0/24]";
    let server = |more: &str| with(SERVER, pools, &format!("{pools}\n    {more}"));
    let key = |key: &str| with(SERVER, "{name: road-psk}", key);
    let pool = |pool: &str| with(SERVER, "[10.99.0.0/24]", pool);
    let keys = "    preSharedKeys: [{name: road-psk}]\n";
    let import = |more: &str| format!("{SERVER}  imports: [{{name: a, serviceName: a, servicePort: 80{more}}}]\n");
    let radius = |more: &str, server: &str| {
        server_radius(more, &format!("[{{address: {server}, secret: {{name: a, key: b}}}}]"))
    };
    let cases = [
        (with(SERVER, keys, ""), "server needs preSharedKeys or certificate", "no peer could prove itself"),
        (key("{name: Road}"), "spec.server.preSharedKeys[0].name", "such as oslo-vpn"),
        (key("{name: road, key: ../a}"), "spec.server.preSharedKeys[0].key", "a key of the Secret"),
        (
            key("{name: road, addresses: [198.51.100.7]}"),
            "spec.server.preSharedKeys[0].addresses",
            "such as 198.51.100.7/32",
        ),
        (server("certificate: {secretName: -a}"), "spec.server.certificate.secretName", "such as oslo-vpn"),
        (pool("[10.99.0.0/31]"), "server.pools", "such as 10.99.0.0/24"),
        (pool("[0.0.0.0/0]"), "server.pools", "such as 10.99.0.0/24"),
        (pool("['fd00::/64']"), "server.pools", "such as 10.99.0.0/24"),
        (pool("[]"), "spec.server.pools", "at least 1"),
        (server("localAddress: 'fd00::1'"), "server.localAddress", "such as 10.99.0.1"),
        (server("dns: ['fd00::1']"), "server.dns", "server.forwarding.networks"),
        (server("dns: [10.0.0.1, 10.0.0.2, 10.0.0.3]"), "spec.server.dns", "at most 2"),
        (server("domain: a b"), "server.domain", "such as erp.svc.cluster.local"),
        (server("routes: ['fd00::/64']"), "server.routes", "such as 10.96.0.0/12"),
        (server("ipv6Pool: 'fd00::/65'"), "server.ipv6Pool", "such as fd00:99::/56"),
        (server("forwarding: {networks: [10.96.0.0]}"), "server.forwarding.networks", "such as 10.96.0.0/12"),
        (server("forwarding: {sourceNat: Full}"), "spec.server.forwarding.sourceNat", "\"Masquerade\""),
        (server("limits: {sessions: 0}"), "spec.server.limits.sessions", "greater than or equal to 1"),
        (server("limits: {onLimit: Wait}"), "spec.server.limits.onLimit", "\"Replace\""),
        (server_radius("", "[]"), "spec.server.radius.servers", "at least 1"),
        (radius("", "'radius:1812'"), "spec.server.radius.servers[0].address", "without scheme or port"),
        (radius("nasIdentifier: a b, ", "radius"), "server.radius.nasIdentifier", "without blanks"),
        (server("service: {type: NodePort, loadBalancerClass: a}"), "loadBalancerClass", "change the type"),
        (server("service: {type: ClusterIP, nodePorts: {ike: 30500}}"), "nodePorts", "change the type"),
        (server("service: {externalIPs: [lb.example.com]}"), "server.service.externalIPs", "such as 203.0.113.7"),
        (import(", port: 9090"), "imports[].port", "choose another port"),
        (import(", port: 4500, protocol: UDP"), "imports[].port", "choose another port"),
        (with(&import(""), "serviceName: a", "serviceName: a.b"), "imports[].serviceName", "such as orders"),
        (import("}, {name: b, serviceName: b, servicePort: 81, port: 80"), "imports", "set imports[].port"),
    ];
    for (manifest, field, remedy) in &cases {
        assert_refused(&cluster, manifest, &[field, remedy]);
    }
}

/// A server with these RADIUS servers.
fn server_radius(more: &str, servers: &str) -> String {
    format!("{SERVER}    radius: {{{more}servers: {servers}}}\n")
}

#[test]
fn fields_of_a_user_that_cannot_work_are_refused_with_field_and_remedy() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpnuser/good"]);
    let user = |old: &str, new: &str| with(USER, old, new);
    let cases = [
        (user("name: road-users", "name: Road"), "spec.passwordSecret.name", "such as oslo-vpn"),
        (user("key: alice", "key: ../alice"), "spec.passwordSecret.key", "a key of the Secret"),
        (user("alice@example.com", "\"a\\tb\""), "spec.username", "remove them"),
        (user("10.99.0.7", "'fd00::1'"), "spec.address", "such as 10.99.0.7"),
        (user("[10.20.4.0/24]", "['fd00::/64']"), "spec.networks", "such as 10.20.0.0/16"),
        (user("[10.20.4.0/24]", "[0.0.0.0/0]"), "spec.networks", "other than 0.0.0.0/0"),
        (user("[10.96.0.0/12]", "[here]"), "spec.destinations", "such as 10.96.0.0/12"),
        (user("2030-01-31T18:00:00Z", "tomorrow"), "spec.expiresAt", "date-time"),
        (user("tunnelName: good", "tunnelName: ''"), "spec.tunnelName", "at least 1 chars long"),
    ];
    for (manifest, field, remedy) in &cases {
        assert_refused(&cluster, manifest, &[field, remedy]);
    }
    cluster.apply(USER).unwrap();
    let moved = user("tunnelName: good", "tunnelName: other");
    assert_refused(&cluster, &moved, &["tunnelName cannot be changed", "delete the VpnUser and create it anew"]);
}

#[test]
fn values_that_no_field_takes_are_refused_with_the_field() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let cases = [
        (with(&gateway(), "mode: Client", "mode: Relay"), ["spec.mode", "\"Client\""]),
        (with(&gateway(), "peers: [{address: 192.0.2.99}]", "peers: []"), ["spec.client.peers", "at least 1"]),
        (format!("{}  ike: {{security: Weak}}\n", gateway()), ["spec.ike.security", "\"Strong\""]),
        (format!("{}  ike: {{exchange: Quick}}\n", gateway()), ["spec.ike.exchange", "\"Main\""]),
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

/// Runs the lines of a document that apply something, as somebody would who copies them, without writing anything.
fn try_examples(cluster: &Cluster, document: &str, name: &str) {
    let examples: Vec<&str> =
        document.match_indices("kubectl apply -f - <<").map(|(begin, _)| &document[begin..]).collect();
    assert!(!examples.is_empty(), "{name} applies nothing");
    for example in examples {
        let (script, _) = example.split_once("\nEND").unwrap_or_else(|| {
            panic!("the lines of {name} have no END at the begin of a line, so a shell reads on for ever:\n{document}")
        });
        let script = format!("{script}\nEND\n").replacen("kubectl apply", "kubectl apply --dry-run=server", 1);
        let said =
            run(cluster.exec("sh").unwrap().args(["-ec", &script])).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let is_tried = |line: &str| line.contains(".towline.dev/") && line.contains("server dry run");
        assert!(said.starts_with("vpntunnel.towline.dev/") && said.lines().all(is_tried), "{name}: {said}");
    }
}

#[test]
fn the_examples_of_the_readme_and_of_helm_are_accepted_as_they_stand() {
    let cluster = cluster();
    let readme = std::fs::read_to_string(tool::workspace().join("README.md")).unwrap();
    try_examples(&cluster, &readme, "README.md");
    let notes = cluster.helm(&["get", "notes", "towline", "--namespace", NAMESPACE]).unwrap();
    try_examples(&cluster, &notes, "NOTES.txt");
}
