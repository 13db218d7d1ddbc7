//! What all sessions of an aggregator share.

use std::sync::Arc;
use std::time::Duration;

use platziverse_broker::aggregator::{ClaimId, Kind, Post, Sender, SenderSettings, Sent, To};
use platziverse_broker::topology::{REQUESTS, StreamLimits, Topology, outbound_stream};
use platziverse_broker::{BrokerError, Context, LiveOptions, LiveQueue};
use platziverse_broker::{LogItem, LogOptions, LogReader, LogStart};
use platziverse_config::AggregatorConfig;
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Drain, Service, clock};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::auth::{Authenticator, WrongKey};
use crate::channel::{Channel, Channels};
use crate::claims::{self, ClaimQueue, Claims};
use crate::doors::Doors;
use crate::feed;
use crate::hub::Hub;
use crate::markers::Markers;
use crate::metrics::AggregatorMetrics;
use crate::presence::Presence;
use crate::requests::RequestBook;
use crate::resume::Signer;

/// How long RabbitMQ may take to confirm a message.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of clients' messages on their way to RabbitMQ.
const IN_FLIGHT_BYTES: usize = 32 << 20;
/// How long a marker may take to come back before another one is sent.
const MARKER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that comes back waits for what reads a stream.
const READ_ON_PATIENCE: Duration = Duration::from_secs(10);
/// How long after a failed marker the next one is sent.
const MARKER_PAUSE: Duration = Duration::from_millis(500);
/// Sessions that may read on in RabbitMQ's streams at a time.
const READERS: usize = 8;

/// Why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// RabbitMQ is not as it needs to be.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A setting is not what it should be.
    #[error(transparent)]
    Key(#[from] WrongKey),
    /// No randomness can be had for the secret of resume tokens.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// What all sessions share.
pub struct Core {
    pub(crate) settings: AggregatorConfig,
    pub(crate) channels: Channels,
    hubs: Vec<Hub>,
    pub(crate) sender: Sender,
    pub(crate) book: RequestBook,
    pub(crate) claims: Claims,
    pub(crate) markers: Markers,
    pub(crate) presence: Presence,
    pub(crate) doors: Arc<Doors>,
    pub(crate) signer: Signer,
    pub(crate) authenticator: Authenticator,
    pub(crate) metrics: AggregatorMetrics,
    pub(crate) drain: Drain,
    pub(crate) farewell: Duration,
    pub(crate) context: Context,
    pub(crate) readers: Arc<Semaphore>,
}

impl Core {
    /// Connects to RabbitMQ, and reads what was distributed of late: when this is done, nothing that
    /// is sent to clients from now on is missed.
    pub async fn start(service: &Service) -> Result<Arc<Self>, CoreError> {
        let settings = service.settings.aggregator.clone();
        let streams = StreamLimits::from(&settings);
        let ingest = &service.settings.ingest;
        let topology = Topology::for_aggregator(&settings.channels, ingest, streams);
        let context = Context::new(service, topology);
        let publishing =
            SenderSettings { publish_timeout: PUBLISH_TIMEOUT, in_flight_bytes: IN_FLIGHT_BYTES };
        let sender = Sender::start(&context, publishing).await?;
        let id = Uuid::now_v7();
        let live = LiveOptions::clients(&service.instance, ClaimId::owner_key(id));
        let (handle, messages) = LiveQueue::start(&context, live).await?;
        let metrics = AggregatorMetrics::new(&service.metrics);
        let (claiming, claimed) = Claims::new();
        let core = Arc::new(Self {
            channels: Channels::new(&settings.channels),
            hubs: settings.channels.iter().map(|_| Hub::new(settings.recent_bytes)).collect(),
            sender,
            book: RequestBook::new(id, settings.request_window.max(claims::HELD)),
            claims: claiming,
            markers: Markers::default(),
            presence: Presence::new(handle, settings.resume_window, settings.sockets_max),
            doors: Doors::new(&settings, metrics.sockets.clone()),
            signer: signer(&settings)?,
            authenticator: Authenticator::new(&settings)?,
            metrics,
            drain: service.drain.clone(),
            farewell: service.settings.ops.drain_timeout.mul_f32(0.75),
            readers: Arc::new(Semaphore::new(READERS)),
            context,
            settings,
        });
        core.follow(claimed).await?;
        let looking = Arc::clone(&core);
        core.drain.spawn("presence", async move { looking.presence.look_after(messages).await });
        core.caught_up().await;
        Ok(core)
    }

    /// The hub of a channel.
    pub(crate) fn hub(&self, channel: Channel) -> Option<&Hub> {
        self.hubs.get(channel.index())
    }

    /// The offset of what comes next in a channel.
    pub(crate) fn next(&self, channel: Channel) -> u64 {
        self.hub(channel).and_then(Hub::next).unwrap_or_default()
    }

    /// Reads a channel's stream up to now; whether that was possible in time. What reads it may be a
    /// little behind, or be connecting again.
    pub(crate) async fn read_on(&self, channel: Channel) -> bool {
        let name = self.channels.name(channel).to_owned();
        let marking = self.mark(move |id| To::ChannelMarker { channel: name.clone(), id });
        timeout(READ_ON_PATIENCE, marking).await.is_ok()
    }

    /// Follows every stream, each by a task.
    async fn follow(self: &Arc<Self>, mut claimed: ClaimQueue) -> Result<(), CoreError> {
        for channel in self.channels.iter() {
            let stream = outbound_stream(self.channels.name(channel));
            let reader = self.read("channels", stream, self.settings.resume_window).await?;
            let core = Arc::clone(self);
            self.drain
                .spawn("channels", async move { feed::channel(&core, channel, reader).await });
        }
        let window = self.settings.request_window;
        let reader = self.read("requests", REQUESTS.to_owned(), window).await?;
        let core = Arc::clone(self);
        self.drain.spawn("requests", async move { core.hear_requests(reader).await });
        let core = Arc::clone(self);
        self.drain.spawn("claims", async move {
            let claiming = async {
                loop {
                    let batch = claimed.next().await;
                    core.mark(|id| To::Marker { id, claims: batch.claims() }).await;
                    batch.written();
                }
            };
            tokio::select! {
                () = claiming => {}
                () = core.drain.requested() => {}
            }
        });
        Ok(())
    }

    async fn read(
        &self,
        role: &'static str,
        stream: String,
        since: Duration,
    ) -> Result<LogReader, BrokerError> {
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let start = clock::now().as_millis().saturating_sub(since).max(0);
        let from = LogStart::Time(Timestamp::from_millis(start).unwrap_or_else(|_| clock::now()));
        LogReader::start(&self.context, LogOptions { role, stream, from }).await
    }

    /// Waits until every stream has been read up to now.
    async fn caught_up(&self) {
        let channels = self.channels.iter().map(|channel| {
            let name = self.channels.name(channel).to_owned();
            self.mark(move |id| To::ChannelMarker { channel: name.clone(), id })
        });
        let marked = async {
            self.mark(|id| To::Marker { id, claims: Vec::new() }).await;
            futures_util::future::join_all(channels).await;
        };
        tokio::select! {
            () = marked => {}
            () = self.drain.requested() => {}
        }
    }

    /// Publishes a marker until it has come back.
    async fn mark(&self, to: impl Fn(Uuid) -> To) {
        let id = Uuid::now_v7();
        let publishing = async {
            loop {
                let post = Post::new(to(id), Kind::Publish, "");
                let is_stored = self.sender.hand(post).await.confirmed().await.is_ok();
                // A stream may have been made anew, and the marker have gone with it.
                sleep(if is_stored { MARKER_PATIENCE } else { MARKER_PAUSE }).await;
            }
        };
        tokio::select! {
            biased;
            () = self.markers.seen(id) => {}
            () = publishing => {}
        }
    }

    async fn hear_requests(&self, mut reader: LogReader) {
        while let Some(item) = reader.next().await {
            let LogItem::Message(_, message) = item else { continue };
            match Sent::read(&message) {
                Sent::Request { client, id, .. } => self.book.stored(&client, &id),
                Sent::Withdrawn { client, id } => self.book.withdraw(&client, &id),
                Sent::Marker(id, claims) => {
                    claims.iter().for_each(|claim| self.book.hear(claim));
                    self.markers.note(id);
                }
                Sent::Other => {}
            }
        }
    }
}

fn signer(settings: &AggregatorConfig) -> Result<Signer, CoreError> {
    if let Some(secret) = &settings.session_secret {
        return Ok(Signer::new(secret.expose().as_bytes()));
    }
    tracing::info!(
        "aggregator.session_secret is not set: a client can go on with its session at this process only"
    );
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(CoreError::Random)?;
    Ok(Signer::new(&secret))
}
