//! Consumers that wait, each over a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use platziverse_load::{Latency, Recorder};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::load::result;
use super::{Asking, Book, Stand, Target, body, converse, number};

/// How long it may take until all of them wait.
const GATHERING: Duration = Duration::from_secs(60);
/// How often it is looked at whether they do.
const LOOK: Duration = Duration::from_millis(200);
/// How long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_secs(30);
/// Publishers that take turns: one that waits for its confirm does not hold up the next message.
const PUBLISHERS: u64 = 10;

type Tasks = JoinSet<Result<(), String>>;

/// Some of them at each of some queues.
pub(crate) struct Crowd {
    target: Target,
    queues: usize,
    consumers: Tasks,
    arrivals: mpsc::UnboundedReceiver<(u64, Instant)>,
}

impl Crowd {
    /// Lets so many wait, and answers when RabbitMQ knows all of them as consumers.
    pub(crate) async fn gather(stand: &Stand, count: usize, queues: usize) -> Result<Self, String> {
        let target = stand.http()?;
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let mut consumers = JoinSet::new();
        for consumer in 0..count {
            let path = format!("/v1/queues/{}/consume?wait=60s&ack=auto", name(consumer % queues));
            let arrived = arrived.clone();
            let consume = |asking| consume(asking, path, arrived);
            consumers.spawn(converse(target.clone(), consume));
        }
        let mut crowd = Self { target, queues, consumers, arrivals };
        let end = Instant::now() + GATHERING;
        loop {
            crowd.check()?;
            let waiting = stand.world.rabbitmq().list("consumers").await.len();
            // The server has one of its own.
            if waiting > count {
                return Ok(crowd);
            }
            if Instant::now() >= end {
                return Err(format!(
                    "{waiting} consumers and not {count} wait after {GATHERING:?}"
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Fails if one of them does not wait any more.
    fn check(&mut self) -> Result<(), String> {
        self.consumers.try_join_next().map_or(Ok(()), result)
    }

    /// Publishes at a rate, to one queue after the other: how long it takes from when a message is
    /// due until a consumer has it. Those of the first `warm_up` do not count.
    pub(crate) async fn hear(
        &mut self,
        rate: u64,
        warm_up: Duration,
        time: Duration,
    ) -> Result<Latency, String> {
        let seconds = |time: Duration| time.as_secs().max(1) * rate;
        let (first, count) = (seconds(warm_up), seconds(warm_up) + seconds(time));
        let begun = Instant::now() + LOOK;
        let due = move |number: u64| begun + Duration::from_secs(1) * number as u32 / rate as u32;
        let mut publishers = Tasks::new();
        for publisher in 0..PUBLISHERS {
            let queues = self.queues as u64;
            let publish = move |mut asking: Asking| async move {
                for message in (publisher..count).step_by(PUBLISHERS as usize) {
                    sleep_until(due(message)).await;
                    let path = format!("/v1/queues/{}/messages", name((message % queues) as usize));
                    asking.post(&path, body(message)).await?.is(201)?;
                }
                Ok(())
            };
            publishers.spawn(converse(self.target.clone(), publish));
        }
        let (book, recorder) = (Book::new(count), Recorder::new());
        for _ in 0..count {
            let next = timeout_at(due(count) + PATIENCE, self.arrivals.recv()).await;
            self.check()?;
            while let Some(ended) = publishers.try_join_next() {
                result(ended)?;
            }
            let arrived = next.map_err(|_| format!("messages are missing after {PATIENCE:?}"))?;
            let (message, at) = arrived.ok_or("all consumers are gone")?;
            book.note(message)?;
            if message >= first {
                let late = at.saturating_duration_since(due(message));
                recorder.record(0, std::iter::once(late));
            }
        }
        while let Some(ended) = publishers.join_next().await {
            result(ended)?;
        }
        book.close(0)?;
        Ok(recorder.read().1)
    }
}

/// The queue of a number.
pub(crate) fn name(queue: usize) -> String {
    format!("waiting-{queue}")
}

/// Waits for one message after the other.
async fn consume(
    mut asking: Asking,
    path: String,
    arrived: mpsc::UnboundedSender<(u64, Instant)>,
) -> Result<(), String> {
    loop {
        let answer = asking.post(&path, Bytes::new()).await?;
        let at = Instant::now();
        if answer.status != 204 {
            answer.is(200)?;
            // Nobody wants to know any more.
            let _ = arrived.send((number(&answer.body)?, at));
        }
    }
}
