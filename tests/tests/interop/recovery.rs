//! A peer that goes away and comes back, at the same address or at another.

use std::fs;
use std::time::Duration;

use towline_tests::peer::{Guest, Lns};
use towline_tests::process::{Process, run};
use towline_tests::site::{Side, Site};
use towline_tests::tunnel::{Tunnel, config, fetch_page, pings};
use towline_tests::{netns::Namespace, tool};
use towline_tunnel::report::{Layer, Reason, Report, State};

use super::world::{GATEWAY, World};

const OTHER: &str = "192.0.2.11";

fn not_ready(report: &Report) -> bool {
    !report.is_ready()
}

#[test]
fn a_killed_gateway_is_noticed_within_30_seconds_and_dialled_again_when_it_is_back() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let boot = || Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let gateway = boot();
    let host = site.host("client", Side::Lan, "198.51.100.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &lns).unwrap();
    tunnel.wait_ready().unwrap();
    gateway.kill();
    let report = tunnel.wait_for("loss of the gateway", Duration::from_secs(30), not_ready).unwrap();
    assert_eq!(report.layer(Layer::Probe).unwrap().reason, Reason::ProbeFailed);
    let dead = |report: &Report| report.cause().is_some_and(|cause| cause.layer == Layer::Peer);
    tunnel.wait_for("death of the gateway", Duration::from_secs(60), dead).unwrap();
    let _gateway = boot();
    tunnel.wait_for("new tunnel", Duration::from_secs(120), Report::is_ready).unwrap();
    assert!(pings(&host));
}

#[test]
fn without_a_health_check_of_its_own_a_tunnel_notices_a_killed_gateway_within_30_seconds() {
    let world = World::new(Lns::default(), Side::Wan);
    let (mut tunnel, report) = world.connect(|config| drop(config.as_object_mut().unwrap().remove("healthCheck")));
    assert!(report.layer(Layer::Probe).unwrap().message.contains("LCP"), "{report:?}");
    world.gateway.kill();
    tunnel.wait_for("loss of the gateway", Duration::from_secs(30), not_ready).unwrap();
}

#[test]
fn a_tunnel_comes_up_over_a_path_that_loses_a_fifth_of_its_packets() {
    let world = World::new(Lns::default(), Side::Wan);
    world.gateway.exec("tc qdisc add dev vec0 root netem loss 20% delay 20ms 10ms").unwrap();
    let rule = "table ip lossy { chain out { type filter hook output priority 0; oifname \"eth0\" numgen random mod 5 0 drop; }; }";
    run(world.host.exec("nft").arg(rule)).unwrap();
    let mut tunnel = world.start(|_| {});
    let came_up = tunnel.wait_for("tunnel over a lossy path", Duration::from_secs(180), |report| {
        report.layer(Layer::Ppp).is_some_and(|ppp| ppp.state == State::Up)
    });
    came_up.unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
    // It was lossy indeed.
    let dropped = world.gateway.exec("tc -s qdisc show dev vec0").unwrap();
    assert!(!dropped.contains("(dropped 0,"), "{dropped}");
    world.gateway.exec("tc qdisc del dev vec0 root").unwrap();
    run(world.host.exec("nft").arg("delete table ip lossy")).unwrap();
    tunnel.wait_ready().unwrap();
    assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
}

#[test]
fn a_tunnel_process_that_is_killed_is_followed_by_the_next_one() {
    let world = World::new(Lns::default(), Side::Wan);
    let (killed, _) = world.connect(|_| {});
    // Without a goodbye: the gateway still has everything of the old one, from the same address and port.
    drop(killed);
    world.connect(|_| {});
}

#[test]
fn a_nat_that_forgets_is_survived() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let _gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Lan, "198.51.100.20").unwrap();
    let mut tunnel = Tunnel::start(&host, config(GATEWAY), &lns).unwrap();
    tunnel.wait_ready().unwrap();
    site.forget_mappings().unwrap();
    // Either the gateway follows the new port or the tunnel is dialled anew; both end with a working tunnel.
    towline_tests::process::wait_until("traffic through the new mapping", Duration::from_secs(120), || pings(&host))
        .unwrap();
}

/// A name server in `host` with one name.
fn name_server(host: &Namespace, address: &str) -> (Process, std::path::PathBuf) {
    let folder = tool::target().join("peers").join(format!("{}-names", host.name()));
    fs::create_dir_all(&folder).unwrap();
    let hosts = folder.join("hosts");
    fs::write(&hosts, format!("{address} vpn.example.com\n")).unwrap();
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let mut command = host.exec("dnsmasq");
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root", "--listen-address=127.0.0.1"]);
    command.args(["--bind-interfaces", "--log-facility=-", "--local-ttl=0", "--conf-file=/dev/null"]);
    command
        .arg(format!("--addn-hosts={}", hosts.display()))
        .arg(format!("--pid-file={}", folder.join("pid").display()));
    let mut server = Process::spawn(command, folder.join("dnsmasq.log")).unwrap();
    server.wait_for_line("read", Duration::from_secs(10)).unwrap();
    (server, folder)
}

#[test]
fn a_gateway_that_moves_is_found_by_its_name() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let gateway = Guest::lns(&site.wan, "old", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let (server, names) = name_server(&host, GATEWAY);
    let resolv_conf = names.join("resolv.conf");
    let mut tunnel = Tunnel::start_with(&host, config("vpn.example.com"), &lns, &[], Some(&resolv_conf)).unwrap();
    let report = tunnel.wait_ready().unwrap();
    assert_eq!(report.peer_endpoint, Some(GATEWAY.parse().unwrap()));
    gateway.kill();
    fs::write(names.join("hosts"), format!("{OTHER} vpn.example.com\n")).unwrap();
    server.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    let _moved = Guest::lns(&site.wan, "new", OTHER, Side::Wan.router(), &lns).unwrap();
    let moved = |report: &Report| report.is_ready() && report.peer_endpoint == Some(OTHER.parse().unwrap());
    tunnel.wait_for("tunnel to the new address", Duration::from_secs(120), moved).unwrap();
    assert!(pings(&host));
}

#[test]
fn the_next_peer_of_the_list_takes_over() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let _gateway = Guest::lns(&site.wan, "second", OTHER, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let mut both = config(GATEWAY);
    both["peers"] = serde_json::json!([{"address": GATEWAY}, {"address": OTHER}]);
    let mut tunnel = Tunnel::start(&host, both, &lns).unwrap();
    let report = tunnel.wait_for("tunnel to the second peer", Duration::from_secs(120), Report::is_ready).unwrap();
    assert_eq!(report.active_peer.as_deref(), Some(OTHER));
}
