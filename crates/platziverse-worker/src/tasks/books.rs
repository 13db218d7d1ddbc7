//! What the worker counts of tasks.

use platziverse_service::Metrics;
use platziverse_service::books::{Books, Fate};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// What becomes of a task that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskFate {
    /// Its handler is done with it.
    Done,
    /// A command that had ended before.
    Duplicate,
    /// A command whose time had come before it was handled.
    Expired,
    /// Its attempt failed; it is delivered again after a delay.
    Retried,
    /// Published again under an id, since it had none.
    Named,
    /// An event of a name in `tasks.omit`.
    Omitted,
    /// Kept in the dead-letter queue.
    DeadLettered,
    /// Given back unacknowledged; RabbitMQ delivers it again.
    Requeued,
}

impl Fate for TaskFate {
    const NAME: &'static str = "worker_tasks";
    const ENTRY: (&'static str, &'static str) = ("delivered", "Tasks delivered by RabbitMQ");
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("done", "Tasks that were handled"),
        ("duplicate", "Commands that had ended before"),
        ("expired", "Commands that came too late to be handled"),
        ("retried", "Tasks whose attempt failed, to be delivered again after a delay"),
        ("named", "Tasks without an id, published again under one"),
        ("omitted", "Events dropped by tasks.omit"),
        ("dead_lettered", "Tasks kept in the dead-letter queue"),
        ("requeued", "Tasks given back, to be delivered again"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// What becomes of a report about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportFate {
    /// The row has it, or what an agent missed was sent again.
    Applied,
    /// It says nothing new, or nothing of a command.
    Ignored,
    /// Kept in the dead-letter queue.
    DeadLettered,
    /// Given back unacknowledged; RabbitMQ delivers it again.
    Requeued,
}

impl Fate for ReportFate {
    const NAME: &'static str = "worker_reports";
    const ENTRY: (&'static str, &'static str) =
        ("received", "Reports about commands, from gateways and agents");
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("applied", "Reports that changed something"),
        ("ignored", "Reports that say nothing new"),
        ("dead_lettered", "Reports kept in the dead-letter queue"),
        ("requeued", "Reports given back, to be delivered again"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// The metrics of tasks.
#[derive(Debug)]
pub(crate) struct TaskMetrics {
    /// delivered = done + duplicate + expired + retried + named + omitted + dead-lettered + requeued + in
    /// flight.
    pub(crate) tasks: Books<TaskFate>,
    /// From a task's delivery to its fate.
    pub(crate) seconds: Histogram,
}

impl TaskMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let this = Self { tasks: Books::open(metrics), seconds };
        metrics.register(|registry| {
            let help = "From a task's delivery to its fate";
            registry.register("worker_task_seconds", help, this.seconds.clone());
        });
        this
    }
}
