//! From the queues to consumers.

use std::time::Duration;

use platziverse_broker::mom::{
    AckMode, MomError, MomMessage, MomStream, Settle, Taken, queue_name, subscriber_queue,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::core::changes::not_subscribed;
use crate::core::publishing::usable;
use crate::core::{Caller, Code, Core, ObjectKind, Refusal};

/// The shortest lease.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// The longest lease, with all its extensions.
pub const LEASE_MAX: Duration = Duration::from_secs(1_500);
/// Messages that are looked at in one request.
pub const PEEK_MAX: u16 = 100;
/// Unsettled messages of one stream.
pub const PREFETCH_MAX: u16 = 1_000;
/// How long a look into a queue waits for its turn.
const PEEK_PATIENCE: Duration = Duration::from_secs(5);

impl Core {
    /// Takes the next message; waits for one if there is none, at most as long as `wait`, and not
    /// while the process ends. Dropped, it has taken nothing.
    pub async fn consume(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        wait: Duration,
        mode: AckMode,
    ) -> Result<Option<Taken>, Refusal> {
        self.check_wait(wait)?;
        if let AckMode::Manual { lease } = mode {
            check_lease(lease)?;
        }
        let queue = self.own_queue(caller, kind, name).await?;
        let _waiting = (!wait.is_zero()).then(|| self.inner.metrics.wait());
        let drain = &self.inner.drain;
        let wait = if drain.is_requested() { Duration::ZERO } else { wait };
        let taken = tokio::select! {
            biased;
            taken = self.inner.broker.take(&queue, wait, mode) => taken,
            () = drain.requested(), if !wait.is_zero() => return Ok(None),
        };
        match taken {
            Ok(taken) => {
                self.inner.metrics.delivered.inc_by(u64::from(taken.is_some()));
                Ok(taken)
            }
            Err(error) => Err(self.missing(error, caller, kind, name).await),
        }
    }

    /// Consumes without end, holding at most `prefetch` unsettled messages.
    pub async fn stream(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        prefetch: u16,
    ) -> Result<MomStream, Refusal> {
        if !(1..=PREFETCH_MAX).contains(&prefetch) {
            return Err(Refusal::invalid(format!("the prefetch must be from 1 to {PREFETCH_MAX}")));
        }
        let queue = self.own_queue(caller, kind, name).await?;
        match self.inner.broker.consume(&queue, prefetch).await {
            Ok(stream) => Ok(stream),
            Err(error) => Err(self.missing(error, caller, kind, name).await),
        }
    }

    /// Counts a message that a stream has handed over.
    pub fn delivered(&self) {
        self.inner.metrics.delivered.inc();
    }

    /// What an error of a stream means to who consumes there.
    pub async fn missing(
        &self,
        error: MomError,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Refusal {
        if error != MomError::NoSuchQueue {
            return error.into();
        }
        // It has been deleted, or its user has left it; or RabbitMQ has lost it.
        match self.known(caller, Some((kind, name))).await {
            Err(refusal) => refusal,
            Ok((_, found)) => match usable(kind, name, found) {
                Err(refusal) => refusal,
                Ok(found) if !found.is_subscribed => not_subscribed(kind, name),
                Ok(_) => error.into(),
            },
        }
    }

    /// Settles or extends a lease.
    pub async fn settle(&self, caller: &Caller, lease: &str, how: Settle) -> Result<(), Refusal> {
        if let Settle::Extend(lease) = how {
            check_lease(lease)?;
        }
        self.user(caller).await?;
        match self.inner.broker.settle(lease, how).await {
            // It would last longer than a lease can.
            Err(MomError::TooMany(why)) => Err(Refusal::invalid(why)),
            settled => Ok(settled?),
        }
    }

    /// The first messages, which stay where they are.
    pub async fn peek(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        count: u16,
    ) -> Result<Vec<MomMessage>, Refusal> {
        if !(1..=PEEK_MAX).contains(&count) {
            return Err(Refusal::invalid(format!("the limit must be from 1 to {PEEK_MAX}")));
        }
        let queue = self.own_queue(caller, kind, name).await?;
        let Ok(Ok(_turn)) = timeout(PEEK_PATIENCE, self.inner.peeking.acquire()).await else {
            return Err(Refusal::unavailable("others look into queues"));
        };
        match self.inner.broker.peek(&queue, count).await {
            Ok(messages) => Ok(messages),
            Err(error) => Err(self.missing(error, caller, kind, name).await),
        }
    }

    /// Deletes what waits: of a queue, which only its creator may do; or the user's part of a topic.
    /// How many messages that were.
    pub async fn purge(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<u32, Refusal> {
        let (user, found) = self.ask(caller, Some((kind, name))).await?;
        let found = usable(kind, name, found)?;
        let is_creator = found.object.as_ref().is_some_and(|object| object.creator == user);
        match kind {
            ObjectKind::Queue if !is_creator => {
                let detail = format!("another user has created the queue {name:?}");
                return Err(Refusal::new(Code::NotCreator, detail));
            }
            ObjectKind::Topic if !found.is_subscribed => return Err(not_subscribed(kind, name)),
            ObjectKind::Queue | ObjectKind::Topic => {}
        }
        match self.inner.broker.purge(&queue_of(kind, name, user)).await {
            Ok(count) => Ok(count),
            Err(error) => Err(self.missing(error, caller, kind, name).await),
        }
    }

    /// The queue that a subscriber consumes from.
    async fn own_queue(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<String, Refusal> {
        let (user, found) = self.ask(caller, Some((kind, name))).await?;
        let found = usable(kind, name, found)?;
        if !found.is_subscribed {
            return Err(not_subscribed(kind, name));
        }
        Ok(queue_of(kind, name, user))
    }

    fn check_wait(&self, wait: Duration) -> Result<(), Refusal> {
        let most = self.inner.settings.wait_max;
        if wait > most {
            let most = humantime::format_duration(most);
            return Err(Refusal::invalid(format!("wait must be at most {most}")));
        }
        Ok(())
    }
}

/// The queue in RabbitMQ that a user consumes from.
pub(super) fn queue_of(kind: ObjectKind, name: &str, user: Uuid) -> String {
    match kind {
        ObjectKind::Topic => subscriber_queue(name, user),
        ObjectKind::Queue => queue_name(name),
    }
}

fn check_lease(lease: Duration) -> Result<(), Refusal> {
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        return Ok(());
    }
    let [least, most] = [LEASE_MIN, LEASE_MAX].map(humantime::format_duration);
    Err(Refusal::invalid(format!("a lease must be from {least} to {most}")))
}
