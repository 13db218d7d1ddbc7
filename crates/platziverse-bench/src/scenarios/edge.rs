//! QoS 1 publishes that are acknowledged.
//!
//! Nothing consumes: what is measured is the edge, RabbitMQ's quorum queue, and the way between.

use platziverse_load::Pace;

use crate::figure::{Goal, Sample, Subject, Unit};
use crate::site::{Site, settle};

const ALL: [Subject; 3] = [Subject::Platziverse, Subject::Plugin, Subject::Mosquitto];

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let cases =
        [(1, Some(Goal::TimesPlugin(2.0))), (20, Some(Goal::TimesPlugin(3.0))), (100, None)];
    let mut samples = Vec::new();
    for (in_flight, goal) in cases {
        for subject in ALL {
            let Some(stand) = site.stand(subject, 1).await? else { continue };
            settle().await;
            let case = format!("{in_flight} in flight");
            let pace = Pace::Closed(in_flight);
            let plan = site.plan(stand.servers(), pace, Site::usual_shape());
            let report = site.offer(&format!("edge, {case}, {subject:?}"), &plan).await?;
            let of = |what, unit, value| Sample::of(subject, &case, what, unit, value);
            let rate = of("acknowledged", Unit::PerSecond, report.rate);
            samples.push(goal.map_or(rate.clone(), |goal| rate.with_goal(goal)));
            samples.push(of("latency p99", Unit::Milliseconds, report.latency.p99));
        }
    }
    Ok(samples)
}
