//! The partitions of the table `metrics`, looked after by whichever worker is first.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use platziverse_service::{Service, chain, clock};
use platziverse_store::partitions::{self, Maintained, Policy};

use crate::books::WorkerMetrics;

/// How often partitions are looked after.
const EVERY: Duration = Duration::from_secs(3600);
/// How soon it is tried again when it did not succeed; later less and less often.
const AGAIN: Duration = Duration::from_secs(60);

/// Looks after the partitions from time to time.
pub(crate) struct Upkeep {
    service: Service,
    metrics: Arc<WorkerMetrics>,
    delays: ExponentialBackoff,
}

impl Upkeep {
    pub(crate) fn new(service: &Service, metrics: &Arc<WorkerMetrics>) -> Self {
        Self { service: service.clone(), metrics: Arc::clone(metrics), delays: delays() }
    }

    /// Goes on until the process is to end.
    pub(crate) async fn run(mut self, mut wait: Duration) {
        let drain = self.service.drain.clone();
        let going_on = async {
            loop {
                tokio::time::sleep(wait).await;
                wait = self.look_after().await;
            }
        };
        tokio::select! {
            () = going_on => {}
            () = drain.requested() => {}
        }
    }

    /// Makes the partitions of the days to come, drops those that are too old, and says when to
    /// look again.
    pub(crate) async fn look_after(&mut self) -> Duration {
        if self.succeeds().await {
            self.metrics.maintained.set(clock::now().as_millis() / 1_000);
            self.delays = delays();
            return EVERY;
        }
        self.delays.next().unwrap_or(EVERY)
    }

    async fn succeeds(&self) -> bool {
        let settings = &self.service.settings;
        let policy = Policy {
            ahead_days: settings.ingest.partitions_ahead_days,
            retention_days: settings.ingest.retention_days,
        };
        let name = self.service.connection_name();
        match partitions::maintain(&settings.database, &name, clock::now(), policy).await {
            Ok(Some(done)) => tell(&done),
            Ok(None) => {
                tracing::debug!("another worker looks after the partitions");
                false
            }
            Err(error) => {
                tracing::error!("partitions could not be looked after: {}", chain(&error));
                false
            }
        }
    }
}

/// Says what was done, and whether that was all.
fn tell(done: &Maintained) -> bool {
    for failure in &done.failures {
        tracing::error!("the upkeep failed at {}: {}", failure.step, chain(&failure.error));
    }
    if let Some(millis) = done.clocks_apart {
        tracing::warn!(
            "this machine's clock is {} s ahead of the database's: nothing that is old is deleted \
             until the two agree to the hour",
            millis / 1_000
        );
    }
    tracing::info!(
        made = done.made.len(),
        dropped = done.dropped.len(),
        moved = done.moved,
        deleted = done.deleted,
        times_deleted = done.times_deleted,
        failed = done.failures.len(),
        "the partitions of metrics were looked after"
    );
    done.failures.is_empty() && done.clocks_apart.is_none()
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(AGAIN)
        .with_max_delay(EVERY)
        .without_max_times()
        .build()
}
