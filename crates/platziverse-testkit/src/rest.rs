//! Waiting until everything that was sent has come to its end.

use std::time::Duration;

use tokio::time::sleep;

use crate::{Balance, PATIENCE, Process, World, check, eventually};

const INGEST: &str = "platziverse.ingest";

/// Longer than a delivery takes from RabbitMQ to a worker: on its way it is nobody's.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl World {
    /// Waits until nothing is on its way any more: `services` hold nothing, the ingest queue is
    /// empty, and nothing has come in between two looks. `services` must be all that run here.
    pub async fn at_rest(&self, services: &[&Process]) {
        eventually("everything is at rest", PATIENCE * 3, || async {
            let first = self.look(services).await?;
            sleep(BETWEEN_LOOKS).await;
            let second = self.look(services).await?;
            check(first == second, || format!("{first:?}, then {second:?}"))
        })
        .await;
    }

    /// The books, if nothing is in flight and nothing waits.
    async fn look(&self, services: &[&Process]) -> Result<Vec<Balance>, String> {
        let mut books = Vec::new();
        for service in services {
            let balance = service.books().await?;
            check(balance.in_flight == 0.0, || format!("{}: {balance:?}", service.name()))?;
            books.push(balance);
        }
        // Looked at last: what is looked at is for a moment nobody's.
        let waiting = self.rabbitmq().try_peek(INGEST, 1).await?;
        check(waiting.is_empty(), || format!("messages wait in {INGEST}"))?;
        Ok(books)
    }
}
