//! Logs to stderr: text on a terminal, one JSON object a line elsewhere.

use std::io::IsTerminal;

use platziverse_config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

/// Libraries that tell of failures in their own words, which we tell in ours. Naming one in
/// `log.level` brings it back.
const QUIET: [(&str, &str); 2] =
    [("lapin", "lapin=off"), ("tokio_postgres", "tokio_postgres=error")];

/// A level that is no filter.
#[derive(Debug, thiserror::Error)]
#[error("log.level {level:?} is no filter (try info, or info,platziverse_gateway=debug): {why}")]
pub(crate) struct LogsError {
    level: String,
    why: String,
}

/// Starts logging for the whole process. A second start is without effect.
pub(crate) fn start(settings: &LogConfig) -> Result<(), LogsError> {
    let filter = filter(&settings.level)?;
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

fn filter(level: &str) -> Result<EnvFilter, LogsError> {
    let failed = |why: String| LogsError { level: level.to_owned(), why };
    let mut filter = EnvFilter::try_new(level).map_err(|error| failed(error.to_string()))?;
    for (library, directive) in QUIET {
        if !level.contains(library) {
            let directive: Directive = directive.parse().map_err(|_| failed(directive.into()))?;
            filter = filter.add_directive(directive);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_named() {
        let shown = |level: &str| filter(level).unwrap().to_string();
        assert!(shown("info").contains("lapin=off"));
        assert!(shown("info,lapin=debug").contains("lapin=debug"));
        assert!(!shown("info,lapin=debug").contains("lapin=off"));
    }
}
