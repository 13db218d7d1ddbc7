//! The ways in which a connection can be injured.

use std::time::Duration;

use super::pump::Direction;

/// How a [`super::Proxy`] injures its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toxic {
    /// Not at all.
    None,
    /// Each byte arrives so much later, in each direction; at most 64 KiB are on the way.
    Latency(Duration),
    /// At most so many bytes a second, in each direction.
    Bandwidth(u64),
    /// Connections are accepted and kept, and nothing moves in either direction, not even an end.
    HalfOpen,
    /// Nothing moves from the client to the server, everything from the server to the client.
    Mute,
    /// Connections are reset as soon as they are accepted; the present ones are cut.
    Refuse,
}

/// How often a second a limited connection moves something.
const STEPS: u64 = 20;

impl Toxic {
    pub(super) fn moves(self, direction: Direction) -> bool {
        match self {
            Self::HalfOpen | Self::Refuse => false,
            Self::Mute => direction == Direction::Down,
            _ => true,
        }
    }

    pub(super) fn latency(self) -> Duration {
        match self {
            Self::Latency(latency) => latency,
            _ => Duration::ZERO,
        }
    }

    /// How many bytes may be written at once.
    pub(super) fn step(self) -> usize {
        match self {
            Self::Bandwidth(rate) => usize::try_from(rate / STEPS).unwrap_or(usize::MAX).max(1),
            _ => usize::MAX,
        }
    }

    /// How long the next bytes must wait after `count` bytes were written.
    pub(super) fn pause(self, count: usize) -> Duration {
        match self {
            Self::Bandwidth(rate) => Duration::from_secs_f64(count as f64 / rate.max(1) as f64),
            _ => Duration::ZERO,
        }
    }
}
