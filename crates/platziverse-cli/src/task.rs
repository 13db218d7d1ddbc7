//! `platziverse task`: events and commands by hand.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::{Args, Subcommand};
use platziverse_broker::topology::Topology;
use platziverse_broker::{Context as BrokerContext, Lane, Publisher, PublisherOptions};
use platziverse_config::TasksConfig;
use platziverse_protocol::task::{Task, TaskKind};
use platziverse_protocol::time::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::output;
use crate::progress;
use crate::settings::{Context, InForce, Server};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send events and commands to the task workers, and wait until RabbitMQ has them
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Send {
        #[command(subcommand)]
        one: Option<One>,
        #[command(flatten)]
        given: Given,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum One {
    /// Something that has happened
    Event {
        /// What has happened: it chooses the handler
        name: String,
        /// Where it happened
        #[arg(long)]
        source: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Something that is to be done
    Command {
        /// What is to be done: it chooses the handler
        name: String,
        /// For whom it is, such as an agent's uuid
        #[arg(long)]
        target: Option<String>,
        /// When it is given up, unless it has ended, such as 2026-01-31T12:00:00Z [default: never]
        #[arg(long, value_name = "TIME")]
        expires: Option<Timestamp>,
        #[command(flatten)]
        common: Common,
    },
}

/// What somebody has written already.
#[derive(Debug, Args)]
pub(crate) struct Given {
    #[command(flatten)]
    text: Text,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Text {
    /// Send the events and commands of a file of JSON objects, one after the other; - is standard
    /// input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send text as it is, also what is no event and no command, to see what becomes of it
    #[arg(long, value_name = "TEXT")]
    raw: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// What the handler needs, as JSON
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = json_text)]
    payload: Box<RawValue>,
    /// Its id, a UUID: sent again under the same one, it is done once [default: a new one]
    #[arg(long)]
    id: Option<Uuid>,
    /// When it happened or was asked for, such as 2026-01-31T12:00:00Z [default: not said]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<Timestamp>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// The queue, one of tasks.queues [default: platziverse.events or platziverse.commands if that
    /// is one of them, else the first]
    #[arg(long)]
    queue: Option<String>,
    /// As JSON: {"sent": [{"id": …, "queue": …}, …]}
    #[arg(long)]
    json: bool,
}

pub(crate) fn json_text(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.to_owned()).map_err(|error| error.to_string())
}

/// What is published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) queue: String,
    kind: TaskKind,
    pub(crate) id: Uuid,
    body: String,
}

impl Message {
    /// A task that has an id, for the queue of its kind.
    pub(crate) fn of(task: &Task, tasks: &TasksConfig) -> anyhow::Result<Self> {
        How { queue: None, json: false }.message(task, tasks)
    }
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        Some("; RabbitMQ may have some of it")
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let Command::Send { one, given } = command;
    let in_force = context.load()?;
    let tasks = &in_force.settings().tasks;
    let (messages, json) = match one {
        Some(one) => one.message(tasks).map(|(message, json)| (vec![message], json))?,
        None => (given.text.messages(&given.how, tasks)?, given.how.json),
    };
    let sending = publish(&in_force, &messages);
    progress::shown("Sending to RabbitMQ", sending).await?;
    if json {
        let sent = messages.iter().map(|one| json!({ "id": one.id, "queue": one.queue }));
        return output::print_json(&json!({ "sent": sent.collect::<Vec<_>>() }));
    }
    match messages.as_slice() {
        [] => output::print("There is nothing in it to send.\n"),
        [one] => output::print(&format!("Sent {} to {}.\n", one.id, one.queue)),
        many => output::print(&format!("Sent {}.\n", output::count(many.len() as u64, "task"))),
    }
}

impl One {
    /// What it publishes, and whether it tells so as JSON.
    fn message(self, tasks: &TasksConfig) -> anyhow::Result<(Message, bool)> {
        let (kind, name, source, target, expires, common) = match self {
            Self::Event { name, source, common } => {
                (TaskKind::Event, name, source, None, None, common)
            }
            Self::Command { name, target, expires, common } => {
                (TaskKind::Command, name, None, target, expires, common)
            }
        };
        let id = Some(common.id.unwrap_or_else(Uuid::now_v7));
        let (payload, timestamp) = (common.payload, common.timestamp);
        let task = Task { kind, name, id, source, target, payload, timestamp, expires };
        Ok((common.how.message(&task, tasks)?, common.how.json))
    }
}

impl Text {
    fn messages(self, how: &How, tasks: &TasksConfig) -> anyhow::Result<Vec<Message>> {
        if let Some(path) = self.file {
            return how.of_text(&read(&path)?, tasks);
        }
        let body = self.raw.unwrap_or_default();
        let task = Task::parse(body.as_bytes()).ok();
        let kind = task.as_ref().map_or(TaskKind::Event, |task| task.kind);
        let id = task.and_then(|task| task.id).unwrap_or_else(Uuid::now_v7);
        Ok(vec![Message { queue: how.queue(kind, tasks)?, kind, id, body }])
    }
}

impl How {
    /// Where tasks of a kind go.
    fn queue(&self, kind: TaskKind, tasks: &TasksConfig) -> anyhow::Result<String> {
        if let Some(queue) = &self.queue {
            if !tasks.queues.contains(queue) {
                bail!("{queue:?} is none of tasks.queues: {}", tasks.queues.join(", "));
            }
            return Ok(queue.clone());
        }
        let queue = tasks.queue_of(kind.as_str()).context("tasks.queues names no queue")?;
        Ok(queue.to_owned())
    }

    /// A task as it is sent.
    fn message(&self, task: &Task, tasks: &TasksConfig) -> anyhow::Result<Message> {
        let body = serde_json::to_string(task)?;
        // As a worker checks it.
        Task::parse(body.as_bytes())?;
        let (queue, id) = (self.queue(task.kind, tasks)?, task.id.unwrap_or_else(Uuid::now_v7));
        Ok(Message { queue, kind: task.kind, id, body })
    }

    /// All tasks of a text, one after the other.
    fn of_text(&self, text: &str, tasks: &TasksConfig) -> anyhow::Result<Vec<Message>> {
        let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        let messages = values.enumerate().map(|(index, value)| {
            let which = || format!("task {} of the file; nothing has been sent", index + 1);
            let body = value.with_context(which)?.get();
            let task = Task::parse(body.as_bytes()).with_context(which)?;
            let (queue, id) = (self.queue(task.kind, tasks)?, task.id.unwrap_or_else(Uuid::now_v7));
            Ok(Message { queue, kind: task.kind, id, body: body.to_owned() })
        });
        messages.collect()
    }
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.with_context(|| format!("reading {}", path.display()))?;
    Ok(text)
}

/// Publishes tasks, and waits until RabbitMQ has them.
pub(crate) async fn publish(in_force: &InForce, messages: &[Message]) -> anyhow::Result<()> {
    let settings = in_force.settings();
    let topology = Topology::for_tasks(&settings.tasks, &settings.ingest);
    let name = in_force.connection_name();
    let context = BrokerContext::standalone(settings.amqp.clone(), &name, topology);
    let options = PublisherOptions {
        role: "tasks",
        batch_records: 1,
        batch_bytes: settings.gateway.batch_bytes,
        window: settings.gateway.publish_window,
        buffer_bytes: settings.gateway.publish_buffer_bytes,
    };
    let publisher = Publisher::start(&context, options)
        .await
        .map_err(|error| in_force.unreached(Server::RabbitMq, &error))?;
    let lines = messages.iter().map(|message| {
        let body = Bytes::from(message.body.clone());
        (Lane::task(&message.queue, message.kind), message.id, body)
    });
    publisher.publish_all(lines.collect()).await?;
    drop(publisher);
    context.drain.finished().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(queue: Option<&str>) -> How {
        How { queue: queue.map(str::to_owned), json: false }
    }

    #[test]
    fn where_tasks_go() {
        let ours = TasksConfig::default();
        let older = TasksConfig { queues: vec!["local_iot_core".to_owned()], ..ours.clone() };
        let check = |queue: Option<&str>, kind, tasks: &TasksConfig, want: Option<&str>| {
            let got = how(queue).queue(kind, tasks).ok();
            assert_eq!(got.as_deref(), want);
        };
        check(None, TaskKind::Event, &ours, Some("platziverse.events"));
        check(None, TaskKind::Command, &ours, Some("platziverse.commands"));
        check(Some("platziverse.events"), TaskKind::Command, &ours, Some("platziverse.events"));
        check(Some("elsewhere"), TaskKind::Event, &ours, None);
        check(None, TaskKind::Event, &older, Some("local_iot_core"));
    }

    #[test]
    fn a_file_is_sent_whole_or_not_at_all() {
        let tasks = TasksConfig::default();
        let good =
            "{\"kind\":\"event\",\"name\":\"a\"}\n\n{\"kind\": \"command\",\n \"name\": \"b\"}";
        let messages = how(None).of_text(good, &tasks).unwrap();
        let queues: Vec<_> = messages.iter().map(|message| message.queue.as_str()).collect();
        assert_eq!(queues, ["platziverse.events", "platziverse.commands"]);
        let bad = format!("{good} {{\"kind\":\"event\"}}");
        let error = how(None).of_text(&bad, &tasks).unwrap_err();
        assert!(format!("{error:#}").starts_with("task 3 of the file; nothing"), "{error:#}");
        assert!(how(None).of_text("nonsense", &tasks).is_err());
    }
}
