//! Taking one message, at once or as soon as there is one.
//!
//! Who waits is a consumer that may hold one message, and costs nothing while it waits. What is
//! asked of RabbitMQ goes on when the caller is gone: an answer that nobody hears would be a message
//! that nobody has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use platziverse_service::Drain;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::MomError;
use super::desk::{Asking, Desk, Desks, Held};
use crate::connection::lost_by;
use crate::error::is_not_found;
use crate::retry::Retry;

/// How long RabbitMQ may take to answer beyond the time for which somebody waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a caller waits beyond its time: until all else has been tried.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(6);

/// What was found; none if there was nothing.
pub(super) type Found = Result<Option<Held>, MomError>;

/// Somebody who takes a message.
pub(super) struct Taker {
    pub(super) desks: Arc<Desks>,
    pub(super) drain: Drain,
    pub(super) queue: String,
    /// Until when it waits for a message.
    pub(super) until: Instant,
    /// Who hears of it. A message that cannot be sent goes back to its queue.
    pub(super) reply: oneshot::Sender<Found>,
}

/// Why nothing could be found.
enum Trouble {
    NoSuchQueue,
    /// The channel is closed.
    Closed(String),
}

impl From<lapin::Error> for Trouble {
    fn from(error: lapin::Error) -> Self {
        match is_not_found(&error) {
            true => Self::NoSuchQueue,
            false => Self::Closed(lost_by(&error)),
        }
    }
}

impl Taker {
    pub(super) async fn run(mut self) {
        let found = self.find().await;
        // If nobody hears it, dropping it gives it back.
        let _ = self.reply.send(found);
    }

    /// Goes on over closed channels and lost connections.
    async fn find(&mut self) -> Found {
        let deadline = self.until + PATIENCE;
        let mut retry = Retry::default();
        let mut has_asked = false;
        loop {
            let (desk, asking) = tokio::select! {
                biased;
                () = self.reply.closed() => return Ok(None),
                opened = self.desks.open(&self.queue, deadline) => opened?,
                () = self.drain.requested() => return Err(MomError::ending()),
            };
            let why = match self.at(&desk, asking, has_asked, deadline).await {
                Ok(found) => return Ok(found),
                Err(Trouble::NoSuchQueue) => return Err(MomError::NoSuchQueue),
                Err(Trouble::Closed(why)) => why,
            };
            drop(desk);
            if Instant::now() >= deadline {
                return Err(MomError::Unavailable(why));
            }
            // The first time it may be that the queue is gone, which is to be known at once.
            if has_asked {
                self.pause(retry.delay()).await;
            }
            has_asked = true;
        }
    }

    async fn at(
        &mut self,
        desk: &Arc<Desk>,
        asking: Asking,
        has_asked: bool,
        deadline: Instant,
    ) -> Result<Option<Held>, Trouble> {
        if !has_asked || self.is_over() {
            let turn = tokio::select! {
                turn = desk.turn(deadline) => turn,
                () = self.reply.closed() => return Ok(None),
            };
            let turn = turn.ok_or_else(|| Trouble::Closed("it does not answer".to_owned()))?;
            let held = desk.get().await?;
            drop(turn);
            if held.is_some() {
                return Ok(held);
            }
        }
        if self.is_over() {
            return Ok(None);
        }
        let mut consumer = desk.consume().await?;
        drop(asking);
        let item = tokio::select! {
            biased;
            item = consumer.next() => Some(item),
            () = self.over() => None,
        };
        match item {
            Some(Some(Ok(delivery))) => {
                desk.forget(&consumer);
                Ok(Some(desk.hold(delivery)))
            }
            Some(Some(Err(error))) => Err(error.into()),
            // RabbitMQ cancels consumers of a queue that is deleted; asked again, it says so.
            Some(None) => Err(Trouble::Closed("RabbitMQ cancelled the consumer".to_owned())),
            None => last(desk, consumer).await,
        }
    }

    /// Whether it waits no longer.
    fn is_over(&self) -> bool {
        self.until <= Instant::now() || self.reply.is_closed() || self.drain.is_requested()
    }

    async fn pause(&mut self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.reply.closed() => {}
            () = self.drain.requested() => {}
        }
    }

    /// Resolves when it waits no longer.
    async fn over(&mut self) {
        tokio::select! {
            () = sleep_until(self.until) => {}
            () = self.reply.closed() => {}
            () = self.drain.requested() => {}
        }
    }
}

/// Ends a consumer, and answers what was on its way to it.
async fn last(desk: &Arc<Desk>, mut consumer: Consumer) -> Result<Option<Held>, Trouble> {
    desk.cancel(&consumer).await?;
    match consumer.next().await {
        Some(Ok(delivery)) => Ok(Some(desk.hold(delivery))),
        Some(Err(error)) => Err(error.into()),
        None => Ok(None),
    }
}
