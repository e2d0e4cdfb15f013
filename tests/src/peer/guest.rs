//! A guest: user-mode Linux with kernel ESP, L2TP and PPP, and strongSwan, xl2tpd and pppd of this machine's file system.

mod configuration;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::netns::Bridge;
use crate::peer::pki::Certificate;
use crate::process::{Identity, Process, run, wait_until};
use crate::tool;
use crate::tunnel::{answers, check_sequence};

use self::configuration::Files;

pub use self::configuration::{Lac, Lns, PppAuth, outer_ipv6};

/// The address behind every LNS guest: it answers pings and serves a web page.
pub const INNER: &str = "10.20.4.11";

/// How long a guest may take to boot; a few seconds are usual, and the machine may be busy.
const BOOT: Duration = Duration::from_secs(90);
/// How long a command in a guest may take.
const COMMAND: Duration = Duration::from_secs(60);

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    folder: PathBuf,
    tap: String,
    bridge: String,
    next: AtomicU32,
}

/// What charon's log counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchanges {
    /// Main Mode that the client began.
    pub main_mode_of_client: usize,
    /// Main Mode that the gateway began.
    pub main_mode_of_gateway: usize,
    /// Quick Mode that the client began.
    pub quick_mode_of_client: usize,
    /// Quick Mode that the gateway began.
    pub quick_mode_of_gateway: usize,
    /// ISAKMP SAs that were established.
    pub isakmp_established: usize,
    /// Pairs of ESP SAs that were established.
    pub esp_established: usize,
}

/// What a guest's folder tells of it from the moment it is started: enough to end it when its harness is gone.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    identity: Identity,
    bridge: String,
    tap: String,
}

impl Record {
    fn path(folder: &Path) -> PathBuf {
        folder.join("guest.json")
    }

    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = || format!("{} is damaged: end the guest by hand and remove the folder", path.display());
        Ok(Some(serde_json::from_slice(&fs::read(&path)?).with_context(damaged)?))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let unfinished = folder.join("guest.json.part");
        fs::write(&unfinished, serde_json::to_vec(self)?)?;
        Ok(fs::rename(unfinished, Self::path(folder))?)
    }

    /// Ends the guest if it runs still, and removes its device.
    fn end(&self) -> Result<()> {
        if self.identity.is_alive() {
            match killpg(Pid::from_raw(self.identity.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("cannot end a guest"),
            }
            wait_until("a guest's end", Duration::from_secs(10), || !self.identity.is_alive())?;
        }
        let link = |action: &str| run(Command::new("ip").args(["-n", &self.bridge, "link", action, &self.tap]));
        if link("show").is_ok() {
            link("delete")?;
        }
        Ok(())
    }
}

impl Guest {
    /// Boots a gateway at `address` (an address of 192.0.2.0/24 or 198.51.100.0/24, by the bridge) behind `router`.
    pub fn lns(bridge: &Bridge, name: &str, address: &str, router: &str, lns: &Lns) -> Result<Self> {
        let mut files = Files::default();
        let mut settings = format!("INNER={INNER}\nPAGE='{}'\n", lns.page);
        if lns.outer_ipv6 {
            let outer = outer_ipv6(address);
            settings += &format!("ADDRESS6={outer}\n");
            files.ipsec(lns, &outer, None);
        } else {
            files.ipsec(lns, address, None);
        }
        files.lns(lns);
        Self::boot(bridge, name, address, router, &settings, &files)
    }

    /// Boots a client at `address`.
    pub fn lac(bridge: &Bridge, name: &str, address: &str, router: &str, lac: &Lac) -> Result<Self> {
        let mut files = Files::default();
        let behind = lac.behind.as_deref().unwrap_or_default();
        let mut settings = format!("INNER={behind}\nPAGE='{}'\n", lac.like.page);
        if lac.is_ipv6() {
            let outer = outer_ipv6(address);
            settings += &format!("ADDRESS6={outer}\nSERVER6={}\n", lac.server);
            files.ipsec(&lac.like, &outer, Some(&lac.server));
        } else {
            files.ipsec(&lac.like, address, Some(&lac.server));
        }
        files.lac(lac);
        Self::boot(bridge, name, address, router, &settings, &files)
    }

    fn boot(bridge: &Bridge, name: &str, address: &str, router: &str, more: &str, files: &Files) -> Result<Self> {
        let namespace = bridge.namespace();
        let folder = folder(namespace.name(), name);
        if folder.exists() {
            // Of a harness that was killed, or a demo.
            Record::read(&folder)?.map_or(Ok(()), |record| record.end())?;
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("commands"))?;
        files.write(&folder.join("etc"))?;
        let settings = format!("ADDRESS={address}\nROUTER={router}\n{more}");
        fs::write(folder.join("settings"), settings)?;
        fs::copy(tool::workspace().join("tests/peers/init.sh"), folder.join("init.sh"))?;
        // Interface names have 15 characters at most; the address is unique on its bridge.
        let tap = format!("tap{}", address.replace('.', "").chars().rev().take(8).collect::<String>());
        namespace.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        namespace.ip(&["link", "set", &tap, "master", "br0", "up"])?;
        let mut command = namespace.exec("linux.uml");
        if let Some(library) = xstate()? {
            command = namespace.exec("env");
            command.arg(format!("LD_PRELOAD={}", library.display())).arg("linux.uml");
        }
        // The same address has the same MAC, so that a guest that is booted again is not lost to old ARP entries.
        let mac: String = address.split('.').filter_map(|octet| octet.parse::<u8>().ok()).fold(
            "02:00".to_owned(),
            |mut mac, octet| {
                // Writing to a String cannot fail.
                let written = write!(mac, ":{octet:02x}");
                debug_assert!(written.is_ok());
                mac
            },
        );
        command.args([
            "mem=192M",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
            "con0=null,fd:1",
            "con=null",
            "ssl=null",
        ]);
        command.arg(format!("init={}", folder.join("init.sh").display()));
        command.arg(format!("guestfolder={}", folder.display()));
        // Short, because a socket lies below it.
        command.arg(format!("uml_dir={}/", folder.display())).arg("umid=u");
        command.arg(format!("vec0:transport=tap,ifname={tap},depth=128,gro=1,mac={mac}"));
        let process = Process::spawn(command, folder.join("console.log"))?;
        let bridge = namespace.name().to_owned();
        Record { identity: process.identity(), bridge: bridge.clone(), tap: tap.clone() }.write(&folder)?;
        let mut guest = Self { process, folder, tap, bridge, next: AtomicU32::new(0) };
        let ready = guest.folder.join("ready");
        let booted = wait_until("a guest's boot", BOOT, || {
            ready.exists() || matches!(guest.process.ended(), Ok(Some(_)) | Err(_))
        });
        let status = fs::read_to_string(&ready).unwrap_or_default();
        if booted.is_err() || status.trim() != "0" {
            bail!(
                "guest {name} did not come up (status {:?}):\n{}\n{}",
                status.trim(),
                guest.process.output()?,
                guest.log("boot")
            );
        }
        Ok(guest)
    }

    /// Its interface on the bridge: there large packets are in the pieces in which they arrive.
    pub fn interface(&self) -> &str {
        &self.tap
    }

    /// Runs a shell command in the guest and returns its output; a status other than 0 is an error.
    pub fn exec(&self, script: &str) -> Result<String> {
        let name = format!("{}", self.next.fetch_add(1, Ordering::Relaxed));
        let file = |suffix: &str| self.folder.join("commands").join(format!("{name}.{suffix}"));
        fs::write(file("new"), script)?;
        fs::rename(file("new"), file("sh"))?;
        wait_until(&format!("the guest's answer to: {script}"), COMMAND, || file("rc").exists())?;
        let output = String::from_utf8_lossy(&fs::read(file("out"))?).into_owned();
        let status = fs::read_to_string(file("rc"))?;
        ensure!(status.trim() == "0", "{script}: status {}\n{output}", status.trim());
        Ok(output)
    }

    /// A log: `charon`, `l2tp`, `pppd` or `boot`; empty when there is none yet.
    pub fn log(&self, name: &str) -> String {
        let suffix = if name == "boot" { "txt" } else { "log" };
        let bytes = fs::read(self.folder.join(format!("{name}.{suffix}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// (Gateways.) Insists on another authentication from the next call on.
    pub fn demand(&self, auth: PppAuth) -> Result<()> {
        let options = auth.options(true).join("\n");
        let file = "/etc/ppp/options.l2tp";
        self.exec(&format!("sed -i '/^re[qf]u/d' {file} && cat >> {file} <<END\n{options}\nEND")).map(drop)
    }

    /// (Gateways.) The IKE exchanges that came to their end so far.
    pub fn exchanges(&self) -> Exchanges {
        let log = self.log("charon");
        // What is sent again is logged in another way.
        let count = |begins: &str, what: &str| {
            log.lines().filter(|line| line.split_once(begins).is_some_and(|(_, rest)| rest.contains(what))).count()
        };
        Exchanges {
            main_mode_of_client: count("parsed ID_PROT request", "[ SA "),
            main_mode_of_gateway: count("generating ID_PROT request", "[ SA "),
            quick_mode_of_client: count("parsed QUICK_MODE request", "[ HASH SA "),
            quick_mode_of_gateway: count("generating QUICK_MODE request", "[ HASH SA "),
            isakmp_established: count("IKE_SA l2tp[", "established between"),
            esp_established: count("CHILD_SA l2tp{", "established with SPIs"),
        }
    }

    /// (Client guests.) Brings the session up; returns what PPP agreed on.
    pub fn dial(&self) -> Result<String> {
        self.dial_ipsec()?;
        self.exec(
            ": > /mnt/pppd.log
            echo 'c lns' > /run/xl2tpd/l2tp-control
            for i in $(seq 300); do
              [ -e /mnt/ppp-up ] && { cat /mnt/ppp-up; exit 0; }
              sed -n '/^Connect: /,$p' /mnt/pppd.log | grep -q 'Connection terminated' && break
              sleep 0.1
            done
            tail -n 5 /mnt/l2tp.log /mnt/pppd.log
            exit 1",
        )
    }

    /// (Client guests.) Proves itself by EAP-TLS with another certificate from the next call on.
    pub fn prove(&self, certificate: &Certificate) -> Result<()> {
        let (chain, key) = (certificate.chain(), &certificate.key);
        self.exec(&format!("cat > /etc/ppp/own.pem <<END\n{chain}END\ncat > /etc/ppp/own.key <<END\n{key}END"))
            .map(drop)
    }

    /// (Client guests.) Brings the SAs up, and no more.
    pub fn dial_ipsec(&self) -> Result<()> {
        let initiate = "swanctl --initiate --child l2tp --timeout 20 > /mnt/initiate.log 2>&1";
        self.exec(&format!("{initiate} || {{ tail -15 /mnt/initiate.log; exit 1; }}")).map(drop)
    }

    /// (Client guests.) Ends the session in order: the L2TP tunnel first, then the SAs. A client that was refused must hang up
    /// before it dials again: xl2tpd may hold the call for active still, and takes none on a tunnel that it is closing.
    pub fn hang_up(&self) -> Result<()> {
        self.exec(
            "echo 'd lns' > /run/xl2tpd/l2tp-control
            for i in $(seq 400); do
              opened=$(grep -c 'allocating new tunnel' /mnt/l2tp.log)
              closed=$(grep -c 'closing down tunnel\\|Destroying anyway' /mnt/l2tp.log)
              [ $opened = $closed ] && ! ip link show type ppp | grep -q ppp && exit 0
              sleep 0.1
            done
            tail -n 15 /mnt/l2tp.log
            exit 1",
        )?;
        self.exec("swanctl --terminate --ike l2tp --timeout 10 || [ -z \"$(swanctl --list-sas --ike l2tp)\" ]")
            .map(drop)
    }

    /// (Client guests.) Whether PPP is up.
    pub fn is_up(&self) -> bool {
        self.folder.join("ppp-up").exists()
    }

    /// (Client guests.) The page at `address`, fetched through the link.
    pub fn fetch(&self, address: &str) -> Result<String> {
        Ok(self.exec(&format!("curl -sS --max-time 10 http://{address}/"))?.trim().to_owned())
    }

    /// Whether `address` answers one of three pings.
    pub fn pings(&self, address: &str) -> bool {
        self.exec(&format!("ping -n -c 3 -i 0.3 -W 1 {address} | grep -q 'bytes from'")).is_ok()
    }

    /// Pings `address` five times a second from here on.
    pub fn start_pings(&self, address: &str) -> Result<GuestPings<'_>> {
        let log = format!("ping-{}.log", self.next.fetch_add(1, Ordering::Relaxed));
        self.exec(&format!("ping -n -i 0.2 {address} > /mnt/{log} 2>&1 & echo $! > /run/{log}.pid"))?;
        Ok(GuestPings { guest: self, log })
    }

    /// Ends the guest at once, as a power cut would.
    pub fn kill(self) {
        drop(self);
    }

    /// Leaves the guest running when this process ends. [`is_kept`] finds it, [`end_kept`] ends it.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

/// Five pings a second out of a guest, each of which must be answered.
#[derive(Debug)]
pub struct GuestPings<'a> {
    guest: &'a Guest,
    log: String,
}

impl GuestPings<'_> {
    /// How many answers there are so far.
    pub fn answered(&self) -> usize {
        answers(&fs::read_to_string(self.guest.folder.join(&self.log)).unwrap_or_default()).len()
    }

    /// Waits for another second of answers and ends. Fails when one before the last answer is missing or came twice: one that
    /// is under way when ping ends is not lost. Returns how many there were.
    pub fn finish(self) -> Result<usize> {
        let enough = self.answered() + 5;
        wait_until("answers to a guest's pings", Duration::from_secs(30), || self.answered() >= enough)?;
        self.guest.exec(&format!("kill -INT $(cat /run/{}.pid)", self.log))?;
        check_sequence(&answers(&fs::read_to_string(self.guest.folder.join(&self.log))?))
    }
}

/// The folder of a guest of the bridge in the namespace `bridge`.
fn folder(bridge: &str, name: &str) -> PathBuf {
    tool::target().join("peers").join(format!("{bridge}-{name}"))
}

/// Whether a guest of an earlier run still runs.
pub fn is_kept(bridge: &str, name: &str) -> Result<bool> {
    Ok(Record::read(&folder(bridge, name))?.is_some_and(|record| record.identity.is_alive()))
}

/// Ends a guest of an earlier run; returns whether there was one that ran.
pub fn end_kept(bridge: &str, name: &str) -> Result<bool> {
    let Some(record) = Record::read(&folder(bridge, name))? else { return Ok(false) };
    let ran = record.identity.is_alive();
    record.end()?;
    Ok(ran)
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        // The process is killed after this; a device without its process is of no use to anybody.
        if let Err(error) = run(command.args(["-n", &self.bridge, "link", "delete", &self.tap])) {
            eprintln!("a guest's device could not be removed: {error:#}");
        }
    }
}

/// The library that user-mode Linux needs on processors with AMX.
fn xstate() -> Result<Option<PathBuf>> {
    let needed = fs::read_to_string("/proc/cpuinfo")?.contains("amx_tile");
    needed.then(|| tool::preload("xstate")).transpose()
}
