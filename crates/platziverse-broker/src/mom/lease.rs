//! Leases: messages that were delivered and are not settled yet, each with its end.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::desk::{Claim, Desk};
use super::{MomError, Settle};
use crate::message::handed;

/// How long a lease may last in all. RabbitMQ closes the channel of whoever holds a message for
/// longer than its `consumer_timeout`, 30 minutes by default.
pub(super) const LONGEST: Duration = Duration::from_secs(25 * 60);
/// Leases of one process.
const LEASES_MAX: usize = 100_000;
/// Bytes of an instance's name.
const INSTANCE_MAX: usize = 255;

/// The id of a lease, as it is handed out: `<instance>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseId {
    pub(super) instance: String,
    pub(super) id: Uuid,
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.id.simple())
    }
}

impl LeaseId {
    /// Reads an id; none if no instance gives such.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (instance, id) = text.rsplit_once('.')?;
        let is_one = (1..=INSTANCE_MAX).contains(&instance.len());
        let id = id.parse().ok().filter(|_| is_one)?;
        Some(Self { instance: instance.to_owned(), id })
    }
}

/// The leases of this process.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: Mutex<Table>,
    /// Told when the next end is a new one.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Table {
    leases: HashMap<Uuid, Lease>,
    ends: BTreeSet<(Instant, Uuid)>,
}

#[derive(Debug)]
struct Lease {
    acker: Acker,
    granted: Instant,
    ends: Instant,
    _desk: Arc<Desk>,
}

impl Lease {
    async fn ack(&self) -> bool {
        handed(self.acker.ack(BasicAckOptions { multiple: false })).await
    }

    /// Whoever had it failed: unlike what nobody has seen, that counts as a delivery on every
    /// version of RabbitMQ.
    async fn give_back(&self) -> bool {
        handed(self.acker.reject(BasicRejectOptions { requeue: true })).await
    }
}

impl Leases {
    /// Whether a lease may be so long.
    pub(super) fn check(length: Duration) -> Result<(), MomError> {
        if length > LONGEST {
            return Err(too_long(LONGEST));
        }
        Ok(())
    }

    /// Whether there may be one more.
    pub(super) fn check_room(&self) -> Result<(), MomError> {
        if self.table().leases.len() >= LEASES_MAX {
            let why = format!("{LEASES_MAX} messages are leased on this server already");
            return Err(MomError::TooMany(why));
        }
        Ok(())
    }

    /// A new lease on a message that was delivered.
    pub(super) fn grant(&self, claim: Claim, length: Duration) -> (Uuid, super::MomMessage) {
        let Claim { message, acker, desk } = claim;
        let id = Uuid::new_v4();
        let granted = Instant::now();
        let ends = granted + length;
        let lease = Lease { acker, granted, ends, _desk: desk };
        let mut table = self.table();
        table.leases.insert(id, lease);
        table.ends.insert((ends, id));
        let is_first = table.ends.first() == Some(&(ends, id));
        drop(table);
        if is_first {
            self.sooner.notify_one();
        }
        (id, message)
    }

    pub(super) async fn settle(&self, id: Uuid, how: Settle) -> Result<(), MomError> {
        let settled = match how {
            Settle::Ack => self.take(id)?.ack().await,
            Settle::Nack => self.take(id)?.give_back().await,
            Settle::Extend(length) => return self.extend(id, length),
        };
        if settled { Ok(()) } else { Err(MomError::LeaseGone) }
    }

    fn take(&self, id: Uuid) -> Result<Lease, MomError> {
        let mut table = self.table();
        let lease = table.leases.remove(&id).ok_or(MomError::LeaseGone)?;
        table.ends.remove(&(lease.ends, id));
        Ok(lease)
    }

    fn extend(&self, id: Uuid, length: Duration) -> Result<(), MomError> {
        let now = Instant::now();
        let mut table = self.table();
        let lease = table.leases.get_mut(&id).filter(|lease| !lease.acker.poisoned());
        let lease = lease.ok_or(MomError::LeaseGone)?;
        let last = lease.granted + LONGEST;
        let ends = now.checked_add(length).filter(|ends| *ends <= last);
        let ends = ends.ok_or_else(|| too_long(last.saturating_duration_since(now)))?;
        let before = std::mem::replace(&mut lease.ends, ends);
        table.ends.remove(&(before, id));
        table.ends.insert((ends, id));
        let is_first = table.ends.first() == Some(&(ends, id));
        drop(table);
        if is_first {
            self.sooner.notify_one();
        }
        Ok(())
    }

    /// Forgets leases on what has gone back already, since its channel is closed.
    pub(super) fn sweep(&self) {
        let mut table = self.table();
        let Table { leases, ends } = &mut *table;
        leases.retain(|id, lease| {
            let is_held = !lease.acker.poisoned();
            if !is_held {
                ends.remove(&(lease.ends, *id));
            }
            is_held
        });
    }

    /// The leases that have ended, and when the next one does.
    fn ended(&self, now: Instant) -> (Vec<Lease>, Option<Instant>) {
        let mut table = self.table();
        let mut ended = Vec::new();
        while let Some((end, id)) = table.ends.first().copied() {
            if end > now {
                return (ended, Some(end));
            }
            table.ends.pop_first();
            ended.extend(table.leases.remove(&id));
        }
        (ended, None)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic in between would leave an end without a lease, which does no harm.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives back what is not settled when its lease ends.
pub(super) async fn expire(leases: Arc<Leases>, mut over: watch::Receiver<()>) {
    loop {
        let (ended, next) = leases.ended(Instant::now());
        join_all(ended.iter().map(Lease::give_back)).await;
        drop(ended);
        let far = Instant::now() + LONGEST;
        tokio::select! {
            () = sleep_until(next.unwrap_or(far)) => {}
            () = leases.sooner.notified() => {}
            changed = over.changed() => if changed.is_err() { return },
        }
    }
}

fn too_long(left: Duration) -> MomError {
    let (all, left) = (LONGEST.as_secs() / 60, left.as_secs());
    MomError::TooMany(format!("a lease lasts {all} minutes at most, of which {left} s are left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = LeaseId { instance: "host.example:1a2b".to_owned(), id: Uuid::from_u128(7) };
        assert_eq!(LeaseId::read(&id.to_string()), Some(id));
        let long = format!("{}.{}", "i".repeat(INSTANCE_MAX + 1), Uuid::nil());
        for text in ["", ".", "a", "a.b", ".00000000000000000000000000000007", &long] {
            assert_eq!(LeaseId::read(text), None, "{text}");
        }
    }
}
