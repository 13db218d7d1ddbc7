//! What streams hold for clients that have not taken it yet: RabbitMQ bounds the number of messages,
//! and nobody their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a message takes beside its body.
const OVERHEAD: usize = 512;

/// The bytes that all streams hold.
#[derive(Clone, Debug)]
pub(super) struct Buffers(Arc<All>);

#[derive(Debug)]
struct All {
    most: usize,
    bytes: AtomicUsize,
    streams: AtomicUsize,
}

/// What one stream holds of them.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<All>,
    bytes: AtomicUsize,
}

/// A message that is held, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    share: Arc<Share>,
    bytes: usize,
}

impl Buffers {
    /// Room for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        let [bytes, streams] = [(); 2].map(|()| AtomicUsize::new(0));
        Self(Arc::new(All { most, bytes, streams }))
    }

    /// A share for one more stream.
    pub(super) fn share(&self) -> Arc<Share> {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        Arc::new(Share { all: Arc::clone(&self.0), bytes: AtomicUsize::new(0) })
    }
}

impl Share {
    /// Holds a message of so many bytes. If all streams together hold too much, those that hold more
    /// than their part do not.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let bytes = bytes + OVERHEAD;
        let own = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let held = Held { share: Arc::clone(self), bytes };
        let part = self.all.most / self.all.streams.load(Ordering::Relaxed).max(1);
        (all <= self.all.most || own <= part).then_some(held)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.share.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_more_than_its_part_gives_way() {
        let buffers = Buffers::new(4 * (OVERHEAD + 100));
        let (greedy, modest) = (buffers.share(), buffers.share());
        let held: Vec<_> = (0..4).map(|_| greedy.hold(100)).collect();
        assert!(held.iter().all(Option::is_some), "alone it may have all");
        let own = modest.hold(100);
        assert!(own.is_some(), "others may have their part");
        assert!(greedy.hold(100).is_none());
        drop(held);
        assert!(greedy.hold(100).is_some());
        drop((own, modest));
        let left = buffers.0.bytes.load(Ordering::Relaxed);
        assert_eq!((left, buffers.0.streams.load(Ordering::Relaxed)), (0, 1));
    }
}
