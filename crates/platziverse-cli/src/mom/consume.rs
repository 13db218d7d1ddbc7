//! Messages to standard output.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use platziverse_client::{Delivery, Destination, Kind, Message};
use platziverse_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::Session;
use crate::output;

/// How long a message may take to be printed.
const LEASE: Duration = Duration::from_secs(60);
/// Messages that are fetched ahead.
const PREFETCH: u16 = 100;

#[derive(Debug, Args)]
pub(super) struct Consume {
    /// From where: the name of the topic or queue
    name: String,
    /// Go on until interrupted, also when the server is away for a while
    #[arg(long, conflicts_with = "wait")]
    follow: bool,
    /// How long to wait for a message, such as 30s; without one, the command fails [default: not at
    /// all]
    #[arg(long, value_name = "TIME")]
    wait: Option<humantime::Duration>,
    /// How many messages at most [default: 1; with --follow no limit]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// When a message is acknowledged: after it was printed (manual), so that it may be printed
    /// twice; or as it is delivered (auto), so that it may be lost
    #[arg(long, value_enum, default_value_t = Ack::Manual)]
    ack: Ack,
    /// As JSON, an object a line: {"id", "content_type", "headers", "body" or "body_base64",
    /// "publisher", "timestamp", "redelivered"}; times are milliseconds since 1970
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ack {
    Auto,
    Manual,
}

#[derive(Debug, Args)]
pub(super) struct Peek {
    /// The name of the topic or queue
    name: String,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// As JSON, an object a line, as `consume --json`
    #[arg(long)]
    json: bool,
}

impl Peek {
    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, self.name);
        let messages = session.ask(destination.peek(self.limit)).await?;
        for message in &messages {
            if !print(message, self.json)? {
                break;
            }
        }
        Ok(())
    }
}

impl Consume {
    /// What a person who stops it in the middle should know.
    pub(super) fn when_interrupted(&self) -> &'static str {
        match self.ack {
            Ack::Manual => "; what was not acknowledged is delivered again",
            Ack::Auto => "; what was on its way may be lost",
        }
    }

    pub(super) async fn run(self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, self.name.clone());
        match self.follow {
            true => self.follow(&destination, session).await,
            false => self.some(&destination, session).await,
        }
    }

    /// Takes messages until there is none.
    async fn some(&self, destination: &Destination, session: &Session) -> anyhow::Result<()> {
        let wait = self.wait.map(Duration::from).unwrap_or_default();
        for taken in 0..self.count.unwrap_or(1) {
            let goes_on = match self.ack {
                Ack::Auto => match session.ask(destination.take(wait)).await? {
                    Some(message) => print(&message, self.json)?,
                    None => return some_came(taken),
                },
                Ack::Manual => match session.ask(destination.lend(wait, LEASE)).await? {
                    Some(lent) => {
                        let printed = print(&lent.message, self.json)?;
                        let settled =
                            async { if printed { lent.ack().await } else { lent.nack().await } };
                        session.ask(settled).await?;
                        printed
                    }
                    None => return some_came(taken),
                },
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    async fn follow(&self, destination: &Destination, session: &Session) -> anyhow::Result<()> {
        // A wrong name or address is told at once.
        session.ask(destination.show()).await?;
        let most = self.count.unwrap_or(u64::MAX);
        let prefetch = u16::try_from(most).unwrap_or(PREFETCH).min(PREFETCH);
        let mut deliveries = destination.consume(prefetch);
        let mut printed = 0;
        while printed < most {
            let delivery = match deliveries.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) if error.is_passing() => {
                    output::complain(&format!("platziverse: {error}; it is tried again"));
                    continue;
                }
                Some(Err(error)) => return Err(session.address.told(&error)),
                None => break,
            };
            if !self.handle(delivery)? {
                break;
            }
            printed += 1;
        }
        session.ask(deliveries.close()).await
    }

    /// Prints and acknowledges a message; whether anybody still reads.
    fn handle(&self, delivery: Delivery) -> anyhow::Result<bool> {
        let message = delivery.message.clone();
        let (goes_on, settled) = match self.ack {
            Ack::Auto => {
                let settled = delivery.ack();
                (print(&message, self.json)?, settled)
            }
            Ack::Manual if print(&message, self.json)? => (true, delivery.ack()),
            Ack::Manual => (false, delivery.nack()),
        };
        if let Err(error) = settled {
            output::complain(&format!("platziverse: {error}"));
        }
        Ok(goes_on)
    }
}

/// A failure if not one message came.
fn some_came(count: u64) -> anyhow::Result<()> {
    if count == 0 {
        bail!("no message waits, and none came");
    }
    Ok(())
}

/// Prints a message; `false` if whoever reads has gone.
fn print(message: &Message, json: bool) -> anyhow::Result<bool> {
    let mut text = match json {
        true => serde_json::to_vec(&json_of(message))?,
        // What could steer a terminal is escaped.
        false if io::stdout().is_terminal() => {
            output::lines(&String::from_utf8_lossy(&message.body)).into_bytes()
        }
        false => message.body.to_vec(),
    };
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("writing to standard output"),
    }
}

fn json_of(message: &Message) -> Value {
    let mut json = json!({
        "id": message.id,
        "content_type": message.content_type,
        "headers": message.headers,
        "publisher": message.publisher,
        "timestamp": message.timestamp.and_then(timestamp),
        "redelivered": message.redelivered,
    });
    match std::str::from_utf8(&message.body) {
        Ok(text) => json["body"] = text.into(),
        Err(_) => json["body_base64"] = STANDARD.encode(&message.body).into(),
    }
    json
}

/// A time as it is shown.
pub(super) fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let millis = time.duration_since(UNIX_EPOCH).ok()?.as_millis();
    Timestamp::from_millis(millis.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &'static [u8]) -> Message {
        Message {
            id: None,
            content_type: "text/plain".to_owned(),
            headers: [("a".to_owned(), "b".to_owned())].into(),
            body: body.into(),
            publisher: None,
            timestamp: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
            redelivered: true,
        }
    }

    #[test]
    fn bodies_are_text_or_base64() {
        let text = json_of(&message(b"hi"));
        assert_eq!((&text["body"], &text["timestamp"]), (&json!("hi"), &json!(1_500)));
        assert_eq!(text["headers"], json!({ "a": "b" }));
        let bytes = json_of(&message(b"\xff\x00"));
        assert_eq!(bytes["body_base64"], json!("/wA="));
        assert!(bytes.get("body").is_none());
    }

    #[test]
    fn nothing_is_a_failure_only_if_nothing_came() {
        assert!(some_came(0).is_err());
        assert!(some_came(1).is_ok());
    }
}
