//! Consuming a queue: what is delivered stays RabbitMQ's until it is settled.

use std::convert::Infallible;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use platziverse_service::{Drain, chain};
use tokio::sync::mpsc;

use crate::connection::{Link, asked, lost, lost_by};
use crate::context::RoleLatch;
use crate::message::Delivery;
use crate::metrics::ConsumerMetrics;
use crate::publisher::short;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// What is consumed, and how much of it is held.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Names it in readiness and metrics.
    pub role: &'static str,
    /// The queue; part of the context's topology.
    pub queue: String,
    /// Deliveries that are held unsettled (basic.qos).
    pub prefetch: u16,
}

/// A consumer on a connection of its own, which it renews by itself.
///
/// Each time a connection is lost counts as a delivery of all that was held on it. RabbitMQ itself
/// closes the channel of a consumer that holds a message for longer than its `consumer_timeout`
/// (30 minutes by default): a message that can be settled neither way for
/// `ingest.delivery_limit` times that long, some two days, becomes a dead letter.
#[derive(Debug)]
pub struct Consumer;

/// What a consumer is delivered. Dropped, the consumer ends.
#[derive(Debug)]
pub struct Deliveries {
    incoming: mpsc::Receiver<Delivery>,
    drain: Drain,
}

impl Consumer {
    /// Connects, declares the topology and consumes. Later it reconnects by itself, but what is
    /// wrong at the start is the caller's to tell. The connection closes once the [`Deliveries`]
    /// and every [`Delivery`] are dropped.
    pub async fn start(
        context: &Context,
        options: ConsumerOptions,
    ) -> Result<Deliveries, BrokerError> {
        let link = Link::open_first(context).await?;
        let stream = consume(context, &link.channel, &options).await?;
        let (outgoing, incoming) = mpsc::channel(usize::from(options.prefetch.max(1)));
        let (alive, ended) = mpsc::channel(1);
        let task = Task {
            outgoing,
            alive,
            metrics: context.metrics.consumer(options.role),
            latch: context.latch(options.role),
            retry: Retry::default(),
            context: context.clone(),
            options,
        };
        task.latch.ready();
        context.drain.spawn(task.options.role, task.run(Source { link, stream }, ended));
        Ok(Deliveries { incoming, drain: context.drain.clone() })
    }
}

impl Deliveries {
    /// The next delivery; none once the process has been asked to end.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = self.drain.requested() => return None,
                delivery = self.incoming.recv() => delivery?,
            };
            if !delivery.is_stale() {
                return Some(delivery);
            }
        }
    }

    /// A delivery that is here already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        if self.drain.is_requested() {
            return None;
        }
        std::iter::from_fn(|| self.incoming.try_recv().ok()).find(|found| !found.is_stale())
    }
}

struct Source {
    link: Link,
    stream: lapin::Consumer,
}

enum End {
    Asked,
    Lost(String),
}

struct Task {
    context: Context,
    options: ConsumerOptions,
    outgoing: mpsc::Sender<Delivery>,
    alive: mpsc::Sender<Infallible>,
    metrics: ConsumerMetrics,
    latch: RoleLatch,
    retry: Retry,
}

impl Task {
    async fn run(mut self, first: Source, mut ended: mpsc::Receiver<Infallible>) {
        let mut source = first;
        loop {
            match self.serve(&mut source).await {
                End::Asked => break,
                End::Lost(why) => {
                    self.metrics.reconnects.inc();
                    self.latch.not_ready(why);
                    source.link.close().await;
                    match self.reconnect().await {
                        Some(next) => source = next,
                        None => return,
                    }
                }
            }
        }
        let cancel =
            source.link.channel.basic_cancel(source.stream.tag(), BasicCancelOptions::default());
        let drain = self.context.drain.clone();
        // Only what is delivered keeps the connection open from here on.
        drop((self.alive, self.outgoing));
        let settled = async {
            // If it cannot be cancelled, the connection is gone, and with it the consumer.
            let _ = asked("cancelling a consumer", cancel).await;
            ended.recv().await;
        };
        tokio::select! {
            () = settled => source.link.close().await,
            () = drain.forced() => {}
        }
    }

    async fn serve(&mut self, source: &mut Source) -> End {
        let drain = self.context.drain.clone();
        loop {
            let permit = tokio::select! {
                () = drain.requested() => return End::Asked,
                event = source.link.events.next() => match lost(event) {
                    Some(why) => return End::Lost(why),
                    None => continue,
                },
                permit = self.outgoing.reserve() => match permit {
                    Ok(permit) => permit,
                    Err(_) => return End::Asked,
                },
            };
            let delivery = tokio::select! {
                () = drain.requested() => return End::Asked,
                () = self.outgoing.closed() => return End::Asked,
                event = source.link.events.next() => match lost(event) {
                    Some(why) => return End::Lost(why),
                    None => continue,
                },
                item = source.stream.next() => match item {
                    Some(Ok(delivery)) => delivery,
                    Some(Err(error)) => return End::Lost(lost_by(&error)),
                    None => return End::Lost(format!(
                        "RabbitMQ cancelled the consumer: the queue {} was deleted or moved",
                        self.options.queue
                    )),
                },
            };
            self.metrics.deliveries.inc();
            permit.send(Delivery::new(delivery, self.alive.clone()));
        }
    }

    /// Consumes again; none if that is no longer needed.
    async fn reconnect(&mut self) -> Option<Source> {
        let drain = self.context.drain.clone();
        loop {
            let attempt = async {
                tokio::time::sleep(self.retry.delay()).await;
                let link = Link::open(&self.context).await?;
                let stream = consume(&self.context, &link.channel, &self.options).await?;
                Ok::<_, BrokerError>(Source { link, stream })
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

async fn consume(
    context: &Context,
    channel: &Channel,
    options: &ConsumerOptions,
) -> Result<lapin::Consumer, BrokerError> {
    let doing = format!("consuming the queue {}", options.queue);
    let consuming = async {
        // lapin buffers what it is sent without bound: the prefetch is the bound.
        channel.basic_qos(options.prefetch.max(1), BasicQosOptions::default()).await?;
        let (queue, tag) = (short(&options.queue), short(&context.name));
        let consuming = BasicConsumeOptions::default();
        channel.basic_consume(queue, tag, consuming, FieldTable::default()).await
    };
    asked(&doing, consuming).await
}
