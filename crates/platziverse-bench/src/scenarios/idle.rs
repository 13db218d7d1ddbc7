//! Connections that only stay.

use std::time::Duration;

use platziverse_load::Idle;
use platziverse_testkit::memory;

use crate::figure::{Goal, Played, Sample, Subject, Unit, thousands};
use crate::site::{Site, hide, settle, show};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;
/// Seconds.
const KEEP_ALIVE: u16 = 120;
/// What a server may still have to do once the last client is in.
const QUIET: Duration = Duration::from_secs(5);
/// RabbitMQ keeps part of its open files for its own, so that it takes fewer connections than there
/// may be files: in a comparison with it all have as many as it takes.
const PLUGIN_PART: f64 = 0.75;

pub(crate) async fn play(site: &Site) -> Played {
    let most = site.args.idle;
    let fewer = most.min((site.files as f64 * PLUGIN_PART) as usize);
    let mut played = Played::default();
    for subject in [Subject::Platziverse, Subject::Plugin, Subject::Mosquitto] {
        played.add(hold(site, subject, fewer).await);
    }
    if fewer < most {
        played.add(hold(site, Subject::Platziverse, most).await);
    }
    played
}

/// Nothing, for what is not installed.
async fn hold(site: &Site, subject: Subject, count: usize) -> Result<Vec<Sample>, String> {
    let Some(stand) = site.stand(subject, 1).await? else { return Ok(Vec::new()) };
    settle().await;
    let process = stand.process(site)?;
    let before = memory(process)?;
    let (name, what) = (site.name(), format!("idle, {subject:?}"));
    let tell = |open| show(&format!("{what}: {open} connections"));
    let idle = Idle::connect(&stand.servers(), &name, count, AT_ONCE, KEEP_ALIVE, tell).await;
    hide();
    let mut idle = idle.map_err(|error| format!("{what}: {error}"))?;
    tokio::time::sleep(QUIET).await;
    let each = memory(process)?.saturating_sub(before) as f64 / count as f64;
    let alive = idle.ping().await;
    if alive != count || idle.open() != count {
        return Err(format!("{what}: {} of {count} connections live", alive.min(idle.open())));
    }
    let case = format!("{} connections", thousands(count as f64));
    let of = |what, unit, value| Sample::of(subject, &case, what, unit, value);
    let pace = count as f64 / idle.took().as_secs_f64();
    Ok(vec![
        of("memory of each", Unit::Kilobytes, each / 1_000.0).with_goal(Goal::AtMost(10.0)),
        of("connected", Unit::PerSecond, pace).with_goal(Goal::AtLeast(1_000.0)),
        of("to CONNACK p99", Unit::Milliseconds, idle.latency().p99),
    ])
}
