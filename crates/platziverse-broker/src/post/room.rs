//! The room for messages on their way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;

/// Messages that there is room for at most.
const MESSAGES_MAX: usize = 8192;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 512;
/// Queues may have this part of the room each: one without a leader, which confirms nothing, leaves
/// the rest to others.
const PART: usize = 4;
/// Fewer queues than this are remembered although nothing is on its way to them.
const QUEUES_KEPT: usize = 1024;

/// The room, shared by all queues.
#[derive(Debug)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    capacity: usize,
    queues: Mutex<Queues>,
}

/// The room that each queue has left.
#[derive(Debug)]
struct Queues {
    table: HashMap<String, Arc<Semaphore>>,
    /// With so many of them, those with nothing on its way are forgotten. At least twice as many as
    /// were left the last time: looking at all of them costs little for each new one.
    full: usize,
}

impl Queues {
    fn of(&mut self, name: &str, capacity: usize) -> Arc<Semaphore> {
        if let Some(queue) = self.table.get(name) {
            return Arc::clone(queue);
        }
        if self.table.len() >= self.full {
            self.table.retain(|_, queue| Arc::strong_count(queue) > 1);
            self.full = QUEUES_KEPT.max(2 * self.table.len());
        }
        let queue = Arc::new(Semaphore::new(capacity));
        self.table.insert(name.to_owned(), Arc::clone(&queue));
        queue
    }
}

/// The room of one message; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    _queue: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let capacity = bytes.clamp(MESSAGES_MAX, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let queues = Mutex::new(Queues { table: HashMap::new(), full: QUEUES_KEPT });
        Self { all: Arc::new(Semaphore::new(capacity)), capacity, queues }
    }

    /// Takes room for a message to the queue once there is some, in the order of the calls.
    pub(super) async fn enter(&self, queue: &str, bytes: usize) -> Reserved {
        let cost = (bytes + OVERHEAD).max(self.capacity / MESSAGES_MAX);
        let of_queue = self.queue(queue);
        // A message that is larger than all the room waits for all of it.
        let queue = take(of_queue, cost.min(self.capacity / PART)).await;
        let all = take(Arc::clone(&self.all), cost.min(self.capacity)).await;
        Reserved { _queue: queue, _all: all }
    }

    fn queue(&self, name: &str) -> Arc<Semaphore> {
        self.queues().of(name, self.capacity / PART)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        // The table is whole after any panic.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(from: Arc<Semaphore>, cost: usize) -> Option<OwnedSemaphorePermit> {
    let cost = u32::try_from(cost).unwrap_or(u32::MAX);
    // Nobody closes it.
    // A task that has done much in one go would be put off, and lose its place to a later call.
    unconstrained(from.acquire_many_owned(cost)).await.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_queue_leaves_the_most_to_others() {
        let room = Room::new(MESSAGES_MAX * 100);
        let part = MESSAGES_MAX * 100 / PART;
        let held = room.enter("stuck", part).now_or_never().expect("room");
        assert!(room.enter("stuck", 1).now_or_never().is_none());
        let others = room.enter("other", part).now_or_never();
        assert!(others.is_some());
        drop(held);
        assert!(room.enter("stuck", 1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn nobody_is_put_off_who_comes_while_there_is_room() {
        let room = Room::new(MESSAGES_MAX * 1000);
        // More than a task may do until it gives way.
        for number in 0..1_000 {
            assert!(room.enter("queue", 0).now_or_never().is_some(), "{number}");
        }
    }

    #[test]
    fn small_messages_are_counted() {
        let room = Room::new(MESSAGES_MAX * 1000);
        let enter = |queue: usize| room.enter(&queue.to_string(), 0).now_or_never();
        let held: Vec<_> = (0..MESSAGES_MAX).map(enter).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(enter(MESSAGES_MAX).is_none());
        drop(held);
        assert!(enter(MESSAGES_MAX).is_some());
    }

    #[test]
    fn queues_with_nothing_on_its_way_are_forgotten() {
        const MANY: usize = 3 * QUEUES_KEPT;
        let room = Room::new(MESSAGES_MAX * 1000);
        let enter = |queue: usize| room.enter(&queue.to_string(), 0).now_or_never().expect("room");
        let held: Vec<_> = (0..MANY).map(enter).collect();
        // Those with something on its way are still known: it counts.
        let part = room.enter("0", MESSAGES_MAX * 1000 / PART).now_or_never();
        assert!(part.is_none());
        drop(held);
        for queue in MANY..4 * MANY {
            drop(enter(queue));
            assert!(room.queues().table.len() <= 2 * MANY);
        }
        assert!(room.queues().table.len() <= QUEUES_KEPT);
    }
}
