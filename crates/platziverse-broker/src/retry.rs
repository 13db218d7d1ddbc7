//! How long to wait before trying again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// The longest wait between attempts, jitter included.
const LONGEST: Duration = Duration::from_secs(5);
/// The shortest wait between attempts with messages at which RabbitMQ closes the channel: each costs
/// all others a connection. Long enough for the connection to prove itself in between.
pub(crate) const BETWEEN_CULPRITS: Duration = Duration::from_secs(15);
/// The longest wait for one of them.
const LONGEST_OF_CULPRITS: Duration = Duration::from_secs(60);
/// A connection that was lost sooner has not proven that it can be used.
const HELD: Duration = Duration::from_secs(10);

/// From 100 ms to 5 s, doubling, with jitter, without end: for connections.
pub(crate) fn reconnect() -> ExponentialBuilder {
    unbounded(Duration::from_millis(100), LONGEST)
}

/// From 50 ms to 5 s: for messages that RabbitMQ refused.
pub(crate) fn refused() -> ExponentialBuilder {
    unbounded(Duration::from_millis(50), LONGEST)
}

/// From 15 s to 60 s: for messages at which RabbitMQ closes the channel.
pub(crate) fn culprit() -> ExponentialBuilder {
    unbounded(BETWEEN_CULPRITS, LONGEST_OF_CULPRITS)
}

fn unbounded(first: Duration, longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(first)
        // The jitter adds up to as much again.
        .with_max_delay(longest / 2)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
}

/// The waits between attempts to connect.
#[derive(Debug)]
pub(crate) struct Retry {
    waits: ExponentialBackoff,
    connected: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { waits: reconnect().build(), connected: None }
    }
}

impl Retry {
    /// Notes that there is a connection. If it holds for 10 s, the waits begin anew after it.
    pub(crate) fn connected(&mut self) {
        self.connected = Some(Instant::now());
    }

    /// The next wait, longer than the last.
    pub(crate) fn delay(&mut self) -> Duration {
        if self.connected.take().is_some_and(|since| since.elapsed() >= HELD) {
            *self = Self::default();
        }
        self.waits.next().unwrap_or(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_longer_than_is_said() {
        for (waits, longest) in
            [(reconnect(), LONGEST), (refused(), LONGEST), (culprit(), LONGEST_OF_CULPRITS)]
        {
            let waits: Vec<_> = waits.build().take(50).collect();
            assert_eq!(waits.len(), 50);
            assert!(waits.iter().all(|wait| *wait <= longest), "{waits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_that_held_begins_anew() {
        let mut retry = Retry::default();
        let longer = (0..8).map(|_| retry.delay()).last().unwrap();
        assert!(longer >= LONGEST / 2);
        retry.connected();
        tokio::time::advance(HELD / 2).await;
        assert!(retry.delay() >= LONGEST / 2);
        retry.connected();
        tokio::time::advance(HELD).await;
        assert!(retry.delay() <= Duration::from_millis(200));
    }
}
