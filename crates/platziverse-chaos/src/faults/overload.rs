//! More than the workers can take.

use std::time::Duration;

use platziverse_testkit::{Process, Toxic};

use super::{Fault, clients};
use crate::fleet::{Fleet, Plan};
use crate::stage::{Setting, Stage};

/// The agents that overload.
const AGENTS: usize = 200;
/// What they offer while it is measured what workers take.
const PROBE: Plan = Plan { agents: AGENTS, rate: 20_000.0 };
const PROBE_TIME: Duration = Duration::from_secs(10);
/// Between the workers and PostgreSQL, so that they are the bottleneck and not this machine.
const SLOW: Duration = Duration::from_millis(5);
/// Of what is offered, the share that must be held back at least.
const HELD_BACK: f64 = 0.3;

/// Slow workers, and a queue that is soon full.
pub(super) fn settings() -> Vec<Setting> {
    [
        ("PLATZIVERSE_INGEST__WRITERS", "1"),
        ("PLATZIVERSE_INGEST__PREFETCH", "10"),
        ("PLATZIVERSE_INGEST__BATCH_ROWS", "500"),
        ("PLATZIVERSE_INGEST__QUEUE_LENGTH_MAX", "100"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    stage.postgres.set(Toxic::Latency(SLOW));
    crowd(stage, "probe", PROBE);
    // The queue fills first: what is stored then is what workers can take.
    stage.pass(PROBE_TIME).await;
    let before = stored(stage).await?;
    stage.pass(PROBE_TIME).await;
    let capacity = (stored(stage).await? - before) / PROBE_TIME.as_secs_f64();
    let times = if fault == Fault::OverloadThree { 3.0 } else { 10.0 };
    clients::disperse(stage).await?;
    let offered = times * capacity;
    eprintln!("         workers take {capacity:.0} messages a second; {offered:.0} are offered");
    // The agents that always report are part of what is offered.
    let rate = (offered - stage.setup.plan.rate).max(1.0);
    crowd(stage, "overload", Plan { agents: AGENTS, rate });
    stage.overload = Some((rate, attempted(stage)));
    Ok(())
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    let Some((rate, before)) = stage.overload.take() else { return Ok(()) };
    let sent = (attempted(stage) - before) as f64 / fault.hold().as_secs_f64();
    if sent > rate * (1.0 - HELD_BACK) {
        stage.note(format!("publishers were not slowed: {sent:.0} of {rate:.0} messages a second"));
    }
    stage.postgres.set(Toxic::None);
    clients::disperse(stage).await
}

fn crowd(stage: &mut Stage, name: &str, plan: Plan) {
    let gateways = stage.gateways.iter().map(Process::mqtt).collect();
    stage.crowd.fleet = Some(Fleet::start(name, gateways, plan));
}

fn attempted(stage: &Stage) -> u64 {
    let ledgers = stage.crowd.fleet.as_ref().map(Fleet::ledgers).unwrap_or_default();
    ledgers.iter().map(|ledger| ledger.account().attempted).sum()
}

async fn stored(stage: &Stage) -> Result<f64, String> {
    let mut stored = 0.0;
    for worker in &stage.workers {
        stored += worker.try_metrics().await?.try_get("platziverse_worker_records_stored_total")?;
    }
    Ok(stored)
}
