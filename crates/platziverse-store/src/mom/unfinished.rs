//! What was begun and not finished, as by a server that died.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::changes::subscribers;
use super::object::{Object, ObjectKind, Stage};
use super::{Parameter, claimed};
use crate::error::StoreError;
use crate::store::Store;

/// A change that is to be made, once more, in RabbitMQ, and then to be finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// For [`finish_create`](super::finish_create).
    Create(Object),
    /// For [`finish_delete`](super::finish_delete).
    Delete {
        /// What the object is.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// Everybody who has, or may have, a queue for it.
        subscribers: Vec<Uuid>,
    },
    /// For [`finish_subscribe`](super::finish_subscribe).
    Subscribe {
        /// To what.
        object: Object,
        /// Who.
        user: Uuid,
    },
    /// For [`finish_unsubscribe`](super::finish_unsubscribe).
    Unsubscribe {
        /// What the object is.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// Who was subscribed.
        user: Uuid,
    },
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(Object { kind, name, .. }) => write!(f, "creating the {kind} {name:?}"),
            Self::Delete { kind, name, .. } => write!(f, "deleting the {kind} {name:?}"),
            Self::Subscribe { object: Object { kind, name, .. }, user } => {
                write!(f, "subscribing the user {user} to the {kind} {name:?}")
            }
            Self::Unsubscribe { kind, name, user } => {
                write!(f, "unsubscribing the user {user} from the {kind} {name:?}")
            }
        }
    }
}

/// At most `limit` changes that nobody has taken up for as long as `older_than`. The caller has
/// [`CLAIM`](super::CLAIM) to finish them; until `older_than` is over nobody else is told of them.
/// Also forgets the users who are deleted and whose last subscription is gone.
pub async fn claim_unfinished(
    store: &Store,
    older_than: Duration,
    limit: u32,
) -> Result<Vec<Unfinished>, StoreError> {
    let claimed = store.transaction("claiming unfinished changes", async |client| {
        client.query_typed(FORGET_USERS, &[]).await?;
        let rows = claim(client, OBJECTS, older_than, limit).await?;
        let mut unfinished = Vec::with_capacity(rows.len());
        for row in &rows {
            unfinished.push(object(client, row).await?);
        }
        let left = limit.saturating_sub(u32::try_from(unfinished.len()).unwrap_or(u32::MAX));
        for row in claim(client, SUBSCRIPTIONS, older_than, left).await? {
            unfinished.push(subscription(&row)?);
        }
        Ok(unfinished)
    });
    claimed.await
}

/// A user without a key begins nothing new.
const FORGET_USERS: &str = "\
DELETE FROM mom_users AS u WHERE key_hash IS NULL
  AND NOT EXISTS (SELECT FROM mom_subscriptions AS s WHERE s.user_id = u.id)";

/// Whoever is at one of them is not waited for.
const OBJECTS: &str = "\
WITH due AS (
  SELECT kind, name FROM mom_objects
  WHERE stage <> 'ready' AND updated_at < now() - make_interval(secs => $1)
  ORDER BY updated_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE mom_objects AS o SET claims = CLAIMED, updated_at = now()
FROM due WHERE o.kind = due.kind AND o.name = due.name
RETURNING o.*";

/// Of an object that can be used: the others' are made and deleted with it. The lock keeps it from
/// being deleted until the claims are there to be seen.
const SUBSCRIPTIONS: &str = "\
WITH due AS (
  SELECT o.kind, o.name, o.creator, o.max_length, o.message_ttl_ms, o.delivery_limit, o.stage,
    o.created_at, s.user_id, s.stage AS subscription_stage
  FROM mom_subscriptions AS s JOIN mom_objects AS o ON o.kind = s.kind AND o.name = s.name
  WHERE s.stage <> 'ready' AND s.updated_at < now() - make_interval(secs => $1)
    AND o.stage = 'ready'
  ORDER BY s.updated_at LIMIT $2
  FOR NO KEY UPDATE OF s SKIP LOCKED FOR SHARE OF o SKIP LOCKED
)
UPDATE mom_subscriptions AS s SET claims = CLAIMED, updated_at = now()
FROM due WHERE s.kind = due.kind AND s.name = due.name AND s.user_id = due.user_id
RETURNING due.*";

async fn claim(
    client: &Client,
    sql: &str,
    older_than: Duration,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let (seconds, limit) = (older_than.as_secs_f64(), i64::from(limit));
    let parameters: [Parameter<'_>; 2] = [(&seconds, Type::FLOAT8), (&limit, Type::INT8)];
    client.query_typed(&sql.replace("CLAIMED", &claimed()), &parameters).await
}

async fn object(client: &Client, row: &Row) -> Result<Unfinished, Error> {
    let object = Object::read(row)?;
    if object.stage != Stage::Deleting {
        return Ok(Unfinished::Create(object));
    }
    let Object { kind, name, .. } = object;
    let subscribers = subscribers(client, kind, &name).await?;
    Ok(Unfinished::Delete { kind, name, subscribers })
}

fn subscription(row: &Row) -> Result<Unfinished, Error> {
    let (object, user) = (Object::read(row)?, row.try_get("user_id")?);
    if row.try_get::<_, Stage>("subscription_stage")? != Stage::Deleting {
        return Ok(Unfinished::Subscribe { object, user });
    }
    let Object { kind, name, .. } = object;
    Ok(Unfinished::Unsubscribe { kind, name, user })
}
