//! Connections: opened with a deadline and a name, and closed in order.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::{Channel, ConnectionProperties, Event};
use platziverse_config::AmqpConfig;
use tokio::time::timeout;

use crate::error::channel_closed;
use crate::topology::{Topology, declare};
use crate::{BrokerError, Context, attempt, version};

/// How long RabbitMQ may take for one operation of setting up: a quorum queue elects a leader.
pub(crate) const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const REPLY_SUCCESS: u16 = 200;

/// A connection for an operator's command. It does not reconnect.
#[derive(Debug)]
pub struct Connection {
    inner: lapin::Connection,
}

/// Connects under a name that the management UI shows; the server must be RabbitMQ 3.10 or newer.
pub async fn connect(config: &AmqpConfig, name: &str) -> Result<Connection, BrokerError> {
    version::check(config).await?;
    Ok(Connection { inner: open(config, name).await? })
}

impl Connection {
    /// Declares everything that `topology` says.
    pub async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let declaring = declare(&self.inner, &channel, topology);
        within("declaring exchanges and queues", declaring).await
    }

    /// Closes the connection, so that RabbitMQ does not log a lost one.
    pub async fn close(self) {
        close(&self.inner).await;
    }

    pub(crate) async fn channel(&self) -> Result<Channel, BrokerError> {
        open_channel(&self.inner).await
    }
}

/// An open connection of a task, with the one channel that the task uses.
pub(crate) struct Link {
    pub(crate) connection: lapin::Connection,
    pub(crate) channel: Channel,
    pub(crate) events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Link {
    /// Connects and declares the topology.
    pub(crate) async fn open(context: &Context) -> Result<Self, BrokerError> {
        let connection = open(&context.amqp, &context.name).await?;
        let events = connection.events_listener().boxed();
        let prepared = async {
            let channel = open_channel(&connection).await?;
            let declared = declare(&connection, &channel, &context.topology);
            within("declaring exchanges and queues", declared).await?;
            Ok(channel)
        };
        let prepared = prepared.await;
        let channel = prepared.map_err(|error: BrokerError| error.preparing(&context.amqp))?;
        Ok(Self { connection, channel, events })
    }

    /// The same, at the start of a process: checks the server's version too.
    pub(crate) async fn open_first(context: &Context) -> Result<Self, BrokerError> {
        // Once: RabbitMQ logs a warning for a handshake that is not finished.
        if !context.version_checked.load(Ordering::Relaxed) {
            version::check(&context.amqp).await?;
            context.version_checked.store(true, Ordering::Relaxed);
        }
        Self::open(context).await
    }

    /// The same connection after RabbitMQ has closed its channel.
    pub(crate) async fn with_new_channel(mut self) -> Result<Self, BrokerError> {
        let channel = self.new_channel().await?;
        Ok(Self { channel, ..self })
    }

    /// One more channel.
    pub(crate) async fn new_channel(&mut self) -> Result<Channel, BrokerError> {
        open_channel(&self.connection).await
    }

    pub(crate) async fn close(self) {
        close(&self.connection).await;
    }
}

async fn open(config: &AmqpConfig, name: &str) -> Result<lapin::Connection, BrokerError> {
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "Platziverse".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let uri = config.uri();
    let connecting = attempt::connect(uri.expose(), properties, config.connect_timeout);
    match timeout(config.connect_timeout, connecting).await {
        Ok(connected) => connected.map_err(|source| BrokerError::connecting(config, source)),
        Err(_) => Err(BrokerError::ConnectTimeout {
            address: config.address(),
            after: config.connect_timeout,
        }),
    }
}

async fn open_channel(connection: &lapin::Connection) -> Result<Channel, BrokerError> {
    asked("opening a channel", connection.create_channel()).await
}

/// Asks RabbitMQ for something, and gives it [`SETUP_TIMEOUT`] to answer.
pub(crate) async fn asked<T>(
    doing: &str,
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    within(doing, async { operation.await.map_err(|source| BrokerError::operation(doing, source)) })
        .await
}

/// Gives RabbitMQ [`SETUP_TIMEOUT`] for an operation.
pub(crate) async fn within<T>(
    doing: &str,
    operation: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    timeout(SETUP_TIMEOUT, operation).await.unwrap_or_else(|_| {
        Err(BrokerError::Timeout { doing: doing.to_owned(), after: SETUP_TIMEOUT })
    })
}

pub(crate) async fn close(connection: &lapin::Connection) {
    let closing = connection.close(REPLY_SUCCESS, "closed in order".into());
    // A connection that is gone, or does not answer, is closed enough.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Why a connection cannot be used any more, if that is what an event says.
pub(crate) fn lost(event: Option<Event>) -> Option<String> {
    match event {
        Some(Event::Error(error)) => Some(lost_by(&error)),
        Some(_) => None,
        None => Some("the connection was lost".to_owned()),
    }
}

/// The same, of an error.
pub(crate) fn lost_by(error: &lapin::Error) -> String {
    match channel_closed(error) {
        Some(_) => format!("RabbitMQ closed the channel: {error}"),
        None => format!("the connection was lost: {error}"),
    }
}
