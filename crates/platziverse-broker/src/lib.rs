//! RabbitMQ for Platziverse: what must exist in it, a publisher that says what is stored, consumers
//! that reconnect, and dead letters.
//!
//! Nothing here trusts a connection: each is made again by a loop of its own, declares the topology
//! before it is used, and what was not confirmed on the last one is sent again with the same ids.

pub mod aggregator;
mod attempt;
mod connection;
mod consumer;
mod context;
pub mod dead;
mod error;
pub mod heartbeat;
mod live;
mod log;
mod message;
mod metrics;
pub mod mom;
mod post;
mod publisher;
mod retry;
pub mod topology;
mod version;

pub use connection::{Connection, connect};
pub use consumer::{Consumer, ConsumerOptions, Deliveries};
pub use context::Context;
pub use dead::DeadLetter;
pub use error::BrokerError;
pub use live::{Bound, LiveHandle, LiveMessages, LiveOptions, LiveQueue};
pub use log::{LogItem, LogOptions, LogReader, LogStart};
pub use message::{Delivery, Message};
pub use publisher::{
    LINE_BYTES_MAX, Lane, Outcome, Outgoing, Publisher, PublisherOptions, Receipt, TelemetryLanes,
    Unsent, UnsentReason,
};
pub use topology::Topology;
