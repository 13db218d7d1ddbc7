//! `platziverse command`: commands to agents, and how far commands have come.

mod send;

use anyhow::bail;
use clap::Subcommand;
use platziverse_protocol::command::{AGENT_COMMAND, Instruction};
use platziverse_protocol::time::Timestamp;
use platziverse_store::Store;
use platziverse_store::commands::{self, Command as Row, CommandState, Filter};
use serde_json::json;
use uuid::Uuid;

use crate::output::{self, Table, UNKNOWN};
use crate::settings::{Context, InForce};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a command to an agent, and with --wait show what becomes of it
    Send(send::Send),
    /// List commands, the newest first
    List {
        /// Only those that are queued, sent, delivered, succeeded, failed or timed_out
        #[arg(long)]
        state: Option<CommandState>,
        /// Only those for this target
        #[arg(long)]
        target: Option<String>,
        /// Only those of this name
        #[arg(long)]
        name: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// As JSON: {"commands": […], "truncated": whether there are more than --limit}; times are
        /// milliseconds since 1970
        #[arg(long)]
        json: bool,
    },
    /// Show one command: each state with its time, and its result
    Show {
        /// Its id
        id: Uuid,
        /// As JSON; times are milliseconds since 1970
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Send(_) => Some("; RabbitMQ may have it, and then goes on with it"),
            Self::List { .. } | Self::Show { .. } => None,
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let (state, target, name, limit, json) = match command {
        Command::Send(send) => return send::run(send, context).await,
        Command::Show { id, json } => {
            return show(&connect(&context.load()?).await?, id, json).await;
        }
        Command::List { state, target, name, limit, json } => (state, target, name, limit, json),
    };
    let store = connect(&context.load()?).await?;
    let filter = Filter { state, target: target.as_deref(), name: name.as_deref() };
    list(&store, &filter, limit, json).await
}

async fn connect(in_force: &InForce) -> anyhow::Result<Store> {
    let config = &in_force.settings().database;
    let connected = Store::connect(config, &in_force.connection_name()).await;
    connected.map_err(|error| in_force.of_store(error))
}

async fn show(store: &Store, id: Uuid, json: bool) -> anyhow::Result<()> {
    match commands::show(store, id).await? {
        Some(row) if json => output::print_json(&row),
        Some(row) => output::print(&text(&row)),
        None => bail!(
            "no worker has seen a command with the id {id}: it may still wait in RabbitMQ, or be a \
             dead letter (`platziverse dead list`)"
        ),
    }
}

async fn list(store: &Store, filter: &Filter<'_>, limit: u32, json: bool) -> anyhow::Result<()> {
    // One more than asked for tells whether there are more.
    let mut rows = commands::list(store, filter, limit + 1).await?;
    let more = rows.len() > limit.try_into()?;
    rows.truncate(limit.try_into()?);
    if json {
        return output::print_json(&json!({ "commands": rows, "truncated": more }));
    }
    if rows.is_empty() {
        output::print("There are no such commands.\n")?;
    } else {
        output::print_table(&table(&rows))?;
    }
    if more {
        let shown = output::count(limit.into(), "command");
        output::complain(&format!("Only the newest {shown}: --limit N shows more."));
    }
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["ID", "NAME", "TARGET", "STATE", "ATTEMPTS", "CREATED", "UPDATED", "ERROR"]);
    for row in rows {
        table.row([
            row.id.to_string(),
            name(row),
            row.target.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
            row.state.to_string(),
            row.attempts.to_string(),
            row.created_at.to_string(),
            row.updated_at.to_string(),
            row.error.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// Its name; of a command to an agent, also what the agent is to do.
fn name(row: &Row) -> String {
    let instruction = (row.name == AGENT_COMMAND)
        .then(|| serde_json::from_str::<Instruction>(row.payload.get()).ok())
        .flatten();
    match instruction {
        Some(instruction) => format!("{}: {}", row.name, instruction.name),
        None => row.name.clone(),
    }
}

fn text(row: &Row) -> String {
    let text = |value: Option<&str>| value.unwrap_or(UNKNOWN).to_owned();
    let time =
        |time: Option<Timestamp>| time.map_or_else(|| UNKNOWN.to_owned(), |time| time.to_string());
    output::pairs(&[
        ("id", row.id.to_string()),
        ("name", name(row)),
        ("target", text(row.target.as_deref())),
        ("state", row.state.to_string()),
        ("attempts", row.attempts.to_string()),
        ("created", row.created_at.to_string()),
        ("sent", time(row.sent_at)),
        ("delivered", time(row.delivered_at)),
        ("ended", time(row.ended_at)),
        ("expires", time(row.expires_at)),
        ("payload", row.payload.get().to_owned()),
        ("result", text(row.result.as_deref().map(serde_json::value::RawValue::get))),
        ("error", text(row.error.as_deref())),
    ])
}
