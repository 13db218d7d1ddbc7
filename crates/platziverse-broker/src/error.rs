//! What can go wrong with RabbitMQ, in words that say what to do.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;
use platziverse_config::AmqpConfig;

/// AMQP 0-9-1 reply codes.
const ACCESS_REFUSED: u16 = 403;
pub(crate) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
pub(crate) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// An operation on RabbitMQ that failed.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No connection; the text says what to check.
    #[error("cannot connect to RabbitMQ at {address} ({hint})")]
    Connect {
        /// `host:port/vhost`
        address: String,
        /// What to check.
        hint: String,
        /// What came back.
        source: Box<lapin::Error>,
    },
    /// No connection in time.
    #[error(
        "cannot connect to RabbitMQ at {address}: no answer within {after:?} \
         (amqp.connect_timeout); is it RabbitMQ that listens there, and is it well?"
    )]
    ConnectTimeout {
        /// `host:port/vhost`
        address: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A server without what is needed.
    #[error("RabbitMQ at {address} is version {version}; version 3.10 or newer is needed")]
    TooOld {
        /// `host:port/vhost`
        address: String,
        /// What the server says it is.
        version: String,
    },
    /// Something cannot be made to exist.
    #[error("{}", declaring(what, name, source))]
    Declare {
        /// `exchange`, `queue` or `binding`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What came back.
        source: Box<lapin::Error>,
    },
    /// RabbitMQ answers, but is not as it needs to be.
    #[error("preparing RabbitMQ at {address}")]
    Prepare {
        /// `host:port/vhost`
        address: String,
        /// What came back.
        source: Box<BrokerError>,
    },
    /// An operation on an open connection.
    #[error("{doing}")]
    Operation {
        /// What was tried.
        doing: String,
        /// What came back.
        source: Box<lapin::Error>,
    },
    /// An operation on an open connection that was not answered.
    #[error("{doing}: no answer within {after:?}")]
    Timeout {
        /// What was tried.
        doing: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A queue that services declare, before the first of them has.
    #[error("the queue {queue} does not exist yet: start a service first")]
    Missing {
        /// Its name.
        queue: &'static str,
    },
    /// An operation on several dead letters that broke off.
    #[error("after {done} dead letters were {how}")]
    Partly {
        /// How many it was done with.
        done: u64,
        /// What was done with them.
        how: &'static str,
        /// What went wrong then.
        source: Box<BrokerError>,
    },
    /// Dead letters that RabbitMQ will not have where they came from.
    #[error("{}", staying(*count))]
    Unwanted {
        /// How many.
        count: u64,
        /// What was wrong with the first.
        source: Box<BrokerError>,
    },
    /// RabbitMQ would not take a message back.
    #[error("{doing}: RabbitMQ {answer}")]
    Refused {
        /// What was tried.
        doing: String,
        /// What it did instead of confirming.
        answer: &'static str,
    },
}

impl BrokerError {
    pub(crate) fn connecting(config: &AmqpConfig, source: lapin::Error) -> Self {
        let hint = match code(&source) {
            Some(ACCESS_REFUSED) => format!(
                "it refuses the user {:?}: check amqp.username, amqp.password and the user's \
                 permissions for the vhost",
                config.username
            ),
            Some(NOT_ALLOWED) => format!(
                "check that the vhost {:?} (amqp.vhost) exists and that the user {:?} may use it",
                config.vhost, config.username
            ),
            Some(_) => "it closed the connection".to_owned(),
            None if config.tls => {
                "is it running? check amqp.host, amqp.port, and amqp.tls with the server's \
                 certificate"
                    .to_owned()
            }
            None => "is it running? check amqp.host and amqp.port".to_owned(),
        };
        Self::Connect { address: config.address(), hint, source: Box::new(source) }
    }

    pub(crate) fn operation(doing: impl Into<String>, source: lapin::Error) -> Self {
        Self::Operation { doing: doing.into(), source: Box::new(source) }
    }

    pub(crate) fn declare(what: &'static str, name: &str, source: lapin::Error) -> Self {
        Self::Declare { what, name: name.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn preparing(self, config: &AmqpConfig) -> Self {
        Self::Prepare { address: config.address(), source: Box::new(self) }
    }

    /// The same, of an operation that was done with some dead letters before.
    pub(crate) fn after(self, done: u64, how: &'static str) -> Self {
        if done == 0 { self } else { Self::Partly { done, how, source: Box::new(self) } }
    }

    /// The same, of an operation on the queue: in plain words if there is no such queue.
    pub(crate) fn of_queue(self, queue: &'static str) -> Self {
        match &self {
            Self::Operation { source, .. } if code(source) == Some(NOT_FOUND) => {
                Self::Missing { queue }
            }
            _ => self,
        }
    }

    /// Whether it is about an operation at which RabbitMQ closed its channel, or that came after it.
    pub(crate) fn closed_channel(&self) -> bool {
        matches!(self, Self::Operation { source, .. } if channel_closed(source).is_some())
    }

    /// Whether the user may not bind a queue to the topic that it was to be bound to, or unbind it.
    pub(crate) fn is_topic_refused(&self) -> bool {
        // May it not read the exchange at all, no topic is named.
        matches!(self, Self::Operation { source, .. }
            if code(source) == Some(ACCESS_REFUSED) && source.to_string().contains(" topic '"))
    }

    /// Whether a queue of that name belongs to another connection.
    pub(crate) fn is_locked(&self) -> bool {
        match self {
            Self::Declare { source, .. } | Self::Operation { source, .. } => {
                code(source) == Some(RESOURCE_LOCKED)
            }
            Self::Prepare { source, .. }
            | Self::Partly { source, .. }
            | Self::Unwanted { source, .. } => source.is_locked(),
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::TooOld { .. }
            | Self::Timeout { .. }
            | Self::Missing { .. }
            | Self::Refused { .. } => false,
        }
    }
}

fn staying(count: u64) -> String {
    match count {
        1 => "1 dead letter cannot be sent back and stays".to_owned(),
        _ => format!("{count} dead letters cannot be sent back and stay; why the first"),
    }
}

fn declaring(what: &str, name: &str, source: &lapin::Error) -> String {
    match code(source) {
        Some(PRECONDITION_FAILED) => format!(
            "the {what} {name} exists in RabbitMQ with other arguments than the settings say \
             (limits of queues are in section ingest); either set them back, or empty and delete \
             the {what}, and it is declared anew"
        ),
        Some(ACCESS_REFUSED) => format!(
            "the user (amqp.username) may not declare the {what} {name}: it needs the permissions \
             configure, write and read"
        ),
        _ => format!("declaring the {what} {name}"),
    }
}

/// Why a channel is closed while its connection may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// RabbitMQ closed it because of one operation, with this reply code.
    By(u16),
    /// It is not known why.
    Somehow,
}

/// Whether an error is about the channel only (AMQP 0-9-1, 1.2).
pub(crate) fn channel_closed(error: &lapin::Error) -> Option<Closed> {
    match error.kind() {
        ErrorKind::ProtocolError(error) if matches!(error.kind(), AMQPErrorKind::Soft(_)) => {
            Some(Closed::By(error.get_id()))
        }
        ErrorKind::InvalidChannelState(..) => Some(Closed::Somehow),
        _ => None,
    }
}

/// Whether RabbitMQ does not have what was asked for.
pub(crate) fn is_not_found(error: &lapin::Error) -> bool {
    code(error) == Some(NOT_FOUND)
}

/// Whether RabbitMQ has what was declared, in another form.
pub(crate) fn is_precondition_failed(error: &lapin::Error) -> bool {
    code(error) == Some(PRECONDITION_FAILED)
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}
