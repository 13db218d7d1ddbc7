//! A batch into the database, whatever stands in the way: trouble of the surroundings is waited
//! out, and a record that PostgreSQL has something against is found and set apart.

use std::time::Instant;

use platziverse_service::{Drain, Latch, chain};
use platziverse_store::writer::Writer;
use platziverse_store::{Sighting, Written};

use crate::books::WorkerMetrics;
use crate::parts::Parts;
use crate::patience::{Abandoned, Patience};

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) written: Written,
    /// The sightings, by their place in the batch, that PostgreSQL refuses, and why.
    pub(crate) refused: Vec<(usize, String)>,
}

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
        let mut patience = Patience::new(&self.drain);
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
            patience.wait().await?;
        }
    }
}

/// Whether a range that was too slow so often is tried in halves. A single record has none.
fn is_better_halved(timeouts: u32, records: usize) -> bool {
    timeouts >= TIMEOUTS_MAX && records > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_slow_again_and_has_halves_is_halved() {
        assert!(!is_better_halved(1, 10));
        assert!(is_better_halved(2, 10));
        assert!(!is_better_halved(100, 1));
    }
}
