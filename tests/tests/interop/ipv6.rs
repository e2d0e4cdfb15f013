//! A gateway that is dialled over IPv6.

use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{INNER, Lns, outer_ipv6};
use towline_tests::process::{run, wait_until};
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

#[test]
fn ipv6_passes_inside_with_the_address_and_the_routes_that_the_gateway_advertises() {
    let world = World::new(Lns { ipv6: true, ..Lns::default() }, Side::Lan);
    let (tunnel, _) = world.connect(|config| {
        config["network"] = json!({"ipv6": true, "remoteCIDRs": [format!("{INNER}/24"), "fd20:4::/64"]});
    });
    // A prefix for the link, and a host behind the gateway. PPP devices have no address that dnsmasq could advertise otherwise.
    let advertise = "dnsmasq --conf-file=/dev/null --port=0 --user=root --pid-file=/run/ra.pid --interface=ppp0 \
        --bind-dynamic --enable-ra --dhcp-range=fd20:5::,ra-only,64";
    let inside = "ip -6 address add fd20:4::11/128 dev lo; ip -6 address add fd20:5::1/64 dev ppp0";
    world.gateway.exec(&format!("{inside}; {advertise}")).unwrap();
    let has_address = || {
        let seen = world.host.ip(&["-6", "address", "show", "dev", "towline0", "scope", "global"]);
        seen.is_ok_and(|seen| seen.contains("inet6 fd20:5:") && !seen.contains("tentative"))
    };
    wait_until("an address of IPv6", Duration::from_secs(60), has_address)
        .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", tunnel.log().unwrap(), world.logs()));
    run(world.host.exec("ping").args(["-6", "-c", "3", "-i", "0.3", "fd20:4::11"])).unwrap();
    let routes = world.host.ip(&["-6", "route", "show", "table", "all"]).unwrap();
    assert!(routes.contains("unreachable fd20:4::/64"), "what keeps them in when the link is down: {routes}");
    tunnel.stop().unwrap();
}
