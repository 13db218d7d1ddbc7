//! The group-commit publisher: many lines wait for one confirm.
//!
//! While earlier AMQP messages await their confirms, lines gather; when there is room they go as
//! one message. Nothing waits when it is idle.

mod gather;
mod lane;
mod loss;
mod parcel;
mod task;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

pub(crate) use lane::short;
pub use lane::{LINE_BYTES_MAX, Lane, Outcome, Outgoing, Receipt, TelemetryLanes};

use crate::connection::Link;
use crate::{BrokerError, Context};

/// The bounds of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct PublisherOptions {
    /// Names it in readiness and metrics.
    pub role: &'static str,
    /// Lines in one AMQP message at most.
    pub batch_records: usize,
    /// Bytes in one AMQP message at most; a longer line goes alone.
    pub batch_bytes: usize,
    /// AMQP messages of one lane that may await their confirms.
    pub window: usize,
    /// Bytes of lines that are held; beyond it, [`Publisher::publish`] waits.
    pub buffer_bytes: usize,
}

/// Publishes lines and tells what became of each. Clones share one connection; it ends when all are
/// dropped and everything is confirmed, or when the process's end is forced.
pub struct Publisher<R> {
    lines: mpsc::UnboundedSender<Outgoing<R>>,
    /// The bytes that may still be taken in; what bounds `lines`.
    room: Arc<Semaphore>,
    capacity: usize,
}

/// A line that was not taken in.
pub struct Unsent<R> {
    /// The line, whole.
    pub outgoing: Outgoing<R>,
    /// Why.
    pub why: UnsentReason,
}

/// Why a line was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsentReason {
    /// No room; only from [`Publisher::try_publish`].
    #[error("the publisher is full")]
    Full,
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLarge,
    /// The process's end was forced.
    #[error("the publisher has ended")]
    Closed,
}

impl<R: Receipt> Publisher<R> {
    /// Connects, declares the topology and begins. Later it reconnects by itself, but what is wrong
    /// at the start is the caller's to tell.
    pub async fn start(context: &Context, options: PublisherOptions) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let (lines, incoming) = mpsc::unbounded_channel();
        let capacity = options.buffer_bytes.clamp(1, Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(capacity));
        let publisher = Self { lines, room: Arc::clone(&room), capacity };
        let task = task::Task::new(context, options, incoming, task::Room::new(room, capacity));
        context.drain.spawn(options.role, task.run(link));
        Ok(publisher)
    }

    /// Hands a line over once there is room for it.
    pub async fn publish(&self, outgoing: Outgoing<R>) -> Result<(), Unsent<R>> {
        let Some(cost) = self.cost(&outgoing) else {
            return Err(Unsent { outgoing, why: UnsentReason::TooLarge });
        };
        match self.room.acquire_many(cost).await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(Unsent { outgoing, why: UnsentReason::Closed }),
        }
        self.send(outgoing)
    }

    /// Hands a line over if there is room for it now.
    pub fn try_publish(&self, outgoing: Outgoing<R>) -> Result<(), Unsent<R>> {
        let Some(cost) = self.cost(&outgoing) else {
            return Err(Unsent { outgoing, why: UnsentReason::TooLarge });
        };
        match self.room.try_acquire_many(cost) {
            Ok(permit) => permit.forget(),
            Err(_) if self.room.is_closed() => {
                return Err(Unsent { outgoing, why: UnsentReason::Closed });
            }
            Err(_) => return Err(Unsent { outgoing, why: UnsentReason::Full }),
        }
        self.send(outgoing)
    }

    fn cost(&self, outgoing: &Outgoing<R>) -> Option<u32> {
        if outgoing.line.len() > LINE_BYTES_MAX {
            return None;
        }
        // A line that is larger than all the room waits for all of it.
        u32::try_from(gather::cost(&outgoing.line, self.capacity)).ok()
    }

    fn send(&self, outgoing: Outgoing<R>) -> Result<(), Unsent<R>> {
        self.lines.send(outgoing).map_err(|mpsc::error::SendError(outgoing)| Unsent {
            outgoing,
            why: UnsentReason::Closed,
        })
    }
}

impl Publisher<oneshot::Sender<Outcome>> {
    /// Publishes lines, each with its lane and id, and waits until RabbitMQ has them all. After an
    /// error it may have any of them.
    pub async fn publish_all(&self, lines: Vec<(Lane, Uuid, Bytes)>) -> Result<(), UnsentReason> {
        let mut outcomes = Vec::with_capacity(lines.len());
        for (lane, id, line) in lines {
            let (receipt, outcome) = oneshot::channel();
            let outgoing = Outgoing { lane, id, line, receipt };
            self.publish(outgoing).await.map_err(|unsent| unsent.why)?;
            outcomes.push(outcome);
        }
        for outcome in outcomes {
            match outcome.await {
                Ok(Outcome::Confirmed) => {}
                Ok(Outcome::Abandoned) | Err(_) => return Err(UnsentReason::Closed),
            }
        }
        Ok(())
    }
}

impl<R> Clone for Publisher<R> {
    fn clone(&self) -> Self {
        Self { lines: self.lines.clone(), room: Arc::clone(&self.room), capacity: self.capacity }
    }
}

impl<R> fmt::Debug for Publisher<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.room.available_permits();
        f.debug_struct("Publisher").field("room", &room).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Unsent<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent").field("why", &self.why).finish_non_exhaustive()
    }
}
