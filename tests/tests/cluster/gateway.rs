//! `attachment: Gateway`, from `kubectl apply` to `kubectl delete`.

use std::time::Duration;

use towline_tests::cluster::Cluster;
use towline_tests::peer::Lns;
use towline_tests::process::wait_until;
use towline_tests::release::{
    app, condition, describe, fetch, gateway_tunnel, secret, tunnel, wait_for_condition, wait_for_pod, wait_ready,
};
use towline_tests::tunnel::wait_for_text;

use super::world::{Cleanup, cluster, gateway};

const ADDRESS: &str = "192.0.2.41";

/// A Service takes a moment from the readiness of its pod to the rules of kube-proxy.
fn wait_for_page(cluster: &Cluster, url: &str, page: &str) {
    wait_until("the page", Duration::from_secs(30), || fetch(cluster, "app", url).is_ok_and(|found| found == page))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(cluster)));
}

#[test]
fn a_tunnel_comes_up_tells_the_truth_heals_and_goes() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/oslo", "secret/oslo-vpn", "pod/app"]);
    let lns = Lns::default();
    let peer = gateway(&cluster, ADDRESS, &lns);

    // The wrong key first: the status names the layer and the reason.
    let wrong = Lns { psk: "not-the-key".to_owned(), ..lns.clone() };
    cluster.apply(&secret("oslo-vpn", &wrong)).unwrap();
    cluster.apply(&gateway_tunnel("oslo", ADDRESS, "oslo-vpn")).unwrap();
    cluster.apply(&app("app", None)).unwrap();
    let (status, _, message) =
        wait_for_condition(&cluster, "oslo", "IkeEstablished", Duration::from_secs(90), |(_, reason, _)| {
            reason == "AuthenticationFailed"
        })
        .unwrap();
    assert_eq!(status, "False");
    assert!(message.contains("pre-shared key"), "{message}");
    let (status, reason, _) = condition(&tunnel(&cluster, "oslo").unwrap(), "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AuthenticationFailed"));

    // Corrected, it recovers without a restart by hand.
    cluster.apply(&secret("oslo-vpn", &lns)).unwrap();
    wait_for_condition(&cluster, "oslo", "Ready", Duration::from_secs(180), |(status, ..)| status == "True").unwrap();
    let restarts = [
        "get",
        "pods",
        "-l",
        "towline.dev/tunnel=oslo",
        "-o=jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ];
    assert_eq!(cluster.kubectl(&restarts).unwrap().trim(), "0");

    // The page, by the Service's name; every column of `kubectl get vt` has its value.
    wait_for_pod(&cluster, "app").unwrap();
    wait_for_page(&cluster, "http://oslo-web.default.svc.cluster.local/", &lns.page);
    let listed = cluster.kubectl(&["get", "vt", "oslo", "--no-headers"]).unwrap();
    for word in ["True", "ProbeSucceeded", "Client", ADDRESS, "10.20.5."] {
        assert!(listed.contains(word), "{word} is not in {listed}");
    }
    let status = tunnel(&cluster, "oslo").unwrap();
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

    // The pod has no more than it needs.
    let pod = cluster.kubectl(&["get", "pods", "-l", "towline.dev/tunnel=oslo", "-o=json"]).unwrap();
    let pod: serde_json::Value = serde_json::from_str(&pod).unwrap();
    let context = &pod["items"][0]["spec"]["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], serde_json::json!({"add": ["NET_ADMIN"], "drop": ["ALL"]}));
    assert_eq!(
        (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
        (&true.into(), &false.into())
    );
    assert!(context["privileged"] != true);

    // A change of the specification rolls out.
    let patch = r#"{"spec":{"esp":{"proposals":["aes256gcm16","aes256-sha256"]}}}"#;
    cluster.kubectl(&["patch", "vpntunnel", "oslo", "--type=merge", "-p", patch]).unwrap();
    let generation = tunnel(&cluster, "oslo").unwrap()["metadata"]["generation"].clone();
    wait_until("the new specification", Duration::from_secs(180), || {
        tunnel(&cluster, "oslo").is_ok_and(|tunnel| {
            tunnel["status"]["observedGeneration"] == generation
                && condition(&tunnel, "Provisioned").0 == "True"
                && condition(&tunnel, "Ready").0 == "True"
        })
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));

    // The peer dies, and comes back.
    peer.kill();
    let (_, reason, message) =
        wait_for_condition(&cluster, "oslo", "Ready", Duration::from_secs(30), |(status, ..)| status == "False")
            .unwrap();
    assert!(
        ["ProbeFailed", "DeadPeer", "PeerSilent", "PeerUnreachable"].contains(&reason.as_str()),
        "{reason}: {message}"
    );
    let peer = gateway(&cluster, ADDRESS, &lns);
    wait_ready(&cluster, "oslo").unwrap();
    wait_for_page(&cluster, "http://oslo-web/", &lns.page);

    // Deleted: the peer is told, and nothing is left.
    cluster.kubectl(&["delete", "vpntunnel", "oslo", "--timeout=30s"]).unwrap();
    let patience = Duration::from_secs(60);
    for text in [", serial 1", "Stop-Control-Connection-Notification"] {
        wait_for_text(text, patience, || peer.log("l2tp")).unwrap();
    }
    wait_for_text("received DELETE for IKE_SA", patience, || peer.log("charon")).unwrap();
    wait_until("the end of all objects", Duration::from_secs(60), || {
        let kinds = "deployments,pods,services,configmaps,serviceaccounts,poddisruptionbudgets,endpointslices";
        cluster
            .kubectl(&["get", kinds, "-l", "towline.dev/tunnel=oslo", "-o", "name"])
            .is_ok_and(|names| names.trim().is_empty())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));
}

#[test]
fn a_tunnel_whose_peer_and_operator_are_gone_is_deleted_all_the_same() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["vpntunnel/nowhere", "secret/nowhere-vpn"]);
    cluster.apply(&secret("nowhere-vpn", &Lns::default())).unwrap();
    cluster.apply(&gateway_tunnel("nowhere", "192.0.2.99", "nowhere-vpn")).unwrap();
    let (_, _, message) =
        wait_for_condition(&cluster, "nowhere", "PeerReachable", Duration::from_secs(120), |(status, ..)| {
            status == "False"
        })
        .unwrap();
    assert!(message.contains("UDP 500 and 4500"), "{message}");
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["--namespace", "towline-system", "scale", "deployment/towline", &replicas]).unwrap();
    };
    scale("0");
    cluster
        .kubectl(&[
            "--namespace",
            "towline-system",
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=towline",
            "--timeout=60s",
        ])
        .unwrap();
    cluster.kubectl(&["delete", "vpntunnel", "nowhere", "--timeout=30s"]).unwrap();
    wait_until("the end of the pod", Duration::from_secs(60), || {
        cluster
            .kubectl(&["get", "pods,deployments", "-l", "towline.dev/tunnel=nowhere", "-o", "name"])
            .is_ok_and(|names| names.trim().is_empty())
    })
    .unwrap();
    scale("2");
}
