//! Presence as a maximum: who is connected, whatever order the records arrive in.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// One MQTT connection that reports for agents. A UUIDv7, so a session that starts later sorts
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The session with that id.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The session that this one goes on as after it may have been ended: later than this one,
    /// and earlier than every session that starts in a later moment, so that a client that has
    /// moved meanwhile is not taken for one that came back.
    #[must_use]
    pub const fn successor(self) -> Self {
        let (high, low) = self.0.as_u64_pair();
        // The counter of `SessionClock::start` leaves room for 2^61 successors.
        Self(Uuid::from_u64_pair(high, low.saturating_add(1)))
    }

    /// The id.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of an agent's presence: a session, and whether it has ended.
///
/// Ordered by session, then by end; every record raises what is known to the greater of the two.
/// So the result is the same in whatever order, and however often, records arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Presence {
    /// The newest session heard of.
    pub session: SessionId,
    /// Whether it is over.
    pub ended: bool,
}

impl Presence {
    /// What is known after both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether the agent is connected.
    pub const fn connected(self) -> bool {
        !self.ended
    }
}

/// How far another process's clock may lead before it is not followed any more, in milliseconds.
/// A machine that is days ahead would otherwise drag every gateway with it.
pub const LEAD_MILLIS_MAX: i64 = 60 * 60 * 1_000;

/// Gives out session ids that sort in the order of their starts, also across gateways.
///
/// It follows the most advanced clock it has heard, so that a session that starts here after one
/// that started elsewhere sorts after it, even when this machine's clock is behind.
#[derive(Clone, Debug, Default)]
pub struct SessionClock {
    lead_millis: i64,
    last: u64,
}

/// Ids of one millisecond, told apart by the 12 bits that UUIDv7 leaves for a counter.
const COUNTER_BITS: u32 = 12;

impl SessionClock {
    /// Notes the time that another gateway's clock showed at `now`. Answers whether it was
    /// followed or is too far ahead.
    pub fn hear(&mut self, time: Timestamp, now: Timestamp) -> bool {
        let lead = time.millis_since(now);
        if lead > LEAD_MILLIS_MAX {
            return false;
        }
        self.lead_millis = self.lead_millis.max(lead);
        true
    }

    /// The time that this clock shows at `now`, for its own heartbeats.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        let last = i64::try_from(self.last >> COUNTER_BITS).unwrap_or(0);
        let led = now.plus_millis(self.lead_millis);
        Timestamp::from_millis(led.as_millis().max(last)).unwrap_or(led)
    }

    /// The id of a session that starts at `now`: later than every one before it. `random` fills
    /// the bits that only tell gateways apart.
    pub fn start(&mut self, now: Timestamp, random: u64) -> SessionId {
        let millis = u64::try_from(now.plus_millis(self.lead_millis).as_millis()).unwrap_or(0);
        self.last = (millis << COUNTER_BITS).max(self.last + 1);
        let (millis, counter) = (self.last >> COUNTER_BITS, self.last & 0xfff);
        let high = (millis << 16) | 0x7000 | counter;
        // The variant's two bits, one that stays free for successors, 61 random ones.
        let low = (random >> 3) | (1 << 63);
        SessionId(Uuid::from_u64_pair(high, low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn sessions_sort_by_start_even_when_the_clock_goes_back() {
        let mut clock = SessionClock::default();
        let times = [5_000, 5_000, 4_000, 4_000, 9_000, 1];
        let ids: Vec<_> = times.iter().map(|t| clock.start(at(*t), u64::MAX)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
        assert!(clock.time(at(1)) >= at(9_000));
    }

    #[test]
    fn a_successor_is_before_whatever_starts_later() {
        let mut clock = SessionClock::default();
        let (first, later) = (clock.start(at(5_000), u64::MAX), clock.start(at(5_000), 0));
        assert!(first < first.successor() && first.successor() < later);
        assert_eq!(first.successor().as_uuid().get_version_num(), 7);
        assert_eq!(first.successor().as_uuid().get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn a_gateway_that_is_behind_follows_one_that_is_ahead() {
        let (mut ahead, mut behind) = (SessionClock::default(), SessionClock::default());
        assert!(behind.hear(ahead.time(at(60_000)), at(0)));
        let first = ahead.start(at(61_000), 7);
        let second = behind.start(at(1_001), 0);
        assert!(first < second);
        assert!(!behind.hear(at(LEAD_MILLIS_MAX + 1), at(0)));
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_gives_the_same(
            history in prop::collection::vec((0u128..6, any::<bool>()), 1..20),
            shuffled in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let states: Vec<_> = history
                .iter()
                .map(|(n, ended)| Presence {
                    session: SessionId(Uuid::from_u128(*n)),
                    ended: *ended,
                })
                .collect();
            let once = states.iter().copied().reduce(Presence::merge).unwrap();
            let repeats = shuffled.iter().map(|index| *index.get(&states));
            let again = repeats.chain(states.iter().rev().copied()).reduce(Presence::merge);
            prop_assert_eq!(Some(once), again);
            let newest = states.iter().map(|state| state.session).max().unwrap();
            let ended = states.iter().any(|state| state.session == newest && state.ended);
            prop_assert_eq!(once.connected(), !ended);
        }
    }
}
