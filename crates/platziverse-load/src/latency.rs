//! Latencies: recorded by many clients at once, told as percentiles.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart from longer ones: an hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;
/// Significant decimal digits.
const DIGITS: u8 = 3;
/// Clients that do not wait for each other while they record.
const SHARDS: usize = 8;

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// 90 of 100 are faster.
    pub p90: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1,000 are faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let max = histogram.max() as f64 / 1_000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

/// What all clients have recorded.
#[derive(Debug)]
pub struct Recorder {
    shards: Vec<Mutex<Histogram<u64>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(empty())).collect() }
    }

    /// Records latencies of client `number`.
    pub fn record(&self, number: usize, latencies: impl Iterator<Item = Duration>) {
        let mut histogram = lock(&self.shards[number % SHARDS]);
        for latency in latencies {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
        }
    }

    /// How many there are, and their percentiles.
    pub fn read(&self) -> (u64, Latency) {
        let mut all = empty();
        for shard in &self.shards {
            // Of the same bounds, so that it cannot fail.
            let _ = all.add(&*lock(shard));
        }
        (all.len(), Latency::of(&all))
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants that it takes")]
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds of a histogram")
}

fn lock(shard: &Mutex<Histogram<u64>>) -> MutexGuard<'_, Histogram<u64>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let recorder = Recorder::new();
        for number in 0..1_000_u64 {
            let latency = Duration::from_millis(number + 1);
            recorder.record(number as usize, std::iter::once(latency));
        }
        let (count, latency) = recorder.read();
        assert_eq!(count, 1_000);
        for (got, want) in [(latency.p50, 500.0), (latency.p99, 990.0), (latency.max, 1_000.0)] {
            assert!((got - want).abs() <= want / 1_000.0 + 0.001, "{got} is not {want}");
        }
    }
}
