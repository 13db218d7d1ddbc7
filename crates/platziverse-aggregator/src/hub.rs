//! One channel at this aggregator: what was distributed of late, and who takes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::{Entry, Log, Target};
use crate::mailbox::{Eviction, Mailbox};
use crate::outbox::Frame;

/// Messages that a session gets at a time while it catches up.
const BATCH_MESSAGES: usize = 256;
/// Bytes of them; one message may be longer.
const BATCH_BYTES: usize = 262_144;

/// What a session takes of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wants {
    /// The outcomes of its client's requests.
    Replies,
    /// All that is for its client.
    Everything,
}

impl Wants {
    fn admits(self, frame: &Frame) -> bool {
        self == Self::Everything || frame.reply.is_some()
    }
}

/// A channel's messages and subscribers. One lock for both: who begins to listen gets each message
/// once, in order.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// There once something has come.
    log: Option<Log>,
    /// Sessions that take the channel, by client.
    subscribers: HashMap<Box<str>, Vec<(Arc<Mailbox>, Wants)>>,
}

/// What a session that catches up gets.
#[derive(Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// These messages; then it asks again, from this offset.
    More(Vec<Arc<Frame>>, u64),
    /// These, which are the last: what comes from now on goes to its mailbox.
    Attached(Vec<Arc<Frame>>),
    /// The log begins later, at this offset.
    Older(u64),
}

impl Hub {
    /// One that keeps so many bytes of messages.
    pub fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), bytes_max }
    }

    /// Hands a message to everyone it is for; how many sessions that are. One that has come before is
    /// handed to nobody.
    pub fn distribute(&self, entry: Entry) -> usize {
        let mut inner = self.inner();
        let offset = entry.frame.offset;
        let log = inner.log.get_or_insert_with(|| Log::new(offset, self.bytes_max));
        if !log.push(entry.clone()) {
            return 0;
        }
        let mut handed = 0;
        let mut hand = |mailboxes: &Vec<(Arc<Mailbox>, Wants)>| {
            for (mailbox, wants) in mailboxes {
                if wants.admits(&entry.frame) {
                    mailbox.put(Arc::clone(&entry.frame));
                    handed += 1;
                }
            }
        };
        match &entry.target {
            Target::Everyone => inner.subscribers.values().for_each(&mut hand),
            Target::Clients(clients) => {
                let known = clients.iter().filter_map(|id| inner.subscribers.get(id.as_str()));
                known.for_each(&mut hand);
            }
        }
        handed
    }

    /// Notes that what comes before this offset is for nobody.
    pub fn skip(&self, next: u64) {
        let mut inner = self.inner();
        inner.log.get_or_insert_with(|| Log::new(next, self.bytes_max)).skip(next);
    }

    /// Notes that RabbitMQ has dropped what comes before this offset. Whoever takes the channel has
    /// missed it: all are to come back, and are told.
    pub fn lost(&self, next: u64) {
        let mut inner = self.inner();
        inner.log.get_or_insert_with(|| Log::new(next, self.bytes_max)).lost(next);
        inner.evict();
    }

    /// Forgets all: RabbitMQ has begun the stream anew. What clients have seen of it means nothing
    /// any more: all are to come back.
    pub fn restart(&self) {
        let mut inner = self.inner();
        inner.log = None;
        inner.evict();
    }

    /// The first offset that is kept, once something has come.
    pub fn first(&self) -> Option<u64> {
        self.inner().log.as_ref().map(Log::first)
    }

    /// The offset of what comes next, once something has come.
    pub fn next(&self) -> Option<u64> {
        self.inner().log.as_ref().map(Log::next)
    }

    /// Subscribes a session from now on; the offset of what it gets next. A session that takes
    /// everything goes on doing so.
    pub fn subscribe(&self, mailbox: &Arc<Mailbox>, wants: Wants) -> u64 {
        let mut inner = self.inner();
        inner.add(mailbox, wants);
        inner.log.as_ref().map_or(0, Log::next)
    }

    /// Gives a session what came from an offset on, and subscribes it with the last of it.
    pub fn catch_up(&self, mailbox: &Arc<Mailbox>, from: u64, wants: Wants) -> CatchUp {
        let mut inner = self.inner();
        let mut frames = Vec::new();
        if let Some(log) = &inner.log {
            let Some(missed) = log.since(from, mailbox.client(), |frame| wants.admits(frame))
            else {
                return CatchUp::Older(log.first());
            };
            let mut bytes = 0;
            for frame in missed {
                if frames.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES {
                    return CatchUp::More(frames, frame.offset);
                }
                bytes += frame.text.len();
                frames.push(Arc::clone(frame));
            }
        }
        inner.add(mailbox, wants);
        CatchUp::Attached(frames)
    }

    /// The outcome of a request that has come before, if it is still here: that of whom was asked,
    /// servers if that is no client.
    pub fn outcome(&self, client: &str, request: &str, asked: Option<&str>) -> Option<Arc<Frame>> {
        self.inner().log.as_ref()?.outcome(client, request, asked)
    }

    /// Ends a subscription, down to what is still wanted. Another socket of the same session keeps
    /// its own.
    pub fn unsubscribe(&self, mailbox: &Arc<Mailbox>, still: Option<Wants>) {
        let mut inner = self.inner();
        let Some(mailboxes) = inner.subscribers.get_mut(mailbox.client()) else { return };
        match still {
            Some(still) => mailboxes
                .iter_mut()
                .filter(|(other, _)| Arc::ptr_eq(other, mailbox))
                .for_each(|(_, wants)| *wants = still),
            None => mailboxes.retain(|(other, _)| !Arc::ptr_eq(other, mailbox)),
        }
        if mailboxes.is_empty() {
            inner.subscribers.remove(mailbox.client());
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in it is whole after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn evict(&self) {
        for (mailbox, wants) in self.subscribers.values().flatten() {
            if *wants == Wants::Everything {
                mailbox.evict(Eviction::Behind);
            }
        }
    }

    fn add(&mut self, mailbox: &Arc<Mailbox>, wants: Wants) {
        let mailboxes = self.subscribers.entry(mailbox.client().into()).or_default();
        match mailboxes.iter_mut().find(|(other, _)| Arc::ptr_eq(other, mailbox)) {
            Some((_, known)) => *known = wants.max(*known),
            None => mailboxes.push((Arc::clone(mailbox), wants)),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::channel::Channel;
    use crate::mailbox::Mail;
    use crate::outbox::{OutboxLimits, Outcome, WhenFull, message};

    fn entry(offset: u64, clients: &[&str]) -> Entry {
        let target = match clients {
            [] => Target::Everyone,
            clients => Target::Clients(clients.iter().map(|id| (*id).to_owned()).collect()),
        };
        Entry { target, frame: message(offset, offset.to_string()) }
    }

    fn reply(offset: u64, client: &str, request: &str) -> Entry {
        let reply = Outcome { request: request.into(), from: None };
        let (channel, reply) = (Channel::default(), Some(reply));
        let frame = Frame { offset, channel, reply, text: "{}".into() };
        Entry { target: Target::Clients(vec![client.to_owned()]), frame: Arc::new(frame) }
    }

    fn session(number: u128, client: &str) -> Arc<Mailbox> {
        let limits = OutboxLimits { messages: 100, bytes: 10_000, when_full: WhenFull::Close };
        Mailbox::new(Uuid::from_u128(number), client, limits)
    }

    fn got(mailbox: &Mailbox) -> Vec<u64> {
        let mail = std::iter::from_fn(|| mailbox.try_next());
        mail.map(|mail| match mail {
            Mail::Frame(frame) => frame.offset,
            other => panic!("{other:?}"),
        })
        .collect()
    }

    fn caught(hub: &Hub, mailbox: &Arc<Mailbox>, from: u64, wants: Wants) -> Vec<u64> {
        match hub.catch_up(mailbox, from, wants) {
            CatchUp::Attached(frames) => frames.iter().map(|frame| frame.offset).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_gets_what_is_for_it() {
        let hub = Hub::new(100_000);
        let (ana, phone, bob) = (session(1, "ana"), session(2, "ana"), session(3, "bob"));
        for mailbox in [&ana, &phone, &bob] {
            assert_eq!(hub.subscribe(mailbox, Wants::Everything), 0);
        }
        assert_eq!(hub.distribute(entry(5, &[])), 3);
        assert_eq!(hub.distribute(entry(6, &["ana", "eve"])), 2);
        assert_eq!(hub.distribute(entry(6, &["ana", "eve"])), 0, "a repeat");
        hub.unsubscribe(&phone, None);
        assert_eq!(hub.distribute(entry(7, &["ana", "bob"])), 2);
        assert_eq!((got(&ana), got(&phone), got(&bob)), (vec![5, 6, 7], vec![5, 6], vec![5, 7]));
    }

    #[test]
    fn replies_go_to_who_asks() {
        let hub = Hub::new(100_000);
        let (ana, bob) = (session(1, "ana"), session(2, "bob"));
        hub.subscribe(&ana, Wants::Replies);
        hub.subscribe(&bob, Wants::Everything);
        hub.subscribe(&bob, Wants::Replies);
        hub.distribute(entry(1, &[]));
        hub.distribute(reply(2, "ana", "7"));
        assert_eq!((got(&ana), got(&bob)), (vec![2], vec![1]));
        assert_eq!(hub.outcome("ana", "7", None).map(|frame| frame.offset), Some(2));
        assert_eq!((hub.outcome("bob", "7", None), hub.outcome("ana", "8", None)), (None, None));
        assert_eq!(hub.outcome("ana", "7", Some("eve")), None, "of another");
        hub.unsubscribe(&bob, Some(Wants::Replies));
        hub.distribute(entry(3, &[]));
        assert_eq!(got(&bob), [0; 0]);
        let back = session(1, "ana");
        assert_eq!(caught(&hub, &back, 1, Wants::Replies), [2]);
    }

    #[test]
    fn a_socket_that_ends_leaves_the_next_one_of_its_session_alone() {
        let hub = Hub::new(100_000);
        let [old, new] = [1, 1].map(|number| session(number, "ana"));
        hub.subscribe(&old, Wants::Everything);
        hub.subscribe(&new, Wants::Everything);
        hub.unsubscribe(&old, None);
        hub.distribute(entry(1, &[]));
        assert_eq!((got(&old), got(&new)), (vec![], vec![1]));
    }

    #[test]
    fn who_has_missed_something_is_to_come_back() {
        let hub = Hub::new(100_000);
        let (ana, bob) = (session(1, "ana"), session(2, "bob"));
        hub.distribute(entry(1, &[]));
        hub.subscribe(&ana, Wants::Everything);
        hub.subscribe(&bob, Wants::Replies);
        hub.lost(9);
        assert_eq!(ana.try_next(), Some(Mail::Evicted(Eviction::Behind)));
        assert_eq!(bob.try_next(), None);
        let eve = session(3, "eve");
        hub.subscribe(&eve, Wants::Everything);
        hub.restart();
        assert_eq!(eve.try_next(), Some(Mail::Evicted(Eviction::Behind)));
        assert_eq!(hub.next(), None);
    }

    #[test]
    fn who_comes_back_gets_what_was_missed_once() {
        let hub = Hub::new(100_000);
        for offset in 3..8 {
            hub.distribute(entry(offset, if offset % 2 == 0 { &["bob"] } else { &[] }));
        }
        let ana = session(1, "ana");
        assert_eq!(caught(&hub, &ana, 4, Wants::Everything), [5, 7]);
        hub.distribute(entry(8, &[]));
        assert_eq!(got(&ana), [8]);
        let early = session(2, "ana");
        assert_eq!(hub.catch_up(&early, 2, Wants::Everything), CatchUp::Older(3));
        hub.distribute(entry(9, &[]));
        assert_eq!(got(&early), [0; 0]);
        hub.lost(20);
        assert_eq!(hub.catch_up(&early, 10, Wants::Everything), CatchUp::Older(20));
        assert_eq!(hub.subscribe(&early, Wants::Everything), 20);
    }

    #[test]
    fn who_missed_much_gets_it_bit_by_bit() {
        let hub = Hub::new(10_000_000);
        let wanted = BATCH_MESSAGES as u64 + 10;
        for offset in 0..wanted {
            hub.distribute(entry(offset, &[]));
        }
        let ana = session(1, "ana");
        let CatchUp::More(first, next) = hub.catch_up(&ana, 0, Wants::Everything) else {
            panic!("all at once")
        };
        assert_eq!((first.len(), next), (BATCH_MESSAGES, BATCH_MESSAGES as u64));
        hub.distribute(entry(wanted, &[]));
        assert_eq!(got(&ana), [0; 0], "not before what it missed");
        assert_eq!(caught(&hub, &ana, next, Wants::Everything).len(), 11);
    }
}
