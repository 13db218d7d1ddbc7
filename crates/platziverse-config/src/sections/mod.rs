//! One module for each section of the settings.

pub(crate) mod aggregator;
pub(crate) mod amqp;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod ingest;
pub(crate) mod log;
pub(crate) mod mom;
pub(crate) mod ops;
pub(crate) mod tasks;
pub(crate) mod worker;
