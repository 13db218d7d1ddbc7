//! Publishers: each message again under its key until it is confirmed, and some once more after that.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use platziverse_client::{Client, Code, Error, Kind, NewMessage, Published};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::caller::{Caller, Silence};
use super::kind::{self, Address, Publisher};
use super::letters::Letters;
use crate::fleet::Order;

/// How often it is looked what there is to do.
const LOOK: Duration = Duration::from_millis(10);
/// How long to wait after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(200);
/// Of so many messages, one is published once more after its confirm.
const AGAIN: u64 = 4;
/// Messages of a stream that may await their confirms.
const WINDOW: usize = 100;
/// What is said when no server listens: then nothing was published.
const NOBODY: &str = "Connection refused";
const HEADER: &str = "idempotency-key";

/// What all publishers know.
#[derive(Clone)]
pub struct Desk {
    /// What was published.
    pub letters: Letters,
    /// What they are to do.
    pub orders: watch::Receiver<Order>,
    /// The time from one message to the next.
    pub pause: Duration,
}

impl Desk {
    fn order(&self) -> Order {
        *self.orders.borrow()
    }

    /// Whether the next message is due, which goes there.
    fn is_due(&self, next: &mut Instant, to: Address) -> bool {
        let now = Instant::now();
        if self.order() != Order::Report || *next > now || !self.letters.has_room(to) {
            return false;
        }
        *next = (*next + self.pause).max(now - self.pause * 10);
        true
    }
}

/// Publishes one message after the other over HTTP.
pub async fn over_http(desk: Desk, caller: Caller, place: usize) {
    let (mut turn, mut next) = (place, Instant::now());
    while desk.order() != Order::End {
        let to = Address::of(turn);
        if !desk.is_due(&mut next, to) {
            sleep(LOOK).await;
            continue;
        }
        turn += 1;
        let (number, key) = desk.letters.add(Publisher::Http, to);
        let letter = Letter { number, to, key: &key };
        let mut server = turn / Address::ALL.len();
        while !letter.publish(&desk.letters, &caller, server).await {
            if desk.order() == Order::End {
                return;
            }
            server += 1;
            sleep(PAUSE).await;
        }
        if number.is_multiple_of(AGAIN) {
            // The other server knows it by its key, too.
            letter.publish(&desk.letters, &caller, server + 1).await;
        }
    }
}

struct Letter<'a> {
    number: u64,
    to: Address,
    key: &'a str,
}

impl Letter<'_> {
    /// One attempt; whether it is confirmed.
    async fn publish(&self, letters: &Letters, caller: &Caller, server: usize) -> bool {
        let path = format!("{}/messages", self.to.path());
        let body = kind::body(self.number, Publisher::Http, self.to);
        let headers = [(HEADER, self.key), ("content-type", "application/json")];
        match caller.ask(server, "POST", &path, &headers, body.as_bytes()).await {
            Ok(answer) if answer.status == 201 => {
                let published = answer.json();
                let id = published["id"].as_str().and_then(|id| id.parse().ok());
                let receivers = published["receivers"].as_u64().unwrap_or_default();
                letters.confirmed(self.number, id, receivers);
                return true;
            }
            Ok(answer) => {
                if answer.code() != "unavailable" {
                    letters.note("a publish was refused", answer.code());
                }
                letters.failed(self.number);
            }
            Err(Silence::Broken) => letters.failed(self.number),
            Err(Silence::Nobody) => {}
        }
        false
    }
}

/// Publishes to one address over gRPC streams.
pub async fn over_grpc(desk: Desk, client: Client, to: Address) {
    let destination = match to.kind() {
        Kind::Topic => client.topic(to.name()),
        Kind::Queue => client.queue(to.name()),
    };
    // There is room for the whole window.
    let (outgoing, messages) = mpsc::channel::<NewMessage>(WINDOW + 1);
    let messages = stream::unfold(messages, async |mut messages| {
        messages.recv().await.map(|message| (message, messages))
    });
    let mut results = Box::pin(destination.publish_all(messages));
    let mut lane = Lane::of(desk, to, outgoing);
    let mut next = Instant::now();
    while lane.desk.order() != Order::End {
        tokio::select! {
            Some(result) = results.next() => lane.answered(result).await,
            () = sleep(LOOK) => {}
        }
        if lane.sent.len() < WINDOW && lane.desk.is_due(&mut next, to) {
            let (number, key) = lane.desk.letters.add(Publisher::Grpc, to);
            lane.keys.insert(number, key);
            lane.send(number);
        }
    }
}

/// What one stream publishes.
struct Lane {
    desk: Desk,
    to: Address,
    outgoing: mpsc::Sender<NewMessage>,
    /// Of messages that may be sent again.
    keys: BTreeMap<u64, String>,
    /// Those that have no answer, in order.
    sent: VecDeque<u64>,
    /// When it last paused after a failure.
    paused: Instant,
}

impl Lane {
    fn of(desk: Desk, to: Address, outgoing: mpsc::Sender<NewMessage>) -> Self {
        let (keys, sent) = (BTreeMap::new(), VecDeque::new());
        Self { desk, to, outgoing, keys, sent, paused: Instant::now() }
    }

    fn send(&mut self, number: u64) {
        let Some(key) = self.keys.get(&number) else { return };
        let body = kind::body(number, Publisher::Grpc, self.to);
        let message = NewMessage::from(body).idempotency_key(key);
        if self.outgoing.try_send(message).is_ok() {
            self.sent.push_back(number);
        }
    }

    async fn answered(&mut self, result: Result<Published, Error>) {
        let Some(number) = self.sent.pop_front() else { return };
        let letters = &self.desk.letters;
        match result {
            Ok(Published { id, receivers }) => {
                let times = letters.confirmed(number, Some(id), receivers.into());
                if number.is_multiple_of(AGAIN) && times == 1 {
                    return self.send(number);
                }
                self.keys.remove(&number);
            }
            Err(error) => {
                if let Some(code) = error.code().filter(|code| **code != Code::Unavailable) {
                    letters.note("a publish was refused", code.to_string());
                }
                if !error.to_string().contains(NOBODY) {
                    letters.failed(number);
                }
                // Those that were on their way fail all at once.
                if self.paused.elapsed() > PAUSE {
                    sleep(PAUSE).await;
                    self.paused = Instant::now();
                }
                self.send(number);
            }
        }
    }
}
