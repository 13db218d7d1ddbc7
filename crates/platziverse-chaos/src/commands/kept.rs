//! Reads what is kept of commands to agents: their rows.

use platziverse_testkit::{Row, World};

use super::reconcile::{CommandRow, Kept};

const ROWS: &str = "SELECT id, payload->'payload'->>'number', target, state, \
                    result->>'number', result->>'agent', error, \
                    floor(extract(epoch FROM delivered_at) * 1000)::bigint, \
                    ended_at < expires_at FROM commands";

/// Everything that is kept, but for what agents know.
pub(super) async fn read(world: &World) -> Result<Kept, String> {
    let mut kept = Kept::default();
    for row in world.database().try_sql(ROWS).await? {
        match command(&row) {
            Some(command) => kept.commands.push(command),
            None => kept.strange.push(format!("a row of commands that nobody sent: {row:?}")),
        }
    }
    Ok(kept)
}

fn command(row: &Row) -> Option<CommandRow> {
    let [Some(id), Some(number), Some(target), Some(state), done, by, error, delivered, in_time] =
        row.as_slice()
    else {
        return None;
    };
    let done = match done {
        Some(number) => Some((number.parse().ok()?, by.clone()?)),
        None => None,
    };
    let delivered = match delivered {
        Some(millis) => Some(millis.parse().ok()?),
        None => None,
    };
    Some(CommandRow {
        id: id.clone(),
        number: number.parse().ok()?,
        target: target.clone(),
        state: state.clone(),
        done,
        error: error.clone(),
        delivered,
        in_time: in_time.as_deref() == Some("t"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let read = |cells: [Option<&str>; 9]| {
            let row: Row = cells.iter().map(|cell| cell.map(str::to_owned)).collect();
            command(&row)
        };
        let common = [Some("x"), Some("7"), Some("a"), Some("succeeded")];
        let [id, number, target, state] = common;
        let done = [id, number, target, state, Some("7"), Some("a"), None, Some("5"), Some("t")];
        let row = read(done).unwrap();
        assert_eq!((row.number, row.delivered, row.in_time), (7, Some(5), true));
        assert_eq!(row.done, Some((7, "a".to_owned())));
        let open = read([id, number, target, Some("sent"), None, None, None, None, None]).unwrap();
        assert_eq!((open.done, open.delivered, open.in_time), (None, None, false));
        assert!(read([id, None, target, state, None, None, None, None, None]).is_none());
    }
}
