//! What the worker counts.

use std::sync::Arc;

use platziverse_service::Metrics;
use platziverse_service::books::{Books, Fate};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// What becomes of a record that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordFate {
    /// In the database by a transaction of this worker.
    Stored,
    /// It was in the database before.
    Duplicate,
    /// Kept in the dead-letter queue.
    DeadLettered,
    /// Given back unacknowledged; RabbitMQ delivers it again.
    Requeued,
}

impl Fate for RecordFate {
    const NAME: &'static str = "worker_records";
    const ENTRY: (&'static str, &'static str) = ("delivered", "Records delivered by RabbitMQ");
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("stored", "Records stored in PostgreSQL"),
        ("duplicate", "Records that had been stored before"),
        ("dead_lettered", "Records kept in the dead-letter queue"),
        ("requeued", "Records given back, to be delivered again"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The worker's metrics.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    /// delivered = stored + duplicate + dead-lettered + requeued + in flight.
    pub(crate) records: Books<RecordFate>,
    /// Rows added to the table `metrics`.
    pub(crate) rows: Counter,
    /// Transactions that failed, whatever the cause.
    pub(crate) failures: Counter,
    /// How long a batch took to be committed.
    pub(crate) commit_seconds: Histogram,
    /// Agents whose gateway fell silent.
    pub(crate) swept: Counter,
    /// 1 while this worker is the one who sweeps, else 0.
    pub(crate) sweep_leader: Gauge,
    /// When this worker last looked after the partitions and nothing failed, in seconds since
    /// 1970; 0 before.
    pub(crate) maintained: Gauge,
}

impl WorkerMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        let this = Self {
            records: Books::open(metrics),
            rows: Counter::default(),
            failures: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            swept: Counter::default(),
            sweep_leader: Gauge::default(),
            maintained: Gauge::default(),
        };
        metrics.register(|registry| {
            let mut add = |name, help, counter: &Counter| {
                registry.register(name, help, counter.clone());
            };
            add("worker_metric_rows_inserted", "Rows added to the table metrics", &this.rows);
            add("worker_transactions_failed", "Transactions that failed", &this.failures);
            add("worker_agents_swept", "Agents whose gateway fell silent", &this.swept);
            let mut add = |name, help, gauge: &Gauge| registry.register(name, help, gauge.clone());
            add("worker_sweep_leader", "1 for the worker that sweeps", &this.sweep_leader);
            add(
                "worker_partitions_maintained_timestamp_seconds",
                "When the partitions were last looked after with success, 0 for never",
                &this.maintained,
            );
            registry.register(
                "worker_commit_seconds",
                "How long a batch took to be committed",
                this.commit_seconds.clone(),
            );
        });
        Arc::new(this)
    }
}
