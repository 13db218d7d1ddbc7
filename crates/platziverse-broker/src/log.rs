//! Following a stream of RabbitMQ: a queue that keeps what was read, where each message has a place.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, Channel};
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Drain, chain};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::{Link, REPLY_SUCCESS, asked, lost, lost_by};
use crate::context::RoleLatch;
use crate::message::{Message, handed};
use crate::metrics::ConsumerMetrics;
use crate::publisher::short;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// The header in which RabbitMQ says a message's place.
const OFFSET: &str = "x-stream-offset";
/// Messages that RabbitMQ sends ahead.
const PREFETCH: u16 = 500;
/// Acknowledged at once, so many.
const ACK_EVERY: u16 = 100;
/// How long a stream may take to show a message that it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often in a row a stream may fail to show what was read of it, until it is taken to be another
/// one that is shorter. A replica may be behind for a moment.
const MISSES_MAX: u32 = 2;

/// What is followed, and from where.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Names it in readiness and metrics.
    pub role: &'static str,
    /// The stream; part of the context's topology.
    pub stream: String,
    /// Where to begin.
    pub from: LogStart,
}

/// Where to begin in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStart {
    /// With the message of an offset, or the first after it that is kept. An offset that the stream
    /// has not reached is waited for.
    Offset(u64),
    /// About there: never after, and a part of the stream earlier at most. That RabbitMQ keeps
    /// nothing so old is not told.
    Time(Timestamp),
}

/// What a stream has next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are messages")]
pub enum LogItem {
    /// A message, and its offset.
    Message(u64, Message),
    /// Messages that were asked for have been dropped from the stream: what comes next has this offset
    /// or a higher one.
    Lost(u64),
    /// The stream was deleted and made anew: what was in it and not read is lost, and what comes next
    /// is the first that is in it now, with an offset that may have been before. It may take some
    /// seconds until that is certain.
    Restarted,
}

/// Follows a stream on a connection of its own, which is renewed: it goes on where it was. Dropped,
/// it ends.
#[derive(Debug)]
pub struct LogReader {
    incoming: mpsc::Receiver<LogItem>,
    drain: Drain,
}

impl LogReader {
    /// Connects, declares the topology and follows. Later it reconnects by itself, but what is wrong
    /// at the start is the caller's to tell.
    pub async fn start(context: &Context, options: LogOptions) -> Result<Self, BrokerError> {
        let link = Link::open_first(context).await?;
        let source = Source::open(context, link, &options.stream, options.from).await?;
        let (outgoing, incoming) = mpsc::channel(usize::from(PREFETCH));
        let task = Task {
            outgoing,
            last: None,
            misses: 0,
            unacked: 0,
            prints: RandomState::new(),
            metrics: context.metrics.consumer(options.role),
            latch: context.latch(options.role),
            retry: Retry::default(),
            context: context.clone(),
            options,
        };
        task.latch.ready();
        context.drain.spawn(task.options.role, task.run(source));
        Ok(Self { incoming, drain: context.drain.clone() })
    }

    /// What comes next; none once the process has been asked to end.
    pub async fn next(&mut self) -> Option<LogItem> {
        tokio::select! {
            biased;
            () = self.drain.requested() => None,
            item = self.incoming.recv() => item,
        }
    }
}

/// A stream that is followed.
struct Source {
    link: Link,
    stream: lapin::Consumer,
    from: LogStart,
}

impl Source {
    async fn open(
        context: &Context,
        link: Link,
        stream: &str,
        from: LogStart,
    ) -> Result<Self, BrokerError> {
        let at = match from {
            LogStart::Offset(offset) => {
                AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX))
            }
            LogStart::Time(time) => {
                AMQPValue::Timestamp(u64::try_from(time.as_millis() / 1_000).unwrap_or_default())
            }
        };
        let stream = attach(context, &link.channel, stream, at, PREFETCH).await?;
        Ok(Self { link, stream, from })
    }
}

/// A message that was read, to be known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    offset: u64,
    print: u64,
}

enum End {
    Asked,
    Lost(String),
}

struct Task {
    context: Context,
    options: LogOptions,
    outgoing: mpsc::Sender<LogItem>,
    /// The latest message that was read.
    last: Option<Seen>,
    /// How often in a row it did not come again.
    misses: u32,
    unacked: u16,
    prints: RandomState,
    metrics: ConsumerMetrics,
    latch: RoleLatch,
    retry: Retry,
}

impl Task {
    async fn run(mut self, first: Source) {
        let mut source = first;
        loop {
            self.unacked = 0;
            let end = self.serve(&mut source).await;
            source.link.close().await;
            let End::Lost(why) = end else { return };
            self.metrics.reconnects.inc();
            self.latch.not_ready(why);
            match self.reconnect().await {
                Some(next) => source = next,
                None => return,
            }
        }
    }

    async fn serve(&mut self, source: &mut Source) -> End {
        let drain = self.context.drain.clone();
        let (mut has_begun, mut awaited) = (false, self.last);
        let until = Instant::now() + PATIENCE;
        loop {
            let item = tokio::select! {
                () = drain.requested() => return End::Asked,
                () = self.outgoing.closed() => return End::Asked,
                event = source.link.events.next() => match lost(event) {
                    Some(why) => return End::Lost(why),
                    None => continue,
                },
                item = source.stream.next() => item,
                () = sleep_until(until), if awaited.is_some() => {
                    let Some(last) = awaited else { continue };
                    return self.nothing_comes(source, last).await;
                }
            };
            let delivery = match item {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return End::Lost(lost_by(&error)),
                None => {
                    let stream = &self.options.stream;
                    return End::Lost(format!("RabbitMQ stopped following the stream {stream}"));
                }
            };
            self.metrics.deliveries.inc();
            let (message, acker) = Message::split(delivery);
            self.acknowledge(&acker).await;
            let Some(seen) = self.seen(&message) else { continue };
            awaited = None;
            if !mem::replace(&mut has_begun, true) {
                match self.begin(source, seen).await {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(end) => return end,
                }
            }
            if matches!(source.from, LogStart::Offset(asked) if seen.offset < asked) {
                continue;
            }
            self.last = Some(seen);
            if !self.hand(LogItem::Message(seen.offset, message)).await {
                return End::Asked;
            }
        }
    }

    /// Looks at the first message that comes: whether it is a new one.
    async fn begin(&mut self, source: &mut Source, seen: Seen) -> Result<bool, End> {
        if let Some(last) = self.last {
            self.misses = 0;
            if seen == last {
                return Ok(false);
            }
            if seen.offset <= last.offset {
                return Err(self.restarted().await);
            }
        }
        if let LogStart::Offset(asked) = source.from
            && seen.offset > asked
        {
            // Streams leave offsets out, too.
            let first = self.peek(source, "first").await?;
            if first.is_none_or(|first| first > asked)
                && !self.hand(LogItem::Lost(seen.offset)).await
            {
                return Err(End::Asked);
            }
        }
        Ok(true)
    }

    /// Finds out why what was read last does not come again.
    async fn nothing_comes(&mut self, source: &mut Source, last: Seen) -> End {
        let newest = match self.peek(source, "last").await {
            Ok(newest) => newest,
            Err(end) => return end,
        };
        let stream = &self.options.stream;
        if newest.is_some_and(|newest| newest >= last.offset) {
            return End::Lost(format!("RabbitMQ shows nothing of the stream {stream}"));
        }
        self.misses += 1;
        if self.misses >= MISSES_MAX {
            return self.restarted().await;
        }
        End::Lost(format!("the stream {stream} is shorter than it was"))
    }

    /// The offset of the first message of a stream, or of the first of its last ones; nothing if
    /// there is none.
    async fn peek(&self, source: &mut Source, spec: &str) -> Result<Option<u64>, End> {
        let peeking = async {
            let channel = source.link.new_channel().await?;
            let at = AMQPValue::LongString(spec.into());
            let mut consumer = attach(&self.context, &channel, &self.options.stream, at, 1).await?;
            let item = timeout(PATIENCE, consumer.next()).await;
            let closing = channel.close(REPLY_SUCCESS, "seen".into());
            asked("closing a channel", closing).await?;
            Ok::<_, BrokerError>(item)
        };
        let item = tokio::select! {
            item = peeking => item.map_err(|error| End::Lost(chain(&error)))?,
            () = self.context.drain.requested() => return Err(End::Asked),
        };
        let Ok(Some(Ok(delivery))) = item else { return Ok(None) };
        let (message, _) = Message::split(delivery);
        Ok(offset(&message))
    }

    /// Hands an item over; whether anybody wants more.
    async fn hand(&self, item: LogItem) -> bool {
        tokio::select! {
            handed = self.outgoing.send(item) => handed.is_ok(),
            () = self.context.drain.requested() => false,
        }
    }

    fn seen(&self, message: &Message) -> Option<Seen> {
        let Message { body, routing_key, .. } = message;
        let ids = (message.message_id(), message.correlation_id(), *message.properties.timestamp());
        Some(Seen {
            offset: offset(message)?,
            print: self.prints.hash_one((body, routing_key, ids)),
        })
    }

    async fn restarted(&mut self) -> End {
        let stream = &self.options.stream;
        tracing::warn!("the stream {stream} was made anew");
        if !self.hand(LogItem::Restarted).await {
            return End::Asked;
        }
        let why = format!("the stream {stream} was made anew");
        (self.last, self.misses) = (None, 0);
        self.options.from = LogStart::Offset(0);
        End::Lost(why)
    }

    /// A stream forgets nothing by it: RabbitMQ sends so many more.
    async fn acknowledge(&mut self, acker: &Acker) {
        self.unacked += 1;
        if self.unacked >= ACK_EVERY {
            self.unacked = 0;
            // If it cannot be said, the connection is gone, as will be seen.
            let _ = handed(acker.ack(BasicAckOptions { multiple: true })).await;
        }
    }

    /// Follows again; none if that is no longer needed.
    async fn reconnect(&mut self) -> Option<Source> {
        let drain = self.context.drain.clone();
        loop {
            let delay = self.retry.delay();
            // What was read last comes again first, if this is the stream that it was read from.
            let from = self.last.map_or(self.options.from, |last| LogStart::Offset(last.offset));
            let (context, stream) = (&self.context, &self.options.stream);
            let attempt = async {
                sleep(delay).await;
                let link = Link::open(context).await?;
                Source::open(context, link, stream, from).await
            };
            let opened = tokio::select! {
                opened = attempt => opened,
                () = drain.requested() => return None,
                () = self.outgoing.closed() => return None,
            };
            match opened {
                Ok(source) => {
                    self.retry.connected();
                    self.latch.ready();
                    return Some(source);
                }
                Err(error) => self.latch.not_ready(chain(&error)),
            }
        }
    }
}

fn offset(message: &Message) -> Option<u64> {
    match message.headers()?.inner().get(OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

async fn attach(
    context: &Context,
    channel: &Channel,
    stream: &str,
    from: AMQPValue,
    prefetch: u16,
) -> Result<lapin::Consumer, BrokerError> {
    let doing = format!("following the stream {stream}");
    let mut arguments = FieldTable::default();
    arguments.insert(OFFSET.into(), from);
    let consuming = async {
        // A stream refuses who does not say it.
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (queue, tag) = (short(stream), short(&context.name));
        channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments).await
    };
    asked(&doing, consuming).await
}
