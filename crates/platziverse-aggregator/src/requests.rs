//! Which requests have been sent to servers of late, or are about to be: one that is asked again is
//! not sent again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platziverse_broker::aggregator::{Claim, ClaimId, ClaimState};
use tokio::time::Instant;
use uuid::Uuid;

/// Requests that are remembered; beyond it, the oldest are forgotten early.
const REQUESTS_MAX: usize = 1_000_000;

/// A request as it is known: two hashes of its client and its id.
type Key = (u64, u64);

/// How a request stands, as far as the stream of requests has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has sent it.
    Unknown,
    /// The first who claimed it, as was read then, is about to send it.
    Claimed(ClaimId, Instant),
    /// RabbitMQ has it.
    Stored,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    at: Instant,
    /// Nothing once RabbitMQ has it.
    claim: Option<ClaimId>,
}

/// The requests of all clients, of every aggregator.
#[derive(Debug)]
pub struct RequestBook {
    owner: Uuid,
    claims: AtomicU64,
    window: Duration,
    hashers: (RandomState, RandomState),
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Key, Known>,
    by_age: VecDeque<(Instant, Key)>,
    /// What this process has in hand.
    taken: HashSet<Key>,
}

/// A request that this process has in hand, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Taken<'a> {
    book: &'a RequestBook,
    key: Key,
    /// The latest claim to it.
    pub claim: Option<Claim>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.book.inner().taken.remove(&self.key);
    }
}

impl RequestBook {
    /// One that remembers a request for so long, of the aggregator of that id.
    pub fn new(owner: Uuid, window: Duration) -> Self {
        let hashers = (RandomState::new(), RandomState::new());
        Self { owner, claims: AtomicU64::new(0), window, hashers, inner: Mutex::default() }
    }

    /// Takes a request in hand; nothing if this process has it in hand already.
    pub fn take(&self, client: &str, id: &str) -> Option<Taken<'_>> {
        let key = self.key(client, id);
        let is_free = self.inner().taken.insert(key);
        // Made in any case, it would be dropped in the other, and free what another one has.
        is_free.then(|| Taken { book: self, key, claim: None })
    }

    /// A new claim to a request, in place of one that has come to nothing if there is one.
    pub fn claim(&self, client: &str, id: &str, instead_of: Option<ClaimId>) -> Claim {
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        let [client, request] = [client, id].map(str::to_owned);
        let id = ClaimId { owner: self.owner, number };
        Claim { id, client, request, state: ClaimState::Made, instead_of }
    }

    /// Whether a claim is of this process.
    pub fn is_own(&self, claim: ClaimId) -> bool {
        claim.owner == self.owner
    }

    /// Notes a claim that was read, or what has become of one.
    pub fn hear(&self, claim: &Claim) {
        match claim.state {
            ClaimState::Made => self.claimed(claim),
            ClaimState::Sent => self.stored(&claim.client, &claim.request),
            ClaimState::Void => {
                let key = self.key(&claim.client, &claim.request);
                let mut inner = self.inner();
                if inner.known.get(&key).is_some_and(|known| known.claim == Some(claim.id)) {
                    inner.known.remove(&key);
                }
            }
        }
    }

    /// The first claim counts, until another is made in its place.
    fn claimed(&self, claim: &Claim) {
        let key = self.key(&claim.client, &claim.request);
        let mut inner = self.inner();
        let is_first = match inner.known(key, self.window) {
            None => true,
            Some(known) => known.claim.is_some() && known.claim == claim.instead_of,
        };
        if is_first {
            inner.note(key, Some(claim.id));
        }
    }

    /// Notes a request that RabbitMQ has.
    pub fn stored(&self, client: &str, id: &str) {
        let key = self.key(client, id);
        let mut inner = self.inner();
        match inner.known(key, self.window) {
            Some(known) => known.claim = None,
            None => inner.note(key, None),
        }
    }

    /// Forgets one that no server gets.
    pub fn withdraw(&self, client: &str, id: &str) {
        let key = self.key(client, id);
        self.inner().known.remove(&key);
    }

    /// How a request stands.
    pub fn standing(&self, client: &str, id: &str) -> Standing {
        let key = self.key(client, id);
        match self.inner().known(key, self.window) {
            None => Standing::Unknown,
            Some(Known { claim: None, .. }) => Standing::Stored,
            Some(Known { claim: Some(claim), at }) => Standing::Claimed(*claim, *at),
        }
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
    fn known(&mut self, key: Key, window: Duration) -> Option<&mut Known> {
        self.forget(Instant::now(), window);
        self.known.get_mut(&key)
    }

    fn note(&mut self, key: Key, claim: Option<ClaimId>) {
        let at = Instant::now();
        self.known.insert(key, Known { at, claim });
        self.by_age.push_back((at, key));
    }

    fn forget(&mut self, now: Instant, window: Duration) {
        while let Some((at, key)) = self.by_age.front() {
            let is_old = now.saturating_duration_since(*at) > window;
            if !is_old && self.by_age.len() <= REQUESTS_MAX {
                return;
            }
            // It may have been noted again since.
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

    const WINDOW: Duration = Duration::from_secs(10);

    fn book() -> RequestBook {
        RequestBook::new(Uuid::from_u128(1), WINDOW)
    }

    fn is_claimed(book: &RequestBook, by: &Claim) -> bool {
        matches!(book.standing("ana", "1"), Standing::Claimed(id, _) if id == by.id)
    }

    #[test]
    fn the_first_claim_counts() {
        let (ours, theirs) = (book(), RequestBook::new(Uuid::from_u128(2), WINDOW));
        let [first, second] = [&theirs, &ours].map(|book| book.claim("ana", "1", None));
        for book in [&ours, &theirs] {
            for claim in [&first, &second, &first] {
                book.hear(claim);
            }
            assert!(is_claimed(book, &first));
        }
        assert!(theirs.is_own(first.id) && !ours.is_own(first.id));
        assert_eq!(ours.standing("ana", "2"), Standing::Unknown);
    }

    #[test]
    fn a_claim_takes_the_place_of_the_one_that_it_names() {
        let book = book();
        let first = book.claim("ana", "1", None);
        let [second, late] = [(), ()].map(|()| book.claim("ana", "1", Some(first.id)));
        for claim in [&first, &second, &late] {
            book.hear(claim);
        }
        assert!(is_claimed(&book, &second), "both name the first");
        book.stored("ana", "1");
        let after = book.claim("ana", "1", Some(second.id));
        book.hear(&after);
        book.hear(&book.claim("ana", "1", None));
        assert_eq!(book.standing("ana", "1"), Standing::Stored);
        book.withdraw("ana", "1");
        book.hear(&after);
        assert!(is_claimed(&book, &after));
    }

    #[test]
    fn what_has_become_of_a_claim_is_heard() {
        let book = book();
        let [first, second] = [(), ()].map(|()| book.claim("ana", "1", None));
        let become_of = |claim: &Claim, state| Claim { state, ..claim.clone() };
        book.hear(&first);
        book.hear(&become_of(&second, ClaimState::Void));
        assert!(is_claimed(&book, &first), "it was another one's");
        book.hear(&become_of(&first, ClaimState::Void));
        assert_eq!(book.standing("ana", "1"), Standing::Unknown);
        book.hear(&second);
        book.hear(&become_of(&second, ClaimState::Sent));
        book.hear(&become_of(&second, ClaimState::Void));
        assert_eq!(book.standing("ana", "1"), Standing::Stored);
    }

    #[test]
    fn a_request_is_in_one_hand() {
        let book = book();
        let taken = book.take("ana", "1").unwrap();
        assert!(book.take("ana", "1").is_none());
        assert!(book.take("ana", "2").is_some() && book.take("bob", "1").is_some());
        drop(taken);
        assert!(book.take("ana", "1").is_some());
        assert!(book.inner().taken.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_known_in_its_window() {
        let book = book();
        book.stored("ana", "1");
        let first = book.claim("bob", "1", None);
        book.hear(&first);
        tokio::time::advance(Duration::from_secs(6)).await;
        book.hear(&book.claim("bob", "1", Some(first.id)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(book.standing("ana", "1"), Standing::Unknown);
        book.stored("bob", "1");
        assert_eq!(book.standing("bob", "1"), Standing::Stored);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(book.standing("bob", "1"), Standing::Unknown);
        let inner = book.inner();
        assert_eq!((inner.known.len(), inner.by_age.len()), (0, 0));
    }
}
