//! What a batch comes down to, and the shapes in which PostgreSQL gets it. Pure.

use bytes::Bytes;

use crate::agents::{self, AgentRow};
use crate::metrics::{self, Inserted, Measured};
use crate::sighting::{Sighting, Written};

/// What a batch comes down to: one row for each agent, and the messages that bring metrics.
pub struct Batch<'a> {
    sightings: u64,
    pub(crate) agents: Vec<AgentRow<'a>>,
    /// Sightings that bring metrics, before any were left out of `messages`.
    measured: u64,
    pub(crate) messages: Vec<Measured<'a>>,
}

impl<'a> Batch<'a> {
    /// The batch of these sightings.
    pub fn of(sightings: &'a [Sighting<'a>]) -> Self {
        Self {
            sightings: sightings.len() as u64,
            agents: agents::reduce(sightings),
            measured: metrics::count(sightings),
            messages: metrics::measured(sightings),
        }
    }

    /// Gives each message its agent's id. Fails if one has none.
    #[must_use]
    pub fn assign(&mut self, agent_id: impl Fn(&str) -> Option<i64>) -> bool {
        metrics::assign(&mut self.messages, agent_id)
    }

    /// The agents, for the statement that raises their rows.
    pub fn agent_columns(&self) -> agents::Columns<'a> {
        agents::Columns::of(&self.agents)
    }

    /// The metrics, for a COPY.
    pub fn metric_chunks(&self) -> impl Iterator<Item = Bytes> {
        metrics::Chunks::of(&self.messages)
    }

    /// The metrics, for the INSERT that skips duplicates.
    pub fn metric_columns(&self) -> metrics::Columns<'a> {
        metrics::Columns::of(&self.messages)
    }

    pub(crate) fn written(&self, inserted: &Inserted) -> Written {
        let duplicate = self.measured.saturating_sub(inserted.messages);
        Written { stored: self.sightings - duplicate, duplicate, rows: inserted.rows }
    }
}
