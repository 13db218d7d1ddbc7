//! Messages.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use platziverse_rpc::mom;
use uuid::Uuid;

use crate::time;

/// A message to publish. Text and bytes turn into one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// What it says.
    pub body: Bytes,
    /// What the body is, such as `application/json`; empty is `application/octet-stream`.
    pub content_type: String,
    /// What else is to be known of it.
    pub headers: BTreeMap<String, String>,
    /// Published again under the same key by the same user, it is published once; empty is none.
    pub idempotency_key: String,
}

impl NewMessage {
    /// A message of bytes.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// With that content type.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// With that idempotency key.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = key.into();
        self
    }
}

impl From<&str> for NewMessage {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for NewMessage {
    fn from(text: String) -> Self {
        Self::new(text).content_type("text/plain; charset=utf-8")
    }
}

impl From<Vec<u8>> for NewMessage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<Bytes> for NewMessage {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: Uuid,
    /// To how many subscribers it goes.
    pub receivers: u32,
}

impl Published {
    pub(crate) fn of(response: &mom::PublishResponse) -> Self {
        Self { id: response.id.parse().unwrap_or_default(), receivers: response.receivers }
    }
}

/// A message that was consumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id; none if whoever published it past the service gave it none.
    pub id: Option<Uuid>,
    /// What the body is.
    pub content_type: String,
    /// What its publisher said besides.
    pub headers: BTreeMap<String, String>,
    /// What it says.
    pub body: Bytes,
    /// The user that published it, if it was published by the service.
    pub publisher: Option<Uuid>,
    /// When it was published.
    pub timestamp: Option<SystemTime>,
    /// It may have been delivered before.
    pub redelivered: bool,
}

impl From<mom::Message> for Message {
    fn from(message: mom::Message) -> Self {
        Self {
            id: message.id.parse().ok(),
            content_type: message.content_type,
            headers: message.headers,
            body: message.body,
            publisher: message.publisher.parse().ok(),
            timestamp: time::time(message.timestamp),
            redelivered: message.redelivered,
        }
    }
}
