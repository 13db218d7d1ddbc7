//! What handles the events or the commands of one name.

use std::pin::Pin;

use platziverse_broker::{Outcome, Publisher};
use platziverse_protocol::task::Task;
use platziverse_protocol::time::Timestamp;
use platziverse_store::{Store, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

/// Handles tasks of one name.
///
/// A task is delivered at least once: after a lost connection, or a worker that was killed, its
/// handler runs again for the same [`TaskContext::id`]. So an effect that must not be doubled is
/// tied to that id, as the primary key of a row or as the idempotency key of a request. Tasks have
/// no order: several are handled at a time, by several workers, and one that failed comes later.
///
/// A handler that panics, or that is not done at the deadline, has failed and is tried again.
pub trait Handler: Send + Sync + 'static {
    /// The name of the tasks that it handles.
    const NAME: &'static str;

    /// Handles a task, in a tracing span that names it. Dropped at the deadline.
    fn handle(
        &self,
        task: &Task,
        context: &TaskContext,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;
}

/// How a task is done.
#[derive(Debug)]
pub enum Done {
    /// Wholly. The row of a command says that it has succeeded.
    Now,
    /// Wholly, with a result, which is kept in the row of a command.
    With(Box<RawValue>),
    /// As far as this handler goes. The row of a command stays open until somebody says how it ended,
    /// or it expires.
    Later,
}

impl Done {
    /// Wholly, with a result that is kept as JSON.
    pub fn with(result: &impl Serialize) -> Result<Self, Failure> {
        let json = to_raw_value(result);
        json.map(Self::With).map_err(|error| Failure::Reject(format!("no result as JSON: {error}")))
    }
}

/// What a handler may use.
#[derive(Clone)]
pub struct TaskContext {
    /// Names the task, however often it is delivered.
    pub id: Uuid,
    /// Which attempt this is, from 1. One that a lost connection cut short is not counted.
    pub attempt: u32,
    /// Whether it is the last one: if it fails, the task becomes a dead letter.
    pub is_last: bool,
    /// When the worker received it.
    pub received: Timestamp,
    /// When it is given up, unless it has ended; of commands only.
    pub expires_at: Option<Timestamp>,
    /// When the attempt ends, done or not.
    pub deadline: Instant,
    /// The database.
    pub store: Store,
    /// Publishes to RabbitMQ.
    pub publisher: Publisher<oneshot::Sender<Outcome>>,
}

/// Why a task is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may be done later: it is tried again after a delay, until it has been tried
    /// `tasks.max_attempts` times.
    #[error("{0}")]
    Retry(String),
    /// It can never be done: it becomes a dead letter.
    #[error("{0}")]
    Reject(String),
    /// The surroundings are not there. It is no fault of the task and counts for nothing: the worker
    /// keeps the task, is not ready, and begins the attempt again until they are back.
    #[error("{0}")]
    Hold(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = platziverse_service::chain(&error);
        if error.is_transient() { Self::Hold(text) } else { Self::Reject(text) }
    }
}

/// Reads what a handler needs out of a task's payload; one that does not fit is rejected.
pub fn payload<T: DeserializeOwned>(task: &Task) -> Result<T, Failure> {
    serde_json::from_str(task.payload.get())
        .map_err(|error| Failure::Reject(format!("the payload of {}: {error}", task.name)))
}

type Handling<'a> = Pin<Box<dyn Future<Output = Result<Done, Failure>> + Send + 'a>>;

/// A [`Handler`] of any type.
pub(crate) trait AnyHandler: Send + Sync {
    fn handle<'a>(&'a self, task: &'a Task, context: &'a TaskContext) -> Handling<'a>;
}

impl<H: Handler> AnyHandler for H {
    fn handle<'a>(&'a self, task: &'a Task, context: &'a TaskContext) -> Handling<'a> {
        Box::pin(Handler::handle(self, task, context))
    }
}
