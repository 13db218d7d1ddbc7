//! Reads what is kept of tasks: rows of events and commands, dead letters.

use platziverse_testkit::{DeadLetter, Row, World};

use super::kind::number_of;
use super::reconcile::{CommandRow, EventRow, Kept, Letter};
use crate::kept::reason;

const EVENTS: &str = "SELECT id, payload->>'number' FROM events";
const COMMANDS: &str = "SELECT id, coalesce(payload->>'number', payload->'body'->>'number'), state, \
                        attempts, result->>'status', result->>'body' FROM commands";
/// Whether an event from some number on is stored.
const STORED_FROM: &str = "SELECT 1 FROM events WHERE (payload->>'number')::bigint >= ";

/// Everything that is kept, but for the service's calls.
pub(super) async fn read(world: &World) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for row in world.database().try_sql(EVENTS).await? {
        match event(&row) {
            Some(event) => kept.events.push(event),
            None => kept.strange.push(format!("a row of events that nobody sent: {row:?}")),
        }
    }
    for row in world.database().try_sql(COMMANDS).await? {
        match command(&row) {
            Some(command) => kept.commands.push(command),
            None => kept.strange.push(format!("a row of commands that nobody sent: {row:?}")),
        }
    }
    for dead in world.rabbitmq().try_dead_letters().await? {
        match letter(&dead) {
            Some(letter) => kept.letters.push(letter),
            None => {
                let (reason, body) = (reason(&dead), &dead.body);
                kept.strange.push(format!("a dead letter ({reason}) that nobody sent: {body}"));
            }
        }
    }
    Ok(kept)
}

/// Whether an event of this number or a later one is stored.
pub(super) async fn has_event_from(world: &World, number: u64) -> Result<bool, String> {
    let rows = world.database().try_sql(&format!("{STORED_FROM}{number} LIMIT 1")).await?;
    Ok(!rows.is_empty())
}

fn event(row: &Row) -> Option<EventRow> {
    let [Some(id), Some(number)] = row.as_slice() else { return None };
    Some(EventRow { id: id.clone(), number: number.parse().ok()? })
}

fn command(row: &Row) -> Option<CommandRow> {
    let [Some(id), Some(number), Some(state), Some(attempts), status, body] = row.as_slice() else {
        return None;
    };
    Some(CommandRow {
        id: id.clone(),
        number: number.parse().ok()?,
        state: state.clone(),
        attempts: attempts.parse().ok()?,
        result: status.clone().zip(body.clone()),
    })
}

fn letter(letter: &DeadLetter) -> Option<Letter> {
    Some(Letter { number: number_of(&letter.body)?, reason: reason(letter).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let row = |cells: &[Option<&str>]| -> Row {
            cells.iter().map(|cell| cell.map(str::to_owned)).collect()
        };
        let want = EventRow { id: "a".to_owned(), number: 7 };
        assert_eq!(event(&row(&[Some("a"), Some("7")])), Some(want));
        assert_eq!(event(&row(&[Some("a"), None])), None);
        let cells = [Some("a"), Some("7"), Some("succeeded"), Some("1"), Some("200"), Some("7")];
        let read = command(&row(&cells)).unwrap();
        assert_eq!((read.number, read.attempts, read.state.as_str()), (7, 1, "succeeded"));
        assert_eq!(read.result, Some(("200".to_owned(), "7".to_owned())));
        let open = [Some("a"), Some("7"), Some("queued"), Some("1"), None, None];
        assert_eq!(command(&row(&open)).unwrap().result, None);
    }
}
