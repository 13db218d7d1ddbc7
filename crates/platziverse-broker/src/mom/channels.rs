//! The connection over which messages are taken, and its channels.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Channel, ErrorKind, Event};
use platziverse_service::chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, interval, sleep, timeout_at};

use super::MomError;
use crate::connection::{Link, close, lost};
use crate::context::RoleLatch;
use crate::error::channel_closed;
use crate::metrics::ConsumerMetrics;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// Names the connection in readiness and metrics.
const ROLE: &str = "mom consumer";
/// Channels for queues in use and for streams. RabbitMQ has 2,047 on a connection by default.
const LASTING_MAX: usize = 1900;
/// Channels of operations that are soon over.
const BRIEF_MAX: usize = 64;
/// How long a channel is waited for when there are as many as RabbitMQ allows: those that were given
/// up just now count until RabbitMQ has closed them.
const CLOSING_PATIENCE: Duration = Duration::from_secs(4);
/// How long until it is tried again meanwhile.
const CLOSING_PAUSE: Duration = Duration::from_millis(50);
/// How long until a connection is tried again that opened no channel.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How often it is looked whether the connection is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether there is a connection.
#[derive(Clone, Debug)]
enum State {
    Up(Arc<lapin::Connection>),
    /// Not now, for that reason.
    Down(String),
}

/// Opens channels on the one connection, which renews itself. It ends when all clones are dropped.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    state: watch::Receiver<State>,
    lasting: Arc<Semaphore>,
    brief: Arc<Semaphore>,
    pub(super) metrics: ConsumerMetrics,
    _alive: watch::Sender<()>,
}

/// A channel that counts among those of its kind until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) channel: Channel,
    _permit: OwnedSemaphorePermit,
}

impl Channels {
    pub(super) async fn start(context: &Context) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let (alive, ended) = watch::channel(());
        let metrics = context.metrics.consumer(ROLE);
        let (state, current) = watch::channel(State::Down("it is not connected yet".to_owned()));
        let task = Task {
            context: context.clone(),
            state,
            ended,
            metrics: metrics.clone(),
            latch: context.latch(ROLE),
            retry: Retry::default(),
        };
        context.drain.spawn(ROLE, task.run(link));
        Ok(Self {
            state: current,
            lasting: Arc::new(Semaphore::new(LASTING_MAX)),
            brief: Arc::new(Semaphore::new(BRIEF_MAX)),
            metrics,
            _alive: alive,
        })
    }

    /// A channel for a queue in use, or a stream.
    pub(super) async fn lasting(&self, deadline: Instant) -> Result<Counted, MomError> {
        let permit = Arc::clone(&self.lasting).try_acquire_owned();
        let permit = permit.map_err(|_| {
            let why = format!("{LASTING_MAX} queues and streams are in use on this server already");
            MomError::TooMany(why)
        })?;
        Ok(Counted { channel: self.open(deadline).await?, _permit: permit })
    }

    /// A channel for one operation.
    pub(super) async fn brief(&self, deadline: Instant) -> Result<Counted, MomError> {
        let permit = timeout_at(deadline, Arc::clone(&self.brief).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(|| {
            MomError::Unavailable("it does not answer to earlier operations".to_owned())
        })?;
        Ok(Counted { channel: self.open(deadline).await?, _permit: permit })
    }

    async fn open(&self, deadline: Instant) -> Result<Channel, MomError> {
        let mut state = self.state.clone();
        let closing = deadline.min(Instant::now() + CLOSING_PATIENCE);
        loop {
            let connection = connected(&mut state, deadline).await?;
            match timeout_at(deadline, connection.create_channel()).await {
                Ok(Ok(channel)) => return Ok(channel),
                Ok(Err(error)) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => {
                    if Instant::now() < closing {
                        sleep(CLOSING_PAUSE).await;
                        continue;
                    }
                    let why = "RabbitMQ allows no more channels on a connection (channel_max)";
                    return Err(MomError::TooMany(why.to_owned()));
                }
                Ok(Err(_)) if Instant::now() < deadline => {
                    // It is lost, as will be known soon.
                    let again = deadline.min(Instant::now() + AGAIN_AFTER);
                    let _ = timeout_at(again, state.changed()).await;
                }
                Ok(Err(error)) => return Err(MomError::Unavailable(chain(&error))),
                Err(_) => {
                    let why = "it opens no channel".to_owned();
                    return Err(MomError::Unavailable(why));
                }
            }
        }
    }
}

/// The connection, once there is one.
async fn connected(
    state: &mut watch::Receiver<State>,
    deadline: Instant,
) -> Result<Arc<lapin::Connection>, MomError> {
    loop {
        let why = match &*state.borrow_and_update() {
            State::Up(connection) => return Ok(Arc::clone(connection)),
            State::Down(why) => why.clone(),
        };
        match timeout_at(deadline, state.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(MomError::ending()),
            Err(_) => return Err(MomError::Unavailable(why)),
        }
    }
}

struct Task {
    context: Context,
    state: watch::Sender<State>,
    ended: watch::Receiver<()>,
    metrics: ConsumerMetrics,
    latch: RoleLatch,
    retry: Retry,
}

impl Task {
    async fn run(mut self, first: Link) {
        let mut next = Some(first);
        while let Some(Link { connection, channel, mut events }) = next.take() {
            drop(channel);
            let connection = Arc::new(connection);
            self.state.send_replace(State::Up(Arc::clone(&connection)));
            self.latch.ready();
            let lost = tokio::select! {
                why = loss(&connection, &mut events) => Some(why),
                () = self.no_longer_needed() => None,
            };
            let reason = lost.clone().unwrap_or_else(|| "this process ends".to_owned());
            self.state.send_replace(State::Down(reason));
            close(&connection).await;
            if let Some(why) = lost {
                self.metrics.reconnects.inc();
                self.latch.not_ready(why);
                next = self.reconnect().await;
            }
        }
    }

    /// Resolves when nobody needs the connection, or the process's end is forced.
    async fn no_longer_needed(&self) {
        let mut ended = self.ended.clone();
        tokio::select! {
            () = async { while ended.changed().await.is_ok() {} } => {}
            () = self.context.drain.forced() => {}
        }
    }

    async fn reconnect(&mut self) -> Option<Link> {
        loop {
            let delay = self.retry.delay();
            let attempt = async {
                sleep(delay).await;
                Link::open(&self.context).await
            };
            let opened = tokio::select! {
                opened = attempt => opened,
                () = self.no_longer_needed() => return None,
            };
            match opened {
                Ok(link) => {
                    self.retry.connected();
                    return Some(link);
                }
                Err(error) => {
                    let why = chain(&error);
                    self.state.send_replace(State::Down(why.clone()));
                    self.latch.not_ready(why);
                }
            }
        }
    }
}

/// Why the connection is lost, once it is. lapin does not always say so: it may have been lost while
/// channels were closed.
async fn loss(
    connection: &lapin::Connection,
    events: &mut (impl StreamExt<Item = Event> + Unpin),
) -> String {
    let mut looks = interval(LOOK_EVERY);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = looks.tick() => match connection.status().connected() {
                true => continue,
                false => return "the connection was lost".to_owned(),
            },
        };
        match event {
            // Whoever uses a channel sees by itself that it is closed.
            Some(Event::Error(error)) if channel_closed(&error).is_some() => {}
            event => {
                if let Some(why) = lost(event) {
                    return why;
                }
            }
        }
    }
}
