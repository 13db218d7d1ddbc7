//! What is to be offered. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::message::Shape;

/// The most publishes of one client in flight: each has a packet identifier of its own.
pub const IN_FLIGHT_MAX: u16 = 10_000;

/// What is to be offered.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The servers; clients are spread over them.
    pub servers: Vec<Server>,
    /// Start of the client ids and of the agents' uuids.
    pub name: String,
    /// Connections.
    pub clients: usize,
    /// How they publish.
    pub pace: Pace,
    /// How long they publish until it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub time: Duration,
    /// What they publish.
    pub shape: Shape,
}

/// How publishes follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each client keeps so many in flight, 1 to [`IN_FLIGHT_MAX`].
    Closed(u16),
    /// All clients together publish so many a second, evenly spread.
    Open(f64),
}

/// An MQTT server, and who its clients are.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Nothing for anonymous clients.
    pub login: Option<Login>,
}

/// A user name and a password.
#[derive(Clone)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Pace {
    /// The most publishes of one client in flight.
    pub(crate) fn in_flight_max(self) -> usize {
        usize::from(match self {
            Self::Closed(count) => count.clamp(1, IN_FLIGHT_MAX),
            Self::Open(_) => IN_FLIGHT_MAX,
        })
    }
}

/// When each publish of one client is due. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// From one publish of this client to its next.
    step: Duration,
    /// Of its first.
    first: Duration,
}

impl Schedule {
    /// The schedule of client `number` of so many: all begin at different moments, evenly spread.
    /// Nothing, in a closed loop.
    pub(crate) fn of(pace: Pace, clients: usize, number: usize) -> Option<Self> {
        let Pace::Open(rate) = pace else { return None };
        let step = clients as f64 / rate.max(0.001);
        let first = step * number as f64 / clients as f64;
        Some(Self { step: Duration::from_secs_f64(step), first: Duration::from_secs_f64(first) })
    }

    /// When its publish `number` is due, from the start.
    pub(crate) fn due(&self, number: u64) -> Duration {
        // In nanoseconds, since a Duration multiplies by 32 bits only.
        let nanos = self.step.as_nanos().saturating_mul(u128::from(number));
        self.first + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due before `end`, from the start.
    pub(crate) fn due_before(&self, end: Duration) -> u64 {
        let rest = end.saturating_sub(self.first).as_nanos();
        let count = rest.div_ceil(self.step.as_nanos().max(1));
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_is_spread_evenly() {
        let pace = Pace::Open(8.0);
        let mut all: Vec<_> = (0..4)
            .flat_map(|client| {
                let schedule = Schedule::of(pace, 4, client).unwrap();
                (0..2).map(move |number| schedule.due(number).as_millis())
            })
            .collect();
        all.sort_unstable();
        let before = |millis| {
            let schedules = (0..4).map(|client| Schedule::of(pace, 4, client).unwrap());
            schedules.map(|one| one.due_before(Duration::from_millis(millis))).sum::<u64>()
        };
        assert_eq!([0, 1, 125, 126, 1_000].map(before), [0, 1, 1, 2, 8]);
        assert_eq!(all, [0, 125, 250, 375, 500, 625, 750, 875]);
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        assert!(Schedule::of(Pace::Closed(20), 1, 0).is_none());
        assert_eq!(Pace::Closed(0).in_flight_max(), 1);
    }
}
