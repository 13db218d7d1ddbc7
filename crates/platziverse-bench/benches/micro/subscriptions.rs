//! Whom a topic reaches, where 100,000 filters are subscribed to, and what another filter costs.
//!
//! An item is a topic, or a filter.

use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box, black_box_drop};
use fastrand::Rng;
use platziverse_gateway::packet::QoS;
use platziverse_gateway::subscriptions::{Subscription, Subscriptions};
use platziverse_protocol::topic::TopicFilter;
use uuid::Uuid;

const FILTERS: usize = 100_000;
const FILTERS_OF_A_CLIENT: u64 = 10;
/// Clients that want [`ALARM`], each by one of the filters.
const CROWD: usize = 1_000;
const ALARM: &str = "alarm/fire";
/// Topics that are matched in turn: more than what stays in a cache.
const TOPICS: usize = 10_000;
/// Filters that are added and removed.
const NEWCOMERS: usize = 1_000;

/// What clients subscribe to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filters {
    /// No wildcards.
    Exact,
    /// Each with `+`, half of them at the last level and half in the middle.
    Plus,
    /// A third each: no wildcards, `+`, and `#`.
    Mixed,
}

const ALL: [Filters; 3] = [Filters::Exact, Filters::Plus, Filters::Mixed];

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Plus => "+",
            Self::Mixed => "exact, +, #",
        })
    }
}

/// A device of a site.
struct Device {
    site: usize,
    uuid: Uuid,
}

impl Device {
    fn topic(&self) -> String {
        format!("site/{}/device/{}/state", self.site, self.uuid)
    }
}

/// Devices, the same in each run; those of another seed are others.
fn devices(seed: u64, count: usize) -> Vec<Device> {
    let mut random = Rng::with_seed(seed);
    let mut device = |number| Device { site: number % 100, uuid: Uuid::from_u128(random.u128(..)) };
    (0..count).map(&mut device).collect()
}

impl Filters {
    /// A filter that matches the topic of one device and of no other.
    fn of_device(self, number: usize, device: &Device) -> TopicFilter {
        let Device { site, uuid } = device;
        filter(&match (self, number % 6) {
            (Self::Plus, 0 | 2 | 4) | (Self::Mixed, 1) => format!("site/{site}/device/{uuid}/+"),
            (Self::Plus, _) | (Self::Mixed, 4) => format!("site/+/device/{uuid}/state"),
            (Self::Mixed, 2 | 5) => format!("site/{site}/device/{uuid}/#"),
            _ => device.topic(),
        })
    }

    /// A filter that matches [`ALARM`].
    fn of_alarm(self, number: usize) -> TopicFilter {
        filter(match (self, number % 3) {
            (Self::Plus, _) | (Self::Mixed, 1) => "alarm/+",
            (Self::Mixed, 2) => "alarm/#",
            _ => ALARM,
        })
    }

    /// The subscriptions of some 10,000 clients to devices, and of another [`CROWD`] to alarms.
    fn subscribed(self) -> Subscriptions<u64> {
        let mut subscriptions = Subscriptions::new();
        let devices = devices(1, FILTERS - CROWD);
        for (number, device) in devices.iter().enumerate() {
            let client = number as u64 / FILTERS_OF_A_CLIENT;
            subscriptions.insert(&self.of_device(number, device), client, wants());
        }
        for number in 0..CROWD {
            let client = (FILTERS + number) as u64;
            subscriptions.insert(&self.of_alarm(number), client, wants());
        }
        subscriptions
    }

    /// The subscriptions, made once.
    fn shared(self) -> &'static Subscriptions<u64> {
        static EXACT: LazyLock<Subscriptions<u64>> = LazyLock::new(|| Filters::Exact.subscribed());
        static PLUS: LazyLock<Subscriptions<u64>> = LazyLock::new(|| Filters::Plus.subscribed());
        static MIXED: LazyLock<Subscriptions<u64>> = LazyLock::new(|| Filters::Mixed.subscribed());
        match self {
            Self::Exact => &EXACT,
            Self::Plus => &PLUS,
            Self::Mixed => &MIXED,
        }
    }

    /// Filters that nobody has, and who is to have them.
    fn newcomers(self) -> Vec<(TopicFilter, u64)> {
        let filter = |(number, device): (usize, &Device)| {
            let client = 2 * FILTERS as u64 + number as u64 / FILTERS_OF_A_CLIENT;
            (self.of_device(number, device), client)
        };
        devices(2, NEWCOMERS).iter().enumerate().map(filter).collect()
    }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a filter")
}

fn wants() -> Subscription {
    Subscription { qos: QoS::AtLeastOnce, ..Subscription::default() }
}

/// A topic that one client wants.
#[divan::bench(args = ALL)]
fn match_one(bencher: Bencher<'_, '_>, filters: Filters) {
    let mut devices = devices(1, FILTERS - CROWD);
    Rng::with_seed(3).shuffle(&mut devices);
    let topics = devices.iter().take(TOPICS).map(Device::topic).collect();
    match_each(bencher, filters, topics, 1);
}

/// A topic like those that are wanted, of a device that nobody wants.
#[divan::bench(args = ALL)]
fn match_none(bencher: Bencher<'_, '_>, filters: Filters) {
    let topics = devices(2, TOPICS).iter().map(Device::topic).collect();
    match_each(bencher, filters, topics, 0);
}

/// A topic that a thousand clients want.
#[divan::bench(args = ALL)]
fn match_1000(bencher: Bencher<'_, '_>, filters: Filters) {
    match_each(bencher, filters, vec![ALARM.to_owned()], CROWD);
}

fn match_each(bencher: Bencher<'_, '_>, filters: Filters, topics: Vec<String>, matches: usize) {
    let subscriptions = filters.shared();
    for topic in &topics {
        assert_eq!(subscriptions.matches(topic, None).len(), matches, "{topic}");
    }
    let mut topics = topics.iter().cycle();
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        let topic = topics.next().map_or(ALARM, String::as_str);
        black_box_drop(subscriptions.matches(black_box(topic), black_box(None)));
    });
}

/// Each sample adds filters that the preparation of the next one removes.
#[divan::bench(args = ALL, sample_size = 1)]
fn subscribe(bencher: Bencher<'_, '_>, filters: Filters) {
    let (subscriptions, newcomers) = (RefCell::new(filters.subscribed()), filters.newcomers());
    bencher
        .counter(ItemsCount::new(newcomers.len()))
        .with_inputs(|| remove(&subscriptions, &newcomers))
        .bench_local_values(|()| insert(&subscriptions, &newcomers));
}

/// The other way round.
#[divan::bench(args = ALL, sample_size = 1)]
fn unsubscribe(bencher: Bencher<'_, '_>, filters: Filters) {
    let (subscriptions, newcomers) = (RefCell::new(filters.subscribed()), filters.newcomers());
    bencher
        .counter(ItemsCount::new(newcomers.len()))
        .with_inputs(|| insert(&subscriptions, &newcomers))
        .bench_local_values(|()| remove(&subscriptions, &newcomers));
}

fn insert(subscriptions: &RefCell<Subscriptions<u64>>, newcomers: &[(TopicFilter, u64)]) {
    let mut subscriptions = subscriptions.borrow_mut();
    for (filter, client) in newcomers {
        black_box(subscriptions.insert(black_box(filter), *client, wants()));
    }
}

fn remove(subscriptions: &RefCell<Subscriptions<u64>>, newcomers: &[(TopicFilter, u64)]) {
    let mut subscriptions = subscriptions.borrow_mut();
    for (filter, client) in newcomers {
        black_box(subscriptions.remove(black_box(filter), client));
    }
}
