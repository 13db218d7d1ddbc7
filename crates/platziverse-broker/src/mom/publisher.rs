//! Publishing applications' messages, and what the processes tell each other about leases.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;

use super::forward::Pending;
use super::message::Post;
use super::{MomError, MomSettings};
use crate::post::{self, Envelope, PostError, PublisherSettings, Unheard};
use crate::publisher::short;
use crate::topology::{MOM, MOM_LEASES};
use crate::{BrokerError, Context};

/// Names the connection in readiness and metrics.
const ROLE: &str = "mom";
/// Queues that one AMQP message goes to. RabbitMQ keeps all their names with each copy, so that
/// fewer messages of more queues would take more room, and the names must fit in a frame.
const QUEUES_MAX: usize = 16;

/// Publishes on a connection of its own, which ends when this is dropped and everything is answered.
#[derive(Debug)]
pub(super) struct Publisher(post::Publisher);

impl Publisher {
    pub(super) async fn start(
        context: &Context,
        settings: &MomSettings,
        pending: Arc<Pending>,
    ) -> Result<Self, BrokerError> {
        let &MomSettings { in_flight_bytes, publish_timeout, .. } = settings;
        let settings = PublisherSettings { role: ROLE, in_flight_bytes, publish_timeout };
        let tell = move |id| pending.resolve(id, Err(MomError::LeaseGone));
        let unheard = Unheard { exchange: MOM_LEASES, tell: Box::new(tell) };
        Ok(Self(post::Publisher::start(context, settings, unheard).await?))
    }

    /// Publishes to all queues of the post. `handed` is called when all parcels have their places:
    /// those of later calls go after them.
    pub(super) async fn publish(&self, post: Post, handed: impl FnOnce()) -> Result<(), MomError> {
        post.check()?;
        let deadline = self.0.deadline();
        let mut receipts = Vec::with_capacity(1);
        for queues in post.queues.chunks(QUEUES_MAX) {
            let Some((first, more)) = queues.split_first() else { continue };
            let names = queues.iter().map(String::len).sum::<usize>();
            let envelope = Envelope {
                exchange: MOM,
                key: short(first),
                queue: Some(short(first)),
                is_copied: !more.is_empty(),
                properties: post.properties(more),
                body: post.body.clone(),
            };
            receipts.push(self.0.hand(envelope, post.len() + names, deadline).await?);
        }
        handed();
        let mut answer = Ok(());
        for receipt in receipts {
            answer = answer.and(receipt.confirmed().await);
        }
        Ok(answer?)
    }

    /// Publishes to another process, or this one. What reaches nobody is told to [`Pending`].
    pub(super) async fn tell(
        &self,
        instance: &str,
        properties: BasicProperties,
        body: Bytes,
    ) -> Result<(), MomError> {
        let bytes = body.len();
        let envelope = Envelope {
            exchange: MOM_LEASES,
            key: short(instance),
            // That of a process has no limit: refused, it is on a node that has just died.
            queue: None,
            is_copied: false,
            properties,
            body,
        };
        let handed = self.0.hand(envelope, bytes, self.0.deadline()).await?;
        Ok(handed.confirmed().await?)
    }
}

impl From<PostError> for MomError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Full => Self::Full,
            PostError::TooLarge(why) => Self::TooMany(why),
            PostError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
