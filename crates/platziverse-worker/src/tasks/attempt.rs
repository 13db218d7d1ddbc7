//! One attempt of a handler at a task.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use platziverse_protocol::task::Task;
use platziverse_service::chain;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::handler::{AnyHandler, Done, Failure, TaskContext};

/// Has a handler handle a task, until its deadline, whatever the handler does.
pub(crate) async fn attempt(
    handler: &dyn AnyHandler,
    task: &Task,
    context: &TaskContext,
) -> Result<Done, Failure> {
    let span = tracing::info_span!(
        "task",
        kind = task.kind.as_str(),
        task = task.name,
        id = %context.id,
        attempt = context.attempt
    );
    // Also what the handler does before its future exists.
    let handling = async { handler.handle(task, context).await };
    match ended(handling.instrument(span), context.deadline).await {
        Ok(result) => result,
        Err(Cut::Panicked(said)) => Err(Failure::Retry(format!("the handler panicked: {said}"))),
        Err(Cut::Late) => Err(late(context).await),
    }
}

/// How a handler ended that did not come to its end.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    Panicked(String),
    Late,
}

async fn ended<T>(handling: impl Future<Output = T>, deadline: Instant) -> Result<T, Cut> {
    match timeout_at(deadline, AssertUnwindSafe(handling).catch_unwind()).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(panic)) => Err(Cut::Panicked(said(&*panic))),
        Err(_) => Err(Cut::Late),
    }
}

/// What it means that an attempt took too long: nothing, if it is the database that does not answer.
async fn late(context: &TaskContext) -> Failure {
    match context.store.check().await {
        Ok(()) => Failure::Retry("not done in time (tasks.handler_timeout)".to_owned()),
        Err(error) => Failure::Hold(chain(&error)),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_attempt_ends_whatever_its_handler_does() {
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(ended(async { 7 }, deadline).await, Ok(7));
        let panicking = async { panic!("no {}", "luck") };
        let cut = ended::<()>(panicking, deadline).await;
        assert_eq!(cut, Err(Cut::Panicked("no luck".to_owned())));
        let at_once = async { std::panic::panic_any(7) };
        let cut = ended::<()>(at_once, deadline).await;
        assert_eq!(cut, Err(Cut::Panicked("it said nothing".to_owned())));
        assert_eq!(ended::<()>(pending(), deadline).await, Err(Cut::Late));
        assert_eq!(Instant::now(), deadline);
    }
}
