//! The sign of life that holds a gateway's lease on its agents.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One heartbeat of a process, as JSON on `platziverse.heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The process that lives: `<host>:<id>`, the id new at every start.
    pub instance: String,
    /// What it is: `gateway`, or `worker` (whose own beats prove that it can hear).
    pub service: String,
    /// The sender's session clock, so that gateways whose machines' clocks differ agree on what
    /// is newer.
    pub time: Timestamp,
}

impl Heartbeat {
    /// The heartbeat as one line of JSON.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and an integer: serialization cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a heartbeat back.
    pub fn decode(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }
}
