//! Markers in RabbitMQ's streams: who has seen one come back has read all that was there before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
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
}
