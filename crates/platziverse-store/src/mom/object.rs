//! Topics and queues as the database has them.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::BytesMut;
use platziverse_protocol::time::Timestamp;
use serde::Serialize;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// Every subscriber but the publisher gets each message.
    Topic,
    /// One of the subscribers gets each message.
    Queue,
}

/// A name that is no [`ObjectKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither topic nor queue")]
pub struct UnknownKind(String);

impl ObjectKind {
    /// The name in the database and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Queue => "queue",
        }
    }
}

impl FromStr for ObjectKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = [Self::Topic, Self::Queue].into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> FromSql<'a> for ObjectKind {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(std::str::from_utf8(raw)?.parse()?)
    }

    accepts!(TEXT);
}

impl ToSql for ObjectKind {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.as_str().to_sql(ty, out)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

/// How far a change of an object or a subscription has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// RabbitMQ may not have it yet.
    Creating,
    /// It can be used.
    Ready,
    /// RabbitMQ may still have it.
    Deleting,
}

impl Stage {
    /// The name in the database and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

impl<'a> FromSql<'a> for Stage {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let all = [Self::Creating, Self::Ready, Self::Deleting];
        let found = all.into_iter().find(|stage| stage.as_str().as_bytes() == raw);
        found.ok_or_else(|| "no stage of a change".into())
    }

    accepts!(TEXT);
}

impl ToSql for Stage {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        self.as_str().to_sql(ty, out)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

/// What its creator asked for; nothing means what the servers' settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectOptions {
    /// The most messages in a queue, or in a subscriber's part of a topic.
    pub max_length: Option<u64>,
    /// How long a message waits for its consumer. Kept in whole milliseconds.
    pub message_ttl: Option<Duration>,
    /// How often a message may come back; once more, and it becomes a dead letter.
    pub delivery_limit: Option<u32>,
}

impl ObjectOptions {
    /// As the columns `max_length`, `message_ttl_ms` and `delivery_limit` have them, held within
    /// what those hold.
    pub(super) fn columns(&self) -> (Option<i64>, Option<i64>, Option<i32>) {
        let ttl = self.message_ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        (
            self.max_length.map(|length| i64::try_from(length).unwrap_or(i64::MAX)),
            ttl,
            self.delivery_limit.map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
        )
    }

    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        let max_length: Option<i64> = row.try_get("max_length")?;
        let ttl: Option<i64> = row.try_get("message_ttl_ms")?;
        let delivery_limit: Option<i32> = row.try_get("delivery_limit")?;
        Ok(Self {
            max_length: max_length.map(i64::unsigned_abs),
            message_ttl: ttl.map(|millis| Duration::from_millis(millis.unsigned_abs())),
            delivery_limit: delivery_limit.map(i32::unsigned_abs),
        })
    }
}

/// A topic or a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name, unique among those of its kind.
    pub name: String,
    /// The user who may delete it.
    pub creator: Uuid,
    /// What the creator asked for.
    pub options: ObjectOptions,
    /// How far its creation or deletion has come.
    pub stage: Stage,
    /// When its creation was begun.
    pub created_at: Timestamp,
}

impl Object {
    /// Reads a row that has all columns.
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            kind: row.try_get("kind")?,
            name: row.try_get("name")?,
            creator: row.try_get("creator")?,
            options: ObjectOptions::read(row)?,
            stage: row.try_get("stage")?,
            created_at: Timestamp::from_chrono(row.try_get("created_at")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back() {
        for kind in [ObjectKind::Topic, ObjectKind::Queue] {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        let error = "Topic".parse::<ObjectKind>().unwrap_err().to_string();
        assert_eq!(error, "\"Topic\" is neither topic nor queue");
    }

    #[test]
    fn stages_are_read_back() {
        for stage in [Stage::Creating, Stage::Ready, Stage::Deleting] {
            let read = Stage::from_sql(&Type::TEXT, stage.as_str().as_bytes()).unwrap();
            assert_eq!(read, stage);
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
        assert!(Stage::from_sql(&Type::TEXT, b"gone").is_err());
    }
}
