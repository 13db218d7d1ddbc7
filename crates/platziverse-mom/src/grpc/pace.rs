//! When to try again what was too much.

use std::time::Duration;

use tokio::time::Instant;

/// Turns of those who wait, one after the other at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// So many turns a second; nought is any number.
    pub(super) fn new(per_second: u32) -> Self {
        let every = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { every, next: Instant::now() }
    }

    /// When it is one's turn; not before `wait` is over.
    pub(super) fn turn(&mut self, wait: Duration) -> Instant {
        let turn = self.next.max(Instant::now() + wait);
        self.next = turn + self.every;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_one_after_the_other() {
        let mut pace = Pace::new(10);
        let begun = Instant::now();
        let millis =
            |pace: &mut Pace, wait| (pace.turn(Duration::from_millis(wait)) - begun).as_millis();
        assert_eq!([0, 1, 2].map(|_| millis(&mut pace, 50)), [50, 150, 250]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(millis(&mut pace, 50), 1_050);
        let mut free = Pace::new(0);
        assert_eq!([0, 1].map(|_| millis(&mut free, 5)), [1_005, 1_005]);
    }
}
