//! `log`: a task as a line in the log.

use platziverse_protocol::task::Task;

use crate::tasks::handler::{Done, Failure, Handler, TaskContext};

/// Logs a task, and is done with it.
pub(super) struct Log;

impl Handler for Log {
    const NAME: &'static str = "log";

    async fn handle(&self, task: &Task, _context: &TaskContext) -> Result<Done, Failure> {
        let (source, target) = (task.source.as_deref(), task.target.as_deref());
        tracing::info!(source, target, payload = task.payload.get(), "{} {}", task.kind, task.name);
        Ok(Done::Now)
    }
}
