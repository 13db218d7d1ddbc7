//! What a server of topics and queues counts.

use platziverse_service::Metrics;
use platziverse_service::books::{Books, Fate};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// What can become of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishFate {
    /// RabbitMQ has it in every queue, or it has no receivers.
    Confirmed,
    /// The publisher was told that it is not done, or has left before it was taken.
    Refused,
}

impl Fate for PublishFate {
    const NAME: &'static str = "mom_publishes";
    const ENTRY: (&'static str, &'static str) = ("received", "Publishes received");
    const FATES: &'static [(&'static str, &'static str)] = &[
        ("confirmed", "Publishes that RabbitMQ has in every queue, or that have no receivers"),
        ("refused", "Publishes refused, or given up before they were taken"),
    ];

    fn index(self) -> usize {
        self as usize
    }
}

/// A publish whose fate is open. Dropped, it is refused.
#[derive(Debug)]
pub(crate) struct Entry {
    books: Books<PublishFate>,
    fate: PublishFate,
}

impl Entry {
    /// Notes that it is confirmed.
    pub(crate) fn confirm(mut self) {
        self.fate = PublishFate::Confirmed;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.books.settle(self.fate, 1);
    }
}

/// The server's metrics.
#[derive(Debug)]
pub(crate) struct MomMetrics {
    publishes: Books<PublishFate>,
    /// Messages handed to consumers.
    pub(crate) delivered: Counter,
    /// Consumers that wait for a message.
    pub(crate) waiting: Gauge,
    /// Changes finished that a server had left half-done.
    pub(crate) reconciled: Counter,
}

impl MomMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let this = Self {
            publishes: Books::open(metrics),
            delivered: Counter::default(),
            waiting: Gauge::default(),
            reconciled: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "mom_messages_delivered",
                "Messages handed to consumers",
                this.delivered.clone(),
            );
            registry.register(
                "mom_waiting_consumers",
                "Consumers that wait for a message",
                this.waiting.clone(),
            );
            registry.register(
                "mom_changes_reconciled",
                "Changes finished that a server had left half-done",
                this.reconciled.clone(),
            );
        });
        this
    }

    /// Notes that a publish came in.
    pub(crate) fn publish(&self) -> Entry {
        self.publishes.enter(1);
        Entry { books: self.publishes.clone(), fate: PublishFate::Refused }
    }

    /// Counts a consumer among those that wait, until it is dropped.
    pub(crate) fn wait(&self) -> Waiting {
        self.waiting.inc();
        Waiting(self.waiting.clone())
    }
}

/// A consumer that waits.
#[derive(Debug)]
pub(crate) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_are_accounted_for() {
        let metrics = Metrics::default();
        let books = MomMetrics::new(&metrics);
        books.publish().confirm();
        drop(books.publish());
        let open = books.publish();
        let waiting = books.wait();
        let text = metrics.encode();
        for line in [
            "platziverse_mom_publishes_received_total 3",
            "platziverse_mom_publishes_confirmed_total 1",
            "platziverse_mom_publishes_refused_total 1",
            "platziverse_mom_publishes_in_flight 1",
            "platziverse_mom_waiting_consumers 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop((open, waiting));
        assert!(metrics.encode().contains("platziverse_mom_waiting_consumers 0"));
    }
}
