//! What both ends agree on: algorithms, NAT traversal, PPP authentication.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{Lns, PppAuth};
use towline_tests::site::Side;
use towline_tests::tunnel::fetch_page;
use towline_tunnel::report::{Nat, Report};

use super::world::World;

/// Suites of ESP beside those of the other tests, MD5 among them, which is offered only when it is named.
const SUITES: [&str; 7] =
    ["aes256-sha384", "aes256-sha512", "aes192-sha256", "aes192-sha1", "aes128gcm16", "3des-md5", "aes128-md5"];

/// The proposals and the PPP authentication that were agreed on.
fn agreed(report: &Report) -> (String, String, String) {
    let negotiated = report.negotiated.as_ref().unwrap();
    (negotiated.ike.to_string(), negotiated.esp.unwrap().to_string(), negotiated.ppp_auth.unwrap().to_string())
}

fn words(ike: &str, esp: &str, auth: &str) -> (String, String, String) {
    (ike.to_owned(), esp.to_owned(), auth.to_owned())
}

/// What the gateway knows: ESP is in UDP whoever is behind a NAT.
fn assert_in_udp(world: &World) {
    let sas = world.gateway.exec("swanctl --list-sas").unwrap();
    assert!(sas.contains("TRANSPORT-in-UDP"), "{sas}");
    // We hide our address from it on purpose, so that it agrees to UDP.
    assert!(world.gateway.log("charon").contains("remote host is behind NAT"), "{}", world.logs());
}

#[test]
fn aes_256_with_sha_256_and_modp_2048_and_ms_chap_v2_without_a_nat() {
    let world = World::new(Lns::default(), Side::Wan);
    let (_tunnel, report) = world.connect(|_| {});
    assert_eq!(agreed(&report), words("aes256-sha256-modp2048", "aes256-sha256", "MS-CHAPv2"));
    assert_eq!(report.negotiated.as_ref().unwrap().nat, Nat::None);
    assert_in_udp(&world);
    assert_eq!(report.assigned_address, Some("10.20.5.10".parse().unwrap()));
    assert_eq!(report.dns_servers, ["10.20.4.11", "10.20.4.12"].map(|server| server.parse::<IpAddr>().unwrap()));
    assert!(report.negotiated.unwrap().weakness.is_none());
}

#[test]
fn aes_128_with_sha_1_and_modp_1024_and_chap_behind_a_nat() {
    let (ike, esp) = ("aes128-sha1-modp1024".to_owned(), "aes128-sha1".to_owned());
    let world = World::new(Lns { ike, esp, auth: PppAuth::Chap, ..Lns::default() }, Side::Lan);
    let (_tunnel, report) = world.connect(|config| config["ike"]["security"] = json!("Legacy"));
    assert_eq!(agreed(&report), words("aes128-sha1-modp1024", "aes128-sha1", "CHAP"));
    assert_eq!(report.negotiated.as_ref().unwrap().nat, Nat::Local);
    assert_in_udp(&world);
    assert!(report.negotiated.unwrap().weakness.unwrap().to_lowercase().contains("modp"));
}

#[test]
fn triple_des_with_sha_1_and_modp_1024_and_pap() {
    let (ike, esp) = ("3des-sha1-modp1024".to_owned(), "3des-sha1".to_owned());
    let world = World::new(Lns { ike, esp, auth: PppAuth::Pap, ..Lns::default() }, Side::Wan);
    let (_tunnel, report) = world.connect(|config| config["ike"]["security"] = json!("Legacy"));
    assert_eq!(agreed(&report), words("3des-sha1-modp1024", "3des-sha1", "PAP"));
}

#[test]
fn ecp_256_and_encapsulation_that_the_gateway_forces() {
    let (ike, esp) = ("aes256-sha256-ecp256".to_owned(), "aes128-sha256".to_owned());
    let world = World::new(Lns { ike, esp, force_encapsulation: true, ..Lns::default() }, Side::Wan);
    let (_tunnel, report) = world.connect(|config| config["ike"]["proposals"] = json!(["aes256-sha256-ecp256"]));
    assert_eq!(agreed(&report), words("aes256-sha256-ecp256", "aes128-sha256", "MS-CHAPv2"));
    // It says that it is behind a NAT; nobody can tell that from the truth.
    assert_eq!(report.negotiated.unwrap().nat, Nat::Remote);
    assert_in_udp(&world);
}

#[test]
fn esp_with_aes_gcm_and_tunnel_authentication() {
    let lns = Lns { esp: "aes256gcm16".to_owned(), tunnel_secret: Some("tunnel-secret".to_owned()), ..Lns::default() };
    let world = World::new(lns, Side::Lan);
    let (_tunnel, report) = world.connect(|config| config["esp"]["proposals"] = json!(["aes256gcm16"]));
    assert_eq!(agreed(&report), words("aes256-sha256-modp2048", "aes256gcm16", "MS-CHAPv2"));
}

#[test]
fn perfect_forward_secrecy_and_sha_512() {
    let (ike, esp) = ("aes256-sha512-ecp384".to_owned(), "aes128gcm16-ecp384".to_owned());
    let world = World::new(Lns { ike, esp, ..Lns::default() }, Side::Wan);
    let (_tunnel, report) = world.connect(|config| {
        config["ike"]["proposals"] = json!(["aes256-sha512-ecp384"]);
        config["esp"]["proposals"] = json!(["aes128gcm16-ecp384"]);
    });
    assert_eq!(agreed(&report), words("aes256-sha512-ecp384", "aes128gcm16-ecp384", "MS-CHAPv2"));
}

#[test]
fn a_gateway_that_demands_perfect_forward_secrecy_gets_it_without_being_asked_for() {
    let world = World::new(Lns { esp: "aes256-sha256-modp2048".to_owned(), ..Lns::default() }, Side::Wan);
    let (_tunnel, report) = world.connect(|_| {});
    assert_eq!(agreed(&report), words("aes256-sha256-modp2048", "aes256-sha256-modp2048", "MS-CHAPv2"));
}

#[test]
fn every_other_suite_of_esp_carries_the_page() {
    let world = World::new(Lns { esp: SUITES.join(","), ..Lns::default() }, Side::Wan);
    let (mut tunnel, report) = world.connect(|config| config["esp"]["proposals"] = json!([SUITES[0]]));
    assert_eq!(agreed(&report).1, SUITES[0]);
    for suite in &SUITES[1..] {
        tunnel.change(|config| config["esp"]["proposals"] = json!([suite])).unwrap();
        let agreed_on = |report: &Report| {
            let esp = report.negotiated.as_ref().and_then(|negotiated| negotiated.esp);
            report.is_ready() && esp.is_some_and(|esp| esp.to_string() == *suite)
        };
        tunnel
            .wait_for(&format!("tunnel with {suite}"), Duration::from_secs(60), agreed_on)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
        assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page, "{suite}");
    }
}

#[test]
fn compression_that_the_gateway_offers_is_refused_and_the_link_comes_up() {
    let world = World::new(Lns { compression: true, ..Lns::default() }, Side::Wan);
    let (_tunnel, _) = world.connect(|_| {});
    let log = world.gateway.log("pppd");
    assert!(log.contains("sent [CCP ConfReq"), "nothing was offered: {log}");
    assert!(log.contains("rcvd [LCP ProtRej"), "it was not refused: {log}");
}
