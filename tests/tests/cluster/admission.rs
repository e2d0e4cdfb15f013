//! Specifications that cannot work are refused at `kubectl apply`, with the field and the remedy.

use towline_tests::peer::INNER;
use towline_tests::release::{gateway_tunnel, sidecar_tunnel};

use super::world::{Cleanup, cluster};

#[test]
fn bad_specifications_are_refused_with_the_field_and_the_remedy() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/good"]);
    let good = gateway_tunnel("good", "192.0.2.99", "some-vpn");
    let cases = [
        (good.replace(&format!("host: {INNER}, port: 80}}]"), "host: 10.99.0.1, port: 80}]"), "exports[].host"),
        (good.replace("mode: Client", "mode: Server"), "spec.mode"),
        (good.replace("peers: [{address: 192.0.2.99}]", "peers: []"), "spec.client.peers"),
        (good.replace("type: Tcp", "type: Icmp"), "healthCheck"),
        (good.replace("remoteCIDRs: [10.20.4.0/24]", "remoteCIDRs: [10.20.4.0]"), "remoteCIDRs"),
        (good.replace("name: good}", "name: Good}"), "metadata.name"),
        (good.clone() + "  esp: {proposals: [rot13]}\n", "spec.esp.proposals"),
        (good.clone() + "  ike: {dpd: {intervalSeconds: 10, timeoutSeconds: 10}}\n", "dpd.timeoutSeconds"),
        (
            sidecar_tunnel("good", "192.0.2.99", "some-vpn")
                + &format!("  exports: [{{name: web, host: {INNER}, port: 80}}]\n"),
            "attachment Gateway",
        ),
        (good.clone() + "  unknown: {field: 1}\n", "unknown"),
        (good.replace("{address: 192.0.2.99}", "{address: https://192.0.2.99}"), "client.peers[].address must be"),
        (good.replace("key: psk", "key: '..'"), "client.preSharedKey.key must be"),
        (good.replace("secretName: some-vpn", "secretName: Some_VPN"), "client.user.secretName must be"),
        (good.clone() + "  pod: {resources: {requests: {cpu: abc}}}\n", "cpu must be a quantity"),
        (good.clone() + "  pod: {resources: {requests: {cpu: 2}, limits: {cpu: 100m}}}\n", "must not be above"),
        (good.clone() + "  ike: {proposals: [aes256-sha3-modp2048]}\n", "ike.proposals must be CIPHER-HASH-GROUP"),
        (
            sidecar_tunnel("good", "192.0.2.99", "some-vpn")
                .replace("  network: {remoteCIDRs: [10.20.4.0/24]}\n", "")
                .replace(&format!("  healthCheck: {{type: Icmp, host: {INNER}, intervalSeconds: 2}}\n"), ""),
            "needs network.remoteCIDRs",
        ),
    ];
    for (manifest, words) in cases {
        let refused = cluster.apply(&manifest).map(|_| manifest.clone()).unwrap_err();
        assert!(format!("{refused:#}").contains(words), "{words:?} is not in: {refused:#}");
    }
    cluster.apply(&good).unwrap();
    let moved = sidecar_tunnel("good", "192.0.2.99", "some-vpn");
    let refused = cluster.apply(&(moved + "  exports: []\n")).unwrap_err();
    assert!(format!("{refused:#}").contains("attachment cannot be changed"), "{refused:#}");
}
