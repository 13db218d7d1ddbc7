//! How often something is tried, and how long to wait in between.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use crate::error::Error;

const FIRST: Duration = Duration::from_millis(50);
/// The longest wait, jitter included.
const LONGEST: Duration = Duration::from_secs(3);
/// A connection that was lost sooner has not proven that it can be used.
const HELD: Duration = Duration::from_secs(10);

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    within: Duration,
    /// When it first failed.
    failing: Option<Instant>,
    succeeded: Option<Instant>,
    waits: ExponentialBackoff,
}

impl Attempts {
    /// Attempts that go on for `within` after the first failure.
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, failing: None, succeeded: None, waits: waits() }
    }

    /// Notes that it has gone well. If that lasts for 10 s, the waits begin anew.
    pub(crate) fn succeeded(&mut self) {
        self.failing = None;
        self.succeeded.get_or_insert_with(Instant::now);
    }

    /// How long to wait before the next attempt; the error, if there is no use or no time for one.
    pub(crate) fn failed(&mut self, error: Error) -> Result<Duration, Error> {
        let Some(at_least) = error.retry() else { return Err(error) };
        if self.succeeded.take().is_some_and(|since| since.elapsed() >= HELD) {
            self.waits = waits();
        }
        let since = *self.failing.get_or_insert_with(Instant::now);
        let wait = self.waits.next().unwrap_or(LONGEST).max(at_least);
        if since.elapsed() + wait > self.within {
            // Whoever goes on all the same has the whole time again.
            self.failing = None;
            return Err(error);
        }
        Ok(wait)
    }
}

/// Doubling, with jitter, without end.
fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST)
        // The jitter adds up to as much again.
        .with_max_delay(LONGEST / 2)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Error {
        Error::Unreached("gone".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end() {
        let mut attempts = Attempts::new(Duration::from_secs(30));
        let start = Instant::now();
        let mut waits = Vec::new();
        while let Ok(wait) = attempts.failed(lost()) {
            tokio::time::sleep(wait).await;
            waits.push(wait);
        }
        assert!(start.elapsed() <= Duration::from_secs(31), "{waits:?}");
        assert!(start.elapsed() >= Duration::from_secs(26), "{waits:?}");
        assert!(waits[0] <= FIRST * 2 && waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert!(waits.len() < 30, "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_says_when() {
        let refused = |seconds| Error::Refused {
            code: crate::Code::TooManyRequests,
            detail: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let mut attempts = Attempts::new(Duration::from_secs(30));
        assert_eq!(attempts.failed(refused(7)), Ok(Duration::from_secs(7)));
        assert_eq!(attempts.failed(refused(31)), Err(refused(31)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_held_begins_anew() {
        let mut attempts = Attempts::new(Duration::from_secs(600));
        let longer = (0..10).map(|_| attempts.failed(lost()).unwrap()).last().unwrap();
        assert!(longer >= LONGEST / 2);
        attempts.succeeded();
        tokio::time::advance(HELD / 2).await;
        assert!(attempts.failed(lost()).unwrap() >= LONGEST / 2);
        attempts.succeeded();
        tokio::time::advance(HELD).await;
        assert!(attempts.failed(lost()).unwrap() <= FIRST * 2);
    }
}
