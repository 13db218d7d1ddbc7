//! The publisher of single messages. Each is an AMQP message with a confirm of its own, and whoever
//! publishes it is answered within a deadline: nothing is tried for ever, as telemetry is.

mod room;
mod task;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::room::{Reserved, Room};
use self::task::Task;
use crate::connection::Link;
use crate::publisher::short;
use crate::{BrokerError, Context};

/// Why RabbitMQ does not have a message, or may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// A queue has as many messages, or bytes, as it may have.
    #[error("the queue is full")]
    Full,
    /// AMQP cannot carry it, or RabbitMQ will not have it.
    #[error("{0}")]
    TooLarge(String),
    /// RabbitMQ is away, or does not answer in time.
    #[error("RabbitMQ is not available: {0}")]
    Unavailable(String),
}

impl PostError {
    pub(crate) fn ending() -> Self {
        Self::Unavailable("this server ends".to_owned())
    }

    pub(crate) fn late(timeout: Duration) -> Self {
        Self::Unavailable(format!("it did not confirm the message within {timeout:?}"))
    }
}

type Answer = Result<(), PostError>;

/// What a [`Publisher`] is called, what it may hold, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublisherSettings {
    /// Names the connection in readiness and metrics.
    pub(crate) role: &'static str,
    /// Bytes of messages on their way to RabbitMQ; beyond it, who publishes waits.
    pub(crate) in_flight_bytes: usize,
    /// How long a publish may take, waiting for room included.
    pub(crate) publish_timeout: Duration,
}

/// One exchange whose messages may reach nobody: that is an answer. Any other message that reaches no
/// queue is a fault, after which everything is declared anew.
pub(crate) struct Unheard {
    pub(crate) exchange: &'static str,
    /// Is told the `correlation-id` of each such message before that is confirmed, or soon after.
    pub(crate) tell: Box<dyn Fn(Uuid) + Send + Sync>,
}

impl fmt::Debug for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unheard").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// A message, and where it goes.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) exchange: &'static str,
    pub(crate) key: ShortString,
    /// The queue that a refusal is about, which may be without a leader for a moment; it has a part of
    /// the room only. Without one, a refusal says that a queue is gone.
    pub(crate) queue: Option<ShortString>,
    /// Whether it goes to others than that queue as well: they get it each time that it goes.
    pub(crate) is_copied: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// A message on its way.
#[derive(Debug)]
struct Parcel {
    envelope: Envelope,
    receipt: oneshot::Sender<Answer>,
    /// When RabbitMQ first refused it.
    refused: Option<Instant>,
    _room: Reserved,
}

/// Publishes on a connection of its own, which ends when this is dropped and everything is answered.
#[derive(Debug)]
pub(crate) struct Publisher {
    parcels: mpsc::UnboundedSender<Box<Parcel>>,
    /// What bounds `parcels`.
    room: Room,
    timeout: Duration,
    app_id: ShortString,
}

impl Publisher {
    pub(crate) async fn start(
        context: &Context,
        settings: PublisherSettings,
        unheard: Unheard,
    ) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let (parcels, incoming) = mpsc::unbounded_channel();
        let task = Task::new(context, settings.role, incoming, unheard);
        context.drain.spawn(settings.role, task.run(link));
        Ok(Self {
            parcels,
            room: Room::new(settings.in_flight_bytes),
            timeout: settings.publish_timeout,
            app_id: short(&context.name),
        })
    }

    /// Until when what is published now must be confirmed.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Gives a message of so many bytes its place once there is room for it: those of later calls go
    /// after it.
    pub(crate) async fn hand(
        &self,
        envelope: Envelope,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Handed, PostError> {
        let queue = envelope.queue.as_ref().map_or(envelope.exchange, ShortString::as_str);
        let entering = timeout_at(deadline, self.room.enter(queue, bytes)).await;
        let room = entering.map_err(|_| PostError::late(self.timeout))?;
        let properties = envelope.properties.with_app_id(self.app_id.clone());
        let (receipt, answer) = oneshot::channel();
        let envelope = Envelope { properties, ..envelope };
        // It goes through several queues: moved whole, it would be copied each time.
        let parcel = Box::new(Parcel { envelope, receipt, refused: None, _room: room });
        // After the end of the task the receipt is dropped, which is an answer too.
        let _ = self.parcels.send(parcel);
        Ok(Handed { answer, deadline, timeout: self.timeout })
    }
}

/// A message that has its place. Dropped, it may go or not.
#[derive(Debug)]
pub(crate) struct Handed {
    answer: oneshot::Receiver<Answer>,
    deadline: Instant,
    timeout: Duration,
}

impl Handed {
    /// Waits until RabbitMQ has it.
    pub(crate) async fn confirmed(self) -> Result<(), PostError> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(answered) => answered.unwrap_or_else(|_| Err(PostError::ending())),
            Err(_) => Err(PostError::late(self.timeout)),
        }
    }
}
