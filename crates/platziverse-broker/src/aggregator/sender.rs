//! Publishing, in order, with a confirm for each message.

use std::sync::Arc;
use std::time::Duration;

use platziverse_service::{chain, clock};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::post::Post;
use super::probe::Prober;
use crate::post::{self, PostError, Publisher, PublisherSettings, Unheard};
use crate::topology::CLIENTS;
use crate::{BrokerError, Context};

/// Names the connection in readiness and metrics.
const ROLE: &str = "messages";

/// What a [`Sender`] may hold, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderSettings {
    /// How long a publish may take, waiting for room included.
    pub publish_timeout: Duration,
    /// Bytes of messages on their way to RabbitMQ; beyond it, [`Sender::hand`] waits. One channel may
    /// have a quarter of it each way.
    pub in_flight_bytes: usize,
}

/// Publishes on a connection of its own, which renews itself and ends when all clones are dropped
/// and everything is answered.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Context,
    settings: SenderSettings,
    publisher: Publisher,
    /// There once somebody has asked: it has a connection of its own.
    prober: OnceCell<Prober>,
}

impl Sender {
    /// Connects and declares the topology. Later it reconnects by itself, but what is wrong at the
    /// start is the caller's to tell.
    pub async fn start(context: &Context, settings: SenderSettings) -> Result<Self, BrokerError> {
        let SenderSettings { publish_timeout, in_flight_bytes } = settings;
        let of_publisher = PublisherSettings { role: ROLE, in_flight_bytes, publish_timeout };
        // A client that nobody has is no fault.
        let unheard = Unheard { exchange: CLIENTS, tell: Box::new(|_| ()) };
        let publisher = Publisher::start(context, of_publisher, unheard).await?;
        let (context, prober) = (context.clone(), OnceCell::new());
        Ok(Self(Arc::new(Inner { context, settings, publisher, prober })))
    }

    /// Hands a message over, once there is room for it. When the future is done, the message has its
    /// place: those that are handed over later go after it. What goes wrong is told by
    /// [`Handed::confirmed`].
    pub async fn hand(&self, post: Post) -> Handed {
        self.hand_by(post, self.deadline()).await
    }

    /// The same for messages that share one [`SenderSettings::publish_timeout`].
    pub async fn hand_by(&self, post: Post, deadline: Instant) -> Handed {
        Handed(match post.seal(clock::now()) {
            Ok((envelope, bytes)) => self.0.publisher.hand(envelope, bytes, deadline).await,
            Err(error) => Err(error),
        })
    }

    /// When what is published now has taken [`SenderSettings::publish_timeout`].
    pub fn deadline(&self) -> Instant {
        self.0.publisher.deadline()
    }

    /// Whether some aggregator has a client: connected, or away and awaited. Who asks often is
    /// answered together with others, by a connection that is opened for the first of them.
    pub async fn exists(&self, client: &str) -> Result<bool, PostError> {
        let Inner { context, settings, prober, .. } = &*self.0;
        let asking = async {
            let prober = prober.get_or_try_init(|| Prober::start(context, *settings));
            let prober = prober.await.map_err(|error| PostError::Unavailable(chain(&error)))?;
            prober.ask(client).await
        };
        let answered = timeout(settings.publish_timeout, asking).await;
        answered.unwrap_or_else(|_| Err(PostError::late(settings.publish_timeout)))
    }
}

/// A message that was handed over. Dropped, it may go or not.
#[derive(Debug)]
#[must_use]
pub struct Handed(Result<post::Handed, PostError>);

impl Handed {
    /// Waits until RabbitMQ has stored the message, at most until the publish has taken
    /// [`SenderSettings::publish_timeout`] in all. After an error RabbitMQ may have it, unless it is
    /// [`PostError::TooLarge`].
    pub async fn confirmed(self) -> Result<(), PostError> {
        self.0?.confirmed().await
    }
}
