//! Creating and deleting topics and queues.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::object::{Object, ObjectKind, ObjectOptions, Stage};
use super::users::keep;
use super::{ALIVE, GIVEN_BACK, Parameter, claim, claimed, key};
use crate::error::StoreError;
use crate::store::Store;

/// What has become of a wish to create an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there as from now; RabbitMQ does not have it.
    New,
    /// It is there already, with the same creator and options, and RabbitMQ may not have it.
    Unfinished,
    /// It is there already, with the same creator and options, and can be used.
    Exists,
    /// The name belongs to another creator, or to an object with other options.
    Taken,
    /// What had the name is not yet deleted: it can be created soon.
    Deleting,
    /// There is no such user.
    UnknownUser,
}

/// Begins to create an object, to which its creator is subscribed. After [`Created::New`] and
/// [`Created::Unfinished`] the caller has [`CLAIM`](super::CLAIM) to make it in RabbitMQ and to
/// [finish](finish_create).
pub async fn begin_create(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    creator: Uuid,
    options: &ObjectOptions,
) -> Result<Created, StoreError> {
    let created = store.transaction("beginning to create an object", async |client| {
        if !keep(client, creator).await? {
            return Ok(Created::UnknownUser);
        }
        if insert(client, kind, name, creator, options).await? {
            return Ok(Created::New);
        }
        // It may have gone meanwhile: then nothing is in the way of the next try.
        let Some(object) = lock(client, kind, name).await? else { return Ok(Created::Deleting) };
        let is_same = object.creator == creator && object.options.columns() == options.columns();
        match object.stage {
            Stage::Deleting => Ok(Created::Deleting),
            Stage::Creating | Stage::Ready if !is_same => Ok(Created::Taken),
            Stage::Ready => Ok(Created::Exists),
            Stage::Creating => {
                take_up(client, kind, name, Stage::Creating).await?;
                Ok(Created::Unfinished)
            }
        }
    });
    created.await
}

/// Adds an object and its creator's subscription, unless the name is in use; answers whether it did.
/// Waits for whoever is creating or removing one of that name.
async fn insert(
    client: &Client,
    kind: ObjectKind,
    name: &str,
    creator: Uuid,
    options: &ObjectOptions,
) -> Result<bool, Error> {
    let sql = format!(
        "WITH object AS (
           INSERT INTO mom_objects
             (kind, name, creator, max_length, message_ttl_ms, delivery_limit, stage, claims)
           VALUES ($1, $2, $3, $4, $5, $6, 'creating', ARRAY[{}])
           ON CONFLICT (kind, name) DO NOTHING
           RETURNING kind, name, creator
         )
         INSERT INTO mom_subscriptions (kind, name, user_id, stage)
         SELECT kind, name, creator, 'creating' FROM object RETURNING 1",
        claim()
    );
    let (max_length, message_ttl, delivery_limit) = options.columns();
    let parameters: [Parameter<'_>; 6] = [
        (&kind, Type::TEXT),
        (&name, Type::TEXT),
        (&creator, Type::UUID),
        (&max_length, Type::INT8),
        (&message_ttl, Type::INT8),
        (&delivery_limit, Type::INT4),
    ];
    Ok(client.query_typed_opt(&sql, &parameters).await?.is_some())
}

/// Makes an object and its creator's subscription ready, unless it is being deleted meanwhile.
pub async fn finish_create(store: &Store, kind: ObjectKind, name: &str) -> Result<(), StoreError> {
    let finished = store.transaction("finishing to create an object", async |client| {
        let before = lock(client, kind, name).await?;
        let Some(before) = before.filter(|object| object.stage != Stage::Deleting) else {
            return Ok(());
        };
        let key = key(&kind, &name);
        let object = format!(
            "UPDATE mom_objects SET stage = 'ready', claims = {GIVEN_BACK}, updated_at = now() \
             WHERE kind = $1 AND name = $2"
        );
        client.query_typed(&object, &key).await?;
        if before.stage == Stage::Creating {
            let subscription = "UPDATE mom_subscriptions SET stage = 'ready', updated_at = now() \
                                WHERE kind = $1 AND name = $2 AND stage = 'creating'";
            client.query_typed(subscription, &key).await?;
        }
        Ok(())
    });
    finished.await
}

/// What has become of a wish to delete an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is being deleted, be it since an earlier call.
    Begun {
        /// Everybody who has, or may have, a queue for it.
        subscribers: Vec<Uuid>,
    },
    /// Somebody else created it.
    NotCreator,
    /// There is no such object.
    Unknown,
}

/// Begins to delete an object. After [`Deletion::Begun`] the caller has [`CLAIM`](super::CLAIM) to
/// delete it in RabbitMQ and to [finish](finish_delete).
pub async fn begin_delete(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    by: Uuid,
) -> Result<Deletion, StoreError> {
    let deletion = store.transaction("beginning to delete an object", async |client| {
        let Some(object) = lock(client, kind, name).await? else { return Ok(Deletion::Unknown) };
        if object.creator != by {
            return Ok(Deletion::NotCreator);
        }
        take_up(client, kind, name, Stage::Deleting).await?;
        Ok(Deletion::Begun { subscribers: subscribers(client, kind, name).await? })
    });
    deletion.await
}

/// Everybody who has, or may have, a queue for an object that is being deleted. Of the claims to
/// their subscriptions only those stay that are not over.
pub(super) async fn subscribers(
    client: &Client,
    kind: ObjectKind,
    name: &str,
) -> Result<Vec<Uuid>, Error> {
    let key = key(&kind, &name);
    let claims = format!(
        "UPDATE mom_subscriptions SET claims = {ALIVE} \
         WHERE kind = $1 AND name = $2 AND claims <> '{{}}'"
    );
    client.query_typed(&claims, &key).await?;
    let all = "SELECT user_id FROM mom_subscriptions WHERE kind = $1 AND name = $2";
    client.query_typed(all, &key).await?.iter().map(|row| row.try_get(0)).collect()
}

const REMOVE: &str = "\
DELETE FROM mom_objects AS o
WHERE kind = $1 AND name = $2 AND claims = '{}' AND NOT EXISTS (SELECT FROM mom_subscriptions AS s
  WHERE s.kind = o.kind AND s.name = o.name AND s.claims <> '{}')
RETURNING 1";

/// Forgets an object that is being deleted, with its subscriptions, and answers whether it is gone.
/// It is not as long as somebody else may still make or delete something of it in RabbitMQ; whoever
/// [claims](super::claim_unfinished) it then deletes it once more.
pub async fn finish_delete(
    store: &Store,
    kind: ObjectKind,
    name: &str,
) -> Result<bool, StoreError> {
    let finished = store.transaction("finishing to delete an object", async |client| {
        let key = key(&kind, &name);
        let claims = format!(
            "UPDATE mom_objects SET claims = {GIVEN_BACK} \
             WHERE kind = $1 AND name = $2 AND stage = 'deleting' RETURNING 1"
        );
        let is_deleting = client.query_typed_opt(&claims, &key).await?.is_some();
        // Nobody takes up a subscription of what is being deleted.
        Ok(!is_deleting || client.query_typed_opt(REMOVE, &key).await?.is_some())
    });
    finished.await
}

/// An object as it is now, and stays until the transaction ends. Nobody begins or ends a
/// subscription to it meanwhile.
pub(super) async fn lock(
    client: &Client,
    kind: ObjectKind,
    name: &str,
) -> Result<Option<Object>, Error> {
    let sql = "SELECT * FROM mom_objects WHERE kind = $1 AND name = $2 FOR NO KEY UPDATE";
    let row = client.query_typed_opt(sql, &key(&kind, &name)).await?;
    row.as_ref().map(Object::read).transpose()
}

/// Adds a claim to an object and sets its stage.
async fn take_up(client: &Client, kind: ObjectKind, name: &str, stage: Stage) -> Result<(), Error> {
    let sql = format!(
        "UPDATE mom_objects SET stage = $3, claims = {}, updated_at = now() \
         WHERE kind = $1 AND name = $2",
        claimed()
    );
    let parameters: [Parameter<'_>; 3] =
        [(&kind, Type::TEXT), (&name, Type::TEXT), (&stage, Type::TEXT)];
    client.query_typed(&sql, &parameters).await?;
    Ok(())
}
