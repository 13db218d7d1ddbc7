//! Consuming a queue as a stream, on a channel of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{Acker, Consumer};
use platziverse_service::Drain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::buffer::{Buffers, Held, Share};
use super::channels::{Channels, Counted};
use super::message::{MomMessage, StreamDelivery};
use super::{MomError, now_or_later};
use crate::Context;
use crate::connection::lost_by;
use crate::message::{Message, handed};
use crate::publisher::short;
use crate::retry::Retry;

/// Unsettled messages that one stream may hold.
const PREFETCH_MAX: u16 = 1_000;
/// How long a stream may take to begin.
const BEGIN_PATIENCE: Duration = Duration::from_secs(5);
/// A stream that holds too many bytes goes on with so many times fewer messages.
const FEWER: u16 = 4;
/// How long it tries to go on after it has lost its channel.
const AGAIN_PATIENCE: Duration = Duration::from_secs(60);

/// What is consumed from a queue, on a channel of its own. A lost connection is renewed: what was
/// not settled comes again; as it does when the client takes too slowly, with fewer at a time.
/// Dropped, the stream gives back what is not settled.
#[derive(Debug)]
pub struct MomStream {
    incoming: mpsc::Receiver<Result<u64, MomError>>,
    settler: Settler,
    drain: Drain,
}

/// Settles what a [`MomStream`] delivered. Clones settle the same stream's.
#[derive(Clone, Debug, Default)]
pub struct Settler(Arc<Mutex<HashMap<u64, Unsettled>>>);

/// A message that is not settled, and is here until it is handed over.
#[derive(Debug)]
struct Unsettled {
    acker: Acker,
    message: Option<(MomMessage, Held)>,
}

impl MomStream {
    /// The next message; none once the process has been asked to end, and after an error.
    pub async fn next(&mut self) -> Option<Result<StreamDelivery, MomError>> {
        loop {
            let item = tokio::select! {
                biased;
                () = self.drain.requested() => return None,
                item = self.incoming.recv() => item?,
            };
            let tag = match item {
                Ok(tag) => tag,
                Err(error) => return Some(Err(error)),
            };
            // What came over a channel that is lost comes again.
            if let Some(message) = self.settler.message(tag) {
                return Some(Ok(StreamDelivery { message, tag }));
            }
        }
    }

    /// Settles what this delivers, also while somebody waits for the next.
    pub fn settler(&self) -> Settler {
        self.settler.clone()
    }

    /// The message may be forgotten: see [`Settler::ack`].
    pub async fn ack(&self, tag: u64) -> Result<(), MomError> {
        self.settler.ack(tag).await
    }

    /// The message goes back to the queue: see [`Settler::nack`].
    pub async fn nack(&self, tag: u64) -> Result<(), MomError> {
        self.settler.nack(tag).await
    }
}

impl Settler {
    /// The message may be forgotten. [`MomError::LeaseGone`] if it is settled already, or has gone
    /// back to the queue, as when the connection was lost.
    pub async fn ack(&self, tag: u64) -> Result<(), MomError> {
        let acker = self.take(tag)?;
        settled(handed(acker.ack(BasicAckOptions { multiple: false })).await)
    }

    /// The message goes back to the queue, which counts as a delivery.
    pub async fn nack(&self, tag: u64) -> Result<(), MomError> {
        let acker = self.take(tag)?;
        settled(handed(acker.reject(BasicRejectOptions { requeue: true })).await)
    }

    fn take(&self, tag: u64) -> Result<Acker, MomError> {
        let unsettled = self.table().remove(&tag).ok_or(MomError::LeaseGone)?;
        Ok(unsettled.acker)
    }

    fn message(&self, tag: u64) -> Option<MomMessage> {
        let (message, _held) = self.table().get_mut(&tag)?.message.take()?;
        Some(message)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<u64, Unsettled>> {
        // The table is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settled(is_settled: bool) -> Result<(), MomError> {
    if is_settled { Ok(()) } else { Err(MomError::LeaseGone) }
}

/// What belongs to one channel. It closes when this is dropped.
struct Source {
    counted: Counted,
    consumer: Consumer,
}

struct Task {
    channels: Channels,
    name: Arc<str>,
    queue: String,
    prefetch: u16,
    outgoing: mpsc::Sender<Result<u64, MomError>>,
    settler: Settler,
    share: Arc<Share>,
    drain: Drain,
    tag: u64,
}

/// How the use of a channel ended.
enum End {
    /// Nobody listens any more, or the process ends.
    Asked,
    Lost(String),
    /// It holds too many bytes that its client has not taken.
    TooMuch,
}

/// Begins a stream.
pub(super) async fn start(
    context: &Context,
    channels: &Channels,
    buffers: &Buffers,
    queue: &str,
    prefetch: u16,
) -> Result<MomStream, MomError> {
    let prefetch = prefetch.clamp(1, PREFETCH_MAX);
    let (outgoing, incoming) = mpsc::channel(usize::from(prefetch));
    let (settler, drain) = (Settler::default(), context.drain.clone());
    let task = Task {
        channels: channels.clone(),
        name: Arc::clone(&context.name),
        queue: queue.to_owned(),
        prefetch,
        outgoing,
        settler: settler.clone(),
        share: buffers.share(),
        drain: drain.clone(),
        tag: 0,
    };
    let source = task.open(Instant::now() + BEGIN_PATIENCE).await?;
    drain.spawn_isolated(task.run(source));
    Ok(MomStream { incoming, settler, drain })
}

impl Task {
    async fn run(mut self, first: Source) {
        let mut source = first;
        loop {
            let end = self.serve(&mut source).await;
            let next = match end {
                End::Asked => break,
                End::Lost(_) | End::TooMuch => {
                    drop(source);
                    self.settler.table().clear();
                    match end {
                        End::TooMuch if self.prefetch == 1 => Some(Err(too_much())),
                        End::TooMuch => {
                            self.prefetch = (self.prefetch / FEWER).max(1);
                            self.again("the stream held too many bytes".to_owned()).await
                        }
                        End::Lost(why) => self.again(why).await,
                        End::Asked => None,
                    }
                }
            };
            source = match next {
                Some(Ok(next)) => next,
                Some(Err(error)) => {
                    // Whoever has stopped listening needs no reason.
                    let _ = self.outgoing.send(Err(error)).await;
                    return;
                }
                None => return,
            };
        }
        // What was delivered can still be settled, until nobody would.
        let consumer = source.consumer.tag();
        let options = BasicCancelOptions::default();
        now_or_later(source.counted.channel.basic_cancel(consumer, options));
        tokio::select! {
            () = self.outgoing.closed() => {}
            () = self.drain.forced() => {}
        }
    }

    /// Delivers until the channel is lost, or the stream ends.
    async fn serve(&mut self, source: &mut Source) -> End {
        loop {
            let item = tokio::select! {
                item = source.consumer.next() => item,
                () = self.outgoing.closed() => return End::Asked,
                () = self.drain.requested() => return End::Asked,
            };
            let delivery = match item {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return End::Lost(lost_by(&error)),
                // Asked again, it says whether the queue is gone.
                None => return End::Lost("RabbitMQ cancelled the consumer".to_owned()),
            };
            self.channels.metrics.deliveries.inc();
            self.tag += 1;
            let (message, acker) = Message::split(delivery);
            let message = MomMessage::of(message);
            let Some(held) = self.share.hold(message.body.len()) else { return End::TooMuch };
            let unsettled = Unsettled { acker, message: Some((message, held)) };
            self.settler.table().insert(self.tag, unsettled);
            let sending = self.outgoing.send(Ok(self.tag));
            tokio::select! {
                sent = sending => if sent.is_err() { return End::Asked },
                () = self.drain.requested() => return End::Asked,
            }
        }
    }

    /// Consumes again; none if nobody listens any more.
    async fn again(&self, lost: String) -> Option<Result<Source, MomError>> {
        let deadline = Instant::now() + AGAIN_PATIENCE;
        let (mut retry, mut why) = (Retry::default(), MomError::Unavailable(lost));
        while Instant::now() < deadline {
            let opening = self.open(deadline);
            let opened = tokio::select! {
                opened = opening => opened,
                () = self.outgoing.closed() => return None,
                () = self.drain.requested() => return None,
            };
            match opened {
                Err(MomError::Unavailable(text)) => why = MomError::Unavailable(text),
                opened => return Some(opened),
            }
            tokio::select! {
                () = sleep(retry.delay()) => {}
                () = self.outgoing.closed() => return None,
                () = self.drain.requested() => return None,
            }
        }
        Some(Err(why))
    }

    async fn open(&self, deadline: Instant) -> Result<Source, MomError> {
        let counted = self.channels.lasting(deadline).await?;
        let channel = &counted.channel;
        let consuming = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (short(&self.queue), short(&self.name));
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue, tag, options, FieldTable::default()).await
        };
        match timeout_at(deadline, consuming).await {
            Ok(Ok(consumer)) => Ok(Source { counted, consumer }),
            Ok(Err(error)) => Err(MomError::by(&error)),
            Err(_) => Err(MomError::Unavailable("it does not answer".to_owned())),
        }
    }
}

fn too_much() -> MomError {
    let why = "all streams together hold as many bytes as they may; some must be taken faster";
    MomError::TooMany(why.to_owned())
}
