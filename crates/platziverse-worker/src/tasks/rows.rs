//! The rows of commands: what anybody may see of how far each has come.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use platziverse_protocol::task::Task;
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Drain, Latch, chain, clock};
use platziverse_store::commands::{self, Command, CommandState, NewCommand, Step};
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
            expires_at: task.expires,
        };
        let attempt = i32::try_from(attempt).unwrap_or(i32::MAX);
        self.ask(|| commands::begin(&self.store, &command, attempt).boxed()).await
    }

    /// Notes that a command has succeeded.
    pub(crate) async fn succeeded(
        &self,
        id: Uuid,
        result: Option<&RawValue>,
    ) -> Result<(), Abandoned> {
        let result = result.map(RawValue::get);
        let step = Step { result, ..Step::to(CommandState::Succeeded, clock::now()) };
        self.advance(id, step).await.map(drop)
    }

    /// Notes that a command has failed for good.
    pub(crate) async fn failed(&self, id: Uuid, error: &str) -> Result<(), Abandoned> {
        // PostgreSQL holds no U+0000.
        let error = error.replace('\0', "\u{fffd}");
        let step = Step { error: Some(&error), ..Step::to(CommandState::Failed, clock::now()) };
        self.advance(id, step).await.map(drop)
    }

    /// Notes that a command came too late to be handled.
    pub(crate) async fn timed_out(&self, id: Uuid) -> Result<(), Abandoned> {
        self.advance(id, Step::to(CommandState::TimedOut, clock::now())).await.map(drop)
    }

    /// Notes a step of a command, and answers whether it changed anything. A result or an error that
    /// PostgreSQL refuses is not kept, but the step is.
    pub(crate) async fn advance(&self, id: Uuid, step: Step<'_>) -> Result<bool, Abandoned> {
        match self.ask(|| commands::advance(&self.store, id, &step).boxed()).await? {
            Ok(changed) => return Ok(changed),
            Err(refused) => {
                tracing::error!(%id, "how a command ended is not kept: {}", chain(&refused));
            }
        }
        let bare = Step { result: None, error: None, ..step };
        let answer = self.ask(|| commands::advance(&self.store, id, &bare).boxed()).await?;
        Ok(answer.unwrap_or(false))
    }

    /// Asks the database until it answers; what it has against the data is an answer.
    pub(crate) async fn ask<'q, T>(
        &self,
        question: impl Fn() -> BoxFuture<'q, Result<T, StoreError>>,
    ) -> Result<Result<T, StoreError>, Abandoned> {
        let mut patience = Patience::new(&self.drain);
        loop {
            let asked = question().await;
            if let Some(answer) = self.settled(asked, &mut patience).await? {
                return Ok(answer);
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
