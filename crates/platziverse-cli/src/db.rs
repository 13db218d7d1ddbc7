//! `platziverse db`: the database.

use clap::Subcommand;
use platziverse_config::DatabaseConfig;
use platziverse_store::{DatabaseStatus, Store, StoreError, admin, migrations};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::{self, Table, UNKNOWN};
use crate::settings::{Context, InForce};
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the database if it does not exist
    Create {
        /// As JSON: {"database": …, "created": true or false}
        #[arg(long)]
        json: bool,
    },
    /// Bring the schema up to date; may be run again, and by several at once
    Migrate {
        /// As JSON: {"database": …, "ran": [migration, …]}
        #[arg(long)]
        json: bool,
    },
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
        /// As JSON: {"database": …, "dropped": true or false}
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Create { .. } => Some(
                "; PostgreSQL may have created the database all the same: `platziverse db status` \
                 shows it",
            ),
            Self::Migrate { .. } => Some(
                "; each migration is applied whole or not at all: `platziverse db status` shows \
                 which are",
            ),
            Self::Drop { .. } => Some(
                "; if you had agreed, PostgreSQL may have dropped the database all the same: \
                 `platziverse db status` shows it",
            ),
            Self::Status { .. } => None,
        }
    }
}

/// What a command has done, for people and for programs.
struct Done {
    text: String,
    json: Value,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let in_force = context.load()?;
    let config = &in_force.settings().database;
    let (done, json) = match command {
        Command::Create { json } => (create(config).await, json),
        Command::Migrate { json } => (migrate(config).await, json),
        Command::Status { json } => return status(&in_force, json).await,
        Command::Drop { yes, json } => {
            if !yes {
                let address = config.address();
                let question = format!("Drop the database {address} with everything in it?");
                terminal::confirm(&question).await?;
            }
            (drop(config).await, json)
        }
    };
    let done = done.map_err(|error| in_force.of_store(error))?;
    if json { output::print_json(&done.json) } else { output::print(&done.text) }
}

async fn create(config: &DatabaseConfig) -> Result<Done, StoreError> {
    let (address, created) = (config.address(), admin::create(config).await?);
    let text = if created {
        format!("Created {address}. Next: platziverse db migrate\n")
    } else {
        format!("{address} exists already.\n")
    };
    Ok(Done { text, json: json!({ "database": address, "created": created }) })
}

async fn migrate(config: &DatabaseConfig) -> Result<Done, StoreError> {
    let (address, ran) = (config.address(), migrations::run(config).await?);
    let lines: String = ran.iter().map(|name| format!("Ran {name}\n")).collect();
    let text = format!("{lines}The schema of {address} is up to date.\n");
    Ok(Done { text, json: json!({ "database": address, "ran": ran }) })
}

async fn drop(config: &DatabaseConfig) -> Result<Done, StoreError> {
    let (address, dropped) = (config.address(), admin::drop(config).await?);
    let text = if dropped {
        format!("Dropped {address}.\n")
    } else {
        format!("{address} does not exist.\n")
    };
    Ok(Done { text, json: json!({ "database": address, "dropped": dropped }) })
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
    let status = asked.await.map_err(|error| in_force.of_store(error))?;
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
