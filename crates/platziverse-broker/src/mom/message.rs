//! Messages of applications, as they are published and as they arrive.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use platziverse_protocol::time::Timestamp;
use uuid::Uuid;

use super::MomError;
use crate::message::{self, Message, text};
use crate::publisher::short;

/// The property `type` of applications' messages.
const KIND: &str = "mom";
/// What the names of the publisher's own headers begin with on their way.
const OWN: &str = "h-";
const USER: &str = "user";
const ORIGIN: &str = "mom";
/// As RabbitMQ itself calls it: the property `timestamp` has seconds only.
const MILLIS: &str = "timestamp_in_ms";
/// More queues that get the message. RabbitMQ takes the header away: what arrives does not say who
/// else has it.
const MORE_QUEUES: &str = "BCC";

const OCTETS: &str = "application/octet-stream";
/// Bytes of a name, or of a content type (AMQP 0-9-1, shortstr).
const SHORT_MAX: usize = 255;
/// Bytes of the publisher's own headers. All properties of a message must fit in one frame, of
/// 128 KiB by default.
const HEADERS_MAX: usize = 64 << 10;

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Post {
    /// Its id.
    pub id: Uuid,
    /// The queues that it goes to.
    pub queues: Vec<String>,
    /// Whom it was published to: `topic/<name>` or `queue/<name>`.
    pub origin: String,
    /// Who publishes it.
    pub user: Uuid,
    /// What the body is.
    pub content_type: String,
    /// The publisher's own headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// When it was published.
    pub timestamp: Timestamp,
}

/// A message as it arrived. What was published over AMQP by others may lack any property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomMessage {
    /// Its id, if it has one that is a UUID.
    pub id: Option<Uuid>,
    /// What the body is; `application/octet-stream` unless the publisher says so.
    pub content_type: String,
    /// The publisher's own headers, by name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Who published it.
    pub publisher: Option<Uuid>,
    /// When it was published.
    pub timestamp: Option<Timestamp>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
}

/// A message that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The message.
    pub message: MomMessage,
    /// What settles it, if it is not settled yet.
    pub lease: Option<String>,
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamDelivery {
    /// The message.
    pub message: MomMessage,
    /// What settles it, on this stream.
    pub tag: u64,
}

impl Post {
    /// Whether AMQP can carry it.
    pub(super) fn check(&self) -> Result<(), MomError> {
        let too_long = |what: &str, max: usize| {
            Err(MomError::TooMany(format!("{what} has more than {max} bytes")))
        };
        if self.content_type.len() > SHORT_MAX {
            return too_long("the content type", SHORT_MAX);
        }
        if self.headers.iter().any(|(name, _)| name.len() > SHORT_MAX - OWN.len()) {
            return too_long("the name of a header", SHORT_MAX - OWN.len());
        }
        if self.headers_len() > HEADERS_MAX {
            return too_long("all headers together: it", HEADERS_MAX);
        }
        Ok(())
    }

    /// The bytes that it takes here: its body and its headers.
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.headers_len()
    }

    fn headers_len(&self) -> usize {
        self.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Its properties on the way to one queue, and to `more` as well.
    pub(super) fn properties(&self, more: &[String]) -> BasicProperties {
        let mut headers = FieldTable::default();
        let long = |text: &str| AMQPValue::LongString(text.into());
        for (name, value) in &self.headers {
            headers.insert(short(&format!("{OWN}{name}")), long(value));
        }
        headers.insert(USER.into(), long(&self.user.to_string()));
        headers.insert(ORIGIN.into(), long(&self.origin));
        headers.insert(MILLIS.into(), AMQPValue::LongLongInt(self.timestamp.as_millis()));
        if !more.is_empty() {
            let more: Vec<_> = more.iter().map(|queue| long(queue)).collect();
            headers.insert(MORE_QUEUES.into(), AMQPValue::FieldArray(more.into()));
        }
        message::properties(self.id, KIND, &self.content_type, self.timestamp).with_headers(headers)
    }
}

impl MomMessage {
    pub(super) fn of(message: Message) -> Self {
        let content_type = message.properties.content_type().as_ref();
        let millis = message.header(MILLIS).and_then(|millis| millis.parse().ok());
        let precise = millis.and_then(|millis| Timestamp::from_millis(millis).ok());
        let table = message.headers().into_iter().flat_map(FieldTable::inner);
        let own = table.filter_map(|(name, value)| {
            Some((name.as_str().strip_prefix(OWN)?.to_owned(), text(value)?))
        });
        Self {
            id: message.message_id().and_then(|id| id.parse().ok()),
            content_type: content_type.map_or(OCTETS, ShortString::as_str).to_owned(),
            headers: own.collect(),
            publisher: message.header(USER).and_then(|user| user.parse().ok()),
            timestamp: precise.or_else(|| message.timestamp()),
            redelivered: message.redelivered,
            body: Bytes::from(message.body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post() -> Post {
        Post {
            id: Uuid::from_u128(1),
            queues: vec!["mom.queue.a".to_owned()],
            origin: "queue/a".to_owned(),
            user: Uuid::from_u128(2),
            content_type: "text/plain".to_owned(),
            headers: vec![("colour".to_owned(), "blue".to_owned())],
            body: Bytes::from_static(b"hello"),
            timestamp: Timestamp::from_millis(1_780_000_000_123).unwrap(),
        }
    }

    fn arrived(properties: BasicProperties) -> MomMessage {
        MomMessage::of(Message {
            body: b"hello".to_vec(),
            exchange: "platziverse.mom".to_owned(),
            routing_key: "mom.queue.a".to_owned(),
            redelivered: false,
            properties,
        })
    }

    #[test]
    fn what_was_published_arrives() {
        let post = post();
        let message = arrived(post.properties(&[]));
        let Post { id, user, content_type, headers, body, timestamp, .. } = post;
        assert_eq!(
            message,
            MomMessage {
                id: Some(id),
                content_type,
                headers,
                body,
                publisher: Some(user),
                timestamp: Some(timestamp),
                redelivered: false,
            }
        );
    }

    #[test]
    fn what_others_publish_arrives_with_what_it_has() {
        let properties = BasicProperties::default().with_message_id("7".into()).with_timestamp(5);
        let message = arrived(properties);
        assert_eq!((message.id, message.publisher), (None, None));
        assert_eq!(message.content_type, OCTETS);
        assert_eq!(message.timestamp.map(Timestamp::as_millis), Some(5000));
        assert_eq!(message.headers, []);
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        assert_eq!(post().check(), Ok(()));
        let header = |name: usize, value: usize| {
            let headers = vec![("n".repeat(name), "v".repeat(value))];
            Post { headers, ..post() }.check()
        };
        assert_eq!(header(253, 1), Ok(()));
        assert!(matches!(header(254, 1), Err(MomError::TooMany(_))));
        assert_eq!(header(1, HEADERS_MAX - 1), Ok(()));
        assert!(matches!(header(1, HEADERS_MAX), Err(MomError::TooMany(_))));
        let content_type = "t".repeat(256);
        assert!(matches!(Post { content_type, ..post() }.check(), Err(MomError::TooMany(_))));
    }
}
