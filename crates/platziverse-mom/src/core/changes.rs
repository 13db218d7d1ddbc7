//! Creating, deleting, subscribing: what changes the catalogue and RabbitMQ.
//!
//! A change is a row that says so, then RabbitMQ, then the row again. Whoever is killed in between
//! leaves a row from which the [reconciler](super::reconciler) goes on.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use platziverse_broker::mom::MomError;
use platziverse_store::StoreError;
use platziverse_store::mom::{
    self, CLAIM, Created, Deletion, Object, ObjectKind, ObjectOptions, Subscribed, Unfinished,
    Unsubscription,
};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::core::users::gone;
use crate::core::{Caller, Code, Core, Refusal, name, unknown};

/// What has become of a wish to create something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    New,
    /// The same user has created it with the same options before.
    Exists,
}

/// How long before the end of a claim its holder leaves RabbitMQ alone: what it has sent may still be
/// on its way.
const MARGIN: Duration = Duration::from_secs(2);
/// How long a message may wait for its consumer. RabbitMQ counts in 32 bits of milliseconds.
const TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
const DELIVERIES_MAX: u32 = 1_000_000;
/// Subscribers' queues of a topic that are deleted side by side.
const SIDE_BY_SIDE: usize = 32;

impl Core {
    /// Creates a topic or a queue, to which its creator is subscribed.
    pub async fn create(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        options: ObjectOptions,
    ) -> Result<Outcome, Refusal> {
        name::check(name)?;
        self.check_options(&options)?;
        let user = self.user(caller).await?;
        let until = claim();
        match mom::begin_create(&self.inner.store, kind, name, user, &options).await? {
            Created::New | Created::Unfinished => {}
            Created::Exists => return Ok(Outcome::Exists),
            Created::Taken => {
                let detail = format!(
                    "there is a {kind} {name:?} of another user, or with other options: choose \
                     another name, or subscribe to it"
                );
                return Err(Refusal::new(Code::AlreadyExists, detail));
            }
            Created::Deleting => return Err(being_deleted(format!("the former {kind} {name:?}"))),
            Created::UnknownUser => return Err(gone()),
        }
        let making = self.make(kind, name, user, &options);
        carry_out(until, making, mom::finish_create(&self.inner.store, kind, name)).await?;
        Ok(Outcome::New)
    }

    /// Deletes a topic or a queue, with every message in it.
    pub async fn delete(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<(), Refusal> {
        name::check(name)?;
        let user = self.user(caller).await?;
        let until = claim();
        match mom::begin_delete(&self.inner.store, kind, name, user).await? {
            Deletion::Begun { subscribers } => {
                let finishing = mom::finish_delete(&self.inner.store, kind, name);
                carry_out(until, self.unmake(kind, name, &subscribers), finishing).await?;
                Ok(())
            }
            Deletion::NotCreator => {
                let detail = format!("another user has created the {kind} {name:?}");
                Err(Refusal::new(Code::NotCreator, detail))
            }
            Deletion::Unknown => Err(unknown(kind, name)),
        }
    }

    /// Subscribes the user: to a topic, for a copy of each message of others from now on; to a queue,
    /// to share what is in it.
    pub async fn subscribe(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<(), Refusal> {
        name::check(name)?;
        let user = self.user(caller).await?;
        let max = self.inner.settings.subscribers_max;
        let until = claim();
        match mom::begin_subscribe(&self.inner.store, kind, name, user, max).await? {
            Subscribed::Begun(options) => {
                let finishing = mom::finish_subscribe(&self.inner.store, kind, name, user);
                carry_out(until, self.join(kind, name, user, &options), finishing).await
            }
            Subscribed::Already => {
                let detail = format!("the user is subscribed to the {kind} {name:?} already");
                Err(Refusal::new(Code::AlreadySubscribed, detail))
            }
            Subscribed::TooMany => {
                let detail =
                    format!("the {kind} {name:?} has {max} subscribers, and takes no more");
                Err(Refusal::new(Code::TooManySubscribers, detail))
            }
            Subscribed::Unknown => Err(unknown(kind, name)),
            Subscribed::Deleting => Err(being_deleted("the former subscription".to_owned())),
            Subscribed::UnknownUser => Err(gone()),
        }
    }

    /// Ends the user's subscription. Of a topic, what is waiting for the user is deleted.
    pub async fn unsubscribe(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<(), Refusal> {
        name::check(name)?;
        let user = self.user(caller).await?;
        let until = claim();
        match mom::begin_unsubscribe(&self.inner.store, kind, name, user).await? {
            Unsubscription::Begun => {
                let finishing = mom::finish_unsubscribe(&self.inner.store, kind, name, user);
                carry_out(until, self.leave(kind, name, user), finishing).await?;
                Ok(())
            }
            Unsubscription::NotSubscribed => Err(not_subscribed(kind, name)),
            Unsubscription::Unknown => Err(unknown(kind, name)),
        }
    }

    /// Makes a change that somebody has left half-done, from the start. Whether nothing is left of
    /// it: what others may still act on is not gone yet.
    pub(super) async fn finish(
        &self,
        change: &Unfinished,
        until: Instant,
    ) -> Result<bool, Refusal> {
        let store = &self.inner.store;
        match change {
            Unfinished::Create(Object { kind, name, creator, options, .. }) => {
                let making = self.make(*kind, name, *creator, options);
                carry_out(until, making, mom::finish_create(store, *kind, name)).await?;
                Ok(true)
            }
            Unfinished::Delete { kind, name, subscribers } => {
                let finishing = mom::finish_delete(store, *kind, name);
                carry_out(until, self.unmake(*kind, name, subscribers), finishing).await
            }
            Unfinished::Subscribe { object: Object { kind, name, options, .. }, user } => {
                let finishing = mom::finish_subscribe(store, *kind, name, *user);
                carry_out(until, self.join(*kind, name, *user, options), finishing).await?;
                Ok(true)
            }
            Unfinished::Unsubscribe { kind, name, user } => {
                let finishing = mom::finish_unsubscribe(store, *kind, name, *user);
                carry_out(until, self.leave(*kind, name, *user), finishing).await
            }
        }
    }

    fn check_options(&self, options: &ObjectOptions) -> Result<(), Refusal> {
        let length_max = self.inner.settings.queue_length_max;
        if options.max_length.is_some_and(|length| !(1..=length_max).contains(&length)) {
            return Err(Refusal::invalid(format!("max_length must be from 1 to {length_max}")));
        }
        let shortest = Duration::from_millis(1);
        if options.message_ttl.is_some_and(|ttl| !(shortest..=TTL_MAX).contains(&ttl)) {
            return Err(Refusal::invalid("message_ttl must be from 1 ms to 30 days"));
        }
        if options.delivery_limit.is_some_and(|limit| !(1..=DELIVERIES_MAX).contains(&limit)) {
            let detail = format!("delivery_limit must be from 1 to {DELIVERIES_MAX}");
            return Err(Refusal::invalid(detail));
        }
        Ok(())
    }

    /// What a new object needs in RabbitMQ; as often as one likes.
    async fn make(
        &self,
        kind: ObjectKind,
        name: &str,
        creator: Uuid,
        options: &ObjectOptions,
    ) -> Result<(), MomError> {
        let broker = &self.inner.broker;
        match kind {
            ObjectKind::Topic => {
                broker.declare_topic(name).await?;
                broker.declare_subscription(name, creator, &self.queue_options(options)).await
            }
            ObjectKind::Queue => broker.declare_queue(name, &self.queue_options(options)).await,
        }
    }

    /// Takes from RabbitMQ what an object had there; as often as one likes.
    async fn unmake(
        &self,
        kind: ObjectKind,
        name: &str,
        subscribers: &[Uuid],
    ) -> Result<(), MomError> {
        let broker = &self.inner.broker;
        match kind {
            ObjectKind::Topic => {
                broker.delete_topic(name).await?;
                let deleting = stream::iter(subscribers.to_vec())
                    .map(|user| broker.delete_subscription(name, user));
                deleting.buffer_unordered(SIDE_BY_SIDE).try_collect().await
            }
            ObjectKind::Queue => broker.delete_queue(name).await,
        }
    }

    /// What a new subscriber needs in RabbitMQ. A queue is shared: nothing.
    async fn join(
        &self,
        kind: ObjectKind,
        name: &str,
        user: Uuid,
        options: &ObjectOptions,
    ) -> Result<(), MomError> {
        match kind {
            ObjectKind::Topic => {
                let options = self.queue_options(options);
                self.inner.broker.declare_subscription(name, user, &options).await
            }
            ObjectKind::Queue => Ok(()),
        }
    }

    /// Takes from RabbitMQ what a subscriber had there.
    async fn leave(&self, kind: ObjectKind, name: &str, user: Uuid) -> Result<(), MomError> {
        match kind {
            ObjectKind::Topic => self.inner.broker.delete_subscription(name, user).await,
            ObjectKind::Queue => Ok(()),
        }
    }
}

/// Until when who asks for a claim now may act on RabbitMQ.
pub(super) fn claim() -> Instant {
    Instant::now() + CLAIM - MARGIN
}

/// Acts on RabbitMQ as long as the claim allows, and then finishes the change in the catalogue while
/// nobody else can have begun another one of that name: whoever is late leaves it to others.
async fn carry_out<T>(
    until: Instant,
    acting: impl Future<Output = Result<(), MomError>>,
    finishing: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Refusal> {
    let Ok(acted) = timeout_at(until, acting).await else {
        return Err(Refusal::unavailable("RabbitMQ has not answered in time"));
    };
    acted?;
    match timeout_at(until + MARGIN, finishing).await {
        Ok(finished) => Ok(finished?),
        Err(_) => Err(Refusal::unavailable("PostgreSQL has not answered in time")),
    }
}

/// That only subscribers may do that.
pub(super) fn not_subscribed(kind: ObjectKind, name: &str) -> Refusal {
    let detail = format!("the user is not subscribed to the {kind} {name:?}: subscribe first");
    Refusal::new(Code::NotSubscribed, detail)
}

fn being_deleted(what: String) -> Refusal {
    Refusal::new(Code::BeingDeleted, format!("{what} is still being deleted; try again"))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::core::Code;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_late_finishes_nothing() {
        let acting = async || {
            tokio::time::sleep(CLAIM - MARGIN - Duration::from_millis(1)).await;
            Ok(())
        };
        assert_eq!(carry_out(claim(), acting(), async { Ok(7) }).await, Ok(7));

        let until = claim();
        let never = async { panic!("RabbitMQ has not answered") };
        let refused: Result<(), Refusal> = carry_out(until, pending(), never).await;
        assert_eq!(refused.unwrap_err().code, Code::Unavailable);

        let until = claim();
        let refused: Result<(), Refusal> = carry_out(until, acting(), pending()).await;
        assert_eq!(refused.unwrap_err().code, Code::Unavailable);
        assert_eq!(Instant::now(), until + MARGIN);

        let missing = ready(Err(MomError::Unavailable(String::new())));
        let never = async { panic!("RabbitMQ does not have it") };
        let refused: Result<(), Refusal> = carry_out(claim(), missing, never).await;
        assert!(refused.is_err());
    }
}
