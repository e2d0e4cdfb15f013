//! Log lines on standard error, as text or JSON, and what a change of the report says in them.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};
use crate::report::{Report, State};

/// Changes the level of a running process.
#[derive(Debug, Clone)]
pub struct Verbosity(reload::Handle<Targets, Registry>);

impl Verbosity {
    /// Logs as much as `level` says from here on.
    pub fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, "log level cannot be changed");
        }
    }
}

/// Starts to log.
///
/// # Errors
/// When the process logs already.
pub fn start(log: Log) -> Result<Verbosity, TryInitError> {
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(Verbosity(handle))
}

/// Libraries only warn: what they say below that may hold headers and names.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(LevelFilter::WARN).with_target("towline_tunnel", level)
}

/// Logs each layer that is different in `new`.
pub fn log_changes(old: &Report, new: &Report) {
    for layer in &new.layers {
        if old.layer(layer.layer) == Some(layer) {
            continue;
        }
        let (name, reason, message) = (layer.layer, layer.reason, layer.message.as_str());
        match layer.state {
            State::Down => tracing::warn!(layer = ?name, %reason, "{message}"),
            State::Up | State::Pending => tracing::info!(layer = ?name, %reason, "{message}"),
        }
    }
    if let Some(rejected) = &new.rejected_revision
        && old.rejected_revision != new.rejected_revision
    {
        tracing::warn!(revision = rejected.revision, "configuration refused: {}", rejected.message);
    }
    if old.is_ready() != new.is_ready() {
        tracing::info!(
            ready = new.is_ready(),
            "{}",
            if new.is_ready() { "traffic goes through" } else { "no traffic" }
        );
    }
}
