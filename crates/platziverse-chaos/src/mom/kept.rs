//! Reads the catalogue, and what RabbitMQ has of it.

use std::collections::BTreeSet;

use platziverse_testkit::{Row, Servers, World};

use super::churn;
use super::kind::LASTING;
use super::reconcile::{Kept, Thing};
use crate::kept::reason;

const OBJECTS: &str = "SELECT kind, name, stage FROM mom_objects";
const SUBSCRIPTIONS: &str = "SELECT kind, name, stage, user_id FROM mom_subscriptions";
/// What is neither there nor gone.
const UNFINISHED: &str = "SELECT count(*) FROM (SELECT name, stage FROM mom_objects \
                          UNION ALL SELECT name, stage FROM mom_subscriptions) AS rows \
                          WHERE stage <> 'ready' AND name LIKE ";
/// The exchange that every queue is bound to.
const MOM: &str = "platziverse.mom";
/// The start of what RabbitMQ has of the catalogue.
const OWN: &str = "mom.";

/// Everything that is kept.
pub(super) async fn read(world: &World, servers: &Servers) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for row in world.database().try_sql(OBJECTS).await? {
        object(&row, &mut kept).ok_or("a row of mom_objects could not be read")?;
    }
    for row in world.database().try_sql(SUBSCRIPTIONS).await? {
        subscription(&row, &mut kept).ok_or("a row of mom_subscriptions could not be read")?;
    }
    for (what, thing) in
        [("list_queues", Thing::queue as fn(&str) -> Thing), ("list_exchanges", Thing::exchange)]
    {
        let names = listed(world, servers, &[what, "name"]).await?;
        let own = names.lines().map(str::trim).filter(|name| name.starts_with(OWN));
        kept.there.extend(own.map(thing));
    }
    let columns = ["list_bindings", "source_name", "destination_name"];
    for line in listed(world, servers, &columns).await?.lines() {
        let Some((source, queue)) = line.trim_end().split_once('\t') else { continue };
        if queue.starts_with(OWN) && !source.is_empty() {
            kept.there.insert(Thing::binding(source, queue));
        }
    }
    for letter in world.rabbitmq().try_dead_letters().await? {
        if letter.body.contains(LASTING) {
            kept.dead.push(format!("{} ({})", letter.body, reason(&letter)));
        }
    }
    Ok(kept)
}

/// How many changes are half-done, of what begins with this.
pub async fn unfinished(world: &World, prefix: &str) -> Result<u64, String> {
    let rows = world.database().try_sql(&format!("{UNFINISHED}'{prefix}%'")).await?;
    let count = rows.into_iter().flatten().flatten().next();
    count.and_then(|count| count.parse().ok()).ok_or_else(|| "no count".to_owned())
}

/// Asks the node itself: what the management API says is seconds old.
async fn listed(world: &World, servers: &Servers, what: &[&str]) -> Result<String, String> {
    let [command, columns @ ..] = what else { return Ok(String::new()) };
    let mut question = vec!["-q", command, "-p", world.vhost(), "--no-table-headers"];
    question.extend(columns);
    servers.ctl(&question).await
}

fn object(row: &Row, kept: &mut Kept) -> Option<()> {
    let [Some(kind), Some(name), Some(stage)] = row.as_slice() else { return None };
    if stage != "ready" {
        kept.unfinished.push(format!("{kind} {name} is {stage}"));
    } else if kind == "topic" {
        kept.wanted.insert(Thing::exchange(&format!("mom.topic.{name}")));
    } else {
        let queue = format!("mom.queue.{name}");
        kept.wanted.extend([Thing::queue(&queue), Thing::binding(MOM, &queue)]);
    }
    if !name.starts_with(LASTING) && !churn::is_churn(name) {
        kept.strange.push(format!("{kind} {name}"));
    }
    Some(())
}

fn subscription(row: &Row, kept: &mut Kept) -> Option<()> {
    let [Some(kind), Some(name), Some(stage), Some(user)] = row.as_slice() else { return None };
    if stage != "ready" {
        kept.unfinished.push(format!("a subscription to {kind} {name} is {stage}"));
    } else if kind == "topic" {
        let (topic, queue) = (format!("mom.topic.{name}"), format!("mom.topic.{name}.{user}"));
        let bindings = [Thing::binding(MOM, &queue), Thing::binding(&topic, &queue)];
        kept.wanted.extend(bindings.into_iter().chain([Thing::queue(&queue)]));
    }
    Some(())
}

/// What is in one of the two, and not in the other.
pub(super) fn without<'a>(
    these: &'a BTreeSet<Thing>,
    those: &'a BTreeSet<Thing>,
) -> impl Iterator<Item = String> + 'a {
    these.difference(those).map(ToString::to_string)
}
