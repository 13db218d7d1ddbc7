//! PostgreSQL, and the way to it.

use std::path::PathBuf;
use std::time::Duration;

use platziverse_testkit::Toxic;

use super::Fault;
use crate::ballast::Ballast;
use crate::stage::Stage;

const SLOW: Duration = Duration::from_millis(200);
/// Every connection of workers to this database; an autovacuum's belongs to nobody.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE datname = current_database() AND usename = current_user \
                         AND pid <> pg_backend_pid()";

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::PostgresRestart => stage.servers.try_run("stop", "postgres").await,
        Fault::PostgresKill => stage.servers.try_run("kill", "postgres").await,
        Fault::PostgresTerminate => {
            for _ in 0..8 {
                sql(stage, TERMINATE).await?;
                stage.pass(Duration::from_millis(500)).await;
            }
            Ok(())
        }
        Fault::PostgresTimeout => hold(stage, "metrics").await,
        Fault::PostgresLock => hold(stage, "agents").await,
        Fault::PostgresReadOnly => {
            let name = stage.world.database().name().to_owned();
            let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
            sql(stage, &set).await?;
            // Those that are open do not know yet.
            sql(stage, TERMINATE).await
        }
        Fault::PostgresFull => {
            stage.ballast = Some(Ballast::fill(&data_directory(stage)?)?);
            Ok(())
        }
        Fault::PostgresCut => {
            stage.postgres.set(Toxic::Refuse);
            Ok(())
        }
        Fault::PostgresHalfOpen => {
            stage.postgres.set(Toxic::HalfOpen);
            Ok(())
        }
        Fault::PostgresSlow => {
            stage.postgres.set(Toxic::Latency(SLOW));
            Ok(())
        }
        other => Err(format!("{other:?} is no fault of PostgreSQL")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::PostgresRestart | Fault::PostgresKill => {
            stage.servers.try_run("start", "postgres").await
        }
        Fault::PostgresTimeout => {
            let waited = workers_wait(stage).await;
            stage.held = None;
            waited
        }
        Fault::PostgresLock => {
            stage.held = None;
            Ok(())
        }
        Fault::PostgresReadOnly => {
            // Beside another fault they may have nothing to write, or not run.
            let waited = if stage.setup.alone { workers_wait(stage).await } else { Ok(()) };
            let name = stage.world.database().name().to_owned();
            let reset = format!(
                "BEGIN READ WRITE; \
                 ALTER DATABASE {name} RESET default_transaction_read_only; COMMIT"
            );
            sql(stage, &reset).await?;
            sql(stage, TERMINATE).await?;
            waited
        }
        Fault::PostgresFull => {
            let waited = workers_wait(stage).await;
            stage.ballast = None;
            // Without room for its log PostgreSQL gives up.
            stage.servers.try_run("start", "postgres").await?;
            waited
        }
        _ => {
            stage.postgres.set(Toxic::None);
            Ok(())
        }
    }
}

/// A fault that does not bite proves nothing.
async fn workers_wait(stage: &Stage) -> Result<(), String> {
    for worker in &stage.workers {
        if worker.try_readyz().await?.0 != 200 {
            return Ok(());
        }
    }
    Err("every worker is ready, as if nothing had happened".to_owned())
}

/// It is said by a file, since a plain user's directory may be closed to PostgreSQL.
fn data_directory(stage: &Stage) -> Result<PathBuf, String> {
    let file = stage.servers.folder().join("postgres/location");
    let text = std::fs::read_to_string(&file);
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(PathBuf::from(text.trim()))
}

async fn hold(stage: &mut Stage, table: &str) -> Result<(), String> {
    let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    stage.held = Some(stage.world.database().hold(&lock).await?);
    Ok(())
}

async fn sql(stage: &Stage, text: &str) -> Result<(), String> {
    stage.world.database().try_sql(text).await.map(drop)
}
