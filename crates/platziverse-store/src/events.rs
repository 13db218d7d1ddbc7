//! Events, each stored once.

use chrono::{DateTime, Utc};
use platziverse_protocol::time::Timestamp;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;

/// An event, to be stored.
#[derive(Clone, Copy, Debug)]
pub struct StoredEvent<'a> {
    /// Names it, however often it is delivered.
    pub id: Uuid,
    /// What happened.
    pub name: &'a str,
    /// Where it happened, if that is known.
    pub source: Option<&'a str>,
    /// JSON.
    pub payload: &'a str,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
}

/// Waits for whoever is storing the same event.
pub(crate) const INSERT: &str = "\
INSERT INTO events (id, name, source, payload, occurred_at, received_at)
SELECT e.id, e.name, e.source, e.payload::jsonb, e.occurred_at, e.received_at
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
  AS e(id, name, source, payload, occurred_at, received_at)
ON CONFLICT (id) DO NOTHING";

/// Stores the events whose ids are not there yet, all of them or none; the others are duplicates. Of
/// two with one id the first counts.
///
/// An error that is not [transient](StoreError::is_transient) means that PostgreSQL refuses at
/// least one of them, as it does a number beyond what `jsonb` holds. All payloads together should
/// stay far below 1 GiB, the most that it takes at once. Takes at most the connect timeout, twice
/// the statement timeout and 10 s.
pub async fn insert(store: &Store, events: &[StoredEvent<'_>]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(events);
    let stored = store.run("storing events", async |client| {
        let Columns { ids, names, sources, payloads, occurred, received } = &columns;
        let parameters = [
            (ids as _, Type::UUID_ARRAY),
            (names as _, Type::TEXT_ARRAY),
            (sources as _, Type::TEXT_ARRAY),
            (payloads as _, Type::TEXT_ARRAY),
            (occurred as _, Type::TIMESTAMPTZ_ARRAY),
            (received as _, Type::TIMESTAMPTZ_ARRAY),
        ];
        client.execute_typed(INSERT, &parameters).await.map(drop)
    });
    stored.await
}

/// Events as arrays, one for each parameter of [`INSERT`].
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    names: Vec<&'a str>,
    sources: Vec<Option<&'a str>>,
    payloads: Vec<&'a str>,
    occurred: Vec<DateTime<Utc>>,
    received: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    /// Ordered by id, each id once: whoever inserts in one order never deadlocks.
    fn of(events: &[StoredEvent<'a>]) -> Self {
        let mut ordered: Vec<_> = events.iter().collect();
        ordered.sort_by_key(|event| event.id);
        ordered.dedup_by_key(|event| event.id);
        let mut columns = Self::default();
        for event in ordered {
            columns.ids.push(event.id);
            columns.names.push(event.name);
            columns.sources.push(event.source);
            columns.payloads.push(event.payload);
            columns.occurred.push(event.occurred_at.to_chrono());
            columns.received.push(event.received_at.to_chrono());
        }
        columns
    }
}
