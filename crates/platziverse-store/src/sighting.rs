//! What a batch consists of, and what became of it.

use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::presence::SessionId;
use platziverse_protocol::time::Timestamp;
use uuid::Uuid;

/// One record about one agent, to be stored.
#[derive(Clone, Debug)]
pub struct Sighting<'a> {
    /// The record's id, which redelivery keeps. A message's metrics are stored under it.
    pub id: Uuid,
    /// The session that it belongs to.
    pub session: SessionId,
    /// The gateway instance that has the session.
    pub gateway: &'a str,
    /// When the gateway received it.
    pub received: Timestamp,
    /// What happened.
    pub event: AgentEvent<'a>,
}

/// What became of a batch. `stored + duplicate` is the number of its sightings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Sightings that are in the database by this transaction. Those without metrics (presence,
    /// an empty message) only raise the agent's row, and always count here.
    pub stored: u64,
    /// Messages whose metrics were there before.
    pub duplicate: u64,
    /// Rows added to `metrics`.
    pub rows: u64,
}
