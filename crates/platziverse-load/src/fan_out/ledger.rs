//! What was published, and how many have heard it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// All messages of a run, known by when they were due, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Ledger {
    /// In the order of their publishing, which is that of when they were due.
    entries: RwLock<Vec<Entry>>,
    subscribers: u32,
    published: AtomicU64,
    /// Messages that every subscriber has heard.
    complete: AtomicU64,
    /// Told when one more is complete.
    completed: Notify,
}

#[derive(Debug)]
struct Entry {
    due: u64,
    /// By how many subscribers.
    heard: AtomicU32,
}

/// What one subscriber has heard.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// One bit a message, by its place in the ledger.
    heard: Vec<u64>,
    /// The place after the one that it heard last: mostly that of what it hears next.
    next: usize,
}

/// How a subscriber hears a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    First,
    Again,
    /// It is none of the run's.
    Stranger,
}

impl Ledger {
    pub(super) fn of(subscribers: usize) -> Self {
        Self {
            entries: RwLock::new(Vec::new()),
            subscribers: u32::try_from(subscribers).unwrap_or(u32::MAX),
            published: AtomicU64::new(0),
            complete: AtomicU64::new(0),
            completed: Notify::new(),
        }
    }

    /// Enters a message that is about to be published. Answers when it is due: what was told, or a
    /// microsecond after the one before, so that no two are alike.
    pub(super) fn enter(&self, due: u64) -> u64 {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let due = entries.last().map_or(due, |last| due.max(last.due + 1));
        entries.push(Entry { due, heard: AtomicU32::new(0) });
        self.published.store(entries.len() as u64, Ordering::Relaxed);
        due
    }

    /// To hear several messages of one read.
    pub(super) fn read(&self) -> Reading<'_> {
        Reading { ledger: self, entries: self.entries() }
    }

    /// How many messages some subscriber has not heard.
    pub(super) fn in_flight(&self) -> u64 {
        let complete = self.complete.load(Ordering::Relaxed);
        // Two counters are never read at the same moment.
        self.published.load(Ordering::Relaxed).saturating_sub(complete)
    }

    /// Waits until a message is complete that was not when it was waited for last. For one task.
    pub(super) async fn completed(&self) {
        self.completed.notified().await;
    }

    /// Of the messages whose time counts, how many there are, and how often they were heard.
    pub(super) fn sums(&self, counts: impl Fn(u64) -> bool) -> (u64, u64) {
        let (mut published, mut heard) = (0, 0);
        for entry in self.entries().iter().filter(|entry| counts(entry.due)) {
            published += 1;
            heard += u64::from(entry.heard.load(Ordering::Relaxed));
        }
        (published, heard)
    }

    fn entries(&self) -> RwLockReadGuard<'_, Vec<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at the ledger, while which nothing can be published.
pub(super) struct Reading<'a> {
    ledger: &'a Ledger,
    entries: RwLockReadGuard<'a, Vec<Entry>>,
}

impl Reading<'_> {
    pub(super) fn hear(&self, listener: &mut Listener, due: u64) -> Hearing {
        let is_next = self.entries.get(listener.next).is_some_and(|entry| entry.due == due);
        let place = match is_next {
            true => Ok(listener.next),
            false => self.entries.binary_search_by_key(&due, |entry| entry.due),
        };
        let Ok(place) = place else { return Hearing::Stranger };
        listener.next = place + 1;
        if !listener.is_first(place) {
            return Hearing::Again;
        }
        let heard = self.entries[place].heard.fetch_add(1, Ordering::Relaxed) + 1;
        if heard == self.ledger.subscribers {
            self.ledger.complete.fetch_add(1, Ordering::Relaxed);
            self.ledger.completed.notify_one();
        }
        Hearing::First
    }
}

impl Listener {
    fn is_first(&mut self, place: usize) -> bool {
        let (word, bit) = (place / 64, 1 << (place % 64));
        if word >= self.heard.len() {
            self.heard.resize(word + 1, 0);
        }
        let before = self.heard[word];
        self.heard[word] |= bit;
        before & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_messages_are_alike() {
        let ledger = Ledger::of(1);
        assert_eq!([5, 5, 5, 9, 9].map(|due| ledger.enter(due)), [5, 6, 7, 9, 10]);
    }

    #[test]
    fn each_message_is_counted_for_each_subscriber_once() {
        let ledger = Ledger::of(2);
        for due in 0..200 {
            ledger.enter(due * 10);
        }
        let (mut one, mut other) = (Listener::default(), Listener::default());
        let reading = ledger.read();
        // In order, out of order, late, again, and what nobody has published.
        for (due, want) in [
            (0, Hearing::First),
            (10, Hearing::First),
            (1_990, Hearing::First),
            (20, Hearing::First),
            (1_990, Hearing::Again),
            (0, Hearing::Again),
            (30, Hearing::First),
            (35, Hearing::Stranger),
            (2_000, Hearing::Stranger),
        ] {
            assert_eq!(reading.hear(&mut one, due), want, "{due}");
        }
        assert_eq!(ledger.in_flight(), 200);
        assert_eq!(reading.hear(&mut other, 1_990), Hearing::First);
        drop(reading);
        assert_eq!(ledger.in_flight(), 199);
        assert_eq!(ledger.sums(|due| due >= 10), (199, 5));
    }
}
