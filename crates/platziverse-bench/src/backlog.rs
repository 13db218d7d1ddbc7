//! Messages that wait for workers.

use std::time::Duration;

use platziverse_load::{Pace, Shape};

use crate::ours::Ours;
use crate::site::Site;

/// How many publishes of each client are in flight while a backlog is made.
const IN_FLIGHT: u16 = 100;
/// How long it is published until the backlog is looked at.
const SLICE: Duration = Duration::from_secs(2);

/// Publishes until at least so many messages are acknowledged; answers how many are.
pub(crate) async fn make(site: &Site, ours: &Ours, messages: u64) -> Result<u64, String> {
    let shape = Shape::Numbered { agents: 20, metrics: 2 };
    let mut plan = site.plan(ours.servers(), Pace::Closed(IN_FLIGHT), shape);
    (plan.warm_up, plan.time) = (Duration::ZERO, SLICE);
    let mut sent = 0;
    while sent < messages {
        sent += site.offer(&format!("backlog, {sent} of {messages}"), &plan).await?.sent;
    }
    Ok(sent)
}
