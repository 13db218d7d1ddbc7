//! Waiting for a condition instead of for a time.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a test waits for what should come at once: long, since test machines are slow and a
/// deadline that is not met costs a wrong alarm.
pub const PATIENCE: Duration = Duration::from_secs(60);

const INTERVAL: Duration = Duration::from_millis(50);

/// Tries `attempt` until it succeeds; fails the test with its last error after `deadline`.
pub async fn eventually<T, F, Fut>(what: &str, deadline: Duration, mut attempt: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if Instant::now() >= end => {
                panic!("not within {deadline:?}: {what}: {error}")
            }
            Err(_) => sleep(INTERVAL).await,
        }
    }
}

/// `Ok` if the condition is true, else what was seen instead.
pub fn check(condition: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen()) }
}
