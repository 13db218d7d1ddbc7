//! `platziverse dead`: messages that could not be stored or delivered.

mod view;

use anyhow::bail;
use clap::{Args, Subcommand};
use platziverse_broker::dead::{self, DeadEntry, DeadMessage, Handled, Selection};
use platziverse_broker::{BrokerError, Connection, connect};
use platziverse_protocol::dead::Reason;
use serde_json::json;

use crate::output;
use crate::settings::{Context, InForce, Server};
use crate::{progress, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List dead letters, the oldest first; they stay where they are
    List {
        /// As JSON: {"entries": […], "truncated": whether there are more than --limit}
        #[arg(long)]
        json: bool,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        reason: OfReason,
    },
    /// Show one dead letter whole: headers, and what was published
    Show {
        /// Its id, as `dead list` shows it
        id: String,
        /// As JSON, with the body as it is and "records" as they were published
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters back to where they came from; what is refused again comes back
    ///
    /// Letters with the reason not_authorized are sent back only when they are named, by id or with
    /// --reason not_authorized. Those with the reason packet_too_large are never sent back: only
    /// the start of the packet was kept.
    Replay {
        #[command(flatten)]
        which: Which,
        /// As JSON: {"replayed": n}
        #[arg(long)]
        json: bool,
    },
    /// Delete dead letters for good
    Purge {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// As JSON: {"deleted": n}
        #[arg(long)]
        json: bool,
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
    let session = Session { in_force: context.load()? };
    match command {
        Command::List { json, limit, reason } => {
            let limit = usize::try_from(limit)?;
            list(&session, &reason.into(), limit, json).await
        }
        Command::Show { id, json } => show(&session, &id, json).await,
        Command::Replay { which, json } => replay(&session, &which.into(), json).await,
        Command::Purge { which, yes, json } => purge(&session, &which.into(), yes, json).await,
    }
}

/// The way to RabbitMQ.
struct Session {
    in_force: InForce,
}

impl Session {
    async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Connection) -> Result<T, BrokerError>,
    ) -> anyhow::Result<T> {
        let unreached = |error: BrokerError| self.in_force.unreached(Server::RabbitMq, &error);
        let name = self.in_force.connection_name();
        let connection = connect(&self.in_force.settings().amqp, &name).await.map_err(unreached)?;
        let answer = question(&connection).await;
        connection.close().await;
        Ok(answer?)
    }
}

async fn list(
    session: &Session,
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
        return output::print_json(&json!({ "entries": entries, "truncated": more }));
    }
    if entries.is_empty() {
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

async fn show(session: &Session, id: &str, json: bool) -> anyhow::Result<()> {
    let found = session.ask(async |connection| dead::show(connection, id).await);
    let found: Option<DeadMessage> = progress::shown("Looking for the dead letter", found).await?;
    match found {
        Some(message) if json => output::print_json(&view::json(&message)?),
        Some(message) => output::print(&view::text(&message)),
        None => bail!("no dead letter has the id {id:?}: `platziverse dead list` shows their ids"),
    }
}

async fn replay(session: &Session, selection: &Selection, json: bool) -> anyhow::Result<()> {
    if *selection == Selection::Reason(Reason::PacketTooLarge.to_string()) {
        bail!("dead letters with the reason packet_too_large are not sent back: {CUT}");
    }
    let replayed = session.ask(async |connection| dead::replay(connection, selection).await);
    let handled = progress::shown("Sending dead letters back", replayed).await?;
    if json {
        output::print_json(&json!({ "replayed": handled.count }))?;
    } else if let Some(text) = sent_back(&handled, selection) {
        output::print(&text)?;
    }
    all_found(&handled, selection)
}

/// In words, how many were sent back; nothing if all that were found had to stay, which is a
/// failure and told as one.
fn sent_back(handled: &Handled, selection: &Selection) -> Option<String> {
    match handled.count {
        0 if *selection == Selection::All => Some(
            "There are no dead letters to send back, except perhaps those with the reason \
             not_authorized, which are sent back only by id or with --reason not_authorized, and \
             those with the reason packet_too_large, of which only the start was kept.\n"
                .to_owned(),
        ),
        0 if handled.cut > 0 => None,
        count => Some(done("Sent back", count, selection)),
    }
}

/// Why a letter is never sent back.
const CUT: &str = "only the start of the packet was kept, which nobody has sent as a message";

async fn purge(
    session: &Session,
    selection: &Selection,
    yes: bool,
    json: bool,
) -> anyhow::Result<()> {
    if !yes {
        let count = session.ask(async |connection| dead::count(connection).await).await?;
        if count == 0 {
            // Nobody was asked: what comes meanwhile stays.
            return deleted(&Handled::default(), selection, json);
        }
        let address = session.in_force.settings().amqp.address();
        terminal::confirm(&question(selection, count, &address)).await?;
    }
    let purged = session.ask(async |connection| dead::purge(connection, selection).await);
    let handled = progress::shown("Deleting dead letters", purged).await?;
    deleted(&handled, selection, json)
}

/// Prints how many were deleted.
fn deleted(handled: &Handled, selection: &Selection, json: bool) -> anyhow::Result<()> {
    if json {
        output::print_json(&json!({ "deleted": handled.count }))?;
    } else {
        output::print(&done("Deleted", handled.count, selection))?;
    }
    all_found(handled, selection)
}

/// What is asked before anything is deleted, of `count` dead letters at `address`.
fn question(selection: &Selection, count: u64, address: &str) -> String {
    let there = format!("{} of RabbitMQ at {address}", output::count(count, "dead letter"));
    match selection {
        Selection::All if count == 1 => format!("Delete the {there} for good?"),
        Selection::All => format!("Delete all {there} for good?"),
        Selection::Ids(ids) => {
            let named = output::count(ids.len() as u64, "id");
            format!("Of the {there}, delete those with the {named} given for good?")
        }
        Selection::Reason(reason) => {
            format!("Of the {there}, delete those with the reason {reason:?} for good?")
        }
    }
}

/// In words, what was done to how many.
fn done(what: &str, number: u64, selection: &Selection) -> String {
    match number {
        0 => format!("{}\n", none(selection)),
        _ => format!("{what} {}.\n", output::count(number, "dead letter")),
    }
}

/// A failure if ids were given that are none's, or name letters that are never sent back.
fn all_found(handled: &Handled, selection: &Selection) -> anyhow::Result<()> {
    let Selection::Ids(asked) = selection else { return Ok(()) };
    let missing: Vec<&str> = asked.difference(&handled.ids).map(String::as_str).collect();
    let mut complaints = Vec::new();
    if !missing.is_empty() {
        let (are, ids) = (if missing.len() == 1 { "is" } else { "are" }, missing.join(", "));
        complaints.push(format!("of the ids given, {ids} {are} no dead letter's"));
    }
    if handled.cut > 0 {
        let letters = output::count(handled.cut, "dead letter");
        complaints.push(format!("{letters} with the reason packet_too_large stayed: {CUT}"));
    }
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("; ")) }
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
        let check = |found: &[&str], cut: u64, want: Option<&str>| {
            let found = found.iter().map(|id| (*id).to_owned()).collect();
            // Letters may share an id: how many there are says nothing.
            let handled = Handled { count: 9, ids: found, cut };
            let error = all_found(&handled, &ids(&["a", "b"])).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), want);
        };
        check(&["a", "b"], 0, None);
        check(&["b"], 0, Some("of the ids given, a is no dead letter's"));
        check(&[], 0, Some("of the ids given, a, b are no dead letter's"));
        check(
            &["a", "b"],
            1,
            Some(
                "1 dead letter with the reason packet_too_large stayed: only the start of the \
                 packet was kept, which nobody has sent as a message",
            ),
        );
        assert!(all_found(&Handled::default(), &Selection::All).is_ok());
    }

    #[test]
    fn letters_that_stay_are_not_told_as_missing() {
        let check = |count: u64, cut: u64, selection: &Selection, want: Option<&str>| {
            let handled = Handled { count, cut, ..Handled::default() };
            assert_eq!(sent_back(&handled, selection).as_deref(), want);
        };
        check(0, 1, &ids(&["a"]), None);
        check(2, 1, &ids(&["a", "b", "c"]), Some("Sent back 2 dead letters.\n"));
        check(0, 0, &ids(&["a"]), Some("None was found.\n"));
        let reason = Selection::Reason("invalid_json".to_owned());
        check(0, 0, &reason, Some("No dead letter has the reason invalid_json.\n"));
        let all = sent_back(&Handled { cut: 3, ..Handled::default() }, &Selection::All);
        assert!(all.is_some_and(|text| text.starts_with("There are no dead letters to send back")));
    }

    #[test]
    fn a_question_says_where_and_how_many() {
        let check = |selection: &Selection, count: u64, want: &str| {
            assert_eq!(question(selection, count, "h:1/v"), want);
        };
        let all = "Delete all 1,234 dead letters of RabbitMQ at h:1/v for good?";
        check(&Selection::All, 1_234, all);
        check(&Selection::All, 1, "Delete the 1 dead letter of RabbitMQ at h:1/v for good?");
        let two = "Of the 9 dead letters of RabbitMQ at h:1/v, delete those with the 2 ids given for \
                   good?";
        check(&ids(&["a", "b"]), 9, two);
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
