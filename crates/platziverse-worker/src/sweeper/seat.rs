//! Who sweeps: the worker that holds the lock, and only while it hears.

use platziverse_store::sweep::{Candidate, Leader};

/// Where a worker stands. The parameters are what it holds there; dropped, that is given up.
pub(super) enum Seat<C = Candidate, L = Leader> {
    /// It has no connection for the lock.
    Away,
    /// It waits until the lock is free.
    Standing(C),
    /// It holds the lock.
    Leading(L),
}

impl<C, L> Seat<C, L> {
    pub(super) fn leads(&self) -> bool {
        matches!(self, Self::Leading(_))
    }

    /// Keeps the seat while the worker hears. Who does not must leave the lock to one who does.
    #[must_use]
    pub(super) fn kept_if(self, hears: bool) -> Self {
        if hears { self } else { Self::Away }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use platziverse_protocol::time::Timestamp;

    use super::*;
    use crate::leases::Leases;

    #[test]
    fn a_deaf_leader_gives_the_lock_up() {
        let at = |millis| Timestamp::EPOCH.plus_millis(millis);
        let mut leases = Leases::new("own".into(), at(0));
        let lock = Rc::new(());
        let mut seat: Seat<(), _> = Seat::Leading(Rc::clone(&lock));
        for millis in (0..=20_000).step_by(2_000) {
            leases.hear("own", at(millis));
        }
        seat = seat.kept_if(leases.alive(Some(at(0)), at(21_000)).is_some());
        assert!(seat.leads() && Rc::strong_count(&lock) == 2);
        seat = seat.kept_if(leases.alive(Some(at(0)), at(26_000)).is_some());
        assert!(!seat.leads());
        assert_eq!(Rc::strong_count(&lock), 1, "the lock is free");
        // Who hears again listens for a whole lease before it stands again.
        leases.hear("own", at(28_000));
        assert!(leases.alive(Some(at(0)), at(28_000)).is_none());
    }
}
