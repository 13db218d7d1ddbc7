//! PostgreSQL: the schema and its migrations, the batch writer, partitions, the sweep, and what
//! operators ask of the database.
//!
//! The writer, the partitions and the sweep speak `tokio-postgres` directly: COPY needs it, and
//! SQLSTATE is visible only there. Migrations and the questions of people go through Diesel.

pub mod admin;
mod agents;
pub mod batch;
mod connection;
mod error;
mod frozen;
mod locks;
mod metrics;
pub mod migrations;
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
