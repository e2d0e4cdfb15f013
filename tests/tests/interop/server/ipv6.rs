//! IPv6 inside and outside of the tunnel, and what a client is told by DHCPINFORM.

use std::net::Ipv6Addr;

use serde_json::json;
use towline_tests::peer::{Guest, INNER, Lac, Lns};
use towline_tests::process::{run, wait_until};
use towline_tests::server::User;
use towline_tests::site::{Capture, Inside, Side, tshark};

use super::world::{PATIENCE, World, local};

/// The server's outer address.
const OUTER: &str = "2001:db8::10";

/// Asks by DHCPINFORM as Windows does, with the packets of scapy: what scapy reads in the answer, an option a line.
const INFORM: &str = r#"/usr/bin/python3 - <<'END'
import socket
from scapy.config import conf
conf.ipv6_enabled = False
from scapy.layers.dhcp import BOOTP, DHCP, DHCPOptions
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"ppp0")
own.bind(("", 68))
own.settimeout(5)
wanted = [1, 3, 6, 15, 31, 33, 43, 44, 46, 47, 121, 249, 252]
options = [("message-type", "inform"), ("vendor_class_id", "MSFT 5.0"), ("param_req_list", wanted), "end"]
question = BOOTP(xid=0x5a17c0de, ciaddr="CIADDR", chaddr=bytes(6)) / DHCP(options=options)
own.sendto(bytes(question), ("255.255.255.255", 67))
data, server = own.recvfrom(2000)
answer = BOOTP(data)
assert answer.op == 2 and answer.xid == 0x5a17c0de
print("from", *server)
for name, *values in (option for option in answer[DHCP].options if isinstance(option, tuple)):
    if name == 249:
        name, values = "microsoft_routes", [DHCPOptions[121].i2repr(None, DHCPOptions[121].getfield(None, values[0])[1])]
    print(name, *values)
END"#;

/// The client's address by SLAAC.
fn wait_for_address(world: &World, client: &Guest) -> String {
    let seen = || client.exec("ip -6 -o address show dev ppp0 scope global").unwrap_or_default();
    let word = |text: &str| text.split_whitespace().find(|word| word.starts_with("fd20:5:")).map(str::to_owned);
    wait_until("an address of IPv6", PATIENCE, || word(&seen()).is_some())
        .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", seen(), world.logs(client)));
    let address = word(&seen()).unwrap();
    address.strip_suffix("/64").unwrap().to_owned()
}

/// Packets of IPv6 go both ways, with the addresses of those who send them.
fn assert_ipv6(world: &World, client: &Guest) {
    let address = wait_for_address(world, client);
    let routes = client.exec("ip -6 route show dev ppp0").unwrap();
    assert!(routes.contains(&format!("{} via fe80:", Inside::NETWORK6)) && !routes.contains("default"), "{routes}");
    let pppd = client.log("pppd");
    let identifier = pppd.lines().find_map(|line| line.strip_prefix("local  LL address fe80::")).unwrap();
    assert_eq!(address.parse::<Ipv6Addr>(), format!("fd20:5::{identifier}").parse(), "{pppd}");
    let from = client.exec(&format!("curl -gsS --max-time 10 'http://[{}]/cgi-bin/from'", Inside::ADDRESS6)).unwrap();
    assert_eq!(from.trim(), address);
    assert!(client.pings(Inside::ADDRESS6));
    client.exec("mkdir /run/own; echo hello > /run/own/index.html; busybox httpd -p '[::]:80' -h /run/own").unwrap();
    let url = format!("http://[{address}]/");
    let page = run(world.inside.host.exec("curl").args(["-gsS", "--max-time", "10", &url])).unwrap();
    assert_eq!(page.trim(), "hello");
    let large = ["-6", "-n", "-c", "3", "-i", "0.3", "-W", "1", "-s", "1200", &address];
    run(world.inside.host.exec("ping").args(large)).unwrap();
}

/// scapy and dhcping ask by DHCPINFORM, and they and tshark understand what is told.
fn assert_told(client: &Guest, address: &str) {
    let listen = "tcpdump -i ppp0 -Z root --immediate-mode -U -w /run/inform.pcap udp port 67 > /run/tcpdump.log 2>&1 & echo $! > /run/tcpdump.pid
        for i in $(seq 100); do grep -q 'listening on' /run/tcpdump.log && exit 0; sleep 0.1; done; cat /run/tcpdump.log; exit 1";
    client.exec(listen).unwrap();
    let told = client.exec(&INFORM.replace("CIADDR", address)).unwrap();
    let routes = "['10.20.4.0/24:10.20.5.1', '10.20.6.128/25:10.20.5.1']";
    let expected = [
        "from 10.20.5.1 67",
        "message-type 5",
        "server_id 10.20.5.1",
        "subnet_mask 255.255.255.255",
        "name_server 10.20.4.11 10.20.4.12",
        "domain b'corp.example'",
        &format!("classless_static_routes {routes}"),
        &format!("microsoft_routes {routes}"),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let ask = format!("dhcping -i -V -t 5 -c {address} -h 02:00:c0:00:02:14 -s 10.20.5.1");
    let told = client.exec(&ask).unwrap();
    for words in ["Got answer from: 10.20.5.1", "option 121"] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    let read =
        "kill $(cat /run/tcpdump.pid); tshark -n -r /run/inform.pcap -Y 'dhcp.id == 0x5a17c0de && dhcp.type == 2' -V";
    let read = client.exec(read).unwrap();
    for (times, words) in [
        (1, "Option: (121) Classless Static Route"),
        (1, "Option: (249) Private/Classless Static Route (Microsoft)"),
        (2, "10.20.4.0/24-10.20.5.1"),
        (2, "10.20.6.128/25-10.20.5.1"),
        (1, "Domain Name: corp.example"),
        (0, "Malformed"),
    ] {
        assert_eq!(read.matches(words).count(), times, "{words}: {read}");
    }
}

#[test]
fn a_client_gets_a_prefix_of_ipv6_and_both_ends_reach_each_other_and_dhcpinform_tells_it_routes_and_name_servers() {
    let world = World::with(&[User::of(&Lns::default())], |config| {
        config["addresses"]["ipv6Pool"] = json!("fd20:5::/48");
        config["addresses"]["domain"] = json!("corp.example");
        config["addresses"]["routes"] = json!(["10.20.4.0/24", "10.20.6.128/25"]);
        config["forwarding"] = json!({"networks": ["10.20.4.0/24", Inside::NETWORK6], "sourceNat": "None"});
    });
    world.inside.add_ipv6(&world.host).unwrap();
    let client = world.client(Side::Wan, Lns { ipv6: true, ..Lns::default() });
    // The kernel takes no routes of advertisements but default ones unless it is told to.
    client.exec("sysctl -qw net.ipv6.conf.default.accept_ra_rt_info_max_plen=64").unwrap();
    let link = world.connect(&client);
    assert_ipv6(&world, &client);
    assert_told(&client, local(&link));
}

#[test]
fn ike_and_esp_go_over_ipv6_with_a_whole_session_in_them() {
    let mut world = World::new();
    world.host.ip(&["address", "add", &format!("{OUTER}/64"), "dev", "eth0", "nodad"]).unwrap();
    let client = world.client_at(Side::Wan, "192.0.2.20", &Lac::new(OUTER, Lns::default()));
    let capture = Capture::start(world.site.wan.namespace(), "br0", "server").unwrap();
    world.connect(&client);
    assert!(client.pings(INNER));
    let sas = client.exec("swanctl --list-sas").unwrap();
    assert!(sas.contains(&format!("remote '{OUTER}'")) && sas.contains("INSTALLED, TRANSPORT-in-UDP"), "{sas}");
    client.hang_up().unwrap();
    world.server.wait_sessions(0, PATIENCE).unwrap();
    let file = capture.stop().unwrap();
    let seen = |filter: &str| tshark(&file, &["-Y", filter]).unwrap();
    assert_eq!(seen("ip && !arp"), "");
    assert_eq!(seen("ipv6 && !icmpv6 && !(udp.port == 500 || udp.port == 4500)"), "");
    assert!(!seen("ipv6 && udpencap && esp").is_empty() && !seen("ipv6 && isakmp").is_empty());
}
