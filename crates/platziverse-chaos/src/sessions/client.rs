//! A careful client: it comes back with its resume token and offsets, and sends again under the same
//! id what has no outcome, or was answered as `unavailable`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platziverse_testkit::{Follower, FollowerOptions};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;

use super::kind::{CHAT, Kind, VOICE, name};
use super::neighbours;
use super::reconcile::{Entry, Page, Sent};
use crate::fleet::Order;

/// How long a client is away at most when its connection is lost: others publish meanwhile.
const AWAY: Duration = Duration::from_secs(1);
/// Packets that may wait for their outcomes.
const WINDOW: usize = 20;

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its connection, and everything that came.
    pub follower: Follower,
    name: String,
    place: usize,
    book: Mutex<Book>,
}

/// What it has sent.
#[derive(Debug, Default)]
struct Book {
    sent: u64,
    /// What has no outcome.
    open: BTreeMap<u64, Asked>,
    /// What has one.
    settled: BTreeMap<u64, Asked>,
    /// The last request with a reply.
    replied: Option<u64>,
    hindered: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    id: String,
    kind: Kind,
    packet: Value,
    /// How many outcomes were answered by sending it again.
    again: usize,
}

impl Client {
    /// Connects to the first of these aggregators, or another, and consumes both channels.
    pub async fn start(place: usize, aggregators: &[SocketAddr]) -> Self {
        let name = name(place);
        let options = FollowerOptions { wait: AWAY, ..FollowerOptions::new(&name, &[CHAT, VOICE]) };
        let follower = Follower::start(aggregators, options).await;
        Self { follower, name, place, book: Mutex::default() }
    }

    /// Sends until it is told to end.
    pub async fn act(self: Arc<Self>, orders: watch::Receiver<Order>, pause: Duration) {
        loop {
            let order = *orders.borrow();
            if order == Order::End {
                return;
            }
            self.ask_again();
            if order == Order::Report && self.book().open.len() < WINDOW {
                self.send();
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    fn send(&self) {
        let mut book = self.book();
        let number = book.sent;
        book.sent += 1;
        let (id, kind) = (format!("{}/{number}", self.name), Kind::of(number));
        let packet = kind.packet(&id, &neighbours(self.place, number));
        self.follower.send(&id, packet.clone());
        book.open.insert(number, Asked { id, kind, packet, again: 0 });
    }

    /// Settles what has its outcome, and sends again what RabbitMQ was not there for.
    fn ask_again(&self) {
        let mut book = self.book();
        let Book { open, settled, replied, hindered, .. } = &mut *book;
        open.retain(|number, asked| {
            let outcomes = self.follower.outcomes(&asked.id);
            let Some(last) = outcomes.get(asked.again..).and_then(<[Value]>::last) else {
                return true;
            };
            if is_unavailable(last) {
                asked.again = outcomes.len();
                *hindered += 1;
                self.follower.send(&asked.id, asked.packet.clone());
                return true;
            }
            if asked.kind == Kind::Request {
                *replied = (*replied).max(Some(*number));
            }
            settled.insert(*number, asked.clone());
            false
        });
    }

    /// How many packets it has sent.
    pub fn sent(&self) -> u64 {
        self.book().sent
    }

    /// How many have no outcome.
    pub fn open(&self) -> u64 {
        self.book().open.len() as u64
    }

    /// How many requests have none.
    pub fn asking(&self) -> u64 {
        self.book().open.values().filter(|asked| asked.kind == Kind::Request).count() as u64
    }

    /// How many packets were answered as `unavailable`.
    pub fn hindered(&self) -> u64 {
        self.book().hindered
    }

    /// Whether a request from this number on has its reply.
    pub fn is_done_from(&self, number: u64) -> bool {
        self.book().replied.is_some_and(|last| last >= number)
    }

    /// Whether the last one that is for it of each source has come.
    pub fn has_come(&self, entries: &[Entry]) -> bool {
        let messages = self.follower.messages();
        let mut due = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.is_for(&self.name)) {
            due.insert(entry.source, entry.offset);
        }
        due.iter().all(|(source, offset)| {
            let is_it = |one: &&platziverse_testkit::Followed| one.source == *source;
            messages.iter().rfind(is_it).is_some_and(|one| one.offset >= *offset)
        })
    }

    /// Everything that it knows.
    pub fn page(&self) -> Page {
        let book = self.book();
        let sent = book.settled.values().chain(book.open.values()).map(|asked| Sent {
            id: asked.id.clone(),
            kind: asked.kind,
            outcomes: self.follower.outcomes(&asked.id),
        });
        let gap = |gap: platziverse_testkit::Gap| format!("{} {}", gap.source, gap.told);
        Page {
            name: self.name.clone(),
            sent: sent.collect(),
            heard: self.follower.messages(),
            gaps: self.follower.gaps().into_iter().map(gap).collect(),
            errors: self.follower.errors().iter().map(Value::to_string).collect(),
            repeats: self.follower.repeats(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an outcome says that RabbitMQ was not there: not the last word.
pub fn is_unavailable(outcome: &Value) -> bool {
    outcome["code"] == "unavailable"
}
