//! A worker that empties a backlog.

use std::time::{Duration, Instant};

use platziverse_load::Pace;
use tokio::time::sleep;

use crate::backlog;
use crate::commits::rows_a_second;
use crate::figure::{Goal, Sample, Unit};
use crate::ours::Ours;
use crate::site::{Site, settle};

/// How long a backlog may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// New messages a second, while the backlog is emptied.
const ARRIVING: f64 = 20_000.0;
const METRICS: u64 = 2;

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let alone = alone(site).await?;
    Ok(vec![
        Sample::ours("worker alone", "committed rows", Unit::PerSecond, alone)
            .with_goal(Goal::AtLeast(150_000.0)),
        under_load(site).await?,
    ])
}

async fn alone(site: &Site) -> Result<f64, String> {
    let mut ours = Ours::start(site, 1, 0, &[]).await?;
    let messages = backlog::make(site, &ours, site.args.backlog).await?;
    // Without clients the gateway has nothing to do.
    settle().await;
    ours.add_worker(&[]).await?;
    ours.stored(messages, PATIENCE).await?;
    ours.holds(messages * METRICS).await?;
    rows_a_second(&ours.world).await
}

/// Messages that are committed a second, while fewer than these arrive.
async fn under_load(site: &Site) -> Result<Sample, String> {
    let mut ours = Ours::start(site, 1, 0, &[]).await?;
    let backlog = backlog::make(site, &ours, site.args.backlog).await?;
    settle().await;
    ours.add_worker(&[]).await?;
    let plan = site.plan(ours.servers(), Pace::Open(ARRIVING), Site::usual_shape());
    let pace = async {
        sleep(plan.warm_up).await;
        let (before, begun) = (ours.stored_so_far().await?, Instant::now());
        sleep(plan.time).await;
        let stored = ours.stored_so_far().await? - before;
        Ok::<_, String>(stored / begun.elapsed().as_secs_f64())
    };
    let (report, pace) = tokio::join!(site.offer("drain, while new load arrives", &plan), pace);
    let (report, pace) = (report?, pace?);
    ours.stored(backlog + report.sent, PATIENCE).await?;
    ours.holds((backlog + report.sent) * METRICS).await?;
    let sample = Sample::ours("while 20,000/s arrive", "committed", Unit::PerSecond, pace);
    Ok(sample.with_goal(Goal::AtLeast(ARRIVING)))
}
