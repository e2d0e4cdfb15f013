//! Security associations that end and begin while packets flow, and a tunnel that ends in order.

use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{Guest, INNER, Lns};
use towline_tests::process::Process;
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, fetch_page, wait_for_text};
use towline_tunnel::report::{Report, State};

const GATEWAY: &str = "192.0.2.10";

/// The value of a counter of `/metrics`.
fn metric(host: &towline_tests::netns::Namespace, name: &str) -> u64 {
    let metrics =
        towline_tests::process::run(host.exec("curl").args(["-sS", "http://127.0.0.1:9090/metrics"])).unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

#[test]
fn ten_rekeys_of_phase_2_and_two_of_phase_1_lose_no_packet() {
    let site = Site::new().unwrap();
    let lns = Lns { dpd: 10, ..Lns::default() };
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Lan, "198.51.100.20").unwrap();
    let mut short = config(GATEWAY);
    short["ike"]["lifetimeSeconds"] = json!(60);
    short["esp"]["lifetimeSeconds"] = json!(20);
    let mut tunnel = Tunnel::start(&host, short, &lns).unwrap();
    tunnel.wait_ready().unwrap();
    let mut ping = host.exec("ping");
    ping.args(["-i", "0.05", "-q", INNER]);
    let mut ping = Process::spawn(ping, tunnel.folder().join("ping.log")).unwrap();
    let rekeys = |layer| metric(&host, &format!("vpn_tunnel_rekeys_total{{layer=\"{layer}\"}}"));
    tunnel
        .wait_for("ten rekeys of phase 2 and two of phase 1", Duration::from_secs(300), |_| {
            rekeys("ipsec") >= 10 && rekeys("ike") >= 2
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.log("charon")));
    ping.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    ping.wait(Duration::from_secs(10)).unwrap();
    let said = ping.output().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}\n{}", tunnel.log().unwrap());
    let report = tunnel.report().unwrap();
    assert!(report.layers.iter().all(|layer| layer.state == State::Up), "{report:#?}");
    assert!(report.negotiated.unwrap().mtu.is_some());
}

#[test]
fn rekeys_that_the_gateway_begins_lose_no_packet() {
    let site = Site::new().unwrap();
    let lns = Lns { esp_life: 20, ike_life: 50, rekey: true, ..Lns::default() };
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &lns).unwrap();
    tunnel.wait_ready().unwrap();
    let mut ping = host.exec("ping");
    ping.args(["-i", "0.05", "-q", INNER]);
    let mut ping = Process::spawn(ping, tunnel.folder().join("ping.log")).unwrap();
    tunnel
        .wait_for("four rekeys", Duration::from_secs(200), |_| {
            metric(&host, "vpn_tunnel_rekeys_total{layer=\"ipsec\"}") >= 4
                && metric(&host, "vpn_tunnel_rekeys_total{layer=\"ike\"}") >= 1
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.log("charon")));
    ping.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    ping.wait(Duration::from_secs(10)).unwrap();
    let said = ping.output().unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}\n{}\n{}", tunnel.log().unwrap(), gateway.log("charon"));
}

#[test]
fn a_tunnel_that_ends_says_goodbye_on_every_layer_within_two_seconds() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &lns).unwrap();
    let report = tunnel.wait_ready().unwrap();
    assert!(report.is_ready() && fetch_page(&host).is_ok());
    println!("resident memory of the tunnel process: {} KiB", tunnel.resident_memory().unwrap());
    let (status, took, log) = tunnel.stop().unwrap();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}\n{log}");
    let patience = Duration::from_secs(10);
    for text in ["Connection closed to 192.0.2.20, serial", "Connection closed to 192.0.2.20, port"] {
        wait_for_text(text, patience, || gateway.log("l2tp")).unwrap();
    }
    for text in ["received DELETE for ESP CHILD_SA", "received DELETE for IKE_SA"] {
        wait_for_text(text, patience, || gateway.log("charon")).unwrap();
    }
    // Nothing of the tunnel is left on the host.
    let routes = host.ip(&["route", "show", "table", "all"]).unwrap();
    assert!(!routes.contains("10.20.4.0") && !routes.contains("towline0"), "{routes}");
}

#[test]
fn changes_outside_of_the_protocols_take_effect_without_a_new_dial() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let _gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &lns).unwrap();
    let since = tunnel.wait_ready().unwrap().established_at;
    tunnel
        .change(|config| {
            config["revision"] = json!("2");
            config["network"]["remoteCIDRs"] = json!(["10.20.4.0/24", "10.77.0.0/16"]);
            config["exports"] = json!([{"name": "web", "listen": "127.0.0.1:8888", "host": INNER, "port": 80}]);
        })
        .unwrap();
    let runs = |revision: &'static str| move |report: &Report| report.revision == revision && report.is_ready();
    let report = tunnel.wait_for("revision 2", Duration::from_secs(20), runs("2")).unwrap();
    assert_eq!(report.established_at, since);
    assert!(host.ip(&["route", "get", "10.77.1.1"]).unwrap().contains("towline0"));
    let page =
        towline_tests::process::run(host.exec("curl").args(["-sS", "--max-time", "10", "http://127.0.0.1:8888/"]));
    assert_eq!(page.unwrap().trim(), lns.page);

    // A change that cannot be used stands in the report, and the tunnel goes on.
    tunnel
        .change(|config| {
            config["revision"] = json!("3");
            config["l2tp"] = json!({"helloSeconds": 1});
        })
        .unwrap();
    let refused = |report: &Report| {
        report.rejected_revision.as_ref().is_some_and(|rejected| rejected.message.contains("l2tp.helloSeconds"))
    };
    let report = tunnel.wait_for("refused revision", Duration::from_secs(20), refused).unwrap();
    assert!(report.is_ready() && report.revision == "2");
}
