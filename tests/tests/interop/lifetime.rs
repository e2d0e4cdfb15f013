//! Security associations that end and begin while packets flow, and a tunnel that ends in order.

use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{INNER, Lns};
use towline_tests::process::run;
use towline_tests::site::Side;
use towline_tests::tunnel::{Pings, Tunnel, fetch_page, metric, wait_for_text};
use towline_tunnel::report::{Report, State};

use super::world::World;

/// Rekeys that the tunnel has counted, of phase 1 and of phase 2.
fn rekeys(world: &World) -> (u64, u64) {
    let of = |layer| metric(&world.host, &format!("vpn_tunnel_rekeys_total{{layer=\"{layer}\"}}")).unwrap();
    (of("ike"), of("ipsec"))
}

pub(super) fn dials(world: &World) -> u64 {
    metric(&world.host, "vpn_tunnel_dials_total").unwrap()
}

pub(super) fn wait_for_rekeys(world: &World, tunnel: &mut Tunnel, ike: u64, ipsec: u64) {
    let done = |_: &Report| {
        let counted = rekeys(world);
        counted.0 >= ike && counted.1 >= ipsec
    };
    tunnel
        .wait_for(&format!("{ike} and {ipsec} rekeys"), Duration::from_secs(300), done)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
}

#[test]
fn ten_rekeys_of_phase_2_and_two_of_phase_1_lose_no_packet() {
    let world = World::new(Lns { dpd: 10, ..Lns::default() }, Side::Lan);
    let (mut tunnel, _) = world.connect(|config| {
        config["ike"]["lifetimeSeconds"] = json!(60);
        config["esp"]["lifetimeSeconds"] = json!(20);
    });
    let pings = Pings::start(&world.host, tunnel.folder()).unwrap();
    wait_for_rekeys(&world, &mut tunnel, 2, 10);
    pings.finish().unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", tunnel.log().unwrap(), world.logs()));
    // The gateway saw them too, and began none.
    let seen = world.gateway.exchanges();
    assert!(seen.main_mode_of_client >= 3 && seen.isakmp_established >= 3, "{seen:?}");
    assert!(seen.quick_mode_of_client >= 11 && seen.esp_established >= 11, "{seen:?}");
    assert_eq!((seen.main_mode_of_gateway, seen.quick_mode_of_gateway), (0, 0), "{seen:?}");
    let report = tunnel.report().unwrap();
    assert!(report.layers.iter().all(|layer| layer.state == State::Up), "{report:#?}");
    assert!(report.negotiated.unwrap().mtu.is_some());
    assert_eq!(dials(&world), 1);
}

#[test]
fn rekeys_that_the_gateway_begins_lose_no_packet() {
    let world = World::new(Lns { esp_life: 20, ike_life: 50, rekey: true, ..Lns::default() }, Side::Wan);
    let (mut tunnel, _) = world.connect(|_| {});
    let pings = Pings::start(&world.host, tunnel.folder()).unwrap();
    wait_for_rekeys(&world, &mut tunnel, 1, 4);
    pings.finish().unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", tunnel.log().unwrap(), world.logs()));
    let seen = world.gateway.exchanges();
    assert!(seen.quick_mode_of_gateway >= 4 && seen.main_mode_of_gateway >= 1, "{seen:?}");
    assert!(seen.isakmp_established >= 2 && seen.esp_established >= 5, "{seen:?}");
    assert_eq!(dials(&world), 1);
}

#[test]
fn a_deleted_pair_of_esp_sas_is_replaced_without_a_new_dial() {
    let world = World::new(Lns::default(), Side::Wan);
    let (mut tunnel, _) = world.connect(|_| {});
    world.gateway.exec("swanctl --terminate --child l2tp").unwrap();
    tunnel
        .wait_for("new pair", Duration::from_secs(30), |_| world.gateway.exchanges().esp_established >= 2)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    tunnel.wait_ready().unwrap();
    assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
    assert_eq!(dials(&world), 1);
}

#[test]
fn an_idle_tunnel_asks_the_gateway_whether_it_lives() {
    let world = World::new(Lns::default(), Side::Wan);
    let (_tunnel, _) = world.connect(|config| {
        config["ike"]["dpd"] = json!({"intervalSeconds": 2, "timeoutSeconds": 10});
        config["healthCheck"] = json!({"type": "Lcp", "intervalSeconds": 60});
    });
    let is_answered = || {
        let log = world.gateway.log("charon");
        let has = |begins: &str, notify: &str| log.lines().any(|line| line.contains(begins) && line.contains(notify));
        has("parsed INFORMATIONAL_V1 request", "N(DPD)") && has("generating INFORMATIONAL_V1 request", "N(DPD_ACK)")
    };
    towline_tests::process::wait_until("R-U-THERE and its answer", Duration::from_secs(30), is_answered)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
}

#[test]
fn a_tunnel_that_ends_says_goodbye_on_every_layer_within_two_seconds() {
    let world = World::new(Lns::default(), Side::Wan);
    let (tunnel, _) = world.connect(|_| {});
    println!("resident memory of the tunnel process: {} KiB", tunnel.resident_memory().unwrap());
    let (status, took, log) = tunnel.stop().unwrap();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}\n{log}");
    let patience = Duration::from_secs(10);
    for text in ["Connection closed to 192.0.2.20, serial", "Connection closed to 192.0.2.20, port"] {
        wait_for_text(text, patience, || world.gateway.log("l2tp")).unwrap();
    }
    for text in ["received DELETE for ESP CHILD_SA", "received DELETE for IKE_SA"] {
        wait_for_text(text, patience, || world.gateway.log("charon")).unwrap();
    }
    let sas = world.gateway.exec("swanctl --list-sas").unwrap();
    assert_eq!(sas.trim(), "", "the gateway keeps SAs");
    // Nothing of the tunnel is left on the host.
    let routes = world.host.ip(&["route", "show", "table", "all"]).unwrap();
    assert!(!routes.contains("10.20.4.0") && !routes.contains("towline0"), "{routes}");
}

#[test]
fn a_tunnel_whose_gateway_is_dead_ends_within_two_seconds() {
    let world = World::new(Lns::default(), Side::Wan);
    let (tunnel, _) = world.connect(|_| {});
    world.gateway.kill();
    let (status, took, log) = tunnel.stop().unwrap();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}\n{log}");
}

#[test]
fn changes_outside_of_the_protocols_take_effect_without_a_new_dial() {
    let world = World::new(Lns::default(), Side::Wan);
    let (mut tunnel, report) = world.connect(|_| {});
    let since = report.established_at;
    assert!(since.is_some(), "{report:?}");
    tunnel
        .change(|config| {
            config["revision"] = json!("2");
            config["network"]["remoteCIDRs"] = json!(["10.20.4.0/24", "10.77.0.0/16"]);
            config["exports"] = json!([{"name": "web", "listen": "127.0.0.1:8888", "host": INNER, "port": 80}]);
        })
        .unwrap();
    let runs = |revision: &'static str| move |report: &Report| report.revision == revision && report.is_ready();
    let report = tunnel.wait_for("revision 2", Duration::from_secs(20), runs("2")).unwrap();
    assert_eq!((report.established_at, dials(&world)), (since, 1));
    assert!(world.host.ip(&["route", "get", "10.77.1.1"]).unwrap().contains("towline0"));
    let page = run(world.host.exec("curl").args(["-sS", "--max-time", "10", "http://127.0.0.1:8888/"]));
    assert_eq!(page.unwrap().trim(), world.lns.page);

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
    assert_eq!((report.established_at, dials(&world)), (since, 1));
}
