//! A command as the database has it.

use chrono::{DateTime, Utc};
use platziverse_protocol::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::state::CommandState;

/// A command: a row of the table `commands`. As JSON, times are milliseconds since 1970.
#[derive(Clone, Debug, Serialize)]
pub struct Command {
    /// Names it, however often it is delivered.
    pub id: Uuid,
    /// What is to be done.
    pub name: String,
    /// For whom it is, such as the uuid of an agent.
    pub target: Option<String>,
    /// What the target needs to know.
    pub payload: Box<RawValue>,
    /// How far it has come.
    pub state: CommandState,
    /// The number of the latest attempt, or of the last one before its dead letter was sent back.
    pub attempts: i32,
    /// What was answered, if it has ended.
    pub result: Option<Box<RawValue>>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the row last changed, by the clock of the database.
    pub updated_at: Timestamp,
    /// When it was first sent.
    pub sent_at: Option<Timestamp>,
    /// When its delivery was first confirmed, which may be after it has ended.
    pub delivered_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When it is given up, unless it has ended; nothing means never.
    pub expires_at: Option<Timestamp>,
}

impl Command {
    /// Reads a row that has all columns.
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        let time = |column| row.try_get(column).map(Timestamp::from_chrono);
        let time_if_any = |column| {
            let time: Option<DateTime<Utc>> = row.try_get(column)?;
            Ok(time.map(Timestamp::from_chrono))
        };
        let Json(payload) = row.try_get("payload")?;
        let result: Option<Json<Box<RawValue>>> = row.try_get("result")?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            target: row.try_get("target")?,
            payload,
            state: row.try_get("state")?,
            attempts: row.try_get("attempts")?,
            result: result.map(|Json(result)| result),
            error: row.try_get("error")?,
            created_at: time("created_at")?,
            updated_at: time("updated_at")?,
            sent_at: time_if_any("sent_at")?,
            delivered_at: time_if_any("delivered_at")?,
            ended_at: time_if_any("ended_at")?,
            expires_at: time_if_any("expires_at")?,
        })
    }
}
