//! What others saw: packets on the node, the gateways' logs, the processes of a pod.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use towline_tests::cluster::Cluster;
use towline_tests::netns::Namespace;
use towline_tests::peer::{Guest, INNER};
use towline_tests::process::{Identity, Process, run, wait_until};
use towline_tests::release::{app, wait_for_pod};
use towline_tests::site::{Capture, tshark};
use towline_tests::tool;

use super::world::{APP, kubectl, lns};

/// The network behind the gateways.
const REMOTE: &str = "10.20.4.0/24";

/// Everything that the node carries, of all pods and to the network.
pub(super) struct NodeCapture(Capture);

impl NodeCapture {
    pub(super) fn start(cluster: &Cluster, name: &str) -> Self {
        Self(Capture::start(&cluster.namespace().unwrap(), "any", name).unwrap())
    }

    /// Nothing for or from the remote network was seen in clear so far, and a pod without a tunnel that does the same is
    /// seen.
    pub(super) fn assert_nothing_in_clear(self, cluster: &Cluster) {
        cluster.apply(&app(APP, None)).unwrap();
        wait_for_pod(cluster, APP).unwrap();
        let control_began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        // Nobody answers it.
        let ping = ["exec", APP, "--", "ping", "-c", "1", "-W", "1", INNER];
        assert!(cluster.kubectl(&ping).is_err(), "a pod without a tunnel reaches {INNER}");
        let capture = self.0.stop().unwrap();
        // What the node says about the control of an earlier test has its packet inside; one in clear has been seen by itself.
        let packets = format!("ip.addr == {REMOTE} && !(icmp.type == 3)");
        let seen = |when: &str| tshark(&capture, &["-Y", &format!("{packets} && {when}")]).unwrap();
        assert_eq!(seen(&format!("frame.time_epoch < {control_began:.6}")), "", "in clear");
        let control = seen(&format!("frame.time_epoch >= {control_began:.6}"));
        assert!(!control.is_empty(), "the capture does not see what is in clear");
        assert!(!tshark(&capture, &["-Y", "udp.port == 4500"]).unwrap().is_empty(), "the capture saw no tunnel");
        assert_no_page(&capture);
    }
}

/// The text of the web page is in no packet.
pub(super) fn assert_no_page(capture: &Path) {
    let (octets, page) = (fs::read(capture).unwrap(), lns().page);
    assert!(!octets.windows(page.len()).any(|window| window == page.as_bytes()), "the page is in clear");
}

/// Of IPv4 a gateway sees UDP 500 and 4500 alone.
pub(super) fn assert_only_ipsec(capture: &Path, gateway: &str) {
    let address = format!("ip.addr == {gateway}");
    let other = format!("{address} && !(udp.port == 500 || udp.port == 4500)");
    assert_eq!(tshark(capture, &["-Y", &other]).unwrap(), "", "not UDP 500 or 4500");
    for port in [500, 4500] {
        let wanted = format!("{address} && udp.port == {port}");
        assert!(!tshark(capture, &["-Y", &wanted]).unwrap().is_empty(), "UDP {port} is not in the capture");
    }
}

/// How long a gateway's logs are: what comes later is news.
pub(super) struct Marks<'a> {
    gateway: &'a Guest,
    charon: usize,
    l2tp: usize,
}

impl<'a> Marks<'a> {
    pub(super) fn of(gateway: &'a Guest) -> Self {
        Self { gateway, charon: gateway.log("charon").len(), l2tp: gateway.log("l2tp").len() }
    }

    fn news(&self) -> (String, String) {
        let after = |log: &str, mark: usize| self.gateway.log(log).get(mark..).unwrap_or_default().to_owned();
        (after("charon", self.charon), after("l2tp", self.l2tp))
    }

    /// The client says goodbye on each layer, and the gateway has nothing left of it.
    pub(super) fn wait_for_goodbye(&self) {
        let node = super::world::NODE;
        let (cdn, stop) =
            (format!("Connection closed to {node}, serial"), format!("Connection closed to {node}, port"));
        let missing = || {
            let (charon, l2tp) = self.news();
            let found = [
                ("CDN", l2tp.contains(&cdn)),
                ("StopCCN", l2tp.contains(&stop)),
                ("DELETE of ESP", charon.contains("received DELETE for ESP CHILD_SA")),
                ("DELETE of IKE", charon.contains("received DELETE for IKE_SA")),
            ];
            found.iter().filter(|(_, is_there)| !is_there).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        wait_until("the client's goodbye", Duration::from_secs(30), || missing().is_empty()).unwrap_or_else(|error| {
            let (charon, l2tp) = self.news();
            panic!("{error:#}: no {:?}\n{charon}\n{l2tp}", missing())
        });
        wait_until("the gateway to forget the client", Duration::from_secs(10), || {
            self.gateway.exec("swanctl --list-sas").is_ok_and(|left| left.trim().is_empty())
        })
        .unwrap();
    }
}

/// A process of the pod with this UID by its name: `pause` holds the pod's network, `towline-tunnel` is the tunnel.
pub(super) fn process_of_pod(uid: &str, name: &str) -> Option<Identity> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let is_named = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() == name;
        let is_in_pod = || fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(uid));
        if is_named && is_in_pod() { Identity::of(pid) } else { None }
    })
}

/// A command in the network namespace of a process.
pub(super) fn beside(process: Identity, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", process.pid)).arg("--").arg(program);
    command
}

/// One ping after the other from beside `process`, until it is dropped.
pub(super) fn ping_on(process: Identity, log: &str) -> Process {
    let mut command = beside(process, "sh");
    command.args(["-c", &format!("while :; do ping -c 1 -W 1 {INNER}; sleep 0.1; done")]);
    spawn(command, log)
}

/// A process with a log of its own.
pub(super) fn spawn(command: Command, log: &str) -> Process {
    Process::spawn(command, tool::target().join("peers").join(format!("cluster-{log}.log"))).unwrap()
}

/// What kubectl shows of an object's changes from now on: a line each.
pub(super) fn watch(cluster: &Cluster, object: &str, columns: &str) -> Process {
    let mut command = cluster.exec("kubectl").unwrap();
    let template = format!("-o=jsonpath={columns}{{\"\\n\"}}");
    command.args(["get", "--watch"]).args(object.split_whitespace()).arg(template);
    let mut watch = spawn(command, &format!("watch-{}", object.replace([' ', '/'], "-")));
    wait_until("the first line of a watch", Duration::from_secs(20), || {
        watch.output().is_ok_and(|lines| lines.contains('\n')) || !matches!(watch.ended(), Ok(None))
    })
    .unwrap();
    watch
}

/// The network namespace of a pod that is about to start, as soon as it is there.
pub(super) fn wait_for_process(uid: &str, name: &str) -> Identity {
    let mut found = None;
    wait_until(&format!("{name} in pod {uid}"), Duration::from_secs(60), || {
        found = process_of_pod(uid, name);
        found.is_some()
    })
    .unwrap();
    found.unwrap()
}

/// UID of a pod.
pub(super) fn uid(cluster: &Cluster, pod: &str) -> String {
    kubectl(cluster, &format!("get pod {pod} -o=jsonpath={{.metadata.uid}}")).trim().to_owned()
}

/// Runs a command; whether it succeeded and all that it said.
pub(super) fn say(command: &mut Command) -> (bool, String) {
    match run(command) {
        Ok(output) => (true, output),
        Err(error) => (false, format!("{error:#}")),
    }
}

/// Interface of a gateway on the bridge.
pub(super) fn wire(gateway: &Guest, name: &str) -> Capture {
    let bridge = Cluster::bridge().unwrap();
    let wire: &Namespace = bridge.namespace();
    Capture::start(wire, gateway.interface(), name).unwrap()
}

/// The time as Kubernetes writes it.
pub(super) fn now() -> String {
    say(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"])).1.trim().to_owned()
}
