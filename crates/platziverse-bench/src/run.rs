//! A whole run: every scenario, several times, and the table.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::figure::{Figure, Played, gather};
use crate::machine::Machine;
use crate::plot;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::site::{Site, hide};

/// Files of a process beside the connections of clients.
const OTHER_FILES: u64 = 500;
const FILES: u64 = 65_536;

/// Plays what is asked for, and prints it.
pub async fn run(mut args: Args) -> ExitCode {
    let files = raise_file_limit();
    let room = files.saturating_sub(OTHER_FILES);
    if (args.idle as u64) > room {
        eprintln!(
            "bench: open files are limited to {room} connections of the scenario idle: ulimit -n"
        );
        args.idle = usize::try_from(room).unwrap_or(args.idle);
    }
    let site = match Site::start(args.clone(), files).await {
        Ok(site) => site,
        Err(error) => {
            eprintln!("bench: {error}");
            return ExitCode::FAILURE;
        }
    };
    let machine = Machine::of(&site).await;
    eprintln!("bench: {}", machine.shown());
    let (figures, failures) = play_all(&site).await;
    let report = Report { machine, rounds: args.rounds, figures, failures };
    conclude(&args, &report)
}

/// Until the end, or until somebody wants one: what was found until then counts.
async fn play_all(site: &Site) -> (Vec<Figure>, Vec<String>) {
    let (mut figures, mut failures) = (Vec::new(), Vec::new());
    let mut terminated = signal(SignalKind::terminate()).ok();
    for scenario in site.args.scenarios() {
        for round in 1..=site.args.rounds {
            eprintln!("bench: {}, round {round} of {}", scenario.name(), site.args.rounds);
            let told = async {
                match &mut terminated {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            let played = tokio::select! {
                played = play(site, scenario) => played,
                _ = tokio::signal::ctrl_c() => return interrupted(figures, failures),
                _ = told => return interrupted(figures, failures),
            };
            for why in played.failures {
                hide();
                eprintln!("bench: {}: {why}", scenario.name());
                failures.push(format!("{}, round {round}: {why}", scenario.name()));
            }
            gather(&mut figures, scenario.name(), played.samples);
        }
    }
    (figures, failures)
}

fn interrupted(figures: Vec<Figure>, mut failures: Vec<String>) -> (Vec<Figure>, Vec<String>) {
    hide();
    failures.push("interrupted".to_owned());
    (figures, failures)
}

async fn play(site: &Site, scenario: Scenario) -> Played {
    let played = AssertUnwindSafe(scenario.play(site));
    // The testkit panics where a test could not go on; the run goes on with the next scenario.
    played.catch_unwind().await.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        Err(words.unwrap_or("it panicked: its message is above").to_owned()).into()
    })
}

fn conclude(args: &Args, report: &Report) -> ExitCode {
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(report).unwrap_or_default()),
        false => print!("{}", report.table()),
    }
    let plotted =
        args.plot.as_ref().map_or(Ok(()), |path| plot::write(path, &report.figures, args.clients));
    if let Err(error) = &plotted {
        eprintln!("bench: {error}");
    }
    match report.failures.is_empty() && plotted.is_ok() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Each connection is a file, here and in the servers that are started; only root may raise the
/// limit beyond what is set. Answers how many files there may be.
fn raise_file_limit() -> u64 {
    let allowed = rlimit::increase_nofile_limit(FILES).unwrap_or(0);
    if allowed < FILES && rlimit::setrlimit(rlimit::Resource::NOFILE, FILES, FILES).is_ok() {
        return FILES;
    }
    allowed
}
