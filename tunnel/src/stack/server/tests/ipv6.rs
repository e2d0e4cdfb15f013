//! IPv6 inside the tunnels.

use ipnet::Ipv6Net;

use super::super::ipv6::icmp;
use super::*;
use crate::inet::IPV6_HEADER;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// A host in a network that is forwarded to.
const HOST: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 8);

fn town(change: impl FnOnce(&mut serde_json::Value)) -> Town {
    let mut town = Town::with(|json| {
        json["addresses"]["ipv6Pool"] = "fd09::/56".into();
        json["forwarding"]["networks"] = serde_json::json!(["10.96.0.0/12", "fd10::/32"]);
        json["limits"] = serde_json::json!({"sessionsPerUser": 0});
        change(json);
    });
    town.ipv6 = true;
    town
}

fn dialled(change: impl FnOnce(&mut serde_json::Value)) -> (Town, usize) {
    let mut town = town(change);
    let alice = town.dial("alice", "alice's password");
    (town, alice)
}

/// A packet of `length` octets that is no message of ICMPv6.
fn packet6(from: Ipv6Addr, to: Ipv6Addr, length: usize) -> Vec<u8> {
    let mut packet = icmp::packet(from, to, vec![0x5a; length - IPV6_HEADER]);
    packet[6] = 17;
    packet
}

impl Town {
    /// The prefix of the newest advertisement that the client got.
    fn prefix(&self, number: usize) -> Ipv6Net {
        let advertisement = self.advertisements(number).last().unwrap().clone();
        let octets: [u8; 16] = advertisement[80..96].try_into().unwrap();
        Ipv6Net::new(octets.into(), advertisement[66]).unwrap()
    }

    fn advertisements(&self, number: usize) -> Vec<Vec<u8>> {
        let is_one = |packet: &&Vec<u8>| packet[0] == 0x60 && packet[6] == 58 && packet[40] == 134;
        self.clients[number].received.iter().filter(is_one).cloned().collect()
    }

    /// An address of the client.
    fn address6(&self, number: usize) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.prefix(number).network()) | 0x77)
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.server.counters().dropped.get(reason).copied().unwrap_or(0)
    }
}

#[test]
fn a_client_is_told_of_its_prefix_and_packets_of_ipv6_go_both_ways() {
    let (mut town, alice) = dialled(|_| {});
    let prefix = town.prefix(alice);
    assert_eq!(prefix.to_string(), "fd09::/64");
    let info = town.server.sessions().next().unwrap();
    assert_eq!(info.ipv6_prefix, Some(prefix));
    let address = town.address6(alice);
    town.send(alice, &packet6(address, HOST, 100));
    assert_eq!(town.device, [packet6(address, HOST, 100)]);
    town.arrive(&packet6(HOST, address, 200));
    assert_eq!(town.clients[alice].received.last(), Some(&packet6(HOST, address, 200)));
    let traffic = town.server.sessions().next().unwrap().traffic;
    assert_eq!(traffic.rx_octets, 100);
    assert_eq!(traffic.tx_octets - info.traffic.tx_octets, 200);
}

#[test]
fn a_client_without_ipv6_and_a_server_without_a_pool_have_a_session_all_the_same() {
    for (client, pool) in [(false, true), (true, false)] {
        let mut town = town(|json| {
            if !pool {
                json["addresses"].as_object_mut().unwrap().remove("ipv6Pool");
            }
        });
        town.ipv6 = client;
        let alice = town.dial("alice", "alice's password");
        let address = town.address(alice);
        town.run(Duration::from_secs(60));
        town.arrive(&packet(SERVICE, address, 60));
        assert_eq!(town.clients[alice].received, [packet(SERVICE, address, 60)]);
        assert_eq!(town.server.sessions().next().unwrap().ipv6_prefix, None);
    }
}

#[test]
fn what_is_advertised_follows_what_is_forwarded() {
    let (town, alice) = dialled(|_| {});
    let advertisement = town.advertisements(alice).pop().unwrap();
    assert_eq!(advertisement[46..48], [0, 0], "no way to everywhere");
    let routes: Vec<(u8, u8)> = advertisement[96..].chunks(16).map(|option| (option[0], option[2])).collect();
    assert_eq!(routes, [(24, 56), (24, 32)]);
    let mtu = town.server.sessions().next().unwrap().place.mtu;
    assert_eq!(advertisement[60..64], u32::from(mtu).to_be_bytes());
    let (town, alice) = dialled(|json| json["forwarding"]["networks"] = serde_json::json!(["::/0"]));
    let advertisement = town.advertisements(alice).pop().unwrap();
    assert_eq!((&advertisement[46..48], advertisement.len()), (&[7, 8][..], 96));
}

#[test]
fn advertisements_come_every_ten_minutes_and_whenever_the_client_asks() {
    let (mut town, alice) = dialled(|_| {});
    town.run(Duration::from_secs(60));
    let before = town.advertisements(alice).len();
    assert_eq!(before, 3, "some at first, in case that one is lost");
    town.run(Duration::from_secs(1_800));
    assert_eq!(town.advertisements(alice).len() - before, 3);
    let ask = icmp::packet("fe80::77".parse().unwrap(), ALL_ROUTERS, vec![133, 0, 0, 0, 0, 0, 0, 0]);
    town.send(alice, &ask);
    assert_eq!(town.advertisements(alice).len() - before, 4);
    assert_eq!(town.device.len(), 0);
}

#[test]
fn the_server_answers_an_echo_at_its_own_addresses() {
    let (mut town, alice) = dialled(|_| {});
    let ours: [u8; 16] = town.advertisements(alice)[0][8..24].try_into().unwrap();
    let (link_local, client) = (Ipv6Addr::from(ours), town.address6(alice));
    let global =
        Ipv6Addr::from(u128::from(town.prefix(alice).network()) | u128::from(link_local) & u128::from(u64::MAX));
    for (from, to) in [("fe80::77".parse().unwrap(), link_local), (client, global), (client, link_local)] {
        town.send(alice, &icmp::packet(from, to, vec![128, 0, 0, 0, 1, 2, 3, 4]));
        let reply = icmp::packet(to, from, vec![129, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(town.clients[alice].received.last(), Some(&reply), "{from} {to}");
    }
    assert_eq!(town.device.len(), 0);
}

#[test]
fn nobody_sends_ipv6_in_the_name_of_another_or_to_where_nothing_is_forwarded() {
    let (mut town, alice) = dialled(|json| json["forwarding"]["networks"] = serde_json::json!(["::/0"]));
    let address = town.address6(alice);
    town.send(alice, &packet6("fd09:0:0:9::1".parse().unwrap(), HOST, 100));
    assert_eq!(town.dropped("source"), 1);
    for (from, to) in [("fe80::77", "fd10::8"), ("::", "fd10::8"), ("fe80::77", "ff02::16")] {
        town.send(alice, &packet6(from.parse().unwrap(), to.parse().unwrap(), 100));
    }
    for to in ["ff0e::1", "::1", "::"] {
        town.send(alice, &packet6(address, to.parse().unwrap(), 100));
    }
    assert_eq!((town.dropped("not_forwarded"), town.device.len()), (3, 0));
    town.send(alice, &packet6(address, HOST, 100));
    assert_eq!(town.device.len(), 1);
    let (mut town, alice) = dialled(|_| {});
    let address = town.address6(alice);
    town.send(alice, &packet6(address, "fd11::1".parse().unwrap(), 100));
    assert_eq!((town.dropped("not_forwarded"), town.device.len()), (1, 0));
}

#[test]
fn clients_reach_each_other_over_ipv6_and_nothing_goes_in_circles() {
    let (mut town, alice) = dialled(|_| {});
    let bob = town.dial("bob", "bob's password");
    let (one, other) = (town.address6(alice), town.address6(bob));
    town.send(alice, &packet6(one, other, 100));
    assert_eq!(town.clients[bob].received.last(), Some(&packet6(one, other, 100)));
    town.send(alice, &packet6(one, Ipv6Addr::from(u128::from(one) + 1), 100));
    assert_eq!((town.dropped("loop"), town.device.len()), (1, 0));
    town.arrive(&packet6(HOST, "fd09:0:0:9::1".parse().unwrap(), 100));
    assert_eq!(town.dropped("no_session"), 1);
}

#[test]
fn a_user_sends_ipv6_only_to_where_it_may() {
    let (mut town, alice) =
        dialled(|json| json["users"][0]["destinations"] = serde_json::json!(["10.96.0.0/12", "fd10::8/128"]));
    let address = town.address6(alice);
    town.send(alice, &packet6(address, HOST, 100));
    town.send(alice, &packet6(address, "fd10::9".parse().unwrap(), 100));
    assert_eq!((town.device.len(), town.dropped("destination")), (1, 1));
}

#[test]
fn the_sender_of_a_packet_of_ipv6_that_does_not_fit_hears_what_does() {
    let (mut town, alice) = dialled(|_| {});
    let bob = town.dial("bob", "bob's password");
    let (one, other) = (town.address6(alice), town.address6(bob));
    let mtu = town.server.sessions().next().unwrap().place.mtu;
    town.arrive(&packet6(HOST, one, usize::from(mtu)));
    assert_eq!((town.device.len(), town.dropped("mtu")), (0, 0));
    town.arrive(&packet6(HOST, one, usize::from(mtu) + 1));
    let answer = town.device.last().unwrap();
    assert_eq!((&answer[40..42], &answer[44..48]), (&[2, 0][..], &u32::from(mtu).to_be_bytes()[..]));
    assert_eq!((&answer[24..40], &answer[8..16]), (&HOST.octets()[..], &one.octets()[..8]));
    // Between clients the one that sent it hears; its own link takes what the other's does not.
    let remote = town.clients[bob].remote(Port::NatT);
    town.server.handle_path_mtu(town.now, remote, 1_400);
    town.settle();
    town.send(alice, &packet6(one, other, usize::from(mtu)));
    let answer = town.clients[alice].received.last().unwrap();
    assert_eq!((&answer[40..42], &answer[24..40]), (&[2, 0][..], &one.octets()[..]));
}

#[test]
fn senders_of_what_does_not_fit_hear_of_it_ten_times_a_second_for_each_client() {
    let (mut town, alice) = dialled(|_| {});
    let bob = town.dial("bob", "bob's password");
    let (one, other) = (town.address6(alice), town.address6(bob));
    let heard = |town: &mut Town, destination, number| {
        town.device.clear();
        (0..number).for_each(|_| town.arrive(&packet6(HOST, destination, 1_500)));
        town.device.len()
    };
    assert_eq!((heard(&mut town, one, 30), heard(&mut town, other, 5)), (10, 5));
    let (one, other) = (town.address(alice), town.address(bob));
    let mut whole = packet(SERVICE, one, 1_500);
    whole[6] = 0x40;
    town.device.clear();
    town.arrive(&whole);
    assert_eq!(town.device.len(), 0, "of IPv4 as well");
    whole[16..20].copy_from_slice(&other.octets());
    town.arrive(&whole);
    assert_eq!(town.device.len(), 1);
    town.run(Duration::from_secs(1));
    let one = town.address6(alice);
    assert_eq!(heard(&mut town, one, 30), 10);
}

#[test]
fn a_link_takes_1280_octets_of_ipv6_however_small_the_path_is() {
    let (mut town, alice) = dialled(|_| {});
    let remote = town.clients[alice].remote(Port::NatT);
    town.server.handle_path_mtu(town.now, remote, 900);
    let address = town.address6(alice);
    town.arrive(&packet6(HOST, address, 1_280));
    assert_eq!(town.clients[alice].received.last(), Some(&packet6(HOST, address, 1_280)));
    town.arrive(&packet6(HOST, address, 1_281));
    assert_eq!(town.device.last().unwrap()[44..48], 1_280_u32.to_be_bytes());
}

#[test]
fn a_prefix_is_free_again_once_its_session_is_over() {
    let (mut town, alice) = dialled(|json| json["addresses"]["ipv6Pool"] = "fd09::/64".into());
    let prefix = town.prefix(alice);
    let bob = town.dial("bob", "bob's password");
    assert!(town.advertisements(bob).is_empty(), "there is one prefix");
    let first = town.server.sessions().find(|info| info.ipv6_prefix.is_some()).unwrap();
    town.open = true;
    town.clients[alice].tunnel.close(town.now);
    town.run(Duration::from_secs(5));
    assert!(town.server.sessions().all(|info| info.id != first.id));
    town.arrive(&packet6(HOST, prefix.network(), 100));
    assert_eq!(town.dropped("no_session"), 1);
    // The one that had to go without gets it when it asks.
    town.send(bob, &icmp::packet(Ipv6Addr::UNSPECIFIED, ALL_ROUTERS, vec![133, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(town.prefix(bob), prefix);
}

#[test]
fn another_pool_is_for_those_who_come_later() {
    let (mut town, alice) = dialled(|_| {});
    town.apply(|json| {
        json["addresses"]["ipv6Pool"] = "fd0a::/56".into();
        json["limits"] = serde_json::json!({"sessionsPerUser": 0});
    });
    let bob = town.dial("bob", "bob's password");
    assert_eq!([alice, bob].map(|client| town.prefix(client).to_string()), ["fd09::/64", "fd0a:0:0:1::/64"]);
}
