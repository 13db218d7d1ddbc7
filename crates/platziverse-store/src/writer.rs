//! The batch writer: one transaction for everything that a worker has gathered.
//!
//! Agents are raised by one upsert, metrics are added by one COPY, or, when that meets a duplicate,
//! by one INSERT that skips duplicates. Agents come last if their ids are known already: their
//! rows are locked from then until the commit, and other writers want the same rows.

use std::future::Future;

use futures_util::future::{join, try_join4};
use platziverse_config::DatabaseConfig;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::agents::{self, AgentIds};
use crate::batch::Batch;
use crate::connection::{DEADLINE_MARGIN, Link};
use crate::error::{StoreError, chain, is_agent_id_taken, may_pass};
use crate::metrics::{self, Inserted, Measured};
use crate::sighting::{Sighting, Written};
use crate::times;

/// A connection that stores batches, one at a time. It connects by itself, when it is first needed
/// and whenever it has lost its connection.
pub struct Writer {
    config: DatabaseConfig,
    application_name: String,
    session: Option<Session>,
    ids: AgentIds,
}

impl Writer {
    /// A writer that has not connected yet. `application_name` is what `pg_stat_activity` shows.
    pub fn new(config: &DatabaseConfig, application_name: &str) -> Self {
        Self {
            config: config.clone(),
            application_name: application_name.to_owned(),
            session: None,
            ids: AgentIds::default(),
        }
    }

    /// Whether the next [`write`](Self::write) finds a connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.link.client.is_closed())
    }

    /// Whether the database answers; connects if that is needed. Takes at most twice the connect
    /// timeout and 5 s.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        let session = self.take_session().await?;
        let asked = session.link.client.batch_execute("SELECT 1");
        let after = DEADLINE_MARGIN;
        let answer = session.link.within_time("asking for a sign of life", after, asked).await;
        match answer {
            Ok(()) => self.session = Some(session),
            Err(_) => session.link.kill(),
        }
        answer
    }

    /// Stores all of them or none. Storing one again, at any time and by any writer, changes
    /// nothing.
    ///
    /// After an error the writer is usable: it has rolled back, or it will connect again. An error
    /// that [is transient](StoreError::is_transient) says nothing against the sightings; whether
    /// the transaction was committed may be unknown, so the same sightings must be written again.
    /// Takes at most twice the connect timeout, the statement timeout and 10 s. Dropping the
    /// future gives the transaction up.
    pub async fn write(&mut self, sightings: &[Sighting<'_>]) -> Result<Written, StoreError> {
        if sightings.is_empty() {
            return Ok(Written::default());
        }
        let session = self.take_session().await?;
        let after = session.link.deadline;
        let written = timeout(after, session.write(sightings, &mut self.ids)).await;
        let Ok(result) = written else {
            let error = session.link.late(STORING, after);
            session.link.kill();
            self.ids.forget();
            return Err(error);
        };
        if result.is_err() {
            self.ids.forget();
        }
        if result.is_ok() || session.rollback().await.is_ok() {
            self.session = Some(session);
        }
        result
    }

    /// Taken out, so that a future dropped half-way leaves no half-done transaction behind.
    async fn take_session(&mut self) -> Result<Session, StoreError> {
        match self.session.take().filter(|session| !session.link.client.is_closed()) {
            Some(session) => Ok(session),
            None => Session::open(&self.config, &self.application_name).await,
        }
    }
}

const STORING: &str = "storing a batch";

/// How metrics are added.
#[derive(Clone, Copy)]
enum Adding {
    /// Fast, and fails as a whole on a duplicate.
    Copy,
    SkippingDuplicates,
}

impl Adding {
    /// Duplicates that are skipped violate nothing: what does is a row that an index of somebody
    /// else's refuses, which is the data's trouble.
    fn may_have_met_duplicate(self, error: &Error) -> bool {
        matches!(self, Self::Copy) && error.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }
}

/// Tries for one batch: it may meet a duplicate, a deleted agent, and several new partitions.
const TRIES: usize = 8;

/// A connection with everything prepared.
struct Session {
    link: Link,
    upsert: Statement,
    copy: Statement,
    insert: Statement,
    keep_times: Statement,
}

impl Session {
    async fn open(config: &DatabaseConfig, application_name: &str) -> Result<Self, StoreError> {
        let link = Link::open(config, application_name).await?;
        let prepared = try_join4(
            link.client.prepare(agents::UPSERT),
            link.client.prepare(metrics::COPY),
            link.client.prepare(metrics::INSERT),
            link.client.prepare(times::KEEP),
        );
        let (upsert, copy, insert, keep_times) =
            link.within_time("preparing to store", config.connect_timeout, prepared).await?;
        Ok(Self { link, upsert, copy, insert, keep_times })
    }

    /// Leaves its transaction open if it fails.
    async fn write(
        &self,
        sightings: &[Sighting<'_>],
        ids: &mut AgentIds,
    ) -> Result<Written, StoreError> {
        let failed = |error| self.link.failed(STORING, error);
        let mut batch = Batch::of(sightings);
        let (mut adding, mut passing, mut caught_up) = (Adding::Copy, None, false);
        for _ in 0..TRIES {
            match self.attempt(&mut batch, ids, adding).await {
                Ok(Some(inserted)) => return Ok(batch.written(&inserted)),
                Ok(None) => passing = None,
                Err(error) if may_pass(&error) => passing = Some(error),
                Err(error) if adding.may_have_met_duplicate(&error) => {
                    adding = Adding::SkippingDuplicates;
                }
                Err(error) => return Err(failed(error)),
            }
            ids.forget();
            self.rollback().await?;
            if !caught_up && passing.as_ref().is_some_and(is_agent_id_taken) {
                caught_up = true;
                self.catch_up().await?;
            }
        }
        let unsettled = || StoreError::Unsettled { address: self.link.address.clone() };
        Err(passing.map_or_else(unsettled, failed))
    }

    /// One transaction. Answers nothing, and leaves it open, if an agent's id turned out wrong.
    async fn attempt(
        &self,
        batch: &mut Batch<'_>,
        ids: &mut AgentIds,
        adding: Adding,
    ) -> Result<Option<Inserted>, Error> {
        let mut transaction = Transaction { client: &self.link.client, begun: false };
        self.leave_out_known(&mut transaction, &mut batch.messages).await?;
        let known = !batch.messages.is_empty() && ids.knows_all(&batch.agents);
        if !known {
            let rows = transaction.run(self.upsert(batch)).await?;
            ids.remember(&rows);
        }
        if !batch.assign(|uuid| ids.get(uuid)) {
            return Ok(None);
        }
        let inserted = self.add(&mut transaction, batch, adding).await?;
        if known {
            let rows = transaction.run(self.upsert(batch)).await?;
            if !ids.confirmed_by(&rows) {
                return Ok(None);
            }
        }
        transaction.commit().await?;
        Ok(Some(inserted))
    }

    fn upsert(&self, batch: &Batch<'_>) -> impl Future<Output = Result<Vec<Row>, Error>> {
        agents::upsert(&self.link.client, &self.upsert, batch.agent_columns())
    }

    /// The primary key of `metrics` cannot tell an untimed message that is sent again from another
    /// one, so their ids are kept beside it.
    async fn leave_out_known(
        &self,
        transaction: &mut Transaction<'_>,
        messages: &mut Vec<Measured<'_>>,
    ) -> Result<(), Error> {
        let untimed = times::untimed(messages);
        if untimed.is_empty() {
            return Ok(());
        }
        let keeping = times::keep(&self.link.client, &self.keep_times, &untimed);
        times::leave_out_known(messages, &transaction.run(keeping).await?);
        Ok(())
    }

    async fn add(
        &self,
        transaction: &mut Transaction<'_>,
        batch: &Batch<'_>,
        adding: Adding,
    ) -> Result<Inserted, Error> {
        let client = &self.link.client;
        if batch.messages.is_empty() {
            return Ok(Inserted { rows: 0, messages: 0 });
        }
        match adding {
            Adding::Copy => {
                let sink = transaction.run(client.copy_in(&self.copy)).await?;
                let rows = metrics::copy(sink, batch.metric_chunks()).await?;
                Ok(Inserted { rows, messages: batch.messages.len() as u64 })
            }
            Adding::SkippingDuplicates => {
                let columns = batch.metric_columns();
                transaction.run(metrics::insert(client, &self.insert, columns)).await
            }
        }
    }

    /// Moves the sequence of the agents' numbers past those in use. Whoever may not do that tries
    /// the next numbers one by one.
    async fn catch_up(&self) -> Result<(), StoreError> {
        match self.link.client.batch_execute(agents::CATCH_UP).await {
            Ok(()) => {
                tracing::warn!("the sequence of agents.id was behind: it is moved past its rows");
                Ok(())
            }
            Err(error) => {
                let text = chain(&error);
                tracing::warn!("the sequence of agents.id is behind and cannot be moved: {text}");
                self.rollback().await
            }
        }
    }

    async fn rollback(&self) -> Result<(), StoreError> {
        let rollback = self.link.client.batch_execute("ROLLBACK");
        self.link.within_time("rolling back", DEADLINE_MARGIN, rollback).await
    }
}

/// Begins with its first statement, in the same round trip.
struct Transaction<'a> {
    client: &'a Client,
    begun: bool,
}

impl Transaction<'_> {
    async fn run<T>(
        &mut self,
        statement: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.begun {
            return statement.await;
        }
        self.begun = true;
        // `join` polls, thus sends, in this order.
        let (begun, result) = join(self.client.batch_execute("BEGIN"), statement).await;
        begun?;
        result
    }

    async fn commit(self) -> Result<(), Error> {
        self.client.batch_execute("COMMIT").await
    }
}
