//! What publishers and consumers were told against each other, and the catalogue against RabbitMQ.
//! Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::kept::without;
use super::kind::Mailbox;
use super::letters::{Letter, Page, Seen};
use crate::reconcile::{Tally, some};

/// What a round leaves in force beside that nothing is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// What was answered to be acknowledged does not come again: no server was killed, and no
    /// connection to RabbitMQ was lost.
    pub settled_once: bool,
    /// The same of what a stream has acknowledged: that is not answered, so that nothing at all may
    /// have happened between a consumer and RabbitMQ.
    pub streamed_once: bool,
    /// What has been published under a key is known by it: PostgreSQL was there.
    pub known_by_key: bool,
    /// A request of a client of an aggregator is done once: no server was killed, and nothing came
    /// between servers and RabbitMQ.
    pub done_once: bool,
}

/// Something that RabbitMQ has, or should have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A queue.
    Queue(String),
    /// An exchange.
    Exchange(String),
    /// A queue that is bound to an exchange.
    Binding(String, String),
}

/// What is kept at the end.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Rows of changes that have come to no end.
    pub unfinished: Vec<String>,
    /// What RabbitMQ should have by the rows.
    pub wanted: BTreeSet<Thing>,
    /// What it has.
    pub there: BTreeSet<Thing>,
    /// Messages of the load that are dead letters.
    pub dead: Vec<String>,
    /// Rows of what nobody has made.
    pub strange: Vec<String>,
}

impl Letter {
    /// How many copies of it there may be in a queue.
    fn copies_max(&self, promises: Promises) -> u32 {
        match promises.known_by_key {
            // Those that were confirmed after the first are known by their key.
            true => self.unsure + self.confirmed.min(1),
            false => self.unsure + self.confirmed,
        }
    }
}

impl Promises {
    fn hold_for(self, mailbox: Mailbox) -> bool {
        match mailbox {
            Mailbox::Lent | Mailbox::Auto | Mailbox::NewsOfHttp => self.settled_once,
            Mailbox::Streamed | Mailbox::NewsOfGrpc | Mailbox::NewsOfReader => self.streamed_once,
            Mailbox::Fleeting => false,
        }
    }
}

/// Reconciles everything.
pub fn reconcile(page: &Page, kept: &Kept, promises: Promises) -> Tally {
    let mut tally = Tally { attempted: page.sent.len() as u64, ..Tally::default() };
    let (mut missing, mut taken, mut again) = (Vec::new(), Vec::new(), 0);
    let never = Seen::default();
    for (number, letter) in (0..).zip(&page.sent) {
        let is_confirmed = letter.confirmed > 0;
        tally.acknowledged += u64::from(is_confirmed);
        let mut is_handled = true;
        let receives = |mailbox: &&Mailbox| mailbox.receives(letter.publisher, letter.to);
        for mailbox in Mailbox::LASTING.iter().filter(receives) {
            let seen = page.seen.get(&(number, *mailbox)).unwrap_or(&never);
            is_handled &= seen.handled > 0;
            if is_confirmed && seen.handled == 0 {
                let list = if *mailbox == Mailbox::Auto { &mut taken } else { &mut missing };
                list.push(format!(
                    "message {number} in {mailbox:?}, which came {} times",
                    seen.came
                ));
            }
            if letter.id.is_some() && seen.id.is_some() && letter.id != seen.id {
                let words = format!("message {number} in {mailbox:?}");
                tally.unexpected.push(format!("came under another id than was confirmed: {words}"));
            }
            again += u64::from(seen.came.saturating_sub(1));
            if promises.hold_for(*mailbox) {
                let copies = letter.copies_max(promises);
                let more = seen.settled.saturating_sub(copies);
                tally.duplicated += u64::from(more);
                if more > 0 {
                    let words = format!("message {number} in {mailbox:?}: {} times", seen.settled);
                    let words = format!("acknowledged too often: {words}, {copies} at most");
                    tally.examples.push(words);
                }
            }
        }
        tally.stored += u64::from(is_handled);
    }
    // Each request without an answer may have taken one.
    let unanswered = usize::try_from(page.counts.unanswered_takes).unwrap_or(usize::MAX);
    let in_vain = taken.len();
    missing.extend(taken.into_iter().skip(unanswered));
    tally.lost = missing.len() as u64;
    tally.examples.truncate(3);
    tally.examples.extend(some("lost", missing));
    tally.unexpected.truncate(3);
    tally.unexpected.extend(strange(page, kept));
    tally.notes = vec![format!(
        "came again: {again}; publishes without a confirm: {}; taken with ack=auto by requests \
         without an answer: {in_vain} of {unanswered} at most; changes of the catalogue: {}, \
         forgotten: {}; dropped by killed consumers: {}",
        page.counts.failed, page.counts.changes, page.counts.abandoned, page.counts.dropped
    )];
    tally
}

/// What should not be there.
fn strange(page: &Page, kept: &Kept) -> Vec<String> {
    let mut words: Vec<String> =
        page.strange.iter().flat_map(|(what, all)| some(what, all.clone())).collect();
    words.extend(some("half-done after 30 s of rest", kept.unfinished.clone()));
    if kept.unfinished.is_empty() {
        let (wanted, there) = (&kept.wanted, &kept.there);
        words.extend(some("in RabbitMQ without a row", without(there, wanted).collect()));
        words.extend(some("a row without it in RabbitMQ", without(wanted, there).collect()));
    }
    words.extend(some("a good message is a dead letter", kept.dead.clone()));
    words.extend(some("a row of what nobody has made", kept.strange.clone()));
    words
}

impl Thing {
    /// A queue of this name.
    pub fn queue(name: &str) -> Self {
        Self::Queue(name.to_owned())
    }

    /// An exchange of this name.
    pub fn exchange(name: &str) -> Self {
        Self::Exchange(name.to_owned())
    }

    /// A queue that is bound to an exchange.
    pub fn binding(exchange: &str, queue: &str) -> Self {
        Self::Binding(exchange.to_owned(), queue.to_owned())
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "the queue {name}"),
            Self::Exchange(name) => write!(f, "the exchange {name}"),
            Self::Binding(exchange, queue) => write!(f, "the binding of {queue} to {exchange}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mom::kind::{Address, Publisher};

    const ALL: Promises =
        Promises { settled_once: true, streamed_once: true, known_by_key: true, done_once: true };

    fn letter(to: Address, unsure: u32, confirmed: u32) -> Letter {
        let key = String::new();
        Letter { publisher: Publisher::Http, to, key, unsure, confirmed, id: None }
    }

    fn seen(came: u32, handled: u32, settled: u32) -> Seen {
        Seen { came, handled, settled, id: None }
    }

    fn check(letter: Letter, came: &[(Mailbox, Seen)], promises: Promises, want: (u64, u64)) {
        let seen = came.iter().map(|(mailbox, seen)| ((0, *mailbox), seen.clone()));
        let page = Page { sent: vec![letter], seen: seen.collect(), ..Page::default() };
        let tally = reconcile(&page, &Kept::default(), promises);
        assert_eq!((tally.lost, tally.duplicated), want, "{tally:?}");
        assert!(tally.unexpected.is_empty(), "{tally:?}");
    }

    #[test]
    fn what_is_confirmed_must_have_been_handled() {
        let lent = |unsure, confirmed| letter(Address::Lent, unsure, confirmed);
        check(lent(0, 1), &[(Mailbox::Lent, seen(1, 1, 1))], ALL, (0, 0));
        check(lent(0, 1), &[], ALL, (1, 0));
        // It came to somebody who was killed with it, and never again.
        check(lent(0, 1), &[(Mailbox::Lent, seen(1, 0, 0))], ALL, (1, 0));
        check(lent(1, 0), &[], ALL, (0, 0));
        let news = letter(Address::News, 0, 1);
        let reader = (Mailbox::NewsOfReader, seen(1, 1, 1));
        check(news.clone(), std::slice::from_ref(&reader), ALL, (1, 0));
        check(news, &[reader, (Mailbox::NewsOfGrpc, seen(1, 1, 1))], ALL, (0, 0));
    }

    #[test]
    fn a_request_without_an_answer_may_have_taken_one() {
        for (unanswered_takes, lost) in [(0, 1), (1, 0)] {
            let mut page = Page { sent: vec![letter(Address::Auto, 0, 1)], ..Page::default() };
            page.counts.unanswered_takes = unanswered_takes;
            assert_eq!(reconcile(&page, &Kept::default(), ALL).lost, lost);
        }
    }

    #[test]
    fn what_is_settled_comes_again_only_if_it_was_published_again() {
        let twice = [(Mailbox::Lent, seen(2, 2, 2))];
        let check = |unsure, confirmed, promises, duplicated| {
            check(letter(Address::Lent, unsure, confirmed), &twice, promises, (0, duplicated));
        };
        check(0, 1, ALL, 1);
        check(1, 1, ALL, 0);
        // Known by its key.
        check(0, 2, ALL, 1);
        check(0, 2, Promises { known_by_key: false, ..ALL }, 0);
        check(0, 1, Promises { settled_once: false, ..ALL }, 0);
    }

    #[test]
    fn rows_and_rabbitmq_must_agree() {
        let check = |kept: Kept, want: &str| {
            let unexpected = reconcile(&Page::default(), &kept, ALL).unexpected;
            assert_eq!(unexpected, [want]);
        };
        let things = || BTreeSet::from([Thing::binding("e", "mom.queue.a")]);
        let there = Kept { there: things(), ..Kept::default() };
        check(there, "in RabbitMQ without a row: the binding of mom.queue.a to e");
        let wanted = Kept { wanted: things(), ..Kept::default() };
        check(wanted, "a row without it in RabbitMQ: the binding of mom.queue.a to e");
        let both = Kept { there: things(), wanted: things(), ..Kept::default() };
        assert!(reconcile(&Page::default(), &both, ALL).unexpected.is_empty());
        // What is half-done may be in one of the two alone.
        let unfinished = vec!["queue a is creating".to_owned()];
        let half = Kept { unfinished, there: things(), ..Kept::default() };
        check(half, "half-done after 30 s of rest: queue a is creating");
    }
}
