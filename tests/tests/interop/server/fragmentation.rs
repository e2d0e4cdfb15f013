//! IKE messages with a chain of large certificates, in fragments of their own on a path that loses those of IP.

use towline_tests::peer::Lns;
use towline_tests::peer::pki::{Authority, Key, Validity};
use towline_tests::server::{self, User};
use towline_tests::site::{Capture, Side, tshark};

use super::world::{SERVER, World};
use crate::interop::certificate::assert_fragments;

const CLIENT: &str = "198.51.100.20";

#[test]
fn a_large_chain_of_certificates_goes_in_fragments_of_ike_where_those_of_ip_are_lost_and_in_those_of_ip_elsewhere() {
    let below = Authority::new("root", Key::Rsa4096).unwrap().intermediate("below").unwrap();
    let own = below.issue("server", &format!("IP:{SERVER}"), Validity::Valid).unwrap();
    let alice = below.issue("alice", "email:alice@example.com", Validity::Valid).unwrap();
    let world = World::with_key(&server::Key::Certificate(own), &[User::of(&Lns::default())], |_| {});
    let client = world.client(Side::Lan, Lns { certificate: Some(alice), fragmentation: "no", ..Lns::default() });
    let record = || Capture::start(world.site.lan.namespace(), client.interface(), "fragments").unwrap();
    let capture = record();
    world.connect(&client);
    client.hang_up().unwrap();
    let file = capture.stop().unwrap();
    for sender in [CLIENT, SERVER] {
        let whole = tshark(&file, &["-Y", &format!("ip.src == {sender} && isakmp && ip.fragment.count > 1")]).unwrap();
        assert_eq!(whole.lines().count(), 1, "{sender}: {whole}");
    }
    world.site.drop_fragments().unwrap();
    client.exec("swanctl --initiate --child l2tp --timeout 6").unwrap_err();
    assert!(world.site.dropped_fragments().unwrap() > 0);
    client.exec("swanctl --terminate --ike l2tp --force").unwrap();
    let connection = "/etc/swanctl/swanctl.conf";
    client
        .exec(&format!("sed -i 's/fragmentation = no/fragmentation = force/' {connection}; swanctl --load-conns"))
        .unwrap();
    let capture = record();
    world.connect(&client);
    assert_fragments(&capture.stop().unwrap(), [CLIENT, SERVER]);
}
