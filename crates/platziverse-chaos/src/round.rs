//! One round: start, injure, heal, settle, reconcile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use platziverse_testkit::{Process, Servers};
use serde::Serialize;
use tokio::time::Instant;

use crate::faults::Fault;
use crate::fleet::{Order, Part};
use crate::reconcile::{Tally, reconcile};
use crate::stage::{Setup, Stage};
use crate::watch::Peak;
use crate::{kept, presence};

/// How long the load runs before and after the fault.
const CALM: Duration = Duration::from_secs(2);
/// How long the backlog of a fault may take.
const SETTLE: Duration = Duration::from_secs(120);
/// Promise 3.
const PRESENCE: Duration = Duration::from_secs(15);
/// Between the beginnings of faults that are combined.
const STAGGER: Duration = Duration::from_secs(1);

/// What a round came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundReport {
    /// The faults, joined by `+`.
    pub fault: String,
    /// What became of the messages.
    #[serde(flatten)]
    pub tally: Tally,
    /// Seconds from the end of the fault until every service was ready and every agent was
    /// acknowledged something new.
    pub recovered_after: Option<f64>,
    /// The most memory of each service.
    pub peak_memory: Peak,
    /// How often books were read.
    pub books_read: u64,
    /// Seconds that the round took.
    pub seconds: f64,
}

impl RoundReport {
    fn of(faults: &[Fault]) -> Self {
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        Self { fault: names.join("+"), ..Self::default() }
    }

    /// A round that could not begin.
    pub fn impossible(faults: &[Fault], why: String) -> Self {
        let mut report = Self::of(faults);
        report.tally.unexpected.push(why);
        report
    }

    /// Whether nothing was lost, doubled or unexpected.
    pub fn is_clean(&self) -> bool {
        let Tally { lost, duplicated, unexpected, .. } = &self.tally;
        *lost == 0 && *duplicated == 0 && unexpected.is_empty()
    }
}

/// Plays one round.
pub async fn play(
    name: &str,
    faults: &[Fault],
    servers: Arc<Servers>,
    setup: Setup,
) -> RoundReport {
    let begun = Instant::now();
    let mut report = RoundReport::of(faults);
    match Stage::start(name, servers, setup).await {
        Ok(stage) => {
            let mut stage = Box::new(stage);
            if let Err(why) = act(&mut stage, faults, &mut report).await {
                stage.note(why);
                // What is still on its way would be counted as lost.
                if let Err(why) = stage.mend(SETTLE).await {
                    stage.note(why);
                }
            }
            close(*stage, &mut report).await;
        }
        Err(why) => report.tally.unexpected.push(format!("the stage could not be set: {why}")),
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

async fn act(stage: &mut Stage, faults: &[Fault], report: &mut RoundReport) -> Result<(), String> {
    stage.acknowledges().await?;
    stage.pass(CALM).await;
    injure(stage, faults).await?;
    let healed = Instant::now();
    stage.ready().await?;
    stage.acknowledges().await?;
    report.recovered_after = Some(healed.elapsed().as_secs_f64());
    stage.pass(CALM).await;
    stage.fleet.order(Order::Settle);
    stage.settle(SETTLE).await?;
    roll_call(stage).await?;
    stage.settle(SETTLE).await
}

/// All faults at once, each for its time, one beginning after the other.
async fn injure(stage: &mut Stage, faults: &[Fault]) -> Result<(), String> {
    let mut ends = Vec::new();
    let begun = Instant::now();
    for (index, fault) in faults.iter().enumerate() {
        fault.begin(stage).await.map_err(|why| format!("{}: {why}", fault.name()))?;
        ends.push((begun.elapsed() + fault.hold(), fault));
        if index + 1 < faults.len() {
            stage.pass(STAGGER).await;
        }
    }
    ends.sort_by_key(|(end, _)| *end);
    for (end, fault) in ends {
        stage.pass(end.saturating_sub(begun.elapsed())).await;
        fault.end(stage).await.map_err(|why| format!("{}: {why}", fault.name()))?;
    }
    Ok(())
}

/// Some agents leave, some move, some stay; then rows and listeners must know who is there.
async fn roll_call(stage: &mut Stage) -> Result<(), String> {
    let subscribed =
        async |stage: &Stage| match stage.ears.iter().all(crate::ear::Ear::is_subscribed) {
            true => Ok(()),
            false => Err("a listener is not subscribed".to_owned()),
        };
    stage.until("listeners are subscribed", PRESENCE, subscribed).await?;
    stage.fleet.order(Order::RollCall);
    let played = async |stage: &Stage| match stage.fleet.has_played() {
        true => Ok(()),
        false => Err("an agent has not played its part".to_owned()),
    };
    stage.until("all agents have answered the roll call", SETTLE, played).await?;
    let agents = stage.fleet.agents.iter();
    let truth: BTreeMap<String, Part> =
        agents.map(|agent| (agent.ledger.agent.to_string(), agent.part)).collect();
    let known = async |stage: &Stage| {
        let rows = kept::rows(&stage.world).await?;
        let mut wrong = presence::wrong_rows(&truth, &rows);
        for ear in &stage.ears {
            wrong.extend(presence::wrong_beliefs(&truth, &rows, &ear.said()));
        }
        match wrong.len() {
            0 => Ok(()),
            count => Err(format!("{count} are wrong; {}", wrong[..count.min(3)].join("; "))),
        }
    };
    stage.until("presence is true", PRESENCE, known).await
}

/// Ends everything, and counts.
async fn close(mut stage: Stage, report: &mut RoundReport) {
    for process in stage.gateways.iter_mut().chain(&mut stage.workers) {
        if !process.is_running() {
            let log = process.log();
            let last = log.lines().next_back().unwrap_or_default();
            stage.unexpected.push(format!("{} has ended by itself: {last}", process.name()));
        }
        let panicked = process.panicked();
        stage.unexpected.extend(panicked.map(|words| format!("{}: {words}", process.name())));
    }
    for ear in &stage.ears {
        stage.unexpected.extend(ear.strange());
    }
    let mut ledgers = stage.fleet.ledgers();
    ledgers.extend(stage.crowd.ledgers.iter().cloned());
    match kept::read(&stage.world, &stage.dead_expected).await {
        Ok(kept) => report.tally = reconcile(&ledgers, &kept),
        Err(why) => stage.unexpected.push(format!("what is kept cannot be read: {why}")),
    }
    report.peak_memory = stage.watch.peak;
    report.books_read = stage.watch.readings;
    report.tally.unexpected.extend(stage.watch.unexpected());
    report.tally.unexpected.append(&mut stage.unexpected);
    report.tally.unexpected.extend(stage.fleet.finish().await);
    for process in stage.gateways.iter_mut().chain(&mut stage.workers) {
        Process::kill(process);
    }
}
