//! The advisory locks. Their numbers are shared by every version that runs on one database.

/// Held while migrations run.
pub(crate) const MIGRATE: i64 = 0x706c_747a_0000_0001;
/// Held by the worker that sweeps.
pub(crate) const SWEEP: i64 = 0x706c_747a_0000_0002;
/// Held while partitions are made and dropped.
pub(crate) const PARTITIONS: i64 = 0x706c_747a_0000_0003;
/// The first half of the two-part keys that stand for message ids; the second is [`stripe`].
pub(crate) const MESSAGE_IDS: i32 = 0x706c_747a;

/// The lock that stands for a message id. There are only 256, because a transaction that locked
/// each id of a batch would exhaust the server's lock table.
pub(crate) fn stripe(id: &uuid::Uuid) -> i32 {
    i32::from(id.as_bytes()[15])
}

/// Takes a session's lock if it is free.
pub(crate) const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1)";
