//! A partition of `metrics` for each day (UTC): made ahead, dropped when it is too old.

mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use platziverse_config::DatabaseConfig;
use platziverse_protocol::time::Timestamp;

use self::plan::{Step, day, midnight, name, steps};
use crate::connection::{DEADLINE_MARGIN, Link};
use crate::error::StoreError;
use crate::locks;
use crate::times::timestamp;

/// Which days have partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Days after today that have one.
    pub ahead_days: u32,
    /// Days before today that are kept.
    pub retention_days: u32,
}

/// What [`make_missing`] or [`maintain`] did, and what it could not do.
#[derive(Debug, Default)]
pub struct Maintained {
    /// Partitions that were made.
    pub made: Vec<String>,
    /// Rows that moved from the default partition to those.
    pub moved: u64,
    /// Partitions that were dropped with their rows.
    pub dropped: Vec<String>,
    /// Rows of the default partition that were deleted because of their age.
    pub deleted: u64,
    /// Times of messages, kept to know them again, that were deleted because of their age.
    pub times_deleted: u64,
    /// How far the caller's clock is ahead of the database's, in milliseconds, if that is more
    /// than an hour either way: then nothing was dropped or deleted.
    pub clocks_apart: Option<i64>,
    /// What failed; the rest was done all the same.
    pub failures: Vec<Failure>,
}

/// A part of the maintenance that failed.
#[derive(Debug)]
pub struct Failure {
    /// What was to be done: `making metrics_20260301`.
    pub step: String,
    /// Why it was not.
    pub error: StoreError,
}

/// How far the clocks of the caller and the database may be apart, in milliseconds, before nothing
/// is thrown away by either.
const CLOCKS_APART_MAX: i64 = 60 * 60 * 1_000;

/// How long a change of the partitions may wait for the writers, who wait behind it meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one change may take: it may have to move a day of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long the answer to one step's work is waited for. Making a partition is the longest: up to
/// three statements, each of which may take [`STATEMENT_TIMEOUT`]. Deletion has many statements,
/// and waits so long for each.
const STEP_DEADLINE: Duration = Duration::from_secs(16 * 60);
/// Old rows that are deleted in one transaction.
const DELETE_ROWS: i64 = 20_000;

/// Makes the partitions that are missing, and throws nothing away. Answers nothing if another
/// process looks after the partitions.
///
/// Days are those of UTC, and today is the database's. Rows of a new partition's day that wait in
/// the default partition move. What fails does not keep the rest from being done.
pub async fn make_missing(
    config: &DatabaseConfig,
    application_name: &str,
    policy: Policy,
) -> Result<Option<Maintained>, StoreError> {
    let Some(link) = begin(config, application_name).await? else { return Ok(None) };
    let clock = prepare(&link).await?;
    let mut steps = steps(clock.date_naive(), policy, &existing(&link).await?);
    steps.retain(Step::makes);
    Ok(Some(take_all(&link, &steps, Maintained::default()).await))
}

/// Does what [`make_missing`] does, and then drops the partitions and deletes the rows that are too
/// old, which may take long. `now` is the caller's time, and only compared with the database's.
pub async fn maintain(
    config: &DatabaseConfig,
    application_name: &str,
    now: Timestamp,
    policy: Policy,
) -> Result<Option<Maintained>, StoreError> {
    let Some(link) = begin(config, application_name).await? else { return Ok(None) };
    let clock = prepare(&link).await?;
    let mut steps = steps(clock.date_naive(), policy, &existing(&link).await?);
    let ahead = now.millis_since(timestamp(clock));
    let apart = ahead.abs() > CLOCKS_APART_MAX;
    if apart {
        steps.retain(Step::makes);
    }
    let done = Maintained { clocks_apart: apart.then_some(ahead), ..Maintained::default() };
    Ok(Some(take_all(&link, &steps, done).await))
}

/// A connection that holds the lock, if no other process has it.
async fn begin(
    config: &DatabaseConfig,
    application_name: &str,
) -> Result<Option<Link>, StoreError> {
    let link = locks::open(config, application_name).await?;
    let taken = locks::try_take(&link, "asking to maintain partitions", locks::PARTITIONS).await?;
    Ok(taken.then_some(link))
}

/// Sets the timeouts, and answers the database's time.
async fn prepare(link: &Link) -> Result<DateTime<Utc>, StoreError> {
    let settings = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        STATEMENT_TIMEOUT.as_millis()
    );
    let asked = async {
        link.client.batch_execute(&settings).await?;
        link.client.query_one("SELECT now()", &[]).await
    };
    Ok(link.within("preparing to maintain partitions", asked).await?.get(0))
}

async fn existing(link: &Link) -> Result<BTreeSet<NaiveDate>, StoreError> {
    let children = link.client.query(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'metrics'::regclass",
        &[],
    );
    let rows = link.within("listing partitions", children).await?;
    Ok(rows.iter().filter_map(|row| day(row.get(0))).collect())
}

/// Takes one step after the other, and gives the lock up.
async fn take_all(link: &Link, steps: &[Step], mut done: Maintained) -> Maintained {
    for step in steps {
        if let Err(error) = take(link, *step, &mut done).await {
            done.failures.push(Failure { step: step.to_string(), error });
            // Without it, whatever follows is refused. If it fails too, nothing can follow.
            let rollback = link.client.batch_execute("ROLLBACK");
            if link.within_time("rolling back", DEADLINE_MARGIN, rollback).await.is_err() {
                return done;
            }
        }
    }
    // Where that fails, the connection is gone, and the lock with it.
    let _ = locks::give_up(link, "giving up the lock of the partitions", locks::PARTITIONS).await;
    done
}

async fn take(link: &Link, step: Step, done: &mut Maintained) -> Result<(), StoreError> {
    match step {
        Step::Make(day) => {
            done.moved += make(link, day).await?;
            done.made.push(name(day));
        }
        Step::Drop(day) => {
            let sql = format!("DROP TABLE IF EXISTS {}", name(day));
            let dropped = link.client.batch_execute(&sql);
            link.within_time("dropping an old partition", STEP_DEADLINE, dropped).await?;
            done.dropped.push(name(day));
        }
        Step::DeleteRows(day) => {
            delete_before(link, "metrics_default", day, &mut done.deleted).await?;
        }
        Step::DeleteTimes(day) => {
            delete_before(link, "message_times", day, &mut done.times_deleted).await?;
        }
    }
    Ok(())
}

/// Fills the new table before it is attached: PostgreSQL refuses a partition whose rows are still
/// in the default one.
async fn make(link: &Link, day: NaiveDate) -> Result<u64, StoreError> {
    let (name, from) = (name(day), midnight(day));
    let to = midnight(day.succ_opt().unwrap_or(NaiveDate::MAX));
    // Nothing may arrive in the default partition between the move and the attachment.
    let prepare = format!(
        "BEGIN; \
         CREATE TABLE {name} (LIKE metrics INCLUDING ALL); \
         LOCK TABLE metrics_default IN ACCESS EXCLUSIVE MODE"
    );
    let fill = format!(
        "WITH moved AS (DELETE FROM metrics_default \
           WHERE timestamp >= {from} AND timestamp < {to} RETURNING *) \
         INSERT INTO {name} SELECT * FROM moved"
    );
    let attach = format!(
        "ALTER TABLE metrics ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to}); COMMIT"
    );
    let made = async {
        link.client.batch_execute(&prepare).await?;
        let moved = link.client.execute(&fill, &[]).await?;
        link.client.batch_execute(&attach).await?;
        Ok(moved)
    };
    link.within_time("making a partition", STEP_DEADLINE, made).await
}

async fn delete_before(
    link: &Link,
    table: &'static str,
    keep_from: NaiveDate,
    deleted: &mut u64,
) -> Result<(), StoreError> {
    let sql = format!(
        "DELETE FROM {table} WHERE ctid = ANY (ARRAY( \
           SELECT ctid FROM {table} WHERE timestamp < {} LIMIT {DELETE_ROWS}))",
        midnight(keep_from)
    );
    loop {
        let step = link.client.execute(&sql, &[]);
        let rows = link.within_time("deleting old rows", STEP_DEADLINE, step).await?;
        *deleted += rows;
        if rows == 0 {
            return Ok(());
        }
    }
}
