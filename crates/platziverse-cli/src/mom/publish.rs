//! Messages from arguments and standard input.

use std::io::{BufRead, Read};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use platziverse_client::{Destination, Kind, NewMessage};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Session, noun};
use crate::output;

/// Bytes of a body that are read from standard input: as many as any server can be set to take.
const BODY_MAX: u64 = 8 << 20;
/// Lines that are read ahead.
const AHEAD: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Where to: the name of the topic or queue
    name: String,
    /// What it says; - is standard input [default: -]
    body: Option<String>,
    /// What the body is [default: text/plain; charset=utf-8 if it is text, else
    /// application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// What else is to be known of it; may be given more than once
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Published again under the same key, it is published once
    #[arg(long, value_name = "KEY", conflicts_with = "lines")]
    idempotency_key: Option<String>,
    /// Publish each line of standard input as a message of its own, without its line break, until no
    /// server takes one
    #[arg(long, conflicts_with = "body")]
    lines: bool,
    /// As JSON: {"id": …, "receivers": n}; with --lines {"published": n}
    #[arg(long)]
    json: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Publish {
    pub(super) async fn run(mut self, kind: Kind, session: &Session) -> anyhow::Result<()> {
        let destination = session.destination(kind, std::mem::take(&mut self.name));
        if self.lines {
            return self.each_line(&destination, session).await;
        }
        let body = match self.body.take().filter(|body| body != "-") {
            Some(body) => body.into_bytes(),
            None => tokio::task::spawn_blocking(standard_input).await??,
        };
        let mut message = self.message(body.into());
        message.idempotency_key = self.idempotency_key.unwrap_or_default();
        let published = session.ask(destination.publish(message)).await?;
        let (id, receivers) = (published.id, published.receivers);
        if self.json {
            return output::print_json(&json!({ "id": id, "receivers": receivers }));
        }
        output::print(&match kind {
            Kind::Queue => format!("Published {id}.\n"),
            Kind::Topic => {
                let receivers = output::count(receivers.into(), "subscriber");
                format!("Published {id} to {receivers}.\n")
            }
        })
    }

    async fn each_line(self, destination: &Destination, session: &Session) -> anyhow::Result<()> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let reading = tokio::task::spawn_blocking(move || read_lines(&sender));
        let noun = noun(destination.kind());
        let lines = stream::unfold(receiver, async |mut lines| {
            lines.recv().await.map(|line| (line, lines))
        });
        let json = self.json;
        let messages = lines.map(move |line: Vec<u8>| self.message(line.into()));
        let mut results = std::pin::pin!(destination.publish_all(messages));
        let (mut published, mut refused, mut first, mut lost) = (0, 0, None, None);
        while let Some(result) = results.next().await {
            let Err(error) = result else {
                published += 1;
                continue;
            };
            refused += 1;
            let line = published + refused;
            if error.is_passing() {
                lost = Some((line, session.address.told(&error)));
                break;
            }
            first.get_or_insert_with(|| (line, session.address.told(&error)));
        }
        match json {
            true => output::print_json(&json!({ "published": published }))?,
            false => {
                let messages = output::count(published, "message");
                output::print(&format!("Published {messages} to the {noun}.\n"))?;
            }
        }
        if let Some((line, error)) = lost {
            bail!("line {line} and those after it may not have been published: {error:#}");
        }
        if let Some((line, error)) = first {
            let messages = output::count(refused, "message");
            bail!("{messages} could not be published, first line {line}: {error:#}");
        }
        reading.await?
    }

    fn message(&self, body: Bytes) -> NewMessage {
        let content_type = self.content_type.clone().unwrap_or_else(|| {
            let is_text = std::str::from_utf8(&body).is_ok();
            if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" }
                .to_owned()
        });
        let mut message = NewMessage::new(body).content_type(content_type);
        message.headers.extend(self.headers.iter().cloned());
        message
    }
}

fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut input = std::io::stdin().lock().take(BODY_MAX + 1);
    input.read_to_end(&mut body).context("reading the message from standard input")?;
    if body.len() as u64 > BODY_MAX {
        bail!("standard input has more than {}", output::bytes(BODY_MAX));
    }
    Ok(body)
}

/// Hands over each line until nobody wants more.
fn read_lines(lines: &mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    for number in 1.. {
        let Some(line) = read_line(&mut input, number)? else { break };
        if lines.blocking_send(line).is_err() {
            break;
        }
    }
    Ok(())
}

/// The next line, without its line break.
fn read_line(input: &mut impl BufRead, number: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.take(BODY_MAX + 1).read_until(b'\n', &mut line);
    if read.context("reading messages from standard input")? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() as u64 > BODY_MAX {
        bail!(
            "line {number} has more than {}; those before it are published",
            output::bytes(BODY_MAX)
        );
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("a").is_err());
    }

    #[test]
    fn a_line_is_one_message_or_none() {
        let lines = |mut input: &[u8]| {
            let mut lines = Vec::new();
            while let Some(line) = read_line(&mut input, 1)? {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            anyhow::Ok(lines)
        };
        assert_eq!(lines(b"").unwrap(), Vec::<String>::new());
        assert_eq!(lines(b"a\n\nb").unwrap(), ["a", "", "b"]);
        let longest = vec![b'x'; 8 << 20];
        assert_eq!(lines(&[&longest[..], b"\nb"].concat()).unwrap()[1], "b");
        let error = lines(&[&longest[..], b"x\nb"].concat()).unwrap_err().to_string();
        assert!(error.starts_with("line 1 has more than 8.0 MiB"), "{error}");
    }
}
