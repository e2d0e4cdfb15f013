//! The foreign peers talk to each other: when this fails, the harness is at fault and not the tunnel.

use towline_tests::peer::pki::{Authority, Key, Validity};
use towline_tests::peer::{Guest, INNER, Lac, Lns, PppAuth, is_kept};
use towline_tests::site::{Home, Side, Site};

const GATEWAY: &str = "192.0.2.10";

#[test]
fn a_foreign_client_fetches_the_page_behind_a_foreign_gateway() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let gateway = Guest::lns(&site.wan, "lns", "192.0.2.10", Side::Wan.router(), &lns).unwrap();
    let lac = Lac::new("192.0.2.10", lns.clone());
    let client = Guest::lac(&site.lan, "lac", "198.51.100.20", Side::Lan.router(), &lac).unwrap();
    let link =
        client.dial().unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", gateway.log("charon"), gateway.log("l2tp")));
    assert!(link.contains("local=10.20.5.10"), "{link}");
    let page = client.exec(&format!("curl -sS --max-time 10 http://{INNER}/")).unwrap();
    assert_eq!(page.trim(), lns.page);
}

#[test]
fn foreign_peers_with_certificates_accept_each_other_and_no_certificate_of_another_authority() {
    let site = Site::new().unwrap();
    for key in [Key::Rsa, Key::Ecdsa256] {
        let authority = Authority::new("root", key).unwrap();
        let server = authority.issue("server", &format!("IP:{GATEWAY}"), Validity::Valid).unwrap();
        let client = authority.intermediate("below").unwrap().issue("client", "", Validity::Valid).unwrap();
        let lns = |certificate| Lns { certificate: Some(certificate), ..Lns::default() };
        let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns(server)).unwrap();
        let boot = |certificate| {
            let lac = Lac::new(GATEWAY, lns(certificate));
            Guest::lac(&site.wan, "lac", "192.0.2.20", Side::Wan.router(), &lac).unwrap()
        };
        let lac = boot(client);
        lac.dial().unwrap_or_else(|error| panic!("{key:?}: {error:#}\n{}", gateway.log("charon")));
        assert_eq!(lac.fetch(INNER).unwrap(), Lns::default().page);
        lac.kill();
        let mut foreign = Authority::new("foreign", key).unwrap().issue("client", "", Validity::Valid).unwrap();
        foreign.authority = authority.issue("other", "", Validity::Valid).unwrap().authority;
        boot(foreign).dial_ipsec().unwrap_err();
        let log = gateway.log("charon");
        assert!(log.contains("no trusted") || log.contains("no issuer certificate found"), "{key:?}: {log}");
    }
}

#[test]
fn clients_of_two_homes_behind_one_nat_come_with_the_same_inner_address() {
    let site = Site::new().unwrap();
    let lns = Lns { auth: PppAuth::Eap, ..Lns::default() };
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    for outer in ["198.51.100.31", "198.51.100.32"] {
        let home = site.home(outer).unwrap();
        let lac =
            Guest::lac(&home.bridge, "lac", "192.168.1.20", Home::ROUTER, &Lac::new(GATEWAY, lns.clone())).unwrap();
        lac.dial().unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.log("pppd")));
        assert_eq!(lac.fetch(INNER).unwrap(), lns.page);
        let pings = lac.start_pings(INNER).unwrap();
        assert!(pings.finish().unwrap() >= 5);
        lac.hang_up().unwrap();
        assert!(!lac.is_up());
    }
    let log = gateway.log("charon");
    let established = "established between 192.0.2.10[192.0.2.10]...192.0.2.2[192.168.1.20]";
    assert_eq!(log.matches(established).count(), 2, "{log}");
}

#[test]
fn a_guest_that_a_killed_harness_left_is_ended_by_the_next_one_with_its_name() {
    let site = Site::new().unwrap();
    let bridge = site.wan.namespace().name().to_owned();
    let boot = |page: &str| {
        let lns = Lns { page: page.to_owned(), ..Lns::default() };
        Guest::lns(&site.wan, "lns", "192.0.2.10", Side::Wan.router(), &lns).unwrap()
    };
    boot("the first").keep();
    assert!(is_kept(&bridge, "lns").unwrap());
    let second = boot("the second");
    assert_eq!(second.exec(&format!("curl -sS http://{INNER}/")).unwrap().trim(), "the second");
    second.kill();
    assert!(!is_kept(&bridge, "lns").unwrap());
}
