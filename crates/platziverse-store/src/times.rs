//! Messages that their senders named but did not date. Sent again, such a message has another time,
//! so the primary key of `metrics` does not know it; the table `message_times` does.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use platziverse_protocol::time::Timestamp;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use crate::metrics::Measured;

/// Waits for a writer that is storing the same message, and answers the ids that were not there.
pub(crate) const KEEP: &str = "\
INSERT INTO message_times (message_id, timestamp)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
ON CONFLICT (message_id) DO NOTHING
RETURNING message_id";

/// Keeps the ids of untimed messages, and answers those that are new. They are ordered by id, and
/// named once: writers that lock in one order never deadlock.
pub(crate) async fn keep(
    client: &Client,
    statement: &Statement,
    untimed: &[(Uuid, Timestamp)],
) -> Result<HashSet<Uuid>, Error> {
    let ids: Vec<Uuid> = untimed.iter().map(|(id, _)| *id).collect();
    let times: Vec<DateTime<Utc>> = untimed.iter().map(|(_, time)| time.to_chrono()).collect();
    let rows = client.query(statement, &[&ids, &times]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The untimed messages of a batch with their times, ordered by id.
pub(crate) fn untimed(messages: &[Measured<'_>]) -> Vec<(Uuid, Timestamp)> {
    let untimed = messages.iter().filter(|message| message.is_untimed());
    untimed.map(|message| (message.id, message.timestamp)).collect()
}

/// Leaves out the untimed messages that are not new: whoever kept an id has stored its metrics in
/// the same transaction.
pub(crate) fn leave_out_known(messages: &mut Vec<Measured<'_>>, new: &HashSet<Uuid>) {
    messages.retain(|message| !message.is_untimed() || new.contains(&message.id));
}

/// A time of PostgreSQL's, to the millisecond.
pub(crate) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::EPOCH.plus_millis(time.timestamp_millis())
}
