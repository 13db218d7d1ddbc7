//! What has been done, so that a request that comes again is answered again and not done twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Requests that are known at a time.
const REQUESTS_MAX: usize = 100_000;
/// Bytes of their replies, and of their ids.
const BYTES_MAX: usize = 64 << 20;
/// How long a request is known once it is done.
const WINDOW: Duration = Duration::from_secs(300);

/// What has come of a request: the answer, or what went wrong, in words.
pub(crate) type Reply = Result<Bytes, Arc<str>>;

/// Who has asked, and the id of what.
pub(crate) type Request = (String, String);

/// What comes of a request, as soon as that is known. Whoever comes while it is being done waits.
pub(crate) type Place = Arc<OnceCell<Reply>>;

/// Requests with their replies.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    places: HashMap<Request, Place>,
    /// Those that are done, in the order in which they were, with their bytes.
    done: VecDeque<(Instant, Request, usize)>,
    bytes: usize,
}

impl Book {
    /// The place of a request: a new one if it is not known.
    pub(crate) fn place(&self, request: &Request, now: Instant) -> Place {
        let mut state = self.lock();
        state.forget(now);
        Arc::clone(state.places.entry(request.clone()).or_default())
    }

    /// Notes that a request is done: from now on it takes room.
    pub(crate) fn done(&self, request: Request, reply: &Reply, now: Instant) {
        let said = match reply {
            Ok(body) => body.len(),
            Err(error) => error.len(),
        };
        let bytes = said + request.0.len() + request.1.len();
        let mut state = self.lock();
        state.bytes += bytes;
        state.done.push_back((now, request, bytes));
        state.forget(now);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A handler's panic is caught elsewhere; nothing panics while this is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((at, _, _)) = self.done.front() {
            let is_old = now.saturating_duration_since(*at) >= WINDOW;
            if !is_old && self.done.len() <= REQUESTS_MAX && self.bytes <= BYTES_MAX {
                return;
            }
            if let Some((_, request, bytes)) = self.done.pop_front() {
                self.places.remove(&request);
                self.bytes -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: usize) -> Request {
        ("ana".to_owned(), id.to_string())
    }

    fn finish(book: &Book, id: usize, reply: Reply, now: Instant) {
        book.place(&request(id), now).set(reply.clone()).unwrap();
        book.done(request(id), &reply, now);
    }

    fn is_known(book: &Book, id: usize, now: Instant) -> bool {
        let place = book.place(&request(id), now);
        let known = place.initialized();
        if !known {
            book.lock().places.remove(&request(id));
        }
        known
    }

    #[test]
    fn a_request_is_known_for_its_window() {
        let (book, start) = (Book::default(), Instant::now());
        finish(&book, 1, Ok(Bytes::from_static(b"{}")), start);
        let almost = start + WINDOW - Duration::from_millis(1);
        let place = book.place(&request(1), almost);
        assert_eq!(place.get().unwrap().as_deref(), Ok(&b"{}"[..]));
        assert!(!is_known(&book, 1, start + WINDOW));
        assert_eq!(book.lock().bytes, 0);
    }

    #[test]
    fn what_is_being_done_is_not_forgotten() {
        let (book, start) = (Book::default(), Instant::now());
        let place = book.place(&request(1), start);
        let again = book.place(&request(1), start + 2 * WINDOW);
        assert!(Arc::ptr_eq(&place, &again), "whoever comes again waits for the first");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (book, now) = (Book::default(), Instant::now());
        for id in 0..=REQUESTS_MAX {
            finish(&book, id, Err("no".into()), now);
        }
        assert!(!is_known(&book, 0, now));
        assert!(is_known(&book, 1, now) && is_known(&book, REQUESTS_MAX, now));
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let (book, now) = (Book::default(), Instant::now());
        for id in 0..3 {
            finish(&book, id, Ok(vec![0; BYTES_MAX / 2 - 100].into()), now);
        }
        assert!(!is_known(&book, 0, now));
        assert!(is_known(&book, 1, now) && is_known(&book, 2, now));
        finish(&book, 3, Ok(vec![0; BYTES_MAX + 1].into()), now);
        assert!(!is_known(&book, 3, now), "it is larger than all the room");
        let state = book.lock();
        assert_eq!((state.bytes, state.places.len()), (0, 0));
    }
}
