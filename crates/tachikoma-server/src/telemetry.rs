//! Sets up the server's own log on standard error: for people on a terminal, JSON otherwise.
//!
//! The access log is another stream, see [`access_log`](crate::access_log).

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::values::{LogFilter, LogFormat};

/// Starts the log of this process.
///
/// # Errors
///
/// A log was started before.
pub fn start(filter: &LogFilter, format: LogFormat) -> anyhow::Result<()> {
    let pretty = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(filter.as_str())?)
        .with_writer(io::stderr)
        // A closed standard error must not take the server down.
        .log_internal_errors(false);
    let started = if pretty {
        subscriber.with_ansi(io::stderr().is_terminal()).try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}
