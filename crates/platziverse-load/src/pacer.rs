//! Which publishes of one client are due. Pure.

use std::time::Instant;

use crate::plan::{Pace, Schedule};
use crate::timeline::Timeline;

/// Which publishes of one client are due.
#[derive(Debug)]
pub(crate) struct Pacer {
    timeline: Timeline,
    /// Nothing in a closed loop.
    schedule: Option<Schedule>,
    published: u64,
}

impl Pacer {
    /// The pacer of client `number` of so many.
    pub(crate) fn of(pace: Pace, clients: usize, number: usize, timeline: Timeline) -> Self {
        Self { timeline, schedule: Schedule::of(pace, clients, number), published: 0 }
    }

    /// When the next publish was due, if it was by now; the one after it is then the next. What was
    /// due before the end is due after it, too: a machine that comes late to it must not make the
    /// server look better.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let since = match self.schedule {
            Some(schedule) => self.timeline.begin + schedule.due(self.published),
            None => now,
        };
        if since > now || since < self.timeline.begin || since >= self.timeline.end() {
            return None;
        }
        self.published += 1;
        Some(since)
    }

    /// When to look again whether one is due; nothing in a closed loop that has begun, or at the end.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let begin = self.timeline.begin;
        let Some(schedule) = self.schedule else { return (now < begin).then_some(begin) };
        let due = begin + schedule.due(self.published);
        (due < self.timeline.end()).then(|| due.max(now))
    }

    /// How many were taken.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// How many are due in the whole run and were not taken; 0 in a closed loop.
    pub(crate) fn unsent(&self) -> u64 {
        let due = self.schedule.map_or(0, |schedule| schedule.due_before(self.timeline.length()));
        due.saturating_sub(self.published)
    }

    /// Of these, how many are due while it counts.
    pub(crate) fn unsent_counted(&self) -> u64 {
        let warm_up = self.schedule.map_or(0, |one| one.due_before(self.timeline.warm_up()));
        self.unsent().saturating_sub(warm_up.saturating_sub(self.published))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_due_is_taken_and_what_was_not_is_counted() {
        let timeline = Timeline::soon(Duration::from_secs(1), Duration::from_secs(2));
        let at = |millis| timeline.begin + Duration::from_millis(millis);
        let mut pacer = Pacer::of(Pace::Open(10.0), 1, 0, timeline);
        assert_eq!((pacer.take(at(0)), pacer.take(at(50))), (Some(at(0)), None));
        assert_eq!([pacer.next(at(50)), pacer.next(at(120))], [Some(at(100)), Some(at(120))]);
        assert_eq!(pacer.take(at(100)), Some(at(100)));
        assert_eq!((pacer.published(), pacer.unsent(), pacer.unsent_counted()), (2, 28, 20));
        while pacer.take(at(1_950)).is_some() {}
        assert_eq!((pacer.published(), pacer.unsent(), pacer.unsent_counted()), (20, 10, 10));
        while pacer.take(at(60_000)).is_some() {}
        assert_eq!((pacer.published(), pacer.unsent(), pacer.next(at(0))), (30, 0, None));
    }

    #[test]
    fn in_a_closed_loop_one_is_always_due_but_not_before_the_begin() {
        let timeline = Timeline::soon(Duration::ZERO, Duration::from_secs(2));
        let mut pacer = Pacer::of(Pace::Closed(1), 1, 0, timeline);
        let early = timeline.begin - Duration::from_millis(1);
        assert_eq!((pacer.take(early), pacer.next(early)), (None, Some(timeline.begin)));
        assert_eq!(pacer.take(timeline.begin), Some(timeline.begin));
        let end = timeline.end();
        assert_eq!((pacer.take(end), pacer.next(end), pacer.unsent()), (None, None, 0));
    }
}
