//! `cargo xtask bench`: how a server scales. It measures and judges nothing.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::preflight::{self, Need};
use crate::{interrupt, netns, tool};

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Idle tunnels of one server
    #[arg(long, default_value_t = 10_000)]
    tunnels: u32,
    /// Minutes of virtual time in which nothing but keepalives passes
    #[arg(long, default_value_t = 10)]
    minutes: u32,
}

impl Arguments {
    /// Builds the benchmark, optimised, and runs it.
    pub fn run(self) -> Result<()> {
        interrupt::handle(|| netns::sweep().map(drop))?;
        preflight::check(&[Need::Compiler])?;
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(tool::workspace()).stdin(Stdio::null());
        command.args(["bench", "--locked", "--package", "towline-tests", "--bench", "scale", "--"]);
        command.args(["--tunnels", &self.tunnels.to_string(), "--minutes", &self.minutes.to_string()]);
        let (mut child, _registration) = interrupt::spawn_group(&mut command).context("cannot start cargo")?;
        let status = child.wait()?;
        ensure!(status.success(), "cargo bench: {status}");
        Ok(())
    }
}
