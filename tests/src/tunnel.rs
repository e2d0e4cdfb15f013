//! The tunnel process as it ships, run in a namespace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use towline_tunnel::report::{Layer, LayerReport, Report};

use crate::netns::Namespace;
use crate::peer::pki::Certificate;
use crate::peer::{INNER, Lns};
use crate::process::{Process, resident_memory, run, wait_until};
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

    /// The same with a certificate in place of the pre-shared key.
    pub fn start_certified(host: &Namespace, mut config: Value, lns: &Lns, own: &Certificate) -> Result<Self> {
        let folder = new_folder(host)?;
        config["credentials"]["certificate"] = certificate(&folder, own)?;
        for (field, value) in [("username", &lns.user), ("password", &lns.password)] {
            config["credentials"][field] = secret(&folder, field, value)?;
        }
        xauth(&folder, &mut config, lns)?;
        Self::spawn(host, folder, config, &[], None)
    }

    /// The same with more arguments, and with name servers of its own.
    pub fn start_with(
        host: &Namespace,
        mut config: Value,
        lns: &Lns,
        arguments: &[&str],
        resolv_conf: Option<&Path>,
    ) -> Result<Self> {
        let folder = Self::credentials(host, &mut config, lns)?;
        Self::spawn(host, folder, config, arguments, resolv_conf)
    }

    /// The same as [`Self::start`] without a capability, such as `net_raw`.
    pub fn start_without(host: &Namespace, mut config: Value, lns: &Lns, capability: &str) -> Result<Self> {
        let folder = Self::credentials(host, &mut config, lns)?;
        let mut command = host.exec("setpriv");
        command.args(["--bounding-set", &format!("-{capability}")]).arg(product::binary("towline-tunnel"));
        Self::run(command, folder, config, &[])
    }

    /// Writes the secrets of `lns` into files; returns their folder.
    fn credentials(host: &Namespace, config: &mut Value, lns: &Lns) -> Result<PathBuf> {
        let folder = new_folder(host)?;
        for (field, value) in [("preSharedKey", &lns.psk), ("username", &lns.user), ("password", &lns.password)] {
            config["credentials"][field] = secret(&folder, field, value)?;
        }
        if let Some(value) = &lns.tunnel_secret {
            config["credentials"]["tunnelSecret"] = secret(&folder, "tunnelSecret", value)?;
        }
        xauth(&folder, config, lns)?;
        Ok(folder)
    }

    /// Starts the process with its files in `folder`.
    pub(crate) fn spawn(
        host: &Namespace,
        folder: PathBuf,
        config: Value,
        arguments: &[&str],
        resolv_conf: Option<&Path>,
    ) -> Result<Self> {
        let command = match resolv_conf {
            None => host.exec(product::binary("towline-tunnel")),
            Some(resolv_conf) => {
                let mut command = host.exec("unshare");
                let script = "mount --make-rprivate / && mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
                command.args(["--mount", "sh", "-c", script, "sh"]);
                command.arg(resolv_conf).arg(product::binary("towline-tunnel"));
                command
            }
        };
        Self::run(command, folder, config, arguments)
    }

    fn run(mut command: Command, folder: PathBuf, mut config: Value, arguments: &[&str]) -> Result<Self> {
        config["admin"]["socket"] = json!(folder.join("control.sock"));
        let file = folder.join("config.json");
        fs::write(&file, config.to_string())?;
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

    /// Replaces a secret by the name of its file: `preSharedKey`, `username`, `password`, `xauthUsername` or
    /// `xauthPassword` of a client.
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

    /// Process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Resident memory in KiB.
    pub fn resident_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        resident_memory(&status).context("no VmRSS")
    }

    /// Waits until it ends by itself; returns its status and its log.
    pub fn wait_end(mut self) -> Result<(ExitStatus, String)> {
        let status = self.process.wait(Duration::from_secs(20))?;
        Ok((status, self.process.output()?))
    }

    /// Ends it with SIGTERM; returns its status, how long it took and its log.
    pub fn stop(self) -> Result<(ExitStatus, Duration, String)> {
        let log = self.process.log().to_owned();
        let began = Instant::now();
        let status = self.process.stop(Duration::from_secs(10))?;
        Ok((status, began.elapsed(), fs::read_to_string(log)?))
    }
}

/// The folder of the files of the process in `host`, empty.
pub(crate) fn new_folder(host: &Namespace) -> Result<PathBuf> {
    let folder = tool::target().join("peers").join(host.name());
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes the user of XAUTH, if `lns` has one.
fn xauth(folder: &Path, config: &mut Value, lns: &Lns) -> Result<()> {
    let Some((user, password)) = &lns.xauth else { return Ok(()) };
    let [name, secret] = ["xauthUsername", "xauthPassword"].map(|field| folder.join(field));
    fs::write(&name, user)?;
    fs::write(&secret, password)?;
    config["credentials"]["xauth"] = json!({"username": {"path": name}, "password": {"path": secret}});
    Ok(())
}

/// Writes a secret to a file, and says what the configuration has of it.
pub(crate) fn secret(folder: &Path, name: &str, value: &str) -> Result<Value> {
    fs::write(folder.join(name), value)?;
    Ok(json!({"path": folder.join(name)}))
}

/// The files of a certificate, and what the configuration says of them.
pub(crate) fn certificate(folder: &Path, own: &Certificate) -> Result<Value> {
    Ok(json!({
        "chain": secret(folder, "tls.crt", &own.chain())?,
        "key": secret(folder, "tls.key", &own.key)?,
        "authorities": secret(folder, "ca.crt", &own.authority)?,
        "revocations": {"path": folder.join("crl.pem")},
    }))
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

/// Twenty pings a second of [`INNER`], each of which must be answered.
#[derive(Debug)]
pub struct Pings {
    process: Process,
}

impl Pings {
    /// Starts them; the log is a file of `folder`.
    pub fn start(host: &Namespace, folder: &Path) -> Result<Self> {
        let mut command = host.exec("ping");
        command.args(["-n", "-i", "0.05", INNER]);
        Ok(Self { process: Process::spawn(command, folder.join("ping.log"))? })
    }

    /// Waits for another second of answers and ends. Fails when one before the last answer is missing or came twice: one that
    /// is under way when ping ends is not lost. Returns how many there were.
    pub fn finish(self) -> Result<usize> {
        let enough = answers(&self.process.output()?).len() + 20;
        wait_until("answers to pings", Duration::from_secs(30), || {
            self.process.output().is_ok_and(|output| answers(&output).len() >= enough)
        })?;
        self.process.signal(Signal::SIGINT)?;
        let output = self.process.finish(Duration::from_secs(10))?;
        check_sequence(&answers(&output))
    }
}

/// The sequence numbers of the answers in what ping wrote.
pub(crate) fn answers(output: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
    output.lines().filter(|line| line.contains(" bytes from ")).filter_map(number).collect()
}

pub(crate) fn check_sequence(answers: &[u32]) -> Result<usize> {
    let last = answers.iter().copied().max().unwrap_or(0);
    let lost: Vec<_> = (1..=last).filter(|number| !answers.contains(number)).collect();
    ensure!(
        lost.is_empty() && answers.len() == last as usize,
        "of {last} pings {lost:?} were lost; {} answers",
        answers.len()
    );
    Ok(answers.len())
}

/// A value of the tunnel's `/metrics`, by its name and labels.
pub fn metric(host: &Namespace, name: &str) -> Result<u64> {
    let metrics = metrics(host)?;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("no {name} in\n{metrics}"))
}

/// All of the tunnel's `/metrics`.
pub fn metrics(host: &Namespace) -> Result<String> {
    run(host.exec("curl").args(["-sS", "--max-time", "10", "http://127.0.0.1:9090/metrics"]))
}

/// Waits until `text` stands in what `log` returns.
pub fn wait_for_text(text: &str, timeout: Duration, log: impl Fn() -> String) -> Result<()> {
    wait_until(&format!("{text:?} in a log"), timeout, || log().contains(text)).with_context(&log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_that_is_lost_or_answered_twice_is_noticed_and_one_under_way_is_not_lost() {
        let line = |number: u32| format!("64 bytes from 10.20.4.11: icmp_seq={number} ttl=64 time=1.2 ms\n");
        let text = |numbers: &[u32]| numbers.iter().map(|&number| line(number)).collect::<String>();
        let summary = "--- 10.20.4.11 ping statistics ---\n4 packets transmitted, 3 received, 25% packet loss\n";
        assert_eq!(check_sequence(&answers(&(text(&[1, 2, 3]) + summary))).unwrap(), 3);
        let lost = check_sequence(&answers(&text(&[1, 2, 4]))).unwrap_err().to_string();
        assert!(lost.contains("[3] were lost"), "{lost}");
        check_sequence(&answers(&text(&[1, 2, 2]))).unwrap_err();
    }
}
