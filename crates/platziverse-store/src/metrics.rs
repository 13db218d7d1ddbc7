//! The metrics of a batch: as a binary COPY, and as arrays for an INSERT that skips duplicates.

use std::pin::pin;
use std::slice;

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use platziverse_protocol::agent::{AgentMessage, Metric};
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::time::Timestamp;
use tokio_postgres::{Client, CopyInSink, Error, Statement};
use uuid::Uuid;

use crate::sighting::Sighting;

/// A message with at least one metric.
#[derive(Clone, Copy)]
pub(crate) struct Measured<'a> {
    pub(crate) id: Uuid,
    pub(crate) timestamp: Timestamp,
    received: Timestamp,
    message: &'a AgentMessage<'a>,
    /// Known once [`assign`] has succeeded.
    agent_id: i64,
}

impl<'a> Measured<'a> {
    fn of(sighting: &'a Sighting<'a>) -> Option<Self> {
        let AgentEvent::Message(message) = &sighting.event else { return None };
        let timestamp = message.timestamp.unwrap_or(sighting.received);
        let Sighting { id, received, .. } = *sighting;
        let measured = Self { id, timestamp, received, message, agent_id: 0 };
        (!message.metrics.is_empty()).then_some(measured)
    }

    fn metrics(&self) -> impl Iterator<Item = (i16, &'a Metric<'a>)> {
        // A message has at most 1,000 metrics.
        (0i16..).zip(&self.message.metrics)
    }

    /// Whether the sender named the message but not its time. Sent again, it has another time
    /// (its receipt), so that the primary key would take it for another message.
    pub(crate) fn is_untimed(&self) -> bool {
        self.message.id.is_some() && self.message.timestamp.is_none()
    }
}

/// How many of a batch bring metrics, repeated ones included.
pub(crate) fn count(sightings: &[Sighting<'_>]) -> u64 {
    sightings.iter().filter_map(Measured::of).count() as u64
}

/// The messages of a batch that bring metrics, ordered by id: neighbours in the index, and the
/// same order in each writer. Untimed ones that occur twice are reduced to the earliest.
pub(crate) fn measured<'a>(sightings: &'a [Sighting<'a>]) -> Vec<Measured<'a>> {
    let mut messages: Vec<_> = sightings.iter().filter_map(Measured::of).collect();
    messages.sort_by_key(|message| (message.id, message.timestamp));
    let mut last = None;
    messages
        .retain(|message| !message.is_untimed() || last.replace(message.id) != Some(message.id));
    messages
}

/// Gives each message its agent's id. Fails if one has none.
#[must_use]
pub(crate) fn assign(
    messages: &mut [Measured<'_>],
    agent_id: impl Fn(&str) -> Option<i64>,
) -> bool {
    messages.iter_mut().all(|message| match agent_id(message.message.agent.uuid.as_str()) {
        Some(id) => {
            message.agent_id = id;
            true
        }
        None => false,
    })
}

pub(crate) const COPY: &str = "\
COPY metrics (agent_id, type, value, text_value, timestamp, received_at, message_id, ordinal)
FROM STDIN BINARY";

/// Bytes that are gathered before they are handed on: the server indexes one part while the next
/// is encoded.
const COPY_CHUNK: usize = 64 * 1024;
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_FIELDS: i16 = 8;
const COPY_END: i16 = -1;

/// Sends all rows, and answers how many there were. A duplicate fails all of them.
pub(crate) async fn copy(
    sink: CopyInSink<Bytes>,
    chunks: impl Iterator<Item = Bytes>,
) -> Result<u64, Error> {
    let mut sink = pin!(sink);
    for chunk in chunks {
        sink.send(chunk).await?;
    }
    sink.finish().await
}

/// The rows of messages as what [`COPY`] reads, in chunks: each is encoded when it is asked for.
pub(crate) struct Chunks<'m, 'a> {
    messages: slice::Iter<'m, Measured<'a>>,
    buffer: BytesMut,
    is_over: bool,
}

impl<'m, 'a> Chunks<'m, 'a> {
    pub(crate) fn of(messages: &'m [Measured<'a>]) -> Self {
        let mut buffer = BytesMut::with_capacity(COPY_CHUNK + 1024);
        buffer.put_slice(COPY_HEADER);
        Self { messages: messages.iter(), buffer, is_over: false }
    }
}

impl Iterator for Chunks<'_, '_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(COPY_CHUNK + 1024);
        }
        for message in self.messages.by_ref() {
            encode(message, &mut self.buffer);
            if self.buffer.len() >= COPY_CHUNK {
                return Some(self.buffer.split().freeze());
            }
        }
        self.is_over = true;
        self.buffer.put_i16(COPY_END);
        Some(self.buffer.split().freeze())
    }
}

fn encode(message: &Measured<'_>, out: &mut BytesMut) {
    for (ordinal, metric) in message.metrics() {
        out.put_i16(COPY_FIELDS);
        put_field(out, &message.agent_id.to_be_bytes());
        put_field(out, metric.kind.as_bytes());
        put_optional(out, metric.number.map(f64::to_be_bytes).as_ref().map(|b| b.as_slice()));
        put_optional(out, metric.text.as_ref().map(|text| text.as_bytes()));
        put_field(out, &postgres_micros(message.timestamp).to_be_bytes());
        put_field(out, &postgres_micros(message.received).to_be_bytes());
        put_field(out, message.id.as_bytes());
        put_field(out, &ordinal.to_be_bytes());
    }
}

fn put_field(out: &mut BytesMut, bytes: &[u8]) {
    // The longest is a text of 4 KiB.
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(bytes);
}

fn put_optional(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_field(out, bytes),
        None => out.put_i32(-1),
    }
}

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts.
const POSTGRES_EPOCH_MILLIS: i64 = 946_684_800_000;

fn postgres_micros(time: Timestamp) -> i64 {
    (time.as_millis() - POSTGRES_EPOCH_MILLIS) * 1_000
}

/// Only the primary key tells a duplicate. An index that somebody else made, and whose rule a row
/// breaks, must say so.
pub(crate) const INSERT: &str = "\
WITH inserted AS (
  INSERT INTO metrics
    (agent_id, type, value, text_value, timestamp, received_at, message_id, ordinal)
  SELECT * FROM unnest($1::int8[], $2::text[], $3::float8[], $4::text[], $5::timestamptz[],
    $6::timestamptz[], $7::uuid[], $8::int2[])
  ON CONFLICT (message_id, ordinal, timestamp) DO NOTHING
  RETURNING message_id, timestamp
)
SELECT count(*), count(DISTINCT (message_id, timestamp)) FROM inserted";

/// What [`insert`] added.
pub(crate) struct Inserted {
    pub(crate) rows: u64,
    pub(crate) messages: u64,
}

/// Stores the rows that are not there yet.
pub(crate) async fn insert(
    client: &Client,
    statement: &Statement,
    columns: Columns<'_>,
) -> Result<Inserted, Error> {
    let Columns { agents, kinds, numbers, texts, times, received, ids, ordinals } = &columns;
    let row = client
        .query_one(statement, &[agents, kinds, numbers, texts, times, received, ids, ordinals])
        .await?;
    let count = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok(Inserted { rows: count(0), messages: count(1) })
}

/// Metrics as arrays, one for each parameter of [`INSERT`].
#[derive(Default)]
pub struct Columns<'a> {
    agents: Vec<i64>,
    kinds: Vec<&'a str>,
    numbers: Vec<Option<f64>>,
    texts: Vec<Option<&'a str>>,
    times: Vec<DateTime<Utc>>,
    received: Vec<DateTime<Utc>>,
    ids: Vec<Uuid>,
    ordinals: Vec<i16>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(messages: &[Measured<'a>]) -> Self {
        let mut columns = Self::default();
        for message in messages {
            columns.push(message);
        }
        columns
    }

    fn push(&mut self, message: &Measured<'a>) {
        let (time, received) = (message.timestamp.to_chrono(), message.received.to_chrono());
        for (ordinal, metric) in message.metrics() {
            self.agents.push(message.agent_id);
            self.kinds.push(&metric.kind);
            self.numbers.push(metric.number);
            self.texts.push(metric.text.as_deref());
            self.times.push(time);
            self.received.push(received);
            self.ids.push(message.id);
            self.ordinals.push(ordinal);
        }
    }
}
