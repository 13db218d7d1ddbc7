//! Settling what another process has leased: it is asked over RabbitMQ, and answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use platziverse_service::Drain;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::lease::{LeaseId, Leases};
use super::publisher::Publisher;
use super::{MomError, Settle};
use crate::message::Message;
use crate::publisher::short;
use crate::topology::MOM_LEASES;
use crate::{BrokerError, Context, LiveHandle, LiveMessages, LiveOptions, LiveQueue};

/// How long another process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions and answers that wait for one process; both are small.
const LENGTH_MAX: u32 = 100_000;
const BYTES_MAX: u32 = 64 << 20;
/// Questions that are answered at a time.
const ANSWERING_MAX: usize = 1024;

/// The property `type` of questions and of answers.
const QUESTION: &str = "settle";
const ANSWER: &str = "settled";

type Answer = Result<(), MomError>;

/// Who waits for which answer.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashMap<Uuid, oneshot::Sender<Answer>>>);

impl Pending {
    pub(super) fn resolve(&self, id: Uuid, answer: Answer) {
        if let Some(waiting) = self.table().remove(&id) {
            // Whoever stopped waiting needs no answer.
            let _ = waiting.send(answer);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<Answer>>> {
        // The table is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for an answer, until dropped.
struct Waiting<'a>(&'a Pending, Uuid);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.table().remove(&self.1);
    }
}

/// What is to become of a lease.
#[derive(Debug, Deserialize, Serialize)]
struct Question {
    lease: Uuid,
    settle: How,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Ack,
    Nack,
    ExtendMillis(u64),
}

/// What has become of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done,
    LeaseGone,
    TooMany(String),
    Unavailable(String),
}

impl From<Settle> for How {
    fn from(how: Settle) -> Self {
        match how {
            Settle::Ack => Self::Ack,
            Settle::Nack => Self::Nack,
            Settle::Extend(length) => {
                Self::ExtendMillis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

impl From<How> for Settle {
    fn from(how: How) -> Self {
        match how {
            How::Ack => Self::Ack,
            How::Nack => Self::Nack,
            How::ExtendMillis(millis) => Self::Extend(Duration::from_millis(millis)),
        }
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(()) => Self::Done,
            Err(MomError::LeaseGone) => Self::LeaseGone,
            Err(MomError::TooMany(why)) => Self::TooMany(why),
            Err(MomError::Unavailable(why)) => Self::Unavailable(why),
            Err(other) => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::LeaseGone => Err(MomError::LeaseGone),
            Outcome::TooMany(why) => Err(MomError::TooMany(why)),
            Outcome::Unavailable(why) => Err(MomError::Unavailable(why)),
        }
    }
}

/// Asks other processes, and answers them.
#[derive(Debug)]
pub(super) struct Forwarder {
    instance: String,
    leases: Arc<Leases>,
    publisher: Arc<Publisher>,
    pending: Arc<Pending>,
    queue: LiveHandle,
}

impl Forwarder {
    pub(super) async fn start(
        context: &Context,
        instance: String,
        leases: Arc<Leases>,
        publisher: Arc<Publisher>,
        pending: Arc<Pending>,
        over: watch::Receiver<()>,
    ) -> Result<Self, BrokerError> {
        let options = LiveOptions {
            role: "mom leases",
            queue: format!("{MOM_LEASES}.{instance}"),
            exchange: MOM_LEASES,
            keys: vec![instance.clone()],
            length_max: LENGTH_MAX,
            bytes_max: BYTES_MAX,
            // Nobody waits for longer.
            ttl: Some(PATIENCE),
        };
        let (queue, messages) = LiveQueue::start(context, options).await?;
        let answering = Answering {
            leases: Arc::clone(&leases),
            publisher: Arc::downgrade(&publisher),
            pending: Arc::clone(&pending),
            drain: context.drain.clone(),
            turns: Arc::new(Semaphore::new(ANSWERING_MAX)),
        };
        context.drain.spawn("mom leases", answering.run(messages, over));
        Ok(Self { instance, leases, publisher, pending, queue })
    }

    /// Settles a lease, here or where it is.
    pub(super) async fn settle(&self, lease: &str, how: Settle) -> Answer {
        let LeaseId { instance, id } = LeaseId::read(lease).ok_or(MomError::LeaseGone)?;
        if instance == self.instance {
            return self.leases.settle(id, how).await;
        }
        self.ask(&instance, &Question { lease: id, settle: how.into() }).await
    }

    async fn ask(&self, instance: &str, question: &Question) -> Answer {
        let body = serde_json::to_vec(question);
        let body = body.map_err(|error| MomError::Unavailable(error.to_string()))?;
        let (id, asked_at) = (Uuid::new_v4(), Instant::now());
        let (waiting, answer) = oneshot::channel();
        self.pending.table().insert(id, waiting);
        let _waiting = Waiting(&self.pending, id);
        let properties = BasicProperties::default()
            .with_type(QUESTION.into())
            .with_correlation_id(short(&id.to_string()))
            .with_reply_to(short(&self.instance));
        let asking = async {
            // The answer may be here before the confirm.
            let mut answer = answer;
            tokio::select! {
                told = self.publisher.tell(instance, properties, body.into()) => told?,
                answer = &mut answer => return heard(answer),
            }
            heard(answer.await)
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
            // Without an answer the other one is gone, unless this one could not hear it.
            match self.queue.listening_since() {
                Some(since) if since <= asked_at => Err(MomError::LeaseGone),
                _ => Err(MomError::Unavailable("no answer of another server is heard".to_owned())),
            }
        })
    }
}

fn heard(answer: Result<Answer, oneshot::error::RecvError>) -> Answer {
    answer.unwrap_or_else(|_| Err(MomError::ending()))
}

/// Answers questions, and hands answers to those who wait for them.
struct Answering {
    leases: Arc<Leases>,
    publisher: std::sync::Weak<Publisher>,
    pending: Arc<Pending>,
    drain: Drain,
    turns: Arc<Semaphore>,
}

impl Answering {
    async fn run(self, mut messages: LiveMessages, mut over: watch::Receiver<()>) {
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                changed = over.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => None,
                },
            };
            let Some(message) = message else { break };
            match message.kind() {
                Some(QUESTION) => self.answer(&message).await,
                Some(ANSWER) => self.hear(&message),
                _ => {}
            }
        }
        // Nobody hears an answer any more.
        self.pending.table().clear();
    }

    async fn answer(&self, message: &Message) {
        let Ok(question) = serde_json::from_slice::<Question>(&message.body) else { return };
        let asked_by = message.properties.reply_to().as_ref().map(ShortString::to_string);
        let (Some(asked_by), Some(publisher)) = (asked_by, self.publisher.upgrade()) else {
            return;
        };
        let mut properties = BasicProperties::default().with_type(ANSWER.into());
        if let Some(id) = message.properties.correlation_id() {
            properties = properties.with_correlation_id(id.clone());
        }
        let leases = Arc::clone(&self.leases);
        // Nobody closes it.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        // Settling waits until it is written.
        self.drain.spawn_isolated(async move {
            let answer = leases.settle(question.lease, question.settle.into()).await;
            if let Ok(body) = serde_json::to_vec(&Outcome::from(answer)) {
                // Whoever hears no answer takes the lease to be gone.
                let _ = publisher.tell(&asked_by, properties, Bytes::from(body)).await;
            }
            drop(turn);
        });
    }

    fn hear(&self, message: &Message) {
        let id = message.properties.correlation_id().as_ref();
        let Some(id) = id.and_then(|id| id.as_str().parse().ok()) else { return };
        if let Ok(outcome) = serde_json::from_slice::<Outcome>(&message.body) {
            self.pending.resolve(id, outcome.into());
        }
    }
}
