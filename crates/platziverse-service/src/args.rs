//! The arguments that every service takes.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::process::About;

pub(crate) struct Args {
    pub(crate) config: Option<PathBuf>,
    pub(crate) check: bool,
}

const AFTER: &str = "Settings come from the built-in defaults, then the configuration file, then \
the environment (PLATZIVERSE_SECTION__KEY); `platziverse config show` prints what is in force and \
where each value came from.\n\nExit codes: 0 after a clean end, 1 when it cannot start, 2 when the \
end was forced (a second signal, or ops.drain_timeout passed).";

/// Parses the process's arguments; prints help or a usage error and answers with the exit code.
pub(crate) fn parse(about: &About) -> Result<Args, u8> {
    let command = Command::new(format!("platziverse-{}", about.name))
        .about(about.description)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(AFTER)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file (TOML or JSON by its ending) [default: $PLATZIVERSE_CONFIG, else platziverse.toml or settings.json if present]"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Check the configuration and exit"),
        );
    match command.try_get_matches() {
        Ok(matches) => Ok(Args {
            config: matches.get_one("config").cloned(),
            check: matches.get_flag("check"),
        }),
        Err(error) => {
            // Nowhere is left to say that printing failed.
            let _ = error.print();
            Err(if error.use_stderr() { 1 } else { 0 })
        }
    }
}
