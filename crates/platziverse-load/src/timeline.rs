//! When a run begins, counts and ends.

use std::time::{Duration, Instant};

use platziverse_service::clock;

/// Between connecting and the first publish.
const PREPARE: Duration = Duration::from_millis(50);
/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(10);

/// When a run begins, counts and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    /// When the clients begin to publish.
    pub(crate) begin: Instant,
    /// The same moment, in microseconds since 1970.
    begin_micros: u64,
    warm_up: Duration,
    time: Duration,
}

impl Timeline {
    /// One that begins in a moment.
    pub(crate) fn soon(warm_up: Duration, time: Duration) -> Self {
        let millis = u64::try_from(clock::now().as_millis()).unwrap_or(0);
        let begin = Instant::now() + PREPARE;
        Self { begin, begin_micros: millis * 1_000 + PREPARE.as_micros() as u64, warm_up, time }
    }

    /// How long they publish until it counts.
    pub(crate) fn warm_up(&self) -> Duration {
        self.warm_up
    }

    /// How long it counts.
    pub(crate) fn counted(&self) -> Duration {
        self.time
    }

    /// How long they publish.
    pub(crate) fn length(&self) -> Duration {
        self.warm_up + self.time
    }

    /// When they publish no more.
    pub(crate) fn end(&self) -> Instant {
        self.begin + self.length()
    }

    /// When nothing is waited for any longer that was published by `now`.
    pub(crate) fn give_up(&self, now: Instant) -> Instant {
        now.min(self.end()) + GRACE
    }

    /// Until when a client waits for something to happen: until its next publish is due, else until
    /// the end, else until it gives up waiting for answers. Nothing when it is over.
    pub(crate) fn wait_until(
        &self,
        now: Instant,
        due: Option<Instant>,
        is_answered: bool,
    ) -> Option<Instant> {
        let (end, give_up) = (self.end(), self.end() + GRACE);
        let is_done = is_answered && due.is_none();
        if now >= end && (is_done || now >= give_up) {
            return None;
        }
        Some(due.unwrap_or(if now < end { end } else { give_up }))
    }

    /// Whether it counts at this moment.
    pub(crate) fn counts(&self, at: Instant) -> bool {
        (self.begin + self.warm_up..self.end()).contains(&at)
    }

    /// A moment, in microseconds since 1970.
    pub(crate) fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begin).as_micros();
        self.begin_micros + u64::try_from(since).unwrap_or(0)
    }

    /// The moment that [`Timeline::micros`] was told.
    pub(crate) fn at(&self, micros: u64) -> Instant {
        self.begin + Duration::from_micros(micros.saturating_sub(self.begin_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_and_back() {
        let timeline = Timeline::soon(Duration::from_secs(1), Duration::from_secs(2));
        for micros in [0, 1, 1_000_000, 2_999_999, 3_000_000] {
            let at = timeline.begin + Duration::from_micros(micros);
            assert_eq!(timeline.at(timeline.micros(at)), at);
            assert_eq!(timeline.counts(at), (1_000_000..3_000_000).contains(&micros), "{micros}");
        }
    }

    #[test]
    fn waiting_ends_ten_seconds_after_the_last_publish() {
        let timeline = Timeline::soon(Duration::ZERO, Duration::from_secs(2));
        let early = timeline.begin + Duration::from_secs(1);
        assert_eq!(timeline.give_up(early), early + GRACE);
        assert_eq!(timeline.give_up(timeline.end() + GRACE), timeline.end() + GRACE);
    }

    #[test]
    fn a_client_waits_for_what_comes_next() {
        let timeline = Timeline::soon(Duration::ZERO, Duration::from_secs(2));
        let end = timeline.end();
        let (early, late, over) = (timeline.begin, end + Duration::from_secs(1), end + GRACE);
        assert_eq!(timeline.wait_until(early, Some(late), false), Some(late));
        assert_eq!(timeline.wait_until(early, None, true), Some(end));
        assert_eq!(timeline.wait_until(late, None, false), Some(over));
        assert_eq!(timeline.wait_until(late, None, true), None);
        assert_eq!(timeline.wait_until(late, Some(late), true), Some(late));
        assert_eq!(timeline.wait_until(over, Some(late), false), None);
    }
}
