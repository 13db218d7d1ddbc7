//! `scripts/bench`: scenarios, played against us and against what people would pick instead.
//!
//! Every subject runs on the same machine, load generator included, one after the other and several
//! times; figures are medians. Both RabbitMQ's MQTT plugin and we publish into a quorum queue of
//! the same RabbitMQ and answer after its confirm; Mosquitto stores nothing, and is a bound for the
//! edge alone. Tasks are handled beside a consumer in Python with pika; topics and queues are measured
//! beside its publisher, and RabbitMQ's management; WebSockets
//! beside STOMP over RabbitMQ's own.

mod aggregator;
pub mod args;
mod backlog;
mod commits;
pub mod figure;
mod filled;
mod machine;
mod mom;
mod ours;
mod peers;
mod pika;
mod plot;
mod report;
pub mod run;
pub mod scenario;
mod scenarios;
mod site;
mod usage;
