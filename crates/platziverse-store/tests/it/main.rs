//! The store against a real PostgreSQL: the server that `TEST_DATABASE_URL` names.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod commands;
mod commands_races;
mod database;
mod deadlines;
mod events;
mod frozen;
mod mom;
mod mom_lookup;
mod mom_races;
mod partitions;
mod pool;
mod schema;
mod sightings;
mod sweep;
mod writer;
mod writer_order;
