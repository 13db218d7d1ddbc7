//! The publisher of applications' messages. Each is an AMQP message with a confirm of its own, and
//! whoever publishes it is answered within a deadline: nothing is tried for ever, as telemetry is.

mod room;
mod task;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use self::room::{Reserved, Room};
use self::task::Task;
use super::forward::Pending;
use super::message::{MORE_QUEUES, Post};
use super::{MomError, MomSettings};
use crate::connection::Link;
use crate::publisher::short;
use crate::topology::{MOM, MOM_LEASES};
use crate::{BrokerError, Context};

/// Names the connection in readiness and metrics.
const ROLE: &str = "mom";
/// Queues that one AMQP message goes to. RabbitMQ keeps all their names with each copy, so that
/// fewer messages of more queues would take more room, and the names must fit in a frame.
const QUEUES_MAX: usize = 16;

type Answer = Result<(), MomError>;

/// One AMQP message.
#[derive(Debug)]
struct Parcel {
    exchange: &'static str,
    key: ShortString,
    properties: BasicProperties,
    body: Bytes,
    receipt: oneshot::Sender<Answer>,
    /// Whether it goes to more queues than that of its key.
    has_more: bool,
    /// When RabbitMQ first refused it.
    refused: Option<Instant>,
    _room: Reserved,
}

/// Publishes on a connection of its own, which ends when this is dropped and everything is answered.
#[derive(Debug)]
pub(super) struct Publisher {
    parcels: mpsc::UnboundedSender<Box<Parcel>>,
    /// What bounds `parcels`.
    room: Room,
    timeout: Duration,
    app_id: ShortString,
}

impl Publisher {
    pub(super) async fn start(
        context: &Context,
        settings: &MomSettings,
        pending: Arc<Pending>,
    ) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let (parcels, incoming) = mpsc::unbounded_channel();
        let room = Room::new(settings.in_flight_bytes);
        context.drain.spawn(ROLE, Task::new(context, incoming, pending).run(link));
        let app_id = short(&context.name);
        Ok(Self { parcels, room, timeout: settings.publish_timeout, app_id })
    }

    /// Publishes to all queues of the post. `handed` is called when all parcels have their places:
    /// those of later calls go after them.
    pub(super) async fn publish(&self, post: Post, handed: impl FnOnce()) -> Answer {
        post.check()?;
        let publishing = async {
            let mut receipts = Vec::with_capacity(1);
            for queues in post.queues.chunks(QUEUES_MAX) {
                let Some((first, more)) = queues.split_first() else { continue };
                let names = queues.iter().map(String::len).sum::<usize>();
                let room = self.room.enter(first, post.len() + names).await;
                let properties = post.properties(more, &self.app_id);
                let receipt = self.hand(MOM, first, properties, post.body.clone(), room);
                receipts.push(receipt);
            }
            handed();
            let mut answer = Ok(());
            for receipt in receipts {
                answer = answer.and(answered(receipt).await);
            }
            answer
        };
        self.in_time(publishing).await
    }

    /// Publishes to another process, or this one. What reaches nobody is told to [`Pending`].
    pub(super) async fn tell(
        &self,
        instance: &str,
        properties: BasicProperties,
        body: Bytes,
    ) -> Answer {
        let telling = async {
            // All that is told shares the room of one queue.
            let room = self.room.enter(MOM_LEASES, body.len()).await;
            let properties = properties.with_app_id(self.app_id.clone());
            match answered(self.hand(MOM_LEASES, instance, properties, body, room)).await {
                // The queue of a process has no limit: it is on a node that has just died.
                Err(MomError::Full) => {
                    let why = "the queue of the process that holds the lease is gone";
                    Err(MomError::Unavailable(why.to_owned()))
                }
                told => told,
            }
        };
        self.in_time(telling).await
    }

    fn hand(
        &self,
        exchange: &'static str,
        key: &str,
        properties: BasicProperties,
        body: Bytes,
        room: Reserved,
    ) -> oneshot::Receiver<Answer> {
        let (receipt, answer) = oneshot::channel();
        let headers = properties.headers().as_ref();
        // It goes through several queues: moved whole, it would be copied each time.
        let parcel = Box::new(Parcel {
            exchange,
            key: short(key),
            has_more: headers.is_some_and(|headers| headers.inner().contains_key(MORE_QUEUES)),
            properties,
            body,
            receipt,
            refused: None,
            _room: room,
        });
        // After the end of the task the receipt is dropped, which is an answer too.
        let _ = self.parcels.send(parcel);
        answer
    }

    async fn in_time(&self, publishing: impl Future<Output = Answer>) -> Answer {
        timeout(self.timeout, publishing).await.unwrap_or_else(|_| {
            let why = format!("it did not confirm the message within {:?}", self.timeout);
            Err(MomError::Unavailable(why))
        })
    }
}

async fn answered(receipt: oneshot::Receiver<Answer>) -> Answer {
    receipt.await.unwrap_or_else(|_| Err(MomError::ending()))
}
