//! How fast a socket is read.

use std::time::Duration;

use tokio::time::Instant;

/// Lets so many packets a second pass, and as many at once.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    burst: Duration,
    /// When all that has passed would have passed evenly.
    even: Instant,
}

impl Pace {
    /// One of so many packets a second.
    pub fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(1).max(interval), even: Instant::now() }
    }

    /// Notes that a packet has passed.
    pub fn pass(&mut self) {
        self.even = self.even.max(Instant::now()) + self.interval;
    }

    /// Whether one more may pass.
    pub fn is_open(&self) -> bool {
        self.opens().is_none()
    }

    /// When the next packet may pass, if not now.
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
            pace.pass();
        }
        assert!(!pace.is_open());
        let wait = pace.opens().unwrap() - Instant::now();
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::advance(wait).await;
        assert!(pace.is_open());
        pace.pass();
        assert!(!pace.is_open());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..10 {
            assert!(pace.is_open());
            pace.pass();
        }
        assert!(!pace.is_open());
    }
}
