//! What RabbitMQ confirmed, against rows, against what agents know. Pure.

use std::collections::BTreeMap;

use super::diary::Deeds;
use super::kind::{End, error, target};
use crate::reconcile::{Tally, some};
use crate::sender::Sent;

/// Of the commands that were answered, the share whose rows must say when they were delivered: a
/// gateway that dies after a PUBACK tells nobody of it, but most do not.
const DELIVERED: f64 = 0.5;

/// A row of `commands`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// Its id.
    pub id: String,
    /// The command's own number.
    pub number: u64,
    /// The agent.
    pub target: String,
    /// Its state.
    pub state: String,
    /// What was answered: the number, and by whom.
    pub done: Option<(u64, String)>,
    /// Why it was not done.
    pub error: Option<String>,
    /// When it was delivered, in milliseconds since 1970.
    pub delivered: Option<i64>,
    /// Whether it ended before it expired.
    pub in_time: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Kept {
    /// The rows.
    pub commands: Vec<CommandRow>,
    /// What the agents did, by number.
    pub deeds: BTreeMap<u64, Deeds>,
    /// What nobody sent, in words.
    pub strange: Vec<String>,
}

/// Reconciles all sides; `agents` are their uuids, by number.
pub fn reconcile(sent: &[Sent], agents: &[&str], kept: &Kept) -> Tally {
    let mut tally = Tally { attempted: sent.len() as u64, ..Tally::default() };
    let mut rows = BTreeMap::<u64, Vec<&CommandRow>>::new();
    for row in &kept.commands {
        rows.entry(row.number).or_default().push(row);
    }
    let mut deeds = kept.deeds.clone();
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    let (mut repeats, mut answered, mut delivered) = (0, 0, 0);
    for (number, sent) in (0..).zip(sent) {
        let place = usize::try_from(target(number)).unwrap_or_default();
        let command = Command {
            number,
            sent: *sent,
            agent: agents.get(place).copied().unwrap_or_default(),
            rows: rows.remove(&number).unwrap_or_default(),
            deeds: deeds.remove(&number).unwrap_or_default(),
        };
        tally.acknowledged += u64::from(sent.confirmed);
        tally.stored += u64::from(!command.rows.is_empty());
        tally.duplicated += (command.rows.len() as u64).saturating_sub(1);
        if sent.confirmed && !command.has_ended() {
            lost.push(command.words());
        }
        wrong.extend(command.wrong().map(|what| format!("{what}: {}", command.words())));
        repeats += command.deeds.came.saturating_sub(1);
        if End::of(number) != End::TimedOut {
            answered += 1;
            delivered += u64::from(command.rows.iter().any(|row| row.delivered.is_some()));
        }
    }
    tally.lost = lost.len() as u64;
    tally.examples = some("lost", lost);
    tally.unexpected.extend(kept.strange.iter().cloned());
    tally.unexpected.extend(some("wrong", wrong));
    let strangers = rows.keys().chain(deeds.keys()).map(ToString::to_string);
    tally.unexpected.extend(some("a command that nobody sent", strangers.collect()));
    if (delivered as f64) < DELIVERED * answered as f64 {
        let words = format!("of {answered} commands that were answered, {delivered} are delivered");
        tally.unexpected.push(words);
    }
    tally.notes.push(format!("commands that came to their agents again: {repeats}"));
    tally
}

/// All that is known of one command.
struct Command<'a> {
    number: u64,
    sent: Sent,
    agent: &'a str,
    rows: Vec<&'a CommandRow>,
    deeds: Deeds,
}

impl Command<'_> {
    fn has_ended(&self) -> bool {
        self.rows.iter().any(|row| row.state == End::of(self.number).state())
    }

    /// What should not be so, whether it was confirmed or not.
    fn wrong(&self) -> impl Iterator<Item = &'static str> {
        let (end, id, deeds) = (End::of(self.number), self.sent.id.to_string(), &self.deeds);
        let (done, failed) = match end {
            End::Succeeded => (Some((self.number, self.agent.to_owned())), None),
            End::Failed => (None, Some(error(self.number, self.agent))),
            End::TimedOut => (None, None),
        };
        let any =
            |is_wrong: &dyn Fn(&CommandRow) -> bool| self.rows.iter().any(|row| is_wrong(row));
        let untrue = |row: &CommandRow| {
            row.delivered.is_some_and(|at| deeds.acknowledged.is_none_or(|puback| at < puback))
        };
        [
            (any(&|row| row.state != end.state()), "its state"),
            (any(&|row| row.done != done || row.error != failed), "what was answered"),
            (any(&|row| row.id != id), "its row has another id"),
            (any(&|row| row.target != self.agent), "its agent"),
            (any(&untrue), "delivered before the agent's PUBACK"),
            (any(&|row| row.state == "timed_out" && row.in_time), "it timed out too early"),
            (any(&|row| row.state != "timed_out") && !deeds.done, "its agent has not done it"),
            (deeds.ids.iter().any(|known| *known != self.sent.id), "it came under another id"),
        ]
        .into_iter()
        .filter_map(|(is_wrong, what)| is_wrong.then_some(what))
    }

    fn words(&self) -> String {
        let Self { number, sent, agent, rows, deeds } = self;
        let row = |row: &&CommandRow| {
            let CommandRow { state, done, error, delivered, .. } = row;
            format!("{state}, delivered {delivered:?}, answered {done:?} {error:?}; ")
        };
        let rows: String = rows.iter().map(row).collect();
        let Deeds { came, acknowledged, done, .. } = deeds;
        format!(
            "command {number} to {agent} ({}): {rows}it came {came} times, PUBACK {acknowledged:?}, \
             done: {done}",
            sent.id
        )
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::commands::kind::AGENTS;

    const AGENT: &str = "a";

    /// The first command with this end, after others that have not been confirmed.
    fn up_to(end: End) -> (u64, Vec<Sent>) {
        let number = (0..AGENTS * 5).find(|number| End::of(*number) == end).unwrap();
        let sent = |confirmed| Sent { id: Uuid::now_v7(), confirmed };
        let mut all: Vec<_> = (0..number).map(|_| sent(false)).collect();
        all.push(sent(true));
        (number, all)
    }

    /// What is told of a command with this end, of which there is what `change` makes of a row and
    /// deeds that are right: lost, duplicated, unexpected.
    fn check(end: End, change: impl Fn(&mut CommandRow, &mut Deeds), want: (u64, u64, &[&str])) {
        let (number, sent) = up_to(end);
        let id = sent.last().unwrap().id;
        let mut row = CommandRow {
            id: id.to_string(),
            number,
            target: AGENT.to_owned(),
            state: end.state().to_owned(),
            done: (end == End::Succeeded).then(|| (number, AGENT.to_owned())),
            error: (end == End::Failed).then(|| error(number, AGENT)),
            delivered: (end != End::TimedOut).then_some(5),
            in_time: false,
        };
        let is_answered = end != End::TimedOut;
        let mut deeds = Deeds { ids: [id].into(), came: 1, acknowledged: None, done: is_answered };
        deeds.acknowledged = is_answered.then_some(5);
        change(&mut row, &mut deeds);
        let kept =
            Kept { commands: vec![row], deeds: [(number, deeds)].into(), strange: Vec::new() };
        let tally = reconcile(&sent, &[AGENT; 50], &kept);
        let wrong: Vec<_> =
            tally.unexpected.iter().filter(|words| words.starts_with("wrong")).collect();
        assert_eq!((tally.lost, tally.duplicated), (want.0, want.1), "{tally:?}");
        assert_eq!(wrong.len(), want.2.len(), "{tally:?}");
        for (words, what) in wrong.iter().zip(want.2) {
            assert!(words.contains(what), "{words} and not {what}");
        }
    }

    #[test]
    fn what_is_right() {
        for end in [End::Succeeded, End::Failed, End::TimedOut] {
            check(end, |_, _| {}, (0, 0, &[]));
        }
        // What comes again is no fault, and a PUBACK alone is no answer.
        check(End::Succeeded, |_, deeds| deeds.came = 3, (0, 0, &[]));
        check(End::TimedOut, |_, deeds| deeds.acknowledged = Some(5), (0, 0, &[]));
    }

    #[test]
    fn what_is_wrong() {
        let open = |row: &mut CommandRow, _: &mut Deeds| row.state = "sent".to_owned();
        check(End::Succeeded, open, (1, 0, &["its state"]));
        check(End::TimedOut, open, (1, 0, &["its state", "has not done it"]));
        check(End::Succeeded, |row, _| row.done = None, (0, 0, &["what was answered"]));
        check(End::Failed, |row, _| row.error = None, (0, 0, &["what was answered"]));
        check(End::Succeeded, |_, deeds| deeds.done = false, (0, 0, &["has not done it"]));
        check(End::Succeeded, |row, _| row.delivered = Some(4), (0, 0, &["PUBACK"]));
        check(End::TimedOut, |row, _| row.delivered = Some(9), (0, 0, &["PUBACK"]));
        check(End::TimedOut, |row, _| row.in_time = true, (0, 0, &["too early"]));
        check(End::Succeeded, |row, _| row.target = "b".to_owned(), (0, 0, &["its agent"]));
        check(End::Succeeded, |row, _| row.id = "b".to_owned(), (0, 0, &["another id"]));
        let other = |_: &mut CommandRow, deeds: &mut Deeds| {
            deeds.ids.insert(Uuid::now_v7());
        };
        check(End::Succeeded, other, (0, 0, &["another id"]));
    }

    #[test]
    fn what_is_not_there_or_twice_or_nobodys() {
        let (number, sent) = up_to(End::Succeeded);
        let tally = reconcile(&sent, &[AGENT; 50], &Kept::default());
        assert_eq!((tally.attempted, tally.acknowledged, tally.lost), (number + 1, 1, 1));
        // None of those that were answered is delivered.
        assert_eq!(tally.unexpected.len(), 1);
        let row = |number| CommandRow {
            id: String::new(),
            number,
            target: String::new(),
            state: String::new(),
            done: None,
            error: None,
            delivered: None,
            in_time: false,
        };
        let commands = vec![row(number), row(number), row(number + 1)];
        let tally = reconcile(&sent, &[AGENT; 50], &Kept { commands, ..Kept::default() });
        assert_eq!(tally.duplicated, 1);
        let stranger = format!("a command that nobody sent: {}", number + 1);
        assert!(tally.unexpected.contains(&stranger), "{tally:?}");
    }
}
