//! How fast a socket is read.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time for which nothing passes: a client that is not read cannot say that it is there.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Lets so many packets, or bytes, a second pass, and as many at once.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// When all that has passed would have passed evenly.
    even: Instant,
}

impl Pace {
    /// One of so many a second.
    pub fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(1).max(interval), even: Instant::now() }
    }

    /// Notes that so many have passed.
    pub fn pass(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let now = Instant::now();
        let even = self.even.max(now) + self.interval.saturating_mul(count);
        self.even = even.min(now + self.burst - self.interval + PAUSE_MAX);
    }

    /// Whether one more may pass. What passes may be more than one: that is made up for later,
    /// but for what takes more than some seconds.
    pub fn is_open(&self) -> bool {
        self.opens().is_none()
    }

    /// When the next one may pass, if not now.
    pub fn opens(&self) -> Option<Instant> {
        let opens = (self.even + self.interval).checked_sub(self.burst)?;
        (opens > Instant::now()).then_some(opens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_at_once_and_then_evenly() {
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut pace = Pace::new(10);
        for _ in 0..10 {
            assert!(pace.is_open());
            pace.pass(1);
        }
        assert!(!pace.is_open());
        let wait = pace.opens().unwrap() - Instant::now();
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::advance(wait).await;
        assert!(pace.is_open());
        pace.pass(1);
        assert!(!pace.is_open());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..10 {
            assert!(pace.is_open());
            pace.pass(1);
        }
        assert!(!pace.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_more_than_may_pass_at_once_is_made_up_for() {
        tokio::time::advance(Duration::from_secs(10)).await;
        let mut pace = Pace::new(1_000);
        pace.pass(5_000);
        let wait = pace.opens().unwrap() - Instant::now();
        assert_eq!(wait, Duration::from_millis(4_001));
        pace.pass(1_000_000);
        assert_eq!(pace.opens().unwrap() - Instant::now(), PAUSE_MAX);
    }
}
