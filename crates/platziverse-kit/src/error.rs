//! What can go wrong with a server.

use platziverse_broker::BrokerError;
use platziverse_broker::aggregator::PostError;
use platziverse_config::UrlError;

/// What can go wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// No URL of RabbitMQ. It is not shown: it may have a password.
    #[error("the URL of RabbitMQ must look like amqp://user:password@host:5672/vhost")]
    Url(#[from] UrlError),
    /// A channel that [`Options`](crate::Options) does not have.
    #[error("there is no channel {channel:?}: there are {known}")]
    UnknownChannel {
        /// The channel.
        channel: String,
        /// Those that there are.
        known: String,
    },
    /// Something that cannot be JSON.
    #[error("the message is no JSON")]
    Json(#[from] serde_json::Error),
    /// RabbitMQ cannot be used as it is.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// RabbitMQ has not confirmed a message: it may have it all the same.
    #[error("the message is not sent")]
    Send(#[from] PostError),
}
