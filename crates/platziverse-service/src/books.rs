//! Books that balance: what came in is what became of it plus what is still in flight.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Metrics;

/// What can become of a thing that came in.
pub trait Fate: Copy + fmt::Debug + Send + Sync + 'static {
    /// The start of the metrics' names, like `gateway_publishes`.
    const NAME: &'static str;
    /// The word for coming in, with a sentence.
    const ENTRY: (&'static str, &'static str);
    /// The word for each fate, with a sentence, in the order of [`Fate::index`].
    const FATES: &'static [(&'static str, &'static str)];
    /// Which of [`Fate::FATES`] this is.
    fn index(self) -> usize;
}

/// Counts that are read and written together, so that they balance at every moment.
#[derive(Debug)]
pub struct Books<F: Fate> {
    pages: Arc<Mutex<Page>>,
    fate: PhantomData<F>,
}

#[derive(Clone, Debug)]
struct Page {
    entered: u64,
    in_flight: i64,
    fates: Vec<u64>,
}

impl<F: Fate> Clone for Books<F> {
    fn clone(&self) -> Self {
        Self { pages: Arc::clone(&self.pages), fate: PhantomData }
    }
}

impl<F: Fate> Books<F> {
    /// Opens books that are shown among `metrics`.
    pub fn open(metrics: &Metrics) -> Self {
        let page = Page { entered: 0, in_flight: 0, fates: vec![0; F::FATES.len()] };
        let books = Self { pages: Arc::new(Mutex::new(page)), fate: PhantomData };
        metrics.register(|registry| registry.register_collector(Box::new(books.clone())));
        books
    }

    /// Notes that `count` came in; they are in flight from now on.
    pub fn enter(&self, count: u64) {
        let mut page = self.page();
        page.entered += count;
        page.in_flight += i64::try_from(count).unwrap_or(i64::MAX);
    }

    /// Notes what became of `count` that were in flight.
    pub fn settle(&self, fate: F, count: u64) {
        let mut page = self.page();
        page.in_flight -= i64::try_from(count).unwrap_or(i64::MAX);
        if let Some(total) = page.fates.get_mut(fate.index()) {
            *total += count;
        }
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> i64 {
        self.page().in_flight
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Fate> Collector for Books<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let page = self.page().clone();
        let mut counter = |(word, help): (&str, &str), value: u64| {
            let metric = ConstCounter::new(value);
            let name = format!("{}_{word}", F::NAME);
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
        };
        counter(F::ENTRY, page.entered)?;
        for (fate, value) in F::FATES.iter().zip(page.fates) {
            counter(*fate, value)?;
        }
        let gauge = ConstGauge::new(page.in_flight);
        let name = format!("{}_in_flight", F::NAME);
        let help = "Came in, with their fate still open";
        gauge.encode(encoder.encode_descriptor(&name, help, None, gauge.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Test {
        Kept,
        Lost,
    }

    impl Fate for Test {
        const NAME: &'static str = "test_things";
        const ENTRY: (&'static str, &'static str) = ("received", "Came in");
        const FATES: &'static [(&'static str, &'static str)] = &[("kept", "K"), ("lost", "L")];
        fn index(self) -> usize {
            self as usize
        }
    }

    #[test]
    fn shown_with_every_fate() {
        let metrics = Metrics::default();
        let books = Books::<Test>::open(&metrics);
        books.enter(5);
        books.settle(Test::Kept, 2);
        books.settle(Test::Lost, 1);
        let text = metrics.encode();
        for line in [
            "platziverse_test_things_received_total 5",
            "platziverse_test_things_kept_total 2",
            "platziverse_test_things_lost_total 1",
            "platziverse_test_things_in_flight 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
