//! strongSwan's charon as responder, with another one as initiator, in two namespaces: the control of our own figures.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use towline_tests::netns::{Bridge, Namespace};
use towline_tests::process::{Process, run, wait_until};

const PROGRAM: &str = "/usr/lib/ipsec/charon";
const INITIATOR: &str = "198.18.1.1";
const RESPONDER: &str = "198.18.1.2";
/// Of `/proc/PID/stat` on Linux: every architecture shows 100 in a second.
const TICK: Duration = Duration::from_millis(10);
/// How long all set-ups may take.
const PATIENCE: Duration = Duration::from_secs(120);

struct Charon {
    process: Process,
    folder: PathBuf,
    namespace: Namespace,
}

/// The CPU of one set-up at the responder.
pub(crate) fn measure(count: u32, phase1: &str, phase2: &str) -> Result<Duration> {
    ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing (strongswan-charon)");
    ensure!(fs::metadata("/proc/self")?.uid() == 0, "it needs root");
    let folder = std::env::temp_dir().join(format!("towline-bench-{}", std::process::id()));
    let bridge = Bridge::new()?;
    let initiator = Charon::start(&bridge, &folder.join("i"), INITIATOR)?;
    let responder = Charon::start(&bridge, &folder.join("r"), RESPONDER)?;
    responder.load("--load-all", &(server(phase1, phase2) + SECRET))?;
    initiator.load("--load-creds", SECRET)?;
    let before = responder.ticks()?;
    let connections = (0..count).map(|number| client(number, phase1, phase2)).collect::<String>();
    initiator.load("--load-conns", &format!("connections {{\n{connections}}}\n"))?;
    let wanted = format!("IKE_SAs: {count} total, 0 half-open");
    let complete = || responder.swanctl(&["--stats"]).is_ok_and(|stats| stats.contains(&wanted));
    wait_until("all set-ups of charon", PATIENCE, complete)?;
    let ticks = responder.ticks()?.saturating_sub(before);
    drop((initiator, responder));
    fs::remove_dir_all(&folder)?;
    Ok(TICK * ticks / count)
}

const SECRET: &str = "secrets { ike-1 { secret = \"bench-secret\" } }\n";

fn server(phase1: &str, phase2: &str) -> String {
    format!(
        "connections {{ srv {{ version = 1
          unique = never
          local_addrs = {RESPONDER}
          remote_addrs = %any
          encap = yes
          proposals = {phase1}
          local {{ auth = psk
            id = srv }}
          remote {{ auth = psk
            id = %any }}
          children {{ srv {{ local_ts = 198.18.200.1/32
            remote_ts = 198.19.0.0/16
            esp_proposals = {phase2} }} }} }} }}\n"
    )
}

fn client(number: u32, phase1: &str, phase2: &str) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!(
        "c{number} {{ version = 1
          local_addrs = {INITIATOR}
          remote_addrs = {RESPONDER}
          encap = yes
          proposals = {phase1}
          local {{ auth = psk
            id = u{number} }}
          remote {{ auth = psk
            id = srv }}
          children {{ c{number} {{ local_ts = 198.19.{high}.{low}/32
            remote_ts = 198.18.200.1/32
            esp_proposals = {phase2}
            start_action = start }} }} }}\n"
    )
}

impl Charon {
    fn start(bridge: &Bridge, folder: &Path, address: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (settings, vici) = (folder.join("strongswan.conf"), folder.join("vici"));
        // ESP in the process, so that the kernel does not count; no limit that a real flood would be met with.
        let text = format!(
            "charon {{ load = random nonce openssl aes sha1 sha2 hmac gcm kdf kernel-libipsec kernel-netlink socket-default vici
              threads = 16
              install_routes = no
              dos_protection = no
              cookie_threshold = 0
              block_threshold = 0
              init_limit_half_open = 0
              ikesa_table_size = 1024
              ikesa_table_segments = 16
              plugins {{ vici {{ socket = unix://{} }}
                kernel-libipsec {{ allow_peer_ts = yes }} }} }}\n",
            vici.display()
        );
        fs::write(&settings, text)?;
        let namespace = Namespace::new("charon")?;
        bridge.attach(&namespace, "eth0", &format!("{address}/24"))?;
        // It keeps its pid in /run, which two of them must not share.
        let mut command = namespace.exec("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!("mount -t tmpfs tmpfs /run && exec {PROGRAM}"));
        let process = Process::spawn(with(command, folder), folder.join("log"))?;
        wait_until("charon", Duration::from_secs(10), || vici.exists())?;
        Ok(Self { process, folder: folder.to_owned(), namespace })
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let uri = format!("unix://{}", self.folder.join("vici").display());
        let mut command = self.namespace.exec("swanctl");
        command.args(arguments).args(["--uri", &uri]);
        run(&mut with(command, &self.folder))
    }

    fn load(&self, what: &str, text: &str) -> Result<()> {
        let file = self.folder.join("swanctl.conf");
        fs::write(&file, text)?;
        let loaded = self.swanctl(&[what, "--file", file.to_str().context("a path that is not UTF-8")?]);
        loaded.map(drop)
    }

    /// CPU since its start, in ticks.
    fn ticks(&self) -> Result<u32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.pid()))?;
        // The name, in parentheses, is the second field.
        let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let [user, system] = [11, 12].map(|field| fields.get(field).and_then(|text| text.parse::<u32>().ok()));
        Ok(user.context("no utime")? + system.context("no stime")?)
    }
}

fn with(mut command: Command, folder: &Path) -> Command {
    command.env("STRONGSWAN_CONF", folder.join("strongswan.conf"));
    command
}
