//! Many who ask as fast as they are answered, for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::usage;

/// How often it is looked at how far they are.
const LOOK: Duration = Duration::from_millis(10);
/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all of them share.
#[derive(Debug)]
pub(crate) struct Load {
    begun: AtomicU64,
    done: AtomicU64,
    over: watch::Sender<bool>,
}

/// When it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    /// It ends when so many are done.
    pub(crate) most: u64,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// A second.
    pub(crate) rate: f64,
    /// Processor time of the server for each, in microseconds.
    pub(crate) each: f64,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self { begun: AtomicU64::new(0), done: AtomicU64::new(0), over: watch::Sender::new(false) }
    }

    /// The number of the next one, from 0 on; none when it is over.
    pub(crate) fn next(&self) -> Option<u64> {
        (!self.is_over()).then(|| self.begun.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes that one is done.
    pub(crate) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are done.
    pub(crate) fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Resolves when it is over.
    pub(crate) async fn over(&self) {
        // The sender is here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Lets the tasks go on for a while and counts, then has them end. One that fails, or does not
    /// end, is no figure.
    pub(crate) async fn run(
        &self,
        mut tasks: JoinSet<Result<(), String>>,
        server: u32,
        window: Window,
    ) -> Result<Counted, String> {
        self.pass(&mut tasks, window.warm_up, window.most).await?;
        let (begun, before, used) =
            (Instant::now(), self.count(), usage::processor_time(&[server]));
        self.pass(&mut tasks, window.time, window.most).await?;
        let (done, seconds) = (self.count() - before, begun.elapsed().as_secs_f64());
        let used = usage::processor_time(&[server]).saturating_sub(used);
        self.over.send_replace(true);
        let ended = timeout(PATIENCE, async {
            while let Some(ended) = tasks.join_next().await {
                result(ended)?;
            }
            Ok::<_, String>(())
        });
        ended.await.map_err(|_| format!("there was no answer within {PATIENCE:?}"))??;
        if done == 0 {
            return Err("nothing was done while it counted".to_owned());
        }
        let each = used.as_secs_f64() * 1e6 / done as f64;
        Ok(Counted { rate: done as f64 / seconds, each })
    }

    async fn pass(
        &self,
        tasks: &mut JoinSet<Result<(), String>>,
        time: Duration,
        most: u64,
    ) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end && self.count() < most {
            sleep(LOOK).await;
            while let Some(ended) = tasks.try_join_next() {
                result(ended)?;
            }
        }
        Ok(())
    }
}

/// What a task came to.
pub(crate) fn result(ended: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    ended.unwrap_or_else(|error| Err(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn window(most: u64) -> Window {
        Window { warm_up: Duration::ZERO, time: Duration::from_secs(60), most }
    }

    #[tokio::test]
    async fn it_ends_when_all_is_done() {
        let load = Arc::new(Load::new());
        let mut tasks = JoinSet::new();
        let of_task = Arc::clone(&load);
        tasks.spawn(async move {
            sleep(LOOK).await;
            while of_task.next().is_some() {
                of_task.done();
                sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        });
        let counted = load.run(tasks, std::process::id(), window(5)).await.unwrap();
        assert!(load.count() >= 5 && counted.rate > 0.0, "{counted:?}");
    }

    #[tokio::test]
    async fn what_fails_is_no_figure() {
        let load = Load::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { Err("broken".to_owned()) });
        let failed = load.run(tasks, std::process::id(), window(5)).await.unwrap_err();
        assert_eq!(failed, "broken");
    }
}
