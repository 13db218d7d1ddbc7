//! The store against a real PostgreSQL: the server that `TEST_DATABASE_URL` names.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod database;
mod deadlines;
mod frozen;
mod partitions;
mod schema;
mod sightings;
mod sweep;
mod writer;
mod writer_order;
