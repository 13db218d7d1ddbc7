//! What arrives from RabbitMQ.

use std::convert::Infallible;
use std::ops::Deref;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, BasicProperties};
use platziverse_protocol::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use crate::dead::ORIGIN_APP;
use crate::publisher::short;

const PERSISTENT: u8 = 2;

/// Settling is a few bytes; not written for so long, the connection is as good as gone.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The header of a task that says how many attempts at it have failed.
pub(crate) const ATTEMPTS: &str = "attempts";

/// The properties that every message has that is to be stored, but for who publishes it.
pub(crate) fn properties(
    id: Uuid,
    kind: &str,
    content_type: &str,
    at: Timestamp,
) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&id.to_string()))
        .with_type(short(kind))
        .with_content_type(short(content_type))
        .with_timestamp(u64::try_from(at.as_millis() / 1000).unwrap_or(0))
}

/// A message as it arrived.
#[derive(Debug)]
pub struct Message {
    /// The body, unchanged.
    pub body: Vec<u8>,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key that it was published under.
    pub routing_key: String,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    pub(crate) properties: BasicProperties,
}

impl Message {
    pub(crate) fn split(delivery: lapin::message::Delivery) -> (Self, Acker) {
        let message = Self {
            body: delivery.data,
            exchange: delivery.exchange.into(),
            routing_key: delivery.routing_key.into(),
            redelivered: delivery.redelivered,
            properties: delivery.properties,
        };
        (message, delivery.acker)
    }

    /// The id of its first record.
    pub fn message_id(&self) -> Option<&str> {
        self.properties.message_id().as_ref().map(ShortString::as_str)
    }

    /// The connection name of the process that published it.
    pub fn app_id(&self) -> Option<&str> {
        self.properties.app_id().as_ref().map(ShortString::as_str)
    }

    /// The connection name of the process that published it first, if others have published it
    /// again since.
    pub fn first_app_id(&self) -> Option<String> {
        self.header(ORIGIN_APP).or_else(|| self.app_id().map(str::to_owned))
    }

    /// What kind of message it is: the property `type`.
    pub fn kind(&self) -> Option<&str> {
        self.properties.kind().as_ref().map(ShortString::as_str)
    }

    /// What it asks, or replies to.
    pub fn correlation_id(&self) -> Option<&str> {
        self.properties.correlation_id().as_ref().map(ShortString::as_str)
    }

    /// Where a reply to it goes.
    pub fn reply_to(&self) -> Option<&str> {
        self.properties.reply_to().as_ref().map(ShortString::as_str)
    }

    /// When it was published, to the second.
    pub fn timestamp(&self) -> Option<Timestamp> {
        from_seconds((*self.properties.timestamp())?)
    }

    /// How many records the publisher says are in it.
    pub fn records(&self) -> Option<u64> {
        self.number("records")
    }

    /// How many attempts at it have failed, if it is a task: its header `attempts`, 0 without one.
    pub fn attempts(&self) -> u32 {
        let attempts = self.number(ATTEMPTS).unwrap_or(0);
        u32::try_from(attempts).unwrap_or(u32::MAX)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.value(name).and_then(text)
    }

    pub(crate) fn headers(&self) -> Option<&FieldTable> {
        self.properties.headers().as_ref()
    }

    /// A header that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.value(name).and_then(whole)
    }

    fn value(&self, name: &str) -> Option<&AMQPValue> {
        self.headers()?.inner().get(name)
    }
}

pub(crate) fn from_seconds(seconds: u64) -> Option<Timestamp> {
    let millis = i64::try_from(seconds).ok()?.checked_mul(1000)?;
    Timestamp::from_millis(millis).ok()
}

fn whole(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(u64::from(*number)),
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::Timestamp(number) => Some(*number),
        _ => None,
    }
}

pub(crate) fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        value => whole(value).map(|number| number.to_string()),
    }
}

/// A message that RabbitMQ keeps until it is settled. It derefs to its [`Message`].
///
/// Settling answers true once it is handed to RabbitMQ, and false when the connection that brought
/// the message is gone: then RabbitMQ delivers it again. Dropped without being settled, it stays
/// with this consumer until the connection ends.
#[derive(Debug)]
pub struct Delivery {
    message: Message,
    acker: Acker,
    /// Keeps the connection open until what came over it can be settled.
    _alive: mpsc::Sender<Infallible>,
}

impl Delivery {
    pub(crate) fn new(delivery: lapin::message::Delivery, alive: mpsc::Sender<Infallible>) -> Self {
        let (message, acker) = Message::split(delivery);
        Self { message, acker, _alive: alive }
    }

    /// Whether the connection that brought it is gone, so that it will be delivered again.
    pub fn is_stale(&self) -> bool {
        self.acker.poisoned()
    }

    /// RabbitMQ may forget it.
    pub async fn ack(&self) -> bool {
        handed(self.acker.ack(BasicAckOptions { multiple: false })).await
    }

    /// It becomes a dead letter.
    pub async fn reject(&self) -> bool {
        handed(self.acker.reject(BasicRejectOptions { requeue: false })).await
    }

    /// RabbitMQ may forget it and everything that this connection brought before it.
    pub async fn ack_multiple(&self) -> bool {
        handed(self.acker.ack(BasicAckOptions { multiple: true })).await
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

pub(crate) async fn handed(settling: impl Future<Output = Result<bool, lapin::Error>>) -> bool {
    matches!(timeout(SETTLE_TIMEOUT, settling).await, Ok(Ok(true)))
}
