//! Making, deleting, counting and looking into queues and topics, each operation on a channel of its
//! own: RabbitMQ closes it at what it does not have.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicNackOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use tokio::time::{Instant, sleep, timeout_at};

use super::channels::Channels;
use super::message::MomMessage;
use super::{MomError, MomQueueOptions};
use crate::connection::SETUP_TIMEOUT;
use crate::error::is_precondition_failed;
use crate::message::Message;
use crate::publisher::short;
use crate::topology::Queue;

/// Bytes that a look into a queue answers, if there is more than one message.
const LOOK_BYTES_MAX: usize = 4 << 20;
/// Messages that are read only to keep their order.
const TURN_OVER_MAX: usize = 256;
/// How long a look waits until what it put back is there for others.
const PUT_BACK_PATIENCE: Duration = Duration::from_millis(250);

/// An exchange and a key.
pub(super) type Source<'a> = (&'a str, &'a str);

/// Makes a queue and binds it. One that is there already stays as it is: its limits may be those of
/// earlier settings.
pub(super) async fn declare_queue(
    channels: &Channels,
    name: &str,
    options: &MomQueueOptions,
    sources: &[Source<'_>],
) -> Result<(), MomError> {
    let queue = Queue::mom(name, options);
    let mut table = queue.map_err(|error| MomError::TooMany(error.to_string()))?.table();
    // A dead letter names one queue, however many the message went to.
    table.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString(name.into()));
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let declaring = async {
        let counted = channels.brief(deadline).await?;
        let options = QueueDeclareOptions::durable();
        match counted.channel.queue_declare(short(name), options, table).await {
            Ok(_) => Ok(()),
            Err(error) if is_precondition_failed(&error) => {
                tracing::warn!(queue = name, "the queue {name} stays as it is: {error}");
                Ok(())
            }
            Err(error) => Err(MomError::by(&error)),
        }
    };
    in_time(deadline, "declare a queue", declaring).await?;
    let binding = async {
        let counted = channels.brief(deadline).await?;
        for (exchange, key) in sources {
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            let channel = &counted.channel;
            let bound =
                channel.queue_bind(short(name), short(exchange), short(key), options, none).await;
            bound.map_err(|error| MomError::by(&error))?;
        }
        Ok(())
    };
    in_time(deadline, "bind a queue", binding).await
}

/// How long a message may take from its exchange to a queue that nothing is routed to any more. A
/// queue that has gone by then refuses it.
const UNDERWAY: Duration = Duration::from_millis(100);

/// Deletes a queue. Nothing is routed to it any more before it goes: RabbitMQ ends the connection of
/// whoever publishes its first message to a queue that is just being deleted
/// (<https://github.com/rabbitmq/rabbitmq-server/issues/3627>).
pub(super) async fn delete_queue(
    channels: &Channels,
    name: &str,
    sources: &[Source<'_>],
) -> Result<(), MomError> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let deleting = async {
        let counted = channels.brief(deadline).await?;
        // RabbitMQ does not mind that there is none.
        for (exchange, key) in sources {
            let none = FieldTable::default();
            let unbound =
                counted.channel.queue_unbind(short(name), short(exchange), short(key), none);
            unbound.await.map_err(|error| MomError::by(&error))?;
        }
        sleep(UNDERWAY).await;
        let deleted = counted.channel.queue_delete(short(name), QueueDeleteOptions::default());
        deleted.await.map(|_| ()).map_err(|error| MomError::by(&error))
    };
    in_time(deadline, "delete a queue", deleting).await
}

pub(super) async fn declare_topic(channels: &Channels, exchange: &str) -> Result<(), MomError> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let declaring = async {
        let counted = channels.brief(deadline).await?;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, none) = (ExchangeKind::Fanout, FieldTable::default());
        let declared = counted.channel.exchange_declare(short(exchange), kind, options, none).await;
        declared.map_err(|error| MomError::by(&error))
    };
    in_time(deadline, "declare a topic", declaring).await
}

pub(super) async fn delete_topic(channels: &Channels, exchange: &str) -> Result<(), MomError> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let deleting = async {
        let counted = channels.brief(deadline).await?;
        let deleted =
            counted.channel.exchange_delete(short(exchange), ExchangeDeleteOptions::default());
        deleted.await.map_err(|error| MomError::by(&error))
    };
    in_time(deadline, "delete a topic", deleting).await
}

pub(super) async fn purge(channels: &Channels, queue: &str) -> Result<u32, MomError> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let purging = async {
        let counted = channels.brief(deadline).await?;
        let purged = counted.channel.queue_purge(short(queue), QueuePurgeOptions::default()).await;
        purged.map_err(|error| MomError::by(&error))
    };
    in_time(deadline, "purge a queue", purging).await
}

pub(super) async fn count(channels: &Channels, queue: &str) -> Result<u32, MomError> {
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let counting = async {
        let counted = channels.brief(deadline).await?;
        ready(&counted.channel, queue).await.map_err(|error| MomError::by(&error))
    };
    in_time(deadline, "count a queue", counting).await
}

/// Reads the first messages of a queue and puts them back. If it is broken off, its channel is
/// closed, which puts them back too.
pub(super) async fn peek(
    channels: &Channels,
    queue: &str,
    count: u16,
) -> Result<Vec<MomMessage>, MomError> {
    const ALL: u64 = 0;
    let deadline = Instant::now() + SETUP_TIMEOUT;
    let looking = async {
        let counted = channels.brief(deadline).await?;
        let channel = &counted.channel;
        let mut look = Look { wanted: usize::from(count), ..Look::default() };
        let mut left = 0;
        while let Some((message, behind)) = get(channel, queue).await? {
            left = behind as usize;
            if !look.at(message) {
                break;
            }
        }
        // As with a message that nobody has seen, RabbitMQ 4.3 and newer count no delivery.
        let options = BasicNackOptions { multiple: true, requeue: true };
        let put_back = channel.basic_nack(ALL, options).await;
        put_back.map_err(|error| MomError::by(&error))?;
        let patience = deadline.min(Instant::now() + PUT_BACK_PATIENCE);
        let before = left + look.held;
        while ready(channel, queue).await.is_ok_and(|ready| (ready as usize) < before)
            && Instant::now() < patience
        {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(look.found)
    };
    in_time(deadline, "look into a queue", looking).await
}

/// What a look has seen.
#[derive(Debug, Default)]
struct Look {
    wanted: usize,
    found: Vec<MomMessage>,
    bytes: usize,
    is_full: bool,
    held: usize,
}

impl Look {
    /// Notes the next message; whether there is more to read. RabbitMQ puts what was put back before
    /// behind what is put back now: reading all of it keeps its order.
    fn at(&mut self, message: Message) -> bool {
        self.held += 1;
        self.bytes += message.body.len();
        self.is_full |=
            self.held > self.wanted || (self.bytes > LOOK_BYTES_MAX && !self.found.is_empty());
        let was_back = message.redelivered;
        if !self.is_full {
            self.found.push(MomMessage::of(message));
        }
        let is_enough = self.is_full || self.found.len() == self.wanted;
        !is_enough || (was_back && self.held < self.wanted + TURN_OVER_MAX)
    }
}

/// The next message, and how many are behind it.
async fn get(channel: &Channel, queue: &str) -> Result<Option<(Message, u32)>, MomError> {
    let got = channel.basic_get(short(queue), BasicGetOptions { no_ack: false }).await;
    let got = got.map_err(|error| MomError::by(&error))?;
    Ok(got.map(|got| (Message::split(got.delivery).0, got.message_count)))
}

/// How many messages of a queue nobody holds.
async fn ready(channel: &Channel, queue: &str) -> Result<u32, lapin::Error> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looked = channel.queue_declare(short(queue), options, FieldTable::default()).await?;
    Ok(looked.message_count())
}

async fn in_time<T>(
    deadline: Instant,
    doing: &str,
    operation: impl Future<Output = Result<T, MomError>>,
) -> Result<T, MomError> {
    timeout_at(deadline, operation).await.unwrap_or_else(|_| {
        let why = format!("no answer within {SETUP_TIMEOUT:?} when asked to {doing}");
        Err(MomError::Unavailable(why))
    })
}
