//! A server: what it consumes, and how it ends.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use platziverse_broker::aggregator::{self, SenderSettings};
use platziverse_broker::topology::inbound_queue;
use platziverse_broker::{Consumer, ConsumerOptions, Context};
use platziverse_service::{Drain, Outcome, Service};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::book::Book;
use crate::channels::Channels;
use crate::job::Job;
use crate::{Answer, KitError, Options, Sender, Work};

/// How long RabbitMQ may take to confirm a message.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of messages on their way to RabbitMQ.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// A server of channels. Any number of them may serve a channel: each message goes to one, and to
/// another if that one dies.
#[derive(Debug)]
pub struct Server {
    context: Context,
    prefetch: u16,
    shared: Arc<Shared>,
}

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) sender: Sender,
    pub(crate) drain: Drain,
    pub(crate) book: Book,
    pub(crate) attempts: u32,
    pub(crate) handler_timeout: Duration,
    /// A permit for each handler that may run.
    room: Arc<Semaphore>,
    concurrency: u16,
}

impl Server {
    /// Connects and declares what must be there, so that no aggregator need have started. Later it
    /// reconnects by itself.
    ///
    /// # Errors
    ///
    /// [`KitError::Broker`] if RabbitMQ cannot be reached, or not be used as it is.
    pub async fn connect(options: Options) -> Result<Self, KitError> {
        let topology = options.topology();
        let Options { name, settings, prefetch, concurrency, attempts, handler_timeout } = options;
        let channels = Arc::new(Channels(settings.aggregator.channels.clone()));
        let service = Service::new(name, settings);
        let context = Context::new(&service, topology);
        let settings =
            SenderSettings { publish_timeout: PUBLISH_TIMEOUT, in_flight_bytes: IN_FLIGHT_BYTES };
        let posts = aggregator::Sender::start(&context, settings).await?;
        let shared = Shared {
            sender: Sender { posts, channels },
            drain: context.drain.clone(),
            book: Book::default(),
            attempts,
            handler_timeout,
            room: Arc::new(Semaphore::new(usize::from(concurrency))),
            concurrency,
        };
        Ok(Self { context, prefetch, shared: Arc::new(shared) })
    }

    /// Has `handler` do what clients send to the channel, until the server ends. Several channels are
    /// served side by side, and one of them by several calls.
    ///
    /// A message is acknowledged when it is done: a request once RabbitMQ has stored its reply.
    /// Whoever dies before that leaves it to others, and so a message may be done twice; but a server
    /// that is given a request again within 5 min of having done it answers as before. A request
    /// whose deadline is over is not done.
    ///
    /// A handler that fails, panics or is too slow is tried again ([`Options::attempts`]), after 100 ms
    /// at first. Then a request is answered with the error; what nobody waits for becomes a dead
    /// letter.
    ///
    /// # Errors
    ///
    /// An unknown channel, and what is wrong with RabbitMQ at the start.
    pub async fn serve<H, F, E>(&self, channel: &str, handler: H) -> Result<(), KitError>
    where
        H: Fn(Work) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, E>> + Send,
        E: Display + Send,
    {
        let shared = &self.shared;
        let queue = inbound_queue(shared.sender.channels.check(channel)?);
        let options = ConsumerOptions { role: "server", queue, prefetch: self.prefetch };
        let mut deliveries = Consumer::start(&self.context, options).await?;
        let job = Arc::new(Job { channel: channel.to_owned(), handler });
        while let Some(delivery) = deliveries.next().await {
            let permit = tokio::select! {
                permit = Arc::clone(&shared.room).acquire_owned() => permit,
                () = shared.drain.requested() => break,
            };
            let (job, all) = (Arc::clone(&job), Arc::clone(shared));
            shared.drain.spawn_isolated(async move {
                tokio::select! {
                    () = job.settle(&all, delivery) => {}
                    () = all.drain.forced() => {}
                }
                drop(permit);
            });
        }
        Ok(())
    }

    /// What sends to clients unasked.
    pub fn sender(&self) -> Sender {
        self.shared.sender.clone()
    }

    /// Takes no more, finishes what it holds, and closes its connections, at most within that time:
    /// what is not finished then goes to other servers. Whether all was finished. Clones of
    /// [`Server::sender`] are to be dropped before.
    pub async fn end(self, within: Duration) -> bool {
        let Self { context, shared, .. } = self;
        context.drain.request();
        let ending = async {
            // Nobody closes it.
            let _ = shared.room.acquire_many(shared.concurrency.into()).await;
            drop(shared);
            context.drain.finished().await
        };
        match timeout(within, ending).await {
            Ok(outcome) => outcome == Outcome::Clean,
            Err(_) => {
                context.drain.force();
                false
            }
        }
    }
}
