//! SoftEther VPN Server as an L2TP/IPsec gateway: an IKE, ESP, L2TP and PPP of its own, without the kernel's.
//!
//! Its clients get addresses of 192.168.30.0/24; 192.168.30.1 behind it answers pings.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::process::{Process, run, wait_until};
use crate::tool;

const PROGRAMS: &str = "/usr/libexec/softether";

/// A running server.
#[derive(Debug)]
pub struct SoftEther {
    process: Process,
}

impl SoftEther {
    /// Starts the server in `namespace`, which has the address that clients dial.
    pub fn start(namespace: &Namespace, psk: &str, user: &str, password: &str) -> Result<Self> {
        let folder = tool::target().join("peers").join(namespace.name());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        // It writes its configuration and its logs beside its program.
        let programs = folder.join("bin");
        fs::create_dir_all(&programs)?;
        run(Command::new("cp").arg("-rL").arg(format!("{PROGRAMS}/vpnserver/.")).arg(&programs))?;
        // A PID namespace of its own: the server forks, and its children end with their first process.
        let script = "mount --make-rprivate /; mount -t proc proc /proc; \
                      for d in /run/softether /var/lib/softether /var/log/softether; do mkdir -p $d; mount -t tmpfs tmpfs $d; done; \
                      cd \"$0\"; ./vpnserver execsvc; exit $?";
        let mut command = namespace.exec("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script]).arg(&programs);
        let process = Process::spawn(command, folder.join("server.log"))?;
        let server = Self { process };
        let console = Console { namespace };
        wait_until("SoftEther's console", Duration::from_secs(60), || console.raw(&["/CMD", "About"]).is_ok())?;
        console.raw(&["/CMD", "ServerPasswordSet", "admin"])?;
        console.admin(&["/CMD", "HubCreate", "VPN", "/PASSWORD:hub"])?;
        console.admin(&["/ADMINHUB:VPN", "/CMD", "UserCreate", user, "/GROUP:none", "/REALNAME:none", "/NOTE:none"])?;
        console.admin(&["/ADMINHUB:VPN", "/CMD", "UserPasswordSet", user, &format!("/PASSWORD:{password}")])?;
        console.admin(&["/ADMINHUB:VPN", "/CMD", "SecureNatEnable"])?;
        let psk = format!("/PSK:{psk}");
        console.admin(&["/CMD", "IPsecEnable", "/L2TP:yes", "/L2TPRAW:no", "/ETHERIP:no", &psk, "/DEFAULTHUB:VPN"])?;
        wait_until("SoftEther's UDP port 500", Duration::from_secs(30), || {
            run(namespace.exec("ss").args(["-Hlun", "sport = :500"])).is_ok_and(|out| out.contains(":500"))
        })?;
        ensure!(server.process.identity().is_alive(), "SoftEther ended: {}", server.process.output()?);
        Ok(server)
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.process.log().to_owned()
    }
}

struct Console<'a> {
    namespace: &'a Namespace,
}

impl Console<'_> {
    /// vpncmd asks on its terminal for ever when it is refused: it gets a limit and no terminal.
    fn raw(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.namespace.exec("timeout");
        command.args(["-s", "KILL", "20"]).arg(format!("{PROGRAMS}/vpncmd/vpncmd"));
        command.args(["127.0.0.1:5555", "/SERVER"]).args(arguments);
        run(&mut command).context("SoftEther's console")
    }

    fn admin(&self, arguments: &[&str]) -> Result<String> {
        self.raw(&[&["/PASSWORD:admin"], arguments].concat())
    }
}
