//! What is in a stream of RabbitMQ. The management API does not show it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Connection, ConnectionProperties, Consumer};
use serde_json::Value;
use tokio::time::timeout;

use crate::PATIENCE;

const PREFETCH: u16 = 100;

/// Reads a stream.
#[derive(Debug)]
pub struct Stream {
    name: String,
    consumer: Consumer,
    _connection: Connection,
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct StreamMessage {
    /// Its place.
    pub offset: i64,
    /// The routing key.
    pub key: String,
    /// The property `type`.
    pub kind: String,
    /// The property `correlation-id`; empty without one.
    pub correlation_id: String,
    /// Whether it is kept on disk.
    pub is_persistent: bool,
    /// Headers that are text.
    pub headers: BTreeMap<String, String>,
    /// The body, which must be JSON; null if it is empty, as the marker's of a channel is.
    pub body: Value,
}

impl Stream {
    /// Opens a stream from its first message on.
    pub(crate) async fn open(url: &str, name: &str) -> Self {
        let opening = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            // A stream refuses who does not say it.
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
            let (queue, tag) = (ShortString::try_new(name).unwrap_or_default(), "".into());
            let consuming = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(queue, tag, consuming, arguments).await?;
            Ok::<_, lapin::Error>((connection, consumer))
        };
        match timeout(PATIENCE, opening).await {
            Ok(Ok((connection, consumer))) => {
                Self { name: name.to_owned(), consumer, _connection: connection }
            }
            Ok(Err(error)) => panic!("the stream {name}: {error}"),
            Err(_) => panic!("the stream {name}: no answer within {PATIENCE:?}"),
        }
    }

    /// The next message. Fails the test if none comes.
    pub async fn next(&mut self) -> StreamMessage {
        let next = self.try_next(PATIENCE).await;
        next.unwrap_or_else(|| panic!("the stream {}: nothing more within {PATIENCE:?}", self.name))
    }

    /// The next message, if one comes within that time.
    pub async fn try_next(&mut self, within: Duration) -> Option<StreamMessage> {
        let item = timeout(within, self.consumer.next()).await.ok()?;
        let delivery = match item {
            Some(Ok(delivery)) => delivery,
            Some(Err(error)) => panic!("the stream {}: {error}", self.name),
            None => panic!("the stream {} is gone", self.name),
        };
        let acked = delivery.acker.ack(BasicAckOptions::default()).await;
        acked.unwrap_or_else(|error| panic!("the stream {}: {error}", self.name));
        Some(StreamMessage::read(&delivery))
    }
}

impl StreamMessage {
    fn read(delivery: &lapin::message::Delivery) -> Self {
        let properties = &delivery.properties;
        let text = |text: &Option<ShortString>| {
            text.as_ref().map(ShortString::to_string).unwrap_or_default()
        };
        let table = properties.headers().as_ref().map(FieldTable::inner);
        let header = |name: &str| table.and_then(|table| table.get(name));
        let headers = table
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.to_string(), long(value)?)));
        let read = || serde_json::from_slice(&delivery.data);
        let body = if delivery.data.is_empty() { Ok(Value::Null) } else { read() };
        let body = body.unwrap_or_else(|error| {
            panic!("no JSON ({error}): {}", String::from_utf8_lossy(&delivery.data))
        });
        Self {
            offset: header("x-stream-offset").and_then(AMQPValue::as_long_long_int).unwrap_or(-1),
            key: delivery.routing_key.to_string(),
            kind: text(properties.kind()),
            correlation_id: text(properties.correlation_id()),
            is_persistent: *properties.delivery_mode() == Some(2),
            headers: headers.collect(),
            body,
        }
    }
}

fn long(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}
