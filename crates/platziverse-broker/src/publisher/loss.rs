//! Why a connection cannot be used any more, and whether a message is to blame.

use lapin::ErrorKind;

use super::gather::Culprit;
use crate::connection::lost_by;
use crate::error;

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
        let at = match error.kind() {
            _ if error::is_soft(error) => LostAt::Message,
            ErrorKind::InvalidChannelState(..) => LostAt::Channel,
            _ => LostAt::Connection,
        };
        let why = match at {
            LostAt::Connection => lost_by(error),
            LostAt::Channel | LostAt::Message => format!("RabbitMQ closed the channel: {error}"),
        };
        Self { why, at }
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
