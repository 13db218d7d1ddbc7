//! `event.store`: an event as a row of the table `events`.

use platziverse_protocol::task::Task;
use platziverse_protocol::time::Timestamp;
use platziverse_service::Service;
use platziverse_store::events::{self, StoredEvent};
use platziverse_store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::parts::Parts;
use crate::tasks::handler::{Done, Failure, Handler, TaskContext};

/// Events that one statement stores at most.
const EVENTS_AT_ONCE: usize = 1_000;
/// Bytes of their payloads, but for one that is larger.
const BYTES_AT_ONCE: usize = 8 << 20;
/// The part of an attempt that is left when the event stops waiting: that the table is locked, say,
/// is no fault of the event.
const LEFT: u32 = 10;

/// Stores events, each once: its id is the row's. While a statement runs, events gather; the next
/// one takes them all.
pub(super) struct EventStore {
    events: mpsc::Sender<Waiting>,
}

/// An event that is not stored yet.
struct Waiting {
    id: Uuid,
    task: Task,
    received: Timestamp,
    stored: oneshot::Sender<Result<(), Failure>>,
}

impl EventStore {
    pub(super) fn start(service: &Service, store: &Store) -> Self {
        let (events, waiting) = mpsc::channel(EVENTS_AT_ONCE);
        service.drain.spawn("events", store_all(store.clone(), waiting));
        Self { events }
    }
}

impl Handler for EventStore {
    const NAME: &'static str = "event.store";

    async fn handle(&self, task: &Task, context: &TaskContext) -> Result<Done, Failure> {
        let (stored, is_stored) = oneshot::channel();
        let (id, received) = (context.id, context.received);
        let waiting = Waiting { id, task: task.clone(), received, stored };
        let hold = |why: &str| Failure::Hold(why.to_owned());
        let storing = async {
            self.events.send(waiting).await.map_err(|_| hold("the worker ends"))?;
            is_stored.await.map_err(|_| hold("the worker ends"))?
        };
        let patience = context.deadline - (context.deadline - Instant::now()) / LEFT;
        let stored = timeout_at(patience, storing).await;
        stored.unwrap_or_else(|_| Err(hold("PostgreSQL is slow to store it"))).map(|()| Done::Now)
    }
}

impl Waiting {
    fn event(&self) -> StoredEvent<'_> {
        StoredEvent {
            id: self.id,
            name: &self.task.name,
            source: self.task.source.as_deref(),
            payload: self.task.payload.get(),
            occurred_at: self.task.timestamp.unwrap_or(self.received),
            received_at: self.received,
        }
    }
}

/// Stores what waits, until nobody can bring more.
async fn store_all(store: Store, mut incoming: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(EVENTS_AT_ONCE);
    while incoming.recv_many(&mut batch, EVENTS_AT_ONCE).await > 0 {
        // Who stopped waiting comes again.
        batch.retain(|waiting| !waiting.stored.is_closed());
        let results = results(&store, &batch).await;
        for (waiting, result) in batch.drain(..).zip(results) {
            // Who stopped waiting comes again.
            let _ = waiting.stored.send(result);
        }
    }
}

/// Stores a batch, and says for each what became of it. One that PostgreSQL refuses is found by
/// halving, so that it takes no other down.
async fn results(store: &Store, batch: &[Waiting]) -> Vec<Result<(), Failure>> {
    let all: Vec<StoredEvent<'_>> = batch.iter().map(Waiting::event).collect();
    let mut results = Vec::with_capacity(all.len());
    let mut parts = Parts::whole(all.len());
    while let Some(range) = parts.next() {
        let part = &all[range.clone()];
        if range.len() > 1 && bytes(part) > BYTES_AT_ONCE {
            parts.halve(&range);
            continue;
        }
        let inserted = events::insert(store, part).await;
        if range.len() > 1 && is_better_halved(&inserted) {
            parts.halve(&range);
        } else {
            let result = inserted.map_err(Failure::from);
            results.extend(std::iter::repeat_n(result, range.len()));
        }
    }
    results
}

fn bytes(events: &[StoredEvent<'_>]) -> usize {
    events.iter().map(|event| event.payload.len()).sum()
}

/// Whether PostgreSQL has something against one of them, or they are too many.
fn is_better_halved(inserted: &Result<(), StoreError>) -> bool {
    inserted.as_ref().is_err_and(|error| !error.is_transient() || error.is_timeout())
}
