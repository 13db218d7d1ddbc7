//! Reads what is kept: rows of PostgreSQL, dead letters of RabbitMQ.

use std::collections::BTreeMap;

use platziverse_testkit::{DeadLetter, Row, World};
use serde_json::Value;

use crate::presence::Rows;
use crate::reconcile::{Kept, MessageKey};

/// Every message by its own number, not by the id that the platform tells repetitions by: the count
/// must not rest on what it is to prove.
const STORED: &str = "SELECT a.uuid, m.value::bigint, count(*) FROM metrics m \
                      JOIN agents a ON a.id = m.agent_id WHERE m.type = 'number' GROUP BY 1, 2";
/// Reasons that have nothing to do with the message.
const TAKEN_AWAY: [&str; 2] = ["unroutable", "delivery_limit"];
const ROWS: &str = "SELECT uuid, session, connected FROM agents";

/// Everything that is kept; dead letters for other reasons than `expected` are strange.
pub async fn read(world: &World, expected: &[&str]) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for row in world.database().try_sql(STORED).await? {
        let (key, times) = stored(&row).ok_or("a row of metrics could not be read")?;
        kept.stored.insert(key, times);
    }
    let mut strange = BTreeMap::<String, usize>::new();
    for letter in world.rabbitmq().try_dead_letters().await? {
        kept.dead.extend(letter.lines().filter_map(message));
        if !expected.contains(&reason(&letter)) {
            *strange.entry(format!("{} ({})", reason(&letter), letter.error)).or_default() += 1;
        }
    }
    kept.good_may_die = expected.iter().any(|reason| TAKEN_AWAY.contains(reason));
    let words = |(reason, count): (String, usize)| format!("{count} dead letters: {reason}");
    kept.strange = strange.into_iter().map(words).collect();
    Ok(kept)
}

/// The agents' rows.
pub async fn rows(world: &World) -> Result<Rows, String> {
    let rows = world.database().try_sql(ROWS).await?;
    Ok(rows.iter().filter_map(agent).collect())
}

/// Why it is a dead letter: our word, or RabbitMQ's word, or that it reached no queue.
pub fn reason(letter: &DeadLetter) -> &str {
    let rabbitmq = letter.headers["x-first-death-reason"].as_str();
    match letter.reason.as_str() {
        "" => rabbitmq.unwrap_or("unroutable"),
        ours => ours,
    }
}

fn stored(row: &Row) -> Option<(MessageKey, u64)> {
    let [Some(agent), Some(number), Some(times)] = row.as_slice() else { return None };
    Some(((agent.clone(), number.parse().ok()?), times.parse().ok()?))
}

fn agent(row: &Row) -> Option<(String, (String, bool))> {
    let [Some(agent), Some(session), Some(connected)] = row.as_slice() else { return None };
    Some((agent.clone(), (session.clone(), connected == "t")))
}

/// The message of a record's line.
fn message(line: &str) -> Option<MessageKey> {
    let record: Value = serde_json::from_str(line).ok()?;
    let payload = &record["payload"];
    let number = &payload["metrics"][0]["value"];
    Some((payload["agent"]["uuid"].as_str()?.to_owned(), number.as_u64()?))
}
