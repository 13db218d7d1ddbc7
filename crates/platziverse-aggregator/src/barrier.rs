//! Markers in RabbitMQ's streams: who has seen one come back has read all that was there before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

/// Markers that are on their way.
#[derive(Debug, Default)]
pub struct Markers {
    awaited: Mutex<HashMap<Uuid, oneshot::Sender<()>>>,
}

impl Markers {
    /// Resolves when the marker of that id is seen.
    pub async fn seen(&self, id: Uuid) {
        let (sender, seen) = oneshot::channel();
        let _forget = Forget { markers: self, id };
        self.awaited().insert(id, sender);
        // The sender stays until it is used.
        let _ = seen.await;
    }

    /// Notes that a marker was seen; also one of another process.
    pub fn note(&self, id: Uuid) {
        if let Some(sender) = self.awaited().remove(&id) {
            let _ = sender.send(());
        }
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<()>>> {
        // What is in it is whole after any panic.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Forget<'a> {
    markers: &'a Markers,
    id: Uuid,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.markers.awaited().remove(&self.id);
    }
}

/// Lets pass whoever has waited for a marker that was published after it came. One marker at a time
/// is on its way, for all who wait.
#[derive(Debug)]
pub struct Barrier {
    begun: AtomicU64,
    wanted: Notify,
    passed: watch::Sender<u64>,
}

impl Default for Barrier {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), wanted: Notify::new(), passed: watch::Sender::new(0) }
    }
}

impl Barrier {
    /// Waits for the next marker that is published from now on. Cancel safe.
    pub async fn pass(&self) {
        let ours = self.begun.load(Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        // The sender is in `self`: it is not gone.
        let _ = self.passed.subscribe().wait_for(|passed| *passed >= ours).await;
    }

    /// Waits until a marker is wanted. It has to be published after this.
    pub async fn wanted(&self) -> Wanted<'_> {
        self.wanted.notified().await;
        Wanted { barrier: self, number: self.begun.fetch_add(1, Ordering::SeqCst) + 1 }
    }
}

/// A marker that somebody waits for.
#[derive(Debug)]
#[must_use]
pub struct Wanted<'a> {
    barrier: &'a Barrier,
    number: u64,
}

impl Wanted<'_> {
    /// Says that the marker has come back.
    pub fn passed(self) {
        self.barrier.passed.send_replace(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_marker_is_seen_once() {
        let markers = Markers::default();
        let id = Uuid::from_u128(1);
        let mut seen = Box::pin(markers.seen(id));
        assert_eq!((&mut seen).now_or_never(), None);
        markers.note(Uuid::from_u128(2));
        assert_eq!((&mut seen).now_or_never(), None);
        markers.note(id);
        seen.await;
        assert!(markers.awaited().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing() {
        let markers = Markers::default();
        let mut seen = Box::pin(markers.seen(Uuid::from_u128(1)));
        assert_eq!((&mut seen).now_or_never(), None);
        drop(seen);
        assert!(markers.awaited().is_empty());
    }

    #[tokio::test]
    async fn a_marker_that_was_on_its_way_is_not_enough() {
        let barrier = Barrier::default();
        let mut first = Box::pin(barrier.pass());
        assert_eq!((&mut first).now_or_never(), None);
        let marker = barrier.wanted().await;
        let mut second = Box::pin(barrier.pass());
        assert_eq!((&mut second).now_or_never(), None);
        marker.passed();
        first.await;
        assert_eq!((&mut second).now_or_never(), None);
        barrier.wanted().await.passed();
        second.await;
        assert!(barrier.wanted().now_or_never().is_none(), "nobody waits");
    }
}
