//! The advisory locks. Their numbers are shared by every version that runs on one database.

use platziverse_config::DatabaseConfig;

use crate::connection::Link;
use crate::error::StoreError;

/// Held while migrations run.
pub(crate) const MIGRATE: i64 = 0x706c_747a_0000_0001;
/// Held by the worker that sweeps.
pub(crate) const SWEEP: i64 = 0x706c_747a_0000_0002;
/// Held while partitions are made and dropped.
pub(crate) const PARTITIONS: i64 = 0x706c_747a_0000_0003;

/// Takes a session's lock if it is free.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock($1)";

const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

/// How long a connection that may hold a lock can be idle until the server ends it. The kernel of
/// a process that is frozen answers keepalives; only its silence tells.
const EXPIRE_IDLE: &str = "SET idle_session_timeout = '10s'";

/// A connection that can hold a lock. Its holder must ask something every few seconds.
pub(crate) async fn open(
    config: &DatabaseConfig,
    application_name: &str,
) -> Result<Link, StoreError> {
    let link = Link::open(config, application_name).await?;
    link.within("preparing to hold a lock", link.client.batch_execute(EXPIRE_IDLE)).await?;
    Ok(link)
}

/// Takes a lock if no other connection has it. It lasts as long as the connection.
pub(crate) async fn try_take(
    link: &Link,
    what: &'static str,
    lock: i64,
) -> Result<bool, StoreError> {
    let row = link.within(what, link.client.query_one(TRY_LOCK, &[&lock])).await?;
    Ok(row.get(0))
}

/// Gives a lock up at once. With the connection it would go too, a moment later.
pub(crate) async fn give_up(link: &Link, what: &'static str, lock: i64) -> Result<(), StoreError> {
    link.within(what, link.client.execute(UNLOCK, &[&lock])).await?;
    Ok(())
}
