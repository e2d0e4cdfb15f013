//! Gateways that refuse the first way of dialling, and are dialled by the one that worked when they come back.

use std::time::Duration;

use serde_json::{Value, json};
use towline_tests::peer::{Guest, Lns};
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, metric, pings};
use towline_tunnel::report::{Layer, Reason, Report};

use super::world::{GATEWAY, World, assert_failed};

const NAME: &str = "branch.example.com";

/// A gateway that knows the client by this identity alone.
fn that_takes(id: &str) -> Lns {
    Lns { remote_id: Some(id.to_owned()), ..Lns::default() }
}

fn named(kind: &str) -> impl FnOnce(&mut Value) {
    let id = json!({"type": kind, "value": NAME});
    move |config| config["ike"]["localId"] = id
}

fn rung(report: &Report) -> &str {
    report.negotiated.as_ref().and_then(|negotiated| negotiated.rung.as_deref()).unwrap_or_default()
}

#[test]
fn an_identity_is_told_in_the_form_that_the_gateway_takes() {
    for (takes, rungs, refusals) in [
        (format!("keyid:{NAME}"), "Strong proposals", 0),
        (format!("fqdn:{NAME}"), "Strong proposals, identity as Fqdn", 1),
        ("192.0.2.20".to_owned(), "Strong proposals, identity as own Address", 2),
    ] {
        let world = World::new(that_takes(&takes), Side::Wan);
        let (_tunnel, report) = world.connect(named("KeyId"));
        assert_eq!(rung(&report), rungs, "{takes}");
        let log = world.gateway.log("charon");
        assert_eq!(log.matches("N(AUTH_FAILED)").count(), refusals, "{log}");
        assert_eq!(world.gateway.exchanges().main_mode_of_client, 1 + refusals, "{log}");
    }
}

#[test]
fn a_gateway_that_takes_no_form_of_the_identity_is_told_with_all_that_was_tried() {
    let world = World::new(that_takes("fqdn:somebody-else.example.com"), Side::Wan);
    let mut tunnel = world.start(named("Fqdn"));
    let failed = tunnel.wait_down(Layer::Ike).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    let words =
        ["AUTHENTICATION-FAILED", "ike.localId", "identity as KeyId; identity as own Address", "tried again in"];
    assert_failed(&failed, Reason::AuthenticationFailed, &words);
}

#[test]
fn a_gateway_that_is_back_is_dialled_by_the_rung_that_worked() {
    let site = Site::new().unwrap();
    // Two things that the first way of dialling has not.
    let lns = Lns { esp: "aes256-sha256-modp2048".to_owned(), ..that_takes(&format!("fqdn:{NAME}")) };
    let boot = || Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let gateway = boot();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut config = config(GATEWAY);
    named("KeyId")(&mut config);
    let mut tunnel = Tunnel::start(&host, config, &lns).unwrap();
    let report = tunnel.wait_ready().unwrap();
    let expected = "Strong proposals, modp2048 in phase 2 (PFS), identity as Fqdn";
    assert_eq!(rung(&report), expected);
    let seen = gateway.exchanges();
    assert_eq!((seen.main_mode_of_client, seen.quick_mode_of_client), (2, 2), "{seen:?}");
    gateway.kill();
    tunnel.wait_for("loss of the gateway", Duration::from_secs(90), |report| !report.is_ready()).unwrap();

    let gateway = boot();
    let report = tunnel.wait_for("new tunnel", Duration::from_secs(180), Report::is_ready).unwrap();
    assert_eq!(rung(&report), expected);
    let (seen, log) = (gateway.exchanges(), gateway.log("charon"));
    assert_eq!((seen.isakmp_established, seen.quick_mode_of_client), (1, 1), "{log}");
    assert!(!log.contains("N(AUTH_FAILED)") && !log.contains("NO_PROP"), "{log}");
    for (facet, climbs) in [("identity", 1), ("pfs", 1)] {
        let name = format!("vpn_tunnel_climbs_total{{facet=\"{facet}\"}}");
        assert_eq!(metric(&host, &name).unwrap(), climbs, "{facet}");
    }
    assert!(pings(&host));
}
