//! Debian packages that the harness needs: installs what is missing. None of the daemons that come along is started, and none
//! that is new starts with the machine.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::process::{attend, run};
use crate::tool;

/// Asked by Debian's maintainer scripts before they start a daemon; exit code 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Ours; one that a killed run left is known by its words.
const FORBID: &str = "#!/bin/sh\n# cargo xtask of Towline, while it installs packages\nexit 101\n";

/// Where systemd keeps the services that start with the machine.
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants";

/// Seconds that apt waits for another apt.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=300";

/// Installs those of the packages that are missing. Fails in plain words where it cannot.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !geteuid().is_root() {
        bail!("missing packages: run this as root, or run: apt-get install {list}");
    }
    println!("installing the Debian packages {list}");
    // Two harnesses share the machine's package database, and the guard below.
    let folder = File::open("/var/lib/dpkg").context("cannot open dpkg's folder")?;
    folder.lock()?;
    update();
    let before = services()?;
    let guard = PolicyGuard::new()?;
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
    let installed = attend("apt-get install", install, log("install"));
    drop(guard);
    // Whatever apt-get came to: a service that is enabled starts with the machine.
    disable(&services()?.difference(&before).collect::<Vec<_>>())?;
    installed.with_context(|| format!("cannot install {list}"))
}

fn log(name: &str) -> PathBuf {
    tool::folder().join("log").join(format!("apt-get-{name}"))
}

/// The services that start with the machine.
fn services() -> Result<BTreeSet<PathBuf>> {
    match fs::read_dir(WANTED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        entries => Ok(entries?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?),
    }
}

fn disable(services: &[&PathBuf]) -> Result<()> {
    for link in services {
        fs::remove_file(link).with_context(|| format!("cannot remove {}", link.display()))?;
        let name = link.file_name().unwrap_or_default().display();
        println!("  {name} came with a package and is disabled; systemctl enable {name} undoes that");
    }
    Ok(())
}

/// Unpacks a package into a folder, without installing it.
pub fn unpack(package: &str, folder: &Path) -> Result<()> {
    check_debian(&[package])?;
    let downloads = folder.with_extension("download");
    fs::create_dir_all(&downloads)?;
    let download = || run(apt().args(["download", package]).current_dir(&downloads));
    if download().is_err() {
        // The package lists may be missing or out of date.
        update();
        download()?;
    }
    let mut files = fs::read_dir(&downloads)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    let file = files.pop().with_context(|| format!("apt-get download {package} made no file"))?;
    run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(folder))?;
    fs::remove_dir_all(&downloads)?;
    Ok(())
}

/// Those of the packages that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    check_debian(packages)?;
    // dpkg-query fails when it knows one of the names not at all, and still lists the others.
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]).args(packages);
    let output = query.output().context("cannot start dpkg-query")?;
    let installed = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_installed = |name: &str| installed.lines().any(|line| line == format!("{name} installed"));
    Ok(packages.iter().copied().filter(|name| !is_installed(name)).collect())
}

fn check_debian(packages: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this system has no apt-get; the harness needs Debian (or Ubuntu) for: {}", packages.join(" "));
    }
    Ok(())
}

/// Refreshes the package lists, once per run. What is listed may be installable without it, so a failure only warns.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut update = apt();
        update.arg("update");
        if let Err(error) = attend("apt-get update", update, log("update")) {
            eprintln!("{error:#}");
        }
    });
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "--option", LOCK_TIMEOUT]);
    command
}

/// Forbids maintainer scripts to start daemons, unless the machine has a policy of its own.
struct PolicyGuard {
    written: bool,
}

impl PolicyGuard {
    fn new() -> Result<Self> {
        let written = fs::read_to_string(POLICY).map_or(true, |text| text == FORBID);
        if written {
            fs::write(POLICY, FORBID).with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { written })
    }
}

impl Drop for PolicyGuard {
    fn drop(&mut self) {
        if self.written
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_not_missing() {
        assert_eq!(missing(&["dpkg", "towline-no-such-package"]).unwrap(), ["towline-no-such-package"]);
        install(&["dpkg"]).unwrap();
    }
}
