//! More than the workers can take.

use std::time::Duration;

use platziverse_testkit::Toxic;
use tokio::time::Instant;

use super::{Fault, clients};
use crate::fleet::{Fleet, Order, Plan, WINDOW};
use crate::stage::{Setting, Stage};

/// The agents that overload.
const AGENTS: usize = 200;
/// What they offer while it is measured what workers take.
const PROBE: Plan = Plan { agents: AGENTS, rate: 20_000.0 };
const PROBE_TIME: Duration = Duration::from_secs(10);
/// How long a backlog may take at the workers' own pace: the queue and every agent's window are full.
const DRAIN: Duration = Duration::from_secs(300);
/// Between the workers and PostgreSQL, so that they are the bottleneck and not this machine.
const SLOW: Duration = Duration::from_millis(5);
/// Of what is offered, the share that must be held back at least.
const HELD_BACK: f64 = 0.3;
/// Of all windows, the share that must be full while senders are slowed.
const FULL: f64 = 0.8;
/// How much more memory a service may use at the end than when everything had filled up.
const GROWTH_MAX: u64 = 24 << 20;

/// What was measured when it began.
#[derive(Debug)]
pub struct Overload {
    since: Instant,
    /// Messages a second that the crowd offers.
    rate: f64,
    /// Of each service, once everything had filled up.
    memory: Vec<Option<u64>>,
    /// AMQP messages that RabbitMQ had refused before.
    refused: f64,
}

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
    let capacity = measure(stage).await?;
    let (times, fill) = match fault {
        Fault::OverloadThree => (3.0, Duration::from_secs(60)),
        _ => (10.0, Duration::from_secs(20)),
    };
    let offered = times * capacity;
    eprintln!("         workers take {capacity:.0} messages a second; {offered:.0} are offered");
    let (refused, since) = (refused(stage).await?, Instant::now());
    // The agents that always report are part of what is offered.
    let rate = (offered - stage.setup.plan.rate).max(1.0);
    crowd(stage, "overload", Plan { agents: AGENTS, rate });
    stage.pass(fill).await;
    stage.overload = Some(Overload { since, rate, memory: memory(stage), refused });
    Ok(())
}

/// What workers can take, in messages a second.
async fn measure(stage: &mut Stage) -> Result<f64, String> {
    crowd(stage, "probe", PROBE);
    // The queue fills first: what is stored then is what workers can take.
    stage.pass(PROBE_TIME).await;
    let before = stored(stage).await?;
    stage.pass(PROBE_TIME).await;
    let capacity = (stored(stage).await? - before) / PROBE_TIME.as_secs_f64();
    clients::disperse(stage, DRAIN).await?;
    Ok(capacity)
}

pub(super) async fn end(_: Fault, stage: &mut Stage) -> Result<(), String> {
    let Some(overload) = stage.overload.take() else { return Ok(()) };
    let sent = attempted(stage) as f64 / overload.since.elapsed().as_secs_f64();
    if sent > overload.rate * (1.0 - HELD_BACK) {
        let offered = overload.rate;
        stage.note(format!("publishers were not slowed: {sent:.0} of {offered:.0} a second"));
    }
    let waiting = stage.crowd.unsettled();
    let times_refused = refused(stage).await? - overload.refused;
    if (waiting as f64) < FULL * (AGENTS * WINDOW) as f64 && times_refused <= 0.0 {
        stage.note(format!("nothing held back: {waiting} messages wait, and none was refused"));
    }
    let grown = grown(&overload.memory, &memory(stage));
    for (service, bytes) in stage.gateways.iter().chain(&stage.workers).zip(grown) {
        let megabytes = bytes >> 20;
        if bytes > GROWTH_MAX {
            let words = format!("{} uses {megabytes} MB more than at first", service.name());
            stage.unexpected.push(words);
        }
    }
    // The backlog drains by itself, with workers as slow as before.
    stage.fleet.order(Order::Settle);
    stage.crowd.order(Order::Settle);
    let drained = stage.settle(DRAIN).await;
    stage.postgres.set(Toxic::None);
    stage.fleet.order(Order::Report);
    drained?;
    clients::disperse(stage, clients::ANSWERS).await
}

fn memory(stage: &mut Stage) -> Vec<Option<u64>> {
    let services = stage.gateways.iter_mut().chain(&mut stage.workers);
    services.map(|service| service.memory()).collect()
}

/// How much more each uses; nothing if it cannot be said.
fn grown(before: &[Option<u64>], after: &[Option<u64>]) -> Vec<u64> {
    let more = |(before, after): (&Option<u64>, &Option<u64>)| match (before, after) {
        (Some(before), Some(after)) => after.saturating_sub(*before),
        _ => 0,
    };
    before.iter().zip(after).map(more).collect()
}

fn crowd(stage: &mut Stage, name: &str, plan: Plan) {
    let gateways = stage.gateways.iter().map(|gateway| gateway.mqtt()).collect();
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

async fn refused(stage: &Stage) -> Result<f64, String> {
    let mut refused = 0.0;
    for gateway in &stage.gateways {
        refused += gateway.try_metrics().await?.sum("platziverse_broker_refused_messages_total");
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_of_each_service() {
        let grown = grown(&[Some(5), Some(9), None], &[Some(7), Some(3), Some(1)]);
        assert_eq!(grown, [2, 0, 0]);
    }
}
