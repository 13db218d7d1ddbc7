//! One and two workers, where they are the limit: the way to PostgreSQL is slow.

use std::time::Duration;

use platziverse_testkit::{Proxy, Toxic};

use crate::backlog;
use crate::commits::rows_a_second;
use crate::figure::{Goal, Sample, Unit};
use crate::ours::{Ours, Setting};
use crate::scenarios::drain::PATIENCE;
use crate::site::{Site, settle};

/// In each direction, between a worker and PostgreSQL.
const LATENCY: Duration = Duration::from_millis(20);
/// The part of the usual backlog that this takes.
const PART: u64 = 4;
const METRICS: u64 = 2;

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let one = run(site, 1).await?;
    let two = run(site, 2).await?;
    let of = |case, value| Sample::ours(case, "committed rows", Unit::PerSecond, value);
    Ok(vec![
        of("one worker, 20 ms from PostgreSQL", one),
        of("two workers, 20 ms from PostgreSQL", two),
        Sample::ours("two workers to one", "ratio", Unit::Times, two / one)
            .with_goal(Goal::AtLeast(1.3)),
    ])
}

async fn run(site: &Site, workers: usize) -> Result<f64, String> {
    let mut ours = Ours::start(site, 1, 0, &[]).await?;
    let messages = backlog::make(site, &ours, site.args.backlog.div_ceil(PART)).await?;
    settle().await;
    let proxy = Proxy::start(ours.world.database().address()).await;
    proxy.set(Toxic::Latency(LATENCY));
    let url = ours.world.database().url_at(proxy.address());
    let settings: [Setting<'_>; 1] = [("PLATZIVERSE_DATABASE__URL", &url)];
    for _ in 0..workers {
        ours.add_worker(&settings).await?;
    }
    ours.stored(messages, PATIENCE).await?;
    ours.holds(messages * METRICS).await?;
    rows_a_second(&ours.world).await
}
