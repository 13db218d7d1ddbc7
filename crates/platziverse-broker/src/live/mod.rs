//! Exclusive queues of one process: what it listens to, bound and unbound while it runs.

mod acts;
mod bindings;
mod task;

use std::fmt;
use std::time::Duration;

use platziverse_service::Drain;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use self::task::{PREFETCH, Task};
use crate::connection::Link;
use crate::message::Message;
use crate::{BrokerError, Context, topology};

/// How long [`LiveHandle::rebind`] waits for RabbitMQ.
const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of messages that wait for one gateway: 256 MiB. A message has up to 256 records.
const LIVE_BYTES_MAX: u32 = 256 << 20;
/// Bytes of heartbeats that wait for one process: 16 MiB.
const HEARTBEAT_BYTES_MAX: u32 = 16 << 20;

/// Messages about clients that wait for one aggregator, all of them small, and their bytes: 16 MiB.
const CLIENTS_LENGTH_MAX: u32 = 100_000;
const CLIENTS_BYTES_MAX: u32 = 16 << 20;

/// An exclusive queue: what it is called, what it is bound to, and its limits.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Names it in readiness and metrics.
    pub role: &'static str,
    /// The queue's name.
    pub queue: String,
    /// The exchange that it is bound to.
    pub exchange: &'static str,
    /// What it is bound to from the start.
    pub keys: Vec<String>,
    /// Messages in the queue; beyond it, the oldest are dropped.
    pub length_max: u32,
    /// Bytes of them; beyond it, the oldest are dropped.
    pub bytes_max: u32,
    /// How long a message waits in the queue before it is dropped.
    pub ttl: Option<Duration>,
}

impl LiveOptions {
    /// The queue `platziverse.live.<instance>` of what goes to subscribers, not bound to anything
    /// yet.
    pub fn live(instance: &impl fmt::Display, length_max: u32) -> Self {
        Self {
            role: "live",
            queue: format!("{}.{instance}", topology::LIVE),
            exchange: topology::LIVE,
            keys: Vec::new(),
            length_max,
            bytes_max: LIVE_BYTES_MAX,
            ttl: None,
        }
    }

    /// The queue `platziverse.clients.<instance>` of what goes to the aggregators that have a client;
    /// to be bound with the id of each that this one has, and with `own`, by which others know that it
    /// is there.
    pub fn clients(instance: &impl fmt::Display, own: String) -> Self {
        Self {
            role: "clients",
            queue: format!("{}.{instance}", topology::CLIENTS),
            exchange: topology::CLIENTS,
            keys: vec![own],
            length_max: CLIENTS_LENGTH_MAX,
            bytes_max: CLIENTS_BYTES_MAX,
            // Nobody waits for longer that a session ends elsewhere.
            ttl: Some(Duration::from_secs(60)),
        }
    }

    /// The queue `platziverse.heartbeat.<instance>` of everybody's heartbeats.
    pub fn heartbeat(instance: &impl fmt::Display) -> Self {
        Self {
            role: "heartbeat",
            queue: format!("{}.{instance}", topology::HEARTBEAT),
            exchange: topology::HEARTBEAT,
            keys: vec![String::new()],
            length_max: 10_000,
            bytes_max: HEARTBEAT_BYTES_MAX,
            // An old beat says nothing about who lives now.
            ttl: Some(Duration::from_secs(10)),
        }
    }
}

/// An exclusive queue with its consumer on a connection of its own. After a reconnect it is made
/// and bound anew; what was published in between is not in it.
///
/// A key that RabbitMQ's topic permissions do not let us bind is left out, with a warning, and asked
/// for again every five minutes and on every new connection.
#[derive(Debug)]
pub struct LiveQueue;

/// Binds and unbinds a [`LiveQueue`]. Clones are handles on the same queue.
#[derive(Clone, Debug)]
pub struct LiveHandle {
    /// Not bounded, so that a change takes its place in the order when it is asked for; each
    /// subscriber asks for a bounded number before it waits.
    commands: mpsc::UnboundedSender<Change>,
    listening: watch::Receiver<Option<Instant>>,
}

/// What arrives in a [`LiveQueue`]. Dropped, the queue ends.
#[derive(Debug)]
pub struct LiveMessages {
    incoming: mpsc::Receiver<Message>,
    drain: Drain,
}

/// When a binding is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// RabbitMQ has it.
    Now,
    /// RabbitMQ did not answer in time, or refused it or another one; it is bound as soon as there is
    /// a connection and RabbitMQ permits it.
    Later,
}

/// What one [`LiveHandle::rebind`] asks for.
#[derive(Debug)]
struct Change {
    bind: Vec<String>,
    unbind: Vec<String>,
    done: oneshot::Sender<()>,
}

impl LiveQueue {
    /// Connects, declares the queue and consumes it. Later it reconnects by itself, but what is
    /// wrong at the start is the caller's to tell.
    pub async fn start(
        context: &Context,
        options: LiveOptions,
    ) -> Result<(LiveHandle, LiveMessages), BrokerError> {
        let role = options.role;
        let (commands, orders) = mpsc::unbounded_channel();
        let (outgoing, incoming) = mpsc::channel(usize::from(PREFETCH));
        let (listening_now, listening) = watch::channel(None);
        let mut task = Task::new(context, options, orders, outgoing, listening_now);
        let link = Link::open_first(context).await?;
        let source = task.listen(link).await?;
        context.drain.spawn(role, task.run(source));
        let messages = LiveMessages { incoming, drain: context.drain.clone() };
        Ok((LiveHandle { commands, listening }, messages))
    }
}

impl LiveHandle {
    /// Binds the queue under the keys of `bind`, then unbinds it from those of `unbind`. Keys are
    /// counted: one that was bound twice stays bound until it has been unbound twice.
    ///
    /// Changes are made in the order of the calls, whether or not the future is awaited. It
    /// resolves when RabbitMQ has every binding of `bind`, at the latest after 5 s, and at once
    /// when there is none to wait for.
    pub fn rebind(
        &self,
        bind: Vec<String>,
        unbind: Vec<String>,
    ) -> impl Future<Output = Bound> + Send + 'static + use<> {
        let patience = Instant::now() + BIND_PATIENCE;
        let waits = !bind.is_empty();
        let (done, bound) = oneshot::channel();
        // A queue that has ended is not bound to anything.
        let _ = self.commands.send(Change { bind, unbind, done });
        async move {
            if !waits {
                return Bound::Now;
            }
            match timeout_at(patience, bound).await {
                Ok(Ok(())) => Bound::Now,
                Ok(Err(_)) | Err(_) => Bound::Later,
            }
        }
    }

    /// Since when the queue has heard everything that it is bound to; none while it is not
    /// connected.
    pub fn listening_since(&self) -> Option<Instant> {
        *self.listening.borrow()
    }
}

impl LiveMessages {
    /// The next message; none once the process has been asked to end.
    pub async fn next(&mut self) -> Option<Message> {
        tokio::select! {
            biased;
            () = self.drain.requested() => None,
            message = self.incoming.recv() => message,
        }
    }

    /// A message that is here already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.incoming.try_recv().ok()
    }
}
