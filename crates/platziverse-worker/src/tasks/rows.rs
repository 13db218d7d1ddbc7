//! The rows of commands: what anybody may see of how far each has come.

use platziverse_protocol::task::Task;
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Drain, Latch, chain, clock};
use platziverse_store::commands::{self, Command, CommandState, NewCommand};
use platziverse_store::{Store, StoreError};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::patience::{Abandoned, Patience};

/// Writes the rows, however long the database is away.
pub(crate) struct Rows {
    pub(crate) store: Store,
    /// Not ready while something that a task needs is not there.
    pub(crate) latch: Latch,
    pub(crate) drain: Drain,
}

impl Rows {
    /// Notes that an attempt begins; the command as it is now, or what PostgreSQL has against it.
    pub(crate) async fn begin(
        &self,
        id: Uuid,
        task: &Task,
        received: Timestamp,
        attempt: u32,
    ) -> Result<Result<Command, StoreError>, Abandoned> {
        let command = NewCommand {
            id,
            name: &task.name,
            target: task.target.as_deref(),
            payload: task.payload.get(),
            created_at: task.timestamp.unwrap_or(received),
            expires_at: None,
        };
        let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
        let mut patience = Patience::new(&self.drain);
        loop {
            let asked = commands::begin(&self.store, &command, attempt).await;
            if let Some(answer) = self.settled(asked, &mut patience).await? {
                return Ok(answer);
            }
        }
    }

    /// Notes that a command has succeeded.
    pub(crate) async fn succeeded(
        &self,
        id: Uuid,
        result: Option<&RawValue>,
    ) -> Result<(), Abandoned> {
        self.end(id, CommandState::Succeeded, result.map(RawValue::get), None).await
    }

    /// Notes that a command has failed for good.
    pub(crate) async fn failed(&self, id: Uuid, error: &str) -> Result<(), Abandoned> {
        // PostgreSQL holds no U+0000.
        let error = error.replace('\0', "\u{fffd}");
        self.end(id, CommandState::Failed, None, Some(&error)).await
    }

    async fn end(
        &self,
        id: Uuid,
        to: CommandState,
        result: Option<&str>,
        error: Option<&str>,
    ) -> Result<(), Abandoned> {
        let now = clock::now();
        let mut patience = Patience::new(&self.drain);
        let (mut result, mut error) = (result, error);
        loop {
            let asked = commands::advance(&self.store, id, to, now, result, error).await;
            match self.settled(asked, &mut patience).await? {
                Some(Err(refused)) if result.is_some() || error.is_some() => {
                    tracing::error!(%id, "how a command ended is not kept: {}", chain(&refused));
                    (result, error) = (None, None);
                }
                Some(_) => return Ok(()),
                None => {}
            }
        }
    }

    /// What the database has answered; after a while nothing, if it is to be asked again.
    async fn settled<T>(
        &self,
        asked: Result<T, StoreError>,
        patience: &mut Patience,
    ) -> Result<Option<Result<T, StoreError>>, Abandoned> {
        match asked {
            Err(error) if error.is_transient() => {
                self.latch.not_ready(chain(&error));
                patience.wait().await.map(|()| None)
            }
            answer => {
                self.latch.ready();
                Ok(Some(answer))
            }
        }
    }
}
