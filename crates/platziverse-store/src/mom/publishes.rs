//! Publishes that are known by an idempotency key.

use platziverse_protocol::time::Timestamp;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Parameter;
use crate::error::StoreError;
use crate::store::Store;

/// The message that the user published with a key whose SHA-256 this is, and how many receivers it
/// had.
pub async fn published(
    store: &Store,
    user: Uuid,
    key_hash: [u8; 32],
) -> Result<Option<(Uuid, u32)>, StoreError> {
    let found = store.run("looking for an earlier publish", async |client| {
        let sql = "SELECT message_id, receivers FROM mom_publishes \
                   WHERE user_id = $1 AND key_hash = $2";
        let parameters: [Parameter<'_>; 2] =
            [(&user, Type::UUID), (&key_hash.as_slice(), Type::BYTEA)];
        let Some(row) = client.query_typed_opt(sql, &parameters).await? else { return Ok(None) };
        Ok(Some((row.try_get(0)?, row.try_get::<_, i32>(1)?.unsigned_abs())))
    });
    found.await
}

const REMEMBER: &str = "\
INSERT INTO mom_publishes (user_id, key_hash, message_id, receivers) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id, key_hash) DO NOTHING";

/// Keeps what was published with a key, unless that has something already.
pub async fn remember_publish(
    store: &Store,
    user: Uuid,
    key_hash: [u8; 32],
    message_id: Uuid,
    receivers: u32,
) -> Result<(), StoreError> {
    let receivers = i32::try_from(receivers).unwrap_or(i32::MAX);
    let kept = store.run("keeping a publish", async |client| {
        let parameters: [Parameter<'_>; 4] = [
            (&user, Type::UUID),
            (&key_hash.as_slice(), Type::BYTEA),
            (&message_id, Type::UUID),
            (&receivers, Type::INT4),
        ];
        client.query_typed(REMEMBER, &parameters).await?;
        Ok(())
    });
    kept.await
}

/// Whoever else forgets some of them meanwhile is not waited for.
const FORGET: &str = "\
WITH old AS (
  SELECT user_id, key_hash FROM mom_publishes WHERE published_at < $1
  ORDER BY published_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM mom_publishes AS p USING old
WHERE p.user_id = old.user_id AND p.key_hash = old.key_hash RETURNING 1";

/// Forgets at most `limit` publishes that are older, and answers how many: if as many as `limit`,
/// there may be more.
pub async fn forget_publishes(
    store: &Store,
    older_than: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let (older_than, limit) = (older_than.to_chrono(), i64::from(limit));
    let forgotten = store.run("forgetting old publishes", async |client| {
        let parameters: [Parameter<'_>; 2] =
            [(&older_than, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        Ok(client.query_typed(FORGET, &parameters).await?.len() as u64)
    });
    forgotten.await
}
