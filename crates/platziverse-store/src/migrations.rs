//! The schema's versions, embedded from `migrations/`.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use platziverse_config::DatabaseConfig;
use serde::Serialize;
use tokio::time::timeout;

use crate::connection::{DEADLINE_MARGIN, address, establish};
use crate::error::StoreError;
use crate::locks;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");
pub(crate) const APPLICATION_NAME: &str = "platziverse-migrate";

/// The longest that one statement of a migration may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long another process that migrates is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// Its directory's name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Runs what is missing and answers the names, in order. Processes that do this at once take
/// turns; one waits 5 minutes for its turn. A statement may take 15 minutes.
pub async fn run(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let mut connection = establish(config, APPLICATION_NAME).await?;
    let failed = |source: Failure| StoreError::Migration { address: address(config), source };
    lock(config, &mut connection).await?;
    // The harness blocks its thread while it talks to the server.
    let task = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        let run = harness.run_pending_migrations(MIGRATIONS)?;
        Ok(run.iter().map(ToString::to_string).collect::<Vec<_>>())
    });
    let versions: Vec<String> =
        task.await.map_err(|error| failed(error.into()))?.map_err(failed)?;
    let all = embedded().map_err(failed)?;
    Ok(all.into_iter().filter(|one| versions.contains(&one.version)).map(|one| one.name).collect())
}

/// Waits for the lock, which goes with the connection, also when a migration fails.
async fn lock(
    config: &DatabaseConfig,
    connection: &mut AsyncPgConnection,
) -> Result<(), StoreError> {
    let failed = |source: Failure| StoreError::Migration { address: address(config), source };
    let settings = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
    let locking = async {
        connection.batch_execute(&settings).await?;
        let lock = diesel::sql_query("SELECT pg_advisory_lock($1)");
        lock.bind::<BigInt, _>(locks::MIGRATE).execute(connection).await
    };
    match timeout(LOCK_PATIENCE, locking).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(_) => Err(StoreError::Migrating { address: address(config), after: LOCK_PATIENCE }),
    }
}

/// All migrations, in order, and which of them the database has. Changes nothing.
pub async fn status(config: &DatabaseConfig) -> Result<Vec<MigrationStatus>, StoreError> {
    let mut connection = establish(config, APPLICATION_NAME).await?;
    let after = config.statement_timeout + DEADLINE_MARGIN;
    let (what, address) = ("reading the schema's version", address(config));
    match timeout(after, status_of(&mut connection)).await {
        Ok(Ok(all)) => Ok(all),
        Ok(Err(source)) => Err(StoreError::Migration { address, source }),
        Err(_) => Err(StoreError::Timeout { what, address, after }),
    }
}

/// What [`run`] would run.
pub async fn pending(config: &DatabaseConfig) -> Result<Vec<String>, StoreError> {
    let all = status(config).await?;
    Ok(all.into_iter().filter(|one| !one.applied).map(|one| one.name).collect())
}

pub(crate) async fn status_of(
    connection: &mut AsyncPgConnection,
) -> Result<Vec<MigrationStatus>, Failure> {
    let applied = applied(connection).await?;
    Ok(embedded()?
        .into_iter()
        .map(|one| MigrationStatus { applied: applied.contains(&one.version), name: one.name })
        .collect())
}

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Embedded {
    version: String,
    name: String,
}

fn embedded() -> Result<Vec<Embedded>, Failure> {
    let all: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations()?;
    let mut all: Vec<_> = all
        .iter()
        .map(|one| Embedded {
            version: one.name().version().to_string(),
            name: one.name().to_string(),
        })
        .collect();
    all.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(all)
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Read by hand: Diesel's own way creates its table first.
async fn applied(connection: &mut AsyncPgConnection) -> diesel::QueryResult<Vec<String>> {
    let table = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS exists";
    let found: Exists = diesel::sql_query(table).get_result(connection).await?;
    if !found.exists {
        return Ok(Vec::new());
    }
    let versions = "SELECT version FROM __diesel_schema_migrations";
    let versions: Vec<Version> = diesel::sql_query(versions).load(connection).await?;
    Ok(versions.into_iter().map(|row| row.version).collect())
}
