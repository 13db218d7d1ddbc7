//! Writers whose process is frozen while it sends a statement.
//!
//! Between two statements of a transaction a session is idle, and PostgreSQL ends it after 5 s. It
//! is not idle while the rows of a COPY arrive, nor between the parameters of any other statement
//! and the few bytes after them that have it run. None of the server's timeouts ends it there:
//! whoever wants the same agents or messages would wait for as long as the process is frozen.

use tokio_postgres::Row;

use crate::connection::Link;
use crate::error::StoreError;

/// A session that was ended because the rest of its statement did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// The server's process.
    pub pid: i32,
    /// Whose session it was.
    pub application_name: String,
}

/// What the statements look like that write agents, metrics, events and commands. A role's sessions
/// may have others that wait for their client for long, as those of a person who types.
const WRITING: [&str; 8] = [
    "COPY metrics (%",
    "INSERT INTO agents AS a%",
    "INSERT INTO message_times (%",
    "WITH inserted AS (%INSERT INTO metrics%",
    "INSERT INTO events (%",
    "INSERT INTO commands AS c%",
    "UPDATE commands AS c%",
    "WITH due AS (%UPDATE commands%",
];

/// `track_activities` must be on, as it is unless somebody turned it off.
const END: &str = "\
SELECT pid, application_name, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user
  AND state = 'active' AND wait_event_type = 'Client' AND wait_event = 'ClientRead'
  AND query LIKE ANY ($1::text[]) AND query_start < now() - make_interval(secs => $2)";

/// Ends the sessions of writers that have been waiting for the rest of a statement for longer than
/// a writer waits for the whole of it.
pub(crate) async fn end(link: &Link) -> Result<Vec<Frozen>, StoreError> {
    let patterns = WRITING.as_slice();
    let asked = async { link.client.query(END, &[&patterns, &link.deadline.as_secs_f64()]).await };
    let rows = link.within("looking for frozen writers", asked).await?;
    let frozen = |row: &Row| Frozen { pid: row.get(0), application_name: row.get(1) };
    Ok(rows.iter().filter(|row| row.get(2)).map(frozen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agents, commands, events, metrics, times};

    #[test]
    fn each_statement_of_a_writer_is_known() {
        let statements = [
            metrics::COPY,
            agents::UPSERT,
            times::KEEP,
            metrics::INSERT,
            events::INSERT,
            commands::BEGIN,
            commands::ADVANCE,
            commands::EXPIRE,
        ];
        for (statement, pattern) in statements.iter().zip(WRITING) {
            let mut rest = *statement;
            for part in pattern.split_terminator('%') {
                rest = rest.split_once(part).unwrap_or_else(|| panic!("{pattern}: {statement}")).1;
            }
            assert!(statement.starts_with(pattern.split('%').next().unwrap()), "{statement}");
        }
    }
}
