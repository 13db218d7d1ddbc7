//! Events and commands: each is handled by the handler of its name, retried with delays, and
//! acknowledged only when it is done or kept elsewhere.

mod agents;
mod attempt;
mod books;
mod expiry;
pub mod handler;
mod handlers;
mod judge;
pub mod registry;
mod reports;
mod rows;
mod runner;

use std::sync::Arc;

use platziverse_broker::{Consumer, ConsumerOptions, Context, Outcome, Publisher, topology};
use platziverse_service::Service;
use platziverse_service::books::Books;
use platziverse_store::Store;
use tokio::sync::{Semaphore, oneshot};

use self::books::TaskMetrics;
use self::registry::Registry;
use self::reports::Reports;
use self::rows::Rows;
use self::runner::Runner;
use crate::WorkerError;

/// Begins to handle tasks. Later it goes on by itself, but what is wrong at the start is the
/// caller's to tell.
pub(crate) async fn start(
    service: &Service,
    context: &Context,
    publisher: &Publisher<oneshot::Sender<Outcome>>,
    add: impl FnOnce(Registry) -> Registry,
) -> Result<(), WorkerError> {
    let settings = service.settings.tasks.clone();
    let store = Store::connect(&service.settings.database, &service.connection_name()).await?;
    let latch = service.readiness.latch("postgresql, tasks");
    service.drain.spawn("expiry", expiry::run(store.clone(), latch, service.drain.clone()));
    reports(service, context, publisher, &store).await?;
    let runner = Arc::new(Runner {
        registry: add(handlers::all(service, &store)),
        rows: Rows { store, latch: service.readiness.latch("tasks"), drain: service.drain.clone() },
        publisher: publisher.clone(),
        metrics: TaskMetrics::new(&service.metrics),
        drain: service.drain.clone(),
        settings,
    });
    runner.rows.latch.ready();
    let prefetch = runner.settings.prefetch;
    // One by one means that of all queues; else a slow service that one is about holds up no other.
    let one = (prefetch == 1).then(|| Arc::new(Semaphore::new(1)));
    for queue in &runner.settings.queues {
        let options = ConsumerOptions { role: "tasks", queue: queue.clone(), prefetch };
        let deliveries = Consumer::start(context, options).await?;
        let permits = one.clone().unwrap_or_else(|| Arc::new(Semaphore::new(prefetch.into())));
        let running = Arc::clone(&runner).run(queue.as_str().into(), deliveries, permits);
        service.drain.spawn("tasks", running);
    }
    Ok(())
}

/// Begins to take what gateways and agents say of commands.
async fn reports(
    service: &Service,
    context: &Context,
    publisher: &Publisher<oneshot::Sender<Outcome>>,
    store: &Store,
) -> Result<(), WorkerError> {
    let (drain, latch) = (service.drain.clone(), service.readiness.latch("reports"));
    latch.ready();
    let reports = Reports {
        rows: Rows { store: store.clone(), latch, drain },
        publisher: publisher.clone(),
        books: Books::open(&service.metrics),
    };
    let (queue, prefetch) = (topology::REPORTS.to_owned(), reports::PREFETCH);
    let options = ConsumerOptions { role: "reports", queue, prefetch };
    let deliveries = Consumer::start(context, options).await?;
    service.drain.spawn("reports", reports.run(deliveries));
    Ok(())
}
