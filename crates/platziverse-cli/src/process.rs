//! The process from its arguments to its exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use platziverse_client::Kind;
use platziverse_service::chain;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;

use crate::args::{Args, Command};
use crate::settings::Context;
use crate::{
    bench, command, config, db, dead, health, mom, output, progress, task, topology, user,
};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// With the signal's number, as shells count it.
const SIGNALLED: u8 = 128;

/// How long an interrupted command may take to let go of what it holds.
const LET_GO: Duration = Duration::from_millis(200);

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nowhere is left to say that printing failed.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // Two threads, whatever the machine has: while a command blocks one, the other hears signals.
    match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => run(runtime, args),
        Err(error) => fail(&format!("starting the runtime: {error}")),
    }
}

fn run(runtime: Runtime, args: Args) -> ExitCode {
    let note = args.command.when_interrupted();
    let context = Context { config: args.config, verbose: args.verbose };
    // A task of its own: what blocks its thread does not keep signals from being heard.
    let command = runtime.spawn(dispatch(args.command, context));
    let ended = runtime.block_on(async {
        tokio::select! {
            joined = command => Ended::Itself(joined),
            signal = interrupted() => Ended::Signal(signal),
        }
    });
    // What the command holds, such as a silent terminal, is restored before anything is said.
    runtime.shutdown_timeout(LET_GO);
    match ended {
        Ended::Itself(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ended::Itself(Ok(Err(error))) => fail(&chain(error.as_ref())),
        Ended::Itself(Err(_)) => {
            fail("this is a defect of platziverse; what it was doing may be half done")
        }
        Ended::Signal(signal) => {
            progress::clear();
            output::complain(&format!("platziverse: interrupted{}", note.unwrap_or_default()));
            (SIGNALLED + signal).into()
        }
    }
}

enum Ended {
    Itself(Result<anyhow::Result<()>, JoinError>),
    Signal(u8),
}

async fn dispatch(command: Command, context: Context) -> anyhow::Result<()> {
    match command {
        Command::Config(command) => config::run(command, &context),
        Command::Db(command) => db::run(command, &context).await,
        Command::Dead(command) => dead::run(command, &context).await,
        Command::Command(command) => command::run(command, &context).await,
        Command::Task(command) => task::run(command, &context).await,
        Command::Topology(args) => topology::run(&args, &context),
        Command::Health(args) => health::run(args, &context),
        Command::Bench(args) => bench::run(args, &context).await,
        Command::User(command) => user::run(command).await,
        Command::Topic(place) => mom::run(Kind::Topic, place, &context).await,
        Command::Queue(place) => mom::run(Kind::Queue, place, &context).await,
        Command::Key(command) => mom::key::run(command, &context).await,
    }
}

/// Resolves when the process is asked to end, with the signal's number.
async fn interrupted() -> u8 {
    let kinds = (SignalKind::interrupt(), SignalKind::terminate());
    match (signal(kinds.0), signal(kinds.1)) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            let kind = tokio::select! {
                _ = interrupt.recv() => kinds.0,
                _ = terminate.recv() => kinds.1,
            };
            u8::try_from(kind.as_raw_value()).unwrap_or_default()
        }
        // The default action of both signals is in force then, and ends the process.
        (Err(_), _) | (_, Err(_)) => std::future::pending().await,
    }
}

fn fail(text: &str) -> ExitCode {
    output::complain(&format!("platziverse: {text}"));
    FAILED.into()
}
