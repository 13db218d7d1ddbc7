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
/// Message ids grow with time, as those do that gateways give (UUIDv7).
pub(crate) async fn fill(world: &World, metrics: u64) -> Result<(), String> {
    agents(world).await?;
    let steps = metrics / ROWS / DAYS;
    for day in (0..DAYS).rev() {
        partition(world, day).await?;
        for step in 0..steps {
            show(&format!("filling, day {} of {DAYS}: {}/{steps}", DAYS - day, step + 1));
            let first = (DAYS - 1 - day) * steps * ROWS + step * ROWS;
            let from = format!("date_trunc('day', now(), 'UTC') - interval '{day} days'");
            // A day's rows are spread over what of today has passed.
            let sql = format!(
                "INSERT INTO metrics \
                   (agent_id, type, value, timestamp, received_at, message_id, ordinal) \
                 SELECT 1 + (n * 7919) % {AGENTS}, 'temperature', n % 100, at, at, \
                   (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || \
                    lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid, 0 \
                 FROM (SELECT n, {from} + (now() - date_trunc('day', now(), 'UTC')) \
                       * ((n - {first_of_day})::float8 / {of_day}) AS at \
                       FROM generate_series({first}::bigint, {last}::bigint) AS n) AS one",
                first_of_day = (DAYS - 1 - day) * steps * ROWS,
                of_day = steps * ROWS,
                last = first + ROWS - 1,
            );
            world.database().try_sql(&sql).await?;
        }
    }
    hide();
    world.database().try_sql("ANALYZE agents").await?;
    Ok(())
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
        world.database().try_sql(&sql).await?;
    }
    Ok(())
}

/// Workers make partitions from today on; days before have one only if it was today once.
async fn partition(world: &World, day: u64) -> Result<(), String> {
    let sql = format!(
        "DO $$ DECLARE first date := (now() AT TIME ZONE 'UTC')::date - {day}; BEGIN \
           EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF metrics \
             FOR VALUES FROM (%L) TO (%L)', 'metrics_' || to_char(first, 'YYYYMMDD'), \
             first || ' 00:00:00+00', first + 1 || ' 00:00:00+00'); END $$"
    );
    world.database().try_sql(&sql).await.map(drop)
}
