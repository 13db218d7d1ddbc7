//! Messages of applications: queues that are shared, topics that are copied to each subscriber, and
//! leases on what was delivered.
//!
//! Every queue is bound to one direct exchange under its own name, so that one AMQP message reaches
//! any number of them, and one confirm covers all. What is delivered is never more than somebody
//! waits for: nothing waits in this process.

mod admin;
mod buffer;
mod channels;
mod desk;
mod forward;
mod lease;
mod message;
mod name;
mod publisher;
mod stream;
mod take;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::BasicAckOptions;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

pub use message::{MomMessage, Post, StreamDelivery, Taken};
pub use name::{queue_name, subscriber_queue, topic_exchange};
pub use stream::{MomStream, Settler};

use self::buffer::Buffers;
use self::channels::Channels;
use self::desk::{Claim, Desks};
use self::forward::{Forwarder, Pending};
use self::lease::{LeaseId, Leases};
use self::publisher::Publisher;
use self::take::{ANSWER_PATIENCE, Taker};
use crate::connection::lost_by;
use crate::error::is_not_found;
use crate::publisher::short;
use crate::topology::MOM;
use crate::{BrokerError, Context};

/// The longest wait for a message.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How often what nobody uses any more is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// What a [`Mom`] may hold, and how long it waits.
#[derive(Clone, Debug)]
pub struct MomSettings {
    /// Names this process among its replicas: part of its leases' ids. At most 200 bytes.
    pub instance: String,
    /// Bytes of messages on their way to RabbitMQ; beyond it, [`Mom::publish`] waits.
    pub in_flight_bytes: usize,
    /// Bytes that all streams hold for clients that have not taken them; beyond it, those that hold
    /// more than their part hold fewer messages.
    pub streams_bytes: usize,
    /// How long a publish may take, waiting for room included.
    pub publish_timeout: Duration,
}

impl MomSettings {
    /// The settings of an instance, with 64 MiB on their way, 128 MiB in streams, and 10 s for a
    /// publish.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            in_flight_bytes: 64 << 20,
            streams_bytes: 128 << 20,
            publish_timeout: Duration::from_secs(10),
        }
    }
}

/// The limits of a queue; part of its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomQueueOptions {
    /// Messages in it; beyond it, it refuses.
    pub max_length: u64,
    /// Bytes in it; beyond it, it refuses.
    pub max_bytes: u64,
    /// How often a message may come back; once more, and it becomes a dead letter.
    pub delivery_limit: u32,
    /// How long a message waits in it; then it becomes a dead letter.
    pub message_ttl: Option<Duration>,
}

/// How what is taken is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// It is gone from the queue when the caller has it.
    Auto,
    /// It comes back unless it is settled within the lease.
    Manual {
        /// How long.
        lease: Duration,
    },
}

/// What becomes of a leased message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done with.
    Ack,
    /// It goes back to the queue.
    Nack,
    /// The lease ends so long from now; in all it lasts 25 minutes at most.
    Extend(Duration),
}

/// Why something cannot be done with a queue or a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomError {
    /// There is no such queue in RabbitMQ.
    #[error("there is no such queue")]
    NoSuchQueue,
    /// The lease has ended, or was never given.
    #[error("the lease has ended: the message has gone back to its queue, or is settled")]
    LeaseGone,
    /// A queue has as many messages, or bytes, as it may have.
    #[error("the queue is full")]
    Full,
    /// RabbitMQ is away, or does not answer in time.
    #[error("RabbitMQ is not available: {0}")]
    Unavailable(String),
    /// More than there may be.
    #[error("{0}")]
    TooMany(String),
}

impl MomError {
    fn ending() -> Self {
        Self::Unavailable("this server ends".to_owned())
    }

    fn by(error: &lapin::Error) -> Self {
        match is_not_found(error) {
            true => Self::NoSuchQueue,
            false => Self::Unavailable(lost_by(error)),
        }
    }
}

/// Queues and topics of applications. Clones share three connections, which renew themselves and
/// end when all clones are dropped.
///
/// Once the process has been asked to end, nobody waits for a message any more; all else goes on.
#[derive(Clone, Debug)]
pub struct Mom(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Context,
    instance: String,
    channels: Channels,
    buffers: Buffers,
    desks: Arc<Desks>,
    leases: Arc<Leases>,
    publisher: Arc<Publisher>,
    forwarder: Forwarder,
    /// Dropped, what runs beside ends.
    _alive: watch::Sender<()>,
}

impl Mom {
    /// Connects and declares the topology. Later it reconnects by itself, but what is wrong at the
    /// start is the caller's to tell.
    pub async fn start(context: &Context, settings: MomSettings) -> Result<Self, BrokerError> {
        let (alive, over) = watch::channel(());
        let instance = short(&settings.instance).to_string();
        let (leases, pending) = (Arc::<Leases>::default(), Arc::<Pending>::default());
        let publisher = Publisher::start(context, &settings, Arc::clone(&pending)).await?;
        let publisher = Arc::new(publisher);
        let channels = Channels::start(context).await?;
        let desks = Arc::new(Desks::new(channels.clone(), Arc::clone(&context.name)));
        let forwarder = Forwarder::start(
            context,
            instance.clone(),
            Arc::clone(&leases),
            Arc::clone(&publisher),
            pending,
            over.clone(),
        );
        let forwarder = forwarder.await?;
        let (idle, drain) = (Arc::downgrade(&desks), &context.drain);
        drain.spawn("mom desks", sweep(idle, Arc::clone(&leases), over.clone()));
        drain.spawn("mom leases", lease::expire(Arc::clone(&leases), over));
        let context = context.clone();
        Ok(Self(Arc::new(Inner {
            context,
            instance,
            channels,
            buffers: Buffers::new(settings.streams_bytes),
            desks,
            leases,
            publisher,
            forwarder,
            _alive: alive,
        })))
    }

    /// Makes the queue of a name. One that is there already stays as it is.
    pub async fn declare_queue(
        &self,
        name: &str,
        options: &MomQueueOptions,
    ) -> Result<(), MomError> {
        let queue = queue_name(name);
        admin::declare_queue(&self.0.channels, &queue, options, &[(MOM, &queue)]).await
    }

    /// Deletes the queue of a name, with what is in it. One that is not there is deleted enough.
    pub async fn delete_queue(&self, name: &str) -> Result<(), MomError> {
        let queue = queue_name(name);
        admin::delete_queue(&self.0.channels, &queue, &[(MOM, &queue)]).await
    }

    /// Makes the exchange of a topic.
    pub async fn declare_topic(&self, name: &str) -> Result<(), MomError> {
        admin::declare_topic(&self.0.channels, &topic_exchange(name)).await
    }

    /// Deletes the exchange of a topic; the queues of its subscribers stay.
    pub async fn delete_topic(&self, name: &str) -> Result<(), MomError> {
        admin::delete_topic(&self.0.channels, &topic_exchange(name)).await
    }

    /// Makes the queue of a topic's subscriber. One that is there already stays as it is.
    /// [`MomError::NoSuchQueue`] if there is no such topic.
    pub async fn declare_subscription(
        &self,
        topic: &str,
        user: Uuid,
        options: &MomQueueOptions,
    ) -> Result<(), MomError> {
        let (queue, exchange) = (subscriber_queue(topic, user), topic_exchange(topic));
        let sources = [(MOM, queue.as_str()), (exchange.as_str(), "")];
        admin::declare_queue(&self.0.channels, &queue, options, &sources).await
    }

    /// Deletes the queue of a topic's subscriber, with what is in it.
    pub async fn delete_subscription(&self, topic: &str, user: Uuid) -> Result<(), MomError> {
        let (queue, exchange) = (subscriber_queue(topic, user), topic_exchange(topic));
        let sources = [(MOM, queue.as_str()), (exchange.as_str(), "")];
        admin::delete_queue(&self.0.channels, &queue, &sources).await
    }

    /// Publishes a message to all its queues, and waits until RabbitMQ has it in each. After an
    /// error, some of them may have it. Dropped, the message may go all the same.
    pub async fn publish(&self, post: Post) -> Result<(), MomError> {
        self.publish_in_order(post, || ()).await
    }

    /// The same; `handed` is called as soon as every message that is published from then on goes
    /// after this one, and dropped if this one does not go.
    pub async fn publish_in_order(
        &self,
        post: Post,
        handed: impl FnOnce(),
    ) -> Result<(), MomError> {
        self.0.publisher.publish(post, handed).await
    }

    /// Takes the next message of a queue; waits for one if there is none, an hour at most. If the
    /// future is dropped, nothing is lost: what was on its way goes back to the queue. On RabbitMQ
    /// before 4.3 that counts as a delivery.
    ///
    /// `queue` is what [`queue_name`] or [`subscriber_queue`] says.
    pub async fn take(
        &self,
        queue: &str,
        wait: Duration,
        mode: AckMode,
    ) -> Result<Option<Taken>, MomError> {
        if let AckMode::Manual { lease } = mode {
            Leases::check(lease)?;
            self.0.leases.check_room()?;
        }
        let until = Instant::now() + wait.min(WAIT_MAX);
        loop {
            let (reply, found) = oneshot::channel();
            let (desks, drain) = (Arc::clone(&self.0.desks), self.0.context.drain.clone());
            let taker = Taker { desks, drain, queue: queue.to_owned(), until, reply };
            self.0.context.drain.spawn_isolated(taker.run());
            let found = match timeout_at(until + ANSWER_PATIENCE, found).await {
                Ok(found) => found.unwrap_or_else(|_| Err(MomError::ending()))?,
                Err(_) => return Err(MomError::Unavailable("it does not answer".to_owned())),
            };
            let Some(held) = found else { return Ok(None) };
            // From here on nothing is awaited: the caller has it, or it goes back.
            if let Some(claim) = held.keep() {
                return Ok(Some(self.taken(claim, mode)));
            }
        }
    }

    fn taken(&self, claim: Claim, mode: AckMode) -> Taken {
        match mode {
            AckMode::Auto => {
                now_or_later(claim.acker.ack(BasicAckOptions { multiple: false }));
                Taken { message: claim.message, lease: None }
            }
            AckMode::Manual { lease } => {
                let (id, message) = self.0.leases.grant(claim, lease);
                let lease = LeaseId { instance: self.0.instance.clone(), id };
                Taken { message, lease: Some(lease.to_string()) }
            }
        }
    }

    /// Settles or extends a lease, whichever instance has given it.
    pub async fn settle(&self, lease: &str, how: Settle) -> Result<(), MomError> {
        self.0.forwarder.settle(lease, how).await
    }

    /// The first messages of a queue, which stay in it: at most `count`, and 4 MiB of them. While
    /// it looks, others do not see them. On RabbitMQ before 4.3 each look counts as a delivery.
    pub async fn peek(&self, queue: &str, count: u16) -> Result<Vec<MomMessage>, MomError> {
        admin::peek(&self.0.channels, queue, count).await
    }

    /// Deletes what is in a queue and held by nobody; how many messages that were.
    pub async fn purge(&self, queue: &str) -> Result<u32, MomError> {
        admin::purge(&self.0.channels, queue).await
    }

    /// How many messages are in a queue and held by nobody.
    pub async fn count(&self, queue: &str) -> Result<u32, MomError> {
        admin::count(&self.0.channels, queue).await
    }

    /// Consumes a queue, holding at most `prefetch` unsettled messages, and never more than 1,000.
    pub async fn consume(&self, queue: &str, prefetch: u16) -> Result<MomStream, MomError> {
        let inner = &self.0;
        stream::start(&inner.context, &inner.channels, &inner.buffers, queue, prefetch).await
    }
}

/// Now and then closes what nobody uses, until the others are dropped.
async fn sweep(desks: Weak<Desks>, leases: Arc<Leases>, mut over: watch::Receiver<()>) {
    loop {
        tokio::select! {
            () = sleep(SWEEP_EVERY) => {}
            changed = over.changed() => if changed.is_err() { return },
        }
        leases.sweep();
        let Some(desks) = desks.upgrade() else { return };
        desks.sweep(desk::IDLE);
    }
}

/// Has an operation take its place among those on their way. lapin does what there is to do when
/// it is polled first; the rest is waiting until it is written.
fn now_or_later(operation: impl Future) {
    let _ = operation.now_or_never();
}
