//! One message to many subscribers.

use platziverse_load::{FanOut, FanOutReport, Pace, Progress, Server, fan_out};

use crate::figure::{Played, Sample, Subject, Unit};
use crate::site::{Site, hide, settle, show};

const ALL: [Subject; 3] = [Subject::Platziverse, Subject::Plugin, Subject::Mosquitto];
const SUBSCRIBERS: usize = 1_000;
/// Ours is two; the others are one broker.
const GATEWAYS: usize = 2;
/// Messages that not everybody has heard yet.
const IN_FLIGHT: u16 = 10;
/// Messages a second for the latency: 10,000 deliveries.
const RATE: f64 = 10.0;
const CASE: &str = "1,000 subscribers";

pub(crate) async fn play(site: &Site) -> Played {
    let mut played = Played::default();
    for subject in ALL {
        played.add(hear(site, subject).await);
    }
    played
}

/// Nothing, for what is not installed.
async fn hear(site: &Site, subject: Subject) -> Result<Vec<Sample>, String> {
    let Some(stand) = site.stand(subject, GATEWAYS).await? else { return Ok(Vec::new()) };
    settle().await;
    let what = format!("fan-out, {subject:?}");
    let most = run(site, &what, stand.servers(), Pace::Closed(IN_FLIGHT)).await?;
    let slow = run(site, &what, stand.servers(), Pace::Open(RATE)).await?;
    let of = |what, unit, value| Sample::of(subject, CASE, what, unit, value);
    Ok(vec![
        of("delivered", Unit::PerSecond, most.rate),
        of("p99 at 10 messages/s", Unit::Milliseconds, slow.latency.p99),
    ])
}

async fn run(
    site: &Site,
    what: &str,
    servers: Vec<Server>,
    pace: Pace,
) -> Result<FanOutReport, String> {
    let publisher = servers.first().cloned().ok_or("there is no server")?;
    let plan = FanOut {
        publisher,
        subscribers: servers,
        count: SUBSCRIBERS,
        name: site.name(),
        qos: 0,
        pace,
        warm_up: site.args.warm_up.into(),
        time: site.args.time.into(),
        shape: Site::usual_shape(),
    };
    let tell = |progress: Progress| show(&format!("{what}: {:.0} a second", progress.rate));
    let report = fan_out(&plan, tell).await;
    hide();
    let report = report.map_err(|error| format!("{what}: {error}"))?;
    let FanOutReport { missing, doubled, closed, .. } = report;
    match (missing, doubled, closed) {
        (0, 0, 0) => Ok(report),
        _ => Err(format!("{what}: {missing} missing, {doubled} doubled, {closed} broke off")),
    }
}
