//! Certificates in place of a pre-shared key.

use std::path::Path;

use towline_tests::peer::Lns;
use towline_tests::peer::pki::{Authority, Key, Validity};
use towline_tests::site::{Capture, Side, tshark};
use towline_tests::tunnel::{Tunnel, config, fetch_page};

use super::world::{GATEWAY, World};

/// Each of the senders has sent one message in three fragments of IKE that every path takes.
pub(super) fn assert_fragments(file: &Path, senders: [&str; 2]) {
    for sender in senders {
        let fields = ["-T", "fields", "-e", "isakmp.frag.packetid", "-e", "isakmp.frag.last", "-e", "udp.length"];
        let filter = format!("ip.src == {sender} && isakmp.frag.last");
        let seen = tshark(file, &[&["-Y", &filter][..], &fields].concat()).unwrap();
        let rows: Vec<Vec<&str>> = seen.lines().map(|line| line.split('\t').collect()).collect();
        let flags: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
        assert_eq!(flags, [("0x0001", "0"), ("0x0001", "0"), ("0x0001", "1")], "{sender}: {seen}");
        assert!(rows.iter().all(|row| row[2].parse::<u16>().unwrap() <= 1300), "{sender}: {seen}");
    }
}

#[test]
fn a_large_chain_of_certificates_goes_in_fragments_of_ike_both_ways_where_those_of_ip_are_lost() {
    let below = Authority::new("root", Key::Rsa4096).unwrap().intermediate("below").unwrap();
    let gateway = below.issue("gateway", &format!("IP:{GATEWAY}"), Validity::Valid).unwrap();
    let own = below.issue("client", "DNS:client.example.com", Validity::Valid).unwrap();
    let world = World::new(Lns { certificate: Some(gateway), fragmentation: "force", ..Lns::default() }, Side::Lan);
    world.site.drop_fragments().unwrap();
    let capture = Capture::start(world.site.wan.namespace(), world.gateway.interface(), "fragments").unwrap();
    let mut tunnel = Tunnel::start_certified(&world.host, config(GATEWAY), &world.lns, &own).unwrap();
    tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
    let file = capture.stop().unwrap();
    assert_fragments(&file, [GATEWAY, "192.0.2.2"]);
}
