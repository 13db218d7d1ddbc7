//! Real services for tests.
//!
//! A [`World`] is a corner of RabbitMQ and PostgreSQL of a test's own: a vhost and a database, made
//! at the start and removed at the end. In it run the real programs, as child processes
//! ([`Process`]), and MQTT clients that are not ours ([`Client`]). Nothing here knows the inside of
//! a service: what a test sees is what a user sees.
//!
//! What cannot be had fails the test at once, with the reason and what to do; so do services that
//! panic. What begins with `try_` says instead why it cannot be had: a program that injures the
//! services on purpose goes on. Nothing sleeps for a fixed time where it can wait for what it
//! wants: [`eventually`].

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

mod aggregator;
mod books;
mod database;
mod dead_letter;
mod environment;
mod eventually;
mod follower;
mod http;
mod load;
mod management;
mod memory;
mod message;
mod mom;
mod mqtt;
mod name;
mod ports;
mod process;
mod proxy;
mod raw;
mod rest;
mod samples;
mod servers;
mod start;
mod stream;
mod table;
mod terminal;
mod url;
mod websocket;
mod world;

pub use aggregator::Aggregator;
pub use books::Balance;
pub use database::{Database, Held, Row};
pub use dead_letter::DeadLetter;
pub use environment::program;
pub use eventually::{PATIENCE, check, eventually};
pub use follower::{Followed, Follower, FollowerOptions, Gap};
pub use http::Answer as HttpAnswer;
pub use load::{Load, LoadReport};
pub use management::Management;
pub use memory::memory;
pub use message::{Message, millis_ago};
pub use mom::{Mom, MomAnswer, MomUser};
pub use mqtt::{Ack, Client, Closed, Heard, Options, Pending, QoS, Version};
pub use ports::{closed_port, free_port};
pub use process::Process;
pub use proxy::{Proxy, Toxic};
pub use raw::RawClient;
pub use samples::Samples;
pub use servers::Servers;
pub use start::Ended;
pub use stream::{Stream, StreamMessage};
pub use table::aligned;
pub use websocket::{WsClient, WsClosed, WsOptions, WsRefused};
pub use world::World;
