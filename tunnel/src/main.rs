//! `towline-tunnel`: one L2TP/IPsec tunnel, in a pod or by hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use towline_tunnel::config::{self, Configuration};
use towline_tunnel::io::{dial, keys, process, server, status, telemetry, watch};
use towline_tunnel::stack::PathError;

/// Userspace L2TP/IPsec: dials a gateway and routes the networks behind it into a TUN device, or is the gateway that people and
/// sites dial in to.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the tunnel, or the server, until SIGTERM. Needs root or CAP_NET_ADMIN, and /dev/net/tun; one in each network namespace.
    Run(Run),
    /// Says all that is wrong with a configuration and the secrets that it names, and changes nothing. Exits with 0 and
    /// "FILE: no problem found" on standard output, or with 1 and what is wrong on standard error.
    Check {
        /// The configuration, a JSON file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Prints what a running tunnel says about itself.
    Status {
        /// The control socket, `admin.socket` of the configuration.
        #[arg(long, value_name = "PATH", default_value_os_t = config::Admin::default().socket)]
        socket: PathBuf,
        /// Prints the report as JSON.
        #[arg(long)]
        json: bool,
        /// Lists the sessions of a server instead: user, address, since when, peer, algorithms, octets.
        #[arg(long)]
        sessions: bool,
    },
}

#[derive(Args)]
struct Run {
    /// The configuration, a JSON file. Changes to it take effect while the tunnel runs.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Leaves the routing rules and the unreachable routes to the remote networks in place at the end, so that nothing goes
    /// another way until the next process takes over. That one removes what its own configuration does not ask for.
    #[arg(long)]
    leave_routes: bool,
    /// Appends the keys of every SA to FILE, one Wireshark preference a line. Whoever has them reads all the traffic: FILE
    /// must be new, or a regular file that only its owner may read.
    #[arg(long, value_name = "FILE", requires = "exposes")]
    export_keys: Option<PathBuf>,
    /// Confirms --export-keys.
    #[arg(long = "i-know-this-exposes-the-traffic", id = "exposes", requires = "export_keys")]
    _exposes: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(run) => run_tunnel(run),
        Command::Check { config } => check(&config),
        Command::Status { socket, json, sessions: false } => print_status(&socket, json),
        Command::Status { socket, json, sessions: true } => print_sessions(&socket, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-tunnel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> anyhow::Result<(String, Configuration)> {
    let text = watch::read_config(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = config::parse_any(&text).with_context(|| path.display().to_string())?;
    Ok((text, config))
}

fn run_tunnel(arguments: Run) -> anyhow::Result<()> {
    let Run { config: path, leave_routes, export_keys, .. } = arguments;
    let (text, config) = load(&path)?;
    let keys = export_keys.as_deref();
    let keys =
        keys.map(|path| keys::open(path).with_context(|| format!("--export-keys: cannot open {}", path.display())));
    let keys = keys.transpose()?;
    let log = match &config {
        Configuration::Client(config) => config.log,
        Configuration::Server(config) => config.log,
    };
    let verbosity = telemetry::start(log).context("cannot start to log")?;
    if keys.is_some() {
        tracing::warn!("keys are exported: whoever has the file reads all the traffic");
    }
    // One thread: packets of one tunnel are handled in order, and a second one would only add hand-overs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = match config {
        Configuration::Client(config) => {
            let options = process::Options { path, text, config: *config, keys, leave_routes };
            runtime.block_on(process::run(options, verbosity))
        }
        Configuration::Server(config) => {
            runtime.block_on(server::run(server::Options { path, text, config: *config, keys }, verbosity))
        }
    };
    // A read of a file system that does not answer must not hold up the end.
    runtime.shutdown_background();
    result
}

fn check(path: &Path) -> anyhow::Result<()> {
    match load(path)?.1 {
        Configuration::Client(config) => {
            dial::read_credentials(&config.credentials, None).map_err(|error| match error {
                PathError::Credentials { message, .. }
                | PathError::Unresolvable(message)
                | PathError::Unreachable(message)
                | PathError::RawSocketFailed(message) => anyhow::Error::msg(message),
            })?;
        }
        Configuration::Server(config) => {
            if let Some(problem) = server::problem(&config) {
                anyhow::bail!(problem);
            }
        }
    }
    println!("{}: no problem found", path.display());
    Ok(())
}

fn print_status(socket: &Path, json: bool) -> anyhow::Result<()> {
    let report = status::ask(socket).with_context(|| no_answer(socket))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", status::summary(&report));
    }
    Ok(())
}

fn print_sessions(socket: &Path, json: bool) -> anyhow::Result<()> {
    let sessions = status::ask_sessions(socket).with_context(|| no_answer(socket))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&sessions)?);
    } else {
        print!("{}", status::table(&sessions));
    }
    Ok(())
}

fn no_answer(socket: &Path) -> String {
    format!("no tunnel answers at {}; is it running, and is this its admin.socket?", socket.display())
}
