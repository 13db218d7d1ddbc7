//! How long to wait before trying again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// From 100 ms to 5 s, doubling, with jitter, without end: for connections.
pub(crate) fn reconnect() -> ExponentialBuilder {
    unbounded(Duration::from_millis(100))
}

/// From 50 ms to 5 s: for messages that RabbitMQ refused.
pub(crate) fn refused() -> ExponentialBuilder {
    unbounded(Duration::from_millis(50))
}

fn unbounded(first: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(Duration::from_secs(5))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
}

/// The waits between attempts to connect.
#[derive(Debug)]
pub(crate) struct Retry(ExponentialBackoff);

impl Default for Retry {
    fn default() -> Self {
        Self(reconnect().build())
    }
}

impl Retry {
    /// The next wait, longer than the last.
    pub(crate) fn delay(&mut self) -> Duration {
        self.0.next().unwrap_or(Duration::from_secs(5))
    }

    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
