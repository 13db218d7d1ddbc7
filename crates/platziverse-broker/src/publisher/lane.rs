//! Lanes: where lines go. Lines of one lane share AMQP messages and keep their order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::types::{AMQPValue, ShortString};
use platziverse_protocol::record::CONTENT_TYPE;
use platziverse_protocol::task::TaskKind;
use platziverse_protocol::topic::AGENT_MESSAGE;
use uuid::Uuid;

use crate::dead::{DeadLetter, ERROR, ORIGIN_APP, ORIGIN_TYPE, cut_error};
use crate::message::ATTEMPTS;
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
    headers: Vec<Header>,
    mandatory: bool,
    body: Body,
}

/// What one AMQP message has for its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Body {
    /// Lines of JSON, as many as have gathered.
    Lines,
    /// One line of JSON.
    Line,
    /// One JSON text.
    Json,
}

/// A header of all messages of a lane.
pub(crate) type Header = (&'static str, HeaderValue);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HeaderValue {
    Text(String),
    Number(u32),
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
            body: Body::Lines,
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

    /// The lane of tasks to the queue that has the key in [`topology::TASKS`]: its name, or `event`
    /// or `command`. Each message has one task for its body.
    pub fn task(key: &str, kind: TaskKind) -> Self {
        Self::new(topology::TASKS, key, kind.as_str()).change(|spec| spec.body = Body::Json)
    }

    /// The lane of tasks that come back to their `queue` after the delay, one of
    /// `tasks.retry_delays`. Their header `attempts` says how many attempts have failed so far, and
    /// `error` why the last one did: at most 4 KiB of it are kept.
    pub fn retry(delay: Duration, queue: &str, kind: TaskKind, attempts: u32, error: &str) -> Self {
        let lane = Self::new(&topology::retry_name(delay), queue, kind.as_str());
        lane.change(|spec| {
            spec.body = Body::Json;
            spec.headers.push((ATTEMPTS, HeaderValue::Number(attempts)));
            spec.headers.push((ERROR, HeaderValue::Text(cut_error(error).to_owned())));
        })
    }

    /// The lane of dead letters like `letter`.
    pub fn dead(letter: &DeadLetter<'_>) -> Self {
        let lane = Self::new(topology::DEAD, letter.reason.as_str(), Self::DEAD).alone();
        lane.change(|spec| spec.headers = letter.headers())
    }

    /// The same lane of dead letters that are whole tasks, whose property `type` was `kind`: a
    /// replay gives it to them again.
    #[must_use]
    pub fn of_task(self, kind: Option<&str>) -> Self {
        let kind = HeaderValue::Text(kind.unwrap_or_default().to_owned());
        self.change(|spec| {
            spec.body = Body::Json;
            spec.headers.push((ORIGIN_TYPE, kind));
        })
    }

    /// The same lane of messages that were published by `app_id` first: a replay of a dead letter
    /// names it again.
    #[must_use]
    pub fn on_behalf_of(self, app_id: &str) -> Self {
        let app_id = HeaderValue::Text(app_id.to_owned());
        self.change(|spec| spec.headers.push((ORIGIN_APP, app_id)))
    }

    /// The same lane, where a message that nobody listens to is no fault.
    #[must_use]
    pub fn optional(self) -> Self {
        self.change(|spec| spec.mandatory = false)
    }

    /// The same lane with one line in each AMQP message.
    #[must_use]
    pub fn alone(self) -> Self {
        self.change(|spec| {
            if spec.body == Body::Lines {
                spec.body = Body::Line;
            }
        })
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

    pub(crate) fn headers(&self) -> &[Header] {
        &self.0.headers
    }

    pub(crate) fn is_mandatory(&self) -> bool {
        self.0.mandatory
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.0.body != Body::Lines
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self.0.body {
            Body::Lines | Body::Line => CONTENT_TYPE,
            Body::Json => "application/json",
        }
    }
}

impl From<&HeaderValue> for AMQPValue {
    fn from(value: &HeaderValue) -> Self {
        match value {
            HeaderValue::Text(text) => Self::LongString(text.as_str().into()),
            HeaderValue::Number(number) => Self::LongLongInt((*number).into()),
        }
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
    /// The line with the line break at its end; on a lane of tasks, the body.
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
    fn what_comes_back_after_a_delay() {
        let (delay, error) = (Duration::from_secs(60), "ä".repeat(5_000));
        let lane = Lane::retry(delay, "q", TaskKind::Event, 3, &error);
        assert_eq!((lane.exchange(), lane.routing_key()), ("platziverse.retry.1m", "q"));
        assert_eq!((lane.kind(), lane.content_type()), ("event", "application/json"));
        assert!(lane.is_alone() && lane.is_mandatory());
        let kept = HeaderValue::Text("ä".repeat(2_048));
        assert_eq!(lane.headers(), [(ATTEMPTS, HeaderValue::Number(3)), (ERROR, kept)]);
    }

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
