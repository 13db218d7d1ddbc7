//! What can go wrong.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use platziverse_rpc::code_of;
use tonic::Status;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server has said no.
    #[error("{detail} ({code})")]
    Refused {
        /// Why, for programs.
        code: Code,
        /// Why, for people.
        detail: String,
        /// How long to wait before the next try, if the server has said so.
        retry_after: Option<Duration>,
    },
    /// No server has answered; what was asked for may have been done or not.
    #[error("no server has answered: {0}")]
    Unreached(String),
    /// The connection that a delivery came by is gone; the message comes again.
    #[error("the connection that the message came by is gone, so it is delivered again")]
    Stale,
    /// The client was not built well.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The server's code, if it has refused.
    pub fn code(&self) -> Option<&Code> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Unreached(_) | Self::Stale | Self::Invalid(_) => None,
        }
    }

    /// Whether the same may do later: no server has answered, or the one that did could not do it just
    /// then.
    pub fn is_passing(&self) -> bool {
        self.retry().is_some()
    }

    pub(crate) fn of_status(status: &Status) -> Self {
        if let Some((code, retry_after)) = code_of(status) {
            let (code, detail) = (Code::from(code), status.message().to_owned());
            return Self::Refused { code, detail, retry_after };
        }
        // Without a code it is no answer of the service: the connection was lost, or something on
        // the way has answered.
        let detail = match status.source() {
            Some(source) => format!("{}: {}", status.message(), root(source)),
            None => status.message().to_owned(),
        };
        let is_lost = matches!(
            status.code(),
            tonic::Code::Unavailable
                | tonic::Code::Unknown
                | tonic::Code::Internal
                | tonic::Code::Cancelled
                | tonic::Code::DeadlineExceeded
        );
        if is_lost {
            return Self::Unreached(detail);
        }
        let code = Code::Other(format!("{:?}", status.code()));
        Self::Refused { code, detail, retry_after: None }
    }

    /// Whether what was asked for may have been done all the same.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Unreached(_) => true,
            Self::Refused { code, .. } => code.is_passing(),
            Self::Stale | Self::Invalid(_) => false,
        }
    }

    /// Whether it is worth another try, and how long to wait at least.
    pub(crate) fn retry(&self) -> Option<Duration> {
        match self {
            Self::Unreached(_) => Some(Duration::ZERO),
            Self::Refused { code, retry_after, .. } if code.is_passing() => {
                Some(retry_after.unwrap_or_default())
            }
            Self::Refused { code: Code::TooManyRequests, retry_after, .. } => *retry_after,
            Self::Refused { .. } | Self::Stale | Self::Invalid(_) => None,
        }
    }
}

fn root<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a dyn std::error::Error {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Declares [`Code`] with its words.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why a server has said no. The words are stable.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// One that this version does not know.
            Other(String),
        }

        impl Code {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for Code {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$name,)*
                    _ => Self::Other(word),
                }
            }
        }
    };
}

codes! {
    /// No user has that key.
    UnknownKey = "unknown_key",
    /// A name that no topic or queue can have.
    InvalidName = "invalid_name",
    /// There is no topic of that name.
    UnknownTopic = "unknown_topic",
    /// There is no queue of that name.
    UnknownQueue = "unknown_queue",
    /// Something else has that name.
    AlreadyExists = "already_exists",
    /// Only who created it may do that.
    NotCreator = "not_creator",
    /// Only subscribers may do that.
    NotSubscribed = "not_subscribed",
    /// The user subscribes to it already.
    AlreadySubscribed = "already_subscribed",
    /// Nobody else can subscribe to it.
    TooManySubscribers = "too_many_subscribers",
    /// The message is not lent under that lease any more.
    LeaseGone = "lease_gone",
    /// The body has too many bytes.
    TooLarge = "too_large",
    /// The request does not say what it should.
    InvalidRequest = "invalid_request",
    /// The request did not come, or was not done, in time.
    RequestTimeout = "request_timeout",
    /// More requests than are allowed.
    TooManyRequests = "too_many_requests",
    /// A queue that the message must go to has no room.
    QueueFull = "queue_full",
    /// What the server needs does not answer now.
    Unavailable = "unavailable",
    /// New users are not let in.
    RegistrationClosed = "registration_closed",
    /// The user has created topics or queues that are still there.
    HasObjects = "has_objects",
    /// What had that name is still being deleted.
    BeingDeleted = "being_deleted",
}

impl Code {
    /// Whether the server has begun, and could not go on: the same request may do a moment later.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable | Self::RequestTimeout)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use platziverse_rpc::refusal;

    use super::*;

    #[test]
    fn codes_are_words_and_back() {
        for word in ["unknown_key", "lease_gone", "being_deleted", "something_new"] {
            assert_eq!(Code::from(word.to_owned()).as_str(), word);
        }
        assert_eq!(Code::from("queue_full".to_owned()), Code::QueueFull);
        assert_eq!(Code::from("other".to_owned()), Code::Other("other".to_owned()));
    }

    #[test]
    fn what_is_worth_another_try() {
        let second = Some(Duration::from_secs(1));
        let refused = |code: &str, wait| {
            Error::of_status(&refusal(tonic::Code::Unavailable, code, "x", wait)).retry()
        };
        assert_eq!(refused("unavailable", None), Some(Duration::ZERO));
        assert_eq!(refused("request_timeout", second), second);
        // Of a topic's subscribers, those that have room have the message.
        assert_eq!(refused("queue_full", second), None);
        assert_eq!(refused("too_many_requests", second), second);
        assert_eq!(refused("too_many_requests", None), None);
        assert_eq!(refused("unknown_queue", None), None);
        let lost = Error::of_status(&Status::unavailable("gone"));
        assert_eq!((lost.retry(), lost.code()), (Some(Duration::ZERO), None));
        let elsewhere = Error::of_status(&Status::unimplemented("what?"));
        assert_eq!(elsewhere.retry(), None);
        assert!(lost.is_passing() && !elsewhere.is_passing());
        assert_eq!(elsewhere.to_string(), "what? (Unimplemented)");
    }
}
