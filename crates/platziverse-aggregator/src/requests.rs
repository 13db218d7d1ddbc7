//! Which requests have been sent to servers of late: one that is asked again is not sent again.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Requests that are remembered; beyond it, the oldest are forgotten early.
const REQUESTS_MAX: usize = 1_000_000;

/// A request as it is known: two hashes of its client and its id.
type Key = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Known {
    at: Instant,
    /// Whether RabbitMQ has it; else this process is about to send it.
    is_stored: bool,
}

/// The requests of all clients, of every aggregator.
#[derive(Debug)]
pub struct RequestBook {
    window: Duration,
    hashers: (RandomState, RandomState),
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Key, Known>,
    by_age: VecDeque<(Instant, Key)>,
}

impl RequestBook {
    /// One that remembers a request for so long.
    pub fn new(window: Duration) -> Self {
        let hashers = (RandomState::new(), RandomState::new());
        Self { window, hashers, inner: Mutex::default() }
    }

    /// Notes a request that is about to be sent; whether it is new.
    pub fn begin(&self, client: &str, id: &str) -> bool {
        self.note(client, id, false)
    }

    /// Notes a request that RabbitMQ has.
    pub fn stored(&self, client: &str, id: &str) {
        if !self.note(client, id, true)
            && let Some(known) = self.inner().known.get_mut(&self.key(client, id))
        {
            known.is_stored = true;
        }
    }

    fn note(&self, client: &str, id: &str, is_stored: bool) -> bool {
        let at = Instant::now();
        let key = self.key(client, id);
        let mut inner = self.inner();
        inner.forget(at, self.window);
        if inner.known.contains_key(&key) {
            return false;
        }
        inner.known.insert(key, Known { at, is_stored });
        inner.by_age.push_back((at, key));
        true
    }

    /// Forgets one that could not be sent, unless RabbitMQ turned out to have it.
    pub fn take_back(&self, client: &str, id: &str) {
        let key = self.key(client, id);
        let mut inner = self.inner();
        if inner.known.get(&key).is_some_and(|known| !known.is_stored) {
            inner.known.remove(&key);
        }
    }

    /// Forgets one that no server gets.
    pub fn withdraw(&self, client: &str, id: &str) {
        let key = self.key(client, id);
        self.inner().known.remove(&key);
    }

    fn key(&self, client: &str, id: &str) -> Key {
        let request = (client, id);
        (self.hashers.0.hash_one(request), self.hashers.1.hash_one(request))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in it is whole after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, now: Instant, window: Duration) {
        while let Some((at, key)) = self.by_age.front() {
            let is_old = now.saturating_duration_since(*at) > window;
            if !is_old && self.by_age.len() <= REQUESTS_MAX {
                return;
            }
            // It may have been noted again since it was taken back.
            if self.known.get(key).is_some_and(|known| known.at == *at) {
                self.known.remove(key);
            }
            self.by_age.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_is_new_once_in_its_window() {
        let book = RequestBook::new(Duration::from_secs(10));
        assert!(book.begin("ana", "1") && book.begin("bob", "1") && book.begin("ana", "2"));
        assert!(!book.begin("ana", "1"));
        book.take_back("ana", "1");
        assert!(book.begin("ana", "1") && !book.begin("ana", "1"));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(book.begin("ana", "1") && book.begin("bob", "1"));
        assert_eq!(book.inner().known.len(), 2);
        assert_eq!(book.inner().by_age.len(), 2);
    }

    #[tokio::test]
    async fn what_rabbitmq_has_is_known_until_it_is_withdrawn() {
        let book = RequestBook::new(Duration::from_secs(10));
        assert!(book.begin("ana", "1"));
        book.stored("ana", "1");
        book.stored("ana", "2");
        for id in ["1", "2"] {
            book.take_back("ana", id);
            assert!(!book.begin("ana", id));
            book.withdraw("ana", id);
            assert!(book.begin("ana", id));
        }
    }
}
