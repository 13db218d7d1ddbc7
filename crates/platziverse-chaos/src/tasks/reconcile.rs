//! What RabbitMQ confirmed against what became of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoint::Calls;
use super::kind::{ATTEMPTS_MAX, End, Kind};
use crate::reconcile::{Tally, some};
use crate::sender::Sent;

/// A row of `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its id.
    pub id: String,
    /// The event's own number.
    pub number: u64,
}

/// A row of `commands`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// Its id.
    pub id: String,
    /// The command's own number.
    pub number: u64,
    /// Its state.
    pub state: String,
    /// The greatest number of an attempt.
    pub attempts: u64,
    /// The status and the body of the answer, if there was one.
    pub result: Option<(String, String)>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The task's own number.
    pub number: u64,
    /// Why it is one.
    pub reason: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Kept {
    /// The rows of events.
    pub events: Vec<EventRow>,
    /// The rows of commands.
    pub commands: Vec<CommandRow>,
    /// The dead letters.
    pub letters: Vec<Letter>,
    /// What the service was called for, by number.
    pub calls: BTreeMap<u64, Calls>,
    /// What nobody sent, in words.
    pub strange: Vec<String>,
    /// Whether a dead letter may be there twice: its worker may have been killed, or lost its
    /// connection, between the confirm of the letter and the acknowledgement of the task.
    pub letters_may_repeat: bool,
}

/// What there is of one task.
#[derive(Debug, Default)]
struct Traces<'a> {
    events: Vec<&'a EventRow>,
    commands: Vec<&'a CommandRow>,
    reasons: Vec<&'a str>,
    calls: Calls,
}

/// Reconciles both sides.
pub fn reconcile(sent: &[Sent], kept: &Kept) -> Tally {
    let mut tally = Tally { attempted: sent.len() as u64, ..Tally::default() };
    let mut traces = gather(kept);
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    let mut repeated = (0, 0);
    for (number, sent) in (0..).zip(sent) {
        let found = traces.remove(&number).unwrap_or_default();
        let kind = Kind::of(number);
        tally.acknowledged += u64::from(sent.confirmed);
        tally.stored += u64::from(!found.events.is_empty() || !found.commands.is_empty());
        tally.dead += u64::from(!found.reasons.is_empty());
        let name = || format!("task {number} ({kind:?}, {})", sent.id);
        if sent.confirmed && !found.has_ended(kind.end()) {
            lost.push(format!("{}: {}", name(), found.words()));
        }
        let id = sent.id.to_string();
        let words = || found.words();
        wrong.extend(found.wrong(kind, &id).map(|what| format!("{}: {what}: {}", name(), words())));
        tally.duplicated += found.copies();
        let letters = (found.reasons.len() as u64).saturating_sub(1);
        match kept.letters_may_repeat {
            true => repeated.0 += letters,
            false => tally.duplicated += letters,
        }
        repeated.1 += found.calls.well.saturating_sub(1);
    }
    tally.lost = lost.len() as u64;
    tally.examples = some("lost", lost);
    tally.unexpected.extend(kept.strange.iter().cloned());
    tally.unexpected.extend(some("wrong", wrong));
    let strangers =
        traces.into_iter().map(|(number, found)| format!("{number}: {}", found.words()));
    tally.unexpected.extend(some("a task that nobody sent", strangers.collect()));
    tally.notes.extend(notes(repeated));
    tally
}

fn notes((letters, calls): (u64, u64)) -> impl Iterator<Item = String> {
    let letters = (letters > 0).then(|| format!("dead letters that are there again: {letters}"));
    let calls =
        (calls > 0).then(|| format!("calls that were made again, under the same key: {calls}"));
    letters.into_iter().chain(calls)
}

fn gather(kept: &Kept) -> BTreeMap<u64, Traces<'_>> {
    let mut traces = BTreeMap::<u64, Traces<'_>>::new();
    for event in &kept.events {
        traces.entry(event.number).or_default().events.push(event);
    }
    for command in &kept.commands {
        traces.entry(command.number).or_default().commands.push(command);
    }
    for letter in &kept.letters {
        traces.entry(letter.number).or_default().reasons.push(&letter.reason);
    }
    for (number, calls) in &kept.calls {
        traces.entry(*number).or_default().calls = calls.clone();
    }
    traces
}

impl Traces<'_> {
    fn has_ended(&self, end: End) -> bool {
        let is = |state: &str| self.commands.iter().any(|row| row.state == state);
        match end {
            End::Stored => !self.events.is_empty(),
            End::Dropped => true,
            End::Succeeded => is("succeeded"),
            End::Failed(reason) => is("failed") && self.reasons.contains(&reason),
            End::Buried(reason) => self.reasons.contains(&reason),
        }
    }

    /// How often it is stored beyond the first time.
    fn copies(&self) -> u64 {
        (self.events.len().saturating_sub(1) + self.commands.len().saturating_sub(1)) as u64
    }

    /// What should not be there, whether it was confirmed or not.
    fn wrong(&self, kind: Kind, id: &str) -> impl Iterator<Item = &'static str> {
        let end = kind.end();
        let reason = match end {
            End::Failed(reason) | End::Buried(reason) => Some(reason),
            End::Stored | End::Dropped | End::Succeeded => None,
        };
        let state = match end {
            End::Succeeded => Some("succeeded"),
            End::Failed(_) => Some("failed"),
            End::Stored | End::Dropped | End::Buried(_) => None,
        };
        let ids =
            self.events.iter().map(|row| &row.id).chain(self.commands.iter().map(|row| &row.id));
        let keys = BTreeSet::from([id.to_owned()]);
        let is_called = self.calls.count > 0;
        [
            (end != End::Stored && !self.events.is_empty(), "it is no event to be stored"),
            (self.commands.iter().any(|row| Some(row.state.as_str()) != state), "its state"),
            (self.reasons.iter().any(|found| Some(*found) != reason), "its dead letter"),
            (ids.into_iter().any(|found| found != id), "it is stored under another id"),
            (is_called && kind.path().is_none(), "the service was called for it"),
            (is_called && self.calls.keys != keys, "the keys of its calls"),
            (!self.is_true(kind), "its row says what did not happen"),
        ]
        .into_iter()
        .filter_map(|(is_wrong, what)| is_wrong.then_some(what))
    }

    /// Whether what the row of a command says has happened at the service.
    fn is_true(&self, kind: Kind) -> bool {
        let calls = &self.calls;
        self.commands.iter().all(|row| match (kind, row.state.as_str()) {
            (Kind::Call | Kind::CallTwice | Kind::CallSlow, "succeeded") => {
                let result = Some(("200".to_owned(), row.number.to_string()));
                calls.well > 0 && row.result == result
            }
            (Kind::CallInVain, "failed") => {
                row.attempts == ATTEMPTS_MAX && calls.count >= ATTEMPTS_MAX
            }
            (Kind::CallRefused, "failed") => calls.count > 0,
            _ => true,
        })
    }

    fn words(&self) -> String {
        let Self { events, commands, reasons, calls } = self;
        let row = |row: &&CommandRow| {
            let CommandRow { state, attempts, result, .. } = row;
            format!("a command that is {state}, attempt {attempts}, result {result:?}; ")
        };
        let (rows, count, keys) = (commands.iter().map(row), events.len(), calls.keys.len());
        let rows: String = rows.collect();
        format!(
            "{count} events; {rows}dead letters {reasons:?}; {} calls under {keys} keys, {} done",
            calls.count, calls.well
        )
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Tasks up to one of this kind: its number, and all as confirmed.
    fn up_to(kind: Kind) -> (u64, Vec<Sent>) {
        let number = (0..60).find(|number| Kind::of(*number) == kind).unwrap();
        let sent = |confirmed| Sent { id: Uuid::now_v7(), confirmed };
        let mut all: Vec<_> = (0..number).map(|_| sent(false)).collect();
        all.push(sent(true));
        (number, all)
    }

    /// What is told of a task of this kind of which there is what `find` makes of its number and id:
    /// lost, duplicated, unexpected.
    fn check(kind: Kind, find: impl Fn(&mut Kept, u64, String), want: (u64, u64, usize)) {
        let (number, sent) = up_to(kind);
        let mut kept = Kept::default();
        find(&mut kept, number, sent.last().unwrap().id.to_string());
        let tally = reconcile(&sent, &kept);
        let got = (tally.lost, tally.duplicated, tally.unexpected.len());
        assert_eq!(got, want, "{kind:?}: {tally:?}");
        assert_eq!((tally.attempted, tally.acknowledged), (number + 1, 1));
    }

    fn row(number: u64, id: String, state: &str, attempts: u64) -> CommandRow {
        let result = Some(("200".to_owned(), number.to_string()));
        CommandRow { id, number, state: state.to_owned(), attempts, result }
    }

    fn letter(number: u64, reason: &str) -> Letter {
        Letter { number, reason: reason.to_owned() }
    }

    #[test]
    fn events() {
        let store = |kept: &mut Kept, number, id| kept.events.push(EventRow { id, number });
        check(Kind::Event, store, (0, 0, 0));
        check(Kind::Event, |_, _, _| {}, (1, 0, 0));
        let twice = |kept: &mut Kept, number, id: String| {
            store(kept, number, id.clone());
            store(kept, number, id);
        };
        check(Kind::EventTwice, twice, (0, 1, 0));
        check(Kind::Event, |kept, number, _| store(kept, number, "b".to_owned()), (0, 0, 1));
        check(Kind::Omitted, |_, _, _| {}, (0, 0, 0));
        check(Kind::Omitted, store, (0, 0, 1));
        check(Kind::Event, |kept, _, id| store(kept, 99, id), (1, 0, 1));
        let dead = |kept: &mut Kept, number, id| {
            store(kept, number, id);
            kept.letters.push(letter(number, "rejected_by_handler"));
        };
        check(Kind::Event, dead, (0, 0, 1));
    }

    #[test]
    fn commands() {
        let ends = |state: &'static str, calls: u64, key: Option<&'static str>| {
            move |kept: &mut Kept, number, id: String| {
                let keys = [key.map_or(id.clone(), str::to_owned)].into();
                kept.calls.insert(number, Calls { keys, count: calls, well: calls });
                kept.commands.push(row(number, id, state, 1));
            }
        };
        check(Kind::Call, ends("succeeded", 1, None), (0, 0, 0));
        check(Kind::Call, ends("succeeded", 3, None), (0, 0, 0));
        check(Kind::Call, ends("succeeded", 1, Some("another")), (0, 0, 1));
        check(Kind::Call, ends("queued", 1, None), (1, 0, 1));
        // Nobody has called, so nothing can have succeeded.
        let unheard = |kept: &mut Kept, number, id| {
            kept.commands.push(row(number, id, "succeeded", 1));
        };
        check(Kind::Call, unheard, (0, 0, 1));
        check(Kind::Log, unheard, (0, 0, 0));
        check(Kind::Log, ends("succeeded", 1, None), (0, 0, 1));
        check(Kind::Call, |_, _, _| {}, (1, 0, 0));
    }

    #[test]
    fn what_must_fail() {
        let fails = |letters: usize, attempts: u64, reason: &'static str| {
            move |kept: &mut Kept, number, id: String| {
                let keys = [id.clone()].into();
                kept.calls.insert(number, Calls { keys, count: attempts, well: 0 });
                kept.commands.push(row(number, id, "failed", attempts));
                kept.letters.extend((0..letters).map(|_| letter(number, reason)));
            }
        };
        let exhausted = "attempts_exhausted";
        check(Kind::CallInVain, fails(1, ATTEMPTS_MAX, exhausted), (0, 0, 0));
        check(Kind::CallInVain, fails(1, ATTEMPTS_MAX - 1, exhausted), (0, 0, 1));
        check(Kind::CallInVain, fails(0, ATTEMPTS_MAX, exhausted), (1, 0, 0));
        check(Kind::CallInVain, fails(2, ATTEMPTS_MAX, exhausted), (0, 1, 0));
        check(Kind::CallRefused, fails(1, 1, exhausted), (1, 0, 1));
        check(Kind::Garbage, |_, _, _| {}, (1, 0, 0));
        let buried = |kept: &mut Kept, number, _| kept.letters.push(letter(number, "invalid_json"));
        check(Kind::Garbage, buried, (0, 0, 0));
    }

    #[test]
    fn letters_may_repeat_where_it_is_said() {
        let (number, sent) = up_to(Kind::Garbage);
        let letters = vec![letter(number, "invalid_json"); 3];
        let kept = Kept { letters, letters_may_repeat: true, ..Kept::default() };
        let tally = reconcile(&sent, &kept);
        assert_eq!((tally.lost, tally.duplicated, tally.unexpected.len()), (0, 0, 0));
        assert_eq!(tally.notes, ["dead letters that are there again: 2"]);
    }
}
