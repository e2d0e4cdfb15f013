//! A router with clients behind one device and networks behind another: both are TUN devices of the test, which is everybody else.

use super::*;
use crate::buffer::PacketBatch;
use crate::inet::{PROTOCOL_ICMP, checksum};
use crate::io::namespace::{Packet, add_address, in_namespace};
use crate::io::netlink::Netlink;
use crate::io::scratch::Scratch;
use crate::io::tun::Device;
use rtnetlink::RouteMessageBuilder;
use std::net::{Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT: &str = "10.9.0.5:1000";
const SERVICE: &str = "10.20.0.1:53";
const SITE: &str = "172.16.5.1:7";
const ELSEWHERE: &str = "10.30.0.1:53";
const OUTSIDE: &str = "192.0.2.9";

struct Router {
    clients: Device,
    networks: Device,
    forwarding: Forwarding,
}

fn rules(source_nat: SourceNat) -> Rules {
    let pools = ["10.9.0.0/24", "fd09::/64"].map(|network| network.parse().unwrap());
    let sites = ["172.16.5.0/24".parse().unwrap()];
    Rules {
        device: "towline7".to_owned(),
        local: [10, 9, 0, 1].into(),
        services: vec![(Protocol::Udp, 8053), (Protocol::Tcp, 8080)],
        networks: ["10.20.0.0/16", "fd20::/64"].map(|network| network.parse().unwrap()).to_vec(),
        source_nat,
        inside: if source_nat == SourceNat::None { [&pools[..], &sites].concat() } else { sites.to_vec() },
    }
}

impl Router {
    async fn new(rules: &Rules) -> Self {
        let netlink = Netlink::open().unwrap();
        let (clients, networks) = (Device::open("towline7").unwrap(), Device::open("outside0").unwrap());
        netlink.set_link("towline7", rules.local, 1400).await.unwrap();
        netlink.set_link("outside0", OUTSIDE.parse().unwrap(), 1400).await.unwrap();
        let (inside, outside) = (netlink.index("towline7").await.unwrap(), netlink.index("outside0").await.unwrap());
        add_address(&netlink, "outside0", "2001:db8::9".parse().unwrap()).await;
        let networks_outside =
            ["10.20.0.0/16", "10.30.0.0/16", "fd20::/64", "fd30::/64"].map(|network| (network, outside));
        let networks_inside = ["10.9.0.0/24", "172.16.5.0/24", "fd09::/64"].map(|network| (network, inside));
        for (network, index) in networks_outside.into_iter().chain(networks_inside) {
            let network: IpNet = network.parse().unwrap();
            let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(network.addr(), network.prefix_len());
            netlink.handle.route().add(route.unwrap().output_interface(index).build()).execute().await.unwrap();
        }
        detect(true).unwrap();
        let mut forwarding = Forwarding::new();
        forwarding.apply(rules).unwrap();
        Self { clients, networks, forwarding }
    }

    /// What comes out of the networks' device when clients send this.
    async fn out(&mut self, packets: &[Packet]) -> Packet {
        packets.iter().for_each(|packet| self.clients.send(&packet.octets()).unwrap());
        Packet::next(&mut self.networks).await
    }

    /// What comes out of the clients' device when the networks send this.
    async fn back(&mut self, packets: &[Packet]) -> Packet {
        packets.iter().for_each(|packet| self.networks.send(&packet.octets()).unwrap());
        Packet::next(&mut self.clients).await
    }
}

fn packet(from: &str, to: &str, payload: u8) -> Packet {
    Packet::new(from, to, payload)
}

fn listed() -> String {
    let nft = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(nft.status.success(), "{nft:?}");
    String::from_utf8(nft.stdout).unwrap()
}

#[test]
fn clients_reach_the_networks_with_the_address_of_this_host_and_are_answered() {
    in_namespace(async || {
        let mut router = Router::new(&rules(SourceNat::Masquerade)).await;
        let sent = router.out(&[packet(CLIENT, SERVICE, 1)]).await;
        assert_eq!((sent.from.ip(), sent.to, sent.payload), (OUTSIDE.parse().unwrap(), SERVICE.parse().unwrap(), 1));
        assert_eq!(router.back(&[sent.reply(2)]).await, packet(SERVICE, CLIENT, 2));
        let sent = router.out(&[packet("[fd09::5]:1000", "[fd20::1]:53", 3)]).await;
        assert_eq!(sent.from.ip(), "2001:db8::9".parse::<Ipv6Addr>().unwrap());
        assert_eq!(router.back(&[sent.reply(4)]).await, packet("[fd20::1]:53", "[fd09::5]:1000", 4));
    });
}

#[test]
fn clients_keep_their_address_where_the_networks_know_it() {
    in_namespace(async || {
        let mut router = Router::new(&rules(SourceNat::None)).await;
        for (client, service) in [(CLIENT, SERVICE), ("[fd09::5]:1000", "[fd20::1]:53")] {
            let sent = packet(client, service, 1);
            assert_eq!(router.out(std::slice::from_ref(&sent)).await, sent);
            // Nobody was asked.
            let unasked = packet(service, "10.9.0.77:9", 2);
            let unasked = if sent.from.is_ipv6() { packet(service, "[fd09::77]:9", 2) } else { unasked };
            assert_eq!(router.back(std::slice::from_ref(&unasked)).await, unasked);
        }
    });
}

#[test]
fn clients_reach_no_other_network_and_not_each_other_through_the_kernel() {
    in_namespace(async || {
        for source_nat in [SourceNat::Masquerade, SourceNat::None] {
            let mut router = Router::new(&rules(source_nat)).await;
            let refused = [ELSEWHERE, "10.9.0.6:9", "[fd30::1]:53"].map(|to| packet(CLIENT, to, 1));
            let [elsewhere, client, _] = &refused;
            let ipv6 = packet("[fd09::5]:1000", "[fd30::1]:53", 1);
            let sent = router.out(&[elsewhere.clone(), client.clone(), ipv6, packet(CLIENT, SERVICE, 2)]).await;
            assert_eq!(sent.payload, 2);
            assert_eq!(router.back(&[sent.reply(3)]).await.payload, 3);
        }
    });
}

#[test]
fn only_sites_are_reached_unasked_when_clients_hide_behind_this_host() {
    in_namespace(async || {
        let mut router = Router::new(&rules(SourceNat::Masquerade)).await;
        let reached = router.back(&[packet(SERVICE, CLIENT, 1), packet(ELSEWHERE, SITE, 2)]).await;
        assert_eq!(reached, packet(ELSEWHERE, SITE, 2));
        // The site may answer a network that it could not have called.
        assert_eq!(router.out(&[packet(SITE, "10.30.0.2:53", 3), reached.reply(4)]).await, reached.reply(4));
    });
}

#[test]
fn clients_reach_the_services_of_the_server_and_nothing_else_of_this_host() {
    in_namespace(async || {
        let mut router = Router::new(&rules(SourceNat::Masquerade)).await;
        let sockets = [8053, 9090].map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap());
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let refused = ["10.9.0.1:9090", "192.0.2.9:9090", "192.0.2.9:8053"].map(|to| packet(CLIENT, to, 1));
        refused.iter().for_each(|packet| router.clients.send(&packet.octets()).unwrap());
        router.clients.send(&packet(CLIENT, "10.9.0.1:8053", 2).octets()).unwrap();
        let mut payload = [0];
        assert_eq!(sockets[0].recv_from(&mut payload).unwrap(), (1, CLIENT.parse().unwrap()));
        assert_eq!(payload, [2]);
        assert!(sockets.iter().all(|socket| socket.recv_from(&mut payload).is_err()));
        // Others are not concerned.
        router.networks.send(&packet(SERVICE, "192.0.2.9:9090", 3).octets()).unwrap();
        assert_eq!(sockets[1].recv_from(&mut payload).unwrap(), (1, SERVICE.parse().unwrap()));
        // What this host begins itself is answered.
        sockets[1].send_to(&[4], SITE).unwrap();
        let asked = Packet::next(&mut router.clients).await;
        router.clients.send(&asked.reply(5).octets()).unwrap();
        assert_eq!(sockets[1].recv_from(&mut payload).unwrap(), (1, SITE.parse().unwrap()));
    });
}

#[test]
fn the_server_answers_pings_at_its_own_address_only() {
    in_namespace(async || {
        let mut router = Router::new(&rules(SourceNat::Masquerade)).await;
        for (to, payload) in [([192, 0, 2, 9], 1), ([10, 9, 0, 1], 2)] {
            let mut icmp = vec![8, 0, 0, 0, 0, 0, 0, 0, payload];
            let sum = checksum(&icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let mut ip = [&[0x45, 0, 0, 29, 0, 0, 0, 0, 64, PROTOCOL_ICMP, 0, 0, 10, 9, 0, 5][..], &to].concat();
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            router.clients.send(&[ip, icmp].concat()).unwrap();
        }
        let wait = async {
            loop {
                router.clients.readable().await;
                let mut batch = PacketBatch::new();
                router.clients.receive(&mut batch).unwrap();
                if let Some(reply) = batch.iter().find(|packet| packet[0] == 0x45 && packet[9] == PROTOCOL_ICMP) {
                    return (reply[20], reply[28]);
                }
            }
        };
        assert_eq!(tokio::time::timeout(PATIENCE, wait).await.unwrap(), (0, 2));
    });
}

#[test]
fn connections_go_on_when_the_rules_change_except_to_what_is_no_longer_allowed() {
    in_namespace(async || {
        let mut rules = rules(SourceNat::Masquerade);
        let mut router = Router::new(&rules).await;
        let before = router.out(&[packet(CLIENT, SERVICE, 1)]).await;
        let other = router.out(&[packet(CLIENT, "10.20.0.2:53", 1)]).await;
        router.back(&[other.reply(2)]).await;
        rules.networks = vec!["10.20.0.1/32".parse().unwrap()];
        rules.inside.clear();
        router.forwarding.apply(&rules).unwrap();
        let after = router.out(&[packet(CLIENT, "10.20.0.2:53", 2), packet(CLIENT, SERVICE, 1)]).await;
        assert_eq!(after, before);
        assert_eq!(router.back(&[packet(ELSEWHERE, SITE, 2), after.reply(3)]).await.payload, 3);
    });
}

#[test]
fn the_kernel_lists_what_was_asked_for_and_nothing_when_it_is_removed() {
    in_namespace(async || {
        let other = "table inet other {\n}\n";
        assert!(Command::new("nft").args(["add", "table", "inet", "other"]).status().unwrap().success());
        let mut forwarding = Forwarding::new();
        forwarding.remove().unwrap();
        let mut rules = rules(SourceNat::None);
        forwarding.apply(&rules).unwrap();
        rules.source_nat = SourceNat::Masquerade;
        rules.inside = ["172.16.5.0/24", "172.16.4.0/24", "10.0.0.0/8", "10.1.0.0/16", "192.168.1.1/32", "240.0.0.0/4"]
            .map(|network| network.parse().unwrap())
            .to_vec();
        forwarding.apply(&rules).unwrap();
        assert_eq!(listed(), format!("{other}{}", include_str!("expected.nft")));
        // A process that knows of nothing takes over what is there.
        Forwarding::new().apply(&rules).unwrap();
        assert_eq!(listed(), format!("{other}{}", include_str!("expected.nft")));
        Forwarding::new().remove().unwrap();
        assert_eq!(listed(), other);
    });
}

#[test]
fn thousands_of_networks_fit() {
    in_namespace(async || {
        let mut rules = rules(SourceNat::Masquerade);
        rules.inside = (0..4_096_u32)
            .map(|index| IpNet::new(Ipv4Addr::from(0x0b00_0000 + index * 512).into(), 24).unwrap())
            .collect();
        Forwarding::new().apply(&rules).unwrap();
        let listed = listed();
        assert_eq!((listed.matches("/24").count(), listed.contains("11.31.254.0/24")), (4_096, true));
    });
}

#[test]
fn a_kernel_that_does_not_forward_is_told_to_or_named_with_the_remedy() {
    let folder = Scratch::new();
    for path in ["net/ipv4", "net/ipv6/conf/all"] {
        std::fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    folder.write("net/ipv4/ip_forward", b"0\n");
    detect_in(folder.path(), false).unwrap();
    assert_eq!(std::fs::read(folder.path().join("net/ipv4/ip_forward")).unwrap(), b"1");
    assert!(detect_in(folder.path(), true).unwrap_err().starts_with("net.ipv6.conf.all.forwarding cannot be read"));
    // What can be read and not be written, even by root.
    std::os::unix::fs::symlink("/proc/sys/kernel/ngroups_max", folder.path().join("net/ipv6/conf/all/forwarding"))
        .unwrap();
    let obstacle = detect_in(folder.path(), true).unwrap_err();
    for words in ["net.ipv6.conf.all.forwarding is 65536 and cannot be changed", "allowed-unsafe-sysctls=net.ipv6.conf"]
    {
        assert!(obstacle.contains(words), "{obstacle}");
    }
}

#[test]
fn an_error_names_what_the_kernel_or_the_container_lacks() {
    let text = |message, number| Error { message, error: io::Error::from_raw_os_error(number) }.to_string();
    assert!(text("op-batch-begin-do", libc::EPERM).contains("NET_ADMIN"));
    assert!(text("op-newchain-do", libc::ENOENT).contains("nft_masq"));
    assert!(text("socket", libc::EPROTONOSUPPORT).contains("CONFIG_NF_TABLES"));
}
