//! The books of a service: what came in, and what became of it.

use crate::aggregator::PROGRAM as AGGREGATOR;
use crate::mom::PROGRAM as MOM;
use crate::{Process, Samples};

/// A book's metric names: the book, how it calls what comes in, and the fates.
type Book = (&'static str, &'static str, &'static [&'static str]);

const DROPPED: &str = "dropped";
const PUBLISHES: Book = ("gateway_publishes", "received", &["confirmed", "refused", DROPPED]);
const RECORDS: Book =
    ("worker_records", "delivered", &["stored", "duplicate", "dead_lettered", "requeued"]);
const TASKS: Book = (
    "worker_tasks",
    "delivered",
    &["done", "duplicate", "expired", "retried", "named", "omitted", "dead_lettered", "requeued"],
);
const REPORTS: Book =
    ("worker_reports", "received", &["applied", "ignored", "dead_lettered", "requeued"]);
const MOM_PUBLISHES: Book = ("mom_publishes", "received", &["confirmed", "refused"]);

/// The sums of a book at one moment. [`Balance::entered`] and [`Balance::accounted`] must be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Balance {
    /// What came in: publishes, or a worker's records, tasks or reports.
    pub entered: f64,
    /// What has met its fate, with what is in flight.
    pub accounted: f64,
    /// What is in flight.
    pub in_flight: f64,
    /// What a gateway has let go.
    pub dropped: f64,
}

impl Balance {
    /// Whether everything that came in is accounted for.
    pub fn is_balanced(&self) -> bool {
        // Counts, exact up to 2^53.
        self.entered == self.accounted
    }

    fn read((book, entry, fates): Book, samples: &Samples) -> Result<Self, String> {
        let count = |word: &str| samples.try_get(&format!("platziverse_{book}_{word}_total"));
        let in_flight = samples.try_get(&format!("platziverse_{book}_in_flight"))?;
        let (mut accounted, mut dropped) = (in_flight, 0.0);
        for fate in fates {
            let settled = count(fate)?;
            accounted += settled;
            if *fate == DROPPED {
                dropped += settled;
            }
        }
        Ok(Self { entered: count(entry)?, accounted, in_flight, dropped })
    }
}

impl Process {
    /// The books: of publishes if it is a gateway, of records if it is a worker.
    pub async fn books(&self) -> Result<Balance, String> {
        let book = if self.is_gateway() { PUBLISHES } else { RECORDS };
        Balance::read(book, &self.try_metrics().await?)
    }

    /// All its books at one moment, by name: those of a worker are of one that has every role,
    /// and an aggregator has none.
    pub async fn all_books(&self) -> Result<Vec<(&'static str, Balance)>, String> {
        let books: &[Book] = match self.program() {
            _ if self.is_gateway() => &[PUBLISHES],
            MOM => &[MOM_PUBLISHES],
            AGGREGATOR => &[],
            _ => &[RECORDS, TASKS, REPORTS],
        };
        let samples = self.try_metrics().await?;
        books.iter().map(|book| Ok((book.0, Balance::read(*book, &samples)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read() {
        let page = "platziverse_g_p_received_total 4\nplatziverse_g_p_kept_total 2\n\
                    platziverse_g_p_dropped_total 0\nplatziverse_g_p_in_flight 1\n";
        let book: Book = ("g_p", "received", &["kept", DROPPED]);
        let balance = Balance::read(book, &Samples::parse(page)).unwrap();
        let wanted = Balance { entered: 4.0, accounted: 3.0, in_flight: 1.0, dropped: 0.0 };
        assert_eq!(balance, wanted);
        assert!(!balance.is_balanced());
        assert!(Balance::read(PUBLISHES, &Samples::parse(page)).is_err());
    }
}
