//! The catalogue's unrest: topics and queues that come and go, and subscribers that do.

use std::time::Duration;

use platziverse_testkit::MomAnswer;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::caller::{Caller, Silence};
use super::consumer;
use super::kind::Mailbox;
use super::letters::Letters;
use crate::fleet::Order;

/// How often it is looked what there is to do.
const LOOK: Duration = Duration::from_millis(50);
/// How long to wait after something has failed.
const PAUSE: Duration = Duration::from_millis(300);
/// How often a request is made that has no answer.
const ATTEMPTS: usize = 200;
/// Each name is given so often: what is deleted is soon there again.
const USES: usize = 2;
/// The start of the names.
const NAME: &str = "churn-";

/// What becomes of a request that has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// It is made again until it has one.
    Stubborn,
    /// It is forgotten: nobody but the servers themselves can bring it to an end.
    Fickle,
}

impl Temper {
    /// The start of the names of what it makes.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Stubborn => "churn-stubborn-",
            Self::Fickle => "churn-fickle-",
        }
    }
}

/// Somebody who changes the catalogue.
#[derive(Clone)]
pub struct Churner {
    /// What is counted.
    pub letters: Letters,
    /// What it is to do.
    pub orders: watch::Receiver<Order>,
    /// The user who creates and deletes.
    pub creator: Caller,
    /// The user who subscribes and leaves.
    pub subscriber: Caller,
    /// The server that is asked.
    pub server: usize,
    /// What it is like.
    pub temper: Temper,
    /// Whether it has come to rest.
    pub rests: watch::Sender<bool>,
}

/// That a request was forgotten.
struct Forgotten;

impl Churner {
    /// Creates, subscribes, publishes, and deletes, all the time.
    pub async fn run(self) {
        let mut turn = 0;
        while *self.orders.borrow() != Order::End {
            let works = *self.orders.borrow() == Order::Report;
            self.rests.send_if_modified(|rests| std::mem::replace(rests, !works) == works);
            if works {
                let kind = if turn % 3 == 0 { "queues" } else { "topics" };
                // What is forgotten has been brought to no end.
                let _ = self.one(kind, turn / USES).await;
                turn += 1;
            }
            sleep(LOOK).await;
        }
    }

    /// The life of one topic or queue.
    async fn one(&self, kind: &str, number: usize) -> Result<(), Forgotten> {
        let name = format!("{}{kind}-{number}", self.temper.prefix());
        let (all, one) = (format!("/v1/{kind}"), format!("/v1/{kind}/{name}"));
        let new = json!({ "name": name }).to_string();
        self.ask(&self.creator, "POST", &all, new.as_bytes(), &["being_deleted"]).await?;
        let subscription = format!("{one}/subscription");
        let gone = ["unknown_topic", "unknown_queue"];
        let known = ["already_subscribed", "being_deleted", gone[0], gone[1]];
        self.ask(&self.subscriber, "POST", &subscription, b"", &known).await?;
        let messages = format!("{one}/messages");
        self.ask(&self.creator, "POST", &messages, b"a message that may go", &gone).await?;
        if number.is_multiple_of(2) {
            let known = ["not_subscribed", gone[0], gone[1]];
            self.ask(&self.subscriber, "DELETE", &subscription, b"", &known).await?;
        }
        self.ask(&self.creator, "DELETE", &one, b"", &gone).await
    }

    /// One change, which may be refused with one of these codes.
    async fn ask(
        &self,
        user: &Caller,
        method: &str,
        path: &str,
        body: &[u8],
        known: &[&str],
    ) -> Result<(), Forgotten> {
        for _ in 0..ATTEMPTS {
            let answer = user.ask(self.server, method, path, &[], body).await;
            if *self.orders.borrow() == Order::End {
                return Err(Forgotten);
            }
            match answer {
                Ok(answer) if answer.status < 300 => {
                    self.letters.count(|counts| counts.changes += 1);
                    return Ok(());
                }
                Ok(answer) if answer.code() == "being_deleted" => {}
                Ok(answer) if known.contains(&answer.code().as_str()) => return Ok(()),
                Ok(answer) if answer.code() == "unavailable" => self.forget()?,
                Ok(answer) => {
                    let words = format!("{method} {path}: {}", answer.code());
                    self.letters.note("a change was refused", words);
                    return Ok(());
                }
                Err(Silence::Broken) => self.forget()?,
                Err(Silence::Nobody) => {}
            }
            sleep(PAUSE).await;
        }
        self.letters.note("a change never ends", format!("{method} {path}"));
        Ok(())
    }

    fn forget(&self) -> Result<(), Forgotten> {
        if self.temper == Temper::Stubborn {
            return Ok(());
        }
        self.letters.count(|counts| counts.abandoned += 1);
        Err(Forgotten)
    }
}

/// Subscribes to the lasting topic, takes some of what comes, and leaves, all the time.
pub async fn flit(churner: Churner) {
    let address = Mailbox::Fleeting.address().path();
    let (subscription, consume) =
        (format!("{address}/subscription"), format!("{address}/consume?wait=200ms"));
    let is_over = || *churner.orders.borrow() == Order::End;
    let user = &churner.subscriber;
    while !is_over() {
        let works = *churner.orders.borrow() == Order::Report;
        let known = ["already_subscribed", "being_deleted"];
        if works && churner.ask(user, "POST", &subscription, b"", &known).await.is_ok() {
            for _ in 0..5 {
                let answer = user.ask(churner.server, "POST", &consume, &[], b"").await;
                answer.iter().for_each(|answer| took(&churner.letters, answer));
            }
        }
        // The last thing that it does is to leave.
        let known = ["not_subscribed", "being_deleted"];
        let left = churner.ask(user, "DELETE", &subscription, b"", &known).await;
        churner.rests.send_replace(!works && left.is_ok());
        sleep(LOOK).await;
    }
}

fn took(letters: &Letters, answer: &MomAnswer) {
    if answer.status == 200 {
        letters.came(Mailbox::Fleeting, &consumer::arrived(answer));
    } else if answer.status != 204 && !["unavailable", "not_subscribed"].contains(&&*answer.code())
    {
        letters.note("a consumer was refused", format!("Fleeting: {}", answer.code()));
    }
}

/// Whether this is the name of something that comes and goes.
pub fn is_churn(name: &str) -> bool {
    name.starts_with(NAME)
}
