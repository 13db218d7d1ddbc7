//! What answers say.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platziverse_protocol::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::core::{
    Listed, Listing, MomMessage, NewUser, Object, ObjectOptions, Published, Shown, Taken,
};

/// A new user.
#[derive(Serialize, ToSchema)]
#[schema(as = NewUser)]
pub(super) struct NewUserView {
    /// Who it is: publishers are named by it.
    id: Uuid,
    /// The key. It is shown this once.
    #[schema(example = "pk_2kYbq1…")]
    key: String,
}

impl From<NewUser> for NewUserView {
    fn from(NewUser { id, key }: NewUser) -> Self {
        Self { id, key }
    }
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    /// Who it is.
    pub(super) id: Uuid,
}

/// A user's new key.
#[derive(Serialize, ToSchema)]
#[schema(as = NewKey)]
pub(super) struct KeyView {
    /// The key. It is shown this once.
    pub(super) key: String,
}

/// Something that was created.
#[derive(Serialize, ToSchema)]
#[schema(as = Created)]
pub(super) struct CreatedView {
    /// Its name.
    #[schema(example = "weather")]
    pub(super) name: String,
}

/// A topic or a queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Object)]
pub(super) struct ObjectView {
    /// Its name.
    #[schema(example = "weather")]
    name: String,
    /// The user who created it.
    creator: Uuid,
    /// When it was created (RFC 3339).
    #[schema(format = "date-time")]
    created_at: String,
    /// The most messages, if the creator has said.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_length: Option<u64>,
    /// For how many milliseconds a message waits, if the creator has said.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_ttl: Option<u64>,
    /// How often a message may come back, if the creator has said.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_limit: Option<u32>,
    /// How many messages wait: in a queue, or in one's own part of a topic. Null where one has none.
    messages: Option<u32>,
}

impl ObjectView {
    fn new(object: Object, messages: Option<u32>) -> Self {
        let Object { name, creator, options, created_at, .. } = object;
        let ObjectOptions { max_length, message_ttl, delivery_limit } = options;
        let millis = |ttl: std::time::Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self {
            name,
            creator,
            created_at: created_at.to_string(),
            max_length,
            message_ttl: message_ttl.map(millis),
            delivery_limit,
            messages,
        }
    }
}

/// A topic or a queue, and who listens.
#[derive(Serialize, ToSchema)]
#[schema(as = ShownObject)]
pub(super) struct ShownView {
    #[serde(flatten)]
    object: ObjectView,
    /// How many users are subscribed.
    subscribers: u64,
    /// Whether one is oneself.
    subscribed: bool,
}

impl From<Shown> for ShownView {
    fn from(Shown { object, messages, subscribers, is_subscribed }: Shown) -> Self {
        Self { object: ObjectView::new(object, messages), subscribers, subscribed: is_subscribed }
    }
}

/// A part of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = Objects)]
pub(super) struct ListView {
    /// By name, byte by byte.
    items: Vec<ObjectView>,
    /// What to ask for as `after`, if there is more.
    next: Option<String>,
}

impl From<Listed> for ListView {
    fn from(Listed { items, next }: Listed) -> Self {
        let view = |Listing { object, messages }| ObjectView::new(object, messages);
        Self { items: items.into_iter().map(view).collect(), next }
    }
}

/// A message that was published.
#[derive(Serialize, ToSchema)]
#[schema(as = Published)]
pub(super) struct PublishedView {
    /// Its id.
    id: Uuid,
    /// How many get it: the subscribers of a topic but the publisher; 1 for a queue.
    receivers: u32,
}

impl From<Published> for PublishedView {
    fn from(Published { id, receivers }: Published) -> Self {
        Self { id, receivers }
    }
}

/// A message.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageView {
    /// Its id.
    id: Option<Uuid>,
    /// What the body is.
    content_type: String,
    /// The publisher's own headers.
    headers: BTreeMap<String, String>,
    /// The body, in base64.
    #[schema(content_encoding = "base64")]
    body: String,
    /// The user who published it.
    publisher: Option<Uuid>,
    /// When it was published (RFC 3339).
    #[schema(format = "date-time")]
    timestamp: Option<String>,
    /// Whether it may have been delivered before.
    redelivered: bool,
    /// What settles it, if it is not settled yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

impl From<MomMessage> for MessageView {
    fn from(message: MomMessage) -> Self {
        Self {
            id: message.id,
            content_type: message.content_type,
            headers: message.headers.into_iter().collect(),
            body: STANDARD.encode(&message.body),
            publisher: message.publisher,
            timestamp: message.timestamp.as_ref().map(Timestamp::to_string),
            redelivered: message.redelivered,
            lease: None,
        }
    }
}

impl From<Taken> for MessageView {
    fn from(Taken { message, lease }: Taken) -> Self {
        Self { lease, ..message.into() }
    }
}

/// The first messages of a queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Messages)]
pub(super) struct MessagesView {
    /// In the order in which they will be delivered.
    pub(super) items: Vec<MessageView>,
}

/// What a purge has deleted.
#[derive(Serialize, ToSchema)]
#[schema(as = Purged)]
pub(super) struct PurgedView {
    /// How many messages.
    pub(super) purged: u32,
}
