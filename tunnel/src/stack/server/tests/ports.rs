//! The port that ESP shares with IKE (RFC 3948 section 2).

use super::*;
use crate::esp::{Datagram, KEEPALIVE, classify};

/// What the client says next, each datagram with the port that it leaves from.
fn said(client: &mut Client) -> Vec<(Port, Vec<u8>)> {
    let transmits = client.tunnel.transmits();
    let runs = transmits.runs().map(|run| (run.socket.port().unwrap(), run.octets.to_vec())).collect();
    transmits.clear();
    runs
}

#[test]
fn esp_and_keepalives_leave_from_the_port_of_ike_and_esp_counts_on_no_other() {
    let mut town = Town::new();
    town.quiet = true;
    let alice = town.dial("alice", "alice's password");
    let sent = packet(town.address(alice), SERVICE, 100);
    let mut batch = PacketBatch::new();
    assert!(batch.push(&sent));
    town.clients[alice].tunnel.handle_packets(town.now, &batch);
    let [(Port::NatT, esp)] = &said(&mut town.clients[alice])[..] else { panic!("not one datagram from port 4500") };
    assert!(matches!(classify(esp), Datagram::Esp { .. }));
    let hear = |town: &mut Town, port| {
        let local = SocketAddr::new(town.outside.server, if port == Port::Ike { 500 } else { 4500 });
        let remote = town.clients[alice].remote(port);
        town.server.handle_datagram(town.now, port, local, remote, &mut esp.clone());
        town.settle();
        town.device.len()
    };
    assert_eq!(hear(&mut town, Port::Ike), 0, "port 500 has no ESP");
    assert_eq!(hear(&mut town, Port::NatT), 1);
    // The client is behind the NAT and says nothing else for a while.
    let end = town.now + Duration::from_secs(60);
    let mut keepalives = Vec::new();
    while let Some(due) = town.clients[alice].tunnel.poll_timeout().filter(|due| *due <= end) {
        town.now = town.now.max(due);
        town.clients[alice].tunnel.handle_timeout(town.now);
        keepalives.extend(said(&mut town.clients[alice]).into_iter().filter(|(_, octets)| *octets == KEEPALIVE));
    }
    assert!(!keepalives.is_empty() && keepalives.iter().all(|(port, _)| *port == Port::NatT), "{keepalives:?}");
}
