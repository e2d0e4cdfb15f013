//! IKE and ESP over IPv6.

use super::*;
use crate::inet::{IPV6_HEADER, UDP_HEADER};

fn dialled() -> (Town, usize, Ipv4Addr) {
    let mut town = Town::of(IPV6, |_| {});
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    (town, alice, address)
}

#[test]
fn a_client_dials_in_over_ipv6_and_packets_go_both_ways() {
    let (mut town, alice, address) = dialled();
    town.send(alice, &packet(address, SERVICE, 100));
    town.arrive(&packet(SERVICE, address, 200));
    assert_eq!(town.device, [packet(address, SERVICE, 100)]);
    assert_eq!(town.clients[alice].received, [packet(SERVICE, address, 200)]);
    let place = town.server.sessions().next().unwrap().place;
    assert_eq!((place.peer.ip(), place.local), (IPV6.nat, IPV6.server));
}

#[test]
fn a_full_packet_fills_the_path_of_1500_octets_over_ipv6_and_no_more() {
    let (mut town, alice, address) = dialled();
    let fits = usize::from(town.server.sessions().next().unwrap().place.mtu);
    town.largest = [0; 2];
    town.arrive(&packet(SERVICE, address, fits));
    town.send(alice, &packet(address, SERVICE, fits));
    assert_eq!((town.device.len(), town.clients[alice].received.len()), (1, 1));
    let most = 1_500 - IPV6_HEADER - UDP_HEADER;
    // A block of the cipher is what may be left over.
    assert!(town.largest.iter().all(|octets| (most - 15..=most).contains(octets)), "{:?} of {most}", town.largest);
}

#[test]
fn both_phases_are_renewed_and_a_move_is_followed_over_ipv6() {
    let mut town = Town::of(IPV6, |json| {
        json["ike"]["lifetimeSeconds"] = 1_800.into();
        json["esp"]["lifetimeSeconds"] = 600.into();
    });
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    for round in 0..100 {
        if round == 50 {
            town.clients[alice].nat = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 7));
        }
        town.run(Duration::from_secs(30));
        town.send(alice, &packet(address, SERVICE, 100));
        town.arrive(&packet(SERVICE, address, 100));
    }
    assert_eq!((town.device.len(), town.clients[alice].received.len()), (100, 100));
    assert_eq!((town.sessions(), town.ended(), town.server.peers()), (1, vec![], (0, 1)));
}

#[test]
fn several_clients_behind_one_address_are_served_over_ipv6() {
    let mut town = Town::of(IPV6, |json| json["limits"] = serde_json::json!({"sessionsPerUser": 0}));
    let clients: Vec<usize> = (0..3).map(|_| town.dial("alice", "alice's password")).collect();
    for client in clients {
        let address = town.address(client);
        town.arrive(&packet(SERVICE, address, 50));
        assert_eq!(town.clients[client].received, [packet(SERVICE, address, 50)]);
    }
}
