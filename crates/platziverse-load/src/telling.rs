//! How a run goes, once a second.

use std::time::{Duration, Instant};

use tokio::time::Interval;

use crate::report::Progress;

const EVERY: Duration = Duration::from_secs(1);

/// How a run goes, once a second.
#[derive(Debug)]
pub(crate) struct Telling {
    begin: Instant,
    tick: Interval,
    /// When it was told last.
    at: Instant,
    /// What was done then.
    done: u64,
}

impl Telling {
    /// Of a run that begins at this moment.
    pub(crate) fn from(begin: Instant) -> Self {
        let tick = tokio::time::interval_at((begin + EVERY).into(), EVERY);
        Self { begin, tick, at: begin, done: 0 }
    }

    /// Waits for the next second. Whoever stops waiting loses nothing.
    pub(crate) async fn due(&mut self) {
        self.tick.tick().await;
    }

    /// What to tell, when so much is done.
    pub(crate) fn progress(&mut self, done: u64, in_flight: u64, open: u64) -> Progress {
        let now = Instant::now();
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let rate = (done - self.done) as f64 / seconds.max(0.001);
        (self.at, self.done) = (now, done);
        let seconds = now.saturating_duration_since(self.begin).as_secs_f64();
        Progress { seconds, rate, in_flight, open }
    }
}
