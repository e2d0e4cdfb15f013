//! SoftEther, whose IKE, ESP, L2TP and PPP are none of those of Linux.

use serde_json::json;
use towline_tests::peer::{Lns, SoftEther};
use towline_tests::process::run;
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config};

#[test]
fn a_tunnel_to_softether_carries_packets() {
    let site = Site::new().unwrap();
    let server = site.host("softether", Side::Wan, "192.0.2.10").unwrap();
    let lns = Lns::default();
    // Its user names have the virtual hub behind them unless it is the default one.
    let softether = SoftEther::start(&server, &lns.psk, &lns.user, &lns.password).unwrap();
    let host = site.host("client", Side::Lan, "198.51.100.20").unwrap();
    let mut there = config("192.0.2.10");
    there["network"] = json!({"remoteCIDRs": ["192.168.30.0/24"]});
    there["healthCheck"] = json!({"type": "Icmp", "host": "192.168.30.1", "intervalSeconds": 1});
    let mut tunnel = Tunnel::start(&host, there, &lns).unwrap();
    let report = tunnel
        .wait_ready()
        .unwrap_or_else(|error| panic!("{error:#}\n{}", std::fs::read_to_string(softether.log()).unwrap_or_default()));
    assert!(report.assigned_address.unwrap().to_string().starts_with("192.168.30."), "{report:?}");
    let said = run(host.exec("ping").args(["-c", "5", "-i", "0.2", "192.168.30.1"])).unwrap();
    assert!(said.contains(" 0% packet loss"), "{said}");
}
