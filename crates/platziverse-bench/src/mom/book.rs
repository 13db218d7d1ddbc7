//! Which messages came back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Messages with the numbers from 0 on, each to come once.
#[derive(Debug)]
pub(crate) struct Book {
    seen: Vec<AtomicBool>,
    count: AtomicU64,
}

impl Book {
    /// So many.
    pub(crate) fn new(messages: u64) -> Self {
        Self {
            seen: (0..messages).map(|_| AtomicBool::default()).collect(),
            count: AtomicU64::new(0),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Notes one that came.
    pub(crate) fn note(&self, number: u64) -> Result<(), String> {
        let place = usize::try_from(number).ok().and_then(|number| self.seen.get(number));
        let place = place.ok_or_else(|| format!("message {number} was never published"))?;
        if place.swap(true, Ordering::Relaxed) {
            return Err(format!("message {number} came twice"));
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fails unless what came and what is left are all of them.
    pub(crate) fn close(&self, left: u64) -> Result<(), String> {
        let (came, all) = (self.count.load(Ordering::Relaxed), self.len());
        if came + left == all {
            return Ok(());
        }
        Err(format!("of {all} messages {came} came and {left} are left"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_once() {
        let book = Book::new(3);
        assert_eq!((book.note(2), book.note(0)), (Ok(()), Ok(())));
        assert!(book.note(2).is_err() && book.note(3).is_err());
        assert_eq!((book.close(1).is_ok(), book.close(0).is_ok()), (true, false));
    }
}
