//! Consumers: with leases, by streams, and of what is gone with the answer. Those that have to
//! acknowledge hold some messages all the time, and can be killed with them.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use platziverse_client::{Client, Delivery, Error};
use platziverse_testkit::MomAnswer;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::caller::{Caller, Silence};
use super::kind::Mailbox;
use super::letters::{Arrived, Letters};
use crate::fleet::Order;

/// Messages that a consumer holds before it is done with the first.
const HAND: usize = 4;
/// How long to wait after something has failed.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a consumer that holds something waits for more.
const IDLE: Duration = Duration::from_millis(100);
/// Unsettled messages of a stream.
const PREFETCH: u16 = 20;
/// How often an acknowledgement is tried that has no answer.
const ACKS: usize = 5;
/// Of a hundred messages, those that go back, those that nobody settles, and those whose lease is
/// extended first.
const HABITS: [u32; 3] = [2, 2, 4];

/// What all consumers know.
#[derive(Clone)]
pub struct Desk {
    /// What has come.
    pub letters: Letters,
    /// What they are to do.
    pub orders: watch::Receiver<Order>,
    /// Changes when they are killed.
    pub kills: watch::Receiver<u64>,
    /// Where it takes from.
    pub mailbox: Mailbox,
    /// Which of those that take from there it is.
    pub place: usize,
}

/// What a consumer does with a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Ack,
    Nack,
    Forget,
    Extend,
}

impl Desk {
    fn is_over(&self) -> bool {
        *self.orders.borrow() == Order::End
    }

    /// A few are not acknowledged, as long as more come.
    fn habit(&self) -> Habit {
        let [nack, forget, extend] = HABITS;
        match fastrand::u32(..100) {
            _ if *self.orders.borrow() != Order::Report => Habit::Ack,
            dice if dice < nack => Habit::Nack,
            dice if dice < nack + forget => Habit::Forget,
            dice if dice < nack + forget + extend => Habit::Extend,
            _ => Habit::Ack,
        }
    }

    /// Whether it has been killed: then it knows nothing of what it held.
    fn is_killed<T>(&mut self, hand: &mut VecDeque<T>) -> bool {
        if !self.kills.has_changed().unwrap_or(false) {
            return false;
        }
        self.kills.mark_unchanged();
        let dropped = hand.len() as u64;
        self.letters.count(|counts| counts.dropped += dropped);
        hand.clear();
        self.letters.holds(self.mailbox, self.place, 0);
        true
    }

    fn holds(&self, count: usize) {
        self.letters.holds(self.mailbox, self.place, count);
    }

    fn path(&self) -> String {
        format!("{}/consume", self.mailbox.address().path())
    }
}

/// What an answer to `consume` has.
pub(super) fn arrived(answer: &MomAnswer) -> Arrived {
    let id = |name| answer.header(name).parse().ok();
    Arrived { body: answer.body.clone(), id: id("message-id"), publisher: id("message-publisher") }
}

/// A refusal is no fault only while something that the server needs is away.
fn judge(desk: &Desk, answer: &MomAnswer) {
    if answer.code() != "unavailable" {
        let words = format!("{:?}: {}", desk.mailbox, answer.code());
        desk.letters.note("a consumer was refused", words);
    }
}

/// Borrows messages.
pub async fn lent(mut desk: Desk, caller: Caller) {
    let mut hand: VecDeque<(u64, String)> = VecDeque::new();
    let (mut server, path) = (desk.place, desk.path());
    while !desk.is_over() {
        desk.is_killed(&mut hand);
        desk.holds(hand.len());
        let wait = if hand.is_empty() { "1s" } else { "100ms" };
        let path = format!("{path}?ack=manual&lease=4s&wait={wait}");
        let mut kills = desk.kills.clone();
        let answer = tokio::select! {
            answer = caller.ask(server, "POST", &path, &[], b"") => answer,
            // What is lent to it now is lent to nobody.
            _ = kills.changed() => continue,
        };
        let is_more = match &answer {
            Ok(answer) if answer.status == 200 => {
                let lease = answer.header("lease");
                match desk.letters.came(desk.mailbox, &arrived(answer)) {
                    Some(number) => hand.push_back((number, lease.to_owned())),
                    // It is told at the end, and is not to come again and again.
                    None => drop(ask(&caller, lease, "ack").await),
                }
                true
            }
            Ok(answer) if answer.status == 204 => false,
            trouble => {
                trouble.iter().for_each(|answer| judge(&desk, answer));
                server += 1;
                sleep(PAUSE).await;
                false
            }
        };
        if (hand.len() >= HAND || !is_more)
            && let Some((number, lease)) = hand.pop_front()
        {
            settle(&desk, &caller, number, &lease).await;
        }
    }
}

/// Tells any of the servers what is to become of a lease.
async fn ask(caller: &Caller, lease: &str, how: &str) -> Result<MomAnswer, Silence> {
    let server = fastrand::usize(..caller.servers().max(1));
    caller.ask(server, "POST", &format!("/v1/leases/{lease}/{how}"), &[], b"").await
}

/// Is done with a message that was lent; whichever server is told.
async fn settle(desk: &Desk, caller: &Caller, number: u64, lease: &str) {
    let ask = async |how: &str| ask(caller, lease, how).await;
    let habit = desk.habit();
    match habit {
        Habit::Forget => return,
        // Without an answer it comes back all the same.
        Habit::Nack => return drop(ask("nack").await),
        Habit::Extend => drop(ask("extend?lease=5s").await),
        Habit::Ack => {}
    }
    desk.letters.handled(desk.mailbox, number);
    for _ in 0..ACKS {
        match ask("ack").await {
            Ok(answer) if answer.status == 204 => {
                return desk.letters.settled(desk.mailbox, number);
            }
            // It was too late, or has done it before without an answer.
            Ok(answer) if answer.code() == "lease_gone" => return,
            Ok(answer) => judge(desk, &answer),
            Err(_) => {}
        }
        sleep(PAUSE).await;
    }
}

/// Takes messages by streams, one after the other, each with a client of its own.
pub async fn streamed(mut desk: Desk, client: impl Fn() -> Result<Client, Error>) {
    while !desk.is_over() {
        match client() {
            Ok(client) => stream(&mut desk, &client).await,
            Err(error) => desk.letters.note("no client can be made", error.to_string()),
        }
        sleep(PAUSE).await;
    }
}

/// One life.
async fn stream(desk: &mut Desk, client: &Client) {
    let address = desk.mailbox.address();
    let destination = match address.kind() {
        platziverse_client::Kind::Topic => client.topic(address.name()),
        platziverse_client::Kind::Queue => client.queue(address.name()),
    };
    // Dropped in this order: what is held is not given back one by one.
    let mut hand: VecDeque<(u64, Delivery)> = VecDeque::new();
    let mut consumer = destination.consume(PREFETCH);
    while !desk.is_over() {
        desk.holds(hand.len());
        let mut kills = desk.kills.clone();
        let next = tokio::select! {
            next = timeout(IDLE, consumer.next()) => next,
            _ = kills.changed() => {
                drop(consumer);
                desk.is_killed(&mut hand);
                return;
            }
        };
        let is_more = match next {
            Ok(Some(Ok(delivery))) => {
                let message = &delivery.message;
                let arrived = Arrived {
                    body: message.body.to_vec(),
                    id: message.id,
                    publisher: message.publisher,
                };
                match desk.letters.came(desk.mailbox, &arrived) {
                    Some(number) => hand.push_back((number, delivery)),
                    None => drop(delivery.ack()),
                }
                true
            }
            Ok(Some(Err(error))) => {
                if error.code().is_some_and(|code| code.as_str() != "unavailable") {
                    let words = format!("{:?}: {error}", desk.mailbox);
                    desk.letters.note("a consumer was refused", words);
                }
                false
            }
            Ok(None) => return,
            Err(_) => false,
        };
        if (hand.len() >= HAND || !is_more)
            && let Some((number, delivery)) = hand.pop_front()
        {
            // What is stale comes again, and so does what goes back.
            if desk.habit() == Habit::Nack {
                drop(delivery.nack());
                continue;
            }
            desk.letters.handled(desk.mailbox, number);
            if delivery.ack().is_ok() {
                desk.letters.settled(desk.mailbox, number);
            }
        }
    }
}

/// Takes messages that are gone with the answer.
pub async fn auto(desk: Desk, caller: Caller) {
    let mut server = desk.place;
    while !desk.is_over() {
        let path = format!("{}?ack=auto&wait=2s", desk.path());
        match caller.ask(server, "POST", &path, &[], b"").await {
            Ok(answer) if answer.status == 200 => {
                if let Some(number) = desk.letters.came(desk.mailbox, &arrived(&answer)) {
                    desk.letters.handled(desk.mailbox, number);
                    desk.letters.settled(desk.mailbox, number);
                }
                continue;
            }
            Ok(answer) if answer.status == 204 => continue,
            Ok(answer) => judge(&desk, &answer),
            Err(Silence::Broken) => desk.letters.count(|counts| counts.unanswered_takes += 1),
            Err(Silence::Nobody) => {}
        }
        server += 1;
        sleep(PAUSE).await;
    }
}
