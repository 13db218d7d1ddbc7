//! A batch into the database, whatever stands in the way: trouble of the surroundings is waited
//! out, and a record that PostgreSQL has something against is found and set apart.

use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use platziverse_config::DatabaseConfig;
use platziverse_service::{Drain, Latch, chain};
use platziverse_store::writer::Writer;
use platziverse_store::{Sighting, StoreError, Written};

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
    pub(crate) settings: DatabaseConfig,
    pub(crate) name: String,
    pub(crate) writer: Option<Writer>,
    pub(crate) latch: Latch,
    pub(crate) drain: Drain,
}

impl Storing {
    /// Stores `batch`, however long PostgreSQL is away.
    pub(crate) async fn store(
        &mut self,
        batch: &[Sighting<'_>],
        metrics: &WorkerMetrics,
    ) -> Result<Stored, Abandoned> {
        let mut stored = Stored::default();
        // A range that is refused is halved: the first half is next, the second stays open.
        let mut open = Vec::new();
        let mut next = Some(0..batch.len());
        while let Some(range) = next.take().or_else(|| open.pop()) {
            match self.write(&batch[range.clone()], metrics).await? {
                Ok(written) => {
                    stored.written.stored += written.stored;
                    stored.written.duplicate += written.duplicate;
                    stored.written.rows += written.rows;
                }
                Err(error) if range.len() <= 1 => stored.refused.push((range.start, error)),
                Err(_) => {
                    let middle = range.start + range.len() / 2;
                    open.push(middle..range.end);
                    next = Some(range.start..middle);
                }
            }
        }
        Ok(stored)
    }

    /// Writes until it succeeds or PostgreSQL refuses the data itself.
    async fn write(
        &mut self,
        batch: &[Sighting<'_>],
        metrics: &WorkerMetrics,
    ) -> Result<Result<Written, String>, Abandoned> {
        let mut delays = backon::ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .build();
        loop {
            let begun = Instant::now();
            match self.try_write(batch).await {
                Ok(written) => {
                    metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                    self.latch.ready();
                    return Ok(Ok(written));
                }
                Err(error) if error.is_transient() => {
                    metrics.failures.inc();
                    self.latch.not_ready(chain(&error));
                    // RabbitMQ gives it to another worker, or to this one when it is back.
                    if self.drain.is_requested() {
                        return Err(Abandoned);
                    }
                    let delay = delays.next().unwrap_or(Duration::from_secs(5));
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.drain.requested() => return Err(Abandoned),
                    }
                }
                Err(error) => {
                    metrics.failures.inc();
                    return Ok(Err(chain(&error)));
                }
            }
        }
    }

    async fn try_write(&mut self, batch: &[Sighting<'_>]) -> Result<Written, StoreError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Writer::connect(&self.settings, &self.name).await?),
        };
        let result = writer.write(batch).await;
        if writer.is_broken() {
            self.writer = None;
        }
        result
    }
}
