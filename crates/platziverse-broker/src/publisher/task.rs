//! The task that owns the publishing connection and its one channel.
//!
//! lapin mixes confirms up when several tasks publish on a channel, and buffers without bound while
//! RabbitMQ blocks the connection; one task, a window and a budget in bytes keep both away.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::Event;
use lapin::options::ConfirmSelectOptions;
use lapin::types::ShortString;
use platziverse_service::{Drain, chain, clock};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::PublisherOptions;
use super::gather::{Gather, Limits, Settled, Waits};
use super::lane::{LINE_BYTES_MAX, Outcome, Outgoing, Receipt, short};
use super::loss::{Loss, LostAt, accusation};
use super::parcel::{self, Answer, Reply};
use super::room::Room;
use crate::Context;
use crate::connection::{Link, asked};
use crate::context::RoleLatch;
use crate::metrics::PublisherMetrics;
use crate::retry::{self, Retry};

/// AMQP messages of all lanes that await their confirms. Many lanes of few lines, as the topics of
/// many devices make them, need more than one lane's window.
const IN_FLIGHT_MAX: usize = 256;
/// Lines taken in at a time.
const ARRIVALS_MAX: usize = 1024;
/// Without any answer for so long, the connection is dead. A single message may take longer: while
/// a queue has no leader, what it is to have takes its place among the [`IN_FLIGHT_MAX`] and in the
/// room, and others go on in the rest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// At most one log line about refusals in this time.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

type Sending = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How a connection's use ended.
enum End {
    /// All handles are dropped and everything is confirmed.
    Finished,
    Forced,
    Lost(Loss),
}

pub(super) struct Task<R> {
    context: Context,
    incoming: mpsc::UnboundedReceiver<Outgoing<R>>,
    arrivals: Vec<Outgoing<R>>,
    open: bool,
    gather: Gather<R>,
    room: Arc<Room>,
    app_id: ShortString,
    metrics: PublisherMetrics,
    latch: RoleLatch,
    retry: Retry,
    refusal_logged: Option<Instant>,
    /// What is wrong with a message at which RabbitMQ closes the channel.
    culprit: Option<String>,
}

/// What belongs to one connection.
struct Wire {
    link: Link,
    confirms: FuturesUnordered<Sending>,
    blocked: bool,
    last_answer: Instant,
}

impl<R: Receipt> Task<R> {
    pub(super) fn new(
        context: &Context,
        options: PublisherOptions,
        incoming: mpsc::UnboundedReceiver<Outgoing<R>>,
        room: Arc<Room>,
    ) -> Self {
        let limits = Limits {
            batch_records: options.batch_records,
            batch_bytes: options.batch_bytes.min(LINE_BYTES_MAX),
            window: options.window.max(1),
            in_flight: IN_FLIGHT_MAX.max(options.window),
            capacity: room.capacity(),
        };
        let waits = Waits {
            refused: retry::refused(),
            culprit: retry::culprit(),
            between_culprits: retry::BETWEEN_CULPRITS,
        };
        Self {
            incoming,
            arrivals: Vec::with_capacity(ARRIVALS_MAX),
            open: true,
            gather: Gather::new(limits, waits),
            room,
            app_id: short(&context.name),
            metrics: context.metrics.publisher(options.role),
            latch: context.latch(options.role),
            retry: Retry::default(),
            refusal_logged: None,
            culprit: None,
            context: context.clone(),
        }
    }

    pub(super) async fn run(mut self, first: Link) {
        let mut next = Some(first);
        while let Some(link) = next.take() {
            let mut wire = Wire {
                blocked: link.connection.status().blocked(),
                link,
                confirms: FuturesUnordered::new(),
                last_answer: Instant::now(),
            };
            let end = self.serve(&mut wire).await;
            // Dropped confirms would be kept by lapin, which then waits for them.
            drop(wire.confirms);
            wire.link.close().await;
            if let End::Lost(loss) = end {
                self.metrics.reconnects.inc();
                self.lose(loss);
                next = self.reconnect().await;
            }
        }
        self.finish();
    }

    /// Takes back what was on its way, and finds the message at which RabbitMQ closed the channel.
    fn lose(&mut self, Loss { why, at }: Loss) {
        if at == LostAt::Connection {
            self.gather.lost();
        } else if let Some(culprit) = self.gather.closed(at == LostAt::Message, Instant::now()) {
            let why = accusation(&culprit, &why);
            tracing::error!(id = %culprit.id, records = culprit.records, "{why}");
            self.culprit = Some(why);
            if culprit.is_new {
                // There may be more of them: what waits with them is not to wait for long.
                self.retry = Retry::default();
            }
        }
        self.latch.not_ready(self.culprit.clone().unwrap_or(why));
    }

    /// Connects again; none if that is no longer needed.
    async fn reconnect(&mut self) -> Option<Link> {
        let drain = self.context.drain.clone();
        while self.is_needed() {
            let (wait, context) = (self.retry.delay(), self.context.clone());
            let mut attempt = pin!(async move {
                sleep(wait).await;
                Link::open(&context).await
            });
            let opened = loop {
                tokio::select! {
                    opened = &mut attempt => break opened,
                    _ = self.incoming.recv_many(&mut self.arrivals, ARRIVALS_MAX), if self.open => {
                        self.take_in();
                        self.account();
                        if !self.is_needed() {
                            return None;
                        }
                    }
                    () = drain.forced() => return None,
                }
            };
            match opened {
                Ok(link) => {
                    self.retry.connected();
                    return Some(link);
                }
                Err(error) => self.latch.not_ready(chain(&error)),
            }
        }
        None
    }

    /// Whether there is something to publish, or may be.
    fn is_needed(&self) -> bool {
        self.open || !self.gather.is_empty()
    }

    async fn serve(&mut self, wire: &mut Wire) -> End {
        let drain: Drain = self.context.drain.clone();
        let mut forced = pin!(drain.forced());
        let selecting = wire.link.channel.confirm_select(ConfirmSelectOptions::default());
        let selected = tokio::select! {
            selected = asked("switching publisher confirms on", selecting) => selected,
            () = &mut forced => return End::Forced,
        };
        if let Err(error) = selected {
            return End::Lost(Loss::new(chain(&error)));
        }
        self.tell(wire, None);
        loop {
            self.fill(wire).await;
            self.acquit(wire);
            if !self.is_needed() {
                return End::Finished;
            }
            let wake = self.wake(wire);
            let lost = tokio::select! {
                _ = self.incoming.recv_many(&mut self.arrivals, ARRIVALS_MAX), if self.open => {
                    self.take_in();
                    None
                }
                Some(reply) = wire.confirms.next() => self.settle(wire, reply),
                event = wire.link.events.next() => self.note(wire, event),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    stalled(wire)
                }
                () = &mut forced => return End::Forced,
            };
            self.account();
            if let Some(loss) = lost {
                return End::Lost(loss);
            }
        }
    }

    fn take_in(&mut self) {
        if self.arrivals.is_empty() {
            self.open = false;
        }
        for outgoing in self.arrivals.drain(..) {
            self.gather.push(outgoing);
        }
    }

    /// Tells those who publish, and whoever watches, what room there is.
    fn account(&mut self) {
        let held_up = self.gather.held_up();
        self.room.note(self.gather.turned(), held_up);
        let used = self.room.capacity().saturating_sub(self.room.left());
        self.metrics.buffered.set(i64::try_from(used).unwrap_or(i64::MAX));
    }

    /// Sends what there is room for, in order.
    async fn fill(&mut self, wire: &mut Wire) {
        let now = Instant::now();
        while !wire.blocked
            && let Some(parcel) = self.gather.take(now)
        {
            if wire.confirms.is_empty() {
                wire.last_answer = now;
            }
            let properties = parcel::properties(&parcel, &self.app_id, clock::now());
            let channel = wire.link.channel.clone();
            let mut sending: Sending = Box::pin(parcel::send(channel, parcel, properties));
            // The first poll takes the delivery tag and queues the frames: done here, in order.
            let first = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
            wire.confirms.push(match first {
                Poll::Ready(reply) => Box::pin(std::future::ready(reply)),
                Poll::Pending => sending,
            });
        }
    }

    /// When there is something to do although nothing happens.
    fn wake(&self, wire: &Wire) -> Option<Instant> {
        if wire.blocked {
            return None;
        }
        let stalled = (!wire.confirms.is_empty()).then(|| wire.last_answer + ANSWER_TIMEOUT);
        [self.gather.next_wake(), stalled].into_iter().flatten().min()
    }

    /// Notes an answer; says why the connection cannot be used any more, if so.
    fn settle(&mut self, wire: &mut Wire, reply: Reply) -> Option<Loss> {
        wire.last_answer = Instant::now();
        match reply.answer {
            Answer::Confirmed => {
                self.metrics.messages.inc();
                let settled = self.gather.confirmed(reply.ticket);
                self.metrics.records.inc_by(settled.receipts.len() as u64);
                self.resolve(settled, Outcome::Confirmed);
                None
            }
            Answer::Refused => {
                self.metrics.refused.inc();
                self.log_refusal(wire.last_answer);
                self.gather.refused(reply.ticket, wire.last_answer);
                None
            }
            Answer::Returned => {
                self.metrics.returned.inc();
                tracing::error!(
                    "RabbitMQ returned a message: it reached no queue, so a binding or a queue is \
                     missing. Everything is declared again and what is not confirmed is resent"
                );
                Some(Loss::new("a message reached no queue; declaring everything again"))
            }
            Answer::Lost(error) => Some(Loss::by(&error)),
            Answer::ConfirmsOff => Some(Loss::new("the channel does not confirm")),
        }
    }

    /// Accuses no message any more once RabbitMQ closes the channel at none.
    fn acquit(&mut self, wire: &Wire) {
        if self.culprit.is_some() && !self.gather.has_culprits() {
            self.culprit = None;
            self.tell(wire, None);
        }
    }

    fn log_refusal(&mut self, now: Instant) {
        if self.refusal_logged.is_none_or(|last| now - last >= REFUSAL_LOG_INTERVAL) {
            self.refusal_logged = Some(now);
            tracing::warn!(
                "RabbitMQ refuses messages for now (a queue is full, or has no leader); they are \
                 kept and tried again"
            );
        }
    }

    fn resolve(&self, settled: Settled<R>, outcome: Outcome) {
        self.room.give_back(settled.cost);
        for receipt in settled.receipts {
            receipt.resolve(outcome);
        }
    }

    fn note(&mut self, wire: &mut Wire, event: Option<Event>) -> Option<Loss> {
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                wire.blocked = true;
                self.tell(wire, Some(reason));
                None
            }
            Some(Event::ConnectionUnblocked) => {
                wire.blocked = false;
                wire.last_answer = Instant::now();
                self.tell(wire, None);
                None
            }
            Some(Event::Error(error)) => Some(Loss::by(&error)),
            None => Some(Loss::new("the connection was lost")),
            Some(_) => None,
        }
    }

    /// Tells readiness how it is.
    fn tell(&self, wire: &Wire, blocked: Option<String>) {
        if wire.blocked {
            let reason = blocked.unwrap_or_else(|| "out of memory or disk".to_owned());
            self.latch.not_ready(format!("RabbitMQ blocks publishers: {reason}"));
        } else if let Some(culprit) = &self.culprit {
            self.latch.not_ready(culprit.clone());
        } else {
            self.latch.ready();
        }
    }

    /// Ends: what is left is abandoned, and nothing more is taken in.
    fn finish(mut self) {
        self.room.close();
        self.incoming.close();
        while let Ok(outgoing) = self.incoming.try_recv() {
            self.gather.push(outgoing);
        }
        let settled = self.gather.abandon();
        if !settled.receipts.is_empty() {
            let count = settled.receipts.len();
            tracing::warn!(
                count,
                "ended with {count} records unconfirmed; nobody was told otherwise"
            );
        }
        self.resolve(settled, Outcome::Abandoned);
        self.metrics.buffered.set(0);
    }
}

fn stalled(wire: &Wire) -> Option<Loss> {
    let silent = !wire.confirms.is_empty() && wire.last_answer.elapsed() >= ANSWER_TIMEOUT;
    silent.then(|| Loss::new(format!("RabbitMQ confirmed nothing for {ANSWER_TIMEOUT:?}")))
}
