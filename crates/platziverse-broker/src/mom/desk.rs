//! Desks: channels for each queue that is in use. RabbitMQ closes the channel on which somebody asks
//! for a queue that is gone, and so harms nobody who asks for another one.

use std::array;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel, Consumer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::channels::{Channels, Counted};
use super::message::MomMessage;
use super::{MomError, now_or_later};
use crate::message::Message;
use crate::metrics::ConsumerMetrics;
use crate::publisher::short;

/// A desk that nobody has used for so long is closed.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Desks for one queue. RabbitMQ answers on one channel after the other, and each time only when the
/// queue has it on disk; what several channels ask for at a time goes there together.
const DESKS: usize = 4;
/// Messages that are asked for at one desk at a time.
const GETS_MAX: usize = 4;

/// All desks, by the names of their queues.
#[derive(Debug)]
pub(super) struct Desks {
    channels: Channels,
    name: Arc<str>,
    table: Mutex<HashMap<String, Arc<Row>>>,
}

/// The places of the desks of one queue.
#[derive(Debug)]
struct Row([Place; DESKS]);

/// The place of a desk. Whoever finds no open desk in it opens one, alone.
#[derive(Debug, Default)]
struct Place {
    desk: tokio::sync::Mutex<Option<Arc<Desk>>>,
    /// Those who ask there at this moment.
    asking: AtomicUsize,
}

/// Somebody who asks at a desk, until this is dropped.
#[derive(Debug)]
pub(super) struct Asking(Arc<Row>, usize);

impl Drop for Asking {
    fn drop(&mut self) {
        self.place().asking.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Asking {
    fn place(&self) -> &Place {
        &self.0.0[self.1]
    }
}

impl Default for Row {
    fn default() -> Self {
        Self(array::from_fn(|_| Place::default()))
    }
}

impl Row {
    /// The first place where fewest ask: as long as one is enough, there is one desk.
    fn ask(self: Arc<Self>) -> Asking {
        let asking = |place: &Place| place.asking.load(Ordering::Relaxed);
        let places = self.0.iter().enumerate();
        let number = places.min_by_key(|(_, place)| asking(place)).map_or(0, |(number, _)| number);
        self.ask_at(number)
    }

    fn ask_at(self: Arc<Self>, number: usize) -> Asking {
        let asking = Asking(self, number);
        asking.place().asking.fetch_add(1, Ordering::Relaxed);
        asking
    }
}

/// A channel for one queue. It closes when nobody has it any more: what was taken and not settled
/// goes back to the queue.
#[derive(Debug)]
pub(super) struct Desk {
    queue: ShortString,
    name: Arc<str>,
    counted: Counted,
    gets: Semaphore,
    consumers: AtomicU64,
    used: Mutex<Instant>,
    metrics: ConsumerMetrics,
}

impl Desks {
    pub(super) fn new(channels: Channels, name: Arc<str>) -> Self {
        Self { channels, name, table: Mutex::default() }
    }

    /// A desk of a queue; whether there is such a queue is not known yet.
    pub(super) async fn open(
        &self,
        queue: &str,
        deadline: Instant,
    ) -> Result<(Arc<Desk>, Asking), MomError> {
        let asking = Arc::clone(self.table().entry(queue.to_owned()).or_default()).ask();
        match self.open_at(asking.place(), queue, deadline).await {
            // Somewhere else there may be one.
            Err(MomError::TooMany(_)) if asking.1 > 0 => {
                let asking = Arc::clone(&asking.0).ask_at(0);
                let desk = self.open_at(asking.place(), queue, deadline).await?;
                Ok((desk, asking))
            }
            desk => Ok((desk?, asking)),
        }
    }

    async fn open_at(
        &self,
        place: &Place,
        queue: &str,
        deadline: Instant,
    ) -> Result<Arc<Desk>, MomError> {
        let mut open = timeout_at(deadline, place.desk.lock()).await.map_err(|_| {
            MomError::Unavailable(format!("it opens no channel for the queue {queue}"))
        })?;
        if let Some(desk) = open.as_ref().filter(|desk| desk.is_open()) {
            desk.touch();
            return Ok(Arc::clone(desk));
        }
        *open = None;
        let counted = match self.channels.lasting(deadline).await {
            Err(MomError::TooMany(_)) => {
                // Those that are not in use this moment give way.
                self.sweep(Duration::ZERO);
                self.channels.lasting(deadline).await?
            }
            counted => counted?,
        };
        let desk = Arc::new(self.desk(queue, counted));
        desk.prepare(deadline).await?;
        *open = Some(Arc::clone(&desk));
        Ok(desk)
    }

    fn desk(&self, queue: &str, counted: Counted) -> Desk {
        Desk {
            queue: short(queue),
            name: Arc::clone(&self.name),
            counted,
            gets: Semaphore::new(GETS_MAX),
            consumers: AtomicU64::default(),
            used: Mutex::new(Instant::now()),
            metrics: self.channels.metrics.clone(),
        }
    }

    /// Closes the desks that nobody has used for so long.
    pub(super) fn sweep(&self, idle: Duration) {
        self.table().retain(|_, row| {
            let mut is_used = false;
            for place in &row.0 {
                let Ok(mut open) = place.desk.try_lock() else {
                    is_used = true;
                    continue;
                };
                open.take_if(|desk| {
                    Arc::strong_count(desk) == 1 && (desk.is_idle(idle) || !desk.is_open())
                });
                is_used |= open.is_some();
            }
            // Whoever opens a desk has the row, or waits for the table.
            is_used || Arc::strong_count(row) > 1
        });
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Row>>> {
        // The table is whole after any panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn channel(&self) -> &Channel {
        &self.counted.channel
    }

    fn is_open(&self) -> bool {
        self.channel().status().connected()
    }

    fn touch(&self) {
        *self.used() = Instant::now();
    }

    fn is_idle(&self, idle: Duration) -> bool {
        self.used().elapsed() >= idle
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has each consumer hold one message at most.
    async fn prepare(&self, deadline: Instant) -> Result<(), MomError> {
        let limiting = self.channel().basic_qos(1, BasicQosOptions::default());
        match timeout_at(deadline, limiting).await {
            Ok(limited) => limited.map_err(|error| MomError::by(&error)),
            Err(_) => Err(MomError::Unavailable("it does not answer on a new channel".to_owned())),
        }
    }

    /// Whoever asks for a message at once waits for its turn, so that a queue that does not answer
    /// gathers no more questions.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        timeout_at(deadline, self.gets.acquire()).await.ok()?.ok()
    }

    /// The next message, if there is one. Not to be dropped before it resolves: the message would
    /// belong to nobody.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Option<Held>, lapin::Error> {
        let options = BasicGetOptions { no_ack: false };
        let got = self.channel().basic_get(self.queue.clone(), options).await?;
        Ok(got.map(|got| self.hold(got.delivery)))
    }

    /// A consumer of one message. Not to be dropped before it resolves.
    pub(super) async fn consume(&self) -> Result<Consumer, lapin::Error> {
        let number = self.consumers.fetch_add(1, Ordering::Relaxed);
        let tag = short(&format!("{}.{number}", self.name));
        let options = BasicConsumeOptions::default();
        self.channel().basic_consume(self.queue.clone(), tag, options, FieldTable::default()).await
    }

    /// Ends a consumer that has what it may have: nothing more is on its way to it. Before that
    /// message is acknowledged, or RabbitMQ would send another.
    pub(super) fn forget(&self, consumer: &Consumer) {
        let options = BasicCancelOptions { nowait: true };
        now_or_later(self.channel().basic_cancel(consumer.tag(), options));
    }

    /// Ends a consumer to which a message may be on its way. Not to be dropped before it resolves.
    pub(super) async fn cancel(&self, consumer: &Consumer) -> Result<(), lapin::Error> {
        self.channel().basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
    }

    pub(super) fn hold(self: &Arc<Self>, delivery: lapin::message::Delivery) -> Held {
        self.metrics.deliveries.inc();
        self.touch();
        let (message, acker) = Message::split(delivery);
        Held(Some(Claim { message: MomMessage::of(message), acker, desk: Arc::clone(self) }))
    }
}

/// A message that is held for somebody who may be gone: dropped, it goes back to the queue.
#[derive(Debug)]
pub(super) struct Held(Option<Claim>);

/// A message that is held, and what settles it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) message: MomMessage,
    pub(super) acker: Acker,
    /// Keeps the channel open over which it is settled.
    pub(super) desk: Arc<Desk>,
}

impl Held {
    /// The message; none if RabbitMQ delivers it again, since the channel is closed.
    pub(super) fn keep(mut self) -> Option<Claim> {
        self.0.take().filter(|claim| !claim.acker.poisoned())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            // Nobody has seen it. RabbitMQ 4.3 and newer do not count that as a delivery.
            let options = BasicNackOptions { multiple: false, requeue: true };
            now_or_later(claim.acker.nack(options));
        }
    }
}
