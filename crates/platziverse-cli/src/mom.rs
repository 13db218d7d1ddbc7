//! `platziverse topic`, `queue` and `key`: topics and queues for applications, as any of them sees
//! them.

mod catalogue;
mod consume;
pub(crate) mod key;
mod publish;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use platziverse_client::{Builder, Client, Destination, Error, Kind};
use platziverse_config::Secret;

use crate::progress;
use crate::settings::{Context, InForce};

/// For how long a server that does not answer is asked again.
const RETRY_FOR: Duration = Duration::from_secs(10);
const BUILT_IN: &str = "http://127.0.0.1:50052";
/// What has it in `.run/env`.
const ADDRESS: &str = "MOM_GRPC_URL";

/// A topic or a queue.
#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    access: Access,
    #[command(subcommand)]
    command: Command,
}

/// How the service is reached, and as whom.
#[derive(Debug, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    server: Server,
    /// The file with the key [default: the setting mom.key]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    /// The service's gRPC address [default: the setting mom.url, else .run/env, else
    /// http://127.0.0.1:50052]
    #[arg(long, global = true)]
    url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create one, and subscribe to it
    Create(catalogue::Create),
    /// List those that you created, or those that you subscribe to
    List(catalogue::List),
    /// Show one: who created it, and how many messages wait
    Show(catalogue::Show),
    /// Delete one that you created, with its messages
    Delete(catalogue::Delete),
    /// Subscribe to one
    Subscribe(catalogue::Subscribe),
    /// End your subscription; of a topic, the messages that wait for you are deleted
    Unsubscribe(catalogue::Subscribe),
    /// Publish a message, and wait until it is stored safely
    Publish(publish::Publish),
    /// Take messages, print them, each with a line break at its end, and acknowledge them
    Consume(consume::Consume),
    /// Print the first messages and leave them where they are; before RabbitMQ 4.3, each look counts
    /// as a delivery of theirs
    Peek(consume::Peek),
    /// Delete the messages that wait: of a queue that you created, or your own of a topic
    Purge(catalogue::Purge),
}

impl Place {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match &self.command {
            Command::List(_) | Command::Show(_) | Command::Peek(_) => None,
            Command::Consume(consume) => Some(consume.when_interrupted()),
            Command::Publish(_) => Some("; the message may have been published"),
            Command::Create(_)
            | Command::Delete(_)
            | Command::Subscribe(_)
            | Command::Unsubscribe(_)
            | Command::Purge(_) => Some("; it may have been done"),
        }
    }
}

pub(crate) async fn run(kind: Kind, place: Place, context: &Context) -> anyhow::Result<()> {
    let session = Session::open(&place.access, &context.load()?)?;
    match place.command {
        Command::Create(create) => create.run(kind, &session).await,
        Command::List(list) => list.run(kind, &session).await,
        Command::Show(show) => show.run(kind, &session).await,
        Command::Delete(delete) => delete.run(kind, &session).await,
        Command::Subscribe(subscribe) => subscribe.run(kind, &session).await,
        Command::Unsubscribe(subscribe) => subscribe.end(kind, &session).await,
        Command::Publish(publish) => publish.run(kind, &session).await,
        Command::Consume(consume) => consume.run(kind, &session).await,
        Command::Peek(peek) => peek.run(kind, &session).await,
        Command::Purge(purge) => purge.run(kind, &session).await,
    }
}

/// `topic` or `queue`.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Topic => "topic",
        Kind::Queue => "queue",
    }
}

/// A client with a key.
struct Session {
    client: Client,
    address: Address,
}

impl Session {
    fn open(access: &Access, in_force: &InForce) -> anyhow::Result<Self> {
        let key = match &access.key_file {
            Some(file) => read_key(file)?,
            None => key_of_settings(in_force)?,
        };
        let address = access.server.address(in_force);
        let client = address.builder().key(key.expose()).build()?;
        Ok(Self { client, address })
    }

    fn destination(&self, kind: Kind, name: String) -> Destination {
        match kind {
            Kind::Topic => self.client.topic(name),
            Kind::Queue => self.client.queue(name),
        }
    }

    /// Waits for an answer, and shows meanwhile that it waits.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
        self.address.ask(answer).await
    }
}

/// Where the service is.
struct Address {
    url: String,
    is_built_in: bool,
}

impl Server {
    fn address(&self, in_force: &InForce) -> Address {
        let said = || self.url.clone().or_else(|| in_force.settings().mom.url.clone());
        let found = || in_force.run_env()?.get(ADDRESS).map(str::to_owned);
        match said().or_else(found) {
            Some(url) => Address { url, is_built_in: false },
            None => Address { url: BUILT_IN.to_owned(), is_built_in: true },
        }
    }
}

impl Address {
    fn builder(&self) -> Builder {
        Client::builder(&self.url).retry_for(RETRY_FOR)
    }

    /// Waits for an answer, and shows meanwhile that it waits.
    async fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
        let answer = progress::shown(&format!("Asking {}", self.url), answer).await;
        answer.map_err(|error| self.told(&error))
    }

    /// An error, with what to do if no server was reached and nothing says where it is.
    fn told(&self, error: &Error) -> anyhow::Error {
        match error {
            Error::Unreached(_) if self.is_built_in => anyhow!(
                "{}: {error}\nNothing says where the service is, so this is the built-in address: \
                 start the system with scripts/up, or give --url URL, or set PLATZIVERSE_MOM__URL.",
                self.url
            ),
            Error::Unreached(_) => anyhow!("{}: {error}", self.url),
            error => anyhow!("{error}"),
        }
    }
}

fn read_key(file: &Path) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading the key from {}", file.display()))?;
    match text.trim() {
        "" => bail!("there is no key in {}", file.display()),
        key => Ok(Secret::new(key)),
    }
}

fn key_of_settings(in_force: &InForce) -> anyhow::Result<Secret> {
    in_force.settings().mom.key.clone().context(
        "there is no key: give --key-file FILE, or set mom.key (PLATZIVERSE_MOM__KEY, or \
         PLATZIVERSE_MOM__KEY_FILE with the name of a file); `platziverse key create` makes one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_has_one_key() {
        let file = std::env::temp_dir().join(format!("platziverse-key-{}", std::process::id()));
        std::fs::write(&file, "pk_x\n").unwrap();
        assert_eq!(read_key(&file).unwrap().expose(), "pk_x");
        std::fs::write(&file, " \n").unwrap();
        assert!(read_key(&file).unwrap_err().to_string().starts_with("there is no key in"));
        std::fs::remove_file(&file).unwrap();
        assert!(read_key(&file).unwrap_err().to_string().starts_with("reading the key from"));
    }
}
