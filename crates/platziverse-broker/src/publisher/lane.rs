//! Lanes: where lines go. Lines of one lane share AMQP messages and keep their order.

use std::sync::Arc;

use bytes::Bytes;
use lapin::types::ShortString;
use platziverse_protocol::topic::AGENT_MESSAGE;
use uuid::Uuid;

use crate::dead::{DeadLetter, ORIGIN_APP};
use crate::topology;

/// The longest line, in bytes: RabbitMQ 4 refuses messages above 16 MiB by default
/// (`max_message_size`), and refusing closes the channel.
pub const LINE_BYTES_MAX: usize = 15 << 20;

/// An exchange, a routing key and what else is the same for all messages of a kind. Clones are
/// cheap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane(Arc<Spec>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Spec {
    exchange: String,
    routing_key: String,
    kind: String,
    headers: Vec<(&'static str, String)>,
    mandatory: bool,
    alone: bool,
}

impl Lane {
    /// The kind of what goes to subscribers.
    pub(crate) const MESSAGE: &str = "message";
    /// The kind of dead letters.
    pub(crate) const DEAD: &str = "dead";

    /// A lane to `exchange` under `routing_key`; `kind` becomes the property `type`. A message
    /// that reaches no queue is an error. Names are cut at 255 bytes (AMQP 0-9-1, shortstr).
    pub fn new(exchange: &str, routing_key: &str, kind: &str) -> Self {
        Self(Arc::new(Spec {
            exchange: short(exchange).into(),
            routing_key: short(routing_key).into(),
            kind: short(kind).into(),
            headers: Vec::new(),
            mandatory: true,
            alone: false,
        }))
    }

    /// A lane to the subscribers of the topic whose key is `routing_key`.
    pub fn live(routing_key: &str) -> Self {
        Self::new(topology::LIVE, routing_key, Self::MESSAGE).optional()
    }

    /// The lane of heartbeats.
    pub fn heartbeat() -> Self {
        Self::new(topology::HEARTBEAT, "", "heartbeat").optional().alone()
    }

    /// The lane of dead letters like `letter`.
    pub fn dead(letter: &DeadLetter<'_>) -> Self {
        let lane = Self::new(topology::DEAD, letter.reason.as_str(), Self::DEAD);
        lane.with_headers(letter.headers())
    }

    /// The same lane of dead letters that were published by `app_id`: a replay names it again.
    #[must_use]
    pub fn on_behalf_of(self, app_id: &str) -> Self {
        self.change(|spec| spec.headers.push((ORIGIN_APP, app_id.to_owned())))
    }

    /// The same lane, where a message that nobody listens to is no fault.
    #[must_use]
    pub fn optional(self) -> Self {
        self.change(|spec| spec.mandatory = false)
    }

    /// The same lane with one line in each AMQP message.
    #[must_use]
    pub fn alone(self) -> Self {
        self.change(|spec| spec.alone = true)
    }

    fn with_headers(self, headers: Vec<(&'static str, String)>) -> Self {
        self.change(|spec| spec.headers = headers).alone()
    }

    fn change(self, change: impl FnOnce(&mut Spec)) -> Self {
        let mut spec = Arc::unwrap_or_clone(self.0);
        change(&mut spec);
        Self(Arc::new(spec))
    }

    /// The exchange.
    pub fn exchange(&self) -> &str {
        &self.0.exchange
    }

    /// The routing key.
    pub fn routing_key(&self) -> &str {
        &self.0.routing_key
    }

    pub(crate) fn kind(&self) -> &str {
        &self.0.kind
    }

    pub(crate) fn headers(&self) -> &[(&'static str, String)] {
        &self.0.headers
    }

    pub(crate) fn is_mandatory(&self) -> bool {
        self.0.mandatory
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.0.alone
    }
}

/// The lanes of what is stored, one for each kind and shard, made once.
#[derive(Clone, Debug)]
pub struct TelemetryLanes {
    shards: u16,
    lanes: Arc<[Vec<Lane>]>,
}

impl TelemetryLanes {
    /// The lanes to the `shards` ingest queues.
    pub fn new(shards: u16) -> Self {
        let lane = |key: &str, shard: u16| {
            Lane::new(topology::TELEMETRY, &topology::sharded_key(key, shard, shards), key)
        };
        let lanes = topology::STORED_TOPICS.map(|topic| {
            let key = platziverse_protocol::topic::routing_key(topic);
            (0..shards.max(1)).map(|shard| lane(&key, shard)).collect()
        });
        Self { shards, lanes: Arc::new(lanes) }
    }

    /// The lane of a message on `topic` from the agent; none if the topic is not stored.
    pub fn lane(&self, topic: &str, agent_uuid: &str) -> Option<Lane> {
        let kind = topology::STORED_TOPICS.iter().position(|stored| *stored == topic)?;
        let shard = usize::from(topology::shard_of(agent_uuid, self.shards));
        self.lanes.get(kind)?.get(shard).cloned()
    }

    /// The exchange and the routing key to which a replay publishes what was refused on `topic`
    /// without looking into it: a message of an agent to an ingest queue, where it is looked into,
    /// everything else to subscribers, so that nobody's presence changes.
    pub fn origin(&self, topic: &str) -> (&'static str, String) {
        let key = platziverse_protocol::topic::routing_key(topic);
        if topic == AGENT_MESSAGE {
            // Which agent's it is, is not known.
            let shard = topology::shard_of("", self.shards);
            (topology::TELEMETRY, topology::sharded_key(&key, shard, self.shards))
        } else {
            (topology::LIVE, key)
        }
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// RabbitMQ has it, on every queue that it was routed to.
    Confirmed,
    /// The process was forced to end first; nobody may be told that it is stored.
    Abandoned,
}

/// Who waits for the outcome of a line.
pub trait Receipt: Send + 'static {
    /// Tells the outcome. Called once, by the publisher's task: it must not block.
    fn resolve(self, outcome: Outcome);
}

impl Receipt for () {
    fn resolve(self, _outcome: Outcome) {}
}

impl Receipt for tokio::sync::oneshot::Sender<Outcome> {
    fn resolve(self, outcome: Outcome) {
        // Whoever stopped waiting needs no answer.
        let _ = self.send(outcome);
    }
}

/// One line to publish.
#[derive(Debug)]
pub struct Outgoing<R> {
    /// Where it goes.
    pub lane: Lane,
    /// Names the message: the first line's id is the AMQP message's.
    pub id: Uuid,
    /// The line with the line break at its end.
    pub line: Bytes,
    /// Who waits for the outcome.
    pub receipt: R,
}

/// Text as a short string, cut at 255 bytes.
pub(crate) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(255);
    ShortString::try_new(&text[..end]).unwrap_or_else(|_| ShortString::from(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_refused_message_would_have_gone() {
        for (shards, topic, exchange, key) in [
            (1, "agent/message", topology::TELEMETRY, "agent.message".to_owned()),
            (
                4,
                "agent/message",
                topology::TELEMETRY,
                format!("agent.message.{}", topology::shard_of("", 4)),
            ),
            (4, "agent/disconnected", topology::LIVE, "agent.disconnected".to_owned()),
            (4, "plant/a", topology::LIVE, "plant.a".to_owned()),
        ] {
            let origin = TelemetryLanes::new(shards).origin(topic);
            assert_eq!(origin, (exchange, key), "{topic} with {shards} shards");
        }
        let lanes = TelemetryLanes::new(4);
        let lane = lanes.lane("agent/message", "").unwrap();
        assert_eq!(lanes.origin("agent/message").1, lane.routing_key());
    }
}
