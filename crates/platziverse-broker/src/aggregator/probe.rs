//! Asking whether anybody has a client: a message to it comes back if nobody does.

use std::collections::HashSet;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::{PROBE, SenderSettings};
use crate::post::{Envelope, PostError, Publisher, PublisherSettings, Unheard};
use crate::publisher::short;
use crate::topology::CLIENTS;
use crate::{BrokerError, Context};

/// Names the connection in readiness and metrics.
const ROLE: &str = "probes";
/// Clients that are asked for at a time.
const BATCH_MAX: usize = 256;

type Answer = Result<bool, PostError>;

/// Asks, batch by batch. Which message has come back may be said with another one's confirm: it is
/// known for certain only when nothing is on its way any more, hence the connection of its own.
#[derive(Debug)]
pub(super) struct Prober {
    questions: mpsc::Sender<Question>,
}

struct Question {
    client: ShortString,
    answer: oneshot::Sender<Answer>,
}

impl Prober {
    pub(super) async fn start(
        context: &Context,
        settings: SenderSettings,
    ) -> Result<Self, BrokerError> {
        let SenderSettings { publish_timeout, in_flight_bytes } = settings;
        let settings = PublisherSettings { role: ROLE, in_flight_bytes, publish_timeout };
        let unheard = Arc::<Mutex<HashSet<Uuid>>>::default();
        let told = Arc::clone(&unheard);
        let tell = Box::new(move |id| {
            told.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        });
        let publisher =
            Publisher::start(context, settings, Unheard { exchange: CLIENTS, tell }).await?;
        let (questions, incoming) = mpsc::channel(BATCH_MAX);
        context.drain.spawn(ROLE, Asking { publisher, unheard }.run(incoming));
        Ok(Self { questions })
    }

    pub(super) async fn ask(&self, client: &str) -> Answer {
        let client = ShortString::try_new(client);
        // Nobody can have been bound with it.
        let Ok(client) = client else { return Ok(false) };
        let (answer, answered) = oneshot::channel();
        // After the end of the task the answer is dropped, which is one too.
        let _ = self.questions.send(Question { client, answer }).await;
        answered.await.unwrap_or_else(|_| Err(PostError::ending()))
    }
}

struct Asking {
    publisher: Publisher,
    /// What came back.
    unheard: Arc<Mutex<HashSet<Uuid>>>,
}

impl Asking {
    async fn run(self, mut incoming: mpsc::Receiver<Question>) {
        let mut questions = Vec::with_capacity(BATCH_MAX);
        while incoming.recv_many(&mut questions, BATCH_MAX).await > 0 {
            questions.retain(|question| !question.answer.is_closed());
            self.ask(mem::take(&mut questions)).await;
        }
    }

    async fn ask(&self, questions: Vec<Question>) {
        let deadline = self.publisher.deadline();
        let asking = questions.iter().map(|question| self.probe(question.client.clone(), deadline));
        let confirmed = join_all(asking).await;
        let unheard = mem::take(&mut *self.unheard.lock().unwrap_or_else(PoisonError::into_inner));
        for (question, confirmed) in questions.into_iter().zip(confirmed) {
            // Whoever stopped waiting needs no answer.
            let _ = question.answer.send(confirmed.map(|id| !unheard.contains(&id)));
        }
    }

    /// The id of a message that has gone to whoever has a client.
    async fn probe(&self, client: ShortString, deadline: Instant) -> Result<Uuid, PostError> {
        let id = Uuid::new_v4();
        let properties = BasicProperties::default()
            .with_type(PROBE.into())
            .with_correlation_id(short(&id.to_string()));
        let envelope = Envelope {
            exchange: CLIENTS,
            key: client,
            queue: None,
            is_copied: false,
            properties,
            body: Bytes::new(),
        };
        self.publisher.hand(envelope, 0, deadline).await?.confirmed().await?;
        Ok(id)
    }
}
