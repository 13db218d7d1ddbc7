//! The room for lines, shared by those who publish and the task that sends.

use std::collections::HashSet;

use tokio::sync::{Semaphore, watch};

use super::lane::Lane;

/// The room for lines, given back as they are settled. Lanes that are held up may have half of it:
/// beyond that, more of their lines wait outside, so that the others have the rest.
#[derive(Debug)]
pub(super) struct Room {
    permits: Semaphore,
    capacity: usize,
    held_up: watch::Sender<HeldUp>,
}

#[derive(Debug, Default)]
struct HeldUp {
    lanes: HashSet<Lane>,
    /// Whether they have all that they may have.
    full: bool,
}

impl HeldUp {
    fn admits(&self, lane: &Lane) -> bool {
        !self.full || !self.lanes.contains(lane)
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    Now,
    Ever,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let capacity = bytes.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Semaphore::new(capacity), capacity, held_up: watch::Sender::default() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn left(&self) -> usize {
        self.permits.available_permits()
    }

    /// Takes room for a line of the lane once there is some.
    pub(super) async fn enter(&self, lane: &Lane, cost: u32) -> Result<(), NoRoom> {
        loop {
            self.admission(lane).await;
            let permit = self.permits.acquire_many(cost).await.map_err(|_| NoRoom::Ever)?;
            // Whoever has waited here while its lane was held up has no place in the others' half.
            if self.held_up.borrow().admits(lane) {
                permit.forget();
                return Ok(());
            }
        }
    }

    async fn admission(&self, lane: &Lane) {
        if !self.held_up.borrow().admits(lane) {
            // The sender is in `self`: it is not gone.
            let _ = self.held_up.subscribe().wait_for(|held_up| held_up.admits(lane)).await;
        }
    }

    /// Takes room for a line of the lane if there is some now.
    pub(super) fn try_enter(&self, lane: &Lane, cost: u32) -> Result<(), NoRoom> {
        match self.permits.try_acquire_many(cost) {
            Ok(permit) if self.held_up.borrow().admits(lane) => {
                permit.forget();
                Ok(())
            }
            Err(_) if self.permits.is_closed() => Err(NoRoom::Ever),
            Ok(_) | Err(_) => Err(NoRoom::Now),
        }
    }

    /// Notes which lanes are held up from now on (true) and which no longer, and what room those
    /// that are have taken.
    pub(super) fn note(&self, turned: impl ExactSizeIterator<Item = (Lane, bool)>, taken: usize) {
        let full = taken > self.capacity / 2;
        if turned.len() == 0 && self.held_up.borrow().full == full {
            return;
        }
        self.held_up.send_if_modified(|held_up| {
            let mut admits_more = held_up.full && !full;
            held_up.full = full;
            for (lane, is_held_up) in turned {
                if is_held_up {
                    held_up.lanes.insert(lane);
                } else {
                    admits_more |= held_up.lanes.remove(&lane);
                }
            }
            admits_more
        });
    }

    pub(super) fn give_back(&self, cost: usize) {
        self.permits.add_permits(cost);
    }

    /// Ends: nobody enters any more, and nobody waits.
    pub(super) fn close(&self) {
        self.permits.close();
        self.held_up.send_replace(HeldUp::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn lanes_that_are_held_up_leave_half_of_the_room_to_the_others() {
        let room = Room::new(100);
        let (bad, good) = (Lane::live("bad"), Lane::live("good"));
        assert_eq!(room.try_enter(&bad, 60), Ok(()));
        room.note([(bad.clone(), true)].into_iter(), 60);
        assert_eq!(room.try_enter(&bad, 1), Err(NoRoom::Now));
        let mut waiting = Box::pin(room.enter(&bad, 1));
        assert_eq!((&mut waiting).now_or_never(), None);
        assert_eq!(room.try_enter(&good, 30), Ok(()));
        // Some of it goes, and there is room again.
        room.give_back(20);
        room.note(std::iter::empty(), 40);
        assert_eq!(waiting.now_or_never(), Some(Ok(())));
        room.note(std::iter::empty(), 60);
        assert_eq!(room.try_enter(&bad, 1), Err(NoRoom::Now));
        room.note([(bad.clone(), false)].into_iter(), 0);
        assert_eq!(room.try_enter(&bad, 1), Ok(()));
    }

    #[test]
    fn who_waits_for_room_while_its_lane_is_held_up_goes_on_waiting() {
        let room = Room::new(100);
        let (bad, good) = (Lane::live("bad"), Lane::live("good"));
        assert_eq!(room.try_enter(&bad, 100), Ok(()));
        let mut late = Box::pin(room.enter(&bad, 10));
        let mut other = Box::pin(room.enter(&good, 10));
        assert_eq!((&mut late).now_or_never(), None);
        assert_eq!((&mut other).now_or_never(), None);
        room.note([(bad.clone(), true)].into_iter(), 90);
        room.give_back(10);
        assert_eq!((&mut late).now_or_never(), None);
        assert_eq!(other.now_or_never(), Some(Ok(())));
        room.close();
        assert_eq!(late.now_or_never(), Some(Err(NoRoom::Ever)));
    }
}
