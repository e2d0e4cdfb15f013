//! ESP without UDP: what a gateway gets that hears nothing of NAT traversal (RFC 2407 section 4.5).

use serde_json::{Value, json};
use towline_tests::peer::Lns;
use towline_tests::process::run;
use towline_tests::site::{Capture, Side, tshark};
use towline_tests::tunnel::{Pings, Tunnel, config, fetch_page};
use towline_tunnel::report::{Encapsulation, Layer, Nat, Reason};

use super::lifetime::{dials, wait_for_rekeys};
use super::world::{GATEWAY, World, assert_failed};

#[test]
fn a_gateway_that_hears_nothing_of_nat_traversal_gets_esp_as_protocol_50_and_rekeys_lose_no_packet() {
    let world = World::new(Lns::default(), Side::Wan);
    let capture = Capture::start(world.site.wan.namespace(), world.gateway.interface(), "protocol-50").unwrap();
    let (mut tunnel, report) =
        world.connect(|config| config["esp"] = json!({"encapsulation": "None", "lifetimeSeconds": 20}));
    let negotiated = report.negotiated.unwrap();
    assert_eq!((negotiated.encapsulation, negotiated.nat), (Some(Encapsulation::None), Nat::None));
    let pings = Pings::start(&world.host, tunnel.folder()).unwrap();
    wait_for_rekeys(&world, &mut tunnel, 0, 3);
    pings.finish().unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", tunnel.log().unwrap(), world.logs()));
    assert_eq!(dials(&world), 1);
    let sas = world.gateway.exec("swanctl --list-sas").unwrap();
    assert!(sas.contains("TRANSPORT") && !sas.contains("in-UDP"), "{sas}");
    tunnel.stop().unwrap();

    let capture = capture.stop().unwrap();
    let seen = |filter: &str| tshark(&capture, &["-Y", filter]).unwrap();
    for end in ["ip.src", "ip.dst"] {
        assert!(seen(&format!("ip.proto == 50 && {end} == {GATEWAY}")).lines().count() > 100, "{end}");
    }
    // Nothing else of either end but IKE, and nothing in fragments.
    assert_eq!(seen(&format!("ip.addr == {GATEWAY} && !(ip.proto == 50 || udp.port == 500)")), "");
    assert_eq!(seen("udp.port == 4500"), "");
    assert_eq!(seen("ip.flags.mf == 1 || ip.frag_offset > 0"), "");
}

#[test]
fn a_gateway_with_nat_traversal_gets_esp_in_udp_unless_port_4500_is_closed() {
    let auto = |config: &mut Value| config["esp"] = json!({"encapsulation": "Auto"});
    let world = World::new(Lns::default(), Side::Wan);
    let (tunnel, report) = world.connect(auto);
    assert_eq!(report.negotiated.unwrap().encapsulation, Some(Encapsulation::Udp));
    tunnel.stop().unwrap();

    let rules = "table ip closed { chain in { type filter hook input priority 0; udp sport 4500 drop; }; }";
    run(world.host.exec("nft").arg(rules)).unwrap();
    let (_tunnel, report) = world.connect(auto);
    let negotiated = report.negotiated.unwrap();
    assert_eq!(negotiated.encapsulation, Some(Encapsulation::None));
    assert!(negotiated.rung.unwrap().ends_with("ESP as IP protocol 50"));
}

#[test]
fn the_largest_packets_of_esp_without_udp_are_the_longest_that_the_path_takes() {
    let world = World::new(Lns { esp: "aes128-sha1".to_owned(), ..Lns::default() }, Side::Wan);
    let capture = Capture::start(world.site.wan.namespace(), world.gateway.interface(), "longest").unwrap();
    let (tunnel, report) = world.connect(|config| {
        config["esp"] = json!({"encapsulation": "None", "proposals": ["aes128-sha1"]});
    });
    // 20 octets of IP, 8 of ESP, 16 of an IV, 12 of an ICV: 1444 octets are left in blocks of 16, of which UDP, L2TP, PPP
    // and the trailer take 8, 8, 4 and 2. The gateway's own MRU may be smaller.
    let mtu = report.negotiated.unwrap().mtu.unwrap();
    assert!(mtu <= 1_418, "{mtu}");
    let length = (mtu - 28).to_string();
    let ping = ["-c3", "-i", "0.2", "-W5", "-M", "do", "-s", &length, towline_tests::peer::INNER];
    run(world.host.exec("ping").args(ping)).unwrap();
    tunnel.stop().unwrap();
    let capture = capture.stop().unwrap();
    let lengths = tshark(&capture, &["-Y", "ip.proto == 50", "-T", "fields", "-e", "ip.len"]).unwrap();
    let longest = lengths.lines().filter_map(|line| line.parse::<usize>().ok()).max().unwrap();
    // What the packet of that length has around it: exactly that, and no UDP.
    let plaintext = (usize::from(mtu) + 8 + 8 + 4 + 2).next_multiple_of(16);
    assert_eq!(longest, 20 + 8 + 16 + plaintext + 12);
    assert!(longest <= 1_500);
}

#[test]
fn without_the_capability_the_cause_names_it_and_the_setting() {
    let world = World::new(Lns::default(), Side::Wan);
    for encapsulation in ["Auto", "None"] {
        let mut config = config(GATEWAY);
        config["esp"] = json!({"encapsulation": encapsulation});
        let mut tunnel = Tunnel::start_without(&world.host, config, &world.lns, "net_raw").unwrap();
        let failed = tunnel.wait_down(Layer::Ipsec).unwrap();
        assert_failed(&failed, Reason::RawSocketFailed, &["NET_RAW", "esp.encapsulation", "not permitted"]);
        assert_eq!(tunnel.report().unwrap().cause().map(|cause| cause.layer), Some(Layer::Ipsec));
        // The same process, once nothing asks for the capability any more.
        tunnel.change(|config| config["esp"] = json!({})).unwrap();
        tunnel.wait_ready().unwrap();
        assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
        let (status, ..) = tunnel.stop().unwrap();
        assert!(status.success());
    }
}
