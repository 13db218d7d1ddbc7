//! Commands: who wants what, and how far it has come.
//!
//! Each function is one statement, so that any number of workers may call them at once, and call
//! them again. Each takes at most the connect timeout, twice the statement timeout and 10 s.

mod row;
mod state;

use platziverse_protocol::time::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

pub use self::row::Command;
pub use self::state::{CommandState, UnknownState};
use crate::error::StoreError;
use crate::store::Store;

/// The most commands that [`undelivered`] answers at once.
pub const UNDELIVERED_MAX: usize = 100;

/// The most commands that [`expire`] ends in one call.
pub const EXPIRE_MAX: usize = 1_000;

/// A command that a worker begins.
#[derive(Clone, Copy, Debug)]
pub struct NewCommand<'a> {
    /// Names it, however often it is delivered.
    pub id: Uuid,
    /// What is to be done.
    pub name: &'a str,
    /// For whom it is, such as the uuid of an agent.
    pub target: Option<&'a str>,
    /// JSON: what the target needs to know.
    pub payload: &'a str,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it is given up, unless it has ended; nothing means never.
    pub expires_at: Option<Timestamp>,
}

/// A step forward of a command.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The state that it has come to.
    pub to: CommandState,
    /// When.
    pub at: Timestamp,
    /// For whom it must be; the steps of others are none.
    pub target: Option<&'a str>,
    /// When it is given up if nobody has said so yet; counts with [`CommandState::Sent`] only.
    pub expires_at: Option<Timestamp>,
    /// JSON: what was answered; counts with an end only.
    pub result: Option<&'a str>,
    /// Why it failed; counts with an end only.
    pub error: Option<&'a str>,
}

impl Step<'_> {
    /// A step that comes with nothing else.
    pub const fn to(to: CommandState, at: Timestamp) -> Self {
        Self { to, at, target: None, expires_at: None, result: None, error: None }
    }
}

/// Which commands [`list`] answers: those that have all that is given here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// How far they have come.
    pub state: Option<CommandState>,
    /// For whom they are.
    pub target: Option<&'a str>,
    /// What is to be done.
    pub name: Option<&'a str>,
}

/// Changes nothing of a command that has ended, unless it failed before it was sent: what its
/// target has said stays. It is written all the same, because only a row that is written is
/// answered as it is now.
pub(crate) const BEGIN: &str = "\
INSERT INTO commands AS c
  (id, name, target, payload, state, attempts, created_at, updated_at, expires_at)
VALUES ($1, $2, $3, $4::jsonb, 'queued', $5, $6, now(), $7)
ON CONFLICT (id) DO UPDATE SET
  state = CASE WHEN c.state = 'failed' AND c.sent_at IS NULL THEN 'queued' ELSE c.state END,
  ended_at = CASE WHEN c.state = 'failed' AND c.sent_at IS NULL THEN NULL ELSE c.ended_at END,
  result = CASE WHEN c.state = 'failed' AND c.sent_at IS NULL THEN NULL ELSE c.result END,
  error = CASE WHEN c.state = 'failed' AND c.sent_at IS NULL THEN NULL ELSE c.error END,
  attempts = CASE
    WHEN c.ended_at IS NULL OR (c.state = 'failed' AND c.sent_at IS NULL)
    THEN greatest(c.attempts, excluded.attempts) ELSE c.attempts END,
  updated_at = CASE WHEN (c.state = 'failed' AND c.sent_at IS NULL)
      OR (c.ended_at IS NULL AND excluded.attempts > c.attempts)
    THEN excluded.updated_at ELSE c.updated_at END
RETURNING *";

/// Begins an attempt, counted from 1: stores the command as queued unless it is there, and answers
/// it as it is now, which may be ended.
///
/// Of one that is there and has not ended, only `attempts` changes, to `attempt` if that is more.
/// One that failed before it was sent is queued again: somebody has sent its dead letter back. One
/// that its target has refused stays failed: its task came again, and the target would drop it as
/// known.
/// An error that is not [transient](StoreError::is_transient) means that PostgreSQL refuses the
/// command, as it does a number beyond what `jsonb` holds.
pub async fn begin(
    store: &Store,
    command: &NewCommand<'_>,
    attempt: i32,
) -> Result<Command, StoreError> {
    let NewCommand { id, name, target, payload, created_at, expires_at } = command;
    let created_at = created_at.to_chrono();
    let expires_at = expires_at.map(Timestamp::to_chrono);
    let begun = store.run("beginning a command", async |client| {
        let row = client
            .query_typed_one(
                BEGIN,
                &[
                    (id, Type::UUID),
                    (name, Type::TEXT),
                    (target, Type::TEXT),
                    (payload, Type::TEXT),
                    (&attempt, Type::INT4),
                    (&created_at, Type::TIMESTAMPTZ),
                    (&expires_at, Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        Command::read(&row)
    });
    begun.await
}

/// Everything is decided by the newest version of the row, also where that had to be waited for.
pub(crate) const ADVANCE: &str = "\
UPDATE commands AS c SET
  state = CASE WHEN c.state = ANY ($3) THEN $2 ELSE c.state END,
  sent_at = CASE WHEN $2 = 'sent' THEN coalesce(c.sent_at, $4) ELSE c.sent_at END,
  expires_at = CASE WHEN $2 = 'sent' THEN coalesce(c.expires_at, $8) ELSE c.expires_at END,
  delivered_at = CASE WHEN $2 = 'delivered'
    THEN coalesce(c.delivered_at, $4) ELSE c.delivered_at END,
  ended_at = CASE WHEN $5 THEN $4 ELSE c.ended_at END,
  result = CASE WHEN $5 THEN $6::jsonb ELSE c.result END,
  error = CASE WHEN $5 THEN $7 ELSE c.error END,
  updated_at = now()
WHERE c.id = $1 AND ($9 IS NULL OR c.target = $9) AND (c.state = ANY ($3)
  OR ($2 = 'sent' AND c.sent_at IS NULL)
  OR ($2 = 'delivered' AND c.delivered_at IS NULL))
RETURNING c.id";

/// Moves a command forward, and answers whether that changed anything; it does not if the command
/// is not there.
///
/// Steps may come in any order, and more than once. One that is late still fills in its own time,
/// `sent_at` or `delivered_at`, and nothing else; a time that is known stays. The first end stays,
/// unless the command failed before it was sent and is [begun](begin) again. An error that is not
/// [transient](StoreError::is_transient) means that PostgreSQL refuses the result or the error.
pub async fn advance(store: &Store, id: Uuid, step: &Step<'_>) -> Result<bool, StoreError> {
    let Step { to, at, target, expires_at, result, error } = step;
    let (earlier, at) = (to.earlier(), at.to_chrono());
    let expires_at = expires_at.map(Timestamp::to_chrono);
    let advanced = store.run("advancing a command", async |client| {
        let row = client
            .query_typed_opt(
                ADVANCE,
                &[
                    (&id, Type::UUID),
                    (&to.as_str(), Type::TEXT),
                    (&earlier, Type::TEXT_ARRAY),
                    (&at, Type::TIMESTAMPTZ),
                    (&to.is_ended(), Type::BOOL),
                    (result, Type::TEXT),
                    (error, Type::TEXT),
                    (&expires_at, Type::TIMESTAMPTZ),
                    (target, Type::TEXT),
                ],
            )
            .await?;
        Ok(row.is_some())
    });
    advanced.await
}

const TARGETS: &str = "\
SELECT DISTINCT target FROM commands
WHERE target = ANY ($1) AND ended_at IS NULL AND state = 'sent'";

/// Those of `targets` that have a command that was sent and is neither delivered nor ended.
pub async fn with_undelivered(store: &Store, targets: &[&str]) -> Result<Vec<String>, StoreError> {
    let found = store.run("looking for targets with undelivered commands", async |client| {
        let rows = client.query_typed(TARGETS, &[(&targets as _, Type::TEXT_ARRAY)]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    });
    found.await
}

const UNDELIVERED: &str = "\
SELECT * FROM commands
WHERE target = $1 AND ended_at IS NULL AND state = 'sent' AND ($2 IS NULL
  OR (created_at, id) > (SELECT last.created_at, last.id FROM commands AS last WHERE last.id = $2))
ORDER BY created_at, id LIMIT $3";

/// The commands for one target that were sent and are neither delivered nor ended, the oldest first:
/// at most [`UNDELIVERED_MAX`] of those that come after the command `after`, or of all.
pub async fn undelivered(
    store: &Store,
    target: &str,
    after: Option<Uuid>,
) -> Result<Vec<Command>, StoreError> {
    let limit = limit(UNDELIVERED_MAX);
    let found = store.run("looking for the undelivered commands of a target", async |client| {
        let parameters =
            [(&target as _, Type::TEXT), (&after as _, Type::UUID), (&limit as _, Type::INT8)];
        read(&client.query_typed(UNDELIVERED, &parameters).await?)
    });
    found.await
}

/// Whoever else changes one of them meanwhile is not waited for: it is found by the next call, if
/// it is still open.
pub(crate) const EXPIRE: &str = "\
WITH due AS (
  SELECT id FROM commands WHERE ended_at IS NULL AND expires_at <= $1
  ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE commands SET state = 'timed_out', ended_at = $1, updated_at = now()
FROM due WHERE commands.id = due.id
RETURNING commands.id";

/// Ends commands that have not ended and whose `expires_at` has come: they timed out. Answers their
/// ids, at most [`EXPIRE_MAX`], after which there may be more. Each is answered once, however many
/// workers do this.
pub async fn expire(store: &Store, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
    let (now, limit) = (now.to_chrono(), limit(EXPIRE_MAX));
    let expired = store.run("ending commands that timed out", async |client| {
        let parameters = [(&now as _, Type::TIMESTAMPTZ), (&limit as _, Type::INT8)];
        let rows = client.query_typed(EXPIRE, &parameters).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    });
    expired.await
}

const LIST: &str = "\
SELECT * FROM commands
WHERE ($1 IS NULL OR state = $1) AND ($2 IS NULL OR target = $2) AND ($3 IS NULL OR name = $3)
ORDER BY created_at DESC, id DESC LIMIT $4";

/// The newest `limit` commands that pass the filter, the newest first.
///
/// A target has an index. A state or a name that few commands have is looked for in the whole table,
/// which takes a tenth of a second for a million: an index would make each change of a state dearer.
pub async fn list(
    store: &Store,
    filter: &Filter<'_>,
    limit: u32,
) -> Result<Vec<Command>, StoreError> {
    let Filter { state, target, name } = filter;
    let (state, limit) = (state.map(CommandState::as_str), i64::from(limit));
    let listed = store.run("listing commands", async |client| {
        let rows = client
            .query_typed(
                LIST,
                &[
                    (&state, Type::TEXT),
                    (target, Type::TEXT),
                    (name, Type::TEXT),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        read(&rows)
    });
    listed.await
}

/// One command, if it is there.
pub async fn show(store: &Store, id: Uuid) -> Result<Option<Command>, StoreError> {
    let found = store.run("looking for a command", async |client: &Client| {
        let sql = "SELECT * FROM commands WHERE id = $1";
        let row = client.query_typed_opt(sql, &[(&id, Type::UUID)]).await?;
        row.as_ref().map(Command::read).transpose()
    });
    found.await
}

fn read(rows: &[Row]) -> Result<Vec<Command>, Error> {
    rows.iter().map(Command::read).collect()
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
