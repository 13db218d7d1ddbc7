//! PostgreSQL: the schema and its migrations, the batch writer, partitions, the sweep, events and
//! commands, the catalogue of topics and queues, and what operators ask of the database.
//!
//! Whatever reads and writes rows speaks `tokio-postgres` directly: COPY needs it, and SQLSTATE is
//! visible only there. Migrations and the database's status go through Diesel.

pub mod admin;
mod agents;
pub mod batch;
pub mod commands;
mod connection;
mod error;
pub mod events;
mod frozen;
mod locks;
mod metrics;
pub mod migrations;
pub mod mom;
pub mod partitions;
mod sighting;
mod status;
mod store;
pub mod sweep;
mod times;
pub mod writer;

pub use error::StoreError;
pub use frozen::Frozen;
pub use sighting::{Sighting, Written};
pub use status::{DatabaseStatus, PartitionStatus, TableStatus};
pub use store::Store;
