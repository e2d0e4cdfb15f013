//! What both ends agree on: algorithms, NAT traversal, PPP authentication.

use std::net::IpAddr;

use serde_json::{Value, json};
use towline_tests::peer::{Guest, Lns, PppAuth};
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, fetch_page};
use towline_tunnel::report::{Nat, Report};

const GATEWAY: &str = "192.0.2.10";

/// Brings a tunnel up from `side` and fetches the page through it.
fn connect(lns: &Lns, side: Side, change: impl FnOnce(&mut Value)) -> Report {
    let site = Site::new().unwrap();
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), lns).unwrap();
    let address = match side {
        Side::Wan => "192.0.2.20",
        Side::Lan => "198.51.100.20",
    };
    let host = site.host("client", side, address).unwrap();
    let mut config = config(GATEWAY);
    change(&mut config);
    let mut tunnel = Tunnel::start(&host, config, lns).unwrap();
    let report = tunnel.wait_ready().unwrap_or_else(|error| {
        panic!("{error:#}\n{}\n{}\n{}", gateway.log("charon"), gateway.log("l2tp"), gateway.log("pppd"))
    });
    assert_eq!(fetch_page(&host).unwrap(), lns.page);
    report
}

/// The proposals and the PPP authentication that were agreed on.
fn agreed(report: &Report) -> (String, String, String) {
    let negotiated = report.negotiated.as_ref().unwrap();
    (negotiated.ike.to_string(), negotiated.esp.unwrap().to_string(), negotiated.ppp_auth.unwrap().to_string())
}

fn words(ike: &str, esp: &str, auth: &str) -> (String, String, String) {
    (ike.to_owned(), esp.to_owned(), auth.to_owned())
}

#[test]
fn aes_256_with_sha_256_and_modp_2048_and_ms_chap_v2_without_a_nat() {
    let report = connect(&Lns::default(), Side::Wan, |_| {});
    assert_eq!(agreed(&report), words("aes256-sha256-modp2048", "aes256-sha256", "MS-CHAPv2"));
    assert!(matches!(report.negotiated.as_ref().unwrap().nat, Nat::None | Nat::Remote), "{report:?}");
    assert_eq!(report.assigned_address, Some("10.20.5.10".parse().unwrap()));
    assert_eq!(report.dns_servers, ["10.20.4.11", "10.20.4.12"].map(|server| server.parse::<IpAddr>().unwrap()));
    assert!(report.negotiated.unwrap().weakness.is_none());
}

#[test]
fn aes_128_with_sha_1_and_modp_1024_and_chap_behind_a_nat() {
    let lns = Lns {
        ike: "aes128-sha1-modp1024".to_owned(),
        esp: "aes128-sha1".to_owned(),
        auth: PppAuth::Chap,
        ..Lns::default()
    };
    let report = connect(&lns, Side::Lan, |config| config["ike"]["security"] = json!("Legacy"));
    assert_eq!(agreed(&report), words("aes128-sha1-modp1024", "aes128-sha1", "CHAP"));
    assert!(matches!(report.negotiated.as_ref().unwrap().nat, Nat::Local | Nat::Both), "{report:?}");
    assert!(report.negotiated.unwrap().weakness.unwrap().to_lowercase().contains("modp"));
}

#[test]
fn triple_des_with_sha_1_and_modp_1024_and_pap() {
    let lns =
        Lns { ike: "3des-sha1-modp1024".to_owned(), esp: "3des-sha1".to_owned(), auth: PppAuth::Pap, ..Lns::default() };
    let report = connect(&lns, Side::Wan, |config| config["ike"]["security"] = json!("Legacy"));
    assert_eq!(agreed(&report), words("3des-sha1-modp1024", "3des-sha1", "PAP"));
}

#[test]
fn ecp_256_and_forced_encapsulation() {
    let lns = Lns {
        ike: "aes256-sha256-ecp256".to_owned(),
        esp: "aes128-sha256".to_owned(),
        force_encapsulation: true,
        ..Lns::default()
    };
    let report = connect(&lns, Side::Wan, |config| config["ike"]["proposals"] = json!(["aes256-sha256-ecp256"]));
    assert_eq!(agreed(&report), words("aes256-sha256-ecp256", "aes128-sha256", "MS-CHAPv2"));
}

#[test]
fn esp_with_aes_gcm_and_tunnel_authentication() {
    let lns = Lns { esp: "aes256gcm16".to_owned(), tunnel_secret: Some("tunnel-secret".to_owned()), ..Lns::default() };
    let report = connect(&lns, Side::Lan, |config| config["esp"]["proposals"] = json!(["aes256gcm16"]));
    assert_eq!(agreed(&report), words("aes256-sha256-modp2048", "aes256gcm16", "MS-CHAPv2"));
}

#[test]
fn perfect_forward_secrecy_and_sha_512() {
    let lns = Lns { ike: "aes256-sha512-ecp384".to_owned(), esp: "aes128gcm16-ecp384".to_owned(), ..Lns::default() };
    let report = connect(&lns, Side::Wan, |config| {
        config["ike"]["proposals"] = json!(["aes256-sha512-ecp384"]);
        config["esp"]["proposals"] = json!(["aes128gcm16-ecp384"]);
    });
    assert_eq!(agreed(&report), words("aes256-sha512-ecp384", "aes128gcm16-ecp384", "MS-CHAPv2"));
}
