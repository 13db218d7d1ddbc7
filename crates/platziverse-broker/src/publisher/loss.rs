//! Why a connection cannot be used any more, and whether a message is to blame.

use super::gather::Culprit;
use crate::connection::lost_by;
use crate::error::{Closed, NOT_FOUND, channel_closed};

/// Why a connection cannot be used any more.
pub(super) struct Loss {
    pub(super) why: String,
    pub(super) at: LostAt,
}

/// What the fault may lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LostAt {
    /// The connection, or RabbitMQ.
    Connection,
    /// A message, perhaps: only the channel is gone.
    Channel,
    /// A message: RabbitMQ says so.
    Message,
}

impl Loss {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), at: LostAt::Connection }
    }

    pub(super) fn by(error: &lapin::Error) -> Self {
        let at = match channel_closed(error) {
            None => LostAt::Connection,
            // An exchange that is missing is declared again: the message is not to blame.
            Some(Closed::Somehow | Closed::By(NOT_FOUND)) => LostAt::Channel,
            Some(Closed::By(_)) => LostAt::Message,
        };
        Self { why: lost_by(error), at }
    }
}

/// What is wrong with a message at which RabbitMQ closes the channel.
pub(super) fn accusation(culprit: &Culprit, why: &str) -> String {
    let Culprit { lane, bytes, .. } = culprit;
    let (exchange, key) = (lane.exchange(), lane.routing_key());
    format!(
        "{why}, at a message of {bytes} bytes to {exchange} under {key:?}, which is kept and tried \
         again; check max_message_size, and the permissions of amqp.username"
    )
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};
    use lapin::{ChannelState, ErrorKind};

    use super::*;

    #[test]
    fn what_the_fault_lies_in() {
        let protocol =
            |kind: AMQPErrorKind| ErrorKind::ProtocolError(AMQPError::new(kind, "because".into()));
        let soft = |error| protocol(AMQPErrorKind::Soft(error));
        let closed = ErrorKind::InvalidChannelState(ChannelState::Closed, "closed");
        let hard = protocol(AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED));
        for (kind, at, words) in [
            (soft(AMQPSoftError::ACCESSREFUSED), LostAt::Message, "RabbitMQ closed the channel: "),
            (soft(AMQPSoftError::PRECONDITIONFAILED), LostAt::Message, "RabbitMQ closed"),
            (soft(AMQPSoftError::NOTFOUND), LostAt::Channel, "RabbitMQ closed the channel: "),
            (closed, LostAt::Channel, "RabbitMQ closed the channel: "),
            (hard, LostAt::Connection, "the connection was lost: "),
        ] {
            let loss = Loss::by(&kind.into());
            assert_eq!(loss.at, at);
            assert!(loss.why.starts_with(words), "{}", loss.why);
        }
    }
}
