//! The tunnel process as it ships, run in a namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use towline_tunnel::report::{Layer, LayerReport, Report};

use crate::netns::Namespace;
use crate::peer::{INNER, Lns};
use crate::process::{Process, run, wait_until};
use crate::{product, tool};

/// A running `towline-tunnel run`.
#[derive(Debug)]
pub struct Tunnel {
    process: Process,
    folder: PathBuf,
    /// Its configuration as it stands in the file.
    pub config: Value,
}

/// The configuration of a client of the gateway `lns` at `peer`; what it dials is reached at [`INNER`].
pub fn config(peer: &str) -> Value {
    json!({
        "revision": "1",
        "peers": [{"address": peer}],
        "network": {"remoteCIDRs": [format!("{INNER}/24")]},
        "healthCheck": {"type": "Icmp", "host": INNER, "intervalSeconds": 1},
        "log": {"level": "Debug"},
    })
}

impl Tunnel {
    /// Starts a tunnel with the credentials of `lns`.
    pub fn start(host: &Namespace, config: Value, lns: &Lns) -> Result<Self> {
        Self::start_with(host, config, lns, &[], None)
    }

    /// The same with more arguments, and with name servers of its own.
    pub fn start_with(
        host: &Namespace,
        mut config: Value,
        lns: &Lns,
        arguments: &[&str],
        resolv_conf: Option<&Path>,
    ) -> Result<Self> {
        let folder = tool::target().join("peers").join(host.name());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for (field, value) in [("preSharedKey", &lns.psk), ("username", &lns.user), ("password", &lns.password)] {
            config["credentials"][field] = json!({"path": folder.join(field)});
            fs::write(folder.join(field), value)?;
        }
        if let Some(secret) = &lns.tunnel_secret {
            config["credentials"]["tunnelSecret"] = json!({"path": folder.join("tunnelSecret")});
            fs::write(folder.join("tunnelSecret"), secret)?;
        }
        config["admin"]["socket"] = json!(folder.join("control.sock"));
        let file = folder.join("config.json");
        fs::write(&file, config.to_string())?;
        let mut command = match resolv_conf {
            None => host.exec(product::binary("towline-tunnel")),
            Some(resolv_conf) => {
                let mut command = host.exec("unshare");
                let script = "mount --make-rprivate / && mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
                command.args(["--mount", "sh", "-c", script, "sh"]);
                command.arg(resolv_conf).arg(product::binary("towline-tunnel"));
                command
            }
        };
        command.args(["run", "--config"]).arg(&file).args(arguments);
        let process = Process::spawn(command, folder.join("tunnel.log"))?;
        Ok(Self { process, folder, config })
    }

    /// Changes the configuration while the tunnel runs.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        change(&mut self.config);
        let new = self.folder.join("config.json.new");
        fs::write(&new, self.config.to_string())?;
        Ok(fs::rename(new, self.folder.join("config.json"))?)
    }

    /// Replaces a secret: `preSharedKey`, `username` or `password`.
    pub fn change_secret(&self, name: &str, value: &str) -> Result<()> {
        Ok(fs::write(self.folder.join(name), value)?)
    }

    /// What the process says about itself.
    pub fn report(&self) -> Result<Report> {
        let mut status = Command::new(product::binary("towline-tunnel"));
        let text = run(status.args(["status", "--json", "--socket"]).arg(self.folder.join("control.sock")))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until the report satisfies `condition`, and returns it; a failure quotes the report and the log.
    pub fn wait_for(&mut self, what: &str, timeout: Duration, condition: impl Fn(&Report) -> bool) -> Result<Report> {
        let end = Instant::now() + timeout;
        loop {
            let report = self.report();
            if let Ok(report) = &report
                && condition(report)
            {
                return Ok(report.clone());
            }
            let ended = self.process.ended()?;
            if ended.is_some() || Instant::now() >= end {
                bail!("no {what} within {timeout:?} ({ended:?}):\n{report:#?}\n{}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until traffic goes through.
    pub fn wait_ready(&mut self) -> Result<Report> {
        self.wait_for("ready tunnel", Duration::from_secs(60), Report::is_ready)
    }

    /// Waits until `layer` has failed; returns its state.
    pub fn wait_down(&mut self, layer: Layer) -> Result<LayerReport> {
        let is_down = |report: &Report| {
            report.layer(layer).is_some_and(|layer| layer.state == towline_tunnel::report::State::Down)
        };
        let report = self.wait_for(&format!("failure of {layer:?}"), Duration::from_secs(90), is_down)?;
        report.layer(layer).cloned().context("the layer is reported")
    }

    /// All that the process has logged.
    pub fn log(&self) -> Result<String> {
        self.process.output()
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Resident memory in KiB.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Ends it with SIGTERM; returns its status, how long it took and its log.
    pub fn stop(self) -> Result<(ExitStatus, Duration, String)> {
        let log = self.process.log().to_owned();
        let began = Instant::now();
        let status = self.process.stop(Duration::from_secs(10))?;
        Ok((status, began.elapsed(), fs::read_to_string(log)?))
    }
}

/// The page behind the gateway, fetched from `host`.
pub fn fetch_page(host: &Namespace) -> Result<String> {
    let page = run(host.exec("curl").args(["-sS", "--max-time", "20"]).arg(format!("http://{INNER}/")))?;
    Ok(page.trim().to_owned())
}

/// Whether [`INNER`] answers one ping.
pub fn pings(host: &Namespace) -> bool {
    run(host.exec("ping").args(["-c1", "-W2", INNER])).is_ok()
}

/// Waits until `text` stands in what `log` returns.
pub fn wait_for_text(text: &str, timeout: Duration, log: impl Fn() -> String) -> Result<()> {
    wait_until(&format!("{text:?} in a log"), timeout, || log().contains(text)).with_context(&log)
}
