//! All rounds of a run: servers are started when the first round needs them.

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::FutureExt;
use platziverse_testkit::Servers;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Args;
use crate::faults::{Fault, Needs};
use crate::fleet::Plan;
use crate::mom::reconcile::Promises;
use crate::round::{self, RoundReport};
use crate::stage::Setup;
use crate::work::Load;
use crate::{report, schedule, user};

/// Room on the small disk: what an empty PostgreSQL needs, and a little more.
const SMALL_DISK: &str = "200m";
/// Open files: thousands of clients, each also through a proxy.
const FILES: u64 = 65_536;

/// Runs everything, and says whether it was clean.
pub async fn run(args: Args) -> ExitCode {
    // With fewer, the reconnect storm says so itself.
    let _ = rlimit::increase_nofile_limit(FILES);
    let seed = args.seed();
    let rounds = schedule::rounds(&args.wish(seed));
    eprintln!("chaos: {} rounds, seed {seed}: --seed {seed} plays them again", rounds.len());
    let mut theatre = Theatre::default();
    let mut reports: Vec<RoundReport> = Vec::new();
    let mut terminated = signal(SignalKind::terminate()).ok();
    for (index, faults) in rounds.iter().enumerate() {
        let report = tokio::select! {
            report = theatre.play(index, faults, &args) => report,
            () = interrupted(&mut terminated) => {
                eprintln!("chaos: interrupted after {index} rounds");
                break;
            }
        };
        eprintln!("[{}/{}] {}", index + 1, rounds.len(), report::summary(&report));
        for words in report.tally.examples.iter().chain(&report.tally.unexpected) {
            eprintln!("         ! {words}");
        }
        reports.push(report);
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&reports).unwrap_or_default()),
        false => print!("{}", report::table(&reports)),
    }
    let clean = reports.len() == rounds.len() && reports.iter().all(RoundReport::is_clean);
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a round of these faults starts with.
fn setup(faults: &[Fault], args: &Args) -> Setup {
    let loads = faults.iter().map(|fault| fault.load());
    let load = loads.into_iter().find(|load| *load != Load::Reports).unwrap_or(Load::Reports);
    let mut settings = load.settings();
    settings.extend(faults.iter().flat_map(|fault| fault.settings()));
    let (gateways, workers, moms, aggregators, agents) = match load {
        Load::Reports => (2, 2, 0, 0, args.agents),
        Load::Tasks => (0, 2, 0, 0, 0),
        Load::Commands => (2, 2, 0, 0, 0),
        Load::Mom => (0, 0, 2, 0, 0),
        Load::Sessions => (0, 0, 0, 2, 0),
    };
    Setup {
        gateways,
        workers,
        moms,
        aggregators,
        load,
        plan: Plan { agents, rate: args.rate },
        settings,
        outage: faults.iter().any(|fault| fault.is_outage()),
        promises: faults.first().map_or_else(Promises::default, |fault| fault.promises()),
        alone: faults.len() == 1,
    }
}

/// Resolves when somebody wants an end: what was seen until then is told all the same.
async fn interrupted(terminated: &mut Option<Signal>) {
    let told = async {
        match terminated {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = told => {}
    }
}

/// The servers, which rounds of one kind share.
#[derive(Default)]
struct Theatre {
    servers: Option<(Needs, Arc<Servers>)>,
}

impl Theatre {
    async fn play(&mut self, index: usize, faults: &[Fault], args: &Args) -> RoundReport {
        let needs = faults.iter().map(|fault| fault.needs()).find(|needs| *needs != Needs::Shared);
        if needs == Some(Needs::SmallDisk) && !user::is_root() {
            return RoundReport::skipped(faults, "only root may mount a small disk");
        }
        let servers = match self.servers(needs.unwrap_or(Needs::Shared)).await {
            Ok(servers) => servers,
            Err(why) => return RoundReport::impossible(faults, why),
        };
        let setup = setup(faults, args);
        let name = format!("agent-{index}");
        let round = AssertUnwindSafe(round::play(&name, faults, servers, setup));
        // The testkit panics where a test could not go on; the run goes on with the next round.
        let report = round.catch_unwind().await.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.unwrap_or("its message is above");
            RoundReport::impossible(faults, format!("the round panicked: {words}"))
        });
        if !report.is_clean() {
            // It may have left them injured, and the next round is not to suffer for it.
            self.servers = None;
        }
        report
    }

    async fn servers(&mut self, needs: Needs) -> Result<Arc<Servers>, String> {
        if let Some((kind, servers)) = &self.servers
            && *kind == needs
        {
            return Ok(Arc::clone(servers));
        }
        // The old ones end first: there is not room for both.
        self.servers = None;
        let name = format!("chaos-{:08x}", fastrand::u32(..));
        let small = [("POSTGRES_TMPFS", SMALL_DISK)];
        let servers = match needs {
            Needs::Shared => Servers::start_in(&name, "all", &[]).await,
            Needs::SmallDisk => Servers::start_in(&name, "all", &small).await,
            Needs::Cluster => Servers::start_in(&name, "cluster", &[]).await,
        };
        let servers = Arc::new(servers?);
        if needs == Needs::Cluster {
            servers.try_run("start", "postgres").await?;
        }
        self.servers = Some((needs, Arc::clone(&servers)));
        Ok(servers)
    }
}
