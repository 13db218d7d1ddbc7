//! What the aggregator needs in RabbitMQ.

use std::time::Duration;

use platziverse_config::{AggregatorConfig, IngestConfig};

use super::{Argument, DEAD, Destination, Exchange, Kind, Queue, Topology, Value};

/// From clients to servers: an exchange whose keys are the names of channels.
pub const INBOUND: &str = "INBOUND";
/// From servers, and clients, to clients: an exchange whose keys begin with the name of a channel.
pub const OUTBOUND: &str = "OUTBOUND";
/// Where clients are: an exchange whose keys are the ids of those that an aggregator has.
pub const CLIENTS: &str = "platziverse.clients";
/// What clients have sent to servers of late: a stream, by which each request is sent once.
pub const REQUESTS: &str = "platziverse.requests";

/// The binding key of what is for aggregators: no channel has a point in its name.
const OF_REQUESTS: &str = "platziverse.*";

/// The start of the names of the exchanges before the servers' queues.
const INBOUND_OF: &str = "platziverse.inbound";

/// Bytes of one file of a stream: what is too old goes file by file.
const SEGMENT_BYTES: i64 = 16 << 20;
/// Files that a stream has at least when it is full. With one only, nothing is left of it when the
/// next begins.
const SEGMENTS_MIN: i64 = 4;
/// Messages are kept for this long at least, and for so much longer than a client may be away.
const KEPT_MIN: Duration = Duration::from_secs(600);
const KEPT_LONGER: Duration = Duration::from_secs(60);

/// The queue of what a channel's servers are to do.
pub fn inbound_queue(channel: &str) -> String {
    format!("IN_{}", channel.to_uppercase())
}

/// The stream of what a channel's clients are sent.
pub fn outbound_stream(channel: &str) -> String {
    format!("OUT_{}", channel.to_uppercase())
}

/// What a channel's streams may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// How long a client may be away.
    pub resume_window: Duration,
    /// Bytes of each stream.
    pub bytes_max: u64,
}

impl From<&AggregatorConfig> for StreamLimits {
    /// The same for all who declare the streams: RabbitMQ refuses them with others.
    fn from(settings: &AggregatorConfig) -> Self {
        Self {
            resume_window: settings.resume_window.max(settings.request_window),
            bytes_max: settings.stream_bytes_max,
        }
    }
}

impl Topology {
    /// The way from clients to servers and back, with dead letters, for these channels. The limits of
    /// the servers' queues are those of `limits`.
    pub fn for_aggregator(
        channels: &[String],
        limits: &IngestConfig,
        streams: StreamLimits,
    ) -> Self {
        let exchanges = vec![
            Exchange::new(DEAD, Kind::Topic, None),
            Exchange::new(INBOUND, Kind::Topic, Some(DEAD)),
            Exchange::new(OUTBOUND, Kind::Topic, Some(DEAD)),
            // No alternate exchange: a client that nobody has is no fault.
            Exchange::new(CLIENTS, Kind::Direct, None),
        ];
        let mut topology = Self { exchanges, ..Self::default() };
        topology.add(Queue::dead(limits), DEAD, "#");
        topology.add(Queue::stream(REQUESTS, streams), INBOUND, OF_REQUESTS);
        for channel in channels {
            // It exists for its alternate: what misses its queue is kept although it is in the
            // stream of requests as well.
            let own = format!("{INBOUND_OF}.{channel}");
            topology.exchanges.push(Exchange::new(&own, Kind::Fanout, Some(DEAD)));
            topology.bind(INBOUND, channel, Destination::Exchange(own.clone()));
            // All that goes to servers, by the same publish, and the same confirm. Not everything:
            // what is for no channel becomes a dead letter.
            topology.bind(INBOUND, channel, Destination::Queue(REQUESTS.to_owned()));
            topology.add(Queue::work(&inbound_queue(channel), limits), &own, "");
            let key = format!("{channel}.#");
            topology.add(Queue::stream(&outbound_stream(channel), streams), OUTBOUND, &key);
        }
        topology
    }
}

impl Queue {
    /// A log that any number of readers read, each from where it likes.
    fn stream(name: &str, limits: StreamLimits) -> Self {
        let age = (limits.resume_window + KEPT_LONGER).max(KEPT_MIN).as_secs();
        let bytes = i64::try_from(limits.bytes_max).unwrap_or(i64::MAX);
        let arguments = [
            ("x-queue-type", Value::Word("stream")),
            ("x-max-age", Value::Text(format!("{age}s"))),
            ("x-max-length-bytes", Value::Number(bytes)),
            (
                "x-stream-max-segment-size-bytes",
                Value::Number(SEGMENT_BYTES.min(bytes / SEGMENTS_MIN)),
            ),
        ];
        let arguments = arguments.map(|(name, value)| Argument { name, value }).into();
        Self { name: name.to_owned(), arguments, if_missing: false }
    }
}
