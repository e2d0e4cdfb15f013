//! `cargo xtask`: everything that a contributor runs. A subcommand is one module with its arguments and a `run`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use towline_tests::cluster;

/// Runs what belongs to developing Towline
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Local Kubernetes clusters, made of namespaces on this machine
    Cluster(cluster::command::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Cluster(arguments) => arguments.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
