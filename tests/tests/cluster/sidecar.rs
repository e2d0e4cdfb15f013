//! `attachment: Sidecar`: the application has its tunnel before it starts, and never talks to the remote network another way.

use std::time::Duration;

use nix::sys::signal::Signal;
use towline_tests::cluster::Cluster;
use towline_tests::peer::INNER;
use towline_tests::process::wait_until;
use towline_tests::release::{condition, describe, tunnel, wait_for_condition, wait_for_pod};

use super::evidence::{Marks, NodeCapture, beside, now, ping_on, process_of_pod, say, uid, wait_for_process, watch};
use super::world::{WITH, ask_once, dale, dale_with_pod, eager, json, kubectl, lns, restarts, settle};

/// The application's only attempt, and how it ended.
fn one_attempt() -> String {
    format!("wget -q -t 1 -T 5 -O /part http://{INNER}/; echo \"status $?\" >> /part; mv /part /first")
}

fn delete_pod(cluster: &Cluster) {
    kubectl(cluster, &format!("delete pod {WITH} --ignore-not-found --timeout=60s"));
}

/// Waits until an attempt fails because there is no route, and never because of another way.
fn wait_until_unreachable(cluster: &Cluster) {
    let mut last = String::new();
    wait_until("the remote network to be unreachable", Duration::from_secs(60), || {
        last = match ask_once(cluster, WITH, 2) {
            Ok(page) => panic!("a dead gateway answers: {page}"),
            Err(error) => error,
        };
        last.contains("No route to host") || last.contains("unreachable")
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", describe(cluster)));
}

fn wait_until_reachable(cluster: &Cluster) {
    let mut last = Ok(String::new());
    wait_until("the remote page", Duration::from_secs(120), || {
        last = ask_once(cluster, WITH, 5);
        last.as_ref().is_ok_and(|page| page.trim() == lns().page)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last:?}\n{}", describe(cluster)));
}

#[test]
fn an_application_starts_with_its_tunnel_and_nothing_of_its_pod_leaves_in_clear_before() {
    let mut dale = dale();
    delete_pod(&dale.cluster);
    dale.kill_gateway();
    let capture = NodeCapture::start(&dale.cluster, "start");
    dale.cluster.apply(&eager(&one_attempt())).unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&dale.cluster)));
    let started =
        "{.status.initContainerStatuses[?(@.name==\"towline\")].started} {.status.containerStatuses[0].started}";
    let watch = watch(&dale.cluster, &format!("pod {WITH}"), started);

    // The gateway is not there: the application waits, and what somebody sends from the pod's network has no route.
    let sidecar = wait_for_process(&uid(&dale.cluster, WITH), "towline-tunnel");
    wait_until("the tunnel process", Duration::from_secs(30), || {
        say(beside(sidecar, "curl").args(["-sf", "http://127.0.0.1:9090/livez"])).0
    })
    .unwrap();
    let ping = ping_on(sidecar, "start-ping");
    wait_for_condition(&dale.cluster, "dale", "PeerReachable", Duration::from_secs(90), |(status, reason, _)| {
        status == "False" && reason == "PeerSilent"
    })
    .unwrap();
    let said = ping.output().unwrap();
    assert!(said.contains("No route to host") || said.contains("unreachable"), "{said}");
    assert!(!said.contains("bytes from"), "{said}");
    let pod = json(&dale.cluster, &format!("get pod {WITH} -o json"));
    let application = &pod["status"]["containerStatuses"][0];
    assert!(application["state"]["waiting"].is_object() && application["started"] == false, "{application:#}");

    // It comes: the application starts, and its first attempt succeeds.
    let came = now();
    dale.boot_gateway();
    wait_for_pod(&dale.cluster, WITH).unwrap();
    let mut first = String::new();
    wait_until("the application's first attempt", Duration::from_secs(30), || {
        first = dale.cluster.kubectl(&["exec", WITH, "-c", "app", "--", "cat", "/first"]).unwrap_or_default();
        !first.is_empty()
    })
    .unwrap();
    assert_eq!(first, format!("{}\nstatus 0\n", lns().page));
    let began = "{.status.containerStatuses[0].state.running.startedAt}";
    let began = kubectl(&dale.cluster, &format!("get pod {WITH} -o=jsonpath={began}"));
    assert!(began.trim() >= came.as_str(), "the application runs since {began}, the gateway since {came}");
    let order = watch.output().unwrap();
    assert!(order.contains("true true") && !order.contains("false true"), "application before tunnel:\n{order}");
    settle(&dale.cluster, "dale");
    drop(ping);
    capture.assert_nothing_in_clear(&dale.cluster);
}

#[test]
fn a_dead_gateway_makes_the_remote_network_unreachable_and_nothing_leaves_in_clear() {
    let mut dale = dale_with_pod();
    let capture = NodeCapture::start(&dale.cluster, "dead");
    let ping = ping_on(process_of_pod(&uid(&dale.cluster, WITH), "pause").unwrap(), "dead-ping");
    dale.kill_gateway();
    wait_until_unreachable(&dale.cluster);
    let (status, reason, message) = condition(&tunnel(&dale.cluster, "dale").unwrap(), "Ready");
    assert_eq!(status, "False", "{reason}: {message}");
    dale.boot_gateway();
    wait_until_reachable(&dale.cluster);
    drop(ping);
    capture.assert_nothing_in_clear(&dale.cluster);
}

#[test]
fn a_killed_tunnel_process_lets_nothing_out_in_clear_and_dials_again() {
    let dale = dale_with_pod();
    let before = restarts(&dale.cluster, WITH);
    let capture = NodeCapture::start(&dale.cluster, "killed");
    let uid = uid(&dale.cluster, WITH);
    let ping = ping_on(process_of_pod(&uid, "pause").unwrap(), "killed-ping");
    process_of_pod(&uid, "towline-tunnel").unwrap().signal(Signal::SIGKILL).unwrap();
    wait_until("a new tunnel process", Duration::from_secs(60), || restarts(&dale.cluster, WITH) == before + 1)
        .unwrap();
    wait_until_reachable(&dale.cluster);
    let said = ping.output().unwrap();
    assert!(said.contains("No route to host") || said.contains("unreachable"), "{said}");
    drop(ping);
    capture.assert_nothing_in_clear(&dale.cluster);
}

#[test]
fn a_deleted_pod_says_goodbye_to_the_gateway() {
    let dale = dale_with_pod();
    let marks = Marks::of(dale.gateway());
    delete_pod(&dale.cluster);
    marks.wait_for_goodbye();
    let (status, reason, _) =
        wait_for_condition(&dale.cluster, "dale", "Ready", Duration::from_secs(60), |(_, reason, _)| {
            reason == "NoPods"
        })
        .unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NoPods"));
}

#[test]
fn a_deleted_tunnel_is_closed_in_a_running_pod_and_one_of_its_name_is_dialled_there() {
    let dale = dale_with_pod();
    let (uid, before) = (uid(&dale.cluster, WITH), restarts(&dale.cluster, WITH));
    let capture = NodeCapture::start(&dale.cluster, "deleted");
    let ping = ping_on(process_of_pod(&uid, "pause").unwrap(), "deleted-ping");
    let marks = Marks::of(dale.gateway());
    kubectl(&dale.cluster, "delete vpntunnel dale --timeout=30s");
    marks.wait_for_goodbye();
    wait_until_unreachable(&dale.cluster);
    dale.apply();
    wait_until_reachable(&dale.cluster);
    settle(&dale.cluster, "dale");
    assert_eq!(super::evidence::uid(&dale.cluster, WITH), uid);
    assert_eq!(restarts(&dale.cluster, WITH), before);
    drop(ping);
    capture.assert_nothing_in_clear(&dale.cluster);
}
