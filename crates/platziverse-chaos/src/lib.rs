//! Injures a running Platziverse under load, and reconciles what clients were told with what the
//! database and the dead-letter queue hold.
//!
//! A round ([`round`]) sets a stage ([`stage`]): real gateways, workers, RabbitMQ and PostgreSQL,
//! with TCP proxies between them, agents that report ([`fleet`]) and listeners ([`ear`]). A fault
//! ([`faults`]) begins, holds and ends; then everything must settle, every agent's presence must be
//! true ([`presence`]), and every message must be where its client was told it is ([`reconcile`]).
//! Some rounds have another load ([`work`]): events and commands ([`tasks`]), or commands to agents
//! ([`commands`]), that an application publishes ([`sender`]), topics and queues ([`mom`]), or clients of
//! aggregators ([`sessions`]).

pub mod args;
pub mod ballast;
pub mod character;
pub mod commands;
pub mod crowd;
pub mod ear;
pub mod faults;
pub mod fleet;
pub mod kept;
pub mod ledger;
pub mod mom;
pub mod noise;
pub mod presence;
pub mod reconcile;
pub mod report;
pub mod round;
pub mod schedule;
pub mod sender;
pub mod service;
pub mod sessions;
pub mod stage;
pub mod tasks;
pub mod theatre;
pub mod user;
pub mod watch;
pub mod work;
