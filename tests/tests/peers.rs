//! The foreign peers talk to each other: when this fails, the harness is at fault and not the tunnel.

use towline_tests::peer::{Guest, INNER, Lac, Lns, is_kept};
use towline_tests::site::{Side, Site};

#[test]
fn a_foreign_client_fetches_the_page_behind_a_foreign_gateway() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let gateway = Guest::lns(&site.wan, "lns", "192.0.2.10", Side::Wan.router(), &lns).unwrap();
    let lac = Lac { server: "192.0.2.10".to_owned(), like: lns.clone() };
    let client = Guest::lac(&site.lan, "lac", "198.51.100.20", Side::Lan.router(), &lac).unwrap();
    let link =
        client.dial().unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", gateway.log("charon"), gateway.log("l2tp")));
    assert!(link.contains("local=10.20.5.10"), "{link}");
    let page = client.exec(&format!("curl -sS --max-time 10 http://{INNER}/")).unwrap();
    assert_eq!(page.trim(), lns.page);
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
