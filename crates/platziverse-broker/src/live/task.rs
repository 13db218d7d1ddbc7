//! The task that owns a live queue's connection.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, Channel, Event};
use platziverse_service::{Latch, chain};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::bindings::Bindings;
use super::{Command, LiveOptions};
use crate::connection::{Link, within};
use crate::message::{Message, handed};
use crate::metrics::ConsumerMetrics;
use crate::publisher::short;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// Messages in this process that nobody has taken yet; the rest waits in the queue, which drops
/// its oldest.
pub(super) const PREFETCH: u16 = 1_000;
const ACK_EVERY: usize = 100;
const ACK_WITHIN: Duration = Duration::from_millis(200);

/// What belongs to one connection.
pub(super) struct Source {
    link: Link,
    queue: ShortString,
    stream: lapin::Consumer,
    /// A message for which there was no room yet.
    pending: Option<Message>,
    unacked: usize,
    last: Option<Acker>,
    ack_due: Option<Instant>,
}

enum End {
    Asked,
    Lost(String),
}

/// What happens next.
#[expect(clippy::large_enum_variant, reason = "it is made and taken apart at once")]
enum Step {
    Asked,
    Order(Command),
    Room,
    Event(Option<Event>),
    Item(Option<Result<lapin::message::Delivery, lapin::Error>>),
    AckDue,
}

fn lost(error: &lapin::Error) -> String {
    format!("the connection was lost: {error}")
}

pub(super) struct Task {
    context: Context,
    options: LiveOptions,
    orders: mpsc::Receiver<Command>,
    outgoing: mpsc::Sender<Message>,
    listening: watch::Sender<Option<Instant>>,
    bindings: Bindings,
    /// Who waits for a binding that is made with the next connection.
    waiting: Vec<oneshot::Sender<()>>,
    metrics: ConsumerMetrics,
    latch: Latch,
    retry: Retry,
}

impl Task {
    pub(super) fn new(
        context: &Context,
        options: LiveOptions,
        orders: mpsc::Receiver<Command>,
        outgoing: mpsc::Sender<Message>,
        listening: watch::Sender<Option<Instant>>,
    ) -> Self {
        let mut bindings = Bindings::default();
        for key in &options.keys {
            bindings.add(key);
        }
        Self {
            orders,
            outgoing,
            listening,
            bindings,
            waiting: Vec::new(),
            metrics: context.metrics.consumer(options.role),
            latch: context.latch(options.role),
            retry: Retry::default(),
            context: context.clone(),
            options,
        }
    }

    pub(super) async fn run(mut self, first: Source) {
        let mut source = first;
        loop {
            let end = self.serve(&mut source).await;
            self.listening.send_replace(None);
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
        loop {
            let lost = match self.step(source).await {
                Step::Asked => return End::Asked,
                Step::Order(order) => self.obey(source, order).await,
                Step::Room => {
                    if let Some(message) = source.pending.take() {
                        // There is room, and nobody else fills it.
                        let _ = self.outgoing.try_send(message);
                    }
                    None
                }
                Step::Event(Some(Event::Error(error))) => Some(lost(&error)),
                Step::Event(Some(_)) => None,
                Step::Event(None) => Some("the connection was lost".to_owned()),
                Step::Item(Some(Ok(delivery))) => {
                    self.metrics.deliveries.inc();
                    self.retry.reset();
                    source.hold(delivery).await;
                    None
                }
                Step::Item(Some(Err(error))) => Some(lost(&error)),
                Step::Item(None) => Some(format!("the queue {} was deleted", source.queue)),
                Step::AckDue => {
                    source.ack().await;
                    None
                }
            };
            if let Some(why) = lost {
                return End::Lost(why);
            }
        }
    }

    async fn step(&mut self, source: &mut Source) -> Step {
        let due = source.ack_due;
        tokio::select! {
            () = self.context.drain.requested() => Step::Asked,
            () = self.outgoing.closed() => Step::Asked,
            Some(order) = self.orders.recv() => Step::Order(order),
            _ = self.outgoing.reserve(), if source.pending.is_some() => Step::Room,
            event = source.link.events.next() => Step::Event(event),
            item = source.stream.next(), if source.pending.is_none() => Step::Item(item),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Step::AckDue,
        }
    }

    /// Binds or unbinds; says why the connection cannot be used any more, if so.
    async fn obey(&mut self, source: &mut Source, order: Command) -> Option<String> {
        let changed = match order {
            Command::Bind(key, done) => {
                if self.bindings.add(&key) {
                    let bound = self.bind(&source.link.channel, &source.queue, &key).await;
                    if bound.is_err() {
                        self.waiting.push(done);
                        return bound.err().map(|error| chain(&error));
                    }
                }
                // Whoever stopped waiting needs no answer.
                let _ = done.send(());
                Ok(())
            }
            Command::Unbind(key) if self.bindings.remove(&key) => {
                self.unbind(&source.link.channel, &source.queue, &key).await
            }
            Command::Unbind(_) => Ok(()),
        };
        changed.err().map(|error| chain(&error))
    }

    /// Notes an order while there is no connection.
    fn remember(&mut self, order: Command) {
        match order {
            Command::Bind(key, done) => {
                self.bindings.add(&key);
                self.waiting.retain(|waiting| !waiting.is_closed());
                self.waiting.push(done);
            }
            Command::Unbind(key) => {
                self.bindings.remove(&key);
            }
        }
    }

    /// Listens again; none if that is no longer needed.
    async fn reconnect(&mut self) -> Option<Source> {
        let drain = self.context.drain.clone();
        loop {
            let ready_at = Instant::now() + self.retry.delay();
            let context = self.context.clone();
            let attempt = async move {
                sleep_until(ready_at).await;
                Link::open(&context).await
            };
            tokio::pin!(attempt);
            let opened = loop {
                tokio::select! {
                    opened = &mut attempt => break opened,
                    Some(order) = self.orders.recv() => self.remember(order),
                    () = drain.requested() => return None,
                    () = self.outgoing.closed() => return None,
                }
            };
            let listening = match opened {
                Ok(link) => self.listen(link).await,
                Err(error) => Err(error),
            };
            match listening {
                Ok(source) => return Some(source),
                Err(error) => self.latch.not_ready(chain(&error)),
            }
        }
    }

    /// Makes, binds and consumes the queue.
    pub(super) async fn listen(&mut self, link: Link) -> Result<Source, BrokerError> {
        let (link, queue) = self.declare(link).await?;
        let binding = async {
            for key in self.bindings.keys() {
                self.bind(&link.channel, &queue, key).await?;
            }
            Ok(())
        };
        within(&format!("binding the queue {queue}"), binding).await?;
        let stream = self.consume(&link.channel, &queue).await?;
        self.latch.ready();
        self.listening.send_replace(Some(Instant::now()));
        for done in self.waiting.drain(..) {
            let _ = done.send(());
        }
        Ok(Source { link, queue, stream, pending: None, unacked: 0, last: None, ack_due: None })
    }

    /// Declares the queue, under another name while a lost connection still holds its own.
    async fn declare(&self, link: Link) -> Result<(Link, ShortString), BrokerError> {
        let name = short(&self.options.queue);
        match self.declare_as(&link.channel, &name).await {
            Ok(()) => Ok((link, name)),
            Err(error) if error.is_locked() => {
                let link = link.with_new_channel().await?;
                let suffix = uuid::Uuid::new_v4().simple().to_string();
                let name = short(&format!("{}.{}", self.options.queue, &suffix[..8]));
                self.declare_as(&link.channel, &name).await?;
                Ok((link, name))
            }
            Err(error) => Err(error),
        }
    }

    async fn declare_as(&self, channel: &Channel, name: &ShortString) -> Result<(), BrokerError> {
        let mut table = FieldTable::default();
        let length = AMQPValue::LongLongInt(self.options.length_max.into());
        table.insert("x-max-length".into(), length);
        table.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        if let Some(ttl) = self.options.ttl {
            let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis));
        }
        let options = QueueDeclareOptions::exclusive().auto_delete();
        within(&format!("declaring the queue {name}"), async {
            let declared = channel.queue_declare(name.clone(), options, table).await;
            declared
                .map(|_| ())
                .map_err(|source| BrokerError::declare("queue", name.as_str(), source))
        })
        .await
    }

    async fn bind(
        &self,
        channel: &Channel,
        queue: &ShortString,
        key: &str,
    ) -> Result<(), BrokerError> {
        let (exchange, options) = (short(self.options.exchange), QueueBindOptions::default());
        let none = FieldTable::default();
        let binding = channel.queue_bind(queue.clone(), exchange, short(key), options, none);
        answered(format!("binding the queue {queue} to {key:?}"), binding).await
    }

    async fn unbind(
        &self,
        channel: &Channel,
        queue: &ShortString,
        key: &str,
    ) -> Result<(), BrokerError> {
        let (exchange, none) = (short(self.options.exchange), FieldTable::default());
        let unbinding = channel.queue_unbind(queue.clone(), exchange, short(key), none);
        answered(format!("unbinding the queue {queue} from {key:?}"), unbinding).await
    }

    async fn consume(
        &self,
        channel: &Channel,
        queue: &ShortString,
    ) -> Result<lapin::Consumer, BrokerError> {
        let consuming = async {
            // With acknowledgements, although nothing is redelivered to anybody: without them
            // nothing would bound what lapin buffers.
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
            let tag = short(&self.context.name);
            channel.basic_consume(queue.clone(), tag, options, FieldTable::default()).await
        };
        answered(format!("consuming the queue {queue}"), consuming).await
    }
}

impl Source {
    async fn hold(&mut self, delivery: lapin::message::Delivery) {
        let (message, acker) = Message::split(delivery);
        self.pending = Some(message);
        self.last = Some(acker);
        self.unacked += 1;
        self.ack_due.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
        if self.unacked >= ACK_EVERY {
            self.ack().await;
        }
    }

    async fn ack(&mut self) {
        self.unacked = 0;
        self.ack_due = None;
        if let Some(acker) = self.last.take() {
            handed(acker.ack(BasicAckOptions { multiple: true })).await;
        }
    }
}

async fn answered<T>(
    doing: String,
    operation: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    let doing = doing.as_str();
    within(doing, async { operation.await.map_err(|source| BrokerError::operation(doing, source)) })
        .await
}
