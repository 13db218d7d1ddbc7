//! Publishes tasks as any application may: over the exchange, with confirms, and again what was not
//! confirmed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use platziverse_broker::{
    Context, Lane, Outcome, Outgoing, Publisher, PublisherOptions, Receipt, Topology,
};
use platziverse_config::{Layers, Settings};
use platziverse_testkit::{Proxy, World};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::fleet::Order;
use crate::stage::Setting;

/// Tasks that may await their confirms: what a publisher holds while RabbitMQ is away.
const WINDOW: u64 = 500;
/// How long after the first time a task is published again that is to be.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked what there is to do.
const LOOK: Duration = Duration::from_millis(5);
/// How long the end of the connection may take.
const END: Duration = Duration::from_secs(5);
const OPTIONS: PublisherOptions = PublisherOptions {
    role: "tasks",
    batch_records: 1,
    batch_bytes: 128 << 10,
    window: 64,
    buffer_bytes: 4 << 20,
};

/// A task as it is published.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Where it goes.
    pub lane: Lane,
    /// The task.
    pub body: String,
    /// Whether it is published again after a while, under the same id.
    pub again: bool,
}

/// A task that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its id, which is the message's, too.
    pub id: Uuid,
    /// Whether RabbitMQ has confirmed it.
    pub confirmed: bool,
}

/// What was published, numbered from 0: shared by the sender and whoever reads it.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<Page>>);

#[derive(Debug, Default)]
struct Page {
    sent: Vec<Sent>,
    /// Messages that await their confirms.
    open: u64,
}

impl Outbox {
    fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything so far.
    pub fn sent(&self) -> Vec<Sent> {
        self.page().sent.clone()
    }

    /// How many tasks were published so far: the next one's number.
    pub fn len(&self) -> u64 {
        self.page().sent.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages that await their confirms.
    pub fn open(&self) -> u64 {
        self.page().open
    }

    fn add(&self, id: Uuid) -> u64 {
        let mut page = self.page();
        page.sent.push(Sent { id, confirmed: false });
        page.sent.len() as u64 - 1
    }
}

/// Who waits for the confirm of a message.
struct Slip {
    outbox: Outbox,
    number: u64,
}

impl Receipt for Slip {
    fn resolve(self, outcome: Outcome) {
        let mut page = self.outbox.page();
        page.open -= 1;
        let number = usize::try_from(self.number).unwrap_or(usize::MAX);
        if let (Outcome::Confirmed, Some(sent)) = (outcome, page.sent.get_mut(number)) {
            sent.confirmed = true;
        }
    }
}

/// Publishes until it is told otherwise; it ends when this is dropped.
#[derive(Debug)]
pub struct Sender {
    /// What was published.
    pub outbox: Outbox,
    /// Between it and RabbitMQ.
    pub amqp: Proxy,
    orders: watch::Sender<Order>,
    context: Context,
    task: JoinHandle<()>,
}

impl Sender {
    /// Connects, and publishes what `compose` makes of a number and an id, `rate` times a second.
    /// `settings` are those of the services, so that all declare the same.
    #[expect(clippy::disallowed_methods, reason = "the drop ends the task")]
    pub async fn start(
        world: &World,
        settings: &[Setting],
        rate: f64,
        compose: impl Fn(u64, Uuid) -> Parcel + Send + 'static,
    ) -> Result<Self, String> {
        let amqp = Proxy::start(world.amqp_address()).await;
        let settings = load(world.amqp_url_at(amqp.address()), settings)?;
        let topology = Topology::for_tasks(&settings.tasks, &settings.ingest);
        let name = format!("platziverse-chaos@{:08x}", fastrand::u32(..));
        let context = Context::standalone(settings.amqp, &name, topology);
        let publisher = Publisher::start(&context, OPTIONS).await;
        let publisher = publisher.map_err(|error| format!("the sender of tasks: {error}"))?;
        let (orders, ordered) = watch::channel(Order::Report);
        let outbox = Outbox::default();
        let driver = Driver {
            outbox: outbox.clone(),
            orders: ordered,
            publisher,
            pause: Duration::from_secs_f64(1.0 / rate.max(0.01)),
            again: VecDeque::new(),
        };
        let task = tokio::spawn(driver.run(compose));
        Ok(Self { outbox, amqp, orders, context, task })
    }

    /// Gives an order: it publishes while that is to report.
    pub fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Ends, once what was published is confirmed if that is soon.
    pub async fn finish(&mut self) {
        self.orders.send_replace(Order::End);
        // What has no confirm by then is not counted as confirmed.
        let ending = async {
            let _ = (&mut self.task).await;
            self.context.drain.finished().await
        };
        let _ = timeout(END, ending).await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
        self.context.drain.force();
    }
}

/// The settings as a service with these variables has them.
fn load(amqp_url: String, settings: &[Setting]) -> Result<Settings, String> {
    let own = ("PLATZIVERSE_AMQP__URL".to_owned(), amqp_url);
    let more = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    let env = std::iter::once(own).chain(more).collect();
    // No file has a say.
    let layers = Layers { env, dir: "/nonexistent".into(), ..Layers::default() };
    let loaded = Settings::load(&layers);
    loaded.map(|loaded| loaded.settings).map_err(|errors| errors.to_string())
}

struct Driver {
    outbox: Outbox,
    orders: watch::Receiver<Order>,
    publisher: Publisher<Slip>,
    pause: Duration,
    /// What is to be published again, and when.
    again: VecDeque<(Instant, u64, Uuid, Parcel)>,
}

impl Driver {
    async fn run(mut self, compose: impl Fn(u64, Uuid) -> Parcel) {
        let mut next = Instant::now();
        loop {
            let (order, now) = (*self.orders.borrow(), Instant::now());
            match order {
                Order::End => return,
                Order::Report if next <= now && self.outbox.open() < WINDOW => {
                    next = (next + self.pause).max(now - self.pause * 10);
                    let id = Uuid::now_v7();
                    let number = self.outbox.add(id);
                    let parcel = compose(number, id);
                    self.publish(number, id, &parcel).await;
                    if parcel.again {
                        self.again.push_back((now + AGAIN, number, id, parcel));
                    }
                    if self.again.front().is_some_and(|(due, ..)| *due <= now)
                        && let Some((_, number, id, parcel)) = self.again.pop_front()
                    {
                        self.publish(number, id, &parcel).await;
                    }
                }
                _ => sleep(LOOK).await,
            }
        }
    }

    async fn publish(&self, number: u64, id: Uuid, parcel: &Parcel) {
        self.outbox.page().open += 1;
        let line = Bytes::from(parcel.body.clone());
        let receipt = Slip { outbox: self.outbox.clone(), number };
        let outgoing = Outgoing { lane: parcel.lane.clone(), id, line, receipt };
        if let Err(unsent) = self.publisher.publish(outgoing).await {
            // It ends: nothing was published.
            unsent.outgoing.receipt.resolve(Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_confirmed_counts() {
        let outbox = Outbox::default();
        let slip = |number| Slip { outbox: outbox.clone(), number };
        for _ in 0..2 {
            let number = outbox.add(Uuid::now_v7());
            outbox.page().open += 1;
            assert_eq!(number + 1, outbox.len());
        }
        slip(1).resolve(Outcome::Confirmed);
        slip(0).resolve(Outcome::Abandoned);
        let confirmed: Vec<_> = outbox.sent().iter().map(|sent| sent.confirmed).collect();
        assert_eq!((confirmed, outbox.open()), (vec![false, true], 0));
    }

    #[test]
    fn settings_are_those_of_services() {
        let delays = ("PLATZIVERSE_TASKS__RETRY_DELAYS", "100ms,1s".to_owned());
        let settings = load("amqp://a:b@127.0.0.1:1/v".to_owned(), &[delays]).unwrap();
        assert_eq!((settings.amqp.port, settings.amqp.vhost.as_str()), (1, "v"));
        assert_eq!(settings.tasks.retry_delays.len(), 2);
        assert!(load(String::new(), &[("PLATZIVERSE_TASKS__NO", String::new())]).is_err());
    }
}
