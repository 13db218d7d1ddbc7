//! The task that owns the publishing connection and its channel: lapin mixes confirms up when
//! several tasks publish on one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Event};
use platziverse_service::chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Answer, Parcel, PostError, Unheard};
use crate::connection::{Link, asked, lost, lost_by};
use crate::context::RoleLatch;
use crate::error::{Closed, NOT_FOUND, PRECONDITION_FAILED, channel_closed};
use crate::metrics::PublisherMetrics;
use crate::retry::Retry;
use crate::{BrokerError, Context};

/// Parcels taken in at a time.
const ARRIVALS_MAX: usize = 1024;
/// Without any answer for so long, the connection is dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a queue may be without a leader until it is taken to be full.
const LEADERLESS_PATIENCE: Duration = Duration::from_secs(5);
/// How long until a message goes again to a queue that may be without a leader.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The same of one that goes to others as well: each time those have it once more.
const COPIES_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How old a channel is at least until another one takes its place.
const CHANNEL_AGE: Duration = Duration::from_secs(1);
/// How long a queue that was full is taken to be full when it refuses again.
const FULL_FOR: Duration = Duration::from_secs(30);
/// Queues of which that is known, and of which one channel knows that they have a leader.
const KNOWN_MAX: usize = 100_000;

/// How the use of a channel ended.
enum End {
    /// All handles are dropped and everything is answered.
    Finished,
    Forced,
    /// The connection cannot be used any more.
    Lost(String),
    /// RabbitMQ has closed the channel, at a message if there is a code.
    Closed {
        code: Option<u16>,
        why: String,
    },
}

type Sending = Pin<Box<dyn Future<Output = (u64, Result<Confirmation, lapin::Error>)> + Send>>;

/// What belongs to one channel.
struct Wire {
    link: Link,
    confirms: FuturesUnordered<Sending>,
    blocked: bool,
    last_answer: Instant,
    /// Whether what is on its way went alone: nothing follows before RabbitMQ has answered.
    on_trial: bool,
    /// Since when the channel is used.
    opened: Instant,
    /// Queues that have confirmed a message of this channel. Another one's first message is refused
    /// also if the queue has no leader, as when its node has died; and a channel of RabbitMQ before
    /// 3.12 then asks that node for ever.
    led: HashSet<ShortString>,
}

impl Wire {
    fn new(link: Link) -> Self {
        Self {
            blocked: link.connection.status().blocked(),
            link,
            confirms: FuturesUnordered::new(),
            last_answer: Instant::now(),
            on_trial: false,
            opened: Instant::now(),
            led: HashSet::new(),
        }
    }

    /// Notes that the queue of a parcel has a leader.
    fn leads(&mut self, parcel: &Parcel) {
        if let Some(queue) = &parcel.envelope.queue
            && !self.led.contains(queue)
        {
            if self.led.len() >= KNOWN_MAX {
                self.led.clear();
            }
            self.led.insert(queue.clone());
        }
    }

    /// Uses another channel from now on. The one before stays until all on it is answered.
    async fn renew(&mut self) -> Result<(), BrokerError> {
        let channel = self.link.new_channel().await?;
        confirm(&channel).await?;
        self.link.channel = channel;
        self.opened = Instant::now();
        self.led.clear();
        Ok(())
    }
}

pub(super) struct Task {
    context: Context,
    incoming: mpsc::UnboundedReceiver<Box<Parcel>>,
    #[expect(clippy::vec_box, reason = "they move on as they are")]
    arrivals: Vec<Box<Parcel>>,
    open: bool,
    waiting: VecDeque<Box<Parcel>>,
    /// What a queue refused that may be without a leader, and when it goes again.
    put_off: VecDeque<(Instant, Box<Parcel>)>,
    /// Queues that are full, and until when that is taken to be so.
    full: HashMap<ShortString, Instant>,
    /// How many of those that wait, from the first, go alone: RabbitMQ closed the channel at one.
    trials: usize,
    /// What is on its way, by age.
    flights: BTreeMap<u64, Box<Parcel>>,
    next: u64,
    unheard: Unheard,
    metrics: PublisherMetrics,
    latch: RoleLatch,
    retry: Retry,
}

impl Task {
    pub(super) fn new(
        context: &Context,
        role: &'static str,
        incoming: mpsc::UnboundedReceiver<Box<Parcel>>,
        unheard: Unheard,
    ) -> Self {
        Self {
            incoming,
            arrivals: Vec::with_capacity(ARRIVALS_MAX),
            open: true,
            waiting: VecDeque::new(),
            put_off: VecDeque::new(),
            full: HashMap::new(),
            trials: 0,
            flights: BTreeMap::new(),
            next: 0,
            unheard,
            metrics: context.metrics.publisher(role),
            latch: context.latch(role),
            retry: Retry::default(),
            context: context.clone(),
        }
    }

    pub(super) async fn run(mut self, first: Link) {
        let mut next = Some(first);
        while let Some(link) = next.take() {
            let mut wire = Wire::new(link);
            let end = self.serve(&mut wire).await;
            // Dropped confirms would be kept by lapin, which then waits for them.
            drop(wire.confirms);
            next = match end {
                End::Finished | End::Forced => {
                    wire.link.close().await;
                    None
                }
                End::Lost(why) => {
                    wire.link.close().await;
                    self.recall(wire.on_trial);
                    self.lose(why).await
                }
                End::Closed { code, why } => {
                    self.closed(code, &why);
                    match wire.link.with_new_channel().await {
                        Ok(link) => Some(link),
                        Err(error) => self.lose(chain(&error)).await,
                    }
                }
            };
        }
        // What is left is told by its receipt, which is dropped.
    }

    /// Takes back what was on its way, in order; on trial, each goes alone from now on.
    fn recall(&mut self, on_trial: bool) {
        if on_trial {
            self.trials += self.flights.len();
        }
        while let Some((_, parcel)) = self.flights.pop_last() {
            self.waiting.push_front(parcel);
        }
        self.waiting.extend(self.put_off.drain(..).map(|(_, parcel)| parcel));
    }

    /// Finds the message at which RabbitMQ closed the channel: if one alone was on its way, it is
    /// that one. Else each of them goes alone from now on.
    fn closed(&mut self, code: Option<u16>, why: &str) {
        let is_alone = self.flights.len() == 1;
        if let Some(code) = code.filter(|_| is_alone)
            && let Some((_, parcel)) = self.flights.pop_last()
        {
            tracing::error!(
                exchange = parcel.envelope.exchange,
                key = parcel.envelope.key.as_str(),
                bytes = parcel.envelope.body.len(),
                "{why}, at a message, which is refused"
            );
            let why = why.to_owned();
            answer(
                parcel,
                Err(match code {
                    PRECONDITION_FAILED => PostError::TooLarge(why),
                    _ => PostError::Unavailable(why),
                }),
            );
        }
        self.recall(true);
    }

    /// Connects again; none if that is no longer needed.
    async fn lose(&mut self, why: String) -> Option<Link> {
        self.metrics.reconnects.inc();
        self.latch.not_ready(why);
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
                        if !self.is_needed() {
                            return None;
                        }
                    }
                    () = drain.forced() => return None,
                }
            };
            self.forget();
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

    /// Forgets those for whose answer nobody waits any more.
    fn forget(&mut self) {
        let mut place = 0;
        let trials = self.trials;
        self.waiting.retain(|parcel| {
            place += 1;
            let is_wanted = !parcel.receipt.is_closed();
            self.trials -= usize::from(!is_wanted && place <= trials);
            is_wanted
        });
    }

    fn is_needed(&self) -> bool {
        let has_some = !self.waiting.is_empty() || !self.put_off.is_empty();
        self.open || has_some || !self.flights.is_empty()
    }

    async fn serve(&mut self, wire: &mut Wire) -> End {
        let drain = self.context.drain.clone();
        let mut forced = pin!(drain.forced());
        let selected = tokio::select! {
            selected = confirm(&wire.link.channel) => selected,
            () = &mut forced => return End::Forced,
        };
        if let Err(error) = selected {
            return End::Lost(chain(&error));
        }
        self.tell(wire, None);
        loop {
            self.fill(wire).await;
            if !self.is_needed() {
                return End::Finished;
            }
            let stalled = !wire.blocked && !wire.confirms.is_empty();
            let next = self.put_off.front().map_or_else(Instant::now, |(next, _)| *next);
            let end = tokio::select! {
                _ = self.incoming.recv_many(&mut self.arrivals, ARRIVALS_MAX), if self.open => {
                    self.take_in();
                    None
                }
                Some((number, answer)) = wire.confirms.next() => self.settle(wire, number, answer),
                event = wire.link.events.next() => self.note(wire, event).map(End::Lost),
                () = sleep_until(next), if !self.put_off.is_empty() => self.again(wire).await,
                () = sleep_until(wire.last_answer + ANSWER_TIMEOUT), if stalled => {
                    let why = format!("RabbitMQ confirmed nothing for {ANSWER_TIMEOUT:?}");
                    Some(End::Lost(why))
                }
                () = &mut forced => return End::Forced,
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn take_in(&mut self) {
        if self.arrivals.is_empty() {
            self.open = false;
        }
        self.waiting.extend(self.arrivals.drain(..));
    }

    /// Sends what may go, in order.
    async fn fill(&mut self, wire: &mut Wire) {
        while !wire.blocked
            && let Some(parcel) = self.next_for(wire)
        {
            if wire.confirms.is_empty() {
                wire.last_answer = Instant::now();
            }
            self.next += 1;
            let number = self.next;
            let mut sending = send(wire.link.channel.clone(), number, &parcel);
            self.flights.insert(number, parcel);
            // The first poll takes the delivery tag and queues the frames: done here, in order.
            let first = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
            wire.confirms.push(match first {
                Poll::Ready(answered) => Box::pin(std::future::ready(answered)),
                Poll::Pending => sending,
            });
        }
    }

    fn next_for(&mut self, wire: &mut Wire) -> Option<Box<Parcel>> {
        loop {
            let is_trial = self.trials > 0;
            if (is_trial || wire.on_trial) && !wire.confirms.is_empty() {
                return None;
            }
            let parcel = self.waiting.pop_front()?;
            self.trials = self.trials.saturating_sub(1);
            // Whoever publishes it has been told that it failed, or is gone.
            if !parcel.receipt.is_closed() {
                wire.on_trial = is_trial;
                return Some(parcel);
            }
        }
    }

    /// Notes an answer; says why the channel cannot be used any more, if so.
    fn settle(
        &mut self,
        wire: &mut Wire,
        number: u64,
        confirmation: Result<Confirmation, lapin::Error>,
    ) -> Option<End> {
        wire.last_answer = Instant::now();
        let (confirmed, returned) = match confirmation {
            Ok(Confirmation::Ack(returned)) => (true, returned),
            Ok(Confirmation::Nack(returned)) => (false, returned),
            Ok(Confirmation::NotRequested) => {
                return Some(End::Lost("the channel does not confirm".to_owned()));
            }
            Err(error) => return Some(ended_by(&error)),
        };
        // It is said of whichever message was answered next, and names its own.
        if let Some(returned) = returned
            && let Some(why) = self.returned(&returned)
        {
            return Some(End::Lost(why));
        }
        if let Some(parcel) = self.flights.remove(&number) {
            match confirmed {
                true => {
                    self.metrics.messages.inc();
                    wire.leads(&parcel);
                    answer(parcel, Ok(()));
                }
                false => self.refused(wire, parcel),
            }
        }
        None
    }

    /// Tells that a queue is full, unless it may only be without a leader for a moment.
    fn refused(&mut self, wire: &mut Wire, mut parcel: Box<Parcel>) {
        self.metrics.refused.inc();
        let now = Instant::now();
        let first = *parcel.refused.get_or_insert(now);
        let Some(queue) = parcel.envelope.queue.clone() else {
            let why = "a queue that it goes to is gone".to_owned();
            answer(parcel, Err(PostError::Unavailable(why)));
            return;
        };
        let is_full = self.full.get(&queue).is_some_and(|until| now < *until);
        let is_led = is_full || wire.led.contains(&queue);
        if !is_led && now < first + LEADERLESS_PATIENCE {
            let is_copied = parcel.envelope.is_copied;
            let next = now + if is_copied { COPIES_AGAIN_AFTER } else { AGAIN_AFTER };
            let place = self.put_off.partition_point(|(other, _)| *other <= next);
            self.put_off.insert(place, (next, parcel));
            return;
        }
        if self.full.len() >= KNOWN_MAX {
            self.full.clear();
        }
        self.full.insert(queue, now + FULL_FOR);
        wire.leads(&parcel);
        answer(parcel, Err(PostError::Full));
    }

    /// Sends what is to go again, over another channel: this one may not see that there is a leader.
    async fn again(&mut self, wire: &mut Wire) -> Option<End> {
        let now = Instant::now();
        while let Some((_, parcel)) = self.put_off.pop_front_if(|(next, _)| *next <= now) {
            self.waiting.push_back(parcel);
        }
        if wire.opened.elapsed() < CHANNEL_AGE {
            return None;
        }
        let drain = self.context.drain.clone();
        tokio::select! {
            renewed = wire.renew() => renewed.err().map(|error| End::Lost(chain(&error))),
            () = drain.forced() => Some(End::Forced),
        }
    }

    /// Notes a message that reached no queue; says why everything is declared again, if so.
    fn returned(&self, returned: &BasicReturnMessage) -> Option<String> {
        if returned.exchange.as_str() == self.unheard.exchange {
            let id = returned.properties.correlation_id().as_ref();
            if let Some(id) = id.and_then(|id| id.as_str().parse().ok()) {
                (self.unheard.tell)(id);
            }
            return None;
        }
        self.metrics.returned.inc();
        tracing::error!(
            "RabbitMQ returned a message: it reached no queue, not even that of dead letters. \
             Everything is declared again and what is not confirmed is resent"
        );
        Some("a message reached no queue; declaring everything again".to_owned())
    }

    fn note(&mut self, wire: &mut Wire, event: Option<Event>) -> Option<String> {
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
            // Those that were on their way say so themselves, and of this channel.
            Some(Event::Error(error)) if channel_closed(&error).is_some() => None,
            event => lost(event),
        }
    }

    /// Tells readiness how it is.
    fn tell(&self, wire: &Wire, blocked: Option<String>) {
        if wire.blocked {
            let reason = blocked.unwrap_or_else(|| "out of memory or disk".to_owned());
            self.latch.not_ready(format!("RabbitMQ blocks publishers: {reason}"));
        } else {
            self.latch.ready();
        }
    }
}

async fn confirm(channel: &Channel) -> Result<(), BrokerError> {
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    asked("switching publisher confirms on", selecting).await
}

fn ended_by(error: &lapin::Error) -> End {
    match channel_closed(error) {
        Some(Closed::By(code)) if code != NOT_FOUND => {
            End::Closed { code: Some(code), why: lost_by(error) }
        }
        Some(Closed::Somehow) => End::Closed { code: None, why: lost_by(error) },
        // An exchange that is missing is declared again.
        Some(Closed::By(_)) | None => End::Lost(lost_by(error)),
    }
}

fn answer(parcel: Box<Parcel>, answer: Answer) {
    // Whoever stopped waiting needs no answer.
    let _ = parcel.receipt.send(answer);
}

fn send(channel: Channel, number: u64, parcel: &Parcel) -> Sending {
    let envelope = &parcel.envelope;
    let (exchange, key) = (envelope.exchange.into(), envelope.key.clone());
    let (properties, body) = (envelope.properties.clone(), envelope.body.clone());
    Box::pin(async move {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        #[expect(clippy::disallowed_methods, reason = "this publisher awaits the confirm")]
        let publishing = channel.basic_publish(exchange, key, options, &body, properties);
        let confirmation = match publishing.await {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        (number, confirmation)
    })
}
