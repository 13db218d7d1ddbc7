//! `platziverse command send`: a command to an agent, and what becomes of it.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use platziverse_protocol::command::{AGENT_COMMAND, Instruction, command_topic};
use platziverse_protocol::task::{Task, TaskKind};
use platziverse_service::clock;
use platziverse_store::Store;
use platziverse_store::commands::{self, Command as Row, CommandState};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::output;
use crate::progress;
use crate::settings::{Context, InForce};
use crate::task;

/// How often its row is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The agent's uuid
    agent: String,
    /// What the agent is to do
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What it needs to know, as JSON
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = task::json_text)]
    payload: Box<RawValue>,
    /// Wait so long for the agent's answer, such as 10s, and show it
    #[arg(long, value_name = "TIME")]
    wait: Option<humantime::Duration>,
    /// Give it up after such a time, such as 1h [default: tasks.command_timeout]
    #[arg(long, value_name = "TIME")]
    expires: Option<humantime::Duration>,
    /// Its id, a UUID: sent again under the same one, it is the same command [default: a new one]
    #[arg(long)]
    id: Option<Uuid>,
    /// As JSON: with --wait what `command show --json` prints, else {"id": …, "queue": …}
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(send: Send, context: &Context) -> anyhow::Result<()> {
    let in_force = context.load()?;
    let message = send.message(&in_force)?;
    // What cannot be waited for is not sent.
    let store = match send.wait {
        Some(_) => Some(super::connect(&in_force).await?),
        None => None,
    };
    let sending = task::publish(&in_force, std::slice::from_ref(&message));
    progress::shown("Sending to RabbitMQ", sending).await?;
    let (id, json) = (message.id, send.json);
    let (Some(store), Some(wait)) = (store, send.wait) else {
        return match json {
            true => output::print_json(&json!({ "id": id, "queue": message.queue })),
            false => output::print(&format!(
                "Sent {id} to {}. See what becomes of it: platziverse command show {id}\n",
                message.queue
            )),
        };
    };
    let doing = format!("Waiting for {}", send.agent);
    let row = progress::shown(&doing, ended(&store, id, wait.into())).await?;
    tell(row, id, wait.into(), json)
}

impl Send {
    fn message(&self, in_force: &InForce) -> anyhow::Result<task::Message> {
        command_topic(&self.agent)?;
        let now = clock::now();
        let expires = self
            .expires
            .map(|after| now.plus_millis(i64::try_from(after.as_millis()).unwrap_or(i64::MAX)));
        let instruction = Instruction { name: self.name.clone(), payload: self.payload.clone() };
        let task = Task {
            kind: TaskKind::Command,
            name: AGENT_COMMAND.to_owned(),
            id: Some(self.id.unwrap_or_else(Uuid::now_v7)),
            source: None,
            target: Some(self.agent.clone()),
            payload: to_raw_value(&instruction)?,
            timestamp: Some(now),
            expires,
        };
        task::Message::of(&task, &in_force.settings().tasks)
    }
}

/// The row once the command has ended, or as it is when the time is over; none if no worker has seen
/// it by then.
async fn ended(store: &Store, id: Uuid, within: Duration) -> anyhow::Result<Option<Row>> {
    let deadline = Instant::now() + within;
    loop {
        let row = commands::show(store, id).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || row.as_ref().is_some_and(|row| row.state.is_ended()) {
            return Ok(row);
        }
        sleep(LOOK_EVERY.min(left)).await;
    }
}

/// Shows what became of it; anything but success is an error.
fn tell(row: Option<Row>, id: Uuid, waited: Duration, json: bool) -> anyhow::Result<()> {
    let waited = humantime::format_duration(waited);
    let Some(row) = row else {
        bail!(
            "no worker with the role tasks has taken the command {id} within {waited}: it waits in \
             RabbitMQ (`platziverse command show {id}` tells more later)"
        );
    };
    if json {
        output::print_json(&row)?
    } else {
        output::print(&super::text(&row))?
    }
    match row.state {
        CommandState::Succeeded => Ok(()),
        CommandState::Failed => {
            bail!("the command has failed: {}", row.error.unwrap_or_default())
        }
        CommandState::TimedOut => bail!("the command has timed out"),
        CommandState::Queued | CommandState::Sent => bail!(
            "the agent has not taken the command within {waited}; it gets it when it connects, unless \
             the command expires first"
        ),
        CommandState::Delivered => bail!(
            "the agent has the command and has not answered within {waited}; `platziverse command show \
             {id}` tells whether it does later"
        ),
    }
}
