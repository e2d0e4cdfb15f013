//! `attachment: Sidecar`.

use std::time::Duration;

use towline_tests::peer::{INNER, Lns};
use towline_tests::process::{Process, run};
use towline_tests::release::{NAMESPACE, app, describe, fetch, secret, sidecar_tunnel, wait_for_pod, wait_ready};
use towline_tests::site::{Capture, tshark};
use towline_tests::tool;

use super::world::{Cleanup, cluster, gateway};

const ADDRESS: &str = "192.0.2.42";

#[test]
fn a_labelled_pod_reaches_the_remote_network_and_nothing_of_it_is_in_clear() {
    let cluster = cluster();
    let _cleanup = Cleanup(&cluster, &["pod/with", "pod/without", "pod/lost", "vpntunnel/direct", "secret/direct-vpn"]);
    let lns = Lns::default();
    let _peer = gateway(&cluster, ADDRESS, &lns);
    cluster.apply(&secret("direct-vpn", &lns)).unwrap();
    cluster.apply(&sidecar_tunnel("direct", ADDRESS, "direct-vpn")).unwrap();
    let node = cluster.namespace().unwrap();
    let capture = Capture::start(&node, "any", "sidecar").unwrap();
    // Its first container asks at once: it must not start before the tunnel is up.
    let eager = app("with", Some("direct")).replace(
        "command: [/bin/sleep, '1000000']",
        &format!("command: [/bin/sh, -c, 'wget -q -T 5 -O /first http://{INNER}/; sleep 1000000']"),
    );
    cluster.apply(&eager).unwrap_or_else(|error| panic!("{error:#}\n{}", describe(&cluster)));
    wait_for_pod(&cluster, "with").unwrap();
    wait_ready(&cluster, "direct").unwrap();
    let first = cluster.kubectl(&["exec", "with", "-c", "app", "--", "cat", "/first"]).unwrap();
    assert_eq!(first.trim(), lns.page);
    assert_eq!(fetch(&cluster, "with", &format!("http://{INNER}/")).unwrap(), lns.page);

    // The operator dies while packets flow: none is lost.
    let mut ping = cluster.exec("kubectl").unwrap();
    ping.args(["exec", "with", "-c", "app", "--", "ping", "-c", "60", "-i", "0.2", "-q", INNER]);
    let mut ping = Process::spawn(ping, tool::target().join("peers/sidecar-ping.log")).unwrap();
    let operators = [
        "--namespace",
        NAMESPACE,
        "delete",
        "pods",
        "-l",
        "app.kubernetes.io/name=towline",
        "--force",
        "--grace-period=0",
    ];
    cluster.kubectl(&operators).unwrap();
    ping.wait(Duration::from_secs(60)).unwrap();
    let said = ping.output().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");

    // A pod without the label is not touched, whatever the operator does.
    cluster.apply(&app("without", None)).unwrap();
    wait_for_pod(&cluster, "without").unwrap();
    let containers = cluster.kubectl(&["get", "pod", "without", "-o=jsonpath={.spec.initContainers}"]).unwrap();
    assert_eq!(containers.trim(), "");
    let capture = capture.stop().unwrap();
    let clear = tshark(&capture, &["-Y", "ip.addr == 10.20.4.0/24"]).unwrap();
    assert_eq!(clear, "");
    let other = format!("ip.addr == {ADDRESS} && !(udp.port == 500 || udp.port == 4500)");
    assert_eq!(tshark(&capture, &["-Y", &other]).unwrap(), "", "the gateway sees more than UDP 500 and 4500");
    let octets = std::fs::read(&capture).unwrap();
    assert!(!octets.windows(lns.page.len()).any(|window| window == lns.page.as_bytes()), "the page is in clear");
    let esp = tshark(&capture, &["-Y", "udp.port == 4500"]).unwrap();
    assert!(!esp.is_empty(), "the capture saw nothing at all");

    // A label that names no tunnel is refused with the remedy.
    run(cluster.exec("kubectl").unwrap().args([
        "--namespace",
        NAMESPACE,
        "rollout",
        "status",
        "deployment/towline",
        "--timeout=120s",
    ]))
    .unwrap();
    let refused = cluster.apply(&app("lost", Some("absent"))).unwrap_err();
    assert!(format!("{refused:#}").contains("names a VpnTunnel that namespace default does not have"), "{refused:#}");
}
