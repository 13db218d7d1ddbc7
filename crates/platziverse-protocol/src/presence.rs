//! Presence as a maximum: who is connected, whatever order the records arrive in.

use std::fmt;
use std::time::Duration;

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
        // `SessionClock::start` keeps a bit free below the variant: room for 2^61 successors.
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

/// One moment, as a process's two clocks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day, which may be set forward and back.
    pub wall: Timestamp,
    /// What has passed since some moment that stays the same as long as the process lives; never
    /// goes back.
    pub steady: Duration,
}

/// Gives out session ids that sort in the order of their starts, also across gateways.
///
/// It follows the most advanced clock it has heard, so that a session that starts here after one
/// that started elsewhere sorts after it, even when this machine's clock is behind. What was heard
/// goes on at the pace of the steady clock: a wall clock that was behind for a while and is set
/// right again is not taken for one that is behind for ever.
#[derive(Clone, Debug, Default)]
pub struct SessionClock {
    heard: Option<Heard>,
    last: u64,
}

/// The most advanced time that was heard, and when by the steady clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    time: Timestamp,
    steady: Duration,
}

/// Ids of one millisecond, told apart by the 12 bits that UUIDv7 leaves for a counter.
const COUNTER_BITS: u32 = 12;

impl Heard {
    fn goes_on(&self, steady: Duration) -> Timestamp {
        let elapsed = steady.saturating_sub(self.steady).as_millis();
        self.time.plus_millis(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

impl SessionClock {
    /// Notes the time that another gateway's clock showed at `now`. Answers whether it was
    /// followed or is too far ahead.
    pub fn hear(&mut self, time: Timestamp, now: Moment) -> bool {
        if time.millis_since(now.wall) > LEAD_MILLIS_MAX {
            return false;
        }
        if self.heard.is_none_or(|heard| heard.goes_on(now.steady) < time) {
            self.heard = Some(Heard { time, steady: now.steady });
        }
        true
    }

    /// The time that this clock shows at `now`, for its own heartbeats: never before what it has
    /// heard, nor before the last session that it started.
    pub fn time(&self, now: Moment) -> Timestamp {
        let last = i64::try_from(self.last >> COUNTER_BITS).unwrap_or(0);
        let led = self.led(now);
        Timestamp::from_millis(led.as_millis().max(last)).unwrap_or(led)
    }

    /// The id of a session that starts at `now`: later than every one before it. `random` fills
    /// the bits that only tell gateways apart.
    pub fn start(&mut self, now: Moment, random: u64) -> SessionId {
        let millis = u64::try_from(self.led(now).as_millis()).unwrap_or(0);
        self.last = (millis << COUNTER_BITS).max(self.last + 1);
        let (millis, counter) = (self.last >> COUNTER_BITS, self.last & 0xfff);
        let high = (millis << 16) | 0x7000 | counter;
        // The variant's two bits, one that stays free for successors, 61 random ones.
        let low = (random >> 3) | (1 << 63);
        SessionId(Uuid::from_u64_pair(high, low))
    }

    fn led(&self, now: Moment) -> Timestamp {
        let heard = self.heard.map(|heard| heard.goes_on(now.steady));
        heard.map_or(now.wall, |heard| heard.max(now.wall))
    }
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
