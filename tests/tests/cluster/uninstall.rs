//! The release is tested, upgraded and uninstalled, and then the cluster is taken down. Its name makes this module the last.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use towline_tests::cluster::Cluster;
use towline_tests::process::{run, wait_until};
use towline_tests::release::{self, NAMESPACE, TEST_CLUSTER, chart, describe};
use towline_tests::tool;

use super::gateway::wait_for_page;
use super::world::{NODE, REPLICAS, alta, cluster, dale_with_pod, forget_release, kubectl, settle};

const PATIENCE: Duration = Duration::from_secs(120);

/// What Kubernetes itself makes in every namespace, and Helm the namespace: neither ever removes them. The node renews its
/// Lease from a moment after it is ready.
const NOT_OF_THE_CHART: [&str; 4] = [
    "Namespace /towline-system",
    "ServiceAccount towline-system/default",
    "ConfigMap towline-system/kube-root-ca.crt",
    "Lease kube-node-lease/test",
];

/// Every kind of object that can be listed, save events, which come and go with time.
pub(super) fn kinds(cluster: &Cluster) -> Vec<String> {
    let kinds = kubectl(cluster, "api-resources --verbs=list -o name");
    let lasting = |kind: &&str| !["events", "events.events.k8s.io", "componentstatuses"].contains(kind);
    kinds.lines().filter(lasting).map(str::to_owned).collect()
}

/// Every object of the cluster as `Kind namespace/name`.
fn objects(cluster: &Cluster) -> BTreeSet<String> {
    let line = r#"-o=jsonpath={range .items[*]}{.kind}{" "}{.metadata.namespace}{"/"}{.metadata.name}{"\n"}{end}"#;
    let kinds = kinds(cluster).join(",");
    let listed = cluster.kubectl(&["get", &kinds, "--all-namespaces", line]).unwrap();
    let counts = |name: &&str| !NOT_OF_THE_CHART.contains(name);
    listed.lines().filter(counts).map(str::to_owned).collect()
}

fn record(cluster: &Cluster) -> PathBuf {
    cluster.kubeconfig().with_file_name("objects-before")
}

/// Writes down what a new cluster has.
pub(super) fn remember(cluster: &Cluster) {
    let record = record(cluster);
    if !record.exists() {
        let objects: Vec<_> = objects(cluster).into_iter().collect();
        fs::write(record, objects.join("\n")).unwrap();
    }
}

/// What the cluster has and a new one has not.
fn left(cluster: &Cluster) -> BTreeSet<String> {
    let before = fs::read_to_string(record(cluster)).unwrap();
    let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
    objects(cluster).difference(&before).cloned().collect()
}

fn uninstall(cluster: &Cluster) {
    forget_release();
    cluster
        .helm(&["uninstall", "towline", "--namespace", NAMESPACE, "--wait", "--timeout", "2m"])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(cluster)));
}

fn replicas() -> String {
    format!("replicas={REPLICAS}")
}

#[test]
fn helm_test_passes() {
    let cluster = cluster();
    cluster
        .helm(&["test", "towline", "--namespace", NAMESPACE, "--timeout", "2m"])
        .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));
}

#[test]
fn an_upgrade_changes_the_definitions_and_leaves_tunnels_as_they_are() {
    let alta = alta();
    let (cluster, before) = (&alta.cluster, alta.identity());
    let folder = tool::target().join("peers/changed-chart");
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    run(Command::new("cp").arg("-r").arg(chart()).arg(&folder)).unwrap();
    let definition = folder.join("files/vpntunnels.towline.dev.yaml");
    let text = fs::read_to_string(&definition).unwrap();
    // A column that this version does not have.
    let column = "additionalPrinterColumns:\n";
    assert_eq!(text.matches(column).count(), 1);
    let (head, rest) = text.split_once(column).unwrap();
    let dash = rest.find('-').unwrap();
    let indent = &rest[..dash];
    let changed = format!(
        "{head}{column}{indent}- jsonPath: .spec.dataPath\n{indent}  name: Path\n{indent}  type: string\n{rest}"
    );
    fs::write(&definition, changed).unwrap();

    let columns = || kubectl(cluster, "get vt alta").lines().next().unwrap_or_default().to_owned();
    assert!(!columns().contains("PATH"));
    forget_release();
    release::upgrade(cluster, &folder, &[&replicas()]).unwrap();
    wait_until("the new column", PATIENCE, || columns().contains("PATH")).unwrap();
    release::upgrade(cluster, &chart(), &[&replicas()]).unwrap();
    wait_until("the end of the column", PATIENCE, || !columns().contains("PATH")).unwrap();
    settle(cluster, "alta");
    assert_eq!(alta.identity(), before);
}

#[test]
fn helm_uninstall_keeps_definitions_and_tunnels_by_default_and_nothing_else_and_takes_all_when_told() {
    let (alta, dale) = (alta(), dale_with_pod());
    let cluster = &alta.cluster;
    wait_for_page(cluster, "http://alta-web/");
    // As the chart has it by default.
    release::upgrade(cluster, &chart(), &[&replicas(), "crds.keep=true"]).unwrap();
    uninstall(cluster);
    // Each Service has an object for its address; that of a Service that is left is listed itself.
    let addresses = "get services --all-namespaces -o=jsonpath={.items[*].spec.clusterIP}";
    let is_of_tunnels = |object: &String| {
        let of_tunnel = ["alta", "bodo", "dale", "road"].iter().any(|name| object.contains(name));
        let of_user = ["Pod default/app", "Pod default/with"].contains(&object.as_str());
        let of_definition = object.starts_with("CustomResourceDefinition ") || object.starts_with("APIService ");
        let of_service = object
            .strip_prefix("IPAddress /")
            .is_some_and(|address| kubectl(cluster, addresses).split_whitespace().any(|used| used == address));
        of_tunnel || of_service || of_user || (of_definition && object.contains("towline.dev"))
    };
    let others = || left(cluster).into_iter().filter(|object| !is_of_tunnels(object)).collect::<Vec<_>>();
    wait_until("the end of all but the tunnels", PATIENCE, || others().is_empty())
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", others()));
    let stayed = left(cluster);
    for object in
        ["CustomResourceDefinition /vpntunnels.towline.dev", "VpnTunnel default/alta", "VpnTunnel default/dale"]
    {
        assert!(stayed.contains(object), "{object} is not in {stayed:?}");
    }
    // The tunnels carry on, and a new release finds them.
    wait_for_page(cluster, "http://alta-web/");
    release::upgrade(cluster, &chart(), &[&replicas()]).unwrap();
    for tunnel in [&alta, &dale] {
        settle(cluster, tunnel.name);
    }

    uninstall(cluster);
    // What belongs to the user.
    kubectl(cluster, "delete pods/app pods/with pods/road-page services/road-page --ignore-not-found --timeout=60s");
    kubectl(cluster, "delete secrets alta-vpn bodo-vpn dale-vpn road-vpn --ignore-not-found");
    wait_until("the end of everything", PATIENCE, || left(cluster).is_empty())
        .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", left(cluster), describe(cluster)));
}

/// The cgroups of this name in every hierarchy of the machine.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter_map(|mount| match mount.split(' ').collect::<Vec<_>>().as_slice() {
            [_, folder, "cgroup" | "cgroup2", ..] => Some(Path::new(folder).join(name)),
            _ => None,
        })
        .filter(|group| group.exists())
        .collect()
}

#[test]
fn the_cluster_goes_down_and_leaves_nothing_on_the_machine() {
    let cluster = Cluster::up(TEST_CLUSTER, NODE).unwrap();
    let node = cluster.namespace().unwrap();
    let bridge = Cluster::bridge().unwrap().namespace().path();
    let folder = cluster.kubeconfig().parent().unwrap().to_owned();
    assert!(node.exists() && folder.exists() && bridge.exists() && !cgroups(node.name()).is_empty());
    forget_release();
    cluster.down().unwrap();
    assert!(!node.exists(), "{}", node.name());
    assert!(!folder.exists(), "{}", folder.display());
    assert_eq!(cgroups(node.name()), Vec::<PathBuf>::new());
    if Cluster::all().unwrap().is_empty() {
        assert!(!bridge.exists(), "{}", bridge.display());
    }
}
