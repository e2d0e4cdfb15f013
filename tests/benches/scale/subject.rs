//! The two servers that are measured: Towline's, and strongSwan's charon, whose figures are the control.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use towline_tests::netns::Namespace;
use towline_tests::process::{Process, run, wait_until};
use towline_tests::server::{Key, Server, User};
use towline_tests::tool;
use towline_tunnel::ike;
use zeroize::Zeroizing;

use crate::network::{Network, SERVER};
use crate::suite::Suite;

const PROGRAM: &str = "/usr/lib/ipsec/charon";
const KEY: &str = "bench-secret";
/// Users that all tunnels share.
const USERS: u32 = 1_000;
/// Silence of a peer after which a server asks whether it lives, in seconds: Towline's default, which charon gets as well.
const DPD: u32 = 10;

/// A server under load.
pub(crate) enum Subject {
    Towline(Server),
    Charon(Charon),
}

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Towline,
    Charon,
}

impl Kind {
    /// Starts one for so many peers.
    pub(crate) fn start(self, network: &Network, suite: &Suite, peers: u32) -> Result<Subject> {
        Ok(match self {
            Self::Towline => Subject::Towline(network.serve(|host| start_towline(host, suite, peers))?),
            Self::Charon => Subject::Charon(network.serve(|host| Charon::start(host, suite))?),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Towline => "Towline",
            Self::Charon => "charon",
        }
    }
}

impl Subject {
    pub(crate) fn pid(&self) -> i32 {
        match self {
            Self::Towline(server) => server.pid(),
            Self::Charon(charon) => charon.process.pid(),
        }
    }

    /// Fails unless the server itself says that it has so many peers: tunnels of Towline, if they are to be whole.
    pub(crate) fn confirm(&mut self, peers: u32, whole: bool) -> Result<()> {
        match self {
            Self::Towline(server) if whole => server.wait_sessions(peers, Duration::from_secs(10)).map(drop),
            // It has no session, and counts peers in its metrics only.
            Self::Towline(_) => Ok(()),
            Self::Charon(charon) => charon.confirm(peers),
        }
    }

    /// Ends it without goodbyes, and removes its files.
    pub(crate) fn end(self) -> Result<()> {
        let folder = match self {
            Self::Towline(server) => {
                let folder = server.folder().to_owned();
                server.kill();
                folder
            }
            Self::Charon(Charon { process, folder, .. }) => {
                drop(process);
                folder
            }
        };
        Ok(fs::remove_dir_all(folder)?)
    }
}

/// What all clients prove themselves with.
pub(crate) fn key() -> Arc<ike::Credentials> {
    ike::Credentials::pre_shared_key(Zeroizing::new(KEY.as_bytes().to_vec()))
}

/// Name and password of the user of a client.
pub(crate) fn user(client: u32) -> [String; 2] {
    let number = client % USERS;
    [format!("user{number}"), format!("password of user {number}")]
}

fn start_towline(host: &Namespace, suite: &Suite, peers: u32) -> Result<Server> {
    let users: Vec<User> = (0..USERS).map(user).map(|[name, password]| User::new(&name, &password)).collect();
    let config = json!({
        "mode": "Server",
        "ike": {"proposals": [suite.phase1], "dpd": {"intervalSeconds": DPD, "timeoutSeconds": 3 * DPD}},
        "esp": {"proposals": [suite.phase2]},
        "addresses": {"local": "10.0.0.1", "pools": ["10.0.0.0/15"]},
        "limits": {"sessions": peers, "sessionsPerUser": 0},
        "log": {"level": "Warn"},
    });
    let mut server = Server::start(host, config, &Key::PreShared(KEY.to_owned()), &users)?;
    server.wait_ready()?;
    Ok(server)
}

/// charon with ESP in its own process, as Towline has it: no kernel of the host takes a part of the work.
pub(crate) struct Charon {
    process: Process,
    folder: PathBuf,
}

impl Charon {
    fn start(host: &Namespace, suite: &Suite) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing (strongswan-charon)");
        let folder = tool::target().join("peers").join(format!("{}-charon", host.name()));
        fs::create_dir_all(&folder)?;
        let settings = folder.join("strongswan.conf");
        // No limit that a real flood would be met with, tables as long as they should be for so many, no logs, and private
        // exponents as short as Towline's (RFC 3526 section 8): by default they are as long as the prime.
        let text = format!(
            "charon {{ load = random nonce gmp openssl aes sha1 sha2 hmac kdf kernel-libipsec kernel-netlink socket-default vici
              threads = 16
              dh_exponent_ansi_x9_42 = no
              install_routes = no
              dos_protection = no
              cookie_threshold = 0
              block_threshold = 0
              init_limit_half_open = 0
              ikesa_table_size = 16384
              ikesa_table_segments = 16
              syslog {{ daemon {{ default = -1 }} }}
              plugins {{ vici {{ socket = unix://{} }} }} }}\n",
            folder.join("vici").display()
        );
        fs::write(&settings, text)?;
        // It keeps its pid in /run, which other ones must not share.
        let mut command = host.exec("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!("mount -t tmpfs tmpfs /run && exec {PROGRAM}"));
        command.env("STRONGSWAN_CONF", &settings).env("LD_PRELOAD", tool::preload("transport")?);
        let charon = Self { process: Process::spawn(command, folder.join("log"))?, folder };
        wait_until("charon", Duration::from_secs(10), || charon.folder.join("vici").exists())?;
        let file = charon.folder.join("swanctl.conf");
        fs::write(&file, configuration(suite))?;
        charon.swanctl(&["--load-all", "--file", file.to_str().context("a path that is not UTF-8")?])?;
        Ok(charon)
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let uri = format!("unix://{}", self.folder.join("vici").display());
        let mut command = Command::new("swanctl");
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"));
        run(command.args(arguments).args(["--uri", &uri]))
    }

    /// That a client has its SAs says nothing about charon, which makes those of ESP last.
    fn confirm(&self, peers: u32) -> Result<()> {
        let sas = self.swanctl(&["--list-sas"])?;
        let [isakmp, esp] = ["ESTABLISHED, IKEv1", "INSTALLED, TRANSPORT"].map(|state| sas.matches(state).count());
        if [isakmp, esp] != [peers as usize; 2] {
            bail!("charon has {isakmp} ISAKMP SAs and {esp} pairs of ESP SAs in place of {peers}:\n{}", self.stats()?);
        }
        Ok(())
    }

    fn stats(&self) -> Result<String> {
        self.swanctl(&["--stats"])
    }
}

/// Without policies: for those of its own ESP charon adds routes, and refuses one that leads to the peer itself.
fn configuration(suite: &Suite) -> String {
    let Suite { phase1, phase2 } = suite;
    format!(
        "connections {{ clients {{ version = 1
          unique = never
          local_addrs = {SERVER}
          remote_addrs = %any
          proposals = {phase1}
          dpd_delay = {DPD}s
          local {{ auth = psk
            id = {SERVER} }}
          remote {{ auth = psk
            id = %any }}
          children {{ l2tp {{ mode = transport
            policies = no
            local_ts = dynamic[udp/1701]
            remote_ts = dynamic[udp]
            esp_proposals = {phase2} }} }} }} }}
        secrets {{ ike-all {{ secret = \"{KEY}\" }} }}\n"
    )
}

/// The version of charon, as it says it.
pub(crate) fn charon_version() -> Result<String> {
    Ok(run(Command::new(PROGRAM).arg("--version"))?.trim().to_owned())
}
