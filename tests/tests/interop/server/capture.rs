//! What stands on the wire, read by a foreign dissector.

use std::fs;

use towline_tests::peer::Lns;
use towline_tests::site::{Capture, Side, tshark};

use super::world::{PAGE, PATIENCE, World};

#[test]
fn nothing_but_isakmp_and_esp_in_udp_is_seen_of_a_whole_session() {
    for side in [Side::Wan, Side::Lan] {
        let mut world = World::new();
        let client = world.client(side, Lns::default());
        let capture = Capture::start(world.site.wan.namespace(), "br0", "server").unwrap();
        world.connect(&client);
        client.hang_up().unwrap();
        world.server.wait_sessions(0, PATIENCE).unwrap();
        let file = capture.stop().unwrap();
        let seen = |filter: &str| tshark(&file, &["-Y", filter]).unwrap();
        assert_eq!(seen("ip && !(udp.port == 500 || udp.port == 4500)"), "", "{side:?}");
        assert_eq!(seen("l2tp || ppp"), "", "{side:?}");
        assert_eq!(seen("isakmp && _ws.malformed"), "", "{side:?}");
        assert!(!seen("udpencap && esp").is_empty() && !seen("isakmp").is_empty(), "{side:?}");
        let octets = fs::read(&file).unwrap();
        assert!(!octets.windows(PAGE.len()).any(|window| window == PAGE.as_bytes()), "the page is in clear");
    }
}
