//! Connections that only stay.

use std::time::Duration;

use platziverse_load::Idle;
use platziverse_testkit::memory;

use crate::figure::{Goal, Sample, Subject, Unit};
use crate::site::{Site, hide, settle, show};

const ALL: [Subject; 3] = [Subject::Platziverse, Subject::Plugin, Subject::Mosquitto];
/// Connections that are made at the same time.
const AT_ONCE: usize = 100;
/// Seconds.
const KEEP_ALIVE: u16 = 120;
/// What a server may still have to do once the last client is in.
const QUIET: Duration = Duration::from_secs(5);

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    for subject in ALL {
        let Some(stand) = site.stand(subject, 1).await? else { continue };
        settle().await;
        let (process, count) = (stand.process(site)?, site.args.idle);
        let before = memory(process)?;
        let name = site.name();
        let what = format!("idle, {subject:?}");
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
        let case = format!("{count} connections");
        let of = |what, unit, value| Sample::of(subject, &case, what, unit, value);
        let pace = count as f64 / idle.took().as_secs_f64();
        samples.push(
            of("memory of each", Unit::Kilobytes, each / 1_000.0).with_goal(Goal::AtMost(10.0)),
        );
        samples.push(of("connected", Unit::PerSecond, pace).with_goal(Goal::AtLeast(1_000.0)));
        samples.push(of("to CONNACK p99", Unit::Milliseconds, idle.latency().p99));
    }
    Ok(samples)
}
