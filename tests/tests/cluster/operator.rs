//! The operator is killed, stays away and comes back; the tunnels do not notice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use towline_tests::cluster::Cluster;
use towline_tests::peer::INNER;
use towline_tests::process::wait_until;
use towline_tests::release::{NAMESPACE, app, wait_for_pod};

use super::evidence::{process_of_pod, spawn, watch};
use super::world::{
    APP, Cleanup, REPLICAS, Tunnel, WITH, alta, dale_with_pod, json, kubectl, settle, wait_for_operator,
};

/// A pod that has not reported for this long is silent: an operator that is away longer has missed everything.
const LONG: Duration = Duration::from_secs(36);

/// Its processes are named so; the kernel cuts names to 15 characters.
const PROCESS: &str = "towline-operato";

/// Name and UID of the operator's pods.
fn pods(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = json(cluster, &format!("--namespace {NAMESPACE} get pods -l app.kubernetes.io/name=towline -o json"));
    let text = |pod: &serde_json::Value, field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
    pods["items"].as_array().unwrap().iter().map(|pod| (text(pod, "name"), text(pod, "uid"))).collect()
}

/// No operator runs until this ends or is dropped.
pub(super) struct Away<'a> {
    cluster: &'a Cluster,
    since: Instant,
}

impl<'a> Away<'a> {
    /// Kills every replica.
    pub(super) fn begin(cluster: &'a Cluster) -> Self {
        let replicas = pods(cluster);
        assert!(!replicas.is_empty());
        let away = Self { cluster, since: Instant::now() };
        for (name, uid) in &replicas {
            let process = process_of_pod(uid, PROCESS).unwrap_or_else(|| panic!("{name} has no {PROCESS}"));
            process.signal(Signal::SIGKILL).unwrap();
        }
        away.scale("0");
        // What the kubelet has started again.
        let named = "-l app.kubernetes.io/name=towline --force --grace-period=0 --ignore-not-found";
        kubectl(cluster, &format!("--namespace {NAMESPACE} delete pods {named}"));
        wait_until("the operator's end", Duration::from_secs(30), || {
            replicas.iter().all(|(_, uid)| process_of_pod(uid, PROCESS).is_none()) && pods(cluster).is_empty()
        })
        .unwrap();
        away
    }

    fn scale(&self, replicas: &str) {
        kubectl(self.cluster, &format!("--namespace {NAMESPACE} scale deployment/towline --replicas={replicas}"));
    }

    /// Brings it back.
    pub(super) fn end(self) {}
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.scale(REPLICAS);
        wait_for_operator(self.cluster);
    }
}

/// A log level that the operator has to carry to the pod: proof that it works.
fn assert_operator_works(tunnel: &Tunnel) {
    tunnel.cluster.apply(&format!("{}  log: {{level: Debug}}\n", tunnel.manifest)).unwrap();
    settle(&tunnel.cluster, tunnel.name);
}

/// Makes the gateway's web server count five times a second, for as long as somebody listens.
fn count_at(alta: &Tunnel) {
    let count = r#"mkdir -p /run/www/cgi-bin
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nn=0\nwhile echo "n $n"; do n=$((n + 1)); sleep 0.2; done\n' > /run/www/cgi-bin/count
chmod +x /run/www/cgi-bin/count"#;
    alta.gateway().exec(count).unwrap();
}

/// How far a listener has come without a number missing.
fn counted(lines: &str) -> usize {
    let numbers: Vec<&str> = lines.lines().collect();
    for (expected, line) in numbers.iter().enumerate() {
        assert_eq!(*line, format!("n {expected}"), "in {lines}");
    }
    numbers.len()
}

#[test]
fn traffic_flows_on_while_the_operator_is_killed_and_away_and_nothing_is_dialled_when_it_is_back() {
    let (alta, dale) = (alta(), dale_with_pod());
    let cluster = &alta.cluster;
    let _cleanup = Cleanup(cluster, &["pod/bystander", "pod/lost"]);
    count_at(&alta);
    let mut curl = cluster.exec("kubectl").unwrap();
    curl.args(["exec", APP, "--", "curl", "-sN", "http://alta-web/cgi-bin/count"]);
    let mut stream = spawn(curl, "operator-stream");
    stream.wait_for_line("n 5", Duration::from_secs(30)).unwrap();
    let mut ping = cluster.exec("kubectl").unwrap();
    ping.args(["exec", WITH, "-c", "app", "--", "ping", "-c", "260", "-i", "0.2", INNER]);
    let mut ping = spawn(ping, "operator-ping");
    ping.wait_for_line("seq=0", Duration::from_secs(30)).unwrap();
    let before = (alta.identity(), dale.identity());

    let away = Away::begin(cluster);
    let at_begin = counted(&stream.output().unwrap());
    // Pods that ask for no tunnel do not notice; one that does is refused rather than started without it.
    cluster.apply(&app("bystander", None)).unwrap();
    wait_for_pod(cluster, "bystander").unwrap();
    let bystander = json(cluster, "get pod bystander -o json");
    assert!(bystander["spec"]["initContainers"].is_null(), "{bystander:#}");
    let refused = format!("{:#}", cluster.apply(&app("lost", Some("dale"))).unwrap_err());
    assert!(refused.contains("sidecar.towline.dev"), "{refused}");
    assert!(ping.wait(Duration::from_secs(120)).unwrap().success());
    let said = ping.output().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
    let absence = away.since.elapsed();
    assert!(absence > LONG, "{absence:?}");
    let count = counted(&stream.output().unwrap());
    assert!(count > at_begin + 50, "{count} lines, and {at_begin} when the operator was gone");

    away.end();
    for tunnel in [&alta, &dale] {
        assert_operator_works(tunnel);
    }
    assert_eq!((alta.identity(), dale.identity()), before);
    let end = format!("n {}", count + 5);
    stream.wait_for_line(&end, Duration::from_secs(10)).unwrap();
    counted(stream.output().unwrap().rsplit_once('\n').unwrap().0);
    for tunnel in [&alta, &dale] {
        tunnel.apply();
    }
}

#[test]
fn another_replica_takes_over_from_a_killed_leader_and_ready_stays_true() {
    let alta = alta();
    let cluster = &alta.cluster;
    wait_for_operator(cluster);
    let holder = || {
        let lease = json(cluster, &format!("--namespace {NAMESPACE} get lease towline -o json"));
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("a leader", Duration::from_secs(60), || !holder().is_empty()).unwrap();
    let first = holder();
    let (leader, uid) = pods(cluster).into_iter().find(|(name, _)| first.starts_with(name)).unwrap();
    let before = alta.identity();
    let ready = watch(cluster, "vpntunnel alta", "{.status.conditions[?(@.type==\"Ready\")].status}");

    process_of_pod(&uid, PROCESS).unwrap().signal(Signal::SIGKILL).unwrap();
    kubectl(cluster, &format!("--namespace {NAMESPACE} delete pod {leader} --force --grace-period=0"));
    wait_until("another leader", Duration::from_secs(60), || {
        let now = holder();
        !now.is_empty() && now != first
    })
    .unwrap();
    assert_operator_works(&alta);
    let seen = ready.output().unwrap();
    assert!(seen.lines().count() >= 2 && seen.lines().all(|line| line == "True"), "{seen}");
    assert_eq!(alta.identity(), before);
    alta.apply();
    wait_for_operator(cluster);
}
