//! What a message costs, by how many agents there are and how much it brings.
//!
//! All processes that it passes through count: gateway, RabbitMQ, worker, PostgreSQL.

use std::time::Duration;

use platziverse_load::{Pace, Shape};
use tokio::time::sleep;

use crate::figure::{Goal, Sample, Unit};
use crate::ours::Ours;
use crate::site::{Site, settle};
use crate::usage;

/// Messages a second.
const RATE: f64 = 10_000.0;
const FEW: usize = 100;
const MANY: usize = 20_000;
/// How long the last messages may take to be stored.
const REST: Duration = Duration::from_secs(120);

pub(crate) async fn play(site: &Site) -> Result<Vec<Sample>, String> {
    let few = cost(site, FEW, 2).await?;
    let many = cost(site, MANY, 2).await?;
    let one = cost(site, FEW, 1).await?;
    let ten = cost(site, FEW, 10).await?;
    let of =
        |case, value| Sample::ours(case, "processor time of a message", Unit::Microseconds, value);
    let times = |case, value, most| {
        Sample::ours(case, "ratio", Unit::Times, value).with_goal(Goal::AtMost(most))
    };
    Ok(vec![
        of("100 agents", few),
        of("20,000 agents", many),
        times("20,000 to 100 agents", many / few, 1.15),
        of("1 metric", one),
        of("10 metrics", ten),
        times("10 metrics to 1", ten / one, 2.0),
    ])
}

/// Microseconds for each message at a steady rate, once every agent is known.
async fn cost(site: &Site, agents: usize, metrics: usize) -> Result<f64, String> {
    let ours = Ours::start(site, 1, 1, &[]).await?;
    settle().await;
    let of_each = agents.div_ceil(site.args.clients);
    let shape = Shape::Numbered { agents: of_each, metrics };
    let mut plan = site.plan(ours.servers(), Pace::Open(RATE), shape);
    plan.warm_up += Duration::from_secs_f64(agents as f64 / RATE);
    let mut processes =
        vec![site.process("rabbitmq/vm.pid")?, site.process("postgres/postmaster.pid")?];
    processes.extend(ours.gateways.iter().chain(&ours.workers).map(|process| process.pid()));
    let measured = async {
        sleep(plan.warm_up).await;
        let before = usage::processor_time(&processes);
        sleep(plan.time).await;
        usage::processor_time(&processes).saturating_sub(before)
    };
    let what = format!("cost, {agents} agents, {metrics} metrics");
    let (report, used) = tokio::join!(site.offer(&what, &plan), measured);
    let report = report?;
    ours.stored(report.sent, REST).await?;
    ours.holds(report.sent * metrics as u64).await?;
    Ok(used.as_secs_f64() * 1e6 / (RATE * plan.time.as_secs_f64()))
}
