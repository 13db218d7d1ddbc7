//! Users, who are known by a key.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;

/// What has become of a wish to delete a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserDeletion {
    /// The key has no effect any more. The user's subscriptions are ended by whoever
    /// [claims](super::claim_unfinished) them; the row goes after the last one.
    Deleted,
    /// Nothing has changed: there are topics or queues of theirs, be it ones that are being deleted.
    HasObjects,
    /// There is no such user.
    Unknown,
}

/// Adds a user with a key whose SHA-256 this is, and answers the id. A key that is in use is an
/// error that is not [transient](StoreError::is_transient).
pub async fn create_user(store: &Store, key_hash: [u8; 32]) -> Result<Uuid, StoreError> {
    let created = store.run("adding a user", async |client| {
        let sql =
            "INSERT INTO mom_users (id, key_hash) VALUES (gen_random_uuid(), $1) RETURNING id";
        let row = client.query_typed_one(sql, &[(&key_hash.as_slice(), Type::BYTEA)]).await?;
        row.try_get(0)
    });
    created.await
}

const ROTATE: &str = "\
UPDATE mom_users SET key_hash = $2, rotated_at = now()
WHERE id = $1 AND key_hash IS NOT NULL RETURNING id";

/// Gives the user another key, and answers whether there is such a user. The old key has no effect
/// from now on. A key that is in use is an error that is not
/// [transient](StoreError::is_transient).
pub async fn rotate_key(store: &Store, user: Uuid, key_hash: [u8; 32]) -> Result<bool, StoreError> {
    let rotated = store.run("giving a user another key", async |client| {
        let parameters = [(&user as _, Type::UUID), (&key_hash.as_slice() as _, Type::BYTEA)];
        Ok(client.query_typed_opt(ROTATE, &parameters).await?.is_some())
    });
    rotated.await
}

/// Deletes a user who has no topics and queues.
pub async fn delete_user(store: &Store, user: Uuid) -> Result<UserDeletion, StoreError> {
    let deleted = store.transaction("deleting a user", async |client| {
        if !lock(client, user, "UPDATE").await? {
            return Ok(UserDeletion::Unknown);
        }
        let id = [(&user as _, Type::UUID)];
        let objects = "SELECT 1 FROM mom_objects WHERE creator = $1 LIMIT 1";
        if client.query_typed_opt(objects, &id).await?.is_some() {
            return Ok(UserDeletion::HasObjects);
        }
        let subscriptions = client.query_typed(END_ALL, &id).await?;
        let user = if subscriptions.is_empty() {
            "DELETE FROM mom_users WHERE id = $1"
        } else {
            "UPDATE mom_users SET key_hash = NULL WHERE id = $1"
        };
        client.query_typed(user, &id).await?;
        Ok(UserDeletion::Deleted)
    });
    deleted.await
}

/// Nobody is at it now, hence `updated_at` stays.
const END_ALL: &str = "\
UPDATE mom_subscriptions SET stage = 'deleting' WHERE user_id = $1 RETURNING 1";

/// Keeps a user from being deleted until the transaction ends. Answers whether there is such a user.
pub(super) async fn keep(client: &Client, user: Uuid) -> Result<bool, Error> {
    lock(client, user, "KEY SHARE").await
}

/// Locks the row of a user who is not deleted, and answers whether there is one.
async fn lock(client: &Client, user: Uuid, strength: &str) -> Result<bool, Error> {
    let sql =
        format!("SELECT 1 FROM mom_users WHERE id = $1 AND key_hash IS NOT NULL FOR {strength}");
    Ok(client.query_typed_opt(&sql, &[(&user, Type::UUID)]).await?.is_some())
}
