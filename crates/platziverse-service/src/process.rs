//! A process from its first argument to its exit code.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use platziverse_config::{Layers, Settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Drain, OpsListener, Outcome, Service, args, logs};

/// What a service is called and where it shows its health if nothing else is set.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// `gateway`, `worker`, …
    pub name: &'static str,
    /// One sentence for `--help`.
    pub description: &'static str,
    /// The default of `ops.listen`, different for each service so that all can run on one machine.
    pub ops_listen: SocketAddr,
}

const FAILED: u8 = 1;
const FORCED: u8 = 2;

/// Runs a service as this process: arguments, settings, logs, health, signals, and at the end an
/// exit code (0 clean, 1 could not start or broke, 2 the end was forced).
pub fn main<F, Fut, E>(about: About, run: F) -> ExitCode
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error,
{
    let args = match args::parse(&about) {
        Ok(args) => args,
        Err(code) => return ExitCode::from(code),
    };
    let settings = match load(args.config) {
        Ok(settings) => settings,
        Err(text) => return fail(about.name, &text),
    };
    if args.check {
        println!("The configuration is valid.");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = logs::start(&settings.log) {
        return fail(about.name, &error.to_string());
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(live(&about, settings, run));
            runtime.shutdown_timeout(Duration::from_millis(200));
            code
        }
        Err(error) => fail(about.name, &format!("starting the runtime: {error}")),
    }
}

fn load(config: Option<std::path::PathBuf>) -> Result<Settings, String> {
    let layers = Layers::from_process(config);
    Settings::load(&layers).map(|loaded| loaded.settings).map_err(|errors| errors.to_string())
}

fn fail(name: &str, text: &str) -> ExitCode {
    eprintln!("platziverse-{name}: {text}");
    ExitCode::from(FAILED)
}

async fn live<F, Fut, E>(about: &About, settings: Settings, run: F) -> ExitCode
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error,
{
    let service = Service::new(about.name, settings);
    let ops = match OpsListener::bind(service.settings.ops.listen.unwrap_or(about.ops_listen)).await
    {
        Ok(ops) => ops,
        Err(error) => return fail(about.name, &chain(&error)),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = %service.instance,
        ops = %ops.address(),
        "platziverse-{} {} starts; health and metrics on http://{}",
        about.name, env!("CARGO_PKG_VERSION"), ops.address(),
    );
    let drain = service.drain.clone();
    let deadline = service.settings.ops.drain_timeout;
    let watched = service.clone();
    let work = async {
        let ended = run(service).await;
        if ended.is_err() {
            drain.force();
        }
        drain.request();
        let outcome = drain.finished().await;
        ended.map(|()| outcome)
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = ops.serve(&watched) => Ok(Outcome::Forced),
        () = signals(&drain, deadline) => Ok(Outcome::Forced),
    };
    match ended {
        Ok(outcome) => tell(about.name, outcome),
        Err(error) => fail(about.name, &chain(&error)),
    }
}

/// The first signal asks for the end, the second one or the deadline forces it; resolves soon
/// after.
async fn signals(drain: &Drain, deadline: Duration) {
    tokio::select! {
        () = terminated() => tracing::info!("asked to end: finishing what is in flight"),
        () = drain.requested() => {}
    }
    drain.request();
    tokio::select! {
        () = terminated() => tracing::warn!("asked again: stopping at once"),
        () = tokio::time::sleep(deadline) => {
            tracing::warn!("not finished after {deadline:?} (ops.drain_timeout): stopping at once");
        }
        () = drain.forced() => {}
    }
    drain.force();
    // `Drain::finished` answers before this; only a task that holds up the whole runtime does not.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn terminated() {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("signals cannot be received: {error}");
            std::future::pending().await
        }
    }
}

fn tell(name: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Clean => {
            tracing::info!("platziverse-{name} ended cleanly");
            ExitCode::SUCCESS
        }
        Outcome::Forced => {
            tracing::warn!("platziverse-{name} was forced to end; unacknowledged work is redone");
            ExitCode::from(FORCED)
        }
    }
}

/// An error and its causes in one line: `connecting to X: refused`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Libraries often repeat their cause in their own text.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
