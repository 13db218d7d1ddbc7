//! `platziverse dead`: messages that could not be stored or delivered.

mod view;

use anyhow::bail;
use clap::{Args, Subcommand};
use platziverse_broker::dead::{self, DeadEntry, DeadMessage, Selection};
use platziverse_broker::{BrokerError, Connection, connect};
use platziverse_protocol::dead::Reason;

use crate::output;
use crate::settings::{Context, Server};
use crate::{progress, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List dead letters, the oldest first; they stay where they are
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        reason: OfReason,
    },
    /// Show one dead letter whole: headers and body
    Show {
        /// Its id, as `dead list` shows it
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters back to where they came from; what is refused again comes back
    ///
    /// Letters with the reason not_authorized are sent back only when they are named, by id or with
    /// --reason not_authorized.
    Replay {
        #[command(flatten)]
        which: Which,
    },
    /// Delete dead letters for good
    Purge {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OfReason {
    /// Only those with this reason, such as invalid_json
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

/// Which dead letters; all of them if nothing is said.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only these [default: all]
    #[arg(value_name = "ID", conflicts_with = "reason")]
    ids: Vec<String>,
    #[command(flatten)]
    reason: OfReason,
}

impl From<OfReason> for Selection {
    fn from(of: OfReason) -> Self {
        of.reason.map_or(Self::All, Self::Reason)
    }
}

impl From<Which> for Selection {
    fn from(which: Which) -> Self {
        if which.ids.is_empty() {
            which.reason.into()
        } else {
            Self::Ids(which.ids.into_iter().collect())
        }
    }
}

impl Command {
    /// What a person who stops the command in the middle should know.
    pub(crate) fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Self::List { .. } | Self::Show { .. } => None,
            Self::Replay { .. } => Some("; what was not sent back yet is still a dead letter"),
            Self::Purge { .. } => Some("; what was not deleted yet is still a dead letter"),
        }
    }
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let session = Session { context };
    match command {
        Command::List { json, limit, reason } => {
            let limit = usize::try_from(limit)?;
            list(&session, &reason.into(), limit, json).await
        }
        Command::Show { id, json } => show(&session, &id, json).await,
        Command::Replay { which } => replay(&session, &which.into()).await,
        Command::Purge { which, yes } => purge(&session, &which.into(), yes).await,
    }
}

/// The way to RabbitMQ, taken once for each command.
struct Session<'a> {
    context: &'a Context,
}

impl Session<'_> {
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Connection) -> Result<T, BrokerError>,
    ) -> anyhow::Result<T> {
        let in_force = self.context.load()?;
        let unreached = |error: BrokerError| in_force.unreached(Server::RabbitMq, &error);
        let name = in_force.connection_name();
        let connection = connect(&in_force.settings().amqp, &name).await.map_err(unreached)?;
        let answer = question(&connection).await;
        connection.close().await;
        Ok(answer?)
    }
}

async fn list(
    session: &Session<'_>,
    selection: &Selection,
    limit: usize,
    json: bool,
) -> anyhow::Result<()> {
    // One more than asked for tells whether there are more.
    let asked = session.ask(async |connection| dead::list(connection, selection, limit + 1).await);
    let mut entries: Vec<DeadEntry> = progress::shown("Reading dead letters", asked).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    // What a command has looked at and put back need not be in the order in which it came.
    entries.sort_by_key(|entry| entry.at);
    if json {
        output::print_json(&entries)?;
    } else if entries.is_empty() {
        output::print(&format!("{}\n", none(selection)))?;
    } else {
        output::print_table(&view::list(&entries))?;
    }
    if more {
        let shown = output::count(limit.try_into()?, "dead letter");
        output::complain(&format!("Only the first {shown}: --limit N shows more."));
    }
    Ok(())
}

async fn show(session: &Session<'_>, id: &str, json: bool) -> anyhow::Result<()> {
    let found = session.ask(async |connection| dead::show(connection, id).await);
    let found: Option<DeadMessage> = progress::shown("Looking for the dead letter", found).await?;
    match found {
        Some(message) if json => output::print_json(&view::json(&message)?),
        Some(message) => output::print(&view::text(&message)),
        None => bail!("no dead letter has the id {id:?}: `platziverse dead list` shows their ids"),
    }
}

async fn replay(session: &Session<'_>, selection: &Selection) -> anyhow::Result<()> {
    let replayed = session.ask(async |connection| dead::replay(connection, selection).await);
    let replayed = progress::shown("Sending dead letters back", replayed).await?;
    if replayed == 0 && *selection == Selection::All {
        return output::print(
            "There are no dead letters to send back, except perhaps those with the reason \
             not_authorized: they are sent back only by id or with --reason not_authorized.\n",
        );
    }
    output::print(&done("Sent back", replayed, selection)?)
}

async fn purge(session: &Session<'_>, selection: &Selection, yes: bool) -> anyhow::Result<()> {
    let question = format!("Delete {} for good?", which(selection));
    if !terminal::confirmed(yes, &question).await? {
        return Ok(());
    }
    let purged = session.ask(async |connection| dead::purge(connection, selection).await);
    let purged = progress::shown("Deleting dead letters", purged).await?;
    output::print(&done("Deleted", purged, selection)?)
}

fn which(selection: &Selection) -> String {
    match selection {
        Selection::All => "all dead letters".to_owned(),
        Selection::Ids(ids) if ids.len() == 1 => "this dead letter".to_owned(),
        Selection::Ids(ids) => format!("these {} dead letters", ids.len()),
        Selection::Reason(reason) => format!("all dead letters with the reason {reason:?}"),
    }
}

/// In words, what was done to how many; a failure if ids were given that are none's.
fn done(what: &str, number: u64, selection: &Selection) -> anyhow::Result<String> {
    let text = match number {
        0 => none(selection),
        _ => format!("{what} {}.", output::count(number, "dead letter")),
    };
    if let Selection::Ids(ids) = selection {
        let asked = u64::try_from(ids.len())?;
        if number < asked {
            bail!("{text} Of the ids given, {} of {asked} are no dead letter's.", asked - number);
        }
    }
    Ok(format!("{text}\n"))
}

/// In words, that there is none; with the reasons that exist if none of them was asked for.
fn none(selection: &Selection) -> String {
    match selection {
        Selection::All => "There are no dead letters.".to_owned(),
        Selection::Ids(_) => "None was found.".to_owned(),
        Selection::Reason(reason) if reason.parse::<Reason>().is_ok() => {
            format!("No dead letter has the reason {reason}.")
        }
        Selection::Reason(reason) => format!(
            "No dead letter has the reason {reason:?}. Reasons are {}, and those that RabbitMQ \
             gives.",
            Reason::ALL.map(Reason::as_str).join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Selection {
        Selection::Ids(ids.iter().map(|id| (*id).to_owned()).collect())
    }

    #[test]
    fn ids_that_were_not_found_are_a_failure() {
        let check = |number: u64, selection: &Selection, want: Result<&str, &str>| {
            let text = done("Sent back", number, selection).map_err(|error| error.to_string());
            assert_eq!(text.as_deref().map_err(String::as_str), want);
        };
        check(2, &ids(&["a", "b"]), Ok("Sent back 2 dead letters.\n"));
        check(
            1,
            &ids(&["a", "b"]),
            Err("Sent back 1 dead letter. Of the ids given, 1 of 2 are no dead letter's."),
        );
        check(0, &Selection::All, Ok("There are no dead letters.\n"));
    }

    #[test]
    fn a_misspelt_reason_is_told_the_others() {
        assert_eq!(
            none(&Selection::Reason("invalid_json".to_owned())),
            "No dead letter has the reason invalid_json."
        );
        let text = none(&Selection::Reason("invalid".to_owned()));
        assert!(text.contains("invalid_json, invalid_payload"), "{text}");
    }
}
