//! Tables that are full already, made with SQL.

use platziverse_testkit::World;

use crate::site::{hide, show};

/// Agents that there are.
const AGENTS: u64 = 1_000_000;
/// Days of metrics, the last of them today.
const DAYS: u64 = 10;
/// Rows of one statement: PostgreSQL has 30 s for each.
const ROWS: u64 = 500_000;

/// Fills the tables with 1,000,000 agents and `metrics` rows, of ten days.
///
/// Message ids grow with time, as those do that gateways give (UUIDv7). Indexes come after the rows,
/// which is much faster.
pub(crate) async fn fill(world: &World, metrics: u64) -> Result<(), String> {
    agents(world).await?;
    let steps = metrics / ROWS / DAYS;
    for day in (0..DAYS).rev() {
        let first = (DAYS - 1 - day) * steps * ROWS;
        run(world, "CREATE TABLE filling (LIKE metrics)").await?;
        for step in 0..steps {
            show(&format!("filling, day {} of {DAYS}: {}/{steps}", DAYS - day, step + 1));
            run(world, &rows(day, first, first + step * ROWS, steps * ROWS)).await?;
        }
        show(&format!("filling, day {} of {DAYS}: indexes", DAYS - day));
        run(
            world,
            &format!(
                "{MEMORY}; ALTER TABLE filling ADD PRIMARY KEY (message_id, ordinal, timestamp)"
            ),
        )
        .await?;
        run(world, &format!("{MEMORY}; CREATE INDEX ON filling (agent_id, type, timestamp DESC)"))
            .await?;
        run(world, &attached(day)).await?;
    }
    hide();
    run(world, "ANALYZE agents").await
}

/// For an index that is made of rows which are there.
const MEMORY: &str = "SET maintenance_work_mem = '1GB'";

async fn run(world: &World, sql: &str) -> Result<(), String> {
    world.database().try_sql(sql).await.map(drop)
}

/// Rows from number `from` on, of a day that begins with number `first` and has `count`. They are
/// spread over as much of the day as has passed of today.
fn rows(day: u64, first: u64, from: u64, count: u64) -> String {
    let last = from + ROWS - 1;
    let midnight = "date_trunc('day', now(), 'UTC')";
    format!(
        "INSERT INTO filling \
           (agent_id, type, value, timestamp, received_at, message_id, ordinal) \
         SELECT 1 + (n * 7919) % {AGENTS}, 'temperature', n % 100, at, at, \
           (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || \
            lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid, 0 \
         FROM (SELECT n, {midnight} - interval '{day} days' \
                 + (now() - {midnight}) * ((n - {first})::float8 / {count}) AS at \
               FROM generate_series({from}::bigint, {last}::bigint) AS n) AS one"
    )
}

/// Workers make partitions from today on; days before have one only if each was today once.
fn attached(day: u64) -> String {
    format!(
        "DO $$ DECLARE first date := (now() AT TIME ZONE 'UTC')::date - {day}; \
           name text := 'metrics_' || to_char(first, 'YYYYMMDD'); BEGIN \
           EXECUTE format('ALTER TABLE filling RENAME TO %I', name); \
           EXECUTE format('ALTER TABLE metrics ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', \
             name, first || ' 00:00:00+00', first + 1 || ' 00:00:00+00'); END $$"
    )
}

async fn agents(world: &World) -> Result<(), String> {
    for first in (1..=AGENTS).step_by(ROWS as usize) {
        show(&format!("filling, agents from {first}"));
        let sql = format!(
            "INSERT INTO agents (uuid, username, name, hostname, pid, connected, session, gateway) \
             SELECT 'filled-' || n, 'platzi', 'platzi', 'host', 1, false, gen_random_uuid(), 'none' \
             FROM generate_series({first}, {last}) AS n",
            last = first + ROWS - 1,
        );
        run(world, &sql).await?;
    }
    Ok(())
}
