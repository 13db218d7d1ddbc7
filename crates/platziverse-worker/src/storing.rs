//! A batch into the database, whatever stands in the way: trouble of the surroundings is waited
//! out, and a record that PostgreSQL has something against is found and set apart.

use std::ops::Range;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use platziverse_service::{Drain, Latch, chain};
use platziverse_store::writer::Writer;
use platziverse_store::{Sighting, Written};

use crate::books::WorkerMetrics;

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) written: Written,
    /// The sightings, by their place in the batch, that PostgreSQL refuses, and why.
    pub(crate) refused: Vec<(usize, String)>,
}

/// The process ends, and the batch is not in the database.
#[derive(Debug)]
pub(crate) struct Abandoned;

/// One connection that stores batches.
pub(crate) struct Storing {
    pub(crate) writer: Writer,
    pub(crate) latch: Latch,
    pub(crate) drain: Drain,
}

/// What came of writing a range.
enum Attempt {
    Written(Written),
    /// PostgreSQL has something against the data.
    Refused(String),
    /// Several records took longer than a transaction may take, again and again.
    TooSlow,
}

/// How often a range may take too long before it is halved: once may be chance.
const TIMEOUTS_MAX: u32 = 2;

impl Storing {
    /// Stores `batch`, however long PostgreSQL is away.
    pub(crate) async fn store(
        &mut self,
        batch: &[Sighting<'_>],
        metrics: &WorkerMetrics,
    ) -> Result<Stored, Abandoned> {
        let mut stored = Stored::default();
        let mut parts = Parts::whole(batch.len());
        while let Some(range) = parts.next() {
            match self.write(&batch[range.clone()], metrics).await? {
                Attempt::Written(written) => {
                    stored.written.stored += written.stored;
                    stored.written.duplicate += written.duplicate;
                    stored.written.rows += written.rows;
                }
                Attempt::Refused(error) if range.len() <= 1 => {
                    stored.refused.push((range.start, error));
                }
                Attempt::Refused(_) | Attempt::TooSlow => parts.halve(&range),
            }
        }
        Ok(stored)
    }

    /// Looks whether PostgreSQL answers, so that readiness is true while there is nothing to store.
    pub(crate) async fn check(&mut self) {
        let checked = tokio::select! {
            checked = self.writer.check() => checked,
            () = self.drain.requested() => return,
        };
        match checked {
            Ok(()) => self.latch.ready(),
            Err(error) => self.latch.not_ready(chain(&error)),
        }
    }

    /// Writes until it succeeds, PostgreSQL refuses the data itself, or it is better done in parts.
    async fn write(
        &mut self,
        batch: &[Sighting<'_>],
        metrics: &WorkerMetrics,
    ) -> Result<Attempt, Abandoned> {
        let mut delays = backon::ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .build();
        let mut timeouts = 0;
        loop {
            let begun = Instant::now();
            let error = match self.writer.write(batch).await {
                Ok(written) => {
                    metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                    self.latch.ready();
                    return Ok(Attempt::Written(written));
                }
                Err(error) => error,
            };
            metrics.failures.inc();
            if !error.is_transient() {
                return Ok(Attempt::Refused(chain(&error)));
            }
            self.latch.not_ready(chain(&error));
            timeouts += u32::from(error.is_timeout());
            if is_better_halved(timeouts, batch.len()) && !self.drain.is_requested() {
                tracing::warn!("storing {} records takes too long: trying halves", batch.len());
                return Ok(Attempt::TooSlow);
            }
            self.pause(delays.next().unwrap_or(Duration::from_secs(5))).await?;
        }
    }

    /// Once the process is to end, RabbitMQ gives the batch to another worker, or to this one when
    /// it is back.
    async fn pause(&self, delay: Duration) -> Result<(), Abandoned> {
        tokio::select! {
            biased;
            () = self.drain.requested() => Err(Abandoned),
            () = tokio::time::sleep(delay) => Ok(()),
        }
    }
}

/// Whether a range that was too slow so often is tried in halves. A single record has none.
fn is_better_halved(timeouts: u32, records: usize) -> bool {
    timeouts >= TIMEOUTS_MAX && records > 1
}

/// The parts of a batch that are still to be written, in its order.
struct Parts(Vec<Range<usize>>);

impl Parts {
    fn whole(records: usize) -> Self {
        let whole = 0..records;
        Self(vec![whole])
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.0.pop()
    }

    /// A part that could not be written whole.
    fn halve(&mut self, range: &Range<usize>) {
        let middle = range.start + range.len() / 2;
        // The first half is next.
        self.0.extend([middle..range.end, range.start..middle]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths that are tried, and what is found at the end, where `fits` says what can be
    /// written.
    fn play(records: usize, fits: impl Fn(&Range<usize>) -> bool) -> (Vec<usize>, Vec<usize>) {
        let (mut tried, mut written) = (Vec::new(), Vec::new());
        let mut parts = Parts::whole(records);
        while let Some(range) = parts.next() {
            tried.push(range.len());
            match fits(&range) {
                true => written.extend(range),
                false if range.len() > 1 => parts.halve(&range),
                false => {}
            }
        }
        (tried, written)
    }

    #[test]
    fn what_is_too_much_at_once_is_written_in_parts_and_in_order() {
        let (tried, written) = play(10, |range| range.len() <= 3);
        assert_eq!(written, (0..10).collect::<Vec<_>>());
        assert_eq!(tried, [10, 5, 2, 3, 5, 2, 3]);
    }

    #[test]
    fn a_bad_record_is_found_and_all_others_are_written() {
        let (tried, written) = play(1_000, |range| !range.contains(&617));
        assert_eq!(written.len(), 999);
        assert!(!written.contains(&617));
        assert!(tried.len() <= 21, "{tried:?}");
    }

    #[test]
    fn only_what_is_too_slow_again_and_has_halves_is_halved() {
        assert!(!is_better_halved(1, 10));
        assert!(is_better_halved(2, 10));
        assert!(!is_better_halved(100, 1));
    }
}
