//! What was published, what its publishers were told, and what consumers saw: shared by all clients
//! and whoever reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use uuid::Uuid;

use super::kind::{self, Address, Mailbox, Publisher};

/// Messages that may wait in a mailbox: consumers on a slow machine set the pace.
const WAITING_MAX: u64 = 40;

/// A message that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who publishes it.
    pub publisher: Publisher,
    /// Where to.
    pub to: Address,
    /// Its idempotency key.
    pub key: String,
    /// Attempts of which nobody knows whether they have published it.
    pub unsure: u32,
    /// Attempts that were confirmed.
    pub confirmed: u32,
    /// The id that the first confirm named.
    pub id: Option<Uuid>,
}

/// What became of a message in one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often it came.
    pub came: u32,
    /// How often a consumer has done what there was to do with it.
    pub handled: u32,
    /// How often it was acknowledged, as far as its consumer was told.
    pub settled: u32,
    /// The id under which it came first.
    pub id: Option<Uuid>,
}

/// A message as it comes to a consumer.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its body.
    pub body: Vec<u8>,
    /// Its id.
    pub id: Option<Uuid>,
    /// The id of the user who has published it.
    pub publisher: Option<Uuid>,
}

/// What else is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to take a message at once that had no answer: each may have taken one.
    pub unanswered_takes: u64,
    /// Messages that consumers had in their hands when they were killed.
    pub dropped: u64,
    /// Attempts to publish without a confirm.
    pub failed: u64,
    /// Changes of the catalogue that were answered.
    pub changes: u64,
    /// Changes of the catalogue that nobody has answered, and nobody has asked for again.
    pub abandoned: u64,
}

/// Everything that clients know.
#[derive(Clone, Debug, Default)]
pub struct Letters(Arc<Mutex<Page>>);

/// What they know at one moment.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages, by their numbers.
    pub sent: Vec<Letter>,
    /// What came, by number and mailbox.
    pub seen: BTreeMap<(u64, Mailbox), Seen>,
    /// What should not have happened, by kind.
    pub strange: BTreeMap<&'static str, Vec<String>>,
    /// What else is counted.
    pub counts: Counts,
    /// The ids of the publishers' users.
    pub(super) users: BTreeMap<Publisher, Uuid>,
    /// Messages that nobody has handled yet, by mailbox.
    pub(super) waiting: BTreeMap<Mailbox, u64>,
    /// The greatest number that was handled, by mailbox.
    pub(super) newest: BTreeMap<Mailbox, u64>,
    /// Messages in the hands of consumers.
    pub(super) in_hand: BTreeMap<(Mailbox, usize), usize>,
}

impl Letters {
    /// Knows the publishers' ids.
    pub fn of(users: [(Publisher, Uuid); 2]) -> Self {
        let page = Page { users: users.into(), ..Page::default() };
        Self(Arc::new(Mutex::new(page)))
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything as it is now.
    pub fn read(&self) -> Page {
        self.page().clone()
    }

    /// A new message: its number, and its key.
    pub fn add(&self, publisher: Publisher, to: Address) -> (u64, String) {
        let mut page = self.page();
        let (number, key) = (page.sent.len() as u64, Uuid::new_v4().to_string());
        let letter = Letter { publisher, to, key: key.clone(), unsure: 0, confirmed: 0, id: None };
        page.sent.push(letter);
        for mailbox in Mailbox::LASTING.into_iter().filter(|one| one.receives(publisher, to)) {
            *page.waiting.entry(mailbox).or_default() += 1;
        }
        (number, key)
    }

    /// How many messages there are so far.
    pub fn len(&self) -> u64 {
        self.page().sent.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many have no confirm.
    pub fn open(&self) -> u64 {
        self.page().sent.iter().filter(|letter| letter.confirmed == 0).count() as u64
    }

    /// Whether so few messages wait in every mailbox of an address that there may be more.
    pub fn has_room(&self, address: Address) -> bool {
        let page = self.page();
        let is_full = |(mailbox, waiting): (&Mailbox, &u64)| {
            mailbox.address() == address && *waiting >= WAITING_MAX
        };
        !page.waiting.iter().any(is_full)
    }

    /// What else is counted.
    pub fn counts(&self) -> Counts {
        self.page().counts
    }

    /// Counts something.
    pub fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.page().counts);
    }

    /// An attempt has failed, or had no answer.
    pub fn failed(&self, number: u64) {
        let mut page = self.page();
        page.counts.failed += 1;
        if let Some(letter) = page.letter(number) {
            letter.unsure += 1;
        }
    }

    /// An attempt was confirmed, under this id and with so many receivers: how often one was.
    pub fn confirmed(&self, number: u64, id: Option<Uuid>, receivers: u64) -> u32 {
        let mut page = self.page();
        let Some(letter) = page.letter(number) else { return 0 };
        letter.confirmed += 1;
        let times = letter.confirmed;
        let (before, least) = (letter.id, letter.to.receivers());
        letter.id = before.or(id);
        if id.is_none() || before.is_some_and(|before| Some(before) != id) {
            let words = format!("message {number}: {before:?}, then {id:?}");
            page.note("published again under another id", words);
        }
        if receivers < least {
            page.note("receivers are missing", format!("message {number} has {receivers}"));
        }
        times
    }

    /// A message has come: its number, if it is one of those that may come there.
    pub fn came(&self, mailbox: Mailbox, arrived: &Arrived) -> Option<u64> {
        let mut page = self.page();
        let number = page.number(mailbox, arrived)?;
        let seen = page.seen.entry((number, mailbox)).or_default();
        seen.came += 1;
        let before = *seen.id.get_or_insert_with(|| arrived.id.unwrap_or_default());
        if arrived.id != Some(before) {
            let words = format!("message {number}: {before}, then {:?}", arrived.id);
            page.note("came again under another id", words);
        }
        Some(number)
    }

    /// A consumer has done what there was to do with it.
    pub fn handled(&self, mailbox: Mailbox, number: u64) {
        let mut page = self.page();
        let seen = page.seen.entry((number, mailbox)).or_default();
        seen.handled += 1;
        if seen.handled == 1 {
            let waiting = page.waiting.entry(mailbox).or_default();
            *waiting = waiting.saturating_sub(1);
        }
        let newest = page.newest.entry(mailbox).or_default();
        *newest = (*newest).max(number);
    }

    /// It was acknowledged.
    pub fn settled(&self, mailbox: Mailbox, number: u64) {
        self.page().seen.entry((number, mailbox)).or_default().settled += 1;
    }

    /// A consumer has so many messages in its hands.
    pub fn holds(&self, mailbox: Mailbox, place: usize, count: usize) {
        self.page().in_hand.insert((mailbox, place), count);
    }

    /// How many consumers have any in their hands.
    pub fn holding(&self) -> usize {
        self.page().in_hand.values().filter(|count| **count > 0).count()
    }

    /// Something that should not have happened.
    pub fn note(&self, what: &'static str, words: String) {
        self.page().note(what, words);
    }

    /// Whether something from this number on was handled in every lasting mailbox.
    pub fn are_done_from(&self, number: u64) -> Result<(), String> {
        let page = self.page();
        let is_done = |mailbox| page.newest.get(mailbox).is_some_and(|newest| *newest >= number);
        let behind: Vec<_> = Mailbox::LASTING.iter().filter(|mailbox| !is_done(*mailbox)).collect();
        match behind.is_empty() {
            true => Ok(()),
            false => Err(format!("nothing from message {number} on came from {behind:?}")),
        }
    }
}

impl Page {
    fn letter(&mut self, number: u64) -> Option<&mut Letter> {
        self.sent.get_mut(usize::try_from(number).ok()?)
    }

    fn note(&mut self, what: &'static str, words: String) {
        self.strange.entry(what).or_default().push(words);
    }

    /// The number of what has come, unless it should not have come.
    fn number(&mut self, mailbox: Mailbox, arrived: &Arrived) -> Option<u64> {
        let read = serde_json::from_slice::<Value>(&arrived.body).ok();
        let number = read.and_then(|body| body["number"].as_u64());
        let text = || String::from_utf8_lossy(&arrived.body).into_owned();
        let Some((number, letter)) = number.and_then(|number| Some((number, self.letter(number)?)))
        else {
            self.note("nobody has published", format!("{mailbox:?}: {}", text()));
            return None;
        };
        let (publisher, to) = (letter.publisher, letter.to);
        if arrived.body != kind::body(number, publisher, to).as_bytes() {
            self.note("nobody has published", format!("{mailbox:?}: {}", text()));
            return None;
        }
        if to != mailbox.address() {
            self.note("in a foreign queue", format!("{mailbox:?}: {}", text()));
            return None;
        }
        if mailbox.own() == Some(publisher) {
            self.note("came to its own publisher", format!("message {number}"));
            return None;
        }
        if arrived.publisher.as_ref() != self.users.get(&publisher) {
            let words = format!("message {number}: {:?}", arrived.publisher);
            self.note("came with another publisher", words);
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Uuid = Uuid::from_u128(7);

    fn letters() -> Letters {
        let letters = Letters::of([(Publisher::Http, USER), (Publisher::Grpc, Uuid::from_u128(8))]);
        letters.add(Publisher::Http, Address::News);
        letters
    }

    fn arrived(body: String) -> Arrived {
        Arrived { body: body.into_bytes(), id: Some(Uuid::from_u128(1)), publisher: Some(USER) }
    }

    #[test]
    fn only_what_may_come_comes() {
        let news = || arrived(kind::body(0, Publisher::Http, Address::News));
        let check = |mailbox, arrived: &Arrived, want: &[&str]| {
            let letters = letters();
            let came = letters.came(mailbox, arrived);
            let strange: Vec<_> = letters.read().strange.into_keys().collect();
            assert_eq!((came.is_some(), strange.as_slice()), (want.is_empty(), want));
        };
        check(Mailbox::NewsOfReader, &news(), &[]);
        check(Mailbox::Fleeting, &news(), &[]);
        check(Mailbox::NewsOfHttp, &news(), &["came to its own publisher"]);
        check(Mailbox::Lent, &news(), &["in a foreign queue"]);
        let other = kind::body(1, Publisher::Http, Address::News);
        check(Mailbox::NewsOfReader, &arrived(other), &["nobody has published"]);
        check(Mailbox::NewsOfReader, &arrived("{".to_owned()), &["nobody has published"]);
        let changed = kind::body(0, Publisher::Grpc, Address::News);
        check(Mailbox::NewsOfReader, &arrived(changed), &["nobody has published"]);
    }

    #[test]
    fn what_is_said_of_a_message_must_agree() {
        let letters = letters();
        let (one, other) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        letters.confirmed(0, one, 2);
        letters.confirmed(0, one, 3);
        assert!(letters.read().strange.is_empty());
        letters.confirmed(0, other, 1);
        let mut news = arrived(kind::body(0, Publisher::Http, Address::News));
        letters.came(Mailbox::NewsOfReader, &news);
        (news.id, news.publisher) = (other, other);
        letters.came(Mailbox::NewsOfReader, &news);
        let strange: Vec<_> = letters.read().strange.into_keys().collect();
        let want = [
            "came again under another id",
            "came with another publisher",
            "published again under another id",
            "receivers are missing",
        ];
        assert_eq!(strange, want);
    }
}
