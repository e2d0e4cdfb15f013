//! A guest: user-mode Linux with kernel ESP, L2TP and PPP, and strongSwan, xl2tpd and pppd of this machine's file system.

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
use crate::process::{Identity, Process, run, wait_until};
use crate::tool;

/// The address behind every LNS guest: it answers pings and serves a web page.
pub const INNER: &str = "10.20.4.11";

/// How long a guest may take to boot; a few seconds are usual, and the machine may be busy.
const BOOT: Duration = Duration::from_secs(90);
/// How long a command in a guest may take.
const COMMAND: Duration = Duration::from_secs(60);

/// PPP authentication that a guest insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PppAuth {
    /// MS-CHAPv2.
    MsChapV2,
    /// CHAP with MD5.
    Chap,
    /// PAP.
    Pap,
}

impl PppAuth {
    fn options(self, demand: bool) -> &'static [&'static str] {
        match (self, demand) {
            (Self::MsChapV2, true) => {
                &["require-mschap-v2", "refuse-mschap", "refuse-chap", "refuse-pap", "refuse-eap"]
            }
            (Self::Chap, true) => &["require-chap", "refuse-mschap", "refuse-mschap-v2", "refuse-pap", "refuse-eap"],
            (Self::Pap, true) => &["require-pap", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-eap"],
            (Self::MsChapV2, false) => &["noauth", "refuse-mschap", "refuse-chap", "refuse-pap", "refuse-eap"],
            (Self::Chap, false) => &["noauth", "refuse-mschap", "refuse-mschap-v2", "refuse-pap", "refuse-eap"],
            (Self::Pap, false) => &["noauth", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-eap"],
        }
    }
}

/// A gateway: what it accepts.
#[derive(Debug, Clone)]
pub struct Lns {
    /// The pre-shared key.
    pub psk: String,
    /// Proposals in strongSwan's notation, comma-separated.
    pub ike: String,
    /// Those of phase 2, likewise.
    pub esp: String,
    /// Lifetimes in seconds.
    pub ike_life: u32,
    /// That of phase 2.
    pub esp_life: u32,
    /// Whether the gateway begins rekeys itself, at 80 % of the lifetimes.
    pub rekey: bool,
    /// Seconds between DPD messages; zero for none.
    pub dpd: u32,
    /// Whether it claims to be behind a NAT.
    pub force_encapsulation: bool,
    /// The PPP authentication that it insists on.
    pub auth: PppAuth,
    /// Its only user.
    pub user: String,
    /// The password of that user.
    pub password: String,
    /// Whether pppd offers compression (CCP), which is refused.
    pub compression: bool,
    /// The secret of L2TP tunnel authentication.
    pub tunnel_secret: Option<String>,
    /// Whether xl2tpd has only one address to give; it refuses further calls.
    pub single_address: bool,
    /// What its web page says.
    pub page: String,
}

impl Default for Lns {
    fn default() -> Self {
        Self {
            psk: "test-preshared-key".to_owned(),
            ike: "aes256-sha256-modp2048".to_owned(),
            esp: "aes256-sha256".to_owned(),
            ike_life: 10_800,
            esp_life: 3_600,
            rekey: false,
            dpd: 0,
            force_encapsulation: false,
            auth: PppAuth::MsChapV2,
            user: "alice".to_owned(),
            password: "wonderland".to_owned(),
            compression: false,
            tunnel_secret: None,
            single_address: false,
            page: "the page behind the gateway".to_owned(),
        }
    }
}

/// A foreign client, to tell faults of the harness from faults of ours.
#[derive(Debug, Clone)]
pub struct Lac {
    /// The gateway's address.
    pub server: String,
    /// The rest is as the gateway has it.
    pub like: Lns,
}

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
        files.ipsec(lns, address, None);
        files.lns(lns);
        Self::boot(bridge, name, address, router, (INNER, &lns.page), &files)
    }

    /// Boots a client at `address`.
    pub fn lac(bridge: &Bridge, name: &str, address: &str, router: &str, lac: &Lac) -> Result<Self> {
        let mut files = Files::default();
        files.ipsec(&lac.like, address, Some(&lac.server));
        files.lac(lac);
        Self::boot(bridge, name, address, router, ("", ""), &files)
    }

    fn boot(
        bridge: &Bridge,
        name: &str,
        address: &str,
        router: &str,
        inner: (&str, &str),
        files: &Files,
    ) -> Result<Self> {
        let namespace = bridge.namespace();
        let folder = folder(namespace.name(), name);
        if folder.exists() {
            // Of a harness that was killed, or a demo.
            Record::read(&folder)?.map_or(Ok(()), |record| record.end())?;
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("commands"))?;
        files.write(&folder.join("etc"))?;
        let settings = format!("ADDRESS={address}\nROUTER={router}\nINNER={}\nPAGE='{}'\n", inner.0, inner.1);
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
        self.exec("swanctl --initiate --child l2tp --timeout 20 > /mnt/initiate.log 2>&1 || { tail -15 /mnt/initiate.log; exit 1; }")?;
        self.exec(
            "echo 'c lns' > /run/xl2tpd/l2tp-control; for i in $(seq 300); do [ -e /mnt/ppp-up ] && { cat /mnt/ppp-up; exit 0; }; sleep 0.1; done; tail -5 /mnt/l2tp.log /mnt/pppd.log; exit 1",
        )
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
    if !fs::read_to_string("/proc/cpuinfo")?.contains("amx_tile") {
        return Ok(None);
    }
    let library = tool::folder().join("xstate.so");
    let source = tool::workspace().join("tests/peers/xstate.c");
    if !tool::is_newer(&library, &source) {
        fs::create_dir_all(tool::folder())?;
        let unfinished = library.with_extension(format!("{}", std::process::id()));
        run(Command::new("gcc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&unfinished).arg(source))?;
        fs::rename(unfinished, &library)?;
    }
    Ok(Some(library))
}

/// Configuration files, by their path below `/etc`.
#[derive(Default)]
struct Files(Vec<(&'static str, String)>);

impl Files {
    fn write(&self, folder: &Path) -> Result<()> {
        for (path, text) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)?;
        }
        Ok(())
    }

    /// One transport-mode connection: of a gateway, or of a client of `server`.
    fn ipsec(&mut self, lns: &Lns, address: &str, server: Option<&str>) {
        let rekeys = lns.rekey || server.is_some();
        let at = |life: u32| if rekeys { life / 5 * 4 } else { 0 };
        let (local, remote) = if server.is_some() {
            ("dynamic[udp/1701]", "dynamic[udp/1701]")
        } else {
            ("dynamic[udp/1701]", "dynamic[udp]")
        };
        self.0.push((
            "swanctl/swanctl.conf",
            format!(
                "connections {{ l2tp {{
                  version = 1
                  aggressive = no
                  local_addrs = {address}
                  remote_addrs = {peer}
                  proposals = {ike}
                  encap = {encap}
                  reauth_time = {reauth}
                  rekey_time = 0
                  over_time = {over}
                  rand_time = 0
                  dpd_delay = {dpd}
                  dpd_timeout = {dpd_timeout}
                  unique = never
                  local {{
                    auth = psk
                  }}
                  remote {{
                    auth = psk
                  }}
                  children {{ l2tp {{
                    mode = transport
                    local_ts = {local}
                    remote_ts = {remote}
                    esp_proposals = {esp}
                    life_time = {esp_life}
                    rekey_time = {esp_rekey}
                    rand_time = 0
                  }} }}
                }} }}
                secrets {{ ike-any {{
                  secret = \"{psk}\"
                }} }}
",
                peer = server.unwrap_or("%any"),
                ike = lns.ike,
                encap = if lns.force_encapsulation { "yes" } else { "no" },
                reauth = at(lns.ike_life),
                over = lns.ike_life / 5,
                dpd = lns.dpd,
                dpd_timeout = lns.dpd * 3,
                esp = lns.esp,
                esp_life = lns.esp_life,
                esp_rekey = at(lns.esp_life),
                psk = lns.psk,
            ),
        ));
        self.0.push((
            "strongswan.conf",
            // swanctl needs no cryptography here, and some plugins wait for a random number generator that starts late.
            "swanctl {
              load = random pem
            }
            charon {
              load_modular = no
              load = random nonce aes rc2 sha1 sha2 md5 hmac gmp openssl gcm ctr x509 pubkey pkcs1 pkcs8 pem constraints revocation kernel-netlink socket-default updown vici
              install_routes = no
              filelog { main {
                path = /mnt/charon.log
                time_format = %H:%M:%S
                flush_line = yes
                default = 1
              } }
            }
"
            .to_owned(),
        ));
    }

    fn ppp(&mut self, lns: &Lns, demand: bool, more: &[&str]) {
        let mut options: Vec<&str> = lns.auth.options(demand).to_vec();
        options.extend([
            "mtu 1400",
            "mru 1400",
            "lcp-echo-interval 10",
            "lcp-echo-failure 3",
            "nodefaultroute",
            "noipv6",
        ]);
        if !lns.compression {
            options.push("noccp");
        }
        options.extend(["debug", "logfile /mnt/pppd.log"]);
        options.extend(more);
        self.0.push(("ppp/options.l2tp", options.join("\n") + "\n"));
        self.0.push(("ppp/options", String::new()));
        let secrets = format!("\"{}\" * \"{}\" *\n", lns.user, lns.password);
        self.0.push(("ppp/chap-secrets", secrets.clone()));
        self.0.push(("ppp/pap-secrets", secrets));
        let secret = lns.tunnel_secret.as_ref().map(|secret| format!("* * {secret}\n")).unwrap_or_default();
        self.0.push(("xl2tpd/l2tp-secrets", secret));
    }

    fn lns(&mut self, lns: &Lns) {
        self.ppp(lns, true, &["name lns", "ms-dns 10.20.4.11", "ms-dns 10.20.4.12"]);
        let challenge = if lns.tunnel_secret.is_some() { "yes" } else { "no" };
        let pool = if lns.single_address { "10.20.5.10-10.20.5.10" } else { "10.20.5.10-10.20.5.99" };
        self.0.push((
            "xl2tpd/xl2tpd.conf",
            format!(
                "[global]\nport = 1701\naccess control = no\nauth file = /etc/xl2tpd/l2tp-secrets\ndebug tunnel = yes\ndebug state = yes\n\
                 [lns default]\nip range = {pool}\nlocal ip = 10.20.5.1\nrequire authentication = yes\nname = lns\nlength bit = yes\n\
                 challenge = {challenge}\npppoptfile = /etc/ppp/options.l2tp\n"
            ),
        ));
    }

    fn lac(&mut self, lac: &Lac) {
        let user = format!("name {}", lac.like.user);
        self.ppp(
            &lac.like,
            false,
            &["noipdefault", "ipcp-accept-local", "ipcp-accept-remote", "usepeerdns", "remotename lns", &user],
        );
        let challenge = if lac.like.tunnel_secret.is_some() { "yes" } else { "no" };
        self.0.push((
            "xl2tpd/xl2tpd.conf",
            format!(
                "[global]\nport = 1701\naccess control = no\nauth file = /etc/xl2tpd/l2tp-secrets\ndebug tunnel = yes\ndebug state = yes\n\
                 [lac lns]\nlns = {}\nlength bit = yes\nrequire authentication = no\nchallenge = {challenge}\n\
                 pppoptfile = /etc/ppp/options.l2tp\n",
                lac.server
            ),
        ));
        self.0.push((
            "ppp/ip-up",
            "#!/bin/sh\nip route add 10.20.4.0/24 dev $1\necho local=$4 remote=$5 dns=$DNS1,$DNS2 > /mnt/ppp-up.part\nmv /mnt/ppp-up.part /mnt/ppp-up\n"
                .to_owned(),
        ));
    }
}
