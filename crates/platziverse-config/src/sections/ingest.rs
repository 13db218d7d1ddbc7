//! `ingest`: the queues of agents' messages and the workers that store them.

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// The queues of agents' messages and the workers that store them. The limits of queues are part of
/// their declaration: gateways and workers must agree on them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Ingest queues; agents are spread over them by uuid.
    pub shards: u16,
    /// AMQP deliveries that one writer holds.
    pub prefetch: u16,
    /// Writers side by side in one worker, each with a connection to PostgreSQL.
    pub writers: usize,
    /// Rows of one transaction.
    pub batch_rows: usize,
    /// Messages in one ingest queue; beyond it, gateways wait.
    pub queue_length_max: u32,
    /// Bytes in one ingest queue; beyond it, gateways wait.
    pub queue_bytes_max: u64,
    /// Deliveries of one message before RabbitMQ dead-letters it.
    pub delivery_limit: u32,
    /// Messages in the dead-letter queue.
    pub dead_length_max: u32,
    /// Days that metrics are kept.
    pub retention_days: u32,
    /// Days for which partitions are made ahead.
    pub partitions_ahead_days: u32,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            shards: 1,
            prefetch: 200,
            writers: 2,
            batch_rows: 10_000,
            queue_length_max: 1_000_000,
            queue_bytes_max: 4_294_967_296,
            delivery_limit: 100,
            dead_length_max: 1_000_000,
            retention_days: 30,
            partitions_ahead_days: 7,
        }
    }
}

pub(crate) const NAME: &str = "ingest";

pub(crate) const KEYS: &[Key] = &[
    Key::new("shards", Kind::Whole { min: 1, max: 256 }),
    // basic.qos carries the count in 16 bits, where 0 means without a limit.
    Key::new("prefetch", Kind::Whole { min: 1, max: 65_535 }),
    Key::new("writers", Kind::Whole { min: 1, max: 64 }),
    Key::new("batch_rows", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new("queue_length_max", Kind::Whole { min: 1, max: 4_294_967_295 }),
    // The largest integer of an AMQP table.
    Key::new("queue_bytes_max", Kind::Whole { min: 1_048_576, max: i64::MAX as u64 }),
    Key::new("delivery_limit", Kind::Whole { min: 1, max: 1_000_000 }),
    Key::new("dead_length_max", Kind::Whole { min: 1, max: 4_294_967_295 }),
    Key::new("retention_days", Kind::Whole { min: 1, max: 36_500 }),
    Key::new("partitions_ahead_days", Kind::Whole { min: 1, max: 365 }),
];

impl IngestConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
    }
}
