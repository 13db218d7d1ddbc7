//! The worker: deliveries of the ingest queue become rows of PostgreSQL, each once.
//!
//! Any number of workers run side by side; they meet only in RabbitMQ and PostgreSQL.

mod books;
mod ingest;
pub mod judge;
pub mod leases;
mod storing;
mod sweeper;
mod upkeep;

use platziverse_broker::topology::{self, Topology};
use platziverse_broker::{BrokerError, Context, Publisher, PublisherOptions};
use platziverse_service::Service;
use platziverse_store::{Store, StoreError};

use crate::books::WorkerMetrics;

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

/// Runs a worker until it is asked to end.
pub async fn run(service: Service) -> Result<(), WorkerError> {
    let settings = service.settings.clone();
    // Asked once: a database that is missing or behind stops the start. Later it is waited for.
    Store::connect(&settings.database, &service.connection_name()).await?.check_schema().await?;
    let context = Context::new(&service, Topology::for_ingest(&settings.ingest, &[]));
    let options = PublisherOptions {
        role: "dead letters",
        batch_records: 1,
        batch_bytes: settings.gateway.batch_bytes,
        window: settings.gateway.publish_window,
        buffer_bytes: settings.gateway.publish_buffer_bytes,
    };
    let publisher = Publisher::start(&context, options).await?;
    let metrics = WorkerMetrics::new(&service.metrics);
    tracing::info!(
        writers = settings.ingest.writers,
        prefetch = settings.ingest.prefetch,
        "storing what arrives at {} in PostgreSQL at {}",
        settings.amqp.address(),
        settings.database.address(),
    );
    tokio::select! {
        () = upkeep::start(&service, &metrics) => {}
        () = service.drain.requested() => return Ok(()),
    }
    for queue in topology::ingest_queues(settings.ingest.shards) {
        for number in 1..=settings.ingest.writers {
            let name = format!("{queue} {number}");
            let writer = ingest::Writer::new(&service, &publisher, &metrics, &name);
            writer.start(&context, &queue).await?;
        }
    }
    sweeper::start(&service, &context, &metrics).await?;
    drop(publisher);
    service.ready();
    service.drain.requested().await;
    Ok(())
}
