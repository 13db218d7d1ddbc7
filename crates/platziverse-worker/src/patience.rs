//! Waiting until the surroundings are back.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use platziverse_service::Drain;

const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The process ends, and what it held is not done.
#[derive(Debug)]
pub(crate) struct Abandoned;

/// Longer and longer waits, until the process is to end: then RabbitMQ gives what is held to another
/// worker, or to this one when it is back.
pub(crate) struct Patience {
    drain: Drain,
    waits: ExponentialBackoff,
}

impl Patience {
    pub(crate) fn new(drain: &Drain) -> Self {
        let waits = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(WAIT_MIN)
            .with_max_delay(WAIT_MAX)
            .without_max_times();
        Self { drain: drain.clone(), waits: waits.build() }
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) -> Result<(), Abandoned> {
        tokio::select! {
            biased;
            () = self.drain.requested() => Err(Abandoned),
            () = tokio::time::sleep(self.waits.next().unwrap_or(WAIT_MAX)) => Ok(()),
        }
    }
}
