//! A worker's pace with very full tables.

use std::time::Instant;

use crate::backlog;
use crate::figure::{Goal, Sample, Unit, thousands};
use crate::filled;
use crate::ours::Ours;
use crate::scenarios::drain::PATIENCE;
use crate::site::{Site, settle};

const ROWS_OF_EACH: u64 = 2;

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let empty = run(site, 0).await?;
    let full = run(site, site.args.filled).await?;
    let case = format!("1,000,000 agents, {} metrics", thousands(site.args.filled as f64));
    let of = |case: &str, value| Sample::ours(case, "committed rows", Unit::PerSecond, value);
    Ok(vec![
        of("empty tables", empty),
        of(&case, full),
        Sample::ours("full to empty tables", "ratio", Unit::Times, full / empty)
            .with_goal(Goal::AtLeast(0.8)),
    ])
}

async fn run(site: &Site, filled: u64) -> Result<f64, String> {
    let mut ours = Ours::start(site, 1, 0, &[]).await?;
    if filled > 0 {
        filled::fill(&ours.world, filled).await?;
    }
    let messages = backlog::make(site, &ours, site.args.backlog).await?;
    settle().await;
    ours.add_worker(&[]).await?;
    let begun = Instant::now();
    ours.stored(messages, PATIENCE).await?;
    Ok((messages * ROWS_OF_EACH) as f64 / begun.elapsed().as_secs_f64())
}
