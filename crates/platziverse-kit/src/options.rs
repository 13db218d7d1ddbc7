//! How a server is set up.

use std::time::Duration;

use platziverse_broker::Topology;
use platziverse_broker::topology::StreamLimits;
use platziverse_config::{AmqpConfig, Settings};

use crate::KitError;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) name: &'static str,
    pub(crate) settings: Settings,
    pub(crate) prefetch: u16,
    pub(crate) concurrency: u16,
    pub(crate) attempts: u32,
    pub(crate) handler_timeout: Duration,
}

impl Options {
    /// For the RabbitMQ of that URL, `amqp[s]://user:password@host:port/vhost`, with the channels
    /// voice, chat and tickets.
    ///
    /// # Errors
    ///
    /// [`KitError::Url`] if it is no such URL.
    pub fn new(url: &str) -> Result<Self, KitError> {
        let amqp = AmqpConfig::from_url(url)?;
        Ok(Self::of(Settings { amqp, ..Settings::default() }))
    }

    /// With the settings that the aggregator has: the RabbitMQ of `amqp`, the channels and streams of
    /// `aggregator`, and the limits of queues of `ingest`.
    pub fn of(settings: Settings) -> Self {
        Self {
            name: "server",
            settings,
            prefetch: 20,
            concurrency: 20,
            attempts: 3,
            handler_timeout: Duration::from_secs(60),
        }
    }

    /// What its connections are called, as in `platziverse-server@host:1a2b3c4d`; `server` by default.
    #[must_use]
    pub fn name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// The channels that there are, in lower case: `aggregator.channels`.
    #[must_use]
    pub fn channels<'a>(mut self, channels: impl IntoIterator<Item = &'a str>) -> Self {
        self.settings.aggregator.channels = channels.into_iter().map(str::to_owned).collect();
        self
    }

    /// Messages of each channel that this server holds unsettled, 20 by default, at least 1. Others go
    /// to other servers meanwhile.
    #[must_use]
    pub fn prefetch(self, prefetch: u16) -> Self {
        Self { prefetch: prefetch.max(1), ..self }
    }

    /// Handlers at a time, over all channels: 20 by default, at least 1. With 1, messages of a channel
    /// are done in their order as long as no server ends.
    #[must_use]
    pub fn concurrency(self, concurrency: u16) -> Self {
        Self { concurrency: concurrency.max(1), ..self }
    }

    /// How often a handler may try before its error counts, 3 by default, at least 1.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..self }
    }

    /// How long each attempt may take, 1 min by default. RabbitMQ takes back what is held for longer
    /// than 30 min.
    #[must_use]
    pub fn handler_timeout(self, handler_timeout: Duration) -> Self {
        Self { handler_timeout, ..self }
    }

    /// What must be there. Queues that the aggregator has made stay as they are, whatever its limits.
    pub(crate) fn topology(&self) -> Topology {
        let aggregator = &self.settings.aggregator;
        let streams = StreamLimits::from(aggregator);
        let mut topology =
            Topology::for_aggregator(&aggregator.channels, &self.settings.ingest, streams);
        for queue in &mut topology.queues {
            queue.if_missing = true;
        }
        topology
    }
}
