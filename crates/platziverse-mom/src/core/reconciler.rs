//! Finishing what servers have left half-done, and forgetting what is old.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use platziverse_service::{Latch, Service, chain, clock};
use platziverse_store::StoreError;
use platziverse_store::mom::{self, Unfinished};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Core;
use crate::core::changes::claim;

/// How often it is looked for what is half-done.
const EVERY: Duration = Duration::from_secs(5);
/// What is younger is left to whoever has begun it.
const AGE: Duration = Duration::from_secs(10);
/// Changes that are taken up at once.
const CHANGES_MAX: u32 = 50;
/// Changes that are made side by side.
const SIDE_BY_SIDE: usize = 8;
/// Publishes that are forgotten at once.
const PUBLISHES_MAX: u32 = 10_000;
/// How many looks there are from one forgetting to the next.
const FORGET_EVERY: u32 = 12;

pub(super) fn start(core: &Core, service: &Service) {
    let latch = service.readiness.latch("postgresql");
    let core = core.clone();
    let drain = service.drain.clone();
    service.drain.spawn("reconciler", async move {
        tokio::select! {
            () = run(core, latch) => {}
            () = drain.requested() => {}
        }
    });
}

async fn run(core: Core, latch: Latch) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: u32 = 0;
    loop {
        ticks.tick().await;
        let done = look(&core, looks.is_multiple_of(FORGET_EVERY)).await;
        match &done {
            Ok(()) => latch.ready(),
            Err(error) => latch.not_ready(chain(error)),
        }
        looks = looks.wrapping_add(1);
    }
}

async fn look(core: &Core, forgets: bool) -> Result<(), StoreError> {
    if forgets {
        // It grows also while PostgreSQL is away.
        core.inner.limits.forget();
    }
    loop {
        let until = claim();
        let changes = mom::claim_unfinished(&core.inner.store, AGE, CHANGES_MAX).await?;
        let found = changes.len();
        let finishing =
            stream::iter(changes).map(|change| async move { finish(core, &change, until).await });
        let finished: Vec<bool> = finishing.buffer_unordered(SIDE_BY_SIDE).collect().await;
        // What cannot be finished yet would only be met again.
        if found < CHANGES_MAX as usize || !finished.contains(&true) {
            break;
        }
    }
    if forgets { forget_publishes(core).await } else { Ok(()) }
}

/// Whether it is finished.
async fn finish(core: &Core, change: &Unfinished, until: Instant) -> bool {
    match core.finish(change, until).await {
        Ok(true) => {
            core.inner.metrics.reconciled.inc();
            tracing::info!("finished what was half-done: {change}");
            true
        }
        Ok(false) => {
            tracing::info!("what is half-done waits for others who may be at it: {change}");
            false
        }
        Err(refusal) => {
            tracing::warn!("what is half-done cannot be finished yet: {change}: {refusal}");
            false
        }
    }
}

async fn forget_publishes(core: &Core) -> Result<(), StoreError> {
    let window = core.inner.settings.idempotency_window;
    let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    let before = clock::now().plus_millis(-window);
    let most = u64::from(PUBLISHES_MAX);
    while mom::forget_publishes(&core.inner.store, before, PUBLISHES_MAX).await? >= most {}
    Ok(())
}
