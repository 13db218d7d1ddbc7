//! What a batch says about agents: one row each, and the statement that raises the stored rows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use platziverse_protocol::agent::Agent;
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::presence::Presence;
use platziverse_protocol::time::Timestamp;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use crate::sighting::Sighting;

/// What sightings say about one agent. Two are combined by taking the greater of each part, so
/// neither order nor repetition matters. [`UPSERT`] does the same in SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AgentRow<'a> {
    pub(crate) uuid: &'a str,
    pub(crate) standing: Standing<'a>,
    pub(crate) attributes: Option<Attributes<'a>>,
}

/// Presence, and where the session is. A session lives on one gateway, so the gateway never
/// decides; it is part of the order to leave nothing to chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing<'a> {
    pub(crate) presence: Presence,
    pub(crate) gateway: &'a str,
}

/// What an agent says about itself, and when it was received. The order of the fields is the
/// order in which they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Attributes<'a> {
    pub(crate) last_seen: Timestamp,
    pub(crate) username: &'a str,
    pub(crate) name: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) pid: i32,
}

impl<'a> AgentRow<'a> {
    fn of(sighting: &'a Sighting<'a>) -> Self {
        let (ended, attributes) = match &sighting.event {
            AgentEvent::Message(message) => (false, Some(&message.agent)),
            AgentEvent::Connected(agent) => (false, Some(agent)),
            AgentEvent::Disconnected(_) => (true, None),
        };
        let presence = Presence { session: sighting.session, ended };
        Self {
            uuid: sighting.event.uuid().as_str(),
            standing: Standing { presence, gateway: sighting.gateway },
            attributes: attributes.map(|agent| Attributes::of(agent, sighting.received)),
        }
    }

    fn merge(&mut self, other: Self) {
        self.standing = self.standing.max(other.standing);
        self.attributes = self.attributes.max(other.attributes);
    }
}

impl<'a> Attributes<'a> {
    fn of(agent: &'a Agent<'a>, last_seen: Timestamp) -> Self {
        let Agent { uuid: _, username, name, hostname, pid } = agent;
        Self { last_seen, username, name, hostname, pid: *pid }
    }
}

/// One row per agent, ordered by uuid: writers that lock rows in one order never deadlock.
pub(crate) fn reduce<'a>(
    sightings: impl IntoIterator<Item = &'a Sighting<'a>>,
) -> Vec<AgentRow<'a>> {
    let mut rows: HashMap<&str, AgentRow<'a>> = HashMap::new();
    for row in sightings.into_iter().map(AgentRow::of) {
        rows.entry(row.uuid).and_modify(|known| known.merge(row)).or_insert(row);
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_unstable_by_key(|row| row.uuid);
    rows
}

/// Comparisons with an unknown (null) attribute are null, thus false; a row whose attributes are
/// all unknown takes whatever comes.
pub(crate) const UPSERT: &str = "\
INSERT INTO agents AS a
  (uuid, username, name, hostname, pid, connected, session, gateway, last_seen_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int4[], $6::bool[],
  $7::uuid[], $8::text[], $9::timestamptz[])
ON CONFLICT (uuid) DO UPDATE SET
  username = CASE WHEN a.last_seen_at IS NULL OR
    (excluded.last_seen_at, excluded.username, excluded.name, excluded.hostname, excluded.pid) >
    (a.last_seen_at, a.username, a.name, a.hostname, a.pid)
    THEN excluded.username ELSE a.username END,
  name = CASE WHEN a.last_seen_at IS NULL OR
    (excluded.last_seen_at, excluded.username, excluded.name, excluded.hostname, excluded.pid) >
    (a.last_seen_at, a.username, a.name, a.hostname, a.pid)
    THEN excluded.name ELSE a.name END,
  hostname = CASE WHEN a.last_seen_at IS NULL OR
    (excluded.last_seen_at, excluded.username, excluded.name, excluded.hostname, excluded.pid) >
    (a.last_seen_at, a.username, a.name, a.hostname, a.pid)
    THEN excluded.hostname ELSE a.hostname END,
  pid = CASE WHEN a.last_seen_at IS NULL OR
    (excluded.last_seen_at, excluded.username, excluded.name, excluded.hostname, excluded.pid) >
    (a.last_seen_at, a.username, a.name, a.hostname, a.pid)
    THEN excluded.pid ELSE a.pid END,
  last_seen_at = greatest(a.last_seen_at, excluded.last_seen_at),
  connected = CASE WHEN
    (excluded.session, NOT excluded.connected, excluded.gateway) >
    (a.session, NOT a.connected, a.gateway)
    THEN excluded.connected ELSE a.connected END,
  gateway = CASE WHEN
    (excluded.session, NOT excluded.connected, excluded.gateway) >
    (a.session, NOT a.connected, a.gateway)
    THEN excluded.gateway ELSE a.gateway END,
  session = greatest(a.session, excluded.session),
  updated_at = now()
RETURNING id, uuid";

/// Lets the numbers of agents go on after the greatest that is in use. No writer takes one
/// meanwhile, so that the sequence only moves forward.
pub(crate) const CATCH_UP: &str = "\
BEGIN;
LOCK TABLE agents IN SHARE ROW EXCLUSIVE MODE;
SELECT setval(ids, greatest(nextval(ids), (SELECT max(id) FROM agents)))
FROM CAST(pg_get_serial_sequence('agents', 'id') AS regclass) AS ids;
COMMIT";

/// Agents as arrays, one for each parameter of [`UPSERT`].
pub struct Columns<'a> {
    uuids: Vec<&'a str>,
    usernames: Vec<Option<&'a str>>,
    names: Vec<Option<&'a str>>,
    hostnames: Vec<Option<&'a str>>,
    pids: Vec<Option<i32>>,
    connected: Vec<bool>,
    sessions: Vec<Uuid>,
    gateways: Vec<&'a str>,
    seen: Vec<Option<DateTime<Utc>>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(rows: &[AgentRow<'a>]) -> Self {
        let attributes: Vec<_> = rows.iter().map(|row| row.attributes).collect();
        let text = |of: fn(Attributes<'a>) -> &'a str| -> Vec<Option<&'a str>> {
            attributes.iter().map(|known| known.map(of)).collect()
        };
        Self {
            uuids: rows.iter().map(|row| row.uuid).collect(),
            usernames: text(|known| known.username),
            names: text(|known| known.name),
            hostnames: text(|known| known.hostname),
            pids: attributes.iter().map(|known| known.map(|a| a.pid)).collect(),
            connected: rows.iter().map(|row| row.standing.presence.connected()).collect(),
            sessions: rows.iter().map(|row| *row.standing.presence.session.as_uuid()).collect(),
            gateways: rows.iter().map(|row| row.standing.gateway).collect(),
            seen: attributes.iter().map(|known| known.map(|a| a.last_seen.to_chrono())).collect(),
        }
    }
}

/// Raises the stored rows, and answers their ids.
pub(crate) async fn upsert(
    client: &Client,
    statement: &Statement,
    columns: Columns<'_>,
) -> Result<Vec<Row>, Error> {
    let Columns { uuids, usernames, names, hostnames, pids, connected, sessions, gateways, seen } =
        &columns;
    client
        .query(
            statement,
            &[uuids, usernames, names, hostnames, pids, connected, sessions, gateways, seen],
        )
        .await
}

/// The most ids that are remembered, beside those of the batch under way.
const IDS_MAX: usize = 1 << 18;

/// The ids of agents that this writer has met. They are a guess: who uses one checks it in the
/// same transaction.
///
/// When the younger half is full, the older one is forgotten: a fleet that is larger than what
/// fits is not learned anew all at once.
#[derive(Default)]
pub(crate) struct AgentIds {
    young: HashMap<Box<str>, i64>,
    old: HashMap<Box<str>, i64>,
}

impl AgentIds {
    pub(crate) fn get(&self, uuid: &str) -> Option<i64> {
        self.young.get(uuid).or_else(|| self.old.get(uuid)).copied()
    }

    pub(crate) fn knows_all(&self, rows: &[AgentRow<'_>]) -> bool {
        rows.iter().all(|row| self.get(row.uuid).is_some())
    }

    /// Whether what [`upsert`] answered is what was assumed.
    pub(crate) fn confirmed_by(&self, rows: &[Row]) -> bool {
        rows.iter().all(|row| self.get(row.get(1)) == Some(row.get(0)))
    }

    /// Notes what [`upsert`] answered, for at least as long as this batch takes.
    pub(crate) fn remember(&mut self, rows: &[Row]) {
        self.learn(rows.iter().map(|row| (row.get(1), row.get(0))));
    }

    fn learn<'a>(&mut self, known: impl ExactSizeIterator<Item = (&'a str, i64)> + Clone) {
        if self.young.len() + known.len() > IDS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        for (uuid, id) in known {
            // What the older half knows stays there: else both would hold the same.
            if self.get(uuid) != Some(id) {
                self.young.insert(uuid.into(), id);
            }
        }
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[path = "agents_tests.rs"]
mod tests;
