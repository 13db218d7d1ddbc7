//! Micro-benchmarks of the pure parts of the hot path: what a message costs each service before
//! anything is read or sent.
//!
//! `cargo bench -p platziverse-bench --bench micro [FILTER]`. An item is a message, unless a
//! benchmark says otherwise; dropping what was made of it counts, as it does in a service.

#![expect(clippy::expect_used, reason = "a benchmark whose input is wrong measures nothing")]

mod batch;
mod mqtt;
mod payload;
mod record;
mod reports;
mod subscriptions;

use std::time::Duration;

use divan::Divan;

/// What one benchmark takes, so that all of them are done within a minute.
const TIME_MIN: Duration = Duration::from_millis(300);
const TIME_MAX: Duration = Duration::from_secs(1);

fn main() {
    Divan::default().min_time(TIME_MIN).max_time(TIME_MAX).config_with_args().main();
}
