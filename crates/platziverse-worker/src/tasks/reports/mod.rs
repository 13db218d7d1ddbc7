//! What gateways and agents say of commands: an agent listens, has a command, has answered it.
//!
//! Reports come in any order, and more than once. A report is acknowledged when the rows have it,
//! and what an agent that begins to listen has missed is with RabbitMQ.

mod judge;

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use platziverse_broker::{Deliveries, Delivery, Outcome, Publisher, topology};
use platziverse_protocol::command::{AgentCommand, Instruction};
use platziverse_protocol::record::lines;
use platziverse_protocol::time::Timestamp;
use platziverse_service::books::Books;
use platziverse_service::clock;
use platziverse_store::commands::{self, Command, CommandState, Step, UNDELIVERED_MAX};
use tokio::sync::oneshot;

use self::judge::{News, Unusable, judge};
use super::agents;
use super::books::ReportFate;
use super::rows::Rows;
use crate::letters::{GivenUp, letter};
use crate::patience::Abandoned;

/// Deliveries that are held at a time.
pub(super) const PREFETCH: u16 = 64;
/// Rows that are written, and agents that are looked after, at a time.
const AT_ONCE: usize = 8;

/// Carries reports out.
pub(super) struct Reports {
    pub(super) rows: Rows,
    pub(super) publisher: Publisher<oneshot::Sender<Outcome>>,
    pub(super) books: Books<ReportFate>,
}

/// What became of the lines of some deliveries.
#[derive(Debug, Default)]
struct Tally {
    applied: u64,
    ignored: u64,
    dead: u64,
}

impl Reports {
    /// Carries out what comes until the process is to end.
    pub(super) async fn run(self, mut deliveries: Deliveries) {
        while let Some(first) = deliveries.next().await {
            let mut batch = vec![first];
            batch.extend(std::iter::from_fn(|| deliveries.try_next()).take(PREFETCH.into()));
            if self.settle(&batch).await.is_err() {
                return;
            }
        }
    }

    async fn settle(&self, batch: &[Delivery]) -> Result<(), Abandoned> {
        let count = batch.iter().map(|delivery| lines(&delivery.body).count() as u64).sum();
        self.books.enter(count);
        let carried_out = tokio::select! {
            carried_out = self.carry_out(batch) => carried_out,
            () = self.rows.drain.forced() => Err(Abandoned),
        };
        match carried_out {
            Ok(tally) => {
                self.books.settle(ReportFate::Applied, tally.applied);
                self.books.settle(ReportFate::Ignored, tally.ignored);
                self.books.settle(ReportFate::DeadLettered, tally.dead);
                if let Some(last) = batch.last() {
                    last.ack_multiple().await;
                }
                Ok(())
            }
            Err(Abandoned) => {
                self.books.settle(ReportFate::Requeued, count);
                Err(Abandoned)
            }
        }
    }

    async fn carry_out(&self, batch: &[Delivery]) -> Result<Tally, Abandoned> {
        let (mut tally, mut listening, mut steps) = (Tally::default(), Vec::new(), Vec::new());
        for delivery in batch {
            for line in lines(&delivery.body) {
                match judge(line) {
                    Ok(News::Listening(agent)) => listening.push(agent),
                    Ok(News::Nothing) => tally.ignored += 1,
                    Ok(news) => steps.push(news),
                    Err(unusable) => {
                        self.bury(delivery, line, unusable).await?;
                        tally.dead += 1;
                    }
                }
            }
        }
        // Before it is asked what an agent does not have: it may have it by now.
        let written = stream::iter(steps).map(|news| self.advance(news)).buffer_unordered(AT_ONCE);
        let changed: Vec<bool> = written.try_collect().await?;
        let applied = changed.iter().filter(|changed| **changed).count();
        tally.applied += (applied + listening.len()) as u64;
        tally.ignored += (changed.len() - applied) as u64;
        self.catch_up(&listening).await?;
        Ok(tally)
    }

    /// Writes what is said of a command, and answers whether that changed its row.
    async fn advance(&self, news: News) -> Result<bool, Abandoned> {
        match news {
            News::Delivered { agent, id, at } => {
                let step = Step { target: Some(&agent), ..Step::to(CommandState::Delivered, at) };
                self.rows.advance(id, step).await
            }
            News::Answered { agent, id, at, outcome } => {
                let error = outcome.as_ref().err().map(String::as_str);
                let result = outcome.as_ref().ok().and_then(Option::as_deref);
                let to =
                    if error.is_some() { CommandState::Failed } else { CommandState::Succeeded };
                let result = result.map(serde_json::value::RawValue::get);
                let step = Step { target: Some(&agent), result, error, ..Step::to(to, at) };
                let changed = self.rows.advance(id, step).await?;
                if !changed {
                    tracing::debug!(agent, %id, "an answer to a command that has ended, or is none");
                }
                Ok(changed)
            }
            News::Listening(_) | News::Nothing => Ok(false),
        }
    }

    /// Sends agents what was sent to them and did not reach them.
    async fn catch_up(&self, listening: &[String]) -> Result<(), Abandoned> {
        if listening.is_empty() {
            return Ok(());
        }
        let agents: Vec<&str> = listening.iter().map(String::as_str).collect();
        let ask = || commands::with_undelivered(&self.rows.store, &agents).boxed();
        // A question has no data that PostgreSQL could refuse for good.
        let waiting = self.rows.ask(ask).await?.unwrap_or_default();
        let sending = stream::iter(waiting).map(|agent| self.send_again(agent));
        sending.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn send_again(&self, agent: String) -> Result<(), Abandoned> {
        let mut after = None;
        loop {
            let ask = || commands::undelivered(&self.rows.store, &agent, after).boxed();
            let page = self.rows.ask(ask).await?.unwrap_or_default();
            let now = clock::now();
            let again = page.iter().filter_map(|command| outgoing(&agent, command, now));
            self.publisher.publish_all(again.collect()).await.map_err(|_| Abandoned)?;
            after = page.last().map(|command| command.id);
            if page.len() < UNDELIVERED_MAX {
                return Ok(());
            }
        }
    }

    async fn bury(
        &self,
        delivery: &Delivery,
        line: &[u8],
        unusable: Unusable,
    ) -> Result<(), Abandoned> {
        let letter = letter(&GivenUp {
            line,
            id: unusable.id,
            reason: unusable.reason,
            error: &unusable.error,
            // Sent back, it is no news for anybody else.
            exchange: topology::REPORTS,
            key: &delivery.routing_key,
            app_id: delivery.app_id(),
        });
        self.publisher.publish_all(vec![letter]).await.map_err(|_| Abandoned)
    }
}

/// A command as it is sent again, unless it comes too late.
fn outgoing(
    agent: &str,
    command: &Command,
    now: Timestamp,
) -> Option<(platziverse_broker::Lane, uuid::Uuid, bytes::Bytes)> {
    if command.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return None;
    }
    // It was sent before: the row has what the handler has read.
    let Instruction { name, payload } = serde_json::from_str(command.payload.get()).ok()?;
    let (id, expires) = (command.id, command.expires_at);
    let command = AgentCommand { id, name: &name, payload: &payload, expires };
    agents::outgoing(agent, &command, now).ok()
}
