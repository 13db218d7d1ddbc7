//! The task that owns a live queue's connection.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, Channel, Event};
use platziverse_service::chain;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::acts::{Answers, Ends, Unmade};
use super::bindings::{Act, Bindings};
use super::{Change, LiveOptions};
use crate::connection::{Link, asked, lost, lost_by, within};
use crate::context::RoleLatch;
use crate::error::channel_closed;
use crate::message::{Message, handed};
use crate::metrics::ConsumerMetrics;
use crate::publisher::short;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// Messages in this process that nobody has taken yet; the rest waits in the queue, which drops
/// its oldest. Few, since a message may have many records.
pub(super) const PREFETCH: u16 = 100;
const ACK_EVERY: usize = 25;
const ACK_WITHIN: Duration = Duration::from_millis(200);
/// Bindings that are asked for before the first answer, about.
const ACTS_AT_ONCE: usize = 256;
/// How long until a key that RabbitMQ refused is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// At most one log line about refused keys in this time.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What belongs to one connection.
pub(super) struct Source {
    link: Link,
    queue: ShortString,
    stream: lapin::Consumer,
    /// Where bindings are made: RabbitMQ closes it at one that it refuses, and the consumer goes on.
    binder: Channel,
    /// What RabbitMQ has been asked to bind and unbind, until it answers.
    changing: Option<Answers>,
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
    Change(Change),
    Changed(Result<(), Unmade>),
    AskAgain,
    Room,
    Event(Option<Event>),
    Item(Option<Result<lapin::message::Delivery, lapin::Error>>),
    AckDue,
}

async fn answered_all(changing: &mut Option<Answers>) -> Result<(), Unmade> {
    match changing {
        Some(answers) => answers.await,
        None => std::future::pending().await,
    }
}

pub(super) struct Task {
    context: Context,
    options: LiveOptions,
    orders: mpsc::UnboundedReceiver<Change>,
    outgoing: mpsc::Sender<Message>,
    listening: watch::Sender<Option<Instant>>,
    bindings: Bindings,
    /// Who waits for bindings that RabbitMQ has not confirmed yet; after a lost connection it is
    /// the next one that makes them.
    waiting: Vec<oneshot::Sender<()>>,
    /// When keys that RabbitMQ refused are asked for again.
    ask_again: Option<Instant>,
    refusal_logged: Option<Instant>,
    metrics: ConsumerMetrics,
    latch: RoleLatch,
    retry: Retry,
}

impl Task {
    pub(super) fn new(
        context: &Context,
        options: LiveOptions,
        orders: mpsc::UnboundedReceiver<Change>,
        outgoing: mpsc::Sender<Message>,
        listening: watch::Sender<Option<Instant>>,
    ) -> Self {
        let mut bindings = Bindings::default();
        bindings.change(options.keys.clone(), Vec::new());
        Self {
            orders,
            outgoing,
            listening,
            bindings,
            waiting: Vec::new(),
            ask_again: None,
            refusal_logged: None,
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
            let why = match self.step(source).await {
                Step::Asked => return End::Asked,
                Step::Change(change) => {
                    self.begin(source, change);
                    None
                }
                Step::Changed(answer) => {
                    source.changing = None;
                    let (drain, outgoing) = (self.context.drain.clone(), self.outgoing.clone());
                    tokio::select! {
                        changed = self.changed(source, answer) => changed.err().map(|e| chain(&e)),
                        () = drain.requested() => return End::Asked,
                        () = outgoing.closed() => return End::Asked,
                    }
                }
                Step::AskAgain => {
                    self.ask_again = None;
                    let acts = self.bindings.ask_again();
                    self.change(source, acts);
                    None
                }
                Step::Room => {
                    if let Some(message) = source.pending.take() {
                        // There is room, and nobody else fills it.
                        let _ = self.outgoing.try_send(message);
                    }
                    None
                }
                // Each channel says by itself that it is closed.
                Step::Event(Some(Event::Error(error))) if channel_closed(&error).is_some() => None,
                Step::Event(event) => lost(event),
                Step::Item(Some(Ok(delivery))) => {
                    self.metrics.deliveries.inc();
                    source.hold(delivery);
                    None
                }
                Step::Item(Some(Err(error))) => Some(lost_by(&error)),
                Step::Item(None) => Some(format!("the queue {} was deleted", source.queue)),
                Step::AckDue => tokio::select! {
                    () = source.ack() => None,
                    () = self.context.drain.requested() => return End::Asked,
                    () = self.outgoing.closed() => return End::Asked,
                },
            };
            if let Some(why) = why {
                return End::Lost(why);
            }
        }
    }

    async fn step(&mut self, source: &mut Source) -> Step {
        let (due, ask) = (source.ack_due, self.ask_again.filter(|_| source.changing.is_none()));
        tokio::select! {
            () = self.context.drain.requested() => Step::Asked,
            () = self.outgoing.closed() => Step::Asked,
            Some(change) = self.orders.recv(), if source.changing.is_none() => Step::Change(change),
            answer = answered_all(&mut source.changing) => Step::Changed(answer),
            _ = self.outgoing.reserve(), if source.pending.is_some() => Step::Room,
            () = sleep_until(ask.unwrap_or_else(Instant::now)), if ask.is_some() => Step::AskAgain,
            event = source.link.events.next() => Step::Event(event),
            item = source.stream.next(), if source.pending.is_none() => Step::Item(item),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Step::AckDue,
        }
    }

    /// Asks RabbitMQ for a change, and for those that wait behind it. Only when it has answered all
    /// of it the next is begun: so a key that is counted already is bound, too.
    fn begin(&mut self, source: &mut Source, first: Change) {
        let mut acts = self.note(first);
        while acts.len() < ACTS_AT_ONCE
            && let Ok(next) = self.orders.try_recv()
        {
            acts.extend(self.note(next));
        }
        self.change(source, acts);
    }

    fn change(&self, source: &mut Source, acts: Vec<Act>) {
        let ends = self.ends(&source.binder, &source.queue);
        source.changing = Some(ends.carry_out(acts));
    }

    /// Tells who waits, or goes on behind what RabbitMQ refuses; an error if the connection cannot
    /// be used any more.
    async fn changed(
        &mut self,
        source: &mut Source,
        answer: Result<(), Unmade>,
    ) -> Result<(), BrokerError> {
        match answer {
            Ok(()) => self.tell_bound(),
            Err(unmade) => {
                let acts = self.leave_out(unmade)?;
                source.binder = source.link.new_channel().await?;
                self.change(source, acts);
            }
        }
        Ok(())
    }

    /// The acts behind one that RabbitMQ refuses; the error, if it is another one.
    fn leave_out(&mut self, unmade: Unmade) -> Result<Vec<Act>, BrokerError> {
        let Unmade { error, acts } = unmade;
        let mut acts = acts.into_iter();
        let refused = acts.next().filter(|_| error.is_topic_refused()).ok_or(error)?;
        let now = Instant::now();
        // What cannot be unbound is heard in vain, until there is another connection.
        if let Act::Bind(key) = refused {
            if self.refusal_logged.is_none_or(|last| now - last >= REFUSAL_LOG_INTERVAL) {
                self.refusal_logged = Some(now);
                tracing::warn!(
                    key,
                    "RabbitMQ does not let us bind {} to {key:?}, so whoever subscribes to it hears \
                     nothing: check the topic permissions of amqp.username. It is tried again every \
                     {ASK_AGAIN_AFTER:?}",
                    self.options.queue
                );
            }
            self.bindings.refuse(key);
            self.ask_again.get_or_insert(now + ASK_AGAIN_AFTER);
        }
        // Nobody may be told that all is bound.
        self.waiting.clear();
        Ok(acts.collect())
    }

    /// Counts what is to change, and answers what follows from it.
    fn note(&mut self, change: Change) -> Vec<Act> {
        let Change { bind, unbind, done } = change;
        if !bind.is_empty() {
            if self.waiting.len() == self.waiting.capacity() {
                self.waiting.retain(|waiting| !waiting.is_closed());
            }
            self.waiting.push(done);
        }
        self.bindings.change(bind, unbind)
    }

    fn tell_bound(&mut self) {
        for done in self.waiting.drain(..) {
            // Whoever stopped waiting needs no answer.
            let _ = done.send(());
        }
    }

    fn ends(&self, channel: &Channel, queue: &ShortString) -> Ends {
        Ends { channel: channel.clone(), queue: queue.clone(), exchange: self.options.exchange }
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
                    // The next connection makes what is counted.
                    Some(change) = self.orders.recv() => drop(self.note(change)),
                    () = drain.requested() => return None,
                    () = self.outgoing.closed() => return None,
                }
            };
            let outgoing = self.outgoing.clone();
            let listening = async {
                match opened {
                    Ok(link) => self.listen(link).await,
                    Err(error) => Err(error),
                }
            };
            let listening = tokio::select! {
                listening = listening => listening,
                () = drain.requested() => return None,
                () = outgoing.closed() => return None,
            };
            match listening {
                Ok(source) => return Some(source),
                Err(error) => self.latch.not_ready(chain(&error)),
            }
        }
    }

    /// Makes, binds and consumes the queue.
    pub(super) async fn listen(&mut self, link: Link) -> Result<Source, BrokerError> {
        let (mut link, queue) = self.declare(link).await?;
        let binder = self.bind_all(&mut link, &queue).await?;
        let stream = self.consume(&link.channel, &queue).await?;
        self.retry.connected();
        self.latch.ready();
        self.listening.send_replace(Some(Instant::now()));
        self.tell_bound();
        Ok(Source {
            link,
            queue,
            stream,
            binder,
            changing: None,
            pending: None,
            unacked: 0,
            last: None,
            ack_due: None,
        })
    }

    /// Binds the queue to all that it may be bound to; the channel that this was done on.
    async fn bind_all(
        &mut self,
        link: &mut Link,
        queue: &ShortString,
    ) -> Result<Channel, BrokerError> {
        let mut acts = self.bindings.bind_all();
        loop {
            let binder = link.new_channel().await?;
            match self.ends(&binder, queue).carry_out(acts).await {
                Ok(()) => return Ok(binder),
                Err(unmade) => acts = self.leave_out(unmade)?,
            }
        }
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
        let bytes = AMQPValue::LongLongInt(self.options.bytes_max.into());
        table.insert("x-max-length-bytes".into(), bytes);
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
        asked(&format!("consuming the queue {queue}"), consuming).await
    }
}

impl Source {
    fn hold(&mut self, delivery: lapin::message::Delivery) {
        let (message, acker) = Message::split(delivery);
        self.pending = Some(message);
        self.last = Some(acker);
        self.unacked += 1;
        if self.unacked >= ACK_EVERY {
            self.ack_due = Some(Instant::now());
        } else {
            self.ack_due.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
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
