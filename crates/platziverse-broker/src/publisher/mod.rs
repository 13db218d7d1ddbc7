//! The group-commit publisher: many lines wait for one confirm.
//!
//! While earlier AMQP messages await their confirms, lines gather; when there is room they go as
//! one message. Nothing waits when it is idle.

mod gather;
mod lane;
mod loss;
mod parcel;
mod pending;
mod room;
mod task;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub(crate) use lane::{Header, HeaderValue, short};
pub use lane::{LINE_BYTES_MAX, Lane, Outcome, Outgoing, Receipt, TelemetryLanes};

use self::room::{NoRoom, Room};
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
    /// Bytes of lines that are held; beyond it, [`Publisher::publish`] waits. Lanes that RabbitMQ
    /// refuses, or closes the channel at, may have half of them.
    pub buffer_bytes: usize,
}

/// Publishes lines and tells what became of each. Clones share one connection; it ends when all are
/// dropped and everything is confirmed, or when the process's end is forced.
pub struct Publisher<R> {
    lines: mpsc::UnboundedSender<Outgoing<R>>,
    /// What bounds `lines`.
    room: Arc<Room>,
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
    /// No room, or none for that lane; only from [`Publisher::try_publish`].
    #[error("the publisher is full")]
    Full,
    /// Longer than [`LINE_BYTES_MAX`].
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLarge,
    /// The process's end was forced.
    #[error("the publisher has ended")]
    Closed,
}

impl From<NoRoom> for UnsentReason {
    fn from(none: NoRoom) -> Self {
        match none {
            NoRoom::Now => Self::Full,
            NoRoom::Ever => Self::Closed,
        }
    }
}

impl<R: Receipt> Publisher<R> {
    /// Connects, declares the topology and begins. Later it reconnects by itself, but what is wrong
    /// at the start is the caller's to tell.
    pub async fn start(context: &Context, options: PublisherOptions) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let (lines, incoming) = mpsc::unbounded_channel();
        let room = Arc::new(Room::new(options.buffer_bytes));
        let publisher = Self { lines, room: Arc::clone(&room) };
        let task = task::Task::new(context, options, incoming, room);
        context.drain.spawn(options.role, task.run(link));
        Ok(publisher)
    }

    /// Hands a line over once there is room for it.
    pub async fn publish(&self, outgoing: Outgoing<R>) -> Result<(), Unsent<R>> {
        let Some(cost) = self.cost(&outgoing) else {
            return Err(Unsent { outgoing, why: UnsentReason::TooLarge });
        };
        match self.room.enter(&outgoing.lane, cost).await {
            Ok(()) => self.send(outgoing),
            Err(none) => Err(Unsent { outgoing, why: none.into() }),
        }
    }

    /// Hands a line over if there is room for it now.
    pub fn try_publish(&self, outgoing: Outgoing<R>) -> Result<(), Unsent<R>> {
        let Some(cost) = self.cost(&outgoing) else {
            return Err(Unsent { outgoing, why: UnsentReason::TooLarge });
        };
        match self.room.try_enter(&outgoing.lane, cost) {
            Ok(()) => self.send(outgoing),
            Err(none) => Err(Unsent { outgoing, why: none.into() }),
        }
    }

    fn cost(&self, outgoing: &Outgoing<R>) -> Option<u32> {
        if outgoing.line.len() > LINE_BYTES_MAX {
            return None;
        }
        // A line that is larger than all the room waits for all of it.
        u32::try_from(pending::cost(&outgoing.line, self.room.capacity())).ok()
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
        Self { lines: self.lines.clone(), room: Arc::clone(&self.room) }
    }
}

impl<R> fmt::Debug for Publisher<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = self.room.left();
        f.debug_struct("Publisher").field("room", &room).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Unsent<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsent").field("why", &self.why).finish_non_exhaustive()
    }
}
