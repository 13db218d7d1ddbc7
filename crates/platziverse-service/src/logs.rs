//! Logs to stderr: text on a terminal, one JSON object a line elsewhere.

use std::io::IsTerminal;

use platziverse_config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// A level that is no filter.
#[derive(Debug, thiserror::Error)]
#[error("log.level {level:?} is no filter (try info, or info,platziverse_gateway=debug): {why}")]
pub(crate) struct LogsError {
    level: String,
    why: String,
}

/// Starts logging for the whole process. A second start is without effect.
pub(crate) fn start(settings: &LogConfig) -> Result<(), LogsError> {
    let level = &settings.level;
    let filter = EnvFilter::try_new(level)
        .map_err(|error| LogsError { level: level.clone(), why: error.to_string() })?;
    let text = match settings.format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if text {
        subscriber.with_ansi(std::io::stderr().is_terminal()).try_init()
    } else {
        subscriber.json().flatten_event(true).with_current_span(false).try_init()
    };
    // Only fails when logging runs already, as in tests that start two services.
    let _ = started;
    Ok(())
}
