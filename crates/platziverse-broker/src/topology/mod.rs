//! Everything that must exist in RabbitMQ, as a value: exchanges, queues, bindings and limits.

mod aggregator;
mod declare;
mod keys;
mod mom;
mod show;
mod tasks;

use lapin::types::{AMQPValue, FieldTable};
use platziverse_config::{IngestConfig, Route};
use serde::Serialize;

pub use aggregator::{
    CLIENTS, INBOUND, OUTBOUND, REQUESTS, StreamLimits, inbound_queue, outbound_stream,
};
pub(crate) use declare::declare;
pub(crate) use keys::unsharded_key;
pub use keys::{STORED_TOPICS, live_binding_keys, shard_of, sharded_key};
pub(crate) use mom::mom_origin;
pub use mom::{MOM, MOM_LEASES};
pub(crate) use tasks::retry_name;
pub use tasks::{COMMANDS, EVENTS, REPORTS, TASKS};

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

/// The start of the name of the exchange before the queue of a route. As with [`INGEST`], each has
/// the dead letters for its alternate: what a route is for is kept although its queue is gone.
pub const ROUTE: &str = "platziverse.route";

/// Everything that agents send, whatever the number of shards.
const EVERYTHING_OF_AGENTS: &str = "agent.#";

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
    /// By the key itself.
    Direct,
    /// To every queue bound to it.
    Fanout,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: Kind,
    /// The exchange that gets what would reach no queue.
    pub alternate: Option<&'static str>,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its limits and what becomes of what exceeds them, as RabbitMQ calls them.
    pub arguments: Vec<Argument>,
    /// Whether one of this name that exists already is used as it is, whatever its type and its
    /// arguments. Otherwise these are the queue's, or it is an error.
    pub if_missing: bool,
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
    /// A word that depends on the settings.
    Text(String),
}

/// What a binding leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

/// A binding: what an exchange gets under `key` goes to the destination too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Binding {
    /// The exchange.
    pub source: String,
    /// Of a topic exchange a pattern: `*` is a word, `#` any number of them.
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
    /// Bindings of other settings and of earlier versions: taken away once the others are made.
    pub unbindings: Vec<Binding>,
}

impl Topology {
    /// The path from gateways to workers and subscribers, with dead letters; `routes` are topics
    /// that are kept in a queue too.
    ///
    /// The queue of a route may receive more than its filter matches: a routing key has at most 255
    /// bytes, so topics that are longer share one key, and each filter with wildcards is bound to
    /// it. Who consumes the queue matches the topic of each record again.
    ///
    /// A queue that the settings name no longer, of a route or of a shard, stays as it is: nobody
    /// but its owner knows whether what is in it is still wanted.
    pub fn for_ingest(config: &IngestConfig, routes: &[Route]) -> Self {
        let mut topology = Self { exchanges: exchanges(), ..Self::default() };
        topology.add(Queue::dead(config), DEAD, "#");
        topology.ingest(config);
        // Storage before listeners: what a listener can hear is kept.
        for exchange in [INGEST, LIVE] {
            let to = Destination::Exchange(exchange.to_owned());
            topology.bind(TELEMETRY, EVERYTHING_OF_AGENTS, to);
        }
        for route in routes {
            topology.route(route, config);
        }
        topology
    }

    /// This one and another, for a process that needs both. Of exchanges and queues that both have by
    /// the same name, this one's count.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for exchange in other.exchanges {
            if !self.exchanges.iter().any(|known| known.name == exchange.name) {
                self.exchanges.push(exchange);
            }
        }
        for queue in other.queues {
            if !self.queues.iter().any(|known| known.name == queue.name) {
                self.queues.push(queue);
            }
        }
        let Self { bindings, unbindings, .. } = &mut self;
        for (ours, theirs) in [(bindings, other.bindings), (unbindings, other.unbindings)] {
            for binding in theirs {
                if !ours.contains(&binding) {
                    ours.push(binding);
                }
            }
        }
        self
    }

    /// The ingest queues. With shards the one without a number stays: it has what gateways with
    /// the setting 1 publish, also while the setting is changed on one process after the other.
    fn ingest(&mut self, config: &IngestConfig) {
        let main = Destination::Queue(INGEST.to_owned());
        if config.shards <= 1 {
            self.add(Queue::work(INGEST, config), INGEST, EVERYTHING_OF_AGENTS);
        } else {
            for shard in 0..config.shards {
                let queue = Queue::work(&shard_queue(shard), config);
                self.add(queue, INGEST, &keys::shard_key(shard));
            }
            self.add(Queue::work(INGEST, config), INGEST, keys::UNSHARDED);
            // What one shard was bound to: otherwise all would be stored twice over.
            self.unbind(INGEST, EVERYTHING_OF_AGENTS, main.clone());
        }
        // Before there was an exchange of that name, the queue was bound to this one.
        self.unbind(TELEMETRY, EVERYTHING_OF_AGENTS, main);
    }

    fn route(&mut self, Route { filter, queue }: &Route, config: &IngestConfig) {
        let name = format!("{ROUTE}.{queue}");
        if !self.exchanges.iter().any(|exchange| exchange.name == name) {
            self.exchanges.push(Exchange::new(&name, Kind::Topic, Some(DEAD)));
            self.add(Queue::work(queue, config), &name, "#");
        }
        for key in live_binding_keys(filter) {
            self.bind(LIVE, &key, Destination::Exchange(name.clone()));
            // Without an exchange between them, what the queue misses is lost.
            self.unbind(LIVE, &key, Destination::Queue(queue.clone()));
        }
    }

    fn add(&mut self, queue: Queue, source: &str, key: &str) {
        let destination = Destination::Queue(queue.name.clone());
        self.queues.push(queue);
        self.bind(source, key, destination);
    }

    fn bind(&mut self, source: &str, key: &str, destination: Destination) {
        self.bindings.push(Binding::new(source, key, destination));
    }

    fn unbind(&mut self, source: &str, key: &str, destination: Destination) {
        self.unbindings.push(Binding::new(source, key, destination));
    }
}

impl Exchange {
    fn new(name: &str, kind: Kind, alternate: Option<&'static str>) -> Self {
        Self { name: name.to_owned(), kind, alternate }
    }
}

impl Binding {
    fn new(source: &str, key: &str, destination: Destination) -> Self {
        Self { source: source.to_owned(), key: key.to_owned(), destination }
    }
}

fn exchanges() -> Vec<Exchange> {
    vec![
        Exchange::new(DEAD, Kind::Topic, None),
        Exchange::new(INGEST, Kind::Topic, Some(DEAD)),
        Exchange::new(TELEMETRY, Kind::Topic, Some(DEAD)),
        // No alternate exchange: no listener is no fault.
        Exchange::new(LIVE, Kind::Topic, None),
        Exchange::new(HEARTBEAT, Kind::Fanout, None),
    ]
}

/// The queues that workers consume: with shards, the one without a number too, which has what was
/// published under the setting 1.
pub fn ingest_queues(shards: u16) -> Vec<String> {
    let shards = if shards > 1 { 0..shards } else { 0..0 };
    shards.map(shard_queue).chain([INGEST.to_owned()]).collect()
}

fn shard_queue(shard: u16) -> String {
    format!("{INGEST}.{shard}")
}

impl Queue {
    /// A queue of work: full, it refuses; what it cannot get rid of becomes a dead letter.
    fn work(name: &str, config: &IngestConfig) -> Self {
        let [length, bytes] = Self::work_limits(config);
        Self::quorum(
            name,
            [
                length,
                bytes,
                ("x-delivery-limit", Value::Number(config.delivery_limit.into())),
                ("x-dead-letter-exchange", Value::Word(DEAD)),
                // Dead-lettering itself waits for confirms; needs reject-publish.
                ("x-dead-letter-strategy", Value::Word("at-least-once")),
            ],
        )
    }

    fn work_limits(config: &IngestConfig) -> [(&'static str, Value); 2] {
        let bytes = i64::try_from(config.queue_bytes_max).unwrap_or(i64::MAX);
        [
            ("x-max-length", Value::Number(config.queue_length_max.into())),
            ("x-max-length-bytes", Value::Number(bytes)),
        ]
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
        Self { name: name.to_owned(), arguments, if_missing: false }
    }

    pub(crate) fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for Argument { name, value } in &self.arguments {
            let value = match value {
                Value::Number(number) => AMQPValue::LongLongInt(*number),
                Value::Word(word) => AMQPValue::LongString((*word).into()),
                Value::Text(text) => AMQPValue::LongString(text.as_str().into()),
            };
            table.insert((*name).into(), value);
        }
        table
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
