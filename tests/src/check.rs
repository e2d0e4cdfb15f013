//! `cargo xtask test`: every check of the project, the same for a contributor and for CI, with a summary at the end.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::cluster::Cluster;
use crate::preflight::Need;
use crate::process::{attend, run};
use crate::{image, interrupt, netns, package, preflight, product, release, tool};

/// Start of the lines of a test that stand in the summary.
const MEASURED: &str = "resident memory of";

/// The version of cargo-deny that is used.
const CARGO_DENY: &str = "0.20.2";

/// Arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only this part; all of them unless named
    part: Option<Part>,
}

/// A part of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Format, lints, licences, generated files, the chart
    Lint,
    /// Unit tests and vectors
    Unit,
    /// The stack over a simulated network, against itself and against imitations of devices
    Sim,
    /// The tunnel process against foreign gateways in network namespaces
    Interop,
    /// The chart on a real Kubernetes, with a foreign gateway
    Cluster,
}

const ALL: [Part; 5] = [Part::Lint, Part::Unit, Part::Sim, Part::Interop, Part::Cluster];

/// What the test runners counted, and what tests measured.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    measured: Vec<String>,
}

impl Arguments {
    /// Runs the checks, all of them even when one fails.
    pub fn run(self) -> Result<()> {
        interrupt::handle(clean_up)?;
        let parts = self.part.map_or_else(|| ALL.to_vec(), |part| vec![part]);
        preflight::check(&parts.iter().flat_map(|part| part.needs()).copied().collect::<Vec<_>>())?;
        let began = Instant::now();
        let mut count = Count::default();
        let mut broken = Vec::new();
        for part in parts {
            let part_began = Instant::now();
            println!("==> {part:?}");
            if let Err(error) = part.check(&mut count) {
                interrupt::wait_if_interrupted();
                println!("{part:?}: {error:#}");
                broken.push(format!("{part:?}"));
            }
            println!("==> {part:?} took {:.0} s", part_began.elapsed().as_secs_f32());
        }
        count.measured.iter().for_each(|line| println!("{line}"));
        println!("all checks took {:.0} s", began.elapsed().as_secs_f32());
        if !broken.is_empty() {
            println!("parts failed: {}", broken.join(", "));
        }
        // The last line is read by programs: it counts a part that failed without a failed test.
        println!("{} passed, {} failed", count.passed, count.failed.max(u64::from(!broken.is_empty())));
        ensure!(broken.is_empty(), "failed: {}", broken.join(", "));
        ensure!(count.ignored == 0, "{} tests were ignored; none may be", count.ignored);
        Ok(())
    }
}

/// After an interruption: the test programs have ended, and what they made is still there.
fn clean_up() -> Result<()> {
    netns::sweep()?;
    take_clusters_down()
}

fn take_clusters_down() -> Result<()> {
    let down = |name| Cluster::open(name)?.map_or(Ok(()), Cluster::down);
    [release::FAR_CLUSTER, release::TEST_CLUSTER].into_iter().try_for_each(down)
}

impl Part {
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Lint => &[Need::Compiler, Need::Go],
            // Some tests of the process make network namespaces and TUN devices.
            Self::Unit => &[Need::Compiler, Need::Namespaces],
            Self::Sim => &[Need::Compiler],
            Self::Interop => &[Need::Compiler, Need::Namespaces, Need::Guests, Need::OtherPeers, Need::Network],
            Self::Cluster => &[Need::Compiler, Need::Namespaces, Need::Guests, Need::Network, Need::Go, Need::Cluster],
        }
    }

    fn check(self, count: &mut Count) -> Result<()> {
        package::install(&preflight::packages(self.needs()))?;
        let before = count.passed + count.failed;
        match self {
            Self::Lint => return lint(),
            Self::Unit => {
                test(&["--workspace", "--lib", "--bins"], count)?;
                test(&["--package", "towline-tunnel", "--no-default-features", "--features", "stack", "--lib"], count)?;
            }
            Self::Sim => {
                test(&["--package", "towline-tests", "--test", "simulation", "--test", "imitation"], count)?;
            }
            Self::Interop => {
                product::build()?;
                let tests = ["--package", "towline-tests", "--test", "peers", "--test", "interop"];
                // Guests wait for each other most of the time.
                test(&[tests.as_slice(), &["--", "--test-threads=3", "--show-output"]].concat(), count)?;
            }
            Self::Cluster => {
                tool::build()?;
                image::app()?;
                product::images()?;
                let tests = ["--package", "towline-tests", "--test", "cluster"];
                let tested = test(&[tests.as_slice(), &["--", "--test-threads=1", "--show-output"]].concat(), count);
                // The last test takes their cluster down, if it comes to that.
                take_clusters_down()?;
                tested?;
            }
        }
        ensure!(count.passed + count.failed > before, "no test was run");
        Ok(())
    }
}

/// The components of the toolchain that a minimal installation lacks.
fn components() -> Result<()> {
    for (program, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if run(cargo().args([program, "--version"])).is_err() {
            say(Command::new("rustup").args(["component", "add", component]))
                .with_context(|| format!("install {component}: cargo {program} is missing"))?;
        }
    }
    Ok(())
}

fn lint() -> Result<()> {
    components()?;
    say(cargo().args(["fmt", "--all", "--check"]))?;
    say(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let deny = cargo_deny()?;
    say(Command::new(deny).current_dir(tool::workspace()).args([
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    tool::build()?;
    let chart = tool::workspace().join("charts/towline");
    say(Command::new(tool::program("helm")).args(["lint", "--strict"]).arg(&chart))
}

/// cargo-deny of our version, installed into a folder of its own.
fn cargo_deny() -> Result<PathBuf> {
    let root = tool::folder().join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        println!("building cargo-deny {CARGO_DENY} (once)");
        let mut install = cargo();
        // Not optimised: it is run once, and that takes a second.
        install.args(["install", "--debug", "--locked", "--version", CARGO_DENY, "cargo-deny", "--root"]).arg(&root);
        attend("cargo-deny", install, tool::folder().join("log/cargo-deny"))?;
    }
    Ok(program)
}

fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(tool::workspace());
    command
}

/// Runs a command with its output shown.
fn say(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}").replace('"', "");
    println!("--> {line}");
    let started = interrupt::spawn_group(command.stdin(Stdio::null()));
    let (mut child, _registration) = started.with_context(|| format!("cannot start {line}"))?;
    let status = child.wait()?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Runs `cargo test` with its output shown, and counts.
fn test(arguments: &[&str], count: &mut Count) -> Result<()> {
    println!("--> cargo test --no-fail-fast {}", arguments.join(" "));
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (mut child, _registration) = interrupt::spawn_group(&mut command).context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        count.add(&line);
        writeln!(std::io::stdout(), "{line}")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test {}: {status}", arguments.join(" "));
    }
    Ok(())
}

impl Count {
    /// Adds what a closing line of the test runner says: `test result: ok. 3 passed; 0 failed; 0 ignored; …`, and keeps a
    /// measurement.
    fn add(&mut self, line: &str) {
        if line.starts_with(MEASURED) {
            self.measured.push(line.to_owned());
        }
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| -> u64 {
            rest.split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|n| n.trim().parse().ok())
                .unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
        self.ignored += number("ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up_and_others_are_not() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        count.add("test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        count.add("test passes::and::fails ... ok");
        count.add("resident memory of the tunnel process: 7000 KiB");
        let measured = vec!["resident memory of the tunnel process: 7000 KiB".to_owned()];
        assert_eq!(count, Count { passed: 13, failed: 2, ignored: 1, measured });
    }
}
