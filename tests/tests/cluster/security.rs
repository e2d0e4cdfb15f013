//! What a security reviewer asks: who may read Secrets, where a secret shows, what a pod may do.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json as object};
use towline_tests::cluster::Cluster;
use towline_tests::process::run;
use towline_tests::release::NAMESPACE;

use super::evidence::{process_of_pod, uid};
use super::server::{ROAD, road};
use super::uninstall::kinds;
use super::world::{APP, WITH, alta, bodo, cluster, dale_with_pod, json, kubectl, pod_of};

#[test]
fn the_operator_may_read_no_secret_but_its_own() {
    let cluster = cluster();
    let may = |verb: &str, what: &str| {
        let operator = format!("--as=system:serviceaccount:{NAMESPACE}:towline");
        let mut ask = cluster.exec("kubectl").unwrap();
        ask.args(["auth", "can-i", verb]).args(what.split_whitespace()).arg(operator);
        // The exit status says it too.
        let answer = ask.output().unwrap();
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    };
    for verb in ["get", "list", "watch"] {
        for place in ["--namespace default", "--namespace kube-system", "--all-namespaces"] {
            assert_eq!(may(verb, &format!("secrets {place}")), "no", "{verb} {place}");
        }
        assert_eq!(may(verb, &format!("secrets/another --namespace {NAMESPACE}")), "no", "{verb}");
    }
    assert_eq!(may("get", &format!("secrets/towline-tls --namespace {NAMESPACE}")), "yes");
    for what in ["pods --subresource=exec", "pods", "secrets"] {
        assert_eq!(may("create", &format!("{what} --namespace default")), "no", "create {what}");
    }
    assert_eq!(may("*", "* --all-namespaces"), "no");
}

/// Everything that can be read without the right to read Secrets, by where it stands.
fn readable(cluster: &Cluster) -> Vec<(String, String)> {
    let kinds: Vec<String> = kinds(cluster).into_iter().filter(|kind| kind != "secrets").collect();
    let mut texts = vec![("objects".to_owned(), kubectl(cluster, &format!("get {} -A -o yaml", kinds.join(","))))];
    for (place, container) in
        [("-l towline.dev/tunnel", "towline"), ("-n towline-system -l app.kubernetes.io/name=towline", "operator")]
    {
        let log = kubectl(cluster, &format!("logs {place} -c {container} --tail=-1"));
        texts.push((format!("log of {container}"), log));
        let pods = kubectl(cluster, &format!("get pods {place} -o=jsonpath={{.items[*].metadata.name}}"));
        let (namespace, port) = if container == "towline" { ("default", 9090) } else { (NAMESPACE, 8080) };
        for pod in pods.split_whitespace() {
            let metrics = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
            texts.push((format!("metrics of {pod}"), kubectl(cluster, &format!("get --raw {metrics}"))));
        }
    }
    texts
}

#[test]
fn no_secret_shows_in_an_object_a_log_or_a_metric() {
    let (alta, bodo, dale) = (alta(), bodo(), dale_with_pod());
    road();
    let texts = readable(&alta.cluster);
    let text = |name: &str| &texts.iter().find(|(place, _)| place == name).unwrap().1;
    // It looks where secrets are used: the tunnel that logs the protocols is there, and so are the names of the Secrets.
    assert!(text("log of towline").contains(" DEBUG "));
    for tunnel in [alta.name, bodo.name, dale.name, ROAD] {
        assert!(text("objects").contains(&format!("{tunnel}-vpn")));
        let pod = pod_of(&alta.cluster, tunnel).0;
        assert!(texts.iter().any(|(place, _)| *place == format!("metrics of {pod}")));
    }
    for secret in ["marker-4711-psk", "marker-4711-password", "marker-4711-wrong", "marker-4711"] {
        let encoded = run(Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -w0", secret])).unwrap();
        let hex = secret.bytes().map(|octet| format!("{octet:02x}")).collect::<String>();
        // Base64 of a part ends otherwise than that of the whole.
        for form in [secret, encoded.trim_end_matches('=').get(..12).unwrap(), &hex] {
            for (place, text) in &texts {
                assert!(!text.contains(form), "{secret} is in {place}");
            }
        }
    }
}

/// The kernel's own word on what the tunnel's process may do.
fn assert_kernel_confines(uid: &str) {
    let process = process_of_pod(uid, "towline-tunnel").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    // CAP_NET_ADMIN is number 12.
    for line in ["CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
}

/// What the tunnel's container asks for, and no more.
fn assert_container_is_confined(container: &Value) {
    let context = &container["securityContext"];
    assert_eq!(context["capabilities"], object!({"add": ["NET_ADMIN"], "drop": ["ALL"]}));
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["privileged"], false);
    let resources = &container["resources"];
    for amount in [&resources["requests"]["cpu"], &resources["requests"]["memory"], &resources["limits"]["memory"]] {
        assert!(amount.is_string(), "{resources}");
    }
}

/// Of the node a pod has the TUN device, and nothing else.
fn assert_pod_is_confined(spec: &Value) {
    for share in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(spec[share] != true, "{share}");
    }
    let volumes = spec["volumes"].as_array().unwrap();
    let paths: Vec<_> = volumes.iter().filter(|volume| volume["hostPath"].is_object()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert_eq!(paths[0]["hostPath"], object!({"path": "/dev/net/tun", "type": "CharDevice"}));
}

#[test]
fn a_tunnel_has_one_capability_and_the_device_and_nothing_else_of_the_node() {
    let (alta, dale) = (alta(), dale_with_pod());
    let (pod, gateway_uid) = alta.pod();
    let gateway = json(&alta.cluster, &format!("get pod {pod} -o json"));
    let sidecar = json(&dale.cluster, &format!("get pod {WITH} -o json"));
    assert_container_is_confined(&gateway["spec"]["containers"][0]);
    assert_container_is_confined(&sidecar["spec"]["initContainers"][0]);
    for (pod, uid) in [(&gateway, gateway_uid), (&sidecar, uid(&dale.cluster, WITH))] {
        assert_pod_is_confined(&pod["spec"]);
        assert_kernel_confines(&uid);
    }
    assert_eq!(gateway["spec"]["automountServiceAccountToken"], false);
    assert_eq!(gateway["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn a_server_has_one_capability_and_the_device_and_no_right_in_the_cluster() {
    let cluster = road();
    let (name, uid) = pod_of(&cluster, ROAD);
    let pod = json(&cluster, &format!("get pod {name} -o json"));
    assert_container_is_confined(&pod["spec"]["containers"][0]);
    assert_pod_is_confined(&pod["spec"]);
    assert_kernel_confines(&uid);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!(pod["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    // What everybody may who has an account, and nothing more.
    let account = format!("system:serviceaccount:default:{}", pod["spec"]["serviceAccountName"].as_str().unwrap());
    let rights = |who: &str| {
        let rights = kubectl(&cluster, &format!("auth can-i --list --no-headers --as={who}"));
        rights.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(rights(&account), rights("system:serviceaccount:default:nobody"));
}

#[test]
fn the_operator_runs_without_any_privilege() {
    let cluster = cluster();
    for program in ["towline-operator", "towline-tunnel"] {
        for kib in cluster.resident_memory(program).unwrap() {
            println!("resident memory of {program} in its pod: {kib} KiB");
        }
    }
    let pods = json(&cluster, &format!("--namespace {NAMESPACE} get pods -l app.kubernetes.io/name=towline -o json"));
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let context = &pod["spec"]["containers"][0]["securityContext"];
        assert_eq!(context["capabilities"], object!({"drop": ["ALL"]}));
        assert_eq!(
            (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
            (&object!(true), &object!(false))
        );
    }
}

#[test]
fn a_sidecar_has_no_token_of_its_application() {
    let dale = dale_with_pod();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    // The application has one.
    kubectl(&dale.cluster, &format!("exec {WITH} -c {APP} -- test -s {token}"));
    let sidecar = process_of_pod(&uid(&dale.cluster, WITH), "towline-tunnel").unwrap();
    let root = format!("/proc/{}/root", sidecar.pid);
    assert!(Path::new(&format!("{root}/etc/towline/config/config.json")).exists());
    assert!(
        !Path::new(&format!("{root}{token}")).exists(),
        "the sidecar can talk to the API server as its application"
    );
}
