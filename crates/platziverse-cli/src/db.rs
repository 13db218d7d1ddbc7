//! `platziverse db`: the database.

use clap::Subcommand;
use platziverse_config::DatabaseConfig;
use platziverse_store::{DatabaseStatus, Store, StoreError, admin, migrations};
use serde::Serialize;

use crate::output::{self, Table, UNKNOWN};
use crate::settings::{Context, InForce, Server};
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the database if it does not exist
    Create,
    /// Bring the schema up to date; may be run again, and by several at once
    Migrate,
    /// Show the schema's version, the tables and the partitions
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Drop the database with everything in it
    Drop {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let in_force = context.load()?;
    let config = &in_force.settings().database;
    let done = match command {
        Command::Create => create(config).await,
        Command::Migrate => migrate(config).await,
        Command::Status { json } => return status(&in_force, json).await,
        Command::Drop { yes } => {
            let question = format!("Drop the database {} with everything in it?", config.address());
            if !terminal::confirmed(yes, &question).await? {
                return Ok(());
            }
            drop(config).await
        }
    };
    output::print(&done.map_err(|error| failed(&in_force, error))?)
}

async fn create(config: &DatabaseConfig) -> Result<String, StoreError> {
    let address = config.address();
    Ok(if admin::create(config).await? {
        format!("Created {address}. Next: platziverse db migrate\n")
    } else {
        format!("{address} exists already.\n")
    })
}

async fn migrate(config: &DatabaseConfig) -> Result<String, StoreError> {
    let ran = migrations::run(config).await?;
    let lines: String = ran.iter().map(|name| format!("Ran {name}\n")).collect();
    Ok(format!("{lines}The schema of {} is up to date.\n", config.address()))
}

async fn drop(config: &DatabaseConfig) -> Result<String, StoreError> {
    let address = config.address();
    Ok(if admin::drop(config).await? {
        format!("Dropped {address}.\n")
    } else {
        format!("{address} does not exist.\n")
    })
}

#[derive(Serialize)]
struct Shown {
    address: String,
    #[serde(flatten)]
    status: DatabaseStatus,
}

async fn status(in_force: &InForce, json: bool) -> anyhow::Result<()> {
    let config = &in_force.settings().database;
    let asked = async { Store::connect(config, &in_force.connection_name()).await?.status().await };
    let status = asked.await.map_err(|error| failed(in_force, error))?;
    let shown = Shown { address: config.address(), status };
    if json { output::print_json(&shown) } else { output::print(&text(&shown)) }
}

fn text(shown: &Shown) -> String {
    let Shown { address, status } = shown;
    let missing = status.migrations.iter().filter(|migration| !migration.applied).count();
    let schema = match missing {
        0 => "up to date".to_owned(),
        _ => format!("lacks {missing} of the migrations below: run `platziverse db migrate`"),
    };
    let head = output::pairs(&[
        ("database", address.clone()),
        ("server", format!("PostgreSQL {}", status.server_version)),
        ("size", size(status.bytes)),
        ("schema", schema),
    ]);
    let tables = [migrations_table(status), tables(status), partitions(status)];
    tables
        .iter()
        .filter(|table| !table.is_empty())
        .fold(head, |text, table| format!("{text}\n{}", table.render(terminal::width())))
}

fn migrations_table(status: &DatabaseStatus) -> Table {
    let mut table = Table::new(["MIGRATION", "STATE"]);
    for migration in &status.migrations {
        let state = if migration.applied { "applied" } else { "missing" };
        table.row([migration.name.clone(), state.to_owned()]);
    }
    table
}

fn tables(status: &DatabaseStatus) -> Table {
    let mut table = Table::new(["TABLE", "ROWS, ABOUT", "SIZE"]);
    for one in &status.tables {
        table.row([one.name.clone(), rows(one.rows_estimate), size(one.bytes)]);
    }
    table
}

fn partitions(status: &DatabaseStatus) -> Table {
    let mut table = Table::new(["PARTITION", "ROWS, ABOUT", "SIZE", "HOLDS"]);
    for one in &status.partitions {
        let (rows, size) = (rows(one.rows_estimate), size(one.bytes));
        table.row([one.name.clone(), rows, size, one.bounds.clone()]);
    }
    table
}

fn rows(estimate: Option<i64>) -> String {
    estimate.map_or_else(|| UNKNOWN.to_owned(), |rows| rows.to_string())
}

fn size(bytes: i64) -> String {
    output::bytes(u64::try_from(bytes).unwrap_or_default())
}

fn failed(in_force: &InForce, error: StoreError) -> anyhow::Error {
    if matches!(error, StoreError::Connect { .. } | StoreError::ConnectTimeout { .. }) {
        in_force.unreached(Server::PostgreSql, &error)
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use platziverse_store::migrations::MigrationStatus;
    use platziverse_store::{PartitionStatus, TableStatus};

    use super::*;

    #[test]
    fn status_for_people() {
        let migration = |name: &str, applied| MigrationStatus { name: name.to_owned(), applied };
        let status = DatabaseStatus {
            server_version: "15.14".to_owned(),
            bytes: 8 << 20,
            migrations: vec![migration("0001_agents", true), migration("0002_metrics", false)],
            tables: vec![TableStatus { name: "agents".to_owned(), rows_estimate: None, bytes: 0 }],
            partitions: vec![PartitionStatus {
                name: "metrics_default".to_owned(),
                bounds: "DEFAULT".to_owned(),
                rows_estimate: Some(12),
                bytes: 2048,
            }],
        };
        let want = "\
database  h:1/d
server    PostgreSQL 15.14
size      8.0 MiB
schema    lacks 1 of the migrations below: run `platziverse db migrate`

MIGRATION     STATE
0001_agents   applied
0002_metrics  missing

TABLE   ROWS, ABOUT  SIZE
agents  -            0 B

PARTITION        ROWS, ABOUT  SIZE     HOLDS
metrics_default           12  2.0 KiB  DEFAULT
";
        assert_eq!(text(&Shown { address: "h:1/d".to_owned(), status }), want);
    }
}
