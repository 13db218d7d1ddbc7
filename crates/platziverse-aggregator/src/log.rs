//! The latest messages of one source, kept for those who come back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::outbox::Frame;

/// For whom a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every client of the channel.
    Everyone,
    /// These clients, in order.
    Clients(Vec<String>),
}

impl Target {
    /// Whether it is for a client.
    pub fn is_for(&self, client: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Clients(clients) => {
                clients.binary_search_by(|other| other.as_str().cmp(client)).is_ok()
            }
        }
    }
}

/// A message that was distributed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// For whom.
    pub target: Target,
    /// What is written to them.
    pub frame: Arc<Frame>,
}

/// A client, and its request.
type Asked = (Box<str>, Box<str>);

/// What is kept of a source: a part of which nothing is left out, up to its newest message.
#[derive(Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// The outcomes of requests among them, by client and request.
    outcomes: HashMap<Asked, Vec<Arc<Frame>>>,
    bytes: usize,
    bytes_max: usize,
    /// The offset of what comes next.
    next: u64,
    /// The first offset that is kept.
    first: u64,
}

/// A message costs so much beside its text.
const OVERHEAD: usize = 128;

impl Log {
    /// A log that begins at an offset, and keeps so many bytes.
    pub fn new(next: u64, bytes_max: usize) -> Self {
        let (entries, outcomes) = (VecDeque::new(), HashMap::new());
        Self { entries, outcomes, bytes: 0, bytes_max, next, first: next }
    }

    /// Adds the next message; whether it is one. What has come before is not added again.
    pub fn push(&mut self, entry: Entry) -> bool {
        let offset = entry.frame.offset;
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        self.bytes += cost(&entry);
        for key in keys(&entry) {
            self.outcomes.entry(key).or_default().push(Arc::clone(&entry.frame));
        }
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= cost(&oldest);
            self.first = oldest.frame.offset + 1;
            self.forget(&oldest);
        }
        true
    }

    fn forget(&mut self, entry: &Entry) {
        for key in keys(entry) {
            if let Some(outcomes) = self.outcomes.get_mut(&key) {
                outcomes.retain(|frame| frame.offset != entry.frame.offset);
                if outcomes.is_empty() {
                    self.outcomes.remove(&key);
                }
            }
        }
    }

    /// Notes that what comes before an offset is for nobody.
    pub fn skip(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Notes that RabbitMQ has dropped what comes before an offset: what is older is of no use to go
    /// on from.
    pub fn lost(&mut self, next: u64) {
        if next > self.next {
            self.entries.clear();
            self.outcomes.clear();
            self.bytes = 0;
            (self.first, self.next) = (next, next);
        }
    }

    /// The first offset that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The offset of what comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What there is for a client from an offset on, that is `wanted`; nothing if the log begins
    /// later.
    pub fn since<'a>(
        &'a self,
        offset: u64,
        client: &'a str,
        wanted: impl Fn(&Frame) -> bool + 'a,
    ) -> Option<impl Iterator<Item = &'a Arc<Frame>>> {
        if offset < self.first {
            return None;
        }
        // Offsets rise, and RabbitMQ leaves some out.
        let start = self.entries.partition_point(|entry| entry.frame.offset < offset);
        let entries = self.entries.range(start..).filter(|entry| entry.target.is_for(client));
        Some(entries.map(|entry| &entry.frame).filter(move |frame| wanted(frame)))
    }

    /// The newest outcome of a client's request that is kept, of whom was asked: a server, or a
    /// client.
    pub fn outcome(&self, client: &str, request: &str, asked: Option<&str>) -> Option<Arc<Frame>> {
        let outcomes = self.outcomes.get(&(client.into(), request.into()))?;
        let is_from = |frame: &&Arc<Frame>| {
            frame.reply.as_ref().is_some_and(|reply| reply.from.as_deref() == asked)
        };
        outcomes.iter().rev().find(is_from).cloned()
    }
}

/// Under what an outcome is found: each of its clients, with the request. Nothing if it is none.
fn keys(entry: &Entry) -> Vec<Asked> {
    match (&entry.frame.reply, &entry.target) {
        (Some(reply), Target::Clients(clients)) => {
            let key = |client: &String| (client.as_str().into(), reply.request.clone());
            clients.iter().map(key).collect()
        }
        _ => Vec::new(),
    }
}

fn cost(entry: &Entry) -> usize {
    let names = match &entry.target {
        Target::Everyone => 0,
        Target::Clients(clients) => clients.iter().map(|client| client.len() + 24).sum(),
    };
    entry.frame.text.len() + names + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::message;

    fn entry(offset: u64, target: Target) -> Entry {
        Entry { target, frame: message(offset, offset.to_string()) }
    }

    fn to(clients: &[&str]) -> Target {
        Target::Clients(clients.iter().map(|client| (*client).to_owned()).collect())
    }

    fn offsets(log: &Log, since: u64, client: &str) -> Option<Vec<u64>> {
        let frames = log.since(since, client, |_| true)?;
        Some(frames.map(|frame| frame.offset).collect())
    }

    #[test]
    fn each_client_gets_its_own() {
        let mut log = Log::new(10, 100_000);
        assert!(log.push(entry(10, Target::Everyone)));
        assert!(log.push(entry(11, to(&["a", "c"]))));
        assert!(log.push(entry(12, to(&["b"]))));
        assert_eq!(offsets(&log, 10, "a"), Some(vec![10, 11]));
        assert_eq!(offsets(&log, 11, "b"), Some(vec![12]));
        assert_eq!(offsets(&log, 13, "b"), Some(vec![]));
        assert_eq!(offsets(&log, 9, "b"), None);
    }

    #[test]
    fn repeats_are_dropped_and_losses_begin_anew() {
        let mut log = Log::new(0, 100_000);
        assert!(log.push(entry(0, Target::Everyone)));
        assert!(!log.push(entry(0, Target::Everyone)));
        assert!(log.push(entry(5, Target::Everyone)));
        assert_eq!(offsets(&log, 0, "a"), Some(vec![0, 5]));
        assert_eq!(offsets(&log, 3, "a"), Some(vec![5]));
        log.lost(9);
        assert_eq!((offsets(&log, 6, "a"), offsets(&log, 9, "a")), (None, Some(vec![])));
        assert!(log.push(entry(10, Target::Everyone)));
        assert_eq!((offsets(&log, 9, "a"), log.next()), (Some(vec![10]), 11));
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut log = Log::new(0, (OVERHEAD + 1) * 3);
        for offset in 0..5 {
            log.push(entry(offset, Target::Everyone));
        }
        assert_eq!(offsets(&log, 1, "a"), None);
        assert_eq!(offsets(&log, 2, "a"), Some(vec![2, 3, 4]));
    }
}
