//! The scenarios, each with its goals.

pub(crate) mod aggregator;
pub(crate) mod cost;
pub(crate) mod drain;
pub(crate) mod edge;
pub(crate) mod end_to_end;
pub(crate) mod fan_out;
pub(crate) mod full;
pub(crate) mod idle;
pub(crate) mod mom;
pub(crate) mod tasks;
pub(crate) mod workers;
