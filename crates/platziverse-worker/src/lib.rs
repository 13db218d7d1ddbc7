//! The worker: deliveries of the ingest queue become rows of PostgreSQL, each once; events and
//! commands are handled, each until it is done or kept elsewhere.
//!
//! Any number of workers run side by side; they meet only in RabbitMQ and PostgreSQL.

mod books;
mod ingest;
pub mod judge;
pub mod leases;
mod letters;
mod parts;
mod patience;
mod storing;
mod sweeper;
pub mod tasks;
mod upkeep;

use platziverse_broker::topology::{self, Topology};
use platziverse_broker::{BrokerError, Context, Outcome, Publisher, PublisherOptions};
use platziverse_config::{Role, Settings};
use platziverse_service::Service;
use platziverse_store::{Store, StoreError};
use tokio::sync::oneshot;

use crate::books::WorkerMetrics;
use crate::tasks::registry::Registry;

/// Why the worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// RabbitMQ is not as it needs to be.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// PostgreSQL is not as it needs to be.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs a worker in the roles of `worker.roles` until it is asked to end.
pub async fn run(service: Service) -> Result<(), WorkerError> {
    run_with(service, |handlers| handlers).await
}

/// The same with more handlers: `add` is given those that are built in, and is called in the role
/// `tasks` only. `examples/own_handlers.rs` is a whole program.
pub async fn run_with(
    service: Service,
    add: impl FnOnce(Registry) -> Registry,
) -> Result<(), WorkerError> {
    let settings = service.settings.clone();
    // Asked once: a database that is missing or behind stops the start. Later it is waited for.
    Store::connect(&settings.database, &service.connection_name()).await?.check_schema().await?;
    announce(&service);
    tell_of_short_drain(&settings);
    let context = Context::new(&service, topology(&settings));
    let options = PublisherOptions {
        role: "publish",
        batch_records: 1,
        batch_bytes: settings.gateway.batch_bytes,
        window: settings.gateway.publish_window,
        buffer_bytes: settings.gateway.publish_buffer_bytes,
    };
    let publisher = Publisher::start(&context, options).await?;
    if settings.worker.has(Role::Ingest) {
        ingest(&service, &context, &publisher).await?;
    }
    if settings.worker.has(Role::Tasks) && !service.drain.is_requested() {
        tasks::start(&service, &context, &publisher, add).await?;
    }
    drop(publisher);
    service.ready();
    service.drain.requested().await;
    Ok(())
}

/// Says what this worker does, and where.
fn announce(service: &Service) {
    let settings = &service.settings;
    let (broker, database) = (settings.amqp.address(), settings.database.address());
    let roles: Vec<String> = settings.worker.roles.iter().map(ToString::to_string).collect();
    let roles = roles.join(", ");
    let (mut queues, mut prefetch) = (Vec::new(), Vec::new());
    if settings.worker.has(Role::Ingest) {
        queues.extend(topology::ingest_queues(settings.ingest.shards));
        prefetch.push(format!("{} for each writer", settings.ingest.prefetch));
    }
    if settings.worker.has(Role::Tasks) {
        queues.extend(settings.tasks.queues.iter().cloned());
        prefetch.push(format!("{} tasks", settings.tasks.prefetch));
    }
    let (queues, prefetch) = (queues.join(", "), prefetch.join(", "));
    let facts = [
        ("roles", roles.clone()),
        ("broker", broker.clone()),
        ("queues", queues.clone()),
        ("prefetch", prefetch.clone()),
        ("database", database.clone()),
    ];
    if !service.show_banner(&facts) {
        tracing::info!(
            service = service.name,
            version = env!("CARGO_PKG_VERSION"),
            roles,
            broker,
            queues,
            prefetch,
            database,
            "what this worker does"
        );
    }
}

/// Says if the end of the process may cut a task short.
fn tell_of_short_drain(settings: &Settings) {
    let (drain, handler) = (settings.ops.drain_timeout, settings.tasks.handler_timeout);
    if settings.worker.has(Role::Tasks) && drain < handler {
        tracing::info!(
            "ops.drain_timeout ({drain:?}) is shorter than tasks.handler_timeout ({handler:?}): \
             a task that goes on for longer than {drain:?} after this worker is asked to end is cut \
             short, and done again"
        );
    }
}

/// What a worker of these settings needs in RabbitMQ.
fn topology(settings: &Settings) -> Topology {
    let mut topology = Topology::default();
    if settings.worker.has(Role::Ingest) {
        topology = topology.and(Topology::for_ingest(&settings.ingest, &[]));
    }
    if settings.worker.has(Role::Tasks) {
        topology = topology.and(Topology::for_tasks(&settings.tasks, &settings.ingest));
    }
    topology
}

/// Begins to store what agents report.
async fn ingest(
    service: &Service,
    context: &Context,
    publisher: &Publisher<oneshot::Sender<Outcome>>,
) -> Result<(), WorkerError> {
    let settings = &service.settings;
    let metrics = WorkerMetrics::new(&service.metrics);
    tokio::select! {
        () = upkeep::start(service, &metrics) => {}
        () = service.drain.requested() => return Ok(()),
    }
    for queue in topology::ingest_queues(settings.ingest.shards) {
        for number in 1..=settings.ingest.writers {
            let name = format!("{queue} {number}");
            let writer = ingest::Writer::new(service, publisher, &metrics, &name);
            writer.start(context, &queue).await?;
        }
    }
    sweeper::start(service, context, &metrics).await?;
    Ok(())
}
