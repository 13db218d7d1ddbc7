//! A partition of `metrics` for each day (UTC): made ahead, dropped when it is too old.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{Days, NaiveDate, NaiveTime};
use platziverse_config::DatabaseConfig;
use platziverse_protocol::time::Timestamp;
use serde::Serialize;

use crate::connection::Link;
use crate::error::StoreError;
use crate::locks;

/// Which days have partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Days after today that have one.
    pub ahead_days: u32,
    /// Days before today that are kept.
    pub retention_days: u32,
}

/// What [`maintain`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// Partitions that were made.
    pub made: Vec<String>,
    /// Rows that moved from the default partition to those.
    pub moved: u64,
    /// Partitions that were dropped with their rows.
    pub dropped: Vec<String>,
    /// Rows of the default partition that were deleted because of their age.
    pub deleted: u64,
}

/// Days before today that get a partition: agents that were offline send what they kept.
const BACK_DAYS: u64 = 7;

/// How long a change of the partitions may wait for the writers, who wait behind it meanwhile.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one change may take: it may have to move a day of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The longest that making one partition takes: three statements that may be long.
const STEP_DEADLINE: Duration = Duration::from_secs(16 * 60);
/// Old rows that are deleted in one transaction.
const DELETE_ROWS: i64 = 20_000;

/// Makes the partitions that are missing and drops those that are too old. Answers nothing if
/// another process is doing it.
///
/// Days are those of UTC. Rows of a new partition's day that wait in the default partition move.
pub async fn maintain(
    config: &DatabaseConfig,
    application_name: &str,
    now: Timestamp,
    policy: Policy,
) -> Result<Option<Maintained>, StoreError> {
    let link = Link::open(config, application_name).await?;
    let lock = link.client.query_one(locks::TRY_LOCK, &[&locks::PARTITIONS]);
    let granted: bool = link.within("asking to maintain partitions", lock).await?.get(0);
    if !granted {
        return Ok(None);
    }
    let settings = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        LOCK_TIMEOUT.as_millis(),
        STATEMENT_TIMEOUT.as_millis()
    );
    link.within("preparing to maintain partitions", link.client.batch_execute(&settings)).await?;
    let plan = Plan::of(now.to_chrono().date_naive(), policy, &existing(&link).await?);
    let mut done = Maintained::default();
    for day in plan.make {
        done.moved += make(&link, day).await?;
        done.made.push(name(day));
    }
    for day in plan.drop {
        let sql = format!("DROP TABLE IF EXISTS {}", name(day));
        let dropped = link.client.batch_execute(&sql);
        link.within_time("dropping an old partition", STEP_DEADLINE, dropped).await?;
        done.dropped.push(name(day));
    }
    done.deleted = delete_before(&link, plan.keep_from).await?;
    Ok(Some(done))
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    make: Vec<NaiveDate>,
    drop: Vec<NaiveDate>,
    keep_from: NaiveDate,
}

impl Plan {
    fn of(today: NaiveDate, policy: Policy, existing: &BTreeSet<NaiveDate>) -> Self {
        let retention = Days::new(policy.retention_days.into());
        let keep_from = today.checked_sub_days(retention).unwrap_or(NaiveDate::MIN);
        let from = today.checked_sub_days(Days::new(BACK_DAYS)).unwrap_or(NaiveDate::MIN);
        let days = from.max(keep_from).iter_days();
        let last = today.checked_add_days(Days::new(policy.ahead_days.into()));
        let last = last.unwrap_or(NaiveDate::MAX);
        Self {
            make: days.take_while(|day| *day <= last).filter(|d| !existing.contains(d)).collect(),
            drop: existing.range(..keep_from).copied().collect(),
            keep_from,
        }
    }
}

const NAME_FORMAT: &str = "metrics_%Y%m%d";

fn name(day: NaiveDate) -> String {
    day.format(NAME_FORMAT).to_string()
}

/// The day of a partition; none for the default one, and for those that somebody else made.
fn day(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name, NAME_FORMAT).ok()
}

/// A day's first moment as an SQL literal.
fn midnight(day: NaiveDate) -> String {
    format!("TIMESTAMPTZ '{}+00'", day.and_time(NaiveTime::MIN).format("%Y-%m-%d %H:%M:%S"))
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

async fn delete_before(link: &Link, keep_from: NaiveDate) -> Result<u64, StoreError> {
    let sql = format!(
        "DELETE FROM metrics_default WHERE ctid = ANY (ARRAY( \
           SELECT ctid FROM metrics_default WHERE timestamp < {} LIMIT {DELETE_ROWS}))",
        midnight(keep_from)
    );
    let mut deleted = 0;
    loop {
        let step = link.client.execute(&sql, &[]);
        let rows = link.within_time("deleting old rows", STEP_DEADLINE, step).await?;
        deleted += rows;
        if rows == 0 {
            return Ok(deleted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_days_match() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(day(name), expected.map(date), "{name}");
        };
        check("metrics_20260131", Some("2026-01-31"));
        check("metrics_20260231", None);
        check("metrics_default", None);
        check("metrics_2026", None);
        assert_eq!(name(date("2026-01-31")), "metrics_20260131");
        assert_eq!(midnight(date("2026-01-31")), "TIMESTAMPTZ '2026-01-31 00:00:00+00'");
    }

    #[test]
    fn plans_follow_the_policy() {
        let check =
            |ahead_days, retention_days, existing: &[&str], make: &[&str], drop: &[&str]| {
                let policy = Policy { ahead_days, retention_days };
                let existing = existing.iter().map(|text| date(text)).collect();
                let plan = Plan::of(date("2026-03-01"), policy, &existing);
                let dates =
                    |texts: &[&str]| texts.iter().map(|text| date(text)).collect::<Vec<_>>();
                assert_eq!(plan.make, dates(make));
                assert_eq!(plan.drop, dates(drop));
            };
        check(1, 1, &[], &["2026-02-28", "2026-03-01", "2026-03-02"], &[]);
        check(0, 1, &["2026-03-01"], &["2026-02-28"], &[]);
        check(
            0,
            1,
            &["2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01"],
            &[],
            &["2026-02-26", "2026-02-27"],
        );
        let week: Vec<_> = (22..=28).map(|day| format!("2026-02-{day}")).collect();
        let week: Vec<_> = week.iter().map(String::as_str).chain(["2026-03-01"]).collect();
        check(0, 30, &[], &week, &[]);
        check(0, 30, &["2026-01-30", "2026-01-29"], &week, &["2026-01-29"]);
    }
}
