//! `cargo xtask`: everything that a contributor runs. A subcommand is one module with its arguments and a `run`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use towline_tests::{bench, check, cluster, demo, interrupt, ledger, release};

/// Runs what belongs to developing Towline
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every check of the project, or one part of them
    Test(check::Arguments),
    /// Measure how a server scales, beside charon where there is one
    Bench(bench::Arguments),
    /// A cluster, a foreign gateway, the chart, a tunnel, and a page from behind the gateway
    Demo(demo::Arguments),
    /// Write the custom resource definitions from their types, into crds/ and into the chart
    Crds,
    /// Write the ledger of what the code keeps of each RFC, from its markers
    Ledger,
    /// Local Kubernetes clusters, made of namespaces on this machine
    Cluster(cluster::command::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
        Command::Demo(arguments) => arguments.run(),
        Command::Crds => release::write_crds(),
        Command::Ledger => ledger::write(),
        Command::Cluster(arguments) => arguments.run(),
    };
    interrupt::wait_if_interrupted();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
