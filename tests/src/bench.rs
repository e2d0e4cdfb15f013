//! `cargo xtask bench`: how a server scales, beside charon. It measures and judges nothing.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::preflight::{self, Need};
use crate::{interrupt, netns, package, product, tool};

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Idle tunnels of Towline
    #[arg(long, default_value_t = 10_000)]
    tunnels: u32,
    /// Idle peers of charon, the control; none with 0
    #[arg(long, default_value_t = 1_000)]
    controls: u32,
    /// Seconds in which nothing but keepalives passes
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// IKE set-ups of each server in each round; none with 0
    #[arg(long, default_value_t = 1_000)]
    setups: u32,
    /// Rounds of set-ups
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

impl Arguments {
    /// Builds the product and the benchmark, and runs it.
    pub fn run(self) -> Result<()> {
        interrupt::handle(|| netns::sweep().map(drop))?;
        let needs = [Need::Compiler, Need::Namespaces, Need::Charon];
        preflight::check(&needs)?;
        package::install(&preflight::packages(&needs))?;
        product::build()?;
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(tool::workspace()).stdin(Stdio::null());
        command.args(["bench", "--locked", "--package", "towline-tests", "--bench", "scale", "--"]);
        let Self { tunnels, controls, seconds, setups, rounds } = self;
        for (name, value) in [
            ("--tunnels", tunnels),
            ("--controls", controls),
            ("--seconds", seconds),
            ("--setups", setups),
            ("--rounds", rounds),
        ] {
            command.args([name, &value.to_string()]);
        }
        let (mut child, _registration) = interrupt::spawn_group(&mut command).context("cannot start cargo")?;
        let status = child.wait()?;
        ensure!(status.success(), "cargo bench: {status}");
        Ok(())
    }
}
