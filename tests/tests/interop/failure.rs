//! What goes wrong has a reason of its own, and a message that says what to do.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{Guest, INNER, Lns, PppAuth};
use towline_tests::process::run;
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, pings};
use towline_tunnel::report::{Layer, Reason};

use super::world::{GATEWAY, World, assert_failed};

#[test]
fn what_the_gateway_refuses_is_told_layer_by_layer_and_put_right_without_a_restart() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let _gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();

    // No proposal in common.
    let mut unlike = config(GATEWAY);
    unlike["ike"]["proposals"] = json!(["aes128-sha1-modp1024"]);
    let mut tunnel = Tunnel::start(&host, unlike, &lns).unwrap();
    let failed = tunnel.wait_down(Layer::Ike).unwrap();
    assert_failed(&failed, Reason::NoProposalChosen, &["NO-PROPOSAL-CHOSEN", "ike.proposals"]);

    // Nothing for the remote network leaves another way meanwhile.
    let sent = run(host.exec("ping").args(["-c1", "-W1", INNER])).unwrap_err().to_string();
    assert!(sent.contains("No route to host"), "{sent}");

    // The wrong pre-shared key.
    tunnel.change_secret("preSharedKey", "not the key").unwrap();
    tunnel.change(|config| config["ike"]["proposals"] = json!([])).unwrap();
    let is_wrong = |report: &towline_tunnel::report::Report| {
        report.layer(Layer::Ike).is_some_and(|ike| ike.reason == Reason::AuthenticationFailed)
    };
    let report = tunnel.wait_for("authentication failure", Duration::from_secs(60), is_wrong).unwrap();
    assert_failed(report.layer(Layer::Ike).unwrap(), Reason::AuthenticationFailed, &["pre-shared key"]);

    // The right one, with the wrong password.
    tunnel.change_secret("password", "looking-glass").unwrap();
    tunnel.change_secret("preSharedKey", &lns.psk).unwrap();
    let failed = tunnel.wait_down(Layer::Ppp).unwrap();
    assert_failed(&failed, Reason::PppAuthenticationFailed, &["MS-CHAPv2", "password"]);

    // All is right.
    tunnel.change_secret("password", &lns.password).unwrap();
    tunnel.wait_ready().unwrap();
    assert!(pings(&host));
    let log = tunnel.log().unwrap();
    for secret in [&lns.psk, &lns.password, "not the key", "looking-glass"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[test]
fn a_wrong_password_is_told_with_each_protocol() {
    let world = World::new(Lns::default(), Side::Wan);
    let wrong = Lns { password: "looking-glass".to_owned(), ..Lns::default() };
    for (auth, name) in [(PppAuth::Pap, "PAP"), (PppAuth::Chap, "CHAP")] {
        world.gateway.demand(auth).unwrap();
        let mut tunnel = Tunnel::start(&world.host, config(GATEWAY), &wrong).unwrap();
        let failed = tunnel.wait_down(Layer::Ppp).unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
        assert_failed(&failed, Reason::PppAuthenticationFailed, &[name, "password"]);
        tunnel.stop().unwrap();
    }
}

#[test]
fn a_refused_call_carries_the_words_of_the_gateway() {
    let site = Site::new().unwrap();
    let lns = Lns { single_address: true, ..Lns::default() };
    let _gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let first = site.host("first", Side::Wan, "192.0.2.20").unwrap();
    let mut holder = Tunnel::start(&first, config(GATEWAY), &lns).unwrap();
    holder.wait_ready().unwrap();
    let second = site.host("second", Side::Wan, "192.0.2.21").unwrap();
    let mut tunnel = Tunnel::start(&second, config(GATEWAY), &lns).unwrap();
    let failed = tunnel.wait_down(Layer::L2tp).unwrap();
    assert_failed(&failed, Reason::L2tpRefused, &["No available IP address"]);
    assert!(holder.report().unwrap().is_ready());
}

#[test]
fn a_phase_2_without_a_common_proposal_is_told() {
    let site = Site::new().unwrap();
    let lns = Lns { esp: "aes256-sha512".to_owned(), ..Lns::default() };
    let _gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut unlike = config(GATEWAY);
    unlike["esp"]["proposals"] = json!(["aes128-sha1"]);
    let mut tunnel = Tunnel::start(&host, unlike, &lns).unwrap();
    assert_failed(&tunnel.wait_down(Layer::Ipsec).unwrap(), Reason::QuickModeRejected, &["esp.proposals"]);
}

#[test]
fn a_silent_peer_is_told_from_one_that_refuses() {
    let site = Site::new().unwrap();
    // It is there and drops everything, as a firewall does.
    let silent = site.host("silent", Side::Wan, GATEWAY).unwrap();
    run(silent.exec("nft").arg("table ip silence { chain in { type filter hook input priority 0; policy drop; }; }"))
        .unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &Lns::default()).unwrap();
    assert_failed(&tunnel.wait_down(Layer::Peer).unwrap(), Reason::PeerSilent, &["UDP 500 and 4500"]);
}

#[test]
fn a_name_without_an_address_and_a_missing_secret_are_told() {
    let site = Site::new().unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config("gateway.invalid"), &Lns::default()).unwrap();
    assert_failed(&tunnel.wait_down(Layer::Peer).unwrap(), Reason::PeerUnresolvable, &["gateway.invalid"]);
    std::fs::remove_file(tunnel.folder().join("preSharedKey")).unwrap();
    assert_failed(&tunnel.wait_down(Layer::Credentials).unwrap(), Reason::CredentialsMissing, &["preSharedKey"]);
}

#[test]
fn a_tunnel_that_cannot_start_says_why_and_leaves_nothing() {
    let site = Site::new().unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let state = || (host.ip(&["route", "show", "table", "all"]).unwrap(), host.ip(&["rule", "show"]).unwrap());
    let before = state();
    let _taken = host.inside(|| TcpListener::bind("127.0.0.1:9090")).unwrap().unwrap();
    let (status, log) = Tunnel::start(&host, config(GATEWAY), &Lns::default()).unwrap().wait_end().unwrap();
    assert!(!status.success(), "{log}");
    assert!(log.contains("127.0.0.1:9090"), "{log}");
    assert_eq!(state(), before);
}
