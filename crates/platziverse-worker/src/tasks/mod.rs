//! Events and commands: each is handled by the handler of its name, retried with delays, and
//! acknowledged only when it is done or kept elsewhere.

mod attempt;
mod books;
pub mod handler;
mod handlers;
mod judge;
pub mod registry;
mod rows;
mod runner;

use std::sync::Arc;
use std::time::Duration;

use platziverse_broker::{Consumer, ConsumerOptions, Context, Outcome, Publisher};
use platziverse_service::{Service, chain};
use platziverse_store::Store;
use tokio::sync::{Semaphore, oneshot};

use self::books::TaskMetrics;
use self::rows::Rows;
use self::runner::Runner;
use crate::WorkerError;

/// How often the database is looked at, so that readiness is true while nothing is to be done.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Begins to handle tasks. Later it goes on by itself, but what is wrong at the start is the
/// caller's to tell.
pub(crate) async fn start(
    service: &Service,
    context: &Context,
    publisher: &Publisher<oneshot::Sender<Outcome>>,
) -> Result<(), WorkerError> {
    let settings = service.settings.tasks.clone();
    let store = Store::connect(&service.settings.database, &service.connection_name()).await?;
    watch(service, store.clone());
    let runner = Arc::new(Runner {
        registry: handlers::all(service, &store),
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

/// Tells readiness whether the database is there.
fn watch(service: &Service, store: Store) {
    let (drain, latch) = (service.drain.clone(), service.readiness.latch("postgresql, tasks"));
    let watching = async move {
        loop {
            match store.check().await {
                Ok(()) => latch.ready(),
                Err(error) => latch.not_ready(chain(&error)),
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    };
    service.drain.spawn("database watch", async move {
        tokio::select! {
            () = watching => {}
            () = drain.requested() => {}
        }
    });
}
