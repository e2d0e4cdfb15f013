//! A gateway that is dialled over IPv6.

use towline_tests::peer::{Lns, outer_ipv6};
use towline_tests::site::{Capture, Side, tshark};
use towline_tests::tunnel::{Tunnel, config, fetch_page};

use super::world::{GATEWAY, World};

#[test]
fn a_tunnel_goes_over_ipv6() {
    let world = World::new(Lns { outer_ipv6: true, ..Lns::default() }, Side::Wan);
    world.host.ip(&["address", "add", "2001:db8::20/64", "dev", "eth0", "nodad"]).unwrap();
    let capture = Capture::start(world.site.wan.namespace(), world.gateway.interface(), "ipv6").unwrap();
    let mut tunnel = Tunnel::start(&world.host, config(&outer_ipv6(GATEWAY)), &world.lns).unwrap();
    tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
    let sas = world.gateway.exec("swanctl --list-sas").unwrap();
    assert!(sas.contains("remote '2001:db8::20'") && sas.contains("INSTALLED, TRANSPORT-in-UDP"), "{sas}");
    tunnel.stop().unwrap();
    let file = capture.stop().unwrap();
    let seen = |filter: &str| tshark(&file, &["-Y", filter]).unwrap();
    assert_eq!(seen("ip || (ipv6 && !icmpv6 && !(udp.port == 500 || udp.port == 4500))"), "");
    assert!(!seen("ipv6 && udpencap && esp").is_empty() && !seen("ipv6 && isakmp").is_empty());
}
