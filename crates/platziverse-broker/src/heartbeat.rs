//! Heartbeats on their way: publisher's and listener's side.

use bytes::Bytes;
use platziverse_protocol::heartbeat::Heartbeat;
use uuid::Uuid;

use crate::message::Message;
use crate::publisher::{Lane, Outgoing};

/// A heartbeat to publish.
pub fn outgoing<R>(heartbeat: &Heartbeat, receipt: R) -> Outgoing<R> {
    let line = Bytes::from(heartbeat.encode());
    Outgoing { lane: Lane::heartbeat(), id: Uuid::now_v7(), line, receipt }
}

/// Reads a heartbeat that arrived in the queue of
/// [`LiveOptions::heartbeat`](crate::LiveOptions::heartbeat).
pub fn read(message: &Message) -> Result<Heartbeat, serde_json::Error> {
    Heartbeat::decode(&message.body)
}
