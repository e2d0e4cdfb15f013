//! `attachment: Gateway`, from `kubectl apply` to `kubectl delete`.

use std::time::Duration;

use serde_json::Value;
use towline_tests::cluster::Cluster;
use towline_tests::peer::Lns;
use towline_tests::process::wait_until;
use towline_tests::release::{
    condition, describe, fetch, gateway_tunnel, secret, tunnel, wait_for_condition, wait_for_pod,
};

use super::evidence::{Marks, assert_no_page, assert_only_ipsec, beside, process_of_pod, say, wire};
use super::operator::Away;
use super::world::{APP, Cleanup, alta, bodo, cluster, json, kubectl, lns, restarts, settle};

/// A Service takes a moment from the readiness of its pod to the rules of kube-proxy.
pub(super) fn wait_for_page(cluster: &Cluster, url: &str) {
    let mut last = String::new();
    wait_until("the page", Duration::from_secs(60), || {
        last = fetch(cluster, APP, url).unwrap_or_else(|error| format!("{error:#}"));
        last == lns().page
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", describe(cluster)));
}

#[test]
fn a_new_tunnel_is_ready_when_a_pod_can_fetch_the_page_and_the_network_sees_ipsec_alone() {
    let alta = alta();
    kubectl(&alta.cluster, "delete vpntunnel alta --timeout=60s");
    let capture = wire(alta.gateway(), "gateway-mode");
    alta.apply();
    kubectl(&alta.cluster, "wait --for=condition=Ready vpntunnel/alta --timeout=120s");
    // Ready is not before the Service leads to the pod.
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
    let capture = capture.stop().unwrap();
    assert_only_ipsec(&capture, alta.address);
    assert_no_page(&capture);

    let listed = kubectl(&alta.cluster, "get vt alta --no-headers");
    for word in ["True", "ProbeSucceeded", "Client", alta.address, "10.20.5."] {
        assert!(listed.contains(word), "{word} is not in {listed}");
    }
    let status = tunnel(&alta.cluster, "alta").unwrap();
    assert_eq!(status["status"]["negotiated"]["ike"], "aes256-sha256-modp2048");
    for kind in [
        "Accepted",
        "Provisioned",
        "CredentialsResolved",
        "PeerReachable",
        "IkeEstablished",
        "IpsecEstablished",
        "L2tpEstablished",
        "PppEstablished",
    ] {
        assert_eq!(condition(&status, kind).0, "True", "{kind}: {status:#}");
    }
    assert_eq!(condition(&status, "WeakCrypto").0, "False", "{status:#}");
    assert_eq!(status["status"]["negotiated"]["rung"], "Strong proposals");
    assert!(status["status"]["establishedAt"].is_string(), "{status:#}");
}

#[test]
fn a_wrong_key_is_named_and_its_correction_needs_no_restart() {
    let bodo = bodo();
    let cluster = &bodo.cluster;
    kubectl(cluster, "delete vpntunnel bodo --timeout=60s");
    wait_until("the end of its pod", Duration::from_secs(60), || {
        kubectl(cluster, "get pods -l towline.dev/tunnel=bodo -o name").trim().is_empty()
    })
    .unwrap();
    let wrong = Lns { psk: "marker-4711-wrong".to_owned(), ..lns() };
    cluster.apply(&secret("bodo-vpn", &wrong)).unwrap();
    cluster.apply(&bodo.manifest).unwrap();
    let (status, _, message) =
        wait_for_condition(cluster, "bodo", "IkeEstablished", Duration::from_secs(90), |(_, reason, _)| {
            reason == "AuthenticationFailed"
        })
        .unwrap();
    assert_eq!(status, "False");
    assert!(message.contains("pre-shared key"), "{message}");
    let (status, reason, _) = condition(&tunnel(cluster, "bodo").unwrap(), "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AuthenticationFailed"));
    let pod = bodo.pod();

    cluster.apply(&secret("bodo-vpn", &lns())).unwrap();
    settle(cluster, "bodo");
    assert_eq!(bodo.pod(), pod);
    assert_eq!(restarts(cluster, &pod.0), 0);
}

/// Every object of the namespace that a `VpnTunnel` owns, directly or by another object, as `Kind name`.
fn owned(cluster: &Cluster, tunnel: &Value) -> Vec<String> {
    let kinds = "deployments,replicasets,pods,services,endpointslices,configmaps,serviceaccounts,poddisruptionbudgets";
    let all = json(cluster, &format!("get {kinds} -o json"));
    let all = all["items"].as_array().unwrap();
    let mut owners = vec![tunnel["metadata"]["uid"].clone()];
    let mut names = Vec::new();
    // Deployment, ReplicaSet, pod: the chain has three links.
    for _ in 0..3 {
        for object in all {
            let metadata = &object["metadata"];
            let is_owned = metadata["ownerReferences"]
                .as_array()
                .is_some_and(|references| references.iter().any(|reference| owners.contains(&reference["uid"])));
            if is_owned && !owners.contains(&metadata["uid"]) {
                owners.push(metadata["uid"].clone());
                names.push(format!("{} {}", object["kind"], metadata["name"]).replace('"', ""));
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_deleted_tunnel_says_goodbye_and_leaves_no_object() {
    let alta = alta();
    let spec = tunnel(&alta.cluster, "alta").unwrap();
    let before = owned(&alta.cluster, &spec);
    for kind in ["Deployment", "ReplicaSet", "Pod", "Service", "EndpointSlice", "ConfigMap", "ServiceAccount"] {
        assert!(before.iter().any(|name| name.starts_with(&format!("{kind} "))), "no {kind} in {before:?}");
    }
    let marks = Marks::of(alta.gateway());
    kubectl(&alta.cluster, "delete vpntunnel alta --timeout=30s");
    marks.wait_for_goodbye();
    wait_until("the end of all objects", Duration::from_secs(60), || owned(&alta.cluster, &spec).is_empty())
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", owned(&alta.cluster, &spec)));
}

#[test]
fn a_tunnel_whose_gateway_and_operator_are_gone_is_deleted_all_the_same() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/nowhere", "secret/nowhere-vpn"]);
    cluster.apply(&secret("nowhere-vpn", &lns())).unwrap();
    cluster.apply(&gateway_tunnel("nowhere", "192.0.2.99", "nowhere-vpn")).unwrap();
    let (_, _, message) =
        wait_for_condition(&cluster, "nowhere", "PeerReachable", Duration::from_secs(120), |(status, ..)| {
            status == "False"
        })
        .unwrap();
    assert!(message.contains("UDP 500 and 4500"), "{message}");
    let spec = tunnel(&cluster, "nowhere").unwrap();
    assert!(!owned(&cluster, &spec).is_empty());
    let away = Away::begin(&cluster);
    kubectl(&cluster, "delete vpntunnel nowhere --timeout=30s");
    wait_until("the end of all objects", Duration::from_secs(60), || owned(&cluster, &spec).is_empty()).unwrap();
    away.end();
}

#[test]
fn a_tunnel_pod_that_is_deleted_is_replaced_and_the_tunnel_dials_again() {
    let alta = alta();
    let (pod, uid) = alta.pod();
    kubectl(&alta.cluster, &format!("delete pod {pod} --timeout=60s"));
    wait_until("another pod", Duration::from_secs(60), || {
        let pods = json(&alta.cluster, "get pods -l towline.dev/tunnel=alta -o json");
        pods["items"].as_array().is_some_and(|pods| pods.len() == 1 && pods[0]["metadata"]["uid"] != *uid)
    })
    .unwrap();
    settle(&alta.cluster, "alta");
    wait_for_pod(&alta.cluster, &alta.pod().0).unwrap();
    wait_for_page(&alta.cluster, "http://alta-web/");
}

#[test]
fn networks_of_ipv6_are_kept_in_the_tunnel_of_a_pod_whose_gateway_speaks_none() {
    let alta = alta();
    alta.change("{remoteCIDRs: [10.20.4.0/24]}", "{ipv6: true, remoteCIDRs: [10.20.4.0/24, 'fd20:4::/64']}");
    let tunnel = process_of_pod(&alta.pod().1, "towline-tunnel").unwrap();
    let (_, routes) = say(beside(tunnel, "ip").args(["-6", "route", "show", "table", "all"]));
    assert!(routes.contains("unreachable fd20:4::/64"), "{routes}");
    wait_for_page(&alta.cluster, "http://alta-web.default.svc.cluster.local/");
    alta.apply();
    settle(&alta.cluster, alta.name);
}
