//! The partitions of the table `metrics`, looked after by whichever worker is first.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use platziverse_service::{Service, chain, clock};
use platziverse_store::StoreError;
use platziverse_store::partitions::{self, Maintained, Policy};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::books::WorkerMetrics;

/// How often partitions are looked after.
const EVERY: Duration = Duration::from_secs(3600);
/// How long the start waits for the partitions that are missing. They take milliseconds, unless
/// many rows of their days have to move there.
const START_MAX: Duration = Duration::from_secs(30);
/// How soon it is tried again when it did not succeed; later less and less often.
const AGAIN: Duration = Duration::from_secs(60);

/// Looks after the partitions from time to time, beginning now. Resolves when the missing ones
/// have been made: a row that arrives before would wait in the default one, and move later.
pub(crate) async fn start(service: &Service, metrics: &Arc<WorkerMetrics>) {
    let (made, is_made) = oneshot::channel();
    let upkeep =
        Upkeep { service: service.clone(), metrics: Arc::clone(metrics), delays: delays() };
    service.drain.spawn("upkeep", upkeep.run(made));
    if timeout(START_MAX, is_made).await.is_err() {
        tracing::warn!(
            "after {START_MAX:?} the partitions of metrics are still being made: what arrives \
             meanwhile may wait in the default one"
        );
    }
}

struct Upkeep {
    service: Service,
    metrics: Arc<WorkerMetrics>,
    delays: ExponentialBackoff,
}

impl Upkeep {
    /// Goes on until the process is to end. What is too old goes while rows arrive already.
    async fn run(mut self, made: oneshot::Sender<()>) {
        let drain = self.service.drain.clone();
        let going_on = async {
            let mut wait = self.make_missing().await;
            // The start may have stopped waiting.
            let _ = made.send(());
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

    /// Makes the partitions that are missing, and says when to look after the rest.
    async fn make_missing(&mut self) -> Duration {
        let (settings, name) = (&self.service.settings, self.service.connection_name());
        let made = partitions::make_missing(&settings.database, &name, self.policy()).await;
        if tell(made) { Duration::ZERO } else { self.delay() }
    }

    /// Makes the partitions of the days to come, drops those that are too old, and says when to
    /// look again.
    async fn look_after(&mut self) -> Duration {
        let (settings, name) = (&self.service.settings, self.service.connection_name());
        let now = clock::now();
        let done = partitions::maintain(&settings.database, &name, now, self.policy()).await;
        if !tell(done) {
            return self.delay();
        }
        self.metrics.maintained.set(clock::now().as_millis() / 1_000);
        self.delays = delays();
        EVERY
    }

    fn policy(&self) -> Policy {
        let settings = &self.service.settings.ingest;
        Policy {
            ahead_days: settings.partitions_ahead_days,
            retention_days: settings.retention_days,
        }
    }

    /// How long to wait after a failure.
    fn delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(EVERY)
    }
}

/// Says what was done, and whether that was all.
fn tell(done: Result<Option<Maintained>, StoreError>) -> bool {
    match done {
        Ok(Some(done)) => is_all(&done),
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

fn is_all(done: &Maintained) -> bool {
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
