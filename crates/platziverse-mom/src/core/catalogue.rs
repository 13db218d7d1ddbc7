//! What there is.

use futures_util::{StreamExt, stream};
use platziverse_broker::mom::MomError;
use platziverse_store::mom::{self, Stage};
use uuid::Uuid;

use crate::core::consuming::queue_of;
use crate::core::{Caller, Core, Object, ObjectKind, Refusal, Which, name, unknown};

/// Objects of one page.
pub const PAGE_MAX: u32 = 200;
/// Queues that are counted side by side.
const SIDE_BY_SIDE: usize = 16;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Which objects.
    pub which: Which,
    /// Those whose names come after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// Whether to say how many messages wait.
    pub with_counts: bool,
}

/// An object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What it is.
    pub object: Object,
    /// How many messages wait: in a queue, or in the user's part of a topic. Nothing is known of what
    /// the user is not subscribed to, and of what was not asked for.
    pub messages: Option<u32>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The objects, by name, byte by byte.
    pub items: Vec<Listing>,
    /// What to ask for after; nothing at the end.
    pub next: Option<String>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What it is.
    pub object: Object,
    /// How many messages wait, as in [`Listing`].
    pub messages: Option<u32>,
    /// How many users are subscribed.
    pub subscribers: u64,
    /// Whether the user is.
    pub is_subscribed: bool,
}

impl Core {
    /// The topics or queues that the user created, or is subscribed to.
    pub async fn list(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        page: &Page,
    ) -> Result<Listed, Refusal> {
        let Page { which, after, limit, with_counts } = page;
        if !(1..=PAGE_MAX).contains(limit) {
            return Err(Refusal::invalid(format!("the limit must be from 1 to {PAGE_MAX}")));
        }
        if let Some(after) = after {
            name::check(after)?;
        }
        let user = self.user(caller).await?;
        let store = &self.inner.store;
        // One more says whether there is another page.
        let mut objects =
            mom::list(store, user, *which, kind, after.as_deref(), *limit + 1).await?;
        let is_last = objects.len() <= *limit as usize;
        objects.truncate(*limit as usize);
        let next = objects.last().filter(|_| !is_last).map(|object| object.name.clone());
        let items = stream::iter(objects).map(|object| async move {
            let messages = if *with_counts { self.count(&object, user).await? } else { None };
            Ok::<_, Refusal>(Listing { object, messages })
        });
        let items: Vec<Result<Listing, Refusal>> = items.buffered(SIDE_BY_SIDE).collect().await;
        Ok(Listed { items: items.into_iter().collect::<Result<_, _>>()?, next })
    }

    /// One topic or queue.
    pub async fn show(
        &self,
        caller: &Caller,
        kind: ObjectKind,
        name: &str,
    ) -> Result<Shown, Refusal> {
        let (user, found) = self.ask(caller, Some((kind, name))).await?;
        let shown = mom::show(&self.inner.store, kind, name).await?;
        let (object, subscribers) = shown
            .filter(|(object, _)| object.stage != Stage::Deleting)
            .ok_or_else(|| unknown(kind, name))?;
        let messages = match found.is_subscribed || object.creator == user {
            true => self.count(&object, user).await?,
            false => None,
        };
        Ok(Shown { object, messages, subscribers, is_subscribed: found.is_subscribed })
    }

    /// How many messages wait for a user; nothing if there is no such queue.
    async fn count(&self, object: &Object, user: Uuid) -> Result<Option<u32>, Refusal> {
        match self.inner.broker.count(&queue_of(object.kind, &object.name, user)).await {
            Ok(count) => Ok(Some(count)),
            Err(MomError::NoSuchQueue) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
