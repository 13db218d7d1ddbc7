//! How a process of Platziverse lives: its arguments, settings, logs, metrics, health, signals
//! and end.
//!
//! A service's `main` is one line, [`main`]; what it does is a function of a [`Service`], which
//! tests call too.

mod args;
mod banner;
pub mod books;
pub mod clock;
mod drain;
mod files;
mod instance;
pub mod listener;
mod logs;
mod metrics;
mod ops;
mod paced;
mod process;
mod readiness;

pub use drain::{Drain, Outcome};
pub use files::raise_file_limit;
pub use instance::Instance;
pub use metrics::Metrics;
pub use ops::{OpsError, OpsListener};
pub use paced::Paced;
pub use process::{About, chain, main};
pub use readiness::{Latch, Readiness};

use platziverse_config::Settings;

/// What every service is given: who it is, its settings, and the handles of its life.
#[derive(Clone, Debug)]
pub struct Service {
    /// `gateway`, `worker`, …
    pub name: &'static str,
    /// This process among others of its name.
    pub instance: Instance,
    /// The settings in force.
    pub settings: Settings,
    /// The end: its requests, its deadline, and the tasks that it waits for.
    pub drain: Drain,
    /// What must be up before work is accepted.
    pub readiness: Readiness,
    /// The counters of `/metrics`.
    pub metrics: Metrics,
    /// Released by [`Service::ready`], so that a probe cannot pass before the other latches exist.
    start: Latch,
}

impl Service {
    /// A service in this process that has not been asked to end.
    pub fn new(name: &'static str, settings: Settings) -> Self {
        let readiness = Readiness::default();
        let start = readiness.latch("start");
        Self {
            name,
            instance: Instance::start(),
            settings,
            drain: Drain::default(),
            readiness,
            metrics: Metrics::default(),
            start,
        }
    }

    /// Says that every part has started; from now on readiness is that of the dependencies.
    pub fn ready(&self) {
        self.start.ready();
    }

    /// How this process is named in RabbitMQ and PostgreSQL: `platziverse-<name>@<host>:<id>`.
    pub fn connection_name(&self) -> String {
        self.instance.connection_name(self.name)
    }
}
