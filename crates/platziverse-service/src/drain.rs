//! The end of a process: stop taking work, finish what is held, within a deadline.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every task finished what it held.
    Clean,
    /// The deadline or a second signal cut some short. What was acknowledged is safe all the same.
    Forced,
}

/// The shared handle on a process's end. Every task is spawned through it, so none is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    requested: CancellationToken,
    forced: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Asks every task to stop taking work and to finish what it holds.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Asks every task to stop at once.
    pub fn force(&self) {
        self.requested.cancel();
        self.forced.cancel();
    }

    /// Resolves when the process has been asked to end.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Whether the process has been asked to end.
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Resolves when what is still held must be let go.
    pub async fn forced(&self) {
        self.forced.cancelled().await;
    }

    /// Whether what is still held must be let go.
    pub fn is_forced(&self) -> bool {
        self.forced.is_cancelled()
    }

    /// Spawns a task that the process cannot do without: if it panics, the process ends, and
    /// whoever supervises it starts it afresh.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.clone();
        self.tasks.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "task {name} panicked: the process ends");
                drain.force();
            }
        });
    }

    /// Spawns a task whose panic is its own: a connection, a request. Many of them may live.
    pub fn spawn_isolated(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Resolves when every task has ended, or soon after they were told to stop at once.
    pub async fn finished(&self) -> Outcome {
        self.tasks.close();
        let patience = async {
            self.forced().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let all_ended = tokio::select! {
            () = self.tasks.wait() => true,
            () = patience => false,
        };
        if all_ended && !self.is_forced() { Outcome::Clean } else { Outcome::Forced }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_task() {
        let drain = Drain::default();
        let inner = drain.clone();
        drain.spawn("worker", async move { inner.requested().await });
        drain.request();
        assert_eq!(drain.finished().await, Outcome::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_left() {
        let drain = Drain::default();
        drain.spawn("deaf", std::future::pending());
        drain.force();
        assert_eq!(drain.finished().await, Outcome::Forced);
    }

    #[tokio::test]
    async fn a_panic_ends_the_process() {
        let drain = Drain::default();
        drain.spawn("broken", async { panic!("on purpose") });
        drain.forced().await;
        assert_eq!(drain.finished().await, Outcome::Forced);
    }
}
