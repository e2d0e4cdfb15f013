//! `towline-operator`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use kube::Client;
use towline_operator::api;
use towline_operator::run::Run;
use towline_operator::verify::Verify;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter::Targets};

/// Reconciles VpnTunnel resources.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How log lines look
    #[arg(long, env = "TOWLINE_LOG_FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
    /// How much is logged
    #[arg(long, env = "TOWLINE_LOG_LEVEL", default_value = "info", global = true)]
    log_level: LogLevel,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator in its pod
    Run(Run),
    /// Says what is wrong with an installation; `helm test` calls it
    Verify(Verify),
    /// Prints the custom resource definitions
    Crds {
        /// Writes a file for each into this folder instead
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log_format, arguments.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("towline-operator: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.command {
        Command::Run(run) => runtime.block_on(run.run()),
        Command::Verify(verify) => runtime.block_on(verify_installation(&verify)),
        Command::Crds { dir } => write_definitions(dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towline-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat, level: LogLevel) {
    let level = match level {
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("towline_operator", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

async fn verify_installation(verify: &Verify) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find the API server")?;
    let problems = verify.run(&client).await;
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n"));
    println!("the installation works");
    Ok(())
}

fn write_definitions(dir: Option<PathBuf>) -> anyhow::Result<()> {
    for definition in api::definitions() {
        let text = api::to_yaml(&definition)?;
        match &dir {
            None => print!("{text}"),
            Some(dir) => {
                let path = dir.join(api::file_name(&definition));
                std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(())
}
