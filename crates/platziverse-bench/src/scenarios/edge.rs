//! QoS 1 publishes that are acknowledged.
//!
//! Nothing consumes: what is measured is the edge, RabbitMQ's quorum queue, and the way between.

use platziverse_load::Pace;

use crate::figure::{Goal, Played, Sample, Subject, Unit};
use crate::site::{Site, settle};

const ALL: [Subject; 3] = [Subject::Platziverse, Subject::Plugin, Subject::Mosquitto];

pub(crate) async fn play(site: &Site) -> Played {
    let cases =
        [(1, Some(Goal::TimesPlugin(2.0))), (20, Some(Goal::TimesPlugin(3.0))), (100, None)];
    let mut played = Played::default();
    for (in_flight, goal) in cases {
        for subject in ALL {
            played.add(offer(site, subject, in_flight, goal).await);
        }
    }
    played
}

/// Nothing, for what is not installed.
async fn offer(
    site: &Site,
    subject: Subject,
    in_flight: u16,
    goal: Option<Goal>,
) -> Result<Vec<Sample>, String> {
    let Some(stand) = site.stand(subject, 1).await? else { return Ok(Vec::new()) };
    settle().await;
    let case = format!("{in_flight} in flight");
    let plan = site.plan(stand.servers(), Pace::Closed(in_flight), Site::usual_shape());
    let report = site.offer(&format!("edge, {case}, {subject:?}"), &plan).await?;
    let of = |what, unit, value| Sample::of(subject, &case, what, unit, value);
    let rate = Sample { goal, ..of("acknowledged", Unit::PerSecond, report.rate) };
    Ok(vec![rate, of("latency p99", Unit::Milliseconds, report.latency.p99)])
}
