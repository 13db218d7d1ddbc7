//! Reads what is kept: rows of PostgreSQL, dead letters of RabbitMQ.

use std::collections::BTreeMap;

use platziverse_testkit::{DeadLetter, Row, World};
use serde_json::Value;

use crate::presence::Rows;
use crate::reconcile::{Copies, Kept, MessageKey};

/// What was stored under each id: an agent, the number that it gave the message, and how many rows
/// there are of each metric.
const STORED: &str = "SELECT a.uuid, (max(m.value) FILTER (WHERE m.type = 'number'))::bigint, \
                      count(*) FILTER (WHERE m.type = 'number'), \
                      count(*) FILTER (WHERE m.type = 'load'), \
                      count(*) FILTER (WHERE m.type NOT IN ('number', 'load')) \
                      FROM metrics m JOIN agents a ON a.id = m.agent_id \
                      GROUP BY a.uuid, m.message_id";
/// Reasons that have nothing to do with the message.
const TAKEN_AWAY: [&str; 2] = ["unroutable", "delivery_limit"];
const ROWS: &str = "SELECT uuid, session, connected FROM agents";

/// Everything that is kept; dead letters for other reasons than `expected` are strange.
pub async fn read(world: &World, expected: &[&str]) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for row in world.database().try_sql(STORED).await? {
        let (agent, number, copies, others) =
            stored(&row).ok_or("a row of metrics could not be read")?;
        if others > 0 {
            kept.strange.push(format!("{others} rows of metrics that {agent} does not send"));
        }
        match number {
            // By its own number, not by the id that the platform tells repetitions by: the count
            // must not rest on what it is to prove.
            Some(number) => *kept.stored.entry((agent, number)).or_default() += copies,
            None if copies.load > 0 => {
                kept.strange.push(format!("a message of {agent} is stored without its number"));
            }
            None => {}
        }
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
    kept.strange.extend(strange.into_iter().map(words));
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

fn stored(row: &Row) -> Option<(String, Option<u64>, Copies, u64)> {
    let [Some(agent), number, Some(numbers), Some(loads), Some(others)] = row.as_slice() else {
        return None;
    };
    let number = match number {
        Some(number) => Some(number.parse().ok()?),
        None => None,
    };
    let copies = Copies { number: numbers.parse().ok()?, load: loads.parse().ok()? };
    Some((agent.clone(), number, copies, others.parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read() {
        let read =
            |cells: [Option<&str>; 5]| stored(&cells.map(|cell| cell.map(str::to_owned)).to_vec());
        let two = Copies { number: 1, load: 1 };
        let whole = read([Some("a"), Some("7"), Some("1"), Some("1"), Some("0")]);
        assert_eq!(whole, Some(("a".to_owned(), Some(7), two, 0)));
        let orphan = read([Some("a"), None, Some("0"), Some("1"), Some("2")]);
        assert_eq!(orphan, Some(("a".to_owned(), None, Copies { number: 0, load: 1 }, 2)));
        assert_eq!(read([Some("a"), Some("x"), Some("1"), Some("1"), Some("0")]), None);
    }

    #[test]
    fn a_record_names_its_message() {
        let line = r#"{"payload":{"agent":{"uuid":"a"},"metrics":[{"value":7}]}}"#;
        assert_eq!(message(line), Some(("a".to_owned(), 7)));
        assert_eq!(message("garbage"), None);
    }
}
