//! Published, confirmed, consumed and committed, all in the same run.

use std::time::Duration;

use platziverse_load::Pace;

use crate::commits::Commits;
use crate::figure::{Goal, Sample, Unit};
use crate::ours::Ours;
use crate::site::{Site, settle};

/// The goals: messages and rows that are committed, a second.
const MESSAGES: f64 = 40_000.0;
const ROWS: f64 = 80_000.0;
const METRICS: u64 = 2;
/// How long the last messages may take to be stored.
const REST: Duration = Duration::from_secs(120);

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let mut samples = full(site).await?;
    let half = Goal::AtMost(250.0);
    samples.extend(at(site, "half of the goal", MESSAGES / 2.0, half).await?);
    samples.extend(at(site, "1,000 a second", 1_000.0, Goal::AtMost(30.0)).await?);
    Ok(samples)
}

/// As much as goes through.
async fn full(site: &Site) -> Result<Vec<Sample>, String> {
    let case = "20 in flight";
    let (answered, commits) = run(site, case, Pace::Closed(20)).await?;
    let committed = |what, value| Sample::ours(case, what, Unit::PerSecond, value);
    Ok(vec![
        Sample::ours(case, "acknowledged", Unit::PerSecond, answered),
        committed("committed", commits.rate).with_goal(Goal::AtLeast(MESSAGES)),
        committed("committed rows", commits.rate * METRICS as f64).with_goal(Goal::AtLeast(ROWS)),
        Sample::ours(case, "to commit p99", Unit::Milliseconds, commits.p99),
    ])
}

/// How long it takes at a rate.
async fn at(site: &Site, case: &str, rate: f64, goal: Goal) -> Result<Vec<Sample>, String> {
    let (_, commits) = run(site, case, Pace::Open(rate)).await?;
    let latency = |what, value| Sample::ours(case, what, Unit::Milliseconds, value);
    Ok(vec![
        latency("to commit p50", commits.p50),
        latency("to commit p99", commits.p99).with_goal(goal),
    ])
}

/// Answers how many messages were acknowledged a second, and what was committed.
async fn run(site: &Site, case: &str, pace: Pace) -> Result<(f64, Commits), String> {
    let ours = Ours::start(site, 1, 1, &[]).await?;
    settle().await;
    let plan = site.plan(ours.servers(), pace, Site::usual_shape());
    let report = site.offer(&format!("end to end, {case}"), &plan).await?;
    ours.stored(report.sent, REST).await?;
    ours.holds(report.sent * METRICS).await?;
    Ok((report.rate, Commits::of(&plan, &ours.world).await?))
}
