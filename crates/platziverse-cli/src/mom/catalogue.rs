//! What there is: creation, deletion, subscriptions.

use anyhow::bail;
use clap::Args;
use platziverse_client::{Info, Kind, Options, Shown, Which};
use platziverse_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::{Session, consume, noun};
use crate::output::{self, Table, UNKNOWN};
use crate::terminal;

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name, 1 to 128 bytes
    name: String,
    /// How many messages may wait, of a topic for each subscriber [default: the server's]
    #[arg(long, value_name = "N")]
    max_length: Option<u64>,
    /// How long a message waits before it is dead, such as 1h [default: for ever]
    #[arg(long, value_name = "TIME")]
    message_ttl: Option<humantime::Duration>,
    /// How often a message may come back; once more, and it is dead [default: the server's]
    #[arg(long, value_name = "N")]
    delivery_limit: Option<u32>,
    /// As JSON: {"name": …, "created": whether it was not there already}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Those that you subscribe to, whoever created them [default: those that you created]
    #[arg(long)]
    subscribed: bool,
    /// Only those after this name
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// As JSON: {"topics" or "queues": […], "next": the --after of what follows, or null}; times
    /// are milliseconds since 1970
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Its name
    name: String,
    /// As JSON; times are milliseconds since 1970
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// As JSON: {"deleted": the name}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Subscribe {
    /// Its name
    name: String,
    /// As JSON: {"name": …, "subscribed": true or false}
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Purge {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// As JSON: {"purged": n}
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let options = Options {
            max_length: self.max_length,
            message_ttl: self.message_ttl.map(Into::into),
            delivery_limit: self.delivery_limit,
        };
        let destination = session.destination(kind, self.name);
        let created = session.ask(destination.create(&options)).await?;
        let name = destination.name();
        if self.json {
            return output::print_json(&json!({ "name": name, "created": created }));
        }
        let noun = noun(kind);
        told(&match created {
            true => format!("Created the {noun} {name}, and subscribed to it."),
            false => format!("The {noun} {name} was there already, yours and the same."),
        })
    }
}

impl List {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let which = if self.subscribed { Which::Subscribed } else { Which::Created };
        let listed = session.client.list(kind, which, self.after.as_deref(), self.limit);
        let page = session.ask(listed).await?;
        let plural = format!("{}s", noun(kind));
        if self.json {
            let objects: Vec<Value> = page.objects.iter().map(json_of).collect();
            return output::print_json(&json!({ plural: objects, "next": page.next }));
        }
        if page.objects.is_empty() {
            return told(&format!("There are no such {plural}."));
        }
        let mut table = Table::new(["NAME", "MESSAGES", "CREATED", "CREATOR"]);
        for info in &page.objects {
            table.row([
                info.name.clone(),
                info.messages.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()),
                created_at(info).map_or_else(|| UNKNOWN.to_owned(), |time| time.to_string()),
                info.creator.to_string(),
            ]);
        }
        output::print_table(&table)?;
        if let Some(next) = page.next {
            output::complain(&format!("There are more: --after {next:?} shows them."));
        }
        Ok(())
    }
}

impl Show {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, self.name);
        let Shown { info, subscribers, is_subscribed } = session.ask(destination.show()).await?;
        if self.json {
            let mut shown = json_of(&info);
            shown["subscribers"] = subscribers.into();
            shown["subscribed"] = is_subscribed.into();
            return output::print_json(&shown);
        }
        let text = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
        let ttl = info.options.message_ttl.map(|ttl| humantime::format_duration(ttl).to_string());
        output::print(&output::pairs(&[
            ("name", info.name.clone()),
            ("creator", info.creator.to_string()),
            ("created", text(created_at(&info).map(|time| time.to_string()))),
            ("messages", text(info.messages.map(|count| count.to_string()))),
            ("subscribers", subscribers.to_string()),
            ("subscribed", if is_subscribed { "yes" } else { "no" }.to_owned()),
            ("max length", text(info.options.max_length.map(|length| length.to_string()))),
            ("message ttl", text(ttl)),
            ("delivery limit", text(info.options.delivery_limit.map(|limit| limit.to_string()))),
        ]))
    }
}

impl Delete {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let noun = noun(kind);
        let destination = session.destination(kind, self.name);
        let name = destination.name();
        if !self.yes {
            session.ask(destination.show()).await?;
            let name = output::one_line(name);
            terminal::confirm(&format!("Delete the {noun} {name} with its messages for good?"))
                .await?;
        }
        session.ask(destination.delete()).await?;
        match self.json {
            true => output::print_json(&json!({ "deleted": name })),
            false => told(&format!("Deleted the {noun} {name}.")),
        }
    }
}

impl Subscribe {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, self.name);
        session.ask(destination.subscribe()).await?;
        match self.json {
            true => output::print_json(&json!({ "name": destination.name(), "subscribed": true })),
            false => told(&format!("Subscribed to the {} {}.", noun(kind), destination.name())),
        }
    }

    pub(super) async fn end(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, self.name);
        session.ask(destination.unsubscribe()).await?;
        match self.json {
            true => output::print_json(&json!({ "name": destination.name(), "subscribed": false })),
            false => told(&format!("Unsubscribed from the {} {}.", noun(kind), destination.name())),
        }
    }
}

impl Purge {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let noun = noun(kind);
        let destination = session.destination(kind, self.name);
        if !self.yes {
            let shown = session.ask(destination.show()).await?;
            let Some(waiting) = shown.info.messages else {
                bail!("no messages of the {noun} wait for you: you do not subscribe to it");
            };
            let messages = output::count(waiting.into(), "message");
            let name = output::one_line(destination.name());
            terminal::confirm(&format!("Delete {messages} of the {noun} {name} for good?")).await?;
        }
        let purged = session.ask(destination.purge()).await?;
        match self.json {
            true => output::print_json(&json!({ "purged": purged })),
            false => told(&format!("Deleted {}.", output::count(purged.into(), "message"))),
        }
    }
}

fn json_of(info: &Info) -> Value {
    json!({
        "name": info.name,
        "creator": info.creator,
        "created_at": created_at(info),
        "messages": info.messages,
        "max_length": info.options.max_length,
        "message_ttl": info.options.message_ttl.map(|ttl| ttl.as_millis() as u64),
        "delivery_limit": info.options.delivery_limit,
    })
}

fn created_at(info: &Info) -> Option<Timestamp> {
    consume::timestamp(info.created_at?)
}

/// Prints a sentence, in which somebody else's words may be.
fn told(sentence: &str) -> anyhow::Result<()> {
    output::print(&format!("{}\n", output::one_line(sentence)))
}
