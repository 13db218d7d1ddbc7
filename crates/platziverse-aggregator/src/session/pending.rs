//! The requests of a session that have no outcome yet.

use std::collections::HashMap;

use tokio::time::Instant;

/// Requests of one session that may be open at a time.
pub(super) const REQUESTS_MAX: usize = 64;

/// Requests by their ids, each until it has its one outcome.
#[derive(Debug, Default)]
pub(super) struct Pending {
    open: HashMap<Box<str>, Open>,
}

#[derive(Debug)]
struct Open {
    deadline: Instant,
    /// The client that was asked; servers if there is none.
    asked: Option<Box<str>>,
}

impl Pending {
    /// Notes a request; whether there is room. One that is asked again has its new deadline.
    pub(super) fn open(&mut self, id: &str, asked: Option<&str>, deadline: Instant) -> bool {
        if self.open.len() >= REQUESTS_MAX && !self.open.contains_key(id) {
            return false;
        }
        let asked = asked.map(Into::into);
        self.open.insert(id.into(), Open { deadline, asked });
        true
    }

    /// Ends a request with a reply; whether it was open, and that is from whom was asked.
    pub(super) fn reply(&mut self, id: &str, from: Option<&str>) -> bool {
        self.open.get(id).is_some_and(|open| open.asked.as_deref() == from) && self.close(id)
    }

    /// Ends a request; whether it was open.
    pub(super) fn close(&mut self, id: &str) -> bool {
        let was_open = self.open.remove(id).is_some();
        if self.open.is_empty() {
            // Whoever is idle holds nothing.
            self.open = HashMap::new();
        }
        was_open
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the next request is over.
    pub(super) fn next(&self) -> Option<Instant> {
        self.open.values().map(|open| open.deadline).min()
    }

    /// Ends those whose time is over: their ids.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Box<str>> {
        let over = self.open.iter().filter(|(_, open)| open.deadline <= now);
        let over: Vec<Box<str>> = over.map(|(id, _)| id.clone()).collect();
        for id in &over {
            self.close(id);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_request_ends_once() {
        let mut pending = Pending::default();
        let now = Instant::now();
        let [soon, later] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        assert!(pending.open("1", None, soon) && pending.open("2", None, soon));
        assert!(pending.open("2", None, later));
        assert_eq!(pending.next(), Some(soon));
        assert_eq!(pending.overdue(soon), ["1".into()]);
        assert!(!pending.close("1") && pending.close("2") && !pending.close("2"));
        assert_eq!((pending.next(), pending.overdue(later).len()), (None, 0));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut pending = Pending::default();
        let now = Instant::now();
        for id in 0..REQUESTS_MAX {
            assert!(pending.open(&id.to_string(), None, now));
        }
        assert!(!pending.open("more", None, now) && pending.open("0", None, now));
    }

    #[test]
    fn only_whom_was_asked_can_reply() {
        let mut pending = Pending::default();
        let now = Instant::now();
        assert!(pending.open("1", None, now) && pending.open("2", Some("bob"), now));
        assert!(!pending.reply("1", Some("eve")) && !pending.reply("2", Some("eve")));
        assert!(!pending.reply("2", None) && !pending.reply("3", None));
        assert!(pending.reply("1", None) && pending.reply("2", Some("bob")));
        assert!(pending.is_empty());
    }
}
