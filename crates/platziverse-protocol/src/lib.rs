//! The wire types of Platziverse: topics, payloads, records, presence.
//!
//! Everything here is a pure function of its arguments, the time included: no I/O, no clock, no
//! SQL, no AMQP. Text is parsed once, into types that hold only what is valid.

pub mod agent;
pub mod command;
pub mod dead;
pub mod event;
pub mod heartbeat;
pub mod presence;
pub mod record;
pub mod task;
pub mod time;
pub mod topic;
