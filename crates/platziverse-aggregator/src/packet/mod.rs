//! Packets: what clients and aggregators say to each other over a WebSocket, as JSON text.

mod read;
#[cfg(test)]
mod schema;
mod write;

pub(crate) use read::check_client;
pub use read::{Ask, Audience, Order, Publish, Reply, Subscription, read};
pub use write::{Code, Existence, MessageFrame, Missed, Reason, Receipt, Welcome, pong, reply};

/// The subprotocol that a client asks for: the version of the packets.
pub const SUBPROTOCOL: &str = "platziverse.v1";
/// Bytes of a packet's id.
pub const ID_BYTES_MAX: usize = 100;
/// Bytes of a client's id: with the name of a channel it must fit into a routing key.
pub const CLIENT_BYTES_MAX: usize = 100;
/// Clients that one packet is for.
pub const CLIENTS_MAX: usize = 100;
