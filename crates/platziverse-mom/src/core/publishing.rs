//! From a publisher to the queues.

use futures_util::FutureExt;
use platziverse_broker::mom::{MomError, Post, queue_name, subscriber_queue};
use platziverse_service::{chain, clock};
use platziverse_store::mom::{self, Found, Object, Stage};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::core::books::Entry;
use crate::core::message::{NewMessage, OCTETS};
use crate::core::{Caller, Core, ObjectKind, Refusal, key, unknown};

/// A message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub id: Uuid,
    /// How many get it: the subscribers of a topic but the publisher; 1 for a queue.
    pub receivers: u32,
}

/// Bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// A publish that is known by a key.
#[derive(Debug)]
struct Known {
    user: Uuid,
    hash: [u8; 32],
}

/// A publish about which everything is known, and which has not gone.
#[derive(Debug)]
pub struct Prepared(Next);

#[derive(Debug)]
enum Next {
    /// It has gone before.
    Done(Published),
    Send(Box<Sending>),
}

#[derive(Debug)]
struct Sending {
    post: Post,
    known: Option<Known>,
    published: Published,
    entry: Entry,
}

/// A publish that goes, whatever becomes of this.
#[derive(Debug)]
pub struct OnItsWay {
    /// Closed when its place is certain.
    placed: oneshot::Receiver<()>,
    done: oneshot::Receiver<Result<(), MomError>>,
    published: Published,
}

impl OnItsWay {
    /// Waits until whatever goes from now on goes after it, or it is clear that it does not go.
    pub async fn placed(&mut self) {
        // Nothing is sent.
        let _ = (&mut self.placed).await;
    }

    /// Waits until RabbitMQ has it in every queue.
    pub async fn confirmed(self) -> Result<Published, Refusal> {
        let lost = |_| MomError::Unavailable("the publish broke off".to_owned());
        self.done.await.unwrap_or_else(|gone| Err(lost(gone)))?;
        Ok(self.published)
    }
}

impl Core {
    /// Publishes a message, and answers when RabbitMQ has it in every queue. With an idempotency key
    /// that the user has published there with, it answers what it answered then.
    ///
    /// What has been handed to RabbitMQ goes on if the future is dropped.
    pub async fn publish(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        message: NewMessage,
    ) -> Result<Published, Refusal> {
        let prepared = self.prepare(caller, kind, name, message).await?;
        self.send(prepared).confirmed().await
    }

    /// The first half of a publish: whether it may go, and where to. Counts as a request.
    pub async fn prepare(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
        message: NewMessage,
    ) -> Result<Prepared, Refusal> {
        let entry = self.inner.metrics.publish();
        message.check(self.inner.settings.body_bytes_max)?;
        let (user, found) = self.ask(caller, Some((kind, name))).await?;
        let Found { object: Some(object), receivers, .. } = usable(kind, name, found)? else {
            return Err(unknown(kind, name));
        };
        let known = match &message.idempotency_key {
            Some(key) => Some(known(user, &object, key)?),
            None => None,
        };
        if let Some(known) = &known
            // In a box, as all that few messages need: every future has room for the largest part.
            && let Some(published) = Box::pin(self.recall(known)).await?
        {
            entry.confirm();
            return Ok(Prepared(Next::Done(published)));
        }
        let id = known.as_ref().map_or_else(Uuid::now_v7, Known::id);
        let queues: Vec<String> = match kind {
            ObjectKind::Topic => {
                receivers.iter().map(|user| subscriber_queue(name, *user)).collect()
            }
            ObjectKind::Queue => vec![queue_name(name)],
        };
        let published =
            Published { id, receivers: u32::try_from(queues.len()).unwrap_or(u32::MAX) };
        let post = Post {
            id,
            queues,
            origin: format!("{kind}/{name}"),
            user,
            content_type: message.content_type.unwrap_or_else(|| OCTETS.to_owned()),
            headers: message.headers,
            body: message.body,
            timestamp: clock::now(),
        };
        Ok(Prepared(Next::Send(Box::new(Sending { post, known, published, entry }))))
    }

    /// The second half of a publish, in a task of its own: who has left must not leave it half-done.
    pub fn send(&self, Prepared(next): Prepared) -> OnItsWay {
        let (place, placed) = oneshot::channel();
        let (answer, done) = oneshot::channel();
        let sending = match next {
            Next::Send(sending) => sending,
            Next::Done(published) => {
                // Who asks holds the other end.
                let _ = answer.send(Ok(()));
                return OnItsWay { placed, done, published };
            }
        };
        let published = sending.published;
        let core = self.clone();
        let mut task = Box::pin(async move {
            // Who has left has no use for it.
            let _ = answer.send(core.go(*sending, place).await);
        });
        // Mostly there is room, and it has its place at once.
        if task.as_mut().now_or_never().is_none() {
            self.inner.drain.spawn_isolated(task);
        }
        OnItsWay { placed, done, published }
    }

    async fn go(&self, sending: Sending, place: oneshot::Sender<()>) -> Result<(), MomError> {
        let Sending { post, known, published, entry } = sending;
        if post.queues.is_empty() {
            drop(place);
        } else {
            self.inner.broker.publish_in_order(post, || drop(place)).await?;
        }
        entry.confirm();
        if let Some(known) = known {
            Box::pin(self.remember(&known, published)).await;
        }
        Ok(())
    }

    /// Whether the key is a user's, for what takes long to send: nothing is counted.
    pub async fn check_key(&self, caller: &Caller) -> Result<(), Refusal> {
        self.known(caller, None).await.map(drop)
    }

    async fn recall(&self, known: &Known) -> Result<Option<Published>, Refusal> {
        let found = mom::published(&self.inner.store, known.user, known.hash).await?;
        Ok(found.map(|(id, receivers)| Published { id, receivers }))
    }

    /// The message is there: if this fails, one that is sent again has the same id.
    async fn remember(&self, known: &Known, published: Published) {
        let Published { id, receivers } = published;
        let kept =
            mom::remember_publish(&self.inner.store, known.user, known.hash, id, receivers).await;
        if let Err(error) = kept {
            tracing::warn!("a publish is not known by its idempotency key: {}", chain(&error));
        }
    }
}

impl Known {
    /// The same for the same key, so that a message that is published twice can be told by its id.
    fn id(&self) -> Uuid {
        let mut bytes = [0; 16];
        let hash = key::hash_of(&[self.user.as_bytes(), &self.hash]);
        bytes.copy_from_slice(&hash[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// What a publish to an object is known by. One that has the name later is another one: what was
/// published to the former is not there.
fn known(user: Uuid, object: &Object, key: &str) -> Result<Known, Refusal> {
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(Refusal::invalid(detail));
    }
    let Object { kind, name, created_at, .. } = object;
    let since = created_at.as_millis().to_be_bytes();
    let parts = [kind.as_str().as_bytes(), name.as_bytes(), &since, key.as_bytes()];
    Ok(Known { user, hash: key::hash_of(&parts) })
}

/// What is known of an object that can be published to and consumed from.
pub(super) fn usable(kind: ObjectKind, name: &str, found: Found) -> Result<Found, Refusal> {
    match &found.object {
        Some(Object { stage: Stage::Ready, .. }) => Ok(found),
        Some(Object { stage: Stage::Creating, .. }) => {
            Err(Refusal::unavailable(&format!("the {kind} {name:?} is still being created")))
        }
        Some(Object { stage: Stage::Deleting, .. }) | None => Err(unknown(kind, name)),
    }
}

#[cfg(test)]
mod tests {
    use platziverse_protocol::time::Timestamp;

    use super::*;
    use crate::core::ObjectOptions;

    fn object(kind: ObjectKind, name: &str, millis: i64) -> Object {
        Object {
            kind,
            name: name.to_owned(),
            creator: Uuid::nil(),
            options: ObjectOptions::default(),
            stage: Stage::Ready,
            created_at: Timestamp::from_millis(millis).unwrap(),
        }
    }

    #[test]
    fn what_is_published_again_has_the_same_id() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = |user, object: &Object, key| known(user, object, key).unwrap().id();
        let topic = object(ObjectKind::Topic, "a", 5);
        let first = id(one, &topic, "k");
        assert_eq!(id(one, &topic.clone(), "k"), first);
        assert_eq!(first.get_version_num(), 8);
        for different in [
            id(other, &topic, "k"),
            id(one, &topic, "l"),
            id(one, &object(ObjectKind::Topic, "b", 5), "k"),
            id(one, &object(ObjectKind::Queue, "a", 5), "k"),
            // It was deleted, and created again.
            id(one, &object(ObjectKind::Topic, "a", 6), "k"),
        ] {
            assert_ne!(different, first);
        }
        assert!(known(one, &topic, "").is_err());
        assert!(known(one, &topic, &"x".repeat(256)).is_err());
    }
}
