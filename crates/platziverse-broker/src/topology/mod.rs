//! Everything that must exist in RabbitMQ, as a value: exchanges, queues, bindings and limits.

mod declare;
mod keys;

use std::fmt;

use lapin::types::{AMQPValue, FieldTable};
use platziverse_config::IngestConfig;
use platziverse_protocol::topic::{self, TopicFilter};
use serde::{Serialize, Serializer};

pub(crate) use declare::declare;
pub use keys::{STORED_TOPICS, live_binding_keys, shard_of, sharded_key};

/// All agent traffic.
pub const TELEMETRY: &str = "platziverse.telemetry";
/// Everything that goes to subscribers.
pub const LIVE: &str = "platziverse.live";
/// The gateways' and workers' signs of life.
pub const HEARTBEAT: &str = "platziverse.heartbeat";
/// What could not be stored or delivered: an exchange and a queue.
pub const DEAD: &str = "platziverse.dead";
/// What workers store: an exchange, and a queue, or with shards the start of their names.
///
/// The exchange exists for its alternate: RabbitMQ asks each exchange on the way by itself, so a
/// message that misses its ingest queue is kept although it reaches a listener as well.
pub const INGEST: &str = "platziverse.ingest";

/// Dead letters are looked at again and again, and each look counts as a delivery: practically
/// without limit, in a way that RabbitMQ 3.10 and 4 both understand.
const LOOKS_MAX: i64 = 1_000_000_000;

/// Bytes of dead letters that are kept: 1 GiB. Beyond it, as beyond `ingest.dead_length_max`
/// letters, the queue refuses more, and what would become a dead letter stays where it is.
pub const DEAD_BYTES_MAX: i64 = 1 << 30;

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By patterns of words.
    Topic,
    /// To every queue bound to it.
    Fanout,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: &'static str,
    /// How it routes.
    pub kind: Kind,
    /// The exchange that gets what would reach no queue.
    pub alternate: Option<&'static str>,
}

/// A durable quorum queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its limits and what becomes of what exceeds them, as RabbitMQ calls them.
    pub arguments: Vec<Argument>,
}

/// One argument of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// `x-…`
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// The value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A word.
    Word(&'static str),
}

/// What a binding leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(&'static str),
}

/// A binding: what an exchange gets under `key` goes to the destination too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The exchange.
    pub source: &'static str,
    /// A pattern: `*` is a word, `#` any number of them.
    pub key: String,
    /// Where it leads.
    pub destination: Destination,
}

/// What must exist before anything is published or consumed. Declaring it again changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// What connects them.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// The path from gateways to workers and subscribers, with dead letters; `routes` are topics
    /// that are kept in a queue too.
    pub fn for_ingest(config: &IngestConfig, routes: &[(TopicFilter, String)]) -> Self {
        let mut topology = Self { exchanges: exchanges(), ..Self::default() };
        topology.add(Queue::dead(config), DEAD, "#");
        let names = ingest_queues(config.shards);
        for (shard, name) in (0..config.shards).zip(&names) {
            let key = if names.len() == 1 { "agent.#".to_owned() } else { keys::shard_key(shard) };
            topology.add(Queue::work(name, config), INGEST, &key);
        }
        // Storage before listeners: what a listener can hear is kept.
        for exchange in [INGEST, LIVE] {
            topology.bindings.push(Binding {
                source: TELEMETRY,
                key: "agent.#".to_owned(),
                destination: Destination::Exchange(exchange),
            });
        }
        for (filter, name) in routes {
            topology.route(filter, name, config);
        }
        topology
    }

    fn add(&mut self, queue: Queue, source: &'static str, key: &str) {
        let destination = Destination::Queue(queue.name.clone());
        if !self.queues.contains(&queue) {
            self.queues.push(queue);
        }
        self.bindings.push(Binding { source, key: key.to_owned(), destination });
    }

    fn route(&mut self, filter: &TopicFilter, name: &str, config: &IngestConfig) {
        let mut keys = vec![topic::binding_key(filter)];
        if filter.len() > topic::KEY_BYTES_MAX || filter.contains(['+', '#']) {
            keys.push(topic::cut_binding_key());
        }
        for key in keys {
            self.add(Queue::work(name, config), LIVE, &key);
        }
    }
}

fn exchanges() -> Vec<Exchange> {
    let exchange = |name, kind, alternate| Exchange { name, kind, alternate };
    vec![
        exchange(DEAD, Kind::Topic, None),
        exchange(INGEST, Kind::Topic, Some(DEAD)),
        exchange(TELEMETRY, Kind::Topic, Some(DEAD)),
        // No alternate exchange: no listener is no fault.
        exchange(LIVE, Kind::Topic, None),
        exchange(HEARTBEAT, Kind::Fanout, None),
    ]
}

/// The queues that workers consume.
pub fn ingest_queues(shards: u16) -> Vec<String> {
    match shards {
        0 | 1 => vec![INGEST.to_owned()],
        _ => (0..shards).map(|shard| format!("{INGEST}.{shard}")).collect(),
    }
}

impl Queue {
    /// A queue of work: full, it refuses; what it cannot get rid of becomes a dead letter.
    fn work(name: &str, config: &IngestConfig) -> Self {
        let bytes = i64::try_from(config.queue_bytes_max).unwrap_or(i64::MAX);
        Self::quorum(
            name,
            [
                ("x-max-length", Value::Number(config.queue_length_max.into())),
                ("x-max-length-bytes", Value::Number(bytes)),
                ("x-delivery-limit", Value::Number(config.delivery_limit.into())),
                ("x-dead-letter-exchange", Value::Word(DEAD)),
                // Dead-lettering itself waits for confirms; needs reject-publish.
                ("x-dead-letter-strategy", Value::Word("at-least-once")),
            ],
        )
    }

    fn dead(config: &IngestConfig) -> Self {
        Self::quorum(
            DEAD,
            [
                ("x-max-length", Value::Number(config.dead_length_max.into())),
                ("x-max-length-bytes", Value::Number(DEAD_BYTES_MAX)),
                ("x-delivery-limit", Value::Number(LOOKS_MAX)),
            ],
        )
    }

    fn quorum<const N: usize>(name: &str, arguments: [(&'static str, Value); N]) -> Self {
        let common = [
            ("x-queue-type", Value::Word("quorum")),
            ("x-overflow", Value::Word("reject-publish")),
        ];
        let all = common.into_iter().chain(arguments);
        let arguments = all.map(|(name, value)| Argument { name, value }).collect();
        Self { name: name.to_owned(), arguments }
    }

    pub(crate) fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for Argument { name, value } in &self.arguments {
            let value = match value {
                Value::Number(number) => AMQPValue::LongLongInt(*number),
                Value::Word(word) => AMQPValue::LongString((*word).into()),
            };
            table.insert((*name).into(), value);
        }
        table
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Word(word) => serializer.serialize_str(word),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "EXCHANGE               KIND    ELSE")?;
        for Exchange { name, kind, alternate } in &self.exchanges {
            let kind = match kind {
                Kind::Topic => "topic",
                Kind::Fanout => "fanout",
            };
            writeln!(f, "{name:<22} {kind:<7} {}", alternate.unwrap_or("-"))?;
        }
        writeln!(f, "\nQUEUE")?;
        for Queue { name, arguments } in &self.queues {
            writeln!(f, "{name}")?;
            for Argument { name, value } in arguments {
                writeln!(f, "  {name:<23} {value}")?;
            }
        }
        writeln!(f, "\nFROM                   KEY             TO")?;
        for Binding { source, key, destination } in &self.bindings {
            let to = match destination {
                Destination::Queue(name) => format!("queue {name}"),
                Destination::Exchange(name) => format!("exchange {name}"),
            };
            writeln!(f, "{source:<22} {key:<15} {to}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
