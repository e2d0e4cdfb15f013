//! `mode: Server`, from `kubectl apply` to a foreign client that dials the Service's address and reaches Services.

use std::time::Duration;

use serde_json::Value;
use towline_tests::cluster::Cluster;
use towline_tests::image;
use towline_tests::peer::{Guest, Lac, Lns};
use towline_tests::process::wait_until;
use towline_tests::release::{condition, describe, tunnel, wait_for_pod};

use super::world::{Cleanup, NODE, cluster, json, kubectl, lns, pod_of, settle};

/// The server, whose Secret is `road-vpn`.
pub(super) const ROAD: &str = "road";
/// Its address inside every link.
pub(super) const LOCAL: &str = "10.99.0.1";
/// The port there of the Service `road-page`.
pub(super) const PAGE_PORT: u16 = 8080;
/// What that Service's page says.
pub(super) const PAGE: &str = "towline test application";

/// How long a session may take to come or to go, and a change to reach the pod.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// The addresses of the cluster's Services.
fn services(cluster: &Cluster) -> String {
    let first = kubectl(cluster, "get service kubernetes -o=jsonpath={.spec.clusterIP}");
    let network: Vec<&str> = first.trim().split('.').take(2).collect();
    format!("{}.0.0/16", network.join("."))
}

/// A pod with a web page and the Service of the same name.
pub(super) fn page(name: &str, text: &str) -> String {
    let serve = format!("mkdir /tmp/www && echo {text} > /tmp/www/index.html && exec httpd -f -p 80 -h /tmp/www");
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: app, image: {}, imagePullPolicy: Never, command: [/bin/sh, -c, {serve:?}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80}}]}}
",
        image::APP
    )
}

/// Somebody who may dial in to [`ROAD`], with the key of their name in its Secret.
pub(super) fn user(name: &str, more: &str) -> String {
    format!(
        "apiVersion: towline.dev/v1alpha1
kind: VpnUser
metadata: {{name: {ROAD}-{name}}}
spec: {{tunnelName: {ROAD}, username: {name}, passwordSecret: {{name: {ROAD}-vpn, key: {name}}}{more}}}
"
    )
}

/// The Secret with a password of each of `names`.
pub(super) fn passwords(names: &[&str]) -> String {
    let Lns { psk, password, .. } = lns();
    let keys: String = names.iter().map(|name| format!("  {name}: {password}-{name}\n")).collect();
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {ROAD}-vpn}}\nstringData:\n  psk: {psk}\n{keys}")
}

/// The server, with further lines of its specification.
pub(super) fn server(cluster: &Cluster, more: &str) -> String {
    let services = services(cluster);
    format!(
        "apiVersion: towline.dev/v1alpha1
kind: VpnTunnel
metadata: {{name: {ROAD}}}
spec:
  mode: Server
  server:
    preSharedKeys: [{{name: {ROAD}-vpn}}]
    pools: [10.99.0.0/24]
    forwarding: {{networks: [{services}]}}
    service: {{type: ClusterIP, externalIPs: [{NODE}]}}
  imports: [{{name: page, serviceName: {ROAD}-page, servicePort: 80, port: {PAGE_PORT}}}]
  log: {{level: Debug}}
{more}"
    )
}

/// The server as the tests share it, with the users alice and bob; it is up.
pub(super) fn road() -> Cluster {
    let cluster = cluster();
    let objects = [
        passwords(&["alice", "bob"]),
        server(&cluster, ""),
        user("alice", ""),
        user("bob", ""),
        page(&format!("{ROAD}-page"), PAGE),
    ];
    cluster.apply(&objects.join("---\n")).unwrap();
    wait_for_pod(&cluster, &format!("{ROAD}-page")).unwrap();
    settle(&cluster, ROAD);
    wait_for_user(&cluster, "alice", "acceptance", |user| condition(user, "Accepted").0 == "True");
    cluster
}

/// A foreign client on the network of the nodes, which has not dialled yet.
fn client(cluster: &Cluster, user: &str, password: &str) -> Guest {
    let like = Lns { user: user.to_owned(), password: password.to_owned(), ..lns() };
    let lac = Lac { routes: vec![services(cluster)], ..Lac::new(&NODE.to_string(), like) };
    Guest::lac(&Cluster::bridge().unwrap(), "client", "192.0.2.44", &NODE.to_string(), &lac).unwrap()
}

/// The same with the user's password.
fn client_of(cluster: &Cluster, user: &str) -> Guest {
    client(cluster, user, &format!("{}-{user}", lns().password))
}

/// Both sides of a story that did not go as it should.
fn logs(cluster: &Cluster, client: &Guest) -> String {
    let client = ["charon", "l2tp", "pppd"].map(|name| client.log(name)).join("\n");
    format!("{}\n== client\n{client}", describe(cluster))
}

fn dial(cluster: &Cluster, client: &Guest) -> String {
    client.dial().unwrap_or_else(|error| panic!("{error:#}\n{}", logs(cluster, client)))
}

/// Waits until the status of a user is as `wanted` says; returns the user.
pub(super) fn wait_for_user(cluster: &Cluster, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut user = Value::Null;
    wait_until(&format!("{what} of {name}"), PATIENCE, || {
        user = json(cluster, &format!("get vpnuser {ROAD}-{name} -o json"));
        user["status"]["observedGeneration"] == user["metadata"]["generation"] && wanted(&user)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {user:#}\n{}", describe(cluster)));
    user
}

/// Waits until the server's status counts so many sessions.
fn wait_for_sessions(cluster: &Cluster, number: u32) {
    wait_until(&format!("{number} sessions"), PATIENCE, || {
        tunnel(cluster, ROAD).is_ok_and(|tunnel| tunnel["status"]["sessions"] == number)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", describe(cluster)));
}

#[test]
fn a_foreign_client_dials_the_service_and_reaches_services_by_import_and_by_their_own_addresses() {
    let cluster = road();
    let status = tunnel(&cluster, ROAD).unwrap();
    let (ready, reason, _) = condition(&status, "Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("True", "Serving"), "{status:#}");
    for kind in ["Accepted", "Provisioned", "CredentialsResolved", "Listening", "Forwarding"] {
        assert_eq!(condition(&status, kind).0, "True", "{kind}: {status:#}");
    }
    assert_eq!(status["status"]["sessions"], 0);
    let row = kubectl(&cluster, &format!("get vt {ROAD} --no-headers"));
    for word in ["True", "Serving", "Server", &NODE.to_string()] {
        assert!(row.contains(word), "{word} is not in {row}");
    }

    let client = client_of(&cluster, "alice");
    let link = dial(&cluster, &client);
    assert!(link.contains(&format!("remote={LOCAL}")) && link.contains("local=10.99.0."), "{link}");
    let by_address = kubectl(&cluster, &format!("get service {ROAD}-page -o=jsonpath={{.spec.clusterIP}}"));
    for address in [format!("{LOCAL}:{PAGE_PORT}"), by_address.trim().to_owned()] {
        let page = client.fetch(&address);
        let page = page.unwrap_or_else(|error| panic!("{error:#}\n{}", logs(&cluster, &client)));
        assert_eq!(page, PAGE, "{address}");
    }
    // What is no Service is not forwarded to, and of the pod itself nothing but the import is reached.
    for address in [format!("{NODE}:6443"), format!("{LOCAL}:9090")] {
        client.exec(&format!("ip route replace {}/32 dev ppp0", address.split_once(':').unwrap().0)).unwrap();
        client.exec(&format!("curl -s --max-time 3 -o /dev/null http://{address}/")).unwrap_err();
    }
    wait_for_sessions(&cluster, 1);
    let alice = wait_for_user(&cluster, "alice", "session", |user| user["status"]["sessions"] == 1);
    assert_eq!(alice["status"]["lastResult"], "accepted", "{alice:#}");
    assert!(alice["status"]["lastAttemptTime"].is_string(), "{alice:#}");
    client.exec(&format!("ip route del {NODE}/32 dev ppp0")).unwrap();
    client.hang_up().unwrap();
    wait_for_sessions(&cluster, 0);
}

#[test]
fn a_wrong_password_shows_at_the_user() {
    let cluster = road();
    let bob = wait_for_user(&cluster, "bob", "acceptance", |user| condition(user, "Accepted").0 == "True");
    assert_ne!(bob["status"]["lastResult"], "accepted");
    let client = client(&cluster, "bob", "marker-4711-wrong");
    client.dial().unwrap_err();
    let result = |user: &Value| user["status"]["lastResult"].as_str().unwrap_or_default().to_owned();
    let bob = wait_for_user(&cluster, "bob", "refusal", |user| !result(user).is_empty());
    assert_eq!(result(&bob), "wrong_password", "{bob:#}");
    assert_eq!(bob["status"]["sessions"], 0);
    assert_eq!(condition(&tunnel(&cluster, ROAD).unwrap(), "Ready").0, "True");
}

#[test]
fn the_session_of_a_suspended_user_ends_and_its_client_is_refused_until_the_user_may_come_in_again() {
    let cluster = road();
    let pod = pod_of(&cluster, ROAD);
    let client = client_of(&cluster, "alice");
    dial(&cluster, &client);
    wait_for_sessions(&cluster, 1);
    cluster.apply(&user("alice", ", suspend: true")).unwrap();
    wait_until("the end of the session", PATIENCE, || !client.is_up())
        .unwrap_or_else(|error| panic!("{error:#}\n{}", logs(&cluster, &client)));
    wait_for_sessions(&cluster, 0);
    client.hang_up().unwrap();
    client.dial().unwrap_err();
    wait_for_user(&cluster, "alice", "refusal", |user| user["status"]["lastResult"] == "suspended");

    cluster.apply(&user("alice", "")).unwrap();
    let mut refused = String::new();
    wait_until("the client to be let in", PATIENCE, || {
        let dialled = client.hang_up().and_then(|()| client.dial());
        refused = dialled.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
        dialled.is_ok()
    })
    .unwrap_or_else(|error| panic!("{error:#}: {refused}\n{}", logs(&cluster, &client)));
    assert_eq!(client.fetch(&format!("{LOCAL}:{PAGE_PORT}")).unwrap(), PAGE);
    assert_eq!(pod_of(&cluster, ROAD), pod);
}

#[test]
fn a_user_whose_password_is_added_to_the_secret_gets_in_without_a_new_pod() {
    let cluster = road();
    let pod = pod_of(&cluster, ROAD);
    let _cleanup = Cleanup(&cluster, &["vpnuser/road-carol"]);
    cluster.apply(&[passwords(&["alice", "bob", "carol"]), user("carol", "")].join("---\n")).unwrap();
    wait_for_user(&cluster, "carol", "acceptance", |user| condition(user, "Accepted").0 == "True");
    settle(&cluster, ROAD);
    let client = client_of(&cluster, "carol");
    dial(&cluster, &client);
    assert_eq!(client.fetch(&format!("{LOCAL}:{PAGE_PORT}")).unwrap(), PAGE);
    let carol = wait_for_user(&cluster, "carol", "session", |user| user["status"]["sessions"] == 1);
    assert_eq!(carol["status"]["lastResult"], "accepted", "{carol:#}");
    assert_eq!(pod_of(&cluster, ROAD), pod);
}
