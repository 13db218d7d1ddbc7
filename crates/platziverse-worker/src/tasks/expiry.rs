//! Commands whose time has come without an end.

use std::time::Duration;

use platziverse_service::{Drain, Latch, chain, clock};
use platziverse_store::Store;
use platziverse_store::commands::{self, EXPIRE_MAX};

/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Ends them until the process is to end, and so sees whether the database is there while nothing
/// else is to be done.
pub(super) async fn run(store: Store, latch: Latch, drain: Drain) {
    let looking = async {
        loop {
            let more = look(&store, &latch).await;
            if !more {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = drain.requested() => {}
    }
}

/// Whether there may be more of them.
async fn look(store: &Store, latch: &Latch) -> bool {
    match commands::expire(store, clock::now()).await {
        Ok(ended) => {
            latch.ready();
            for id in &ended {
                tracing::info!(%id, "a command has timed out");
            }
            ended.len() == EXPIRE_MAX
        }
        Err(error) => {
            latch.not_ready(chain(&error));
            false
        }
    }
}
