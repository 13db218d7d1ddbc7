//! Workers that are frozen while they write: nothing else takes from them what others wait for.

use std::time::{Duration, Instant};

use platziverse_service::chain;
use platziverse_store::StoreError;
use platziverse_store::sweep::Leader;

/// How often they are looked for.
const EVERY: Duration = Duration::from_secs(5);
/// How soon again after PostgreSQL refused, as when the role may not end sessions.
const AGAIN: Duration = Duration::from_secs(60);

/// Looks for frozen workers from time to time.
#[derive(Default)]
pub(super) struct FrozenWatch {
    due: Option<Instant>,
}

impl FrozenWatch {
    /// Looks for them, if it is time. That PostgreSQL refuses does not keep the sweep from going on.
    pub(super) async fn look(&mut self, leader: &Leader) -> Result<(), StoreError> {
        if self.due.is_some_and(|due| Instant::now() < due) {
            return Ok(());
        }
        let wait = match leader.end_frozen().await {
            Ok(ended) => {
                for one in &ended {
                    let (pid, application) = (one.pid, one.application_name.as_str());
                    tracing::warn!(
                        pid,
                        application,
                        "a worker sent only a part of a statement, as a frozen one does: its \
                         session in PostgreSQL was ended, so that others need not wait for it"
                    );
                }
                EVERY
            }
            Err(error) if error.sqlstate().is_some() => {
                tracing::warn!("frozen workers cannot be looked for: {}", chain(&error));
                AGAIN
            }
            Err(error) => return Err(error),
        };
        self.due = Some(Instant::now() + wait);
        Ok(())
    }
}
