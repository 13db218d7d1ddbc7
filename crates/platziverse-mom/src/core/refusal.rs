//! Why something is not done, in words that say what to change.

use std::fmt;
use std::time::Duration;

use platziverse_broker::mom::MomError;
use platziverse_service::chain;
use platziverse_store::StoreError;
use platziverse_store::mom::ObjectKind;

/// What is wrong, as programs read it. The words are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// No user has that key.
    UnknownKey,
    /// A name that no topic or queue can have.
    InvalidName,
    /// There is no topic of that name.
    UnknownTopic,
    /// There is no queue of that name.
    UnknownQueue,
    /// Something else has that name.
    AlreadyExists,
    /// Only who created it may do that.
    NotCreator,
    /// Only subscribers may do that.
    NotSubscribed,
    /// The user subscribes to it already.
    AlreadySubscribed,
    /// Nobody else can subscribe to it.
    TooManySubscribers,
    /// Nothing is there to consume.
    Empty,
    /// The message is not lent under that lease any more.
    LeaseGone,
    /// The body has too many bytes.
    TooLarge,
    /// The request does not say what it should.
    InvalidRequest,
    /// The request did not come in time.
    RequestTimeout,
    /// There is nothing at that path.
    NotFound,
    /// The path has other methods.
    MethodNotAllowed,
    /// More requests than are allowed.
    TooManyRequests,
    /// A queue that the message must go to has no room.
    QueueFull,
    /// What it needs does not answer now.
    Unavailable,
    /// New users are not let in.
    RegistrationClosed,
    /// The user has created topics or queues that are still there.
    HasObjects,
    /// What had that name is still being deleted.
    BeingDeleted,
}

impl Code {
    /// Every code.
    pub const ALL: &[Self] = &[
        Self::UnknownKey,
        Self::InvalidName,
        Self::UnknownTopic,
        Self::UnknownQueue,
        Self::AlreadyExists,
        Self::NotCreator,
        Self::NotSubscribed,
        Self::AlreadySubscribed,
        Self::TooManySubscribers,
        Self::Empty,
        Self::LeaseGone,
        Self::TooLarge,
        Self::InvalidRequest,
        Self::RequestTimeout,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooManyRequests,
        Self::QueueFull,
        Self::Unavailable,
        Self::RegistrationClosed,
        Self::HasObjects,
        Self::BeingDeleted,
    ];

    /// The word, the HTTP status, and a title.
    const fn described(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::UnknownKey => ("unknown_key", 401, "No user has that key"),
            Self::InvalidName => ("invalid_name", 400, "No topic or queue can have that name"),
            Self::UnknownTopic => ("unknown_topic", 404, "There is no topic of that name"),
            Self::UnknownQueue => ("unknown_queue", 404, "There is no queue of that name"),
            Self::AlreadyExists => ("already_exists", 409, "The name is taken"),
            Self::NotCreator => ("not_creator", 403, "Only its creator may do that"),
            Self::NotSubscribed => ("not_subscribed", 403, "Only its subscribers may do that"),
            Self::AlreadySubscribed => ("already_subscribed", 409, "Subscribed already"),
            Self::TooManySubscribers => ("too_many_subscribers", 409, "It has enough subscribers"),
            Self::Empty => ("empty", 404, "Nothing is there to consume"),
            Self::LeaseGone => ("lease_gone", 410, "The message is not lent any more"),
            Self::TooLarge => ("too_large", 413, "The body is too large"),
            Self::InvalidRequest => ("invalid_request", 400, "The request is not understood"),
            Self::RequestTimeout => ("request_timeout", 408, "The request did not come in time"),
            Self::NotFound => ("not_found", 404, "There is nothing at that path"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "The path has other methods"),
            Self::TooManyRequests => ("too_many_requests", 429, "Too many requests"),
            Self::QueueFull => ("queue_full", 503, "A queue has no room"),
            Self::Unavailable => ("unavailable", 503, "Not possible now"),
            Self::RegistrationClosed => ("registration_closed", 403, "New users are not let in"),
            Self::HasObjects => ("has_objects", 409, "The user has topics or queues"),
            Self::BeingDeleted => ("being_deleted", 409, "The name is still being freed"),
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        self.described().0
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        self.described().1
    }

    /// What it means, in one line.
    pub const fn title(self) -> &'static str {
        self.described().2
    }

    /// Whether the same request may do later.
    pub const fn is_passing(self) -> bool {
        matches!(self.status(), 408 | 429 | 503) || matches!(self, Self::BeingDeleted)
    }

    /// That there is nothing of a kind under a name.
    pub const fn unknown(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Topic => Self::UnknownTopic,
            ObjectKind::Queue => Self::UnknownQueue,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people: what was wrong, and what to change.
    pub detail: String,
    /// How long to wait before the same request is worth sending again.
    pub retry_after: Option<Duration>,
}

/// When to ask again if nothing says how long it takes.
const SOON: Duration = Duration::from_secs(1);

impl Refusal {
    /// A refusal, to be tried again soon if its code is of that kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: code.is_passing().then_some(SOON) }
    }

    /// A request that does not say what it should.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    /// Too many requests; the next one does after `wait`.
    pub fn too_many(detail: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(Code::TooManyRequests, detail) }
    }

    /// What does not answer now.
    pub fn unavailable(what: &str) -> Self {
        Self::new(Code::Unavailable, format!("{what}; try again"))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        // Its text has addresses: they are for the log.
        tracing::warn!("a request has failed at PostgreSQL: {}", chain(&error));
        Self::unavailable("PostgreSQL does not answer as it should")
    }
}

impl From<MomError> for Refusal {
    fn from(error: MomError) -> Self {
        match error {
            MomError::LeaseGone => Self::new(
                Code::LeaseGone,
                "the lease has ended: it was settled, or its time is over, or the server that held \
                 it has; the message is delivered again unless it was acknowledged",
            ),
            MomError::Full => Self::new(
                Code::QueueFull,
                "a queue that the message must go to is full; of a topic, other subscribers may have \
                 it. Send it again when there is room, best with the same idempotency key: then it \
                 has the same id",
            ),
            MomError::TooMany(what) => Self::new(Code::TooManyRequests, what),
            MomError::NoSuchQueue => {
                Self::unavailable("RabbitMQ lacks the queue that it should have")
            }
            MomError::Unavailable(why) => {
                tracing::warn!("a request has failed at RabbitMQ: {why}");
                Self::unavailable("RabbitMQ does not answer as it should")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_told_apart_and_are_errors() {
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(!code.title().is_empty(), "{code}");
            let plain = code.as_str().bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
            assert!(plain, "{code}");
        }
    }

    #[test]
    fn what_passes_says_when_to_come_back() {
        assert_eq!(Refusal::new(Code::Unavailable, "x").retry_after, Some(SOON));
        assert_eq!(Refusal::new(Code::UnknownKey, "x").retry_after, None);
        let wait = Duration::from_secs(7);
        assert_eq!(Refusal::too_many("x", wait).retry_after, Some(wait));
    }
}
