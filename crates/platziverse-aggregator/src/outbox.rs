//! What waits to be written to one client: bounded, and honest about what fell out.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use crate::channel::Channel;

/// A packet for clients, rendered once for all of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its place in its source.
    pub offset: u64,
    /// The channel.
    pub channel: Channel,
    /// What it is the outcome of, if it is one.
    pub reply: Option<Outcome>,
    /// The packet.
    pub text: Utf8Bytes,
}

/// What a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The id of the request.
    pub request: Box<str>,
    /// The client that replies; none if that is a server.
    pub from: Option<Box<str>>,
}

/// What becomes of a client that reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest messages are dropped, and the client is told which.
    DropOldest,
    /// The client is disconnected; it can come back and go on.
    Close,
}

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of their packets.
    pub bytes: usize,
    /// What happens beyond them.
    pub when_full: WhenFull,
}

/// Messages that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Messages that wait to be written.
#[derive(Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    waiting: VecDeque<Arc<Frame>>,
    bytes: usize,
    dropped: Dropped,
}

/// The client reads too slowly, and is to be disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

impl Outbox {
    /// An empty one.
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), bytes: 0, dropped: Dropped::default() }
    }

    /// Adds a message, and drops the oldest ones if there is no room.
    pub fn push(&mut self, frame: Arc<Frame>) -> Result<(), TooSlow> {
        self.bytes += frame.text.len();
        self.waiting.push_back(frame);
        while self.waiting.len() > self.limits.messages || self.bytes > self.limits.bytes {
            if self.limits.when_full == WhenFull::Close {
                return Err(TooSlow);
            }
            let Some(oldest) = self.pop() else { break };
            self.dropped.messages += 1;
            self.dropped.bytes += oldest.text.len() as u64;
        }
        Ok(())
    }

    /// The next message to write.
    pub fn pop(&mut self) -> Option<Arc<Frame>> {
        let frame = self.waiting.pop_front()?;
        self.bytes -= frame.text.len();
        if self.waiting.is_empty() && self.waiting.capacity() > CAPACITY_KEPT {
            // Whoever is idle holds nothing.
            self.waiting = VecDeque::new();
        }
        Some(frame)
    }

    /// What has been dropped since this was asked last.
    pub fn dropped(&mut self) -> Option<Dropped> {
        let dropped = std::mem::take(&mut self.dropped);
        (dropped != Dropped::default()).then_some(dropped)
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// A message of the first channel.
#[cfg(test)]
pub(crate) fn message(offset: u64, text: impl Into<Utf8Bytes>) -> Arc<Frame> {
    let channel = Channel::default();
    Arc::new(Frame { offset, channel, reply: None, text: text.into() })
}

/// Places that an empty outbox may keep.
const CAPACITY_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(offset: u64, bytes: usize) -> Arc<Frame> {
        message(offset, "x".repeat(bytes))
    }

    fn outbox(messages: usize, bytes: usize, when_full: WhenFull) -> Outbox {
        Outbox::new(OutboxLimits { messages, bytes, when_full })
    }

    #[test]
    fn the_oldest_fall_out_and_are_counted() {
        let mut outbox = outbox(2, 100, WhenFull::DropOldest);
        for offset in 0..5 {
            outbox.push(frame(offset, 10)).unwrap();
        }
        assert_eq!(outbox.dropped(), Some(Dropped { messages: 3, bytes: 30 }));
        assert_eq!(outbox.dropped(), None);
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.pop().unwrap().offset, 3);
        outbox.push(frame(5, 95)).unwrap();
        assert_eq!(outbox.dropped(), Some(Dropped { messages: 1, bytes: 10 }));
        assert_eq!(outbox.pop().unwrap().offset, 5);
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }

    #[test]
    fn who_is_too_slow_is_said() {
        let mut outbox = outbox(10, 25, WhenFull::Close);
        outbox.push(frame(0, 10)).unwrap();
        outbox.push(frame(1, 15)).unwrap();
        assert_eq!(outbox.push(frame(2, 1)), Err(TooSlow));
    }

    #[test]
    fn who_is_idle_holds_nothing() {
        let mut outbox = outbox(1_000, 100_000, WhenFull::Close);
        for offset in 0..1_000 {
            outbox.push(frame(offset, 1)).unwrap();
        }
        while outbox.pop().is_some() {}
        assert!(outbox.waiting.capacity() <= CAPACITY_KEPT);
    }
}
