//! One delivery after the other, several at a time, each from its arrival to its acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use platziverse_broker::{
    Deliveries, Delivery, LINE_BYTES_MAX, Lane, Outcome, Publisher, topology,
};
use platziverse_config::TasksConfig;
use platziverse_protocol::dead::Reason;
use platziverse_protocol::task::{Task, TaskKind};
use platziverse_protocol::time::Timestamp;
use platziverse_service::{Drain, chain, clock};
use platziverse_store::commands::Command;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::attempt::attempt;
use super::books::{TaskFate, TaskMetrics};
use super::handler::{AnyHandler, Done, Failure, TaskContext};
use super::judge::{self, Verdict};
use super::registry::Registry;
use super::rows::Rows;
use crate::letters::{GivenUp, letter};
use crate::patience::{Abandoned, Patience};

/// How long a task waits for its id.
const NAMING_MAX: Duration = Duration::from_secs(5);

/// What all tasks of a worker share.
pub(crate) struct Runner {
    pub(crate) registry: Registry,
    pub(crate) settings: TasksConfig,
    pub(crate) rows: Rows,
    pub(crate) publisher: Publisher<oneshot::Sender<Outcome>>,
    pub(crate) metrics: TaskMetrics,
    pub(crate) drain: Drain,
}

impl Runner {
    /// Handles what a queue delivers until the process is to end, as many at a time as there are
    /// permits.
    pub(crate) async fn run(
        self: Arc<Self>,
        queue: Arc<str>,
        mut deliveries: Deliveries,
        permits: Arc<Semaphore>,
    ) {
        while let Some(delivery) = deliveries.next().await {
            let permit = tokio::select! {
                biased;
                () = self.drain.requested() => return,
                permit = Arc::clone(&permits).acquire_owned() => permit,
            };
            // Its connection may have ended while it waited: RabbitMQ delivers it again.
            if delivery.is_stale() {
                continue;
            }
            let (runner, queue) = (Arc::clone(&self), Arc::clone(&queue));
            self.drain.spawn_isolated(async move {
                runner.settle(&delivery, &queue).await;
                drop(permit);
            });
        }
    }

    async fn settle(&self, delivery: &Delivery, queue: &str) {
        let (books, begun) = (&self.metrics.tasks, Instant::now());
        books.enter(1);
        let decided = tokio::select! {
            decided = self.decide(delivery, queue) => decided,
            () = self.drain.forced() => Err(Abandoned),
        };
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        match decided {
            Ok(fate) => {
                books.settle(fate, 1);
                delivery.ack().await;
            }
            Err(Abandoned) => books.settle(TaskFate::Requeued, 1),
        }
    }

    async fn decide(&self, delivery: &Delivery, queue: &str) -> Result<TaskFate, Abandoned> {
        let work = Work { delivery, queue };
        match judge::judge(&delivery.body, delivery.message_id(), &self.settings.omit) {
            Verdict::Handle(id, task) => self.handle(work, id, &task).await,
            Verdict::Omit => Ok(TaskFate::Omitted),
            Verdict::Name(task) => {
                let (id, lane) = (Uuid::now_v7(), work.again(Lane::task(queue, task.kind)));
                match timeout(NAMING_MAX, self.publish(lane, id, work.body())).await {
                    Ok(published) => published.map(|()| TaskFate::Named),
                    // The queue is full, and gets emptier only by what is handled. If the other
                    // one gets into it later, it is known by its id.
                    Err(_) => self.handle(work, id, &task).await,
                }
            }
            Verdict::Reject(reason, error) => self.bury(work, None, reason, &error).await,
        }
    }

    async fn handle(&self, work: Work<'_>, id: Uuid, task: &Task) -> Result<TaskFate, Abandoned> {
        let number = work.delivery.attempts().saturating_add(1);
        let received = clock::now();
        let attempt = Attempt { id, task, number, received, expires_at: None };
        if task.kind == TaskKind::Event {
            return self.try_once(work, attempt).await;
        }
        match self.rows.begin(id, task, received, number).await? {
            Ok(command) if command.state.is_ended() => Ok(TaskFate::Duplicate),
            Ok(command) if command.expires_at.is_some_and(|expires_at| expires_at <= received) => {
                self.rows.timed_out(id).await.map(|()| TaskFate::Expired)
            }
            Ok(Command { expires_at, .. }) => {
                self.try_once(work, Attempt { expires_at, ..attempt }).await
            }
            Err(refused) => {
                let error = chain(&refused);
                self.bury(work, Some(id), Reason::DatabaseRefused, &error).await
            }
        }
    }

    async fn try_once(&self, work: Work<'_>, attempt: Attempt<'_>) -> Result<TaskFate, Abandoned> {
        let Attempt { id, task, number, received, expires_at } = attempt;
        let Some(handler) = self.registry.find(task) else {
            let (name, known) = (&task.name, self.registry.commands());
            let error = format!("no handler handles the command {name:?}; there are {known}");
            return self.give_up(work, id, task, Reason::UnknownCommand, &error).await;
        };
        let context = TaskContext {
            id,
            attempt: number,
            is_last: number >= self.settings.max_attempts,
            received,
            expires_at,
            deadline: Instant::now(),
            store: self.rows.store.clone(),
            publisher: self.publisher.clone(),
        };
        match self.carry_out(work, handler, task, context).await? {
            Ok(done) => self.done(id, task, done).await,
            Err(Failure::Reject(error)) => {
                self.give_up(work, id, task, Reason::RejectedByHandler, &error).await
            }
            Err(Failure::Retry(error) | Failure::Hold(error)) => {
                self.retry(work, id, task, number, &error).await
            }
        }
    }

    /// One attempt, begun anew for as long as the surroundings are not there.
    async fn carry_out(
        &self,
        work: Work<'_>,
        handler: &dyn AnyHandler,
        task: &Task,
        mut context: TaskContext,
    ) -> Result<Result<Done, Failure>, Abandoned> {
        let mut patience = Patience::new(&self.drain);
        loop {
            context.deadline = Instant::now() + self.settings.handler_timeout;
            match attempt(handler, task, &context).await {
                Err(Failure::Hold(why)) => self.rows.latch.not_ready(why),
                ended => {
                    self.rows.latch.ready();
                    return Ok(ended);
                }
            }
            patience.wait().await?;
            if work.delivery.is_stale() {
                return Err(Abandoned);
            }
        }
    }

    async fn done(&self, id: Uuid, task: &Task, done: Done) -> Result<TaskFate, Abandoned> {
        if task.kind == TaskKind::Command {
            match done {
                Done::Now => self.rows.succeeded(id, None).await?,
                Done::With(result) => self.rows.succeeded(id, Some(&result)).await?,
                Done::Later => {}
            }
        }
        Ok(TaskFate::Done)
    }

    /// Has the task delivered again later, if it may be tried again.
    async fn retry(
        &self,
        work: Work<'_>,
        id: Uuid,
        task: &Task,
        number: u32,
        error: &str,
    ) -> Result<TaskFate, Abandoned> {
        let delay = judge::delay(number, &self.settings.retry_delays);
        let Some(delay) = delay.filter(|_| number < self.settings.max_attempts) else {
            let error = format!("attempt {number}, the last one: {error}");
            return self.give_up(work, id, task, Reason::AttemptsExhausted, &error).await;
        };
        tracing::info!(%id, attempt = number, "tried again in {delay:?}: {error:.300}");
        let lane = work.again(Lane::retry(delay, work.queue, task.kind, number, error));
        self.publish(lane, id, work.body()).await?;
        Ok(TaskFate::Retried)
    }

    async fn give_up(
        &self,
        work: Work<'_>,
        id: Uuid,
        task: &Task,
        reason: Reason,
        error: &str,
    ) -> Result<TaskFate, Abandoned> {
        let fate = self.bury(work, Some(id), reason, error).await?;
        if task.kind == TaskKind::Command {
            self.rows.failed(id, error).await?;
        }
        Ok(fate)
    }

    async fn bury(
        &self,
        work: Work<'_>,
        id: Option<Uuid>,
        reason: Reason,
        error: &str,
    ) -> Result<TaskFate, Abandoned> {
        let (lane, id, line) = letter(&GivenUp {
            line: &work.delivery.body,
            id,
            reason,
            error,
            exchange: topology::TASKS,
            key: work.queue,
            app_id: work.delivery.first_app_id().as_deref(),
        });
        // As it was: sent back, it is no longer than before.
        let whole = work.delivery.body.len() <= LINE_BYTES_MAX;
        let body = if whole { work.body() } else { line };
        self.publish(lane.of_task(work.delivery.kind()), id, body).await?;
        Ok(TaskFate::DeadLettered)
    }

    async fn publish(&self, lane: Lane, id: Uuid, body: Bytes) -> Result<(), Abandoned> {
        self.publisher.publish_all(vec![(lane, id, body)]).await.map_err(|_| Abandoned)
    }
}

/// One attempt at a task.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    id: Uuid,
    task: &'a Task,
    /// From 1.
    number: u32,
    received: Timestamp,
    expires_at: Option<Timestamp>,
}

/// A delivery, and the queue that it came from.
#[derive(Clone, Copy)]
struct Work<'a> {
    delivery: &'a Delivery,
    queue: &'a str,
}

impl Work<'_> {
    /// The lane of what is published again on behalf of whoever published it first.
    fn again(&self, lane: Lane) -> Lane {
        match self.delivery.first_app_id() {
            Some(app) => lane.on_behalf_of(&app),
            None => lane,
        }
    }

    fn body(&self) -> Bytes {
        Bytes::copy_from_slice(&self.delivery.body)
    }
}
