//! When what was published was committed, as PostgreSQL remembers it.
//!
//! The metric `sent` of each message is the moment at which the load generator had to publish it;
//! PostgreSQL knows when the transaction of its row was committed (`track_commit_timestamp`). Both
//! are of the same machine's clock.

use platziverse_load::Plan;
use platziverse_testkit::World;

/// What was committed of one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commits {
    /// Messages that were committed, a second, while it counted.
    pub(crate) rate: f64,
    /// From when a message was due to its commit, in ms: of half of the messages that counted it
    /// was less.
    pub(crate) p50: f64,
    /// Of 99 of 100 it was less.
    pub(crate) p99: f64,
}

impl Commits {
    /// Reads what was stored of `plan`, which is all that the database has.
    pub(crate) async fn of(plan: &Plan, world: &World) -> Result<Self, String> {
        let (warm_up, time) = (plan.warm_up.as_micros(), plan.time.as_micros());
        let sql = format!(
            "WITH message AS ( \
               SELECT value AS due, \
                 extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 * 1e6 AS committed \
               FROM metrics WHERE type = 'sent'), \
             counted AS (SELECT min(due) + {warm_up} AS first FROM message) \
             SELECT count(*) FILTER (WHERE committed >= first AND committed < first + {time}), \
               percentile_disc(0.5) WITHIN GROUP (ORDER BY committed - due) \
                 FILTER (WHERE due >= first AND due < first + {time}), \
               percentile_disc(0.99) WITHIN GROUP (ORDER BY committed - due) \
                 FILTER (WHERE due >= first AND due < first + {time}) \
             FROM message, counted"
        );
        let numbers = numbers(world, &sql).await?;
        let [committed, p50, p99] = numbers[..] else {
            return Err("PostgreSQL does not say when messages were committed".to_owned());
        };
        let rate = committed / plan.time.as_secs_f64();
        Ok(Self { rate, p50: p50 / 1_000.0, p99: p99 / 1_000.0 })
    }
}

/// Rows a second between the first and the last commit.
pub(crate) async fn rows_a_second(world: &World) -> Result<f64, String> {
    let sql = "WITH batch AS ( \
           SELECT xmin, count(*) AS rows, \
             extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS committed \
           FROM metrics GROUP BY xmin), \
         ends AS (SELECT min(committed) AS first, max(committed) AS last FROM batch) \
         SELECT sum(rows) FILTER (WHERE committed > first) / nullif(max(last - first), 0) \
         FROM batch, ends";
    let numbers = numbers(world, sql).await?;
    numbers.first().copied().ok_or_else(|| "nothing was committed, or all at once".to_owned())
}

/// The numbers of the first row; none if one is NULL.
async fn numbers(world: &World, sql: &str) -> Result<Vec<f64>, String> {
    let rows = world.database().try_sql(sql).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let numbers = row.into_iter().map(|value| value?.parse().ok()).collect::<Option<Vec<f64>>>();
    Ok(numbers.unwrap_or_default())
}
