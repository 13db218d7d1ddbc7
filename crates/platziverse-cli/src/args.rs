//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{bench, command, config, db, dead, health, mom, task, topology, user};

const AFTER: &str = "\
Where RabbitMQ and PostgreSQL are comes from the settings (`platziverse config show` prints them). \
Where neither a file nor the environment says it, the addresses are those of the system that \
scripts/up started: .run/env in this directory, above it, or above this program.

Exit codes: 0 done, 1 failed, 2 wrong usage, 128 + the signal's number if interrupted (130, 143).";

/// The operator's command of Platziverse.
#[derive(Debug, Parser)]
#[command(name = "platziverse", version, after_help = AFTER, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Configuration file, TOML or JSON by its ending [default: $PLATZIVERSE_CONFIG, else
    /// platziverse.toml or settings.json if present]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say where the addresses came from
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The settings: what is in force, and whether a file is valid
    #[command(subcommand)]
    Config(config::Command),
    /// The database: create, migrate, look at, drop
    #[command(subcommand)]
    Db(db::Command),
    /// Dead letters: messages that could not be stored, each with its reason
    #[command(subcommand)]
    Dead(dead::Command),
    /// Commands to agents, and how far commands have come
    #[command(subcommand)]
    Command(command::Command),
    /// Events and commands
    #[command(subcommand)]
    Task(task::Command),
    /// RabbitMQ's exchanges, queues and bindings, as the settings make them
    Topology(topology::Args),
    /// Whether the services here are ready: 0 if they say so, else 1
    Health(health::Args),
    /// How much a gateway, or any other MQTT server, takes: publishes at QoS 1 and measures
    Bench(bench::Args),
    /// The gateway's users
    #[command(subcommand)]
    User(user::Command),
    /// Topics: each subscriber but the publisher gets a copy of a message
    Topic(mom::Place),
    /// Queues: one of the subscribers gets a message
    Queue(mom::Place),
    /// The keys that applications show to topics and queues
    #[command(subcommand)]
    Key(mom::key::Command),
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Dead(command) => command.when_interrupted(),
            Self::Db(command) => command.when_interrupted(),
            Self::Task(command) => command.when_interrupted(),
            Self::Command(command) => command.when_interrupted(),
            Self::Topic(place) | Self::Queue(place) => place.when_interrupted(),
            Self::Key(command) => command.when_interrupted(),
            Self::Bench(_)
            | Self::Config(_)
            | Self::Topology(_)
            | Self::Health(_)
            | Self::User(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn usage() {
        let check = |line: &str, want: Result<(), ErrorKind>| {
            let parsed = Args::try_parse_from(line.split(' '));
            assert_eq!(parsed.map(|_| ()).map_err(|error| error.kind()), want, "{line}");
        };
        check("platziverse config show --json", Ok(()));
        check("platziverse config show --config a.toml -v", Ok(()));
        check("platziverse --config a.toml config check b.json", Ok(()));
        check("platziverse config check", Err(ErrorKind::MissingRequiredArgument));
        check("platziverse config check b.json --json", Ok(()));
        check("platziverse db create --json", Ok(()));
        check("platziverse db migrate --json", Ok(()));
        check("platziverse db drop --yes --json", Ok(()));
        check("platziverse dead list --limit 5 --reason invalid_json --json", Ok(()));
        check("platziverse dead list --limit 0", Err(ErrorKind::ValueValidation));
        check("platziverse dead replay", Ok(()));
        check("platziverse dead replay a b", Ok(()));
        check("platziverse dead replay a --reason b", Err(ErrorKind::ArgumentConflict));
        check("platziverse dead replay --json", Ok(()));
        check("platziverse dead purge --yes --json", Ok(()));
        check("platziverse task send event door.opened --source gate --payload {} --json", Ok(()));
        check(
            "platziverse task send command log --target x --id 1",
            Err(ErrorKind::ValueValidation),
        );
        check("platziverse task send event x --payload {", Err(ErrorKind::ValueValidation));
        check("platziverse task send event x --target y", Err(ErrorKind::UnknownArgument));
        check("platziverse task send --file - --queue q", Ok(()));
        check("platziverse task send --raw nonsense --json", Ok(()));
        check("platziverse task send --raw x --file y", Err(ErrorKind::ArgumentConflict));
        check("platziverse command list --state timed_out --target yyy --limit 5 --json", Ok(()));
        check("platziverse command list --state lost", Err(ErrorKind::ValueValidation));
        check("platziverse command show 1", Err(ErrorKind::ValueValidation));
        check("platziverse task send", Err(ErrorKind::MissingRequiredArgument));
        check("platziverse health", Ok(()));
        check("platziverse health --url http://h:1/readyz", Ok(()));
        check("platziverse health --url https://h", Err(ErrorKind::ValueValidation));
        check("platziverse user hash --username ana", Ok(()));
        check("platziverse topic create t --max-length 5 --message-ttl 1h --json", Ok(()));
        check("platziverse topic --key-file k list --subscribed --limit 5", Ok(()));
        check("platziverse queue list --limit 201", Err(ErrorKind::ValueValidation));
        check("platziverse queue publish q - --header a=b --header c=d --key-file k", Ok(()));
        check("platziverse queue publish q --header a", Err(ErrorKind::ValueValidation));
        check("platziverse queue publish q --lines --json", Ok(()));
        check("platziverse queue publish q body --lines", Err(ErrorKind::ArgumentConflict));
        check("platziverse queue consume q --wait 30s -n 5 --ack auto --json", Ok(()));
        check("platziverse topic consume t --follow --url http://h:1", Ok(()));
        check("platziverse topic consume t --follow --wait 1s", Err(ErrorKind::ArgumentConflict));
        check("platziverse topic consume t --ack maybe", Err(ErrorKind::InvalidValue));
        check("platziverse queue delete q --yes", Ok(()));
        check("platziverse key create --key-file k --json", Ok(()));
        check("platziverse key rotate --url http://h:1 --key-file k", Ok(()));
        check("platziverse", Err(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand));
        check("platziverse nonsense", Err(ErrorKind::InvalidSubcommand));
        check("platziverse --version", Err(ErrorKind::DisplayVersion));
    }
}
