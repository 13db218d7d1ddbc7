//! Loads against a server that does what a test wants of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fan_out;
mod idle;
mod server;
