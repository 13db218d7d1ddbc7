//! What must be seen to work, seen from outside: the real programs, RabbitMQ and PostgreSQL, and
//! MQTT clients that are not ours. Each test has a vhost and a database of its own.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

mod aggregator;
mod aggregator_cluster;
mod aggregator_doors;
mod aggregator_ends;
mod aggregator_faults;
mod aggregator_page;
mod aggregator_scene;
mod bad_input;
mod books;
mod cli;
mod commands;
mod crowd;
mod faults;
mod followers;
mod kit;
mod kit_handlers;
mod limits;
mod mom;
mod mom_cli;
mod mom_clients;
mod mom_cluster;
mod mom_crowd;
mod mom_faults;
mod mom_input;
mod mom_limits;
mod mom_older;
mod mom_readme;
mod mom_rpc;
mod mom_waiting;
mod mutations;
mod own_handlers;
mod pipeline;
mod presence;
mod proxy;
mod replicas;
mod room;
mod startup;
mod tasks;
mod terminal;
mod tidy;
mod topology;
mod worlds;
