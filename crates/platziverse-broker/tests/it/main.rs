//! The broker crate against a real RabbitMQ, each test in a vhost of its own.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod aggregator;
mod consuming;
mod dead_letters;
mod live;
mod log;
mod mom;
mod publishing;
mod starting;
mod tasks;
mod world;
