//! A dead letter as a person sees it, whoever made it one.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable};
use platziverse_protocol::time::Timestamp;
use serde::Serialize;

use super::{ERROR, ORIGIN, ORIGIN_APP, ORIGIN_KEY, ORIGIN_TYPE, REASON, STAGE};
use crate::message::{ATTEMPTS, Message, from_seconds, text};
use crate::topology::{DEAD, TELEMETRY, mom_origin, unsharded_key};

const PREVIEW_CHARS: usize = 200;

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadEntry {
    /// The message id: of its first record.
    pub id: Option<String>,
    /// Why: a [`Reason`](platziverse_protocol::dead::Reason), or RabbitMQ's word for what it did
    /// (`delivery_limit`, `rejected`, …), or `unroutable`.
    pub reason: String,
    /// Who gave it up: `gateway`, `worker` or `rabbitmq`.
    pub stage: String,
    /// What was wrong with it.
    pub error: Option<String>,
    /// The exchange to which a replay publishes it.
    pub origin_exchange: String,
    /// The routing key under which a replay publishes it.
    pub origin_key: String,
    /// When it was given up, to the second.
    pub at: Option<Timestamp>,
    /// Records in it.
    pub records: u64,
    /// Bytes of its body.
    pub bytes: u64,
    /// Who published it first.
    pub app_id: Option<String>,
    /// The start of its body, as text.
    pub preview: String,
}

/// A dead letter with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadMessage {
    /// What a list shows of it.
    pub entry: DeadEntry,
    /// Its headers, those that are text or numbers.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What RabbitMQ wrote about a message that it dead-lettered itself: the newest of `x-death`.
#[derive(Debug, Default)]
struct Death {
    reason: Option<String>,
    exchange: Option<String>,
    key: Option<String>,
    queue: Option<String>,
    at: Option<Timestamp>,
}

impl DeadEntry {
    pub(crate) fn of(message: &Message) -> Self {
        // What came by way of another exchange reached no queue there; if RabbitMQ dead-lettered it
        // before, as it does after each delay of a task, it did not die of that.
        let death = message.headers().filter(|_| message.exchange == DEAD).and_then(Death::newest);
        let ours = message.header(REASON);
        let (stage, reason, error) = match (&ours, &death) {
            (Some(reason), _) => (message.header(STAGE), reason.clone(), message.header(ERROR)),
            (None, Some(death)) => {
                (None, death.reason.clone().unwrap_or_default(), death.sentence())
            }
            (None, None) => (None, "unroutable".to_owned(), None),
        };
        let queue =
            death.as_ref().filter(|_| ours.is_none()).and_then(|death| death.queue.as_deref());
        let of_application = queue.and_then(mom_origin);
        let timestamp = message.timestamp();
        let (exchange, key, at) = match death {
            Some(death) if ours.is_none() => (death.exchange, death.key, death.at.or(timestamp)),
            _ => (message.header(ORIGIN), message.header(ORIGIN_KEY), timestamp),
        };
        let exchange = exchange.unwrap_or_else(|| message.exchange.clone());
        let key = key.unwrap_or_else(|| message.routing_key.clone());
        let (exchange, key) = of_application.unwrap_or((exchange, key));
        Self {
            id: message.message_id().map(str::to_owned),
            reason,
            stage: stage.unwrap_or_else(|| "rabbitmq".to_owned()),
            error,
            origin_key: origin_key(&exchange, key),
            origin_exchange: exchange,
            at,
            records: message.records().unwrap_or(1),
            bytes: message.body.len() as u64,
            app_id: message.first_app_id(),
            preview: preview(&message.body),
        }
    }
}

impl DeadMessage {
    pub(crate) fn of(message: Message) -> Self {
        let entry = DeadEntry::of(&message);
        let headers = message.headers().into_iter().flat_map(|table| table.inner());
        let shown = headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
        Self { entry, headers: shown.collect(), body: message.body }
    }
}

impl Death {
    fn newest(headers: &FieldTable) -> Option<Self> {
        let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
        let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
        let get = |name: &str| death.inner().get(name);
        let key = match get("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(text),
            _ => None,
        };
        let at = match get("time") {
            Some(AMQPValue::Timestamp(seconds)) => from_seconds(*seconds),
            _ => None,
        };
        Some(Self {
            reason: get("reason").and_then(text),
            exchange: get("exchange").and_then(text),
            key,
            queue: get("queue").and_then(text),
            at,
        })
    }

    fn sentence(&self) -> Option<String> {
        let (reason, queue) = (self.reason.as_deref()?, self.queue.as_deref()?);
        Some(match reason {
            "delivery_limit" => format!("delivered too often from the queue {queue}"),
            "rejected" => format!("rejected by a consumer of the queue {queue}"),
            "expired" => format!("waited too long in the queue {queue}"),
            "maxlen" => format!("the queue {queue} was full"),
            other => format!("{other} in the queue {queue}"),
        })
    }
}

/// The key under which it is published again: without a shard, of which there may be fewer by now.
/// Whatever their number, what has none reaches a queue that workers consume.
fn origin_key(exchange: &str, key: String) -> String {
    if exchange == TELEMETRY { unsharded_key(&key).to_owned() } else { key }
}

/// The name of a header that tells how a message died, or what was tried before.
pub(super) fn is_of_death(name: &str) -> bool {
    [REASON, STAGE, ERROR, ORIGIN, ORIGIN_KEY, ORIGIN_APP, ORIGIN_TYPE, ATTEMPTS].contains(&name)
        || ["x-death", "x-delivery-count"].contains(&name)
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
}

fn preview(body: &[u8]) -> String {
    let start = &body[..body.len().min(PREVIEW_CHARS * 4)];
    String::from_utf8_lossy(start).chars().take(PREVIEW_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology;
    use lapin::BasicProperties;

    fn message(headers: FieldTable, exchange: &str) -> Message {
        Message {
            body: b"{\"a\":1}\n".to_vec(),
            exchange: exchange.to_owned(),
            routing_key: "agent.message".to_owned(),
            redelivered: false,
            properties: BasicProperties::default()
                .with_message_id("id-1".into())
                .with_timestamp(1)
                .with_headers(headers),
        }
    }

    fn word(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn what_reached_no_queue() {
        let entry = DeadEntry::of(&message(FieldTable::default(), topology::TELEMETRY));
        assert_eq!((entry.reason.as_str(), entry.stage.as_str()), ("unroutable", "rabbitmq"));
        assert_eq!(entry.origin_exchange, topology::TELEMETRY);
        assert_eq!(entry.origin_key, "agent.message");
        assert_eq!(entry.at.map(Timestamp::as_millis), Some(1000));
        assert_eq!(entry.preview, "{\"a\":1}");
    }

    #[test]
    fn what_we_gave_up() {
        let mut headers = FieldTable::default();
        for (name, value) in [(REASON, "invalid_json"), (STAGE, "gateway"), (ORIGIN, "x")] {
            headers.insert(name.into(), word(value));
        }
        headers.insert(ORIGIN_APP.into(), word("platziverse-gateway@a:1"));
        let entry = DeadEntry::of(&message(headers, topology::DEAD));
        assert_eq!((entry.reason.as_str(), entry.stage.as_str()), ("invalid_json", "gateway"));
        assert_eq!(entry.origin_exchange, "x");
        assert_eq!(entry.app_id.as_deref(), Some("platziverse-gateway@a:1"));
    }

    fn death(reason: &str, queue: &str, exchange: &str, key: &str) -> AMQPValue {
        let mut death = FieldTable::default();
        death.insert("reason".into(), word(reason));
        death.insert("queue".into(), word(queue));
        death.insert("exchange".into(), word(exchange));
        death.insert("routing-keys".into(), AMQPValue::FieldArray(vec![word(key)].into()));
        death.insert("time".into(), AMQPValue::Timestamp(5));
        AMQPValue::FieldTable(death)
    }

    #[test]
    fn what_rabbitmq_gave_up() {
        let mut headers = FieldTable::default();
        let (queue, key) = ("platziverse.ingest", "agent.message.3");
        let deaths = vec![death("delivery_limit", queue, topology::TELEMETRY, key)];
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        let entry = DeadEntry::of(&message(headers, topology::DEAD));
        assert_eq!((entry.reason.as_str(), entry.stage.as_str()), ("delivery_limit", "rabbitmq"));
        assert_eq!(entry.origin_exchange, topology::TELEMETRY);
        assert_eq!(entry.origin_key, "agent.message", "there need not be a shard 3 any more");
        assert_eq!(entry.at.map(Timestamp::as_millis), Some(5000));
        let error = entry.error.unwrap();
        assert_eq!(error, "delivered too often from the queue platziverse.ingest");
    }

    #[test]
    fn what_applications_could_not_settle() {
        let queue = "mom.topic.news.00000000-0000-0000-0000-000000000001";
        for (exchange, key) in [(topology::MOM, "mom.topic.news.x"), ("mom.topic.news", "")] {
            let mut headers = FieldTable::default();
            let deaths = vec![death("delivery_limit", queue, exchange, key)];
            headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
            let entry = DeadEntry::of(&message(headers, topology::DEAD));
            // Others have had theirs.
            assert_eq!((&*entry.origin_exchange, &*entry.origin_key), (topology::MOM, queue));
        }
    }

    #[test]
    fn a_task_that_was_tried_again_before() {
        let retry = death("expired", "platziverse.retry.1s", "platziverse.retry.1s", "q");
        let headers = |deaths: Vec<AMQPValue>| {
            let mut headers = FieldTable::default();
            headers.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
            headers.insert(ERROR.into(), word("503 Service Unavailable"));
            headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(2));
            headers
        };
        // Its queue is gone.
        let lost = message(headers(vec![retry.clone()]), topology::TASKS);
        let entry = DeadEntry::of(&Message { routing_key: "q".to_owned(), ..lost });
        assert_eq!((entry.reason.as_str(), entry.error), ("unroutable", None));
        assert_eq!((&*entry.origin_exchange, &*entry.origin_key), (topology::TASKS, "q"));
        // Workers died of it.
        let last = death("delivery_limit", "q", topology::TASKS, "q");
        let entry = DeadEntry::of(&message(headers(vec![last, retry]), topology::DEAD));
        assert_eq!(entry.reason, "delivery_limit");
        assert_eq!(entry.error.as_deref(), Some("delivered too often from the queue q"));
        assert_eq!((&*entry.origin_exchange, &*entry.origin_key), (topology::TASKS, "q"));
    }
}
