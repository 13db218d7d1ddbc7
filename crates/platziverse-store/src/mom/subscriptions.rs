//! Subscribing to topics and queues, and ending that.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::changes::lock;
use super::object::{ObjectKind, ObjectOptions, Stage};
use super::users::keep;
use super::{GIVEN_BACK, Parameter, claim, claimed, key, subscription_key};
use crate::error::StoreError;
use crate::store::Store;

/// What has become of a wish to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// It is there, be it since an earlier call, and RabbitMQ may not have it. With the options of
    /// the object.
    Begun(ObjectOptions),
    /// The user is subscribed already.
    Already,
    /// There is no such object that can be used.
    Unknown,
    /// The object has as many subscribers as it may have.
    TooMany,
    /// The user's former subscription has not ended yet: it can be renewed soon.
    Deleting,
    /// There is no such user.
    UnknownUser,
}

/// Begins to subscribe a user, unless the object has `max` subscribers already. After
/// [`Subscribed::Begun`] the caller has [`CLAIM`](super::CLAIM) to make the subscription in RabbitMQ
/// and to [finish](finish_subscribe).
pub async fn begin_subscribe(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
    max: u32,
) -> Result<Subscribed, StoreError> {
    let subscribed = store.transaction("beginning to subscribe", async |client| {
        if !keep(client, user).await? {
            return Ok(Subscribed::UnknownUser);
        }
        let object = lock(client, kind, name).await?;
        let Some(object) = object.filter(|object| object.stage == Stage::Ready) else {
            return Ok(Subscribed::Unknown);
        };
        match stage(client, kind, name, user).await? {
            Some(Stage::Ready) => return Ok(Subscribed::Already),
            Some(Stage::Deleting) => return Ok(Subscribed::Deleting),
            Some(Stage::Creating) => {
                take_up(client, kind, name, user, Stage::Creating).await?;
            }
            None => {
                let count = "SELECT count(*) FROM mom_subscriptions WHERE kind = $1 AND name = $2";
                let row = client.query_typed_one(count, &key(&kind, &name)).await?;
                if row.try_get::<_, i64>(0)? >= i64::from(max) {
                    return Ok(Subscribed::TooMany);
                }
                insert(client, kind, name, user).await?;
            }
        }
        Ok(Subscribed::Begun(object.options))
    });
    subscribed.await
}

/// The stage of a subscription as it is now, and stays until the transaction ends.
async fn stage(
    client: &Client,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
) -> Result<Option<Stage>, Error> {
    let sql = "SELECT stage FROM mom_subscriptions \
               WHERE kind = $1 AND name = $2 AND user_id = $3 FOR NO KEY UPDATE";
    let row = client.query_typed_opt(sql, &subscription_key(&kind, &name, &user)).await?;
    row.map(|row| row.try_get(0)).transpose()
}

async fn insert(client: &Client, kind: ObjectKind, name: &str, user: Uuid) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO mom_subscriptions (kind, name, user_id, stage, claims) \
         VALUES ($1, $2, $3, 'creating', ARRAY[{}])",
        claim()
    );
    client.query_typed(&sql, &subscription_key(&kind, &name, &user)).await?;
    Ok(())
}

/// Adds a claim to a subscription and sets its stage. Answers whether it is there.
async fn take_up(
    client: &Client,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
    stage: Stage,
) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE mom_subscriptions SET stage = $4, claims = {}, updated_at = now() \
         WHERE kind = $1 AND name = $2 AND user_id = $3 RETURNING 1",
        claimed()
    );
    let parameters: [Parameter<'_>; 4] =
        [(&kind, Type::TEXT), (&name, Type::TEXT), (&user, Type::UUID), (&stage, Type::TEXT)];
    Ok(client.query_typed_opt(&sql, &parameters).await?.is_some())
}

/// Makes a subscription ready, unless it or its object is being deleted meanwhile.
pub async fn finish_subscribe(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
) -> Result<(), StoreError> {
    let finished = store.run("finishing to subscribe", async |client| {
        let sql = format!(
            "UPDATE mom_subscriptions AS s \
             SET stage = 'ready', claims = {GIVEN_BACK}, updated_at = now() \
             WHERE kind = $1 AND name = $2 AND user_id = $3 AND stage <> 'deleting' \
               AND EXISTS (SELECT FROM mom_objects AS o \
                 WHERE o.kind = s.kind AND o.name = s.name AND o.stage = 'ready')"
        );
        client.query_typed(&sql, &subscription_key(&kind, &name, &user)).await?;
        Ok(())
    });
    finished.await
}

/// What has become of a wish to end a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsubscription {
    /// It is being ended, be it since an earlier call.
    Begun,
    /// The user is not subscribed.
    NotSubscribed,
    /// There is no such object that can be used.
    Unknown,
}

/// Begins to end a subscription. After [`Unsubscription::Begun`] the caller has
/// [`CLAIM`](super::CLAIM) to end it in RabbitMQ and to [finish](finish_unsubscribe).
pub async fn begin_unsubscribe(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
) -> Result<Unsubscription, StoreError> {
    let begun = store.transaction("beginning to unsubscribe", async |client| {
        let object = lock(client, kind, name).await?;
        let Some(object) = object.filter(|object| object.stage == Stage::Ready) else {
            return Ok(Unsubscription::Unknown);
        };
        if !take_up(client, kind, name, user, Stage::Deleting).await? {
            return Ok(Unsubscription::NotSubscribed);
        }
        if object.creator == user {
            client.query_typed(INHERIT, &subscription_key(&kind, &name, &user)).await?;
        }
        Ok(Unsubscription::Begun)
    });
    begun.await
}

/// Whoever creates an object makes its creator's subscription, too, and may be late with it.
const INHERIT: &str = "\
UPDATE mom_subscriptions AS s
SET claims = array(SELECT one FROM unnest(o.claims) AS one WHERE one > now()) || s.claims
FROM mom_objects AS o WHERE o.kind = s.kind AND o.name = s.name
  AND s.kind = $1 AND s.name = $2 AND s.user_id = $3";

const REMOVE: &str = "\
DELETE FROM mom_subscriptions
WHERE kind = $1 AND name = $2 AND user_id = $3 AND claims = '{}' RETURNING 1";

/// Forgets a subscription that is being ended, and answers whether it is gone. It is not as long as
/// somebody else may still act on it in RabbitMQ; whoever [claims](super::claim_unfinished) it then
/// ends it once more.
pub async fn finish_unsubscribe(
    store: &Store,
    kind: ObjectKind,
    name: &str,
    user: Uuid,
) -> Result<bool, StoreError> {
    let finished = store.transaction("finishing to unsubscribe", async |client| {
        let key = subscription_key(&kind, &name, &user);
        let claims = format!(
            "UPDATE mom_subscriptions SET claims = {GIVEN_BACK} \
             WHERE kind = $1 AND name = $2 AND user_id = $3 AND stage = 'deleting' RETURNING 1"
        );
        let is_deleting = client.query_typed_opt(&claims, &key).await?.is_some();
        Ok(!is_deleting || client.query_typed_opt(REMOVE, &key).await?.is_some())
    });
    finished.await
}
