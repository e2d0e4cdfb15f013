//! `helm test` and `helm uninstall`.

use std::time::Duration;

use towline_tests::process::wait_until;
use towline_tests::release::{NAMESPACE, describe};

use super::world::cluster;

#[test]
fn helm_test_passes_and_uninstall_leaves_nothing() {
    let cluster = cluster();
    cluster
        .helm(&["test", "towline", "--namespace", NAMESPACE, "--timeout", "2m"])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));
    cluster.helm(&["uninstall", "towline", "--namespace", NAMESPACE, "--wait", "--timeout", "2m"]).unwrap();
    wait_until("the end of everything", Duration::from_secs(90), || {
        let cluster_wide = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,crds";
        let everywhere =
            cluster.kubectl(&["get", cluster_wide, "-o", "name"]).unwrap_or_else(|error| error.to_string());
        let own =
            "all,secrets,configmaps,serviceaccounts,roles,rolebindings,leases,endpointslices,poddisruptionbudgets";
        let inside = cluster
            .kubectl(&["get", own, "--namespace", NAMESPACE, "-o", "name"])
            .unwrap_or_else(|error| error.to_string());
        let left = |names: &str| {
            names.lines().any(|name| {
                !name.contains("kube-root-ca") && !name.ends_with("serviceaccount/default") && name.contains("towline")
            })
        };
        !left(&everywhere) && !left(&inside)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));
}
