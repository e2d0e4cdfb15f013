//! Log lines on standard error, as text or JSON, and what a change of the report says in them.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};
use crate::report::{Report, State};

/// What the lines are written behind.
type Filtered = Layered<reload::Layer<Targets, Registry>, Registry>;
/// Where they go.
type Writer = fn() -> Box<dyn io::Write>;
/// What writes them.
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// Changes how a running process logs.
#[derive(Clone)]
pub struct Verbosity {
    filter: reload::Handle<Targets, Registry>,
    lines: reload::Handle<Lines, Filtered>,
    writer: Writer,
}

impl Verbosity {
    /// Logs as `log` says from here on.
    pub fn set(&self, log: Log) {
        let changed =
            self.lines.reload(lines(log.format, self.writer)).and_then(|()| self.filter.reload(filter(log.level)));
        if let Err(error) = changed {
            tracing::warn!(%error, "the log cannot be changed");
        }
    }
}

#[cfg(test)]
impl Verbosity {
    /// That of a process that does not log.
    pub(crate) fn detached() -> Self {
        let writer: Writer = || Box::new(io::sink());
        let lines = reload::Layer::new(lines(LogFormat::Text, writer)).1;
        Self { filter: reload::Layer::new(Targets::new()).1, lines, writer }
    }
}

/// Starts to log.
///
/// # Errors
/// When the process logs already.
pub fn start(log: Log) -> Result<Verbosity, TryInitError> {
    let (subscriber, verbosity) = subscriber(log, || Box::new(io::stderr()));
    subscriber.try_init()?;
    Ok(verbosity)
}

fn subscriber(log: Log, writer: Writer) -> (Layered<reload::Layer<Lines, Filtered>, Filtered>, Verbosity) {
    let (filter_layer, filter) = reload::Layer::new(filter(log.level));
    let (lines_layer, lines) = reload::Layer::new(lines(log.format, writer));
    let subscriber = tracing_subscriber::registry().with(filter_layer).with(lines_layer);
    (subscriber, Verbosity { filter, lines, writer })
}

fn lines(format: LogFormat, writer: Writer) -> Lines {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Buffer;

    impl io::Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            WRITTEN.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn format_and_level_change_while_the_process_logs() {
        let (subscriber, verbosity) = subscriber(Log::default(), || Box::new(Buffer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "towline_tunnel", "first");
            verbosity.set(Log { format: LogFormat::Json, level: LogLevel::Warn });
            tracing::info!(target: "towline_tunnel", "second");
            tracing::warn!(target: "towline_tunnel", "third");
        });
        let written = String::from_utf8(WRITTEN.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        let [first, third] = lines.as_slice() else { panic!("{written}") };
        assert!(first.contains("first") && !first.starts_with('{'), "{first}");
        assert!(third.starts_with('{') && third.contains("third"), "{third}");
    }
}
