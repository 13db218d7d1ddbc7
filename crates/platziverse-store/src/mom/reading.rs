//! Which objects there are.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::object::{Object, ObjectKind};
use super::{Parameter, key};
use crate::error::StoreError;
use crate::store::Store;

/// Which objects of a user [`list`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the user created.
    Created,
    /// Those to which the user is subscribed.
    Subscribed,
}

const CREATED: &str = "\
SELECT * FROM mom_objects
WHERE creator = $1 AND kind = $2 AND name > $3 AND stage <> 'deleting'
ORDER BY name LIMIT $4";

const SUBSCRIBED: &str = "\
SELECT o.* FROM mom_subscriptions AS s
JOIN mom_objects AS o ON o.kind = s.kind AND o.name = s.name
WHERE s.user_id = $1 AND s.kind = $2 AND s.name > $3
  AND s.stage <> 'deleting' AND o.stage <> 'deleting'
ORDER BY s.name LIMIT $4";

/// The first `limit` objects of a kind that a user created, or is subscribed to, by name, byte by
/// byte: those that come after the name `after`, or all. What is being deleted is left out.
pub async fn list(
    store: &Store,
    user: Uuid,
    which: Which,
    kind: ObjectKind,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Object>, StoreError> {
    let sql = match which {
        Which::Created => CREATED,
        Which::Subscribed => SUBSCRIBED,
    };
    // No name is empty.
    let (after, limit) = (after.unwrap_or_default(), i64::from(limit));
    let listed = store.run("listing objects", async |client| {
        let parameters: [Parameter<'_>; 4] =
            [(&user, Type::UUID), (&kind, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        client.query_typed(sql, &parameters).await?.iter().map(Object::read).collect()
    });
    listed.await
}

const SHOW: &str = "\
SELECT o.*, (SELECT count(*) FROM mom_subscriptions AS s
  WHERE s.kind = o.kind AND s.name = o.name AND s.stage <> 'deleting') AS subscribers
FROM mom_objects AS o WHERE o.kind = $1 AND o.name = $2";

/// One object, if it is there, at whatever stage, and how many subscribers it has.
pub async fn show(
    store: &Store,
    kind: ObjectKind,
    name: &str,
) -> Result<Option<(Object, u64)>, StoreError> {
    let found = store.run("looking for an object", async |client| {
        let Some(row) = client.query_typed_opt(SHOW, &key(&kind, &name)).await? else {
            return Ok(None);
        };
        let subscribers: i64 = row.try_get("subscribers")?;
        Ok(Some((Object::read(&row)?, subscribers.unsigned_abs())))
    });
    found.await
}
