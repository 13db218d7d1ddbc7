//! One round: start, injure, heal, settle, reconcile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use platziverse_testkit::Servers;
use serde::Serialize;
use tokio::time::Instant;

use crate::character::Part;
use crate::faults::{Fault, Target};
use crate::fleet::Order;
use crate::reconcile::{Tally, reconcile};
use crate::service::Service;
use crate::stage::{Setup, Stage};
use crate::watch::Peak;
use crate::{kept, presence, schedule};

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
    /// Seconds from the end of the fault until every service was ready, every agent was acknowledged
    /// something new, and new tasks were done.
    pub recovered_after: Option<f64>,
    /// The most memory of each service.
    pub peak_memory: Peak,
    /// How often books were read.
    pub books_read: u64,
    /// Seconds that the round took.
    pub seconds: f64,
    /// Why it could not be played here, if so: it says nothing then, good or bad.
    pub skipped: Option<String>,
}

impl RoundReport {
    fn of(faults: &[Fault]) -> Self {
        Self { fault: schedule::names(faults), ..Self::default() }
    }

    /// A round that could not begin.
    pub fn impossible(faults: &[Fault], why: String) -> Self {
        let mut report = Self::of(faults);
        report.tally.unexpected.push(why);
        report
    }

    /// A round that cannot be played here.
    pub fn skipped(faults: &[Fault], why: &str) -> Self {
        Self { skipped: Some(why.to_owned()), ..Self::of(faults) }
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
    stage.order(Order::Settle);
    stage.settle(SETTLE).await?;
    if stage.fleet.agents.is_empty() {
        return Ok(());
    }
    roll_call(stage).await?;
    stage.settle(SETTLE).await
}

/// All faults at once, each for its time, one beginning after the other. What has begun ends, and
/// the first that went wrong is told.
async fn injure(stage: &mut Stage, faults: &[Fault]) -> Result<(), String> {
    let begun = Instant::now();
    let mut holding = Vec::new();
    let mut outcome = Ok(());
    for (index, fault) in faults.iter().enumerate() {
        if index > 0 {
            stage.pass(STAGGER).await;
        }
        outcome = fault.begin(stage).await.map_err(|why| format!("{}: {why}", fault.name()));
        holding.push((*fault, begun.elapsed() + fault.hold()));
        if outcome.is_err() {
            break;
        }
    }
    for (fault, end) in in_order_of_ends(holding) {
        if outcome.is_ok() {
            stage.pass(end.saturating_sub(begun.elapsed())).await;
        }
        let ended = fault.end(stage).await.map_err(|why| format!("{}: {why}", fault.name()));
        outcome = outcome.and(ended);
    }
    outcome
}

/// Those of clients come last: they wait for answers, which nothing may be in the way of any more.
fn in_order_of_ends(mut holding: Vec<(Fault, Duration)>) -> Vec<(Fault, Duration)> {
    holding.sort_by_key(|(fault, end)| (fault.target() == Target::Clients, *end));
    holding
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
        wrong.extend(presence::ghosts(&truth, &rows));
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
    let mut ledgers = stage.fleet.ledgers();
    stage.unexpected.extend(stage.fleet.finish().await);
    stage.unexpected.extend(stage.crowd.disband().await);
    ledgers.append(&mut stage.crowd.ledgers);
    let services = stage.gateways.iter_mut().chain(&mut stage.workers).chain(&mut stage.moms);
    for service in services.chain(&mut stage.aggregators) {
        if service.is_running() {
            stage.watch.last(service).await;
        }
        stage.unexpected.append(&mut service.unexpected());
    }
    for ear in &stage.ears {
        stage.unexpected.extend(ear.strange());
    }
    match kept::read(&stage.world, &stage.dead_expected).await {
        Ok(kept) => report.tally = reconcile(&ledgers, &kept),
        Err(why) => stage.unexpected.push(format!("what is kept cannot be read: {why}")),
    }
    if let Some(work) = &mut stage.work {
        let (repeat, promises) = (stage.letters_may_repeat, stage.setup.promises);
        match work.close(&stage.world, &stage.servers, repeat, promises).await {
            Ok(tally) => report.tally += tally,
            Err(why) => stage.unexpected.push(format!("the load cannot be counted: {why}")),
        }
    }
    report.peak_memory = stage.watch.peak;
    report.books_read = stage.watch.readings;
    report.tally.unexpected.extend(stage.watch.unexpected());
    report.tally.unexpected.append(&mut stage.unexpected);
    stage.services_mut().for_each(Service::kill);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_clients_end_last() {
        let seconds = Duration::from_secs;
        let holding = vec![
            (Fault::Storm, seconds(1)),
            (Fault::RabbitHalfOpen, seconds(25)),
            (Fault::WorkerKill, seconds(3)),
        ];
        let names: Vec<_> = in_order_of_ends(holding).into_iter().map(|(fault, _)| fault).collect();
        assert_eq!(names, [Fault::WorkerKill, Fault::RabbitHalfOpen, Fault::Storm]);
    }
}
