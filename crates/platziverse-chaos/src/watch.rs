//! What is looked at all the time: books and memory.

use std::collections::BTreeMap;

use platziverse_testkit::{Balance, Process};
use serde::Serialize;

/// The most memory that a gateway may take, in bytes: some 50 MB when it is idle or busy, and its
/// publisher's buffer (64 MiB), should it ever be full.
pub const GATEWAY_MEMORY_MAX: u64 = 128 << 20;
/// The most memory that a worker may take, in bytes: some 50 MB, and as much again for what its
/// writers hold and one batch of each.
pub const WORKER_MEMORY_MAX: u64 = 160 << 20;

/// The most memory that a server of topics and queues may take, in bytes: some 50 MB, and the room
/// for messages on their way (64 MiB).
pub const MOM_MEMORY_MAX: u64 = 128 << 20;

/// The most memory that an aggregator may take, in bytes: some 80 MB in a development build, and the
/// logs of its three channels (16 MiB each), should they ever be full.
pub const AGGREGATOR_MEMORY_MAX: u64 = 128 << 20;

/// The most memory that any service of a kind took, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Of a gateway.
    pub gateway: u64,
    /// Of a worker.
    pub worker: u64,
    /// Of a server of topics and queues.
    pub mom: u64,
    /// Of an aggregator.
    pub aggregator: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watch {
    /// The peaks so far.
    pub peak: Peak,
    /// How often books were read.
    pub readings: u64,
    /// By service and kind of trouble: the first of each.
    unexpected: BTreeMap<(String, &'static str), String>,
}

impl Watch {
    /// Looks at one gateway.
    pub async fn gateway(&mut self, process: &Process) {
        self.peak.gateway = self.peak.gateway.max(process.peak_memory());
        // One that does not answer has nothing to say: it may be killed at this moment.
        let _ = self.books(process).await;
    }

    /// Looks at one worker.
    pub async fn worker(&mut self, process: &Process) {
        self.peak.worker = self.peak.worker.max(process.peak_memory());
        let _ = self.books(process).await;
    }

    /// Looks at one server of topics and queues.
    pub async fn mom(&mut self, process: &Process) {
        self.peak.mom = self.peak.mom.max(process.peak_memory());
        let _ = self.books(process).await;
    }

    /// Looks at one aggregator.
    pub async fn aggregator(&mut self, process: &Process) {
        self.peak.aggregator = self.peak.aggregator.max(process.peak_memory());
        let _ = self.books(process).await;
    }

    /// The last look at one that runs and that nobody injures any more: it must answer.
    pub async fn last(&mut self, process: &Process) {
        if let Err(why) = self.books(process).await {
            let key = (process.name().to_owned(), "silent");
            self.unexpected.insert(key, format!("its books cannot be read at the end: {why}"));
        }
    }

    async fn books(&mut self, process: &Process) -> Result<(), String> {
        let books = process.all_books().await?;
        self.readings += 1;
        for (book, balance) in books {
            for (kind, words) in wrong(&balance) {
                let key = (format!("{}, {book}", process.name()), kind);
                self.unexpected.entry(key).or_insert(words);
            }
        }
        Ok(())
    }

    /// What should not have been seen.
    pub fn unexpected(&self) -> Vec<String> {
        let over = |kind: &str, peak: u64, bound: u64| {
            (peak > bound).then(|| {
                format!("a {kind} took {} MB of memory; {} are enough", peak >> 20, bound >> 20)
            })
        };
        let gateway = over("gateway", self.peak.gateway, GATEWAY_MEMORY_MAX);
        let worker = over("worker", self.peak.worker, WORKER_MEMORY_MAX);
        let mom = over("server of topics and queues", self.peak.mom, MOM_MEMORY_MAX);
        let aggregator = over("aggregator", self.peak.aggregator, AGGREGATOR_MEMORY_MAX);
        let books = self.unexpected.iter().map(|((name, _), words)| format!("{name}: {words}"));
        books.chain(gateway).chain(worker).chain(mom).chain(aggregator).collect()
    }
}

/// What is wrong with a page of books.
///
/// Services derive what is in flight from the same calls as the rest, so the sums are equal as long
/// as they are counted and shown together. A publish or record that is settled twice shows as less
/// than nothing in flight; one that is never settled, as something in flight when all is at rest,
/// which a round waits for.
fn wrong(balance: &Balance) -> Vec<(&'static str, String)> {
    let Balance { entered, accounted, in_flight, dropped } = *balance;
    let mut wrong = Vec::new();
    if !balance.is_balanced() {
        wrong.push(("sums", format!("{entered} entered, {accounted} accounted for")));
    }
    if in_flight < 0.0 {
        wrong.push(("in flight", format!("{in_flight} in flight: something was settled twice")));
    }
    if dropped > 0.0 {
        let words = format!("{dropped} publishes dropped, though none was of QoS 0");
        wrong.push(("dropped", words));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_is_told() {
        let good = Balance { entered: 3.0, accounted: 3.0, in_flight: 1.0, dropped: 0.0 };
        let kinds = |balance: Balance| -> Vec<_> {
            wrong(&balance).into_iter().map(|(kind, _)| kind).collect()
        };
        assert!(kinds(good).is_empty());
        assert_eq!(kinds(Balance { accounted: 2.0, ..good }), ["sums"]);
        assert_eq!(kinds(Balance { in_flight: -1.0, ..good }), ["in flight"]);
        assert_eq!(kinds(Balance { dropped: 1.0, ..good }), ["dropped"]);
    }

    #[test]
    fn memory_has_a_bound_for_each_kind() {
        let (gateway, worker, mom) = (GATEWAY_MEMORY_MAX, WORKER_MEMORY_MAX, MOM_MEMORY_MAX);
        let aggregator = AGGREGATOR_MEMORY_MAX;
        let peak = Peak { gateway, worker, mom, aggregator };
        let mut watch = Watch { peak, ..Watch::default() };
        assert!(watch.unexpected().is_empty());
        watch.peak.gateway += 1;
        assert_eq!(watch.unexpected().len(), 1);
        watch.peak.worker += 1;
        assert_eq!(watch.unexpected().len(), 2);
        watch.peak.mom += 1;
        assert_eq!(watch.unexpected().len(), 3);
        watch.peak.aggregator += 1;
        assert_eq!(watch.unexpected().len(), 4);
    }
}
